"""Velocities by cross-correlation with a template: the curve of correlation against velocity.

What its peaks say, and how much noise alone would make, is in `peaks.py`. Shifts are those of `wavelengths.doppler`.
"""

import dataclasses

import numpy as np

from ..constants import FWHM_PER_SIGMA, RV_RANGE, SPEED_OF_LIGHT
from ..errors import ObservationError
from ..forward.broadening import rotation_transform
from ..wavelengths.doppler import shift_factor, shift_wavelength

SMOOTH_KMS = 500.0  # width of the running mean that is taken off: what is left are lines
ROTATIONS = (0.0, 7.0, 14.0, 24.0, 40.0, 64.0, 100.0)  # km/s, v sin i of the templates
GAUSSIANS = (10.0, 14.0, 20.0, 28.0, 40.0, 56.0)  # km/s, standard deviations of others
FEWEST = 50  # pixels
OVERLAP = 0.2  # of the template's variance that must lie on data for a shift to count


def cross_correlation_rv(observation, template_wavelength, template_flux, rv_range=RV_RANGE) -> float:
    """A first radial velocity in km/s: the shift at which the template's lines correlate best with the observed ones.

    `template_wavelength` (Å, `(n,)`, increasing, in the medium of the observation) and `template_flux` are a spectrum in the
    star's rest frame, broadened or not, `(n,)`; or several of them, `(n_templates, n)`, of which the best counts. All are
    normalised by a rough continuum and resampled to a grid uniform in velocity; the gain in chi² over a flat spectrum is
    maximised over `rv_range` and over the broadening of the template, then its peak refined with a parabola. Tens of m/s to
    1 km/s of error are usual, enough to start a fit.

    Raises `ObservationError` if the spectra share no lines, or the range is not one.
    """
    curves = Correlation(observation, template_wavelength, template_flux, rv_range).curves()
    best = max(curves, key=lambda curve: curve.highest)
    return best.peak()


def common_rv(pairs, rv_range=RV_RANGE) -> float:
    """As `cross_correlation_rv`, the velocity that several spectra of a star share best.

    `pairs`: for each, the arguments `(observation, template_wavelength, template_flux)`. Their gains in chi² are added, so
    that a spectrum counts by the number and the noise of its lines.
    """
    pairs = list(pairs)
    curves = [Correlation(o, wavelength, flux, rv_range).curves() for o, wavelength, flux in pairs]
    tops = [max(found, key=lambda curve: curve.highest) for found in curves]
    return common_peak([observation.snr for observation, _, _ in pairs], tops)


