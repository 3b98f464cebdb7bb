"""Baselines: fits against spectra whose formula is known, interpolation, storage round trip, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.emulators.base import to_link
from emuinfer.emulators.baselines.gaussian_process import matern52
from emuinfer.emulators.baselines.regression import LogitGP, LogitPCA, PerPixelMLP, PixelPolynomial
from emuinfer.emulators.components import principal_components
from emuinfer.emulators.training import fit_logit_gp, fit_logit_pca, fit_mlp, fit_polynomial, predict
from emuinfer.emulators.training.gp_likelihood import difference_likelihood, negative_log_likelihood
from emuinfer.errors import EmulatorError, TrainingError
from emuinfer.labels.features import gp_features, monomial_values, monomials
from emuinfer.labels.space import LabelSpace
from emuinfer.wavelengths.pixels import PixelGrid

SPACE = LabelSpace(("teff", "logg", "fe_h"), (4000, 1, -2), (7000, 5, 0.5))
WAVELENGTH = 5100.0 + 0.04 * np.arange(151)
QUICK = {"medium": "air", "groups": (2, 4), "iterations": 10}


def spectra(n, seed=0, space=SPACE):
    """Gaussian lines whose opacity is a Boltzmann factor times an abundance: smooth in the labels, not a polynomial."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(space.lower, space.upper, (n, len(space)))
    centres, strength = np.linspace(5100.3, 5105.7, 12), np.linspace(-1, 1, 12)
    theta = 5040.0 / labels[:, :1]
    log_opacity = strength + labels[:, 2:3] + 1.5 * (theta - 1) * (1 + strength) - 0.1 * labels[:, 1:2]
    profile = np.exp(-0.5 * ((WAVELENGTH - centres[:, None]) / 0.06) ** 2)
    return labels, (1.0 / (1.0 + 10.0**log_opacity @ profile)).astype(np.float32)


def test_monomials_are_all_products_up_to_the_degree():
    assert monomials(2, 2) == ((), (0,), (1,), (0, 0), (0, 1), (1, 1))
    x, y = 0.3, -0.7
    values = monomial_values(np.array([x, y]), 3, np)
    np.testing.assert_allclose(values, [1, x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3])


def test_interpolation_is_exact_for_cubics_and_at_pixels():
    grid = PixelGrid.from_wavelength(WAVELENGTH)

    def cubic(w):
        return 0.3 * (w - 5103) ** 3 - (w - 5103) ** 2 + 2.0

    stored = jnp.asarray(cubic(WAVELENGTH), jnp.float32)
    for where in (np.array([5100.0, 5100.005, 5103.337, 5105.999, 5106.0]), np.linspace(5100, 5106, 50)):
        query = grid.query(where)
        found = np.sum(np.asarray(stored)[query.index] * query.weight, axis=-1)
        np.testing.assert_allclose(found, cubic(where), atol=2e-5)
    native = grid.query(grid.wavelength)
    assert set(np.unique(native.weight)) <= {0.0, 1.0}
    with pytest.raises(EmulatorError, match="equally spaced"):
        PixelGrid.from_wavelength(np.array([1.0, 2.0, 3.0, 4.5, 6.0]))


def test_polynomial_recovers_a_polynomial():
    rng = np.random.default_rng(1)
    labels = rng.uniform(SPACE.lower, SPACE.upper, (60, 3))
    scaled = (labels - SPACE.centre) / SPACE.half_width
    flux = 0.8 + 0.05 * monomial_values(scaled, 2, np) @ rng.normal(size=(10, 151)) / 3
    emulator = fit_polynomial(SPACE, labels, flux, WAVELENGTH, medium="air", degree=2)
    np.testing.assert_allclose(predict(emulator, labels, WAVELENGTH), flux, atol=1e-5)


def test_principal_components_are_those_of_the_singular_value_decomposition():
    x = np.random.default_rng(0).normal(size=(20, 50)) * np.linspace(0.1, 2, 50)
    _mean, basis, coefficients = principal_components(x, 6)
    u, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(coefficients @ basis, (u[:, :6] * s[:6]) @ v[:6], atol=1e-10)
    np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-10)
    with pytest.raises(
        EmulatorError, match="20 principal components need 21 spectra of 20 wavelengths or more; got 20 of 50"
    ):
        principal_components(x, 20)


