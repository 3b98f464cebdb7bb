"""Heads of networks: distributions against their integrals, moments and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from emuinfer.networks import heads


def test_heads_are_distributions():
    outputs = jnp.asarray(np.random.default_rng(2).normal(size=(2, heads.OUTPUTS)), jnp.float32)
    kinds = jnp.array([heads.MIXTURE, heads.STUDENT])
    y, levels = jnp.linspace(-60, 60, 120001), jnp.array([0.025, 0.5, 0.84])

    @jax.jit
    def found(key):
        density = jnp.exp(heads.log_prob(outputs[:, None], y[None], jnp.zeros((2, 1)), kinds[:, None]))
        q = heads.quantiles(outputs, levels, kinds)
        below = jax.vmap(lambda a: heads.cumulative(outputs, a, kinds))(q)
        draws = jax.vmap(lambda k: heads.sample(k, outputs, kinds))(jax.random.split(key, 20000))
        return density, heads.moments(outputs, kinds), q, below, draws, heads.student(outputs[1])

    density, (mean, sd), q, below, draws, (centre, scale) = jax.device_get(found(jax.random.key(0)))
    assert np.allclose(np.trapezoid(density, y, axis=1), 1, atol=2e-3)
    assert np.allclose(np.trapezoid(density * y, y, axis=1), mean, atol=3e-3)
    assert np.allclose(np.trapezoid(density * (y - mean[:, None]) ** 2, y, axis=1) ** 0.5, sd, rtol=0.01)
    assert np.allclose(below, levels[:, None], atol=1e-4)
    assert np.allclose(q[:, 1], stats.t.ppf(levels, heads.FREEDOM, centre, scale), atol=1e-3)
    assert np.allclose(draws.mean(0), mean, atol=4 * sd / 140)


def test_noise_of_the_answer_is_convolved():
    """A mixture against a numerical convolution with the noise."""
    outputs = jnp.asarray(np.random.default_rng(3).normal(size=heads.OUTPUTS), jnp.float32)
    y = np.linspace(-12, 12, 4801)
    log_prob = jax.jit(heads.log_prob)
    density = np.exp(log_prob(outputs, jnp.asarray(y, jnp.float32), jnp.zeros(len(y)), jnp.array(0)))
    expected = np.trapezoid(density * stats.norm.pdf(0.7, y, 0.8), y)
    found = np.exp(log_prob(outputs, jnp.float32(0.7), jnp.float32(0.8), jnp.array(0)))
    assert np.isclose(found, expected, rtol=1e-3)


def test_classes():
    outputs = jnp.zeros(heads.OUTPUTS).at[3].set(5.0)
    kind = jnp.array(heads.CATEGORICAL)
    log_prob = jax.jit(heads.log_prob)
    probabilities = [
        float(jnp.exp(log_prob(outputs, jnp.float32(i), jnp.float32(0), kind))) for i in range(heads.OUTPUTS)
    ]
    assert np.isclose(sum(probabilities), 1) and np.argmax(probabilities) == 3
    assert heads.moments(outputs, kind)[0] == 3 and heads.sample(jax.random.key(0), outputs, kind) == 3
