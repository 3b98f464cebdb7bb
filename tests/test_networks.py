"""Any-to-any networks: what must hold whatever the weights, and what a small one learns of Gaussians."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import NetworkError, TokenError
from emuinfer.networks import (
    AnyToAny,
    AnyToAnyConfig,
    Masking,
    Network,
    Recipe,
    View,
    heads,
    load_network,
    save_network,
    train_any_to_any,
)
from emuinfer.networks.draws import draws_of_one, log_density
from emuinfer.networks.masking import MaskedRows
from emuinfer.tokens import Kind, TokenSet, Vocabulary
from emuinfer.training import LoopConfig

SIZES = AnyToAnyConfig(width=32, heads=2, latents=4, depth=1, decoder_depth=1, features=2)
KINDS = [
    *(
        Kind(f"bin_{i}", "", "bins", "log", wavelength=4000.0 + 500 * i, width=500.0, relative=True, head="student")
        for i in range(6)
    ),
    Kind("colour", "mag", "colours"),
    Kind("teff", "K", "labels", "log", centre=8.6, scale=0.2, lower=3000.0, upper=10000.0),
    Kind("logg", "dex", "labels", centre=4.0, scale=0.5),
]
VOCABULARY = Vocabulary(KINDS, "toy")
K = len(KINDS)


def jiggled(net, scale=0.3):
    """Weights that are not those of the start, where all answers are alike."""
    leaves, structure = jax.tree.flatten(eqx.filter(net, eqx.is_inexact_array))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    new = [a + scale * jax.random.normal(k, a.shape) / max(a.shape[0], 1) ** 0.5 for a, k in zip(leaves, keys)]
    return eqx.combine(jax.tree.unflatten(structure, new), net)


@pytest.fixture(scope="module")
def network():
    return Network(jiggled(AnyToAny(K, (7, 8), SIZES, key=jax.random.key(0))), VOCABULARY, {})


@pytest.fixture(scope="module", params=[0, 1], ids=["read once", "read again"])
def net(request):
    sizes = dataclasses.replace(SIZES, depth=2, rereads=request.param)
    return jiggled(AnyToAny(K, (7, 8), sizes, key=jax.random.key(0)))


@pytest.fixture(scope="module")
def encode(net):
    return eqx.filter_jit(net.encode)


X = jnp.asarray(np.random.default_rng(0).normal(size=K), jnp.float32)
E = jnp.full(K, 0.1)


def test_a_value_that_is_not_seen_never_matters(encode):
    seen = jnp.arange(K) % 2 == 0
    wild = jnp.where(seen, X, jnp.nan)
    assert np.array_equal(encode(X, E, seen), encode(wild, jnp.where(seen, E, jnp.inf), seen))


def test_an_error_that_grows_takes_the_element_out(encode):
    everything, without = jnp.ones(K, bool), jnp.arange(K) != 3
    bare = encode(X, E, without)
    distance = [float(jnp.abs(encode(X, E.at[3].set(e), everything) - bare).max()) for e in (0.1, 1.0, 10.0, 1e3, 1e6)]
    assert distance[0] > 0.01 and distance[-1] < 1e-4
    assert distance[1:] == sorted(distance[1:], reverse=True)


def test_the_order_of_the_kinds_does_not_matter(net, encode):
    """A network whose tables are permuted gives the same to permuted values."""
    order = np.random.default_rng(1).permutation(K)
    tables = ("slope", "offset", "vectors")
    where = lambda net: [getattr(net.tokens, name) for name in tables]
    permuted = eqx.tree_at(where, net, [a[order] for a in where(net)])
    if net.rereads is not None:
        again = lambda net: [
            *(getattr(net.rereads.tokens, name) for name in tables),
            net.rereads.expected,
            net.rereads.log_scale,
        ]
        permuted = eqx.tree_at(again, permuted, [a[order] for a in again(net)])
    seen = jnp.arange(K) != 2
    found = eqx.filter_jit(permuted.encode)(X[order], E[order], seen[order])
    assert np.allclose(found, encode(X, E, seen), atol=1e-5)


def test_gradients_are_finite_with_nothing_seen(net, network):
    def loss(net):
        latents = net.encode(X * jnp.nan, E * jnp.nan, jnp.zeros(K, bool))
        given = jnp.full(2, jnp.nan), jnp.full(2, jnp.nan)
        outputs = net.decode(latents, jnp.arange(K), *given, jnp.zeros((K, 2), bool))
        return heads.log_prob(outputs, X, E, jnp.asarray(network.heads)).sum()

    grads = jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(loss))(net))
    assert all(np.isfinite(g).all() for g in grads)


def test_many_objects_at_once_are_as_each_alone(net):
    random = np.random.default_rng(4)
    x, seen = jnp.asarray(random.normal(size=(3, K)), jnp.float32), jnp.asarray(random.random((3, K)) < 0.6)
    asked, known = jnp.asarray(random.integers(0, K, (3, 4))), jnp.asarray(random.random((3, 4, 2)) < 0.5)

    @jax.jit
    def both():
        at_once = net.decode(net.encode(x, 0 * x + 0.1, seen), asked, x[:, 7:], 0 * x[:, 7:], known)
        alone = lambda x, seen, asked, known: net.decode(
            net.encode(x, 0 * x + 0.1, seen), asked, x[7:], 0 * x[7:], known
        )
        return at_once, jax.vmap(alone)(x, seen, asked, known)

    np.testing.assert_allclose(*both(), atol=1e-4)


def test_joint_draws_have_the_density_that_is_told(network):
    """The density of two labels integrates to 1 on a grid, and the draws follow it."""
    seen, kinds = jnp.arange(K) < 6, jnp.asarray(network.heads)
    grid = jnp.linspace(-9, 9, 241)
    values = jnp.stack(jnp.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    told_of = eqx.filter_jit(lambda net, v: log_density(net, X, E, seen, (7, 8), kinds, v))
    density = np.exp(told_of(network.net, values)).reshape(241, 241)
    step = float(grid[1] - grid[0])
    assert np.isclose(density.sum() * step**2, 1, atol=0.01)
    draw = eqx.filter_jit(lambda net, key: draws_of_one(net, key, X, E, seen, (7, 8), kinds, 4000))
    drawn, told = draw(network.net, jax.random.key(2))
    again = told_of(network.net, drawn)
    assert np.allclose(told, again, atol=2e-3)
    expected = (density.sum(0) * grid).sum() * step**2
    assert abs(float(drawn[:, 1].mean() - expected)) < 5 * float(drawn[:, 1].std()) / 63


def toy(n, seed=0):
    """Stars whose ln flux is linear in two labels, with noise."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(n, 2))
    slopes = np.linspace(-1, 1, 6)
    flux = np.exp(z[:, :1] * slopes + 0.3 * z[:, 1:] * slopes**2 + 0.05 * generator.normal(size=(n, 6)))
    colour = z[:, 0] + 0.3 * generator.normal(size=n)
    values = np.column_stack(
        [flux * generator.uniform(0.1, 10, (n, 1)), colour, np.exp(8.6 + 0.2 * z[:, 0]), 4 + 0.5 * z[:, 1]]
    )
    return TokenSet(VOCABULARY, values)


