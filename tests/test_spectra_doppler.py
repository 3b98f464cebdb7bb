"""The first radial velocity by cross-correlation."""

from pathlib import Path

import numpy as np
import pytest

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation
from emuinfer.observations.cross_correlation import cross_correlation_rv
from emuinfer.wavelengths import shift_wavelength

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
TEMPLATE_WAVELENGTH = np.arange(5100, 5300, 0.02)
RNG = np.random.default_rng(0)
TEMPLATE = np.exp(
    -sum(
        t * np.exp(-0.5 * ((TEMPLATE_WAVELENGTH - c) / 0.06) ** 2)
        for t, c in zip(RNG.exponential(0.7, 250), RNG.uniform(5100, 5300, 250))
    )
)


@pytest.mark.parametrize("rv", [-432.1, -30.4, 0.0, 3.85, 251.3])
def test_known_shift_is_found(rv):
    wavelength = np.arange(5105, 5295, 0.05)
    flux = np.interp(wavelength, shift_wavelength(TEMPLATE_WAVELENGTH, rv), TEMPLATE)
    slope = 1000 * (1 + 0.4 * np.sin(wavelength / 60))
    obs = Observation(wavelength, flux * slope, snr=1000, medium="air").with_noise(15, seed=1)
    assert abs(cross_correlation_rv(obs, TEMPLATE_WAVELENGTH, TEMPLATE) - rv) < 0.5


def test_range_and_errors():
    obs = Observation(TEMPLATE_WAVELENGTH, TEMPLATE, snr=100, medium="air")
    assert 40 <= cross_correlation_rv(obs, TEMPLATE_WAVELENGTH, TEMPLATE, (40, 90)) <= 90
    with pytest.raises(ObservationError, match="5100.0 to 5300.0"):
        cross_correlation_rv(obs, TEMPLATE_WAVELENGTH + 1000, TEMPLATE)
    with pytest.raises(ObservationError, match="rv_range"):
        cross_correlation_rv(obs, TEMPLATE_WAVELENGTH, TEMPLATE, (5, -5))


@pytest.mark.comparison
@pytest.mark.skipif(not SHARED.exists(), reason="the observed spectra are not here")
@pytest.mark.parametrize(
    "name, rv",
    [
        ("hd41248_espresso", 3.85),
        ("ic4651_9122_harps", -30.4),
        ("sun_uves", 0.0),
        ("hd122563_mike", 0.0),
        ("wasp120_uves", 0.0),
    ],
)
def test_real_spectra_with_a_solar_template(name, rv):
    sun = np.load(SHARED / "grids" / "turbospectrum_sun.npz")
    obs = Observation.read(SHARED / "observed" / f"{name}.fits")
    for noisy in (obs, obs.with_noise(20, seed=0)):
        assert abs(cross_correlation_rv(noisy, sun["wavelength"], sun["flux"]) - rv) < 1.0
