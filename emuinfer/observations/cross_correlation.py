"""Velocities: the grid uniform in velocity, Doppler shifts, and a first radial velocity by cross-correlation.

Convention: a star that recedes has positive velocity v, and its lines appear at `wavelength * (1 + v / c)`. On a grid
uniform in ln(wavelength) this is a shift by `c log1p(v / c)`, whatever the wavelength. Air wavelengths are shifted as
they are: the index of air changes so slowly that the error is below 1 m/s for |v| < 100 km/s in the optical.
"""

import numpy as np

from ..constants import SPEED_OF_LIGHT
from ..errors import ObservationError
from ..wavelengths.uniform import velocity_grid


def cross_correlation_rv(observation, template_wavelength, template_flux, rv_range=(-500.0, 500.0)) -> float:
    """A first radial velocity in km/s: the shift at which the template's lines correlate best with the observed ones.

    `template_wavelength` (Å, `(n,)`, increasing, in the medium of the observation) and `template_flux` (`(n,)`) are a
    spectrum in the star's rest frame, broadened or not. Both spectra are normalised by a rough continuum and resampled
    to a grid uniform in velocity; the correlation coefficient over the usable pixels is maximised over `rv_range`, then
    its peak refined with a parabola. Tens of m/s to 1 km/s of error are usual, enough to start a fit.

    Raises `ObservationError` if the spectra share no lines, or the range is not one.
    """
    velocity, score = velocity_scores(observation, template_wavelength, template_flux, rv_range)
    return _peak(velocity, score, rv_range)


def common_rv(pairs, rv_range=(-500.0, 500.0)) -> float:
    """As `cross_correlation_rv`, the velocity that several spectra of a star share best.

    `pairs`: for each, the arguments `(observation, template_wavelength, template_flux)`. Their gains in chi² are added, so
    that a spectrum counts by the number and the noise of its lines.
    """
    found = []
    for observation, wavelength, flux in pairs:
        velocity, score = velocity_scores(observation, wavelength, flux, rv_range)
        found.append((velocity, observation.snr**2 * np.maximum(score, 0.0) ** 2))
    finest = min((velocity for velocity, _ in found), key=lambda v: np.ptp(v) / len(v))
    return _peak(finest, sum(np.interp(finest, velocity, gain) for velocity, gain in found), rv_range)


def _peak(velocity, score, limits) -> float:
    """Where `score` is highest, between the points by a parabola."""
    best = int(np.argmax(score))
    peak = float(velocity[best])
    if 0 < best < len(score) - 1:
        before, at, after = score[best - 1 : best + 2]
        peak += 0.5 * (before - after) / (before - 2 * at + after) * (velocity[best + 1] - velocity[best])
    return float(np.clip(peak, min(limits), max(limits)))


def velocity_scores(observation, template_wavelength, template_flux, rv_range=(-500.0, 500.0)):
    """Velocities in km/s and, up to a constant, the correlation coefficient at each; see `cross_correlation_rv`.

    The coefficient is divided by the template's norm only, so that its square is proportional to the gain in chi².
    """
    from .quality import rough_continuum

    low, high = (float(v) for v in rv_range)
    if not -SPEED_OF_LIGHT < low < high < SPEED_OF_LIGHT:
        raise ObservationError(f"rv_range = {tuple(rv_range)} must be two increasing velocities in km/s.")
    template_wavelength, template_flux = (np.asarray(x, dtype=float) for x in (template_wavelength, template_flux))
    wavelength, good = observation.wavelength, observation.good
    start, end = max(wavelength[0], template_wavelength[0]), min(wavelength[-1], template_wavelength[-1])
    inside = good & (wavelength >= start) & (wavelength <= end)
    if inside.sum() < 50:
        raise ObservationError(
            f"The spectrum ({wavelength[0]:.1f} to {wavelength[-1]:.1f} Å) and the template "
            f"({template_wavelength[0]:.1f} to {template_wavelength[-1]:.1f} Å) "
            f"share {inside.sum()} usable pixels; 50 are needed for a radial velocity."
        )
    pixel = SPEED_OF_LIGHT * float(np.median(np.diff(wavelength) / wavelength[:-1]))
    grid = velocity_grid(start, end, min(max(0.25, pixel), 2.0))
    observed = 1.0 - observation.flux / np.maximum(rough_continuum(observation.flux, good), 1e-12)
    model = 1.0 - template_flux / rough_continuum(template_flux, np.isfinite(template_flux))
    d = np.interp(grid.wavelength, wavelength[good], np.clip(observed[good], -0.3, 1.0))
    t = np.interp(grid.wavelength, template_wavelength, model)
    weight = np.interp(grid.wavelength, wavelength, inside.astype(float)) > 0.99
    shifts, score = _correlation(
        d, t, weight.astype(float), SPEED_OF_LIGHT * np.log1p(np.array([low, high]) / SPEED_OF_LIGHT) / grid.step
    )
    return SPEED_OF_LIGHT * np.expm1(shifts * grid.step / SPEED_OF_LIGHT), score


def _correlation(d, t, weight, limits):
    """Weighted correlation coefficient (up to a constant) of `d` with `t` moved by whole steps between `limits`."""
    from scipy.fft import next_fast_len

    shifts = np.arange(int(np.ceil(limits[0])), int(np.floor(limits[1])) + 1)
    if not len(shifts):
        shifts = np.array([round(float(np.mean(limits)))])
    n = next_fast_len(len(d) + int(np.abs(shifts).max()) + 1, real=True)

    def correlate(a, b):
        """`sum_i a[i] b[i - s]` for all shifts `s`."""
        return np.fft.irfft(np.fft.rfft(a, n) * np.conj(np.fft.rfft(b, n)), n)[shifts % n]

    total = weight.sum()
    sum_t = correlate(weight, t)
    covariance = correlate(weight * d, t) - (weight * d).sum() * sum_t / total
    variance = correlate(weight, t**2) - sum_t**2 / total
    return shifts, covariance / np.sqrt(np.maximum(variance, 1e-6 * variance.max()))