def test_principal_components_about_zero_and_of_many_rows():
    x = np.random.default_rng(1).normal(size=(40, 12)) + 3.0
    mean, basis, coefficients = principal_components(x, 5, centre=False)
    u, s, v = np.linalg.svd(x, full_matrices=False)
    assert not mean.any()
    np.testing.assert_allclose(coefficients @ basis, (u[:, :5] * s[:5]) @ v[:5], atol=1e-10)


@pytest.mark.parametrize(
    "fit, settings, limit",
    [
        (fit_polynomial, {"degree": 3}, 0.03),
        (fit_mlp, {"hidden": (32, 32), "steps": 300, "learning_rate": 1e-2}, 0.03),
        (fit_logit_pca, {"components": 10, "hidden": (32, 32), "steps": 300, "learning_rate": 1e-2}, 0.006),
        (fit_logit_gp, {"components": 15, "groups": (2, 4), "iterations": 10}, 0.001),
    ],
)
def test_fits_predict_unseen_spectra(fit, settings, limit):
    labels, flux = spectra(150)
    emulator = fit(SPACE, labels, flux, WAVELENGTH, medium="air", **settings)
    unseen, truth = spectra(40, seed=1)
    spread = np.abs(truth - flux.mean(0)).mean()
    error = np.abs(predict(emulator, unseen, WAVELENGTH) - truth).mean()
    assert error < limit and error < 0.3 * spread
    assert emulator.medium == "air" and emulator.wavelength_range == pytest.approx((5100.0, 5106.0))


def test_gaussian_process_interpolates_its_training_spectra():
    labels, flux = spectra(60)
    emulator = fit_logit_gp(SPACE, labels, flux, WAVELENGTH, components=59, **QUICK)
    np.testing.assert_allclose(predict(emulator, labels, WAVELENGTH), flux, atol=2e-3)


@pytest.mark.comparison
def test_marginal_likelihood_is_the_gaussian_density_and_its_gradient_the_finite_difference():
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(3)
    inputs, target, lengths = rng.uniform(-1, 1, (25, 3)), rng.normal(size=(25, 1)), np.array([0.3, 1.0, 2.0])
    value, gradient = negative_log_likelihood(np.log(lengths), inputs, target, np.ones(1), 1e-3)
    difference = (inputs[:, None] - inputs[None]) / lengths
    kernel = matern52((difference**2).sum(-1), np) + 1e-3 * np.eye(25)
    amplitude = float(target[:, 0] @ np.linalg.solve(kernel, target[:, 0])) / 25
    density = multivariate_normal(np.zeros(25), amplitude * kernel).logpdf(target[:, 0])
    assert -value * 25 == pytest.approx(density + 12.5 * (1 + np.log(2 * np.pi)), abs=1e-6)
    for i in range(3):
        step = 1e-5 * np.eye(3)[i]
        up, down = (
            negative_log_likelihood(np.log(lengths) + s, inputs, target, np.ones(1), 1e-3)[0] for s in (step, -step)
        )
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-8)


def test_gp_features_scale_inverse_temperature():
    scaled = SPACE.scale(np.array([[4000.0, 3, 0], [7000, 3, 0], [5040, 3, 0]]))
    theta = gp_features(SPACE, scaled, np)
    hot, cool = 5040 / 7000, 5040 / 4000
    np.testing.assert_allclose(theta[:, 0], [1, -1, (1 - (hot + cool) / 2) / ((cool - hot) / 2)], atol=1e-5)
    np.testing.assert_array_equal(theta[:, 1:], scaled[:, 1:])


def test_gradient_of_the_difference_likelihood_is_the_finite_difference():
    rng = np.random.default_rng(4)
    inputs, residual = rng.uniform(-1, 1, (20, 2)), rng.normal(size=(20, 2))
    known, weights = 0.1 * np.eye(20) + 0.05, np.array([0.3, 0.7])
    at = np.log([0.5, 2.0, 0.8, 0.01])
    gradient = difference_likelihood(at, inputs, residual, known, weights)[1]
    for i in range(4):
        step = 1e-5 * np.eye(4)[i]
        up, down = (difference_likelihood(at + s, inputs, residual, known, weights)[0] for s in (step, -step))
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-8)


