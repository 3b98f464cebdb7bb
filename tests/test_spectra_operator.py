"""The operator from a rest-frame spectrum to observed pixels, against analytic profiles and direct convolution."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.constants import SPEED_OF_LIGHT
from emuinfer.errors import ObservationError
from emuinfer.forward.banded import Banded
from emuinfer.forward.broadening import rotation_table, rotation_transfer
from emuinfer.forward.lsf import lsf_sigma, split_sigma
from emuinfer.forward.operator import SpectrumOperator, usable_pixels
from emuinfer.wavelengths import shift_wavelength
from emuinfer.wavelengths.uniform import VelocityGrid, velocity_grid

GRID = velocity_grid(5100, 5140, 0.7)
PIXELS = np.linspace(5112, 5128, 1500)  # far enough from the ends for any shift here
RNG = np.random.default_rng(0)
CENTRES, DEPTHS, WIDTHS = RNG.uniform(5102, 5138, 80), RNG.uniform(0.02, 0.3, 80), RNG.uniform(1.5, 4.0, 80)


def gaussian_lines(wavelength, extra_sigma=0.0, rv=0.0):
    """Lines Gaussian in velocity (float64), after a convolution with `extra_sigma` km/s and a shift."""
    velocity = SPEED_OF_LIGHT * (np.log(wavelength) - np.log1p(rv / SPEED_OF_LIGHT))
    flux = np.ones(len(wavelength))
    for centre, depth, width in zip(CENTRES, DEPTHS, WIDTHS):
        sigma = np.hypot(width, extra_sigma)
        flux -= depth * width / sigma * np.exp(-0.5 * ((velocity - SPEED_OF_LIGHT * np.log(centre)) / sigma) ** 2)
    return flux


FLUX = jnp.asarray(gaussian_lines(GRID.wavelength), jnp.float32)
OPERATOR = SpectrumOperator(GRID, PIXELS, 60_000.0)
apply = eqx.filter_jit(lambda operator, flux, rv, vbroad, vsini: operator(flux, rv, vbroad, vsini))


def test_velocity_grid():
    assert (
        GRID.wavelength[0] == pytest.approx(5100)
        and GRID.wavelength[-1] == pytest.approx(5140)
        and 0.69 < GRID.step <= 0.7
    )
    assert VelocityGrid.from_wavelength(GRID.wavelength).step == pytest.approx(GRID.step)
    with pytest.raises(ObservationError, match="velocity_grid"):
        VelocityGrid.from_wavelength(np.linspace(5100, 5300, 100))
    with pytest.raises(ObservationError, match="lo < hi"):
        velocity_grid(5300, 5100, 1.0)


@pytest.mark.parametrize("resolution", [30_000.0, 100_000.0, np.linspace(80_000, 50_000, 1500)])
def test_gaussian_lines_come_out_as_computed_by_hand(resolution):
    operator = SpectrumOperator(GRID, PIXELS, resolution)
    sigma = np.broadcast_to(SPEED_OF_LIGHT / 2.354820045 / resolution, PIXELS.shape)
    for rv, vbroad in [(0.0, 0.0), (3.217, 2.0), (-330.4, 1.1), (250.0, 0.0)]:
        out = apply(operator, FLUX, jnp.float32(rv), jnp.float32(vbroad), 0.0)
        np.testing.assert_allclose(out, gaussian_lines(PIXELS, np.hypot(sigma, vbroad), rv), atol=5e-5)


@pytest.mark.comparison
@pytest.mark.parametrize("vsini", [0.3, 17.0, 80.0])
def test_rotation_against_direct_convolution(vsini):
    """Gray's profile (2005, eq. 18.14), integrated numerically in velocity, on lines broadened by the instrument."""
    epsilon, sigma = 0.6, SPEED_OF_LIGHT / 2.354820045 / 60_000.0
    y = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 401))  # dense at the steep ends
    profile = 2 * (1 - epsilon) * np.sqrt(1 - y**2) + np.pi / 2 * epsilon * (1 - y**2)
    weight = profile * np.gradient(y)
    expected = np.zeros(len(PIXELS))
    for velocity, w in zip(y * vsini, weight / weight.sum()):
        expected += w * gaussian_lines(PIXELS, sigma, rv=SPEED_OF_LIGHT * np.expm1(velocity / SPEED_OF_LIGHT))
    out = apply(OPERATOR, FLUX, jnp.float32(0), 0.0, jnp.float32(vsini))
    np.testing.assert_allclose(out, expected, atol=5e-5)


