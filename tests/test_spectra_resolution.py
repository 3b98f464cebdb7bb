"""Resolution matrices in the manner of DESI, against Gaussian line spread functions and SciPy's sparse matrices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import dia_matrix
from scipy.special import erf
from tiny import RV, TRUTH, VBROAD, observe

from emuinfer import Observation, StellarModel
from emuinfer.errors import ObservationError
from emuinfer.forward.lsf import box_weights, matrix_rows, resolving_power
from emuinfer.forward.operator import SpectrumOperator
from emuinfer.wavelengths.uniform import velocity_grid

GRID = velocity_grid(5100, 5140, 0.7)
PIXELS = np.linspace(5108, 5132, 400)  # 0.06 Å, 3.5 km/s
RNG = np.random.default_rng(0)
CENTRES, DEPTHS = RNG.uniform(5102, 5138, 80), RNG.uniform(0.02, 0.3, 80)
FLUX = jnp.asarray(
    1 - sum(d * np.exp(-0.5 * ((GRID.wavelength - c) / 0.05) ** 2) for c, d in zip(CENTRES, DEPTHS)), jnp.float32
)
apply = eqx.filter_jit(lambda operator, flux, rv, vbroad, vsini: operator(flux, rv, vbroad, vsini))


def gaussian_matrix(wavelength, resolution, n_diag=21):
    """The matrix in DESI's storage that with the pixels' boxes makes Gaussians of `resolution`, by SciPy's definition."""
    n, h, step = len(wavelength), n_diag // 2, wavelength[1] - wavelength[0]
    sigma = wavelength / np.broadcast_to(resolution, n) / 2.354820045 / step
    narrow = np.sqrt(sigma**2 - 1 / 12)  # row i: what the box leaves
    row, column = np.arange(n)[:, None], np.arange(n)[None]
    dense = np.where(abs(row - column) <= h, np.exp(-0.5 * ((row - column) / narrow[:, None]) ** 2), 0.0)
    # Scaled as an extraction does, so that a flat spectrum stays flat.
    dense /= np.sqrt(2 * np.pi) * narrow[:, None]
    offsets = np.arange(h, -h - 1, -1)
    data = np.zeros((n_diag, n))
    for k, offset in enumerate(offsets):
        diagonal = np.diagonal(dense, offset)
        data[k, max(offset, 0) : max(offset, 0) + len(diagonal)] = diagonal
    assert abs(dia_matrix((data, offsets), (n, n)).toarray() - dense).max() < 1e-12
    return data, dense


@pytest.mark.parametrize("resolution", [20_000.0, np.linspace(17_000, 24_000, len(PIXELS))])
def test_matrix_does_what_the_gaussian_does(resolution):
    data, dense = gaussian_matrix(PIXELS, resolution)
    by_matrix, by_gaussian = SpectrumOperator(GRID, PIXELS, data), SpectrumOperator(GRID, PIXELS, resolution)
    inner = slice(12, -12)  # the others see beyond the matrix
    for rv, vbroad, vsini in np.float32([(0, 0, 0), (13, 3, 0), (-31, 0, 9)]):
        one, other = (np.asarray(apply(o, FLUX, rv, vbroad, vsini)) for o in (by_matrix, by_gaussian))
        assert np.ptp(other) > 0.1
        np.testing.assert_allclose(one[inner], other[inner], atol=2e-4)
    np.testing.assert_allclose(apply(by_matrix, jnp.ones(len(GRID)), *np.float32([10, 3, 5])), 1.0, atol=1e-6)
    power = resolving_power(data, PIXELS)
    np.testing.assert_allclose(power[inner], np.broadcast_to(resolution, power.shape)[inner], rtol=0.01)
    np.testing.assert_array_equal(matrix_rows(data)[10], np.diagonal(dense))


