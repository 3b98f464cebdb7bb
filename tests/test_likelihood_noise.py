"""Correlated pixel noise against dense covariances, and outliers of the kinds that real spectra have."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from tiny import RV, TRUTH, VBROAD, local_surrogate, observe

from emuinfer import Observation, StellarModel
from emuinfer.errors import ObservationError
from emuinfer.forward.noise_correlation import Correlation
from emuinfer.likelihoods import Unconstrained

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
    return StellarModel(tiny_emulator, star, correlation=LENGTH, **OPTIONS)


def test_transform_makes_the_covariance_diagonal():
    rng = np.random.default_rng(1)
    good, sigma = rng.random(40) > 0.3, 1 + rng.random(40)
    white = Correlation(LENGTH, sigma, good)
    covariance = correlation_matrix(40) * np.outer(sigma, sigma)
    matrix = np.asarray(white(jnp.eye(40, dtype=jnp.float32)), float).T
    used = np.ix_(good, good)
    np.testing.assert_allclose((matrix @ covariance @ matrix.T)[used], np.diag(sigma**2)[used], atol=1e-5)
    assert white.log_determinant == pytest.approx(np.linalg.slogdet(matrix[used])[1], abs=1e-4)


@pytest.mark.comparison
@pytest.mark.parametrize("rank", [0, 3])
def test_likelihood_is_that_of_the_dense_covariance(correlated, rank):
    """With the continuum's terms and shared errors of the emulator as further parts of the covariance."""
    model, n = correlated, len(correlated.wavelength)
    factors = 0.01 * np.random.default_rng(2).standard_normal((rank, n))
    data = eqx.tree_at(lambda d: d.noise.factors, model.likelihood, jnp.asarray(factors, jnp.float32))
    noise = data.noise
    found = float(eqx.filter_jit(data.log_likelihood)(f32(VALUES))) + model.constant
    flux = np.asarray(eqx.filter_jit(data.normalised_flux)(f32(VALUES)), float)
    terms = flux * np.asarray(data.continuum.basis[: data.continuum.n_terms], float)
    sd, level = np.asarray(data.continuum.sd, float), np.asarray(noise.level, float)
    sigma = np.sqrt(np.asarray(noise.variance, float))
    covariance = correlation_matrix(n) * np.outer(sigma, sigma) + (terms.T * sd**2) @ terms
    covariance += (factors * level).T @ (factors * level)
    good = np.asarray(noise.weight) > 0
    mean = np.asarray(data.continuum.mean, float) @ terms
    dense = multivariate_normal(mean[good], covariance[np.ix_(good, good)]).logpdf(np.asarray(data.flux, float)[good])
    assert (~good).sum() > 0 and found == pytest.approx(dense, abs=0.1)


def test_jitter_in_proportion_to_the_noise_is_exact(tiny_emulator):
    """Where data have the same S/N everywhere, a jitter scales the covariance as a whole."""
    star = observe(tiny_emulator, grid=tiny_emulator.config.wavelength)
    level = 0.01
    model = StellarModel(tiny_emulator, star, correlation=LENGTH, **OPTIONS)
    noise = model.likelihood.noise
    noise = eqx.tree_at(
        lambda n: (n.variance, n.correlation),
        noise,
        (
            (level * noise.level) ** 2,
            Correlation(LENGTH, level * np.asarray(noise.level), np.asarray(noise.weight) > 0),
        ),
    )
    data = model.likelihood.with_noise(noise)
    doubled = data.with_noise(eqx.tree_at(lambda n: n.variance, noise, 2 * noise.variance))
    log_likelihood = eqx.filter_jit(lambda v, d: d.log_likelihood(v))
    by_jitter = float(log_likelihood(f32({**VALUES, "log10_jitter": np.log10(level)}), data))
    assert by_jitter == pytest.approx(float(log_likelihood(f32({**VALUES, "log10_jitter": -6.0}), doubled)), abs=0.02)


def test_compressed_likelihood_of_correlated_noise(correlated):
    """Differences of the compressed likelihood, and its information, are those of the pixels."""
    model = correlated
    rng = np.random.default_rng(0)
    width = {"teff": 25.0, "fe_h": 0.015, "mg_fe": 0.03, "rv": 0.08, "vbroad": 0.15, "log10_jitter": 0.0}
    draw = lambda n, scale: {k: v + scale * width[k] * rng.standard_normal(n) for k, v in VALUES.items()}
    data = model.likelihood.localised((local_surrogate(model, draw(120, 1.6)),))
    data = eqx.filter_jit(lambda v, d: d.with_model_errors(v))(f32(VALUES), data)
    star = eqx.filter_jit(lambda v, d: d.compressed(v))(f32(VALUES), data)
    log_likelihood = eqx.filter_jit(lambda v, d: d.log_likelihood(v))
    points = [VALUES] + [dict(zip(VALUES, v)) for v in np.stack(list(draw(20, 0.5).values()), -1)]
    pixels, compressed = (np.array([float(log_likelihood(f32(v), d)) for v in points]) for d in (data, star))
    assert np.ptp(pixels) > 5
    np.testing.assert_allclose(compressed - compressed[0], pixels - pixels[0], rtol=0.03, atol=0.1)
    density = Unconstrained(model)
    z = jnp.asarray(density.unconstrain({k: np.array([v]) for k, v in VALUES.items()})[0], jnp.float32)
    one, other = (np.asarray(eqx.filter_jit(density.information)(z, d)) for d in (data, star))
    scale = np.sqrt(np.diag(one))[:-1]
    np.testing.assert_allclose(
        other[:-1, :-1] / np.outer(scale, scale), one[:-1, :-1] / np.outer(scale, scale), atol=0.03
    )