RECIPE = Recipe(
    SIZES,
    Masking(
        (View(0.7, ("bins",), ("bins", "colours")), View(0.3, (), ("bins", "colours"), labels=0.8)),
        ("colours",),
        questions=4,
    ),
    LoopConfig(
        steps=300,
        batch=128,
        warmup=20,
        learning_rate=1e-2,
        optimiser="muon",
        validate_every=300,
        checkpoint_every=150,
        average=0.98,
    ),
)


@pytest.fixture(scope="module")
def trained():
    return train_any_to_any(toy(4000), RECIPE, progress=False)


def test_a_target_is_never_in_its_context():
    rows = MaskedRows(toy(50), RECIPE.masking)
    for step in range(20):
        b = rows.batch(step, 40)
        assert not (np.take_along_axis(b.seen, b.asked, 1) & b.valid).any()
        own = b.known[:, np.arange(2), np.arange(2)]
        assert not own.any(), "a label knows itself"
        assert all(len(set(row)) == len(row) for row in b.asked)


def test_batches_are_a_function_of_the_step():
    one, two = MaskedRows(toy(50), RECIPE.masking), MaskedRows(toy(50), RECIPE.masking)
    one.batch(3, 8)
    assert all(np.array_equal(a, b) for a, b in zip(one.batch(7, 8), two.batch(7, 8)))


def test_levels_are_of_what_is_seen():
    """Seen relative kinds have the mean 0, so that those hidden cannot tell through the level."""
    b = MaskedRows(toy(50), dataclasses.replace(RECIPE.masking, noisier=0.0)).batch(0, 64)
    bins = np.where(b.seen[:, :6], b.x[:, :6], np.nan)
    some = b.seen[:, :6].any(1)
    assert np.allclose(np.nanmean(bins[some], 1), 0, atol=1e-5)


def test_answers_are_as_good_as_the_posterior(trained):
    """Means and widths against those of the Gaussian posterior, and the same whatever the unit of the flux."""
    tokens = toy(1000, seed=5)
    answer = trained.ask(tokens, ["teff"])
    z = (np.log(tokens.values[:, 7]) - 8.6) / 0.2
    found = (np.log(answer["teff"]) - 8.6) / 0.2
    assert np.std(found - z) < 0.12
    colour_alone = trained.ask(tokens.only(["colour", "teff", "logg"]).without("logg"), "teff")
    r = (np.log(colour_alone["teff"]) - 8.6) / 0.2 - z
    assert 0.27 < np.std(r) < 0.33, "prior 1, noise 0.3: posterior sd 0.287"
    assert np.isclose(np.median(colour_alone.sd[:, 0] / colour_alone.mean[:, 0]) / 0.2, 0.287, atol=0.04)
    scaled = dataclasses.replace(tokens, values=tokens.values * np.where(VOCABULARY.relative, 1e-17, 1))
    assert np.allclose(trained.ask(scaled, ["teff"]).mean, answer.mean, rtol=1e-4)