def test_gradient_through_the_matrix():
    operator = SpectrumOperator(GRID, PIXELS, gaussian_matrix(PIXELS, 20_000.0)[0])
    weight = jnp.asarray(RNG.normal(size=len(PIXELS)), jnp.float32)
    loss = lambda rv: weight @ operator(FLUX, rv, 0.0, 0.0)
    slope = float(jax.jit(jax.grad(loss))(jnp.float32(5.0)))
    up, down = (
        np.asarray(weight, float) @ np.asarray(apply(operator, FLUX, np.float32(5 + h), 0.0, 0.0), float)
        for h in (0.1, -0.1)
    )
    assert slope == pytest.approx((up - down) / 0.2, rel=1e-2)


@pytest.mark.comparison
def test_averages_over_pixels_against_quadrature():
    """A Gaussian on a fine grid, sampled as its own spline: the average over a pixel is a difference of error functions."""
    edges = np.array([10.2, 14.9, 15.3, 25.0])
    nodes = np.arange(60)
    values = np.exp(-0.5 * ((nodes - 15) / 3.0) ** 2)
    # Coefficients of the interpolating cubic spline, by the same linear system that makes it interpolate.
    system = np.eye(60) * 2 / 3 + np.eye(60, k=1) / 6 + np.eye(60, k=-1) / 6
    coefficients = np.linalg.solve(system, values)
    start, weights = box_weights(edges[:-1], edges[1:])
    found = [w @ coefficients[s : s + len(w)] for s, w in zip(start, weights.T)]
    area = np.sqrt(np.pi / 2) * 3.0 * erf((edges - 15) / 3.0 / np.sqrt(2))
    np.testing.assert_allclose(found, np.diff(area) / np.diff(edges), atol=3e-4)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, atol=1e-12)


def observed(resolution, **changes):
    arguments = {"wavelength": PIXELS, "flux": np.ones(len(PIXELS)), "uncertainty": 0.01, "medium": "air", **changes}
    return Observation(**arguments, resolution=resolution)


def test_observation_keeps_the_matrix():
    data, dense = gaussian_matrix(PIXELS, 20_000.0)
    obs = observed(data)
    assert "R = 20000 to" in repr(obs) and obs.hash != observed(1.001 * data).hash
    np.testing.assert_allclose(observed(dia_matrix(dense)).resolution, data)
    turned = observed(data[::-1, ::-1], wavelength=PIXELS[::-1])
    np.testing.assert_array_equal(turned.resolution, data)
    part = obs.cut(5110, 5120)
    inside = (PIXELS >= 5110) & (PIXELS <= 5120)
    np.testing.assert_allclose(matrix_rows(part.resolution)[10], np.diagonal(dense)[inside])
    assert not part.good[0] and not part.good[-1] and part.good[12:-12].all()
    with pytest.raises(ObservationError, match="cannot be rebinned"):
        obs.rebin(2)
    with pytest.raises(ObservationError, match=r"\(n_diag, 400\) with an odd number"):
        observed(data[1:])
    with pytest.raises(ObservationError, match="not finite"):
        observed(np.full_like(data, np.nan))


def test_model_with_a_matrix_is_that_with_the_gaussian(tiny_emulator):
    star = observe(tiny_emulator, grid=tiny_emulator.config.wavelength)
    data, _ = gaussian_matrix(star.wavelength, 30_000.0)
    options = {"progress": False, "rv_range": (-60, 60), "line_errors": None}
    by_gaussian, by_matrix = (StellarModel(tiny_emulator, star, resolution=r, **options) for r in (30_000.0, data))
    values = {k: jnp.float32(v) for k, v in {**TRUTH, "rv": RV, "vbroad": VBROAD}.items()}
    one, other = (np.asarray(eqx.filter_jit(m.likelihood.normalised_flux)(values)) for m in (by_matrix, by_gaussian))
    used = np.asarray(by_matrix.likelihood.noise.weight) > 0
    assert (
        by_matrix.wavelength[0] == by_gaussian.wavelength[0] and used.sum() > len(used) - 16 and not used[[0, -1]].any()
    )
    np.testing.assert_allclose(one[used], other[used], atol=1e-3)
    assert float(by_matrix.likelihood.noise.errors.instrument_kms) == pytest.approx(
        float(by_gaussian.likelihood.noise.errors.instrument_kms), rel=0.02
    )
