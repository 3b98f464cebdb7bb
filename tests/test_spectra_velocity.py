"""Velocities over ±500 km/s and rotation up to 100 km/s, found from nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TRUTH, observe

import emuinfer as ei
from emuinfer.constants import SPEED_OF_LIGHT
from emuinfer.forward.operator import SpectrumOperator
from emuinfer.inference import Fit
from emuinfer.observations.cross_correlation import common_rv, cross_correlation_rv
from emuinfer.wavelengths.uniform import velocity_grid

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
    wavelength = np.arange(max(lo, 5102.0), min(hi, 5298.0), 0.05)
    model = np.asarray(SpectrumOperator(grid, wavelength, 4e4)(jnp.asarray(flux, jnp.float32), rv, 0.0, vsini), float)
    continuum = 1 + 0.1 * (wavelength - 5200) / 100
    noise = continuum / snr * np.random.default_rng(seed).standard_normal(len(wavelength))
    return ei.Observation(
        wavelength, continuum * model + noise, continuum / snr, resolution=4e4, medium="air", clip=None
    )


@pytest.mark.parametrize("rv, vsini, within", [(-480.0, 5.0, 1.0), (450.0, 5.0, 1.0), (450.0, 80.0, 10.0)])
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