def test_simple_physics_spares_realistic_spectra():
    """The realistic spectra differ a little from the simple ones, of which there are many."""

    def realistic(labels, flux):
        return flux ** (1.02 + 0.05 * SPACE.scale(labels)[:, :1].astype(np.float32))

    simple, (few, few_flux), (unseen, truth) = spectra(150), spectra(10, seed=2), spectra(40, seed=3)
    errors = []
    for given in (None, simple):
        emulator = fit_logit_gp(SPACE, few, realistic(few, few_flux), WAVELENGTH, simple=given, components=12, **QUICK)
        errors.append(np.abs(predict(emulator, unseen, WAVELENGTH) - realistic(unseen, truth)).mean())
    assert errors[1] < 0.3 * errors[0]
    assert emulator.sums[0].inputs.shape == (160, 3) and emulator.sums[1].inputs.shape == (10, 3)


def emulators():
    grid = PixelGrid.from_wavelength(WAVELENGTH)
    return [
        PixelPolynomial(SPACE, grid, "air", 2, True),
        PerPixelMLP(SPACE, grid, "air", (8, 8), "silu", key=jax.random.key(0)),
        LogitPCA(SPACE, grid, "air", 5, (8,), 2, key=jax.random.key(1)),
        LogitGP(SPACE, grid, "air", (7,), (1, 3)),
        LogitGP(SPACE, grid, "air", (9, 7), (2,)),
    ]


@pytest.mark.parametrize("emulator", emulators(), ids=lambda e: e.kind)
def test_protocol(emulator):
    """The configuration survives JSON and gives a skeleton of the same structure; predictions are pure and smooth."""
    import json

    config = json.loads(json.dumps(emulator.to_config()))
    twin = type(emulator).from_config(config, SPACE, emulator.wavelength_range, "air")
    assert jax.tree.structure(twin) == jax.tree.structure(emulator)
    shapes = [[leaf.shape for leaf in jax.tree.leaves(e)] for e in (twin, emulator)]
    assert shapes[0] == shapes[1]
    middle = SPACE.centre
    flux = emulator(middle, WAVELENGTH[10:20])
    assert flux.shape == (10,) and flux.dtype == jnp.float32
    query = emulator.prepare(WAVELENGTH)
    jacobian = jax.jit(jax.jacfwd(lambda s: emulator.flux(s, query)))(jnp.zeros(3))
    assert jacobian.shape == (151, 3) and bool(jnp.isfinite(jacobian).all())


def test_gradient_at_a_training_point_is_finite_and_right():
    labels, flux = spectra(80)
    emulator = fit_logit_gp(SPACE, labels, flux, WAVELENGTH, components=15, **QUICK)
    query, at = emulator.prepare(WAVELENGTH), jnp.asarray(SPACE.scale(labels[3]), jnp.float32)
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda s: emulator.flux(s, query)))(at))
    unscaled = labels[3]
    for i in range(3):
        up, down = unscaled.copy(), unscaled.copy()
        up[i] += 0.02 * SPACE.half_width[i]
        down[i] -= 0.02 * SPACE.half_width[i]
        slope = (predict(emulator, up[None], WAVELENGTH) - predict(emulator, down[None], WAVELENGTH))[0] / 0.04
        np.testing.assert_allclose(jacobian[:, i], slope, atol=5e-3)


def test_bad_data_are_refused():
    labels, flux = spectra(20)
    with pytest.raises(TrainingError, match="flux"):
        fit_polynomial(SPACE, labels, flux[:, :-1], WAVELENGTH, medium="air")
    flux[4, 7] = np.nan
    with pytest.raises(TrainingError, match=r"\[4\]"):
        fit_logit_gp(SPACE, labels, flux, WAVELENGTH, medium="air")
    with pytest.raises(EmulatorError, match="degree"):
        PixelPolynomial(SPACE, PixelGrid.from_wavelength(WAVELENGTH), "air", 5)


def test_saturating_link_makes_opacity_linear():
    """In x the spectra of one weak line are nearly a straight line in abundance; in flux they saturate."""
    abundance = np.linspace(-1, 1, 50)
    flux = 1 / (1 + 10 ** (1.0 + abundance))
    x = to_link(flux, 0.003)
    curvature = [np.abs(np.polyfit(abundance, y, 2)[0] / np.ptp(y)) for y in (x, flux)]
    assert curvature[0] < 0.02 * curvature[1]
