"""The covariance of predictions from labels: what was put into made-up stars comes out, the noise of the labels taken out."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import TokenError
from emuinfer.networks import AnyToAny, AnyToAnyConfig, Network, measure_correlation
from emuinfer.tokens import Kind, TokenSet, Vocabulary

KINDS = [
    Kind(f"bin_{i}", "", "bins", "log", centre=-0.1 * i, scale=0.3, relative=True, head="student") for i in range(6)
]
LABELS = [
    Kind("teff", "K", "labels", "log", 8.6, 0.2, lower=3000.0, upper=9000.0),
    Kind("logg", "", "labels", scale=1.0, centre=4.0, lower=1.0, upper=5.0),
]
VOCABULARY = Vocabulary([*KINDS, Kind("j_k", "mag", "colours", head="student"), *LABELS])
SHARED = np.array([-0.2, -0.1, 0.0, 0.0, 0.1, 0.2, 0.15])  # over the predicted standard deviation


@pytest.fixture(scope="module")
def network():
    sizes = AnyToAnyConfig(width=8, heads=2, latents=2, depth=1, decoder_depth=1, features=1)
    return Network(AnyToAny(9, (7, 8), sizes, key=jax.random.key(3)), VOCABULARY, {})


def stars(network, n=600, seed=1):
    """Spectra of the network's own predictions at labels, with a shared error and each its own; the table's labels are noisy."""
    rng = np.random.default_rng(seed)
    emulator = network.as_emulator("labels", ["bins", "colours"])
    truth = np.stack([np.exp(8.6 + 0.2 * rng.standard_normal(n)), 4 + rng.standard_normal(n)], 1)
    mean, sd = (
        np.asarray(a, float) for a in eqx.filter_jit(jax.vmap(emulator.predict))(jnp.asarray(truth, jnp.float32))
    )
    y = mean + sd * (5 * SHARED * rng.standard_normal((n, 1)) + 0.6 * rng.standard_normal(mean.shape))
    y[:, :6] += rng.normal(size=(n, 1))  # the level, in whatever unit
    y[:, :6] = np.exp(y[:, :6])
    errors = np.full((n, 9), 1e-6)
    return TokenSet(VOCABULARY, np.concatenate([y, truth], 1), errors)


def test_what_was_put_in_comes_out(network):
    found = measure_correlation(network, stars(network), observe=("bins", "colours"), rank=1)
    with_it = dataclasses.replace(network, card={"correlation": found})
    emulator = with_it.as_emulator("labels", ["bins", "colours"])
    sd = np.median(
        [np.asarray(network.as_emulator("labels", ["bins", "colours"]).predict(jnp.array([5400.0, 4.0]))[1])], 0
    )
    first = emulator.factors[:, 0] / sd * np.sign(emulator.factors[-1, 0])
    assert found["kinds"] == list(emulator.kinds) and found["stars"] > 550
    np.testing.assert_allclose(first, 5 * SHARED, atol=0.15)
    np.testing.assert_allclose(emulator.unique[-1], 0.6, atol=0.1)
    assert jax.tree.structure(emulator) == jax.tree.structure(with_it.as_emulator("labels", ["bins", "colours"]))


def test_too_few_stars(network):
    tokens = stars(network, 60)
    with pytest.raises(TokenError, match="have all labels"):
        measure_correlation(network, tokens.without(["logg"]), observe=("bins", "colours"))
