"""Correlated pixel noise against dense covariances, and outliers of the kinds that real spectra have."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from tiny import RV, TRUTH, VBROAD, observe

from emuinfer import Observation, StellarSpectrum
from emuinfer.errors import ObservationError
from emuinfer.inference import Unconstrained, compress_star, local_surrogate
from emuinfer.spectra.correlation import Correlation

OPTIONS = {"progress": False, "rv_range": (-60, 60), "line_errors": None}
VALUES = {**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter": -4.0}
LENGTH = 2.5  # pixels


def f32(values):
    return {k: jnp.float32(v) for k, v in values.items()}


def correlation_matrix(n, length=LENGTH):
    i = np.arange(n)
    return np.exp(-np.abs(i[:, None] - i) / length)


@pytest.fixture(scope="module")
def correlated(tiny_emulator):
    """A star with correlated noise and masked pixels, and its model."""
    clean = observe(tiny_emulator, np.inf, grid=tiny_emulator.config.wavelength)
    rng = np.random.default_rng(5)
    sigma = clean.flux / 100 * (1 + 0.5 * rng.random(len(clean)))
    noise = np.linalg.cholesky(correlation_matrix(len(clean))) @ rng.standard_normal(len(clean))
    mask = rng.random(len(clean)) < 0.1
    mask[60:70] = True
    flux = np.where(mask, 1e6, clean.flux + sigma * noise)
    star = Observation(clean.wavelength, flux, sigma, mask=mask, resolution=clean.resolution, medium="air", clip=None)
    return StellarSpectrum(tiny_emulator, star, correlation=LENGTH, **OPTIONS)


def test_transform_makes_the_covariance_diagonal():
    rng = np.random.default_rng(1)
    good, sigma = rng.random(40) > 0.3, 1 + rng.random(40)
    white = Correlation(LENGTH, sigma, good)
    covariance = correlation_matrix(40) * np.outer(sigma, sigma)
    matrix = np.asarray(white(jnp.eye(40, dtype=jnp.float32)), float).T
    used = np.ix_(good, good)
    np.testing.assert_allclose((matrix @ covariance @ matrix.T)[used], np.diag(sigma**2)[used], atol=1e-5)
    assert white.log_determinant == pytest.approx(np.linalg.slogdet(matrix[used])[1], abs=1e-4)


@pytest.mark.parametrize("rank", [0, 3])
def test_likelihood_is_that_of_the_dense_covariance(correlated, rank):
    """With the continuum's terms and shared errors of the emulator as further parts of the covariance."""
    model, n = correlated, len(correlated.wavelength)
    factors = 0.01 * np.random.default_rng(2).standard_normal((rank, n))
    data = eqx.tree_at(lambda d: d.factors, model.data, jnp.asarray(factors, jnp.float32))
    found = float(eqx.filter_jit(model.log_likelihood)(f32(VALUES), data)[0]) + model.constant
    flux = np.asarray(eqx.filter_jit(model.normalised_flux)(f32(VALUES), data), float)
    terms = flux * np.asarray(data.continuum.basis[: data.continuum.n_terms], float)
    sd, level = np.asarray(data.continuum.sd, float), np.asarray(data.level, float)
    sigma = np.sqrt(np.asarray(data.variance, float))
    covariance = correlation_matrix(n) * np.outer(sigma, sigma) + (terms.T * sd**2) @ terms
    covariance += (factors * level).T @ (factors * level)
    good = np.asarray(data.weight) > 0
    mean = np.asarray(data.continuum.mean, float) @ terms
    dense = multivariate_normal(mean[good], covariance[np.ix_(good, good)]).logpdf(np.asarray(data.flux, float)[good])
    assert 0 < (~good).sum() and found == pytest.approx(dense, abs=0.1)


def test_jitter_in_proportion_to_the_noise_is_exact(tiny_emulator):
    """Where data have the same S/N everywhere, a jitter scales the covariance as a whole."""
    star = observe(tiny_emulator, grid=tiny_emulator.config.wavelength)
    level = 0.01
    model = StellarSpectrum(tiny_emulator, star, correlation=LENGTH, **OPTIONS)
    data = eqx.tree_at(lambda d: d.variance, model.data, (level * model.data.level) ** 2)
    data = eqx.tree_at(lambda d: d.correlation, data, Correlation(LENGTH, level * np.asarray(data.level), np.asarray(data.weight) > 0))
    doubled = eqx.tree_at(lambda d: d.variance, data, 2 * data.variance)
    log_likelihood = eqx.filter_jit(model.log_likelihood)
    by_jitter = float(log_likelihood(f32({**VALUES, "log10_jitter": np.log10(level)}), data)[0])
    assert by_jitter == pytest.approx(float(log_likelihood(f32({**VALUES, "log10_jitter": -6.0}), doubled)[0]), abs=0.02)


def test_compressed_likelihood_of_correlated_noise(correlated):
    """Differences of the compressed likelihood, and its information, are those of the pixels."""
    model = correlated
    rng = np.random.default_rng(0)
    width = {"teff": 25.0, "fe_h": 0.015, "mg_fe": 0.03, "rv": 0.08, "vbroad": 0.15, "log10_jitter": 0.0}
    draw = lambda n, scale: {k: v + scale * width[k] * rng.standard_normal(n) for k, v in VALUES.items()}
    data = model.with_emulator(local_surrogate(model, draw(120, 1.6), model.data))
    data = model.with_model_errors(VALUES, data)
    star = compress_star(model, VALUES, data)
    log_likelihood = eqx.filter_jit(lambda v, d: model.log_likelihood(v, d)[0])
    points = [VALUES] + [dict(zip(VALUES, v)) for v in np.stack(list(draw(20, 0.5).values()), -1)]
    pixels, compressed = (np.array([float(log_likelihood(f32(v), d)) for v in points]) for d in (data, star))
    assert np.ptp(pixels) > 5
    np.testing.assert_allclose(compressed - compressed[0], pixels - pixels[0], rtol=0.03, atol=0.1)
    density = Unconstrained(model)
    z = jnp.asarray(density.unconstrain({k: np.array([v]) for k, v in VALUES.items()})[0], jnp.float32)
    one, other = (np.asarray(eqx.filter_jit(density.information)(z, d)) for d in (data, star))
    scale = np.sqrt(np.diag(one))[:-1]
    np.testing.assert_allclose(other[:-1, :-1] / np.outer(scale, scale), one[:-1, :-1] / np.outer(scale, scale), atol=0.03)


def test_lengths_that_make_no_sense(tiny_emulator, tiny_observation):
    for length in (0, -1.0, np.nan, "2"):
        with pytest.raises(ObservationError, match="falls to 1/e"):
            StellarSpectrum(tiny_emulator, tiny_observation, correlation=length, **OPTIONS)