def test_spectra_from_labels_and_from_the_other_half(trained):
    tokens = toy(200, seed=6)
    flux = trained.ask(tokens, ["bin_3"])  # the noise is 0.05, so 0.034 at best
    assert np.median(np.abs(np.log(flux["bin_3"] / tokens.values[:, 3]))) < 0.1
    emulator = trained.as_emulator(["teff", "logg"], "bins")
    mean, sd = jax.jit(emulator.predict)(jnp.array([np.exp(8.6 + 0.2), 4.0]))
    assert mean.shape == sd.shape == (6,) and np.all(sd > 0)
    assert np.allclose(mean - mean.mean(), np.linspace(-1, 1, 6), atol=0.2)


def test_a_guide(trained):
    tokens = toy(3, seed=7)
    guide = trained.as_guide(tokens[0])
    draws = guide.sample(jax.random.key(0), 500)
    assert guide.names == ("teff", "logg") and draws.shape == (500, 2)
    assert np.isfinite(guide.log_prob(draws)).all() and guide.log_prob(jnp.array([[-5.0, 4.0]]))[0] == -jnp.inf
    # In physical units the density integrates to 1.
    teff, logg = np.linspace(1000, 20000, 500), np.linspace(1, 7, 121)
    values = np.stack(np.meshgrid(teff, logg, indexing="ij"), -1).reshape(-1, 2)
    total = np.exp(np.asarray(guide.log_prob(values), float)).sum() * (teff[1] - teff[0]) * (logg[1] - logg[0])
    assert np.isclose(total, 1, atol=0.03)
    with pytest.raises(TokenError, match="one object"):
        trained.as_guide(tokens)


def test_draws_of_ask(trained):
    answer = trained.ask(toy(3, seed=8), ["teff", "logg"], draws=200)
    assert answer.draws.shape == (3, 200, 2) and answer.log_prob.shape == (3, 200)
    assert np.allclose(answer.draws.mean(1), answer.mean, atol=5 * np.asarray(answer.sd).max(0) / 14)
    assert {"teff", "e_teff", "teff_p16", "logg_p97_5"} <= set(answer.to_table().colnames)


def test_asked_for_what_is_not_there(trained):
    tokens = toy(3)
    with pytest.raises(TokenError, match=r"no kind 'tef'.*teff"):
        trained.ask(tokens, ["tef"])
    with pytest.raises(TokenError, match="nothing is known"):
        trained.ask(tokens.only(["teff"]), ["teff"])


def test_saved_and_loaded(trained, tmp_path):
    card = save_network(trained, tmp_path / "toy", {"title": "Toy"})
    again = load_network(tmp_path / "toy")
    tokens = toy(5, seed=9)
    assert np.array_equal(again.ask(tokens, ["teff"]).mean, trained.ask(tokens, ["teff"]).mean)
    assert again.card["title"] == "Toy" and again.vocabulary == VOCABULARY
    text = json.loads(card.read_text())
    text["vocabulary"]["kinds"][7]["scale"] = 0.3
    card.write_text(json.dumps(text))
    with pytest.raises(NetworkError, match="changed"):
        load_network(tmp_path / "toy")
    text["config"]["rereads"] = -1
    card.write_text(json.dumps(text))
    with pytest.raises(NetworkError, match="rereads = -1"):
        load_network(tmp_path / "toy")
    text["config"]["rereads"] = 0
    text["config"]["width"] = -3
    card.write_text(json.dumps(text))
    with pytest.raises(NetworkError, match="width = -3"):
        load_network(tmp_path / "toy")
    weights = card.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(NetworkError, match="damaged"):
        load_network(tmp_path / "toy")
    with pytest.raises(NetworkError, match="No network 'nothing'"):
        load_network("nothing")


def test_a_killed_training_goes_on(tmp_path):
    recipe = dataclasses.replace(RECIPE, loop=dataclasses.replace(RECIPE.loop, steps=60, batch=16, checkpoint_every=25))
    train = lambda **more: train_any_to_any(toy(500), recipe, progress=False, **more)

    class Killed(Exception):
        pass

    original, calls = MaskedRows.batch, []

    def batch(self, step, n):
        calls.append(step)
        if len(calls) == 40:
            raise Killed
        return original(self, step, n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedRows, "batch", batch)
        with pytest.raises(Killed):
            train(directory=tmp_path)
    again, whole = (jax.tree.leaves(eqx.filter(net.net, eqx.is_array)) for net in (train(directory=tmp_path), train()))
    assert all(np.array_equal(a, b) for a, b in zip(again, whole, strict=True))
