"""The marginalised continuum, against dense float64 linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import ObservationError
from emuinfer.forward.continuum import Continuum, chebyshev_basis, default_terms, log_likelihood_constant

N = 20_000
WAVELENGTH = np.linspace(5100, 5300, N)


def problem(n_terms, snr, amplitude, seed=0):
    """Model flux, data and inverse variances (with a masked stretch), in float32."""
    rng = np.random.default_rng(seed)
    model = 1 - 0.7 * rng.random(N) ** 4
    ivar = snr**2 * rng.uniform(0.5, 2, N)
    coefficients = np.eye(n_terms)[0] + amplitude * rng.standard_normal(n_terms) * 0.6 ** np.arange(n_terms)
    data = model * (coefficients @ chebyshev_basis(WAVELENGTH, n_terms)) + rng.standard_normal(N) / np.sqrt(ivar)
    ivar[4000:5500] = 0
    return [np.asarray(x, np.float32) for x in (model, data, ivar)]


def dense_reference(continuum, model, data, ivar):
    """log N(d; A c0, 1/w + A S A^T) by the matrix determinant and inversion lemmas, float64, all constants included."""
    model, data, ivar, mean, sd = (np.asarray(x, float) for x in (model, data, ivar, continuum.mean, continuum.sd))
    used = ivar > 0
    design = (model * chebyshev_basis(WAVELENGTH[: len(model)], continuum.n_terms)).T[used]
    residual, weight = data[used] - design @ mean, ivar[used]
    precision = np.diag(sd**-2) + design.T @ (weight[:, None] * design)
    b = design.T @ (weight * residual)
    chi2 = weight @ residual**2 - b @ np.linalg.solve(precision, b)
    log_det = -np.log(weight / (2 * np.pi)).sum() + np.linalg.slogdet(precision)[1] + 2 * np.log(sd).sum()
    return -0.5 * (chi2 + log_det), mean + np.linalg.solve(precision, b)


log_likelihood = jax.jit(Continuum.log_likelihood)


@pytest.mark.parametrize(
    "n_terms, cases", [(9, [(200, 0.2, 1.0), (1000, 0.3, 1.0), (20, 0.02, 0.1)]), (20, [(200, 0.2, 10.0)])]
)
def test_log_likelihood_in_float32(n_terms, cases):
    for snr, amplitude, sd in cases:
        perfect, data, ivar = problem(n_terms, snr, amplitude)
        continuum = Continuum(WAVELENGTH, n_terms, prior_sd=sd)
        reference = np.where(ivar > 0, snr**2, 0.0).astype(np.float32)
        for distortion in (0.0, 2.0 / snr):  # up to chi² about three per pixel
            model = np.float32(perfect * (1 + distortion * np.sin(3 * WAVELENGTH)))
            value, coefficients = log_likelihood(continuum, model, data, ivar, reference)
            expected, expected_coefficients = dense_reference(continuum, model, data, ivar)
            error = float(value) + log_likelihood_constant(reference) - expected
            assert abs(error) < 0.02 * max(
                1, snr / 200
            )  # float32 rounds fluxes, 1e-7, against uncertainties of 1 / snr
            np.testing.assert_allclose(coefficients, expected_coefficients, atol=1e-6)
            continuum_flux = np.asarray(coefficients) @ chebyshev_basis(WAVELENGTH, n_terms)
            np.testing.assert_allclose(
                continuum_flux, expected_coefficients @ chebyshev_basis(WAVELENGTH, n_terms), atol=3e-6
            )


@pytest.mark.comparison
def test_reference_is_itself_right_on_a_small_problem():
    from scipy.stats import multivariate_normal

    model, data, ivar = (x[:3900:130] for x in problem(3, 30, 0.1))
    continuum = Continuum(np.linspace(0, 1, 30), 3, prior_sd=0.5)
    wavelength = np.linspace(0, 1, 30)
    design = (model * chebyshev_basis(wavelength, 3)).T.astype(float)
    covariance = np.diag(1.0 / ivar) + 0.25 * design @ design.T
    expected = multivariate_normal(design[:, 0], covariance).logpdf(data)
    value, _ = log_likelihood(continuum, *map(jnp.asarray, (model, data, ivar, ivar)))
    assert float(value) + log_likelihood_constant(ivar) == pytest.approx(expected, abs=2e-3)


def test_gradients_against_finite_differences():
    model, data, ivar = problem(9, 200, 0.2)
    continuum = Continuum(WAVELENGTH, 9)
    reference = np.maximum(ivar, 1.0)
    wave = np.sin(0.3 * WAVELENGTH)

    def value(p):  # a change of line depth, and extra variance
        variance = 1.0 / jnp.maximum(ivar, 1.0) + p[1]
        return continuum.log_likelihood(model + p[0] * wave, data, jnp.where(ivar > 0, 1 / variance, 0.0), reference)[0]

    def dense(p):
        w = np.where(ivar > 0, 1 / (1.0 / np.maximum(ivar, 1.0) + p[1]), 0.0)
        return dense_reference(continuum, model + p[0] * wave, data, w)[0]

    point = np.array([1e-4, 4e-6])
    gradient = jax.jit(jax.grad(value))(jnp.asarray(point))
    for i, h in enumerate([1e-6, 1e-8]):
        step = h * np.eye(2)[i]
        assert float(gradient[i]) == pytest.approx((dense(point + step) - dense(point - step)) / (2 * h), rel=2e-3)
    hessian = jax.jit(jax.jacfwd(jax.grad(value)))(jnp.asarray(point))
    h = 2e-5
    curvature = (dense(point + [h, 0]) - 2 * dense(point) + dense(point - [h, 0])) / h**2
    assert float(hessian[0, 0]) == pytest.approx(curvature, rel=1e-2)


def test_a_stretch_without_data_stays_finite():
    model, data, ivar = problem(9, 200, 0.2)
    ivar[2000:] = 0
    continuum = Continuum(WAVELENGTH, 9)
    loss = lambda m: continuum.log_likelihood(m, data, ivar, np.maximum(ivar, 1))[0]
    value, gradient = jax.jit(jax.value_and_grad(loss))(model)
    assert np.isfinite(value) and np.isfinite(gradient).all() and (gradient[2000:] == 0).all()


def test_number_of_terms_and_errors():
    assert default_terms(WAVELENGTH) == 9 == Continuum(WAVELENGTH).n_terms
    with pytest.raises(ObservationError, match="terms"):
        Continuum(WAVELENGTH[:8], 9)
    with pytest.raises(ObservationError, match="positive"):
        Continuum(WAVELENGTH, 3, prior_sd=0.0)
