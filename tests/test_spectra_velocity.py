"""Velocities over ±1,000 km/s and rotation up to 100 km/s, found from nothing; pixels and grid that go with them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import RANGE, TRUTH, observe

import emuinfer as ei
from emuinfer.constants import SPEED_OF_LIGHT
from emuinfer.forecast import Instrument
from emuinfer.forward.operator import SpectrumOperator
from emuinfer.inference import Fit
from emuinfer.observations.cross_correlation import common_rv, cross_correlation_rv
from emuinfer.survey.model import SurveyModel
from emuinfer.wavelengths import rest_wavelength, shift_wavelength
from emuinfer.wavelengths.uniform import velocity_grid

FAR = (-1000.0, -75.0, 0.0, 200.0, 1000.0)
WIDE = np.arange(6155.0, 6220.0, 0.07)  # Å, far beyond the tiny emulator's range on both sides
OPTIONS = {"progress": False, "line_errors": None, "continuum_terms": 2}
STAR = {"teff": 6100.0, "logg": 4.2, "fe_h": -0.1, "vmic": 1.4}


@pytest.fixture(scope="module")
def shipped():
    """The shipped emulator, and the spectrum of a star at rest."""
    emulator = ei.load_emulator("optical-fgk")
    grid = velocity_grid(5100.0, 5300.0, 1.0)
    labels = {n: STAR.get(n, 0.0) for n in emulator.label_space.names}
    return emulator, grid, emulator(labels, np.clip(grid.wavelength, 5100.0, 5300.0))


def mock(grid, flux, rv, vsini, snr=100.0, seed=0):
    """S/N 100 and R = 40,000, where the star's spectrum is known, with a sloping continuum."""
    margin = vsini + 30.0
    lo, hi = 5100.0 * (1 + (rv + margin) / SPEED_OF_LIGHT), 5300.0 * (1 + (rv - margin) / SPEED_OF_LIGHT)
    wavelength = np.arange(lo, hi, 0.05)
    operator = SpectrumOperator(grid, wavelength, 4e4, rv_range=(rv, rv), medium="air")
    model = np.asarray(operator(jnp.asarray(flux, jnp.float32), rv, 0.0, vsini), float)
    continuum = 1 + 0.1 * (wavelength - 5200) / 100
    noise = continuum / snr * np.random.default_rng(seed).standard_normal(len(wavelength))
    return ei.Observation(
        wavelength, continuum * model + noise, continuum / snr, resolution=4e4, medium="air", clip=None
    )


@pytest.mark.parametrize(
    "rv, vsini, within",
    [(-480.0, 5.0, 1.0), (450.0, 5.0, 1.0), (450.0, 80.0, 10.0), (-1000.0, 5.0, 1.0), (1000.0, 5.0, 1.0)],
)
@pytest.mark.slow
def test_high_velocities_are_found(shipped, rv, vsini, within):
    emulator, grid, flux = shipped
    model = ei.StellarModel(emulator, mock(grid, flux, rv, vsini), broadening="vsini", line_errors=None, progress=False)
    assert model.rv_guess == pytest.approx(rv, abs=within)
    support = model.nuisance_priors["rv"].support
    assert support.lower_bound < rv < support.upper_bound


def test_pixels_leave_room_for_the_rotation(tiny_emulator):
    """At the blue end of the usable pixels the kernels reach no further than the emulator does, up to its margin."""
    star = observe(tiny_emulator, grid=tiny_emulator.config.wavelength)
    options = {"progress": False, "line_errors": None, "continuum_terms": 2}
    narrow, wide, fixed = (
        ei.StellarModel(tiny_emulator, star, **options, **more)
        for more in ({}, {"broadening": "vsini"}, {"broadening": "vsini", "priors": {"vsini": 20.0}})
    )
    moved = lambda model: SPEED_OF_LIGHT * (model.wavelength[0] / narrow.wavelength[0] - 1)
    assert moved(wide) == pytest.approx(99, abs=8) and moved(fixed) == pytest.approx(20, abs=5)


def test_the_search_starts_with_fast_rotation_where_lines_are_wide(tiny_emulator):
    grid = tiny_emulator.config.wavelength
    flux = tiny_emulator(TRUTH, grid)
    wavelength = np.arange(6183.5, 6190.5, 0.05)
    model_flux = np.asarray(
        SpectrumOperator(grid, wavelength, 3e4)(jnp.asarray(flux, jnp.float32), 0.0, 0.0, 80.0), float
    )
    noise = 0.002 * np.random.default_rng(1).standard_normal(len(wavelength))
    star = ei.Observation(wavelength, model_flux + noise, 0.002, resolution=3e4, medium="air", clip=None)
    model = ei.StellarModel(
        tiny_emulator, star, broadening="vsini", line_errors=None, continuum_terms=1, rv_range=(-30, 30), progress=False
    )
    assert Fit.screened(model)[0].values["vsini"] > 30


def test_common_velocity_of_a_good_and_a_noisy_arm(shipped):
    _, grid, flux = shipped
    pairs = [
        (mock(grid, flux, -230.0, 5.0, snr, seed), grid.wavelength, flux)
        for snr, seed in ((1.0, 1), (60.0, 2), (1.0, 3))
    ]
    assert common_rv(pairs) == pytest.approx(-230, abs=0.5)
    alone = cross_correlation_rv(*pairs[1])
    assert common_rv(pairs[1:2]) == pytest.approx(alone, abs=0.05)