def common_peak(snr, curves: "list[Curve]") -> float:
    """The velocity, km/s, at which the gains in chi² of several spectra, of these ratios of signal to noise, are largest together."""
    finest = min(curves, key=lambda curve: curve.step)
    gain = sum(
        ratio**2 * np.interp(finest.velocity, curve.velocity, np.maximum(curve.score, 0.0) ** 2)
        for ratio, curve in zip(snr, curves)
    )
    return dataclasses.replace(finest, score=gain).peak()


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The correlation with one template at each velocity (km/s, increasing). Arrays `(n_shifts,)`.

    - `score`: correlation over the template's norm: its square is proportional to the gain in chi² over a flat spectrum.
    - `searched`: where a peak may lie; elsewhere the curve tells the noise.
    - `variance`: the template's squared norm on the data; `shifts`: in steps of the grid, `step` km/s each.
    """

    velocity: np.ndarray
    score: np.ndarray
    searched: np.ndarray
    variance: np.ndarray
    shifts: np.ndarray
    step: float
    limits: tuple[float, float]
    template: np.ndarray

    @property
    def best(self) -> int:
        """Index of the highest searched point."""
        return int(np.argmax(np.where(self.searched, self.score, -np.inf)))

    @property
    def highest(self) -> float:
        """The highest searched score."""
        return float(self.score[self.best])

    def peak(self, at: int | None = None) -> float:
        """Velocity of the peak at index `at`, by default the best, between the points by a parabola, within the limits."""
        at = self.best if at is None else at
        velocity = float(self.velocity[at])
        if 0 < at < len(self.score) - 1:
            left, middle, right = self.score[at - 1 : at + 2]
            bend = left - 2 * middle + right
            if bend < 0:
                offset = float(np.clip(0.5 * (left - right) / bend, -1, 1))
                velocity += offset * (self.velocity[at + 1] - self.velocity[at])
        return float(np.clip(velocity, *self.limits))


class Correlation:
    """A spectrum and a template on one grid uniform in velocity, ready to be correlated; arguments as `cross_correlation_rv`."""

    def __init__(self, observation, template_wavelength, template_flux, rv_range=RV_RANGE):
        from ..wavelengths.uniform import velocity_grid
        from .quality import rough_continuum

        low, high = (float(v) for v in rv_range)
        self.limits = low, high
        if not -SPEED_OF_LIGHT < low < high < SPEED_OF_LIGHT:
            raise ObservationError(f"rv_range = {tuple(rv_range)} must be two increasing velocities in km/s.")
        template_wavelength, template_flux = (np.asarray(x, dtype=float) for x in (template_wavelength, template_flux))
        wavelength, good, medium = observation.wavelength, observation.good, observation.medium
        self.factor = shift_factor(float(np.median(template_wavelength)), medium)
        # Noise is judged over a wide range, however narrow the searched one is.
        self.wide = min(low, RV_RANGE[0]), max(high, RV_RANGE[1])
        first, last = template_wavelength[[0, -1]]
        start = max(wavelength[0], float(shift_wavelength(first, self.wide[0], medium)))
        end = min(wavelength[-1], float(shift_wavelength(last, self.wide[1], medium)))
        inside = good & (wavelength >= shift_wavelength(first, low, medium))
        inside &= wavelength <= shift_wavelength(last, high, medium)
        if inside.sum() < FEWEST:
            raise ObservationError(
                f"The spectrum ({wavelength[0]:.1f} to {wavelength[-1]:.1f} Å) and the template "
                f"({first:.1f} to {last:.1f} Å), shifted by {low:g} to {high:g} km/s, "
                f"share {inside.sum()} usable pixels; {FEWEST} are needed for a radial velocity."
            )
        pixel = SPEED_OF_LIGHT * float(np.median(np.diff(wavelength) / wavelength[:-1]))
        grid = velocity_grid(start, end, min(max(0.25, pixel), 2.0))
        self.step = grid.step
        level = np.maximum(rough_continuum(observation.flux, good), 1e-12)
        relative = np.where(good, observation.uncertainty / level, 1.0)
        clip = max(0.3, 4 * float(np.median(relative[good])))
        depth = np.clip(1.0 - observation.flux[good] / level[good], -clip, max(1.0, clip))
        usable = np.interp(grid.wavelength, wavelength, good.astype(float)) > 0.99
        noise = np.interp(grid.wavelength, wavelength[good], relative[good])
        quietest = np.median(noise[usable]) if usable.any() else 1.0
        self.weight = np.where(usable, 1.0 / (1.0 + np.maximum((noise / quietest) ** 2 - 1.0, 0.0)), 0.0)
        window = max(3, round(SMOOTH_KMS / grid.step))
        self.depth = _lines_only(np.interp(grid.wavelength, wavelength[good], depth), self.weight, window)
        # The template on the same grid, continued beyond the data; `first` counts its points from the data's first.
        spread = SPEED_OF_LIGHT * np.log(np.array([first, last]) / grid.wavelength[0]) / grid.step
        self.first, stop = int(np.ceil(spread[0])), int(np.floor(spread[1])) + 1
        at = grid.wavelength[0] * np.exp(np.arange(self.first, stop) * grid.step / SPEED_OF_LIGHT)
        models = [1.0 - f / rough_continuum(f, np.isfinite(f)) for f in np.atleast_2d(template_flux)]
        self.templates = [_lines_only(np.interp(at, template_wavelength, m), np.ones(len(at)), window) for m in models]
        power = observation.resolution
        self.sigma = 0.0 if power is None or np.ndim(power) > 1 else SPEED_OF_LIGHT / FWHM_PER_SIGMA / np.median(power)
        self._set_shifts()

    def _set_shifts(self):
        from scipy.fft import next_fast_len, rfft

        steps = (
            self.factor * SPEED_OF_LIGHT / self.step * np.log1p(np.array([*self.wide, *self.limits]) / SPEED_OF_LIGHT)
        )
        self.shifts = np.arange(int(np.ceil(steps[0])), int(np.floor(steps[1])) + 1)
        self.searched = (self.shifts >= steps[2] - 1e-9) & (self.shifts <= steps[3] + 1e-9)
        if not self.searched.any():
            self.searched = self.shifts == round(float(steps[2:].mean()))
        self.velocity = SPEED_OF_LIGHT * np.expm1(self.shifts * self.step / SPEED_OF_LIGHT / self.factor)
        self.n = next_fast_len(len(self.depth) + len(self.templates[0]), real=True)
        self._of_depth, self._of_weight = rfft(self.weight * self.depth, self.n), rfft(self.weight, self.n)

    def curves(self) -> list[Curve]:
        """The curves of the template that fits best, at the data's resolution, with slow and with fast rotation."""
        at_rest = [self.curve(0.0, lines) for lines in self.templates]
        best = int(np.argmax([curve.highest for curve in at_rest]))
        lines = self.templates[best]
        rotating = [self.curve(vsini, lines) for vsini in ROTATIONS if vsini > self.step]
        return [at_rest[best], *rotating, *(self.curve(0.0, lines, sigma) for sigma in GAUSSIANS)]

    def curve(self, vsini: float, lines: np.ndarray, sigma: float = 0.0) -> Curve:
        """The curve of a template with the rotation `vsini`, and a Gaussian of standard deviation `sigma`, km/s."""
        from scipy.fft import rfft

        template = self._broadened(vsini, lines, sigma)
        score, variance = (
            self.score_of(self._of_depth, template),
            self.correlate(self._of_weight, rfft(template**2, self.n)),
        )
        floor = OVERLAP * variance.max()
        counts = variance > floor
        score = np.where(counts, score / np.sqrt(np.maximum(variance, floor)), 0.0)
        searched = self.searched & counts
        searched = searched if searched.any() else self.searched
        return Curve(self.velocity, score, searched, variance, self.shifts, self.step, self.limits, template)

    def _broadened(self, vsini, lines, sigma):
        from scipy.fft import irfft, next_fast_len, rfft

        n = next_fast_len(len(lines) + int(600 / self.step), real=True)
        k = 2 * np.pi / (n * self.step) * np.arange(n // 2 + 1)
        transfer = np.exp(-0.5 * k**2 * (self.sigma**2 + sigma**2)) * (rotation_transform(k * vsini) if vsini else 1.0)
        return irfft(rfft(lines, n) * transfer, n)[: len(lines)]

    def score_of(self, transformed, template):
        """`sum_i data[i] template[i - s]` at all shifts of data whose transform is given."""
        from scipy.fft import rfft

        return self.correlate(transformed, rfft(template, self.n))

    def correlate(self, a, b):
        """The correlation at all shifts from two transforms."""
        from scipy.fft import irfft

        return irfft(a * np.conj(b), self.n)[(self.shifts + self.first) % self.n]

    def moved(self, template, shift: int) -> np.ndarray:
        """The template on the data's grid, moved by `shift` steps, 0 where it does not reach."""
        out = np.zeros(len(self.depth))
        begin = self.first + int(shift)
        lo, hi = max(0, begin), min(len(out), begin + len(template))
        if hi > lo:
            out[lo:hi] = template[lo - begin : hi - begin]
        return out


def _lines_only(depth, weight, window):
    """`depth` without its weighted running mean: continuum errors go, lines stay."""
    from scipy.ndimage import uniform_filter1d

    smooth = lambda x: uniform_filter1d(uniform_filter1d(x, window, mode="nearest"), window, mode="nearest")
    mean = smooth(weight * depth) / np.maximum(smooth(weight), 1e-3)
    return np.where(weight > 0, depth - mean, 0.0)