def test_rotation_transform_against_quadrature():
    table = jnp.asarray(rotation_table(0.6))
    k = np.concatenate([[0.0], np.geomspace(1e-3, 1.5, 60)])
    theta = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    y = np.sin(theta)
    profile = (2 * 0.4 * np.cos(theta) + np.pi / 2 * 0.6 * np.cos(theta) ** 2) / (np.pi * 0.8) * np.cos(theta)
    expected = [np.trapezoid(profile * np.cos(x * y), theta) for x in k * 30.0]
    transfer = jax.jit(lambda v: rotation_transfer(jnp.asarray(k, jnp.float32), v, table))
    np.testing.assert_allclose(transfer(30.0), expected, atol=2e-6)


def test_equivalent_width_is_conserved():
    """No kernel changes the area of a line, and a shift changes none in velocity."""
    pixels = velocity_grid(5105, 5135, 0.9).wavelength
    velocity = SPEED_OF_LIGHT * np.log(pixels)
    line = 1 - 0.7 * np.exp(-0.5 * (SPEED_OF_LIGHT * np.log(GRID.wavelength / 5120) / 2.0) ** 2)
    operator = SpectrumOperator(GRID, pixels, 60_000.0)
    for rv, vbroad, vsini in np.float32([(0, 0, 0), (25, 4, 0), (-31, 0, 40), (5, 6, 15)]):
        out = apply(operator, jnp.asarray(line, jnp.float32), rv, vbroad, vsini)
        area = np.trapezoid(1 - np.asarray(out, float), velocity)
        assert area == pytest.approx(0.7 * 2.0 * np.sqrt(2 * np.pi), rel=2e-4)
    np.testing.assert_allclose(apply(operator, jnp.ones(len(GRID)), *np.float32([10, 3, 5])), 1.0, atol=1e-6)


def test_pixel_integration():
    """A box of w km/s has the variance w²/12: for narrow boxes as good as a Gaussian of that variance."""
    box = apply(SpectrumOperator(GRID, PIXELS, 60_000.0, pixel_kms=2.0), FLUX, jnp.float32(0), jnp.float32(0), 0.0)
    plain = apply(OPERATOR, FLUX, jnp.float32(0), jnp.float32(2.0 / np.sqrt(12)), 0.0)
    np.testing.assert_allclose(box, plain, atol=2e-4)


def test_gradients_against_finite_differences_single_batched_and_forward():
    weight = jnp.asarray(RNG.normal(size=len(PIXELS)), jnp.float32)
    weight64 = np.asarray(weight, float)
    outputs = lambda *p: np.asarray(apply(OPERATOR, p[0], *np.float32(p[1:])), float)
    loss = lambda flux, p: weight @ OPERATOR(flux, p[0], p[1], p[2])
    gradient = jax.grad(loss, argnums=(0, 1))
    fluxes, points = jnp.stack([FLUX, FLUX**2]), jnp.array([[7.3, 2.5, 6.0], [-21.0, 0.8, 15.0]])
    by_flux, by_point = jax.jit(jax.vmap(gradient))(fluxes, points)
    one_by_flux, one_by_point = jax.jit(gradient)(fluxes[1], points[1])
    np.testing.assert_allclose(one_by_flux, by_flux[1], atol=1e-4)
    np.testing.assert_allclose(one_by_point, by_point[1], rtol=1e-4, atol=1e-4)
    forward = jax.jit(jax.jacfwd(lambda p: OPERATOR(FLUX, p[0], p[1], p[2])))(points[0])
    np.testing.assert_allclose(weight @ forward, by_point[0], rtol=1e-3, atol=1e-4)
    point = np.asarray(points[0], float)
    for i, h in enumerate([0.05, 0.05, 0.05]):
        step = h * np.eye(3)[i]
        numeric = weight64 @ (outputs(FLUX, *(point + step)) - outputs(FLUX, *(point - step))) / (2 * h)
        assert float(by_point[0, i]) == pytest.approx(numeric, rel=5e-3, abs=2e-3)
    tangent = jnp.asarray(RNG.normal(size=len(GRID)), jnp.float32)  # linear in the flux: any step is exact
    change = weight64 @ (outputs(FLUX + tangent, *point) - outputs(FLUX, *point))
    assert float(by_flux[0] @ tangent) == pytest.approx(change, rel=1e-3)