def far_star(emulator, rv, power=30_000, snr=200.0):
    """A star of the tiny emulator in a wide spectrum, shifted in vacuum and with a spline; its flux without noise, too."""
    from scipy.interpolate import CubicSpline
    from scipy.ndimage import gaussian_filter1d

    grid = np.exp(np.linspace(*np.log(RANGE), 4000))
    step = SPEED_OF_LIGHT * np.log(grid[1] / grid[0])
    flux = np.asarray(emulator(TRUTH, np.clip(grid, *RANGE)), float)
    sigma = np.hypot(SPEED_OF_LIGHT / 2.354820045 / power, 4.0) / step
    smooth = CubicSpline(grid, gaussian_filter1d(flux, sigma, truncate=6, mode="nearest"))
    at = rest_wavelength(WIDE, rv, "air")
    clean = np.where((at > RANGE[0]) & (at < RANGE[1]), smooth(np.clip(at, *RANGE)), 1.0)
    noise = np.random.default_rng(5).standard_normal(len(WIDE)) / snr
    star = ei.Observation(WIDE, clean + noise, 1 / snr, resolution=power, medium="air", name="far", clip=None)
    return star, clean


@pytest.mark.parametrize("rv", FAR)
def test_a_spectrum_wider_than_the_emulator_at_every_velocity(tiny_emulator, rv):
    star, clean = far_star(tiny_emulator, rv)
    model = ei.StellarModel(tiny_emulator, star, **OPTIONS)
    assert model.rv_guess == pytest.approx(rv, abs=1.0) and model.peaks.significant
    at_rest = rest_wavelength(model.wavelength, rv, "air")
    ends = tiny_emulator.config.wavelength[[0, -1]]
    assert at_rest[0] > ends[0] and at_rest[-1] < ends[1] and np.ptp(at_rest) > np.ptp(ends) - 4.0
    values = {k: jnp.float32(v) for k, v in {**TRUTH, "rv": rv, "vbroad": 4.0}.items()}
    flux = np.asarray(model.likelihood.normalised_flux(values), float)
    expected = clean[np.searchsorted(WIDE, model.wavelength)]
    assert np.abs(flux - expected).max() < 2e-3
    # To the m/s: what is left is no shift.
    slope = np.gradient(expected, model.wavelength) * model.wavelength / SPEED_OF_LIGHT
    assert abs(slope @ (flux - expected) / (slope @ slope)) * 1e3 < 3.0


def test_stars_of_a_survey_use_pixels_of_their_own(tiny_emulator):
    model = SurveyModel(tiny_emulator, WIDE, 30_000, "air", (-1100.0, 1100.0), **OPTIONS)
    assert model.nuisance_priors["rv"].support.upper_bound == 20
    for rv in FAR:
        _, clean = far_star(tiny_emulator, rv)
        usable = model.usable(rv)
        single = ei.StellarModel(tiny_emulator, far_star(tiny_emulator, rv)[0], **OPTIONS)
        assert abs(usable.sum() - len(single.wavelength)) <= 1
        forward = eqx.tree_at(lambda f: f.frame, model.likelihood.forward, jnp.float32(rv))
        values = {k: jnp.float32(v) for k, v in {**TRUTH, "rv": 0.0, "vbroad": 4.0}.items()}
        flux = np.asarray(forward(values), float)
        assert np.isfinite(flux).all()
        assert np.abs(flux - clean[model.pixels])[usable].max() < 2e-3


def test_without_lines_the_velocity_is_free_and_the_user_is_told(tiny_emulator):
    flat = 1 + np.random.default_rng(2).standard_normal(len(WIDE)) / 50
    star = ei.Observation(WIDE, flat, 1 / 50, resolution=30_000, medium="air", name="flat", clip=None)
    model = ei.StellarModel(tiny_emulator, star, rv_range=(-90, 90), **OPTIONS)
    support = model.nuisance_priors["rv"].support
    assert (support.lower_bound, support.upper_bound) == (-90, 90)
    assert "not significant" in model.velocity_warnings[0]
    # At every velocity that the prior allows the emulator determines the pixels.
    lo, hi = tiny_emulator.config.wavelength[[0, -1]]
    assert model.wavelength[0] > shift_wavelength(lo, 90, "air") and model.wavelength[-1] < shift_wavelength(
        hi, -90, "air"
    )


def test_forecasts_hold_at_every_velocity(tiny_emulator):
    instrument = Instrument.single(6155.0, 6220.0, 30_000.0)
    at = {rv: ei.cramer_rao(tiny_emulator, TRUTH, instrument, 100.0, rv=rv, emulator_error=None) for rv in FAR}
    for rv in FAR:
        for name in ("teff", "fe_h", "rv"):
            assert at[rv].marginal[name] == pytest.approx(at[0.0].marginal[name], rel=0.05), (rv, name)
        seen = rest_wavelength(np.array(at[rv].meta["wavelength_range"]), rv, "air")
        assert seen[0] >= RANGE[0] and seen[1] <= RANGE[1]