def test_lengths_that_make_no_sense(tiny_emulator, tiny_observation):
    for length in (0, -1.0, np.nan, "2"):
        with pytest.raises(ObservationError, match="falls to 1/e"):
            StellarModel(tiny_emulator, tiny_observation, correlation=length, **OPTIONS)


# Outliers


@pytest.fixture(scope="module")
def spoilt(tiny_emulator):
    """A star with sharp telluric lines, at the observer's wavelengths, and cosmic rays: 9 % of its pixels."""
    clean = observe(tiny_emulator, grid=tiny_emulator.config.wavelength, seed=11)
    rng = np.random.default_rng(12)
    flux, hit = np.array(clean.flux), np.zeros(len(clean), bool)
    for centre in rng.uniform(6182.5, 6191.5, 4):  # three pixels each
        depth = 0.25 * np.exp(-0.5 * ((clean.wavelength - centre) / 0.07) ** 2)
        flux *= 1 - depth
        hit |= depth > 0.03
    cosmic = rng.choice(len(clean), 5, replace=False)
    flux[cosmic] += rng.uniform(60, 400, 5)
    hit[cosmic] = True
    return Observation(
        clean.wavelength, flux, clean.uncertainty, resolution=clean.resolution, medium="air", clip=None
    ), hit


@pytest.mark.parametrize("correlation", [None, LENGTH])
def test_tellurics_and_cosmic_rays_are_down_weighted(tiny_emulator, spoilt, correlation):
    star, hit = spoilt
    model = StellarModel(tiny_emulator, star, correlation=correlation, **OPTIONS)
    data, hit = model.likelihood, hit[model.pixels]
    weight = np.asarray(_outlier_weights(data, f32(VALUES)))
    strong = hit & (np.abs(np.asarray(data.flux) - _fitted(data)) > 8 * np.sqrt(np.asarray(data.noise.variance)))
    assert strong.sum() >= 8 and weight[strong].max() < 0.2
    near = hit | np.roll(hit, 1) | np.roll(hit, -1)
    # The noise of this star is white; taken for correlated its combinations scatter more than they should.
    assert (0.85 if correlation is None else 0.75) < weight[~near].mean() <= 1


def _fitted(likelihood):
    return np.asarray(eqx.filter_jit(likelihood.model_flux)(f32(VALUES)))


@eqx.filter_jit
def _outlier_weights(likelihood, values):
    return likelihood.with_weights(values).noise.weight


def test_outliers_move_the_labels_only_without_weights(tiny_emulator, spoilt):
    """Gauss–Newton steps with weights renewed at each, from the truth: with them it stays, without them it leaves."""
    star, _ = spoilt
    model = StellarModel(tiny_emulator, star, priors={"log10_jitter": -4.0}, **OPTIONS)
    density = Unconstrained(model)
    truth = density.unconstrain({n: np.array([VALUES[n]]) for n in model.names})[0]
    step = eqx.filter_jit(lambda z, d: (jax.grad(density.log_density)(z, d), density.information(z, d)))
    constrain = eqx.filter_jit(density.constrain)
    away = []
    for robust in (True, False):
        z, data = None, model.likelihood
        for _ in range(7):
            z = jnp.asarray(truth if z is None else z, jnp.float32)
            if robust:
                weight = _outlier_weights(data, model.complete(constrain(z)))
                data = data.with_noise(data.noise.with_weight(weight))
            slope, information = (np.asarray(a, float) for a in step(z, data))
            sd = np.sqrt(np.diag(np.linalg.inv(information)))
            z = z + np.clip(np.linalg.solve(information, slope), -3 * sd, 3 * sd)
        away.append(np.abs((np.asarray(z, float) - truth) / sd))
    assert away[0].max() < 3 and away[1].max() > 2 * away[0].max()


# What else is known of the star


def test_a_factor_of_the_users_own_is_part_of_the_density(tiny_emulator, tiny_observation):
    """As from a parallax: a relation between labels, in a subclass for `sample` and in a plain function for NumPyro."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer.util import log_density

    relation = lambda v: dist.Normal(0.1 * (v["teff"] - 5600.0) / 100.0, 0.05).log_prob(v["fe_h"])

    class WithRelation(StellarModel):
        def __call__(self, data=None):
            values = super().__call__(data)
            numpyro.factor("relation", relation(values))
            return values

    plain, known = (kind(tiny_emulator, tiny_observation, **OPTIONS) for kind in (StellarModel, WithRelation))

    def function():
        numpyro.factor("relation", relation(plain()))

    densities = [
        float(jax.jit(lambda v, m=m: log_density(m, (), {}, v)[0])(f32(VALUES))) for m in (plain, known, function)
    ]
    expected = float(relation(f32(VALUES)))
    assert densities[1] - densities[0] == pytest.approx(expected, abs=1e-2)
    assert densities[2] == pytest.approx(densities[1], abs=1e-2)