def test_gradient_of_broadening_vanishes_at_zero():
    gradient = jax.jit(jax.grad(lambda p: OPERATOR(FLUX, p[0], p[1], p[2]).sum()))(jnp.zeros(3))
    assert jnp.isfinite(gradient).all() and abs(gradient[1]) < 1e-6 and abs(gradient[2]) < 1e-6


def test_pixels_must_lie_in_the_grid():
    with pytest.raises(ObservationError, match="5090.00 to 5128.00.*5100.00 to 5140.00"):
        SpectrumOperator(GRID, np.linspace(5090, 5128, 100), 5e4)
    with pytest.raises(ObservationError, match="resolution=R"):
        SpectrumOperator(GRID, PIXELS, None)
    # Whatever the spectrum outside of the grid would have been, usable pixels do not notice.
    usable = usable_pixels(GRID.wavelength, GRID.wavelength, (-100.0, 50.0), reach_kms=20.0)
    assert shift_wavelength(5100, 70.0) == pytest.approx(GRID.wavelength[usable][0], abs=0.02)
    assert shift_wavelength(5140, -120.0) == pytest.approx(GRID.wavelength[usable][-1], abs=0.02)
    wide = velocity_grid(5090, 5150, 0.7)
    flux = jnp.asarray(gaussian_lines(wide.wavelength), jnp.float32)
    pixels = GRID.wavelength[usable]
    for rv in (-100.0, 50.0):
        short = apply(SpectrumOperator(GRID, pixels, 50_000.0), FLUX, np.float32(rv), 0.0, 0.0)
        np.testing.assert_allclose(
            short, apply(SpectrumOperator(wide, pixels, 50_000.0), flux, np.float32(rv), 0.0, 0.0), atol=1e-4
        )


def test_line_spread_function_widths():
    sigma = lsf_sigma(np.array([50_000.0, 100_000.0]), 2)
    np.testing.assert_allclose(sigma * 2.354820045, SPEED_OF_LIGHT / np.array([5e4, 1e5]))
    common, extra = split_sigma(sigma)
    np.testing.assert_allclose(np.hypot(common, extra), sigma)
    assert split_sigma(np.full(5, 2.0))[1] is None


def test_banded_matrix_and_transpose_against_dense():
    start = np.array([0, 0, 2, 2, 2, 9, 12])
    weights = RNG.normal(size=(4, 7))
    dense = np.zeros((7, 16))
    for i, s in enumerate(start):
        dense[i, s : s + 4] = weights[:, i]
    matrix = Banded(start, weights, 16)
    batch = jnp.asarray(RNG.normal(size=(2, 3, 16)), jnp.float32)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(matrix.__matmul__), 1, 1))(batch), batch @ dense.T, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(matrix.__matmul__))(batch[0, 0]), dense, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacrev(matrix.__matmul__))(batch[0, 0]), dense, atol=1e-6)
    matrices = jax.tree.map(lambda a: jnp.stack([a, a]), matrix)  # a matrix for each of two spectra
    pairs = jax.jit(jax.vmap(lambda m, x: m @ x))(matrices, batch[:, 0])
    np.testing.assert_allclose(pairs, batch[:, 0] @ dense.T, atol=1e-5)
    with pytest.raises(ValueError, match="Band starts"):
        Banded(start[::-1], weights, 16)
