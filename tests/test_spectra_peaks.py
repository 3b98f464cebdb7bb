"""What the peaks of a cross-correlation say: noise, one star, two stars, the end of the range."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from emuinfer.constants import SPEED_OF_LIGHT
from emuinfer.observations import Observation
from emuinfer.observations.peaks import common_peaks, velocity_peaks
from emuinfer.wavelengths import shift_wavelength

REST = np.arange(5080.0, 5320.0, 0.02)
PIXELS = np.arange(5080.0, 5320.0, 0.05)
LINES = np.random.default_rng(0)
STRENGTH, CENTRE = LINES.exponential(0.7, 250), LINES.uniform(5100, 5300, 250)


def spectrum(kms=0.0):
    """Sharp lines, seen with a Gaussian of `kms` on top of the template's."""
    depth = sum(s * np.exp(-0.5 * ((REST - c) / 0.06) ** 2) for s, c in zip(STRENGTH, CENTRE, strict=True))
    sigma = kms / SPEED_OF_LIGHT * 5200 / 0.02
    return gaussian_filter1d(np.exp(-depth), sigma) if kms else np.exp(-depth)


TEMPLATE = spectrum()


def observed(*stars, snr=100.0, seed=1):
    """`stars`: (velocity, share of the light) or (velocity, share, km/s of broadening)."""
    flux = np.zeros(len(PIXELS))
    for rv, share, *sigma in stars:
        flux += share * np.interp(PIXELS, shift_wavelength(REST, rv), spectrum(*sigma))
    noise = np.random.default_rng(seed).standard_normal(len(PIXELS)) / snr
    return Observation(PIXELS, flux + noise, 1 / snr, resolution=40_000, medium="vacuum", clip=None)


def noise(seed, snr=30.0):
    tilt = 1 + 0.1 * np.sin(PIXELS / 30 + seed)
    flux = tilt * (1 + np.random.default_rng([7, seed]).standard_normal(len(PIXELS)) / snr)
    return Observation(PIXELS, flux, tilt / snr, resolution=40_000, medium="vacuum", clip=None)


def test_noise_is_not_significant():
    """The limit of a false alarm is 1e-3; the benchmark `velocity.py` measures it with 1,000 continua."""
    found = [velocity_peaks(noise(seed), REST, TEMPLATE) for seed in range(40)]
    assert sum(p.significant for p in found) <= 1 and not any(p.binary for p in found)
    # The probabilities are those of noise: about as many lie below each value as it says.
    share = np.mean([p.false_alarm < 0.3 for p in found])
    assert 0.05 < share < 0.45
    assert "not significant" in next(p for p in found if not p.significant).warnings[0]
    assert all(("no_velocity" in p.flags) != p.significant for p in found)


@pytest.mark.parametrize("rv", [-1000.0, -75.0, 0.0, 500.0, 1000.0])
def test_one_star_is_significant_at_every_velocity(rv):
    found = velocity_peaks(observed((rv, 1.0), snr=10), REST, TEMPLATE)
    assert found.significant and not found.binary and not found.at_edge and found.warnings == found.flags == ()
    assert found.best == pytest.approx(rv, abs=0.5)


@pytest.mark.parametrize("sigma", [13.0, 17.0, 30.0, 45.0])
def test_wide_lines_are_one_set(sigma):
    found = velocity_peaks(observed((40.0, 1.0, sigma)), REST, TEMPLATE)
    assert found.significant and not found.binary and found.best == pytest.approx(40, abs=2)


@pytest.mark.parametrize("separation, light", [(30.0, 0.25), (60.0, 0.8), (-150.0, 0.4)])
def test_two_sets_of_lines(separation, light):
    star = observed((-20.0, 1 / (1 + light)), (-20.0 + separation, light / (1 + light)))
    found = velocity_peaks(star, REST, TEMPLATE)
    assert found.binary and found.best == pytest.approx(-20, abs=2)
    assert found.second == pytest.approx(-20 + separation, abs=3) and found.ratio == pytest.approx(light, abs=0.15)
    assert "two sets of lines, at" in found.warnings[0] and "a binary?" in found.warnings[0]
    assert found.flags == ("second_spectrum",)


def test_the_end_of_the_range_is_named():
    found = velocity_peaks(observed((120.0, 1.0)), REST, TEMPLATE, (-100.0, 119.0))
    assert found.at_edge and "-100 to 119 km/s" in found.warnings[-1] and "--rv-range" in found.warnings[-1]
    assert not velocity_peaks(observed((110.0, 1.0)), REST, TEMPLATE, (-100.0, 119.0)).at_edge


def test_the_best_of_several_templates_counts():
    weak = 1 - 0.3 * (1 - TEMPLATE) * (np.sin(REST / 3) > 0.9)  # a star that has lost most of its lines
    at = np.interp(PIXELS, shift_wavelength(REST, 300.0), weak)
    star = Observation(PIXELS, at, snr=25, resolution=40_000, medium="vacuum", clip=None).with_noise(25, seed=2)
    one, both = (velocity_peaks(star, REST, t) for t in (TEMPLATE, np.stack([TEMPLATE, weak])))
    assert both.significance > 1.2 * one.significance and both.best == pytest.approx(300, abs=0.5)


def test_several_spectra_together():
    arms = [observed((55.0, 1.0), snr=2.0, seed=seed) for seed in range(4)]
    together = common_peaks([(arm, REST, TEMPLATE) for arm in arms])
    assert together.significant and together.best == pytest.approx(55, abs=2)
    assert together.significance > velocity_peaks(arms[0], REST, TEMPLATE).significance
    nothing = common_peaks([(noise(seed), REST, TEMPLATE) for seed in range(4)])
    assert not nothing.significant and math.isfinite(nothing.best)
    assert common_peaks([(arms[0], REST, TEMPLATE)]) == velocity_peaks(arms[0], REST, TEMPLATE)


@pytest.mark.comparison
@pytest.mark.parametrize("name", ["hd41248_espresso", "ic4651_9122_harps", "sun_uves", "hd122563_mike", "wasp120_uves"])
def test_real_stars_are_significant_and_single(shared_data, name):
    sun = np.load(shared_data / "grids" / "turbospectrum_sun.npz")
    star = Observation.read(shared_data / "observed" / f"{name}.fits").with_noise(10, seed=0)
    found = velocity_peaks(star, sun["wavelength"], sun["flux"])
    assert found.significant and not found.binary and found.warnings == ()


def test_wavelengths_in_air_are_shifted_in_vacuum():
    """astropy and specutils are not needed: in vacuum the shift is one factor, in air it is not."""
    air = np.array([5100.0, 5200.0, 5300.0])
    moved = shift_wavelength(air, 1000.0, "air")
    naive = air * (1 + 1000.0 / SPEED_OF_LIGHT)
    error = SPEED_OF_LIGHT * (moved / naive - 1) * 1e3  # m/s
    assert error == pytest.approx(12, abs=1)
    # The index of air by Ciddor (1996), another formula, at 5200 and 5217.3 Å: 1.00027782 and 1.00027778.
    n = lambda vacuum: 1 + 0.05792105 / (238.0185 - (1e4 / vacuum) ** 2) + 0.00167917 / (57.362 - (1e4 / vacuum) ** 2)
    vacuum = air * n(air * 1.000278)
    moved_again = vacuum * (1 + 1000.0 / SPEED_OF_LIGHT) / n(vacuum * (1 + 1000.0 / SPEED_OF_LIGHT))
    assert SPEED_OF_LIGHT * np.abs(moved_again / moved - 1).max() * 1e3 < 0.5
