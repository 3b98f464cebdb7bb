"""Statistics of the residuals of a fit that are large where one star's spectrum does not describe the data. NumPy.

Each is a number of one spectrum; `goodness.judge` compares them with thresholds. They weigh by the noise and by the model's own
errors at single pixels: what the lines and the emulator are known to be wrong by is no misfit.
"""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import gaussian_filter1d

from ..constants import SPEED_OF_LIGHT

CUT = 5.0  # standard deviations at which a residual is cut, so that no single line decides
REACH = 300.0  # km/s over which the residuals are correlated with the star's lines
SEARCHED = 200.0  # km/s within which a second star is sought
OWN = 15.0  # km/s, or two widths of a line: correlations this near are with the star's lines themselves
SIDE = 2.0  # Å on each side of a step of the continuum
STEP, SMALLEST_STEP = 7.0, 0.01  # times the scatter of such differences elsewhere, and relative to the continuum
ABOVE = 0.01  # of the continuum, the least height of emission


class Spectrum:
    """Relative depths and errors of a fitted spectrum, `(n_pix,)` each, from its `Residuals` and wavelengths in Å."""

    def __init__(self, wavelength, residuals):
        r = residuals
        as_float = lambda a: np.asarray(a, float)
        self.wavelength, self.residuals = as_float(wavelength), r
        self.weight = as_float(r.weight)
        self.used = self.weight > 0
        self.level = np.maximum(as_float(r.continuum), 1e-6)
        self.depth = np.where(self.used, (as_float(r.model) - as_float(r.flux)) / self.level, 0.0)  # > 0: too dark
        self.model = as_float(r.model) / self.level
        self.noise2 = (as_float(r.sigma) / self.level) ** 2
        self.error = as_float(r.error) / self.level
        self.jitter = float(r.jitter)
        self.step = SPEED_OF_LIGHT * float(np.median(np.diff(wavelength) / wavelength[:-1]))  # km/s
        self.width = max(float(r.width_kms) / self.step, 0.5)  # of a line, pixels

    def with_depth(self, depth) -> "Spectrum":
        """The same with other residuals."""
        other = object.__new__(Spectrum)
        other.__dict__ = {**self.__dict__, "depth": np.where(self.used, depth, 0.0)}
        return other

    def simulated(self, rng) -> "Spectrum":
        """Residuals as they would be if noise, jitter and the model's errors were all there is."""
        white, lines = rng.standard_normal((2, len(self.depth)))
        field = gaussian_filter1d(lines, self.width) * np.sqrt(2 * np.sqrt(np.pi) * self.width)
        return self.with_depth(white * np.sqrt(self.noise2 + self.jitter**2) + field * self.error)


def statistics_of(s: Spectrum) -> dict[str, float]:
    """All statistics by name, and what messages need of them."""
    single = s.noise2 + s.error**2
    found = {
        "jitter": s.jitter / np.sqrt(np.median(single[s.used])),
        "outliers": float((s.weight[s.used] < 0.5).mean()),
        "lines": float(s.residuals.gain),
    }
    return found | smoothed(s) | second_spectrum(s, single) | shape_of_lines(s)


def smoothed(s: Spectrum) -> dict[str, float]:
    """Residuals averaged over a line's width: `correlated`, their chi², in which errors that lie beside each other add up, and
    `emission`, the share of pixels where they stand above the continuum."""
    smooth = lambda x: gaussian_filter1d(x, s.width, mode="constant")
    share = np.maximum(smooth(s.used.astype(float)), 1e-6)
    mean = smooth(s.depth) / share
    # A Gaussian kernel squared is a Gaussian of 1/sqrt(2) of its width, times 1 / (2 sqrt(pi) width).
    squared = lambda x: gaussian_filter1d(x, s.width / np.sqrt(2), mode="constant") / (2 * np.sqrt(np.pi) * s.width)
    white = squared(np.where(s.used, s.noise2, 0.0)) / share**2
    white += s.jitter**2 * squared(s.used.astype(float)) / share**2
    coherent = (smooth(np.where(s.used, s.error, 0.0)) / share) ** 2
    z = mean[s.used] / np.sqrt((white + coherent)[s.used])
    above = (smooth(np.where(s.used, s.model - 1 - s.depth, 0.0)) / share)[s.used]
    return {
        "correlated": float(np.minimum(z**2, CUT**2).mean()),
        "emission": float(((z < -CUT) & (above > ABOVE)).mean()),
    }


def second_spectrum(s: Spectrum, single) -> dict[str, float]:
    """Correlation of the residuals with the star's own lines at other velocities.

    `second_spectrum`: the highest, over the scatter at all other velocities. `second_kms`: the velocity of the lines from the
    star's, `second_share`: their depth in units of the star's.
    """
    x = SPEED_OF_LIGHT * np.log(s.wavelength / s.wavelength[0])
    step = max(s.step, 0.5)
    grid = np.arange(0.0, x[-1], step)
    onto = lambda a: np.interp(grid, x, a)
    w = onto(np.where(s.used, 1 / single, 0.0))
    cut = np.clip(s.depth, -CUT * np.sqrt(single), CUT * np.sqrt(single))
    d, t = onto(np.where(s.used, cut / single, 0.0)), onto(1 - np.asarray(s.residuals.template, float))
    far = int(REACH / step)
    n = next_fast_len(len(grid) + far + 1, real=True)
    shifts = np.arange(-far, far + 1)
    template, square = rfft(t, n).conj(), rfft(t * t, n).conj()
    moved = lambda a, b: irfft(rfft(a, n) * b, n)[shifts % n]
    of_lines = moved(w, template)
    cross = moved(d, template) - d.sum() * of_lines / w.sum()
    norm = np.maximum(moved(w, square) - of_lines**2 / w.sum(), 1e-12)
    z, v = cross / np.sqrt(norm), shifts * step
    away = np.abs(v) > max(OWN, 2 * s.width * s.step)
    middle = np.median(z[away])
    scatter = max(1.4826 * float(np.median(np.abs(z[away] - middle))), np.sqrt(step / s.step))
    searched = np.flatnonzero(away & (np.abs(v) < SEARCHED))
    best = searched[np.argmax(z[searched])]
    return {
        "second_spectrum": float((z[best] - middle) / scatter),
        "second_kms": float(v[best]),
        "second_share": float(cross[best] / norm[best]),
    }


def shape_of_lines(s: Spectrum) -> dict[str, float]:
    """`rotation`: how far the lines have a rotation profile in place of the fitted Gaussian, 0 to 1, and `rotation_z`, over its
    standard deviation. The width and the depth of the lines are free."""
    r = s.residuals
    rows = np.stack([np.asarray(a, float) for a in (r.rotation, r.broader, 1 - np.asarray(r.template))])
    if not np.abs(rows[0]).max() > 1e-6:
        return {"rotation": 0.0, "rotation_z": 0.0}
    ivar = np.where(s.used, s.weight * s.level**2 / np.asarray(r.variance, float), 0.0)
    covariance = np.linalg.pinv((rows * ivar) @ rows.T)
    best = covariance @ ((rows * ivar) @ -s.depth)
    return {"rotation": float(best[0]), "rotation_z": float(best[0] / np.sqrt(covariance[0, 0]))}


def steps_of(s: Spectrum) -> list[tuple[float, float]]:
    """Steps of the continuum, as where orders were joined: `[(wavelength in Å, size relative to the continuum)]`.

    At each place the residuals' means over `SIDE` on both sides are compared; a step stands out from these differences elsewhere.
    Errors of lines hide small ones: 5 % is found in most stars of `tests/benchmarks/goodness.py`, 2 % in hardly any.
    """
    ivar = np.where(s.used, s.weight / (s.noise2 + s.error**2 + s.jitter**2), 0.0)
    sums = np.concatenate([[[0.0], [0.0]], np.cumsum([ivar, -ivar * s.depth], axis=1)], axis=1)
    at = np.arange(s.wavelength[0] + SIDE, s.wavelength[-1] - SIDE, SIDE / 20)
    if len(at) < 200:
        return []
    edges = [np.searchsorted(s.wavelength, at + shift) for shift in (-SIDE, 0.0, SIDE)]
    known, total = zip(*(sums[:, b] - sums[:, a] for a, b in zip(edges, edges[1:])), strict=True)
    enough = np.minimum(*known) > 0.2 * np.median(ivar[s.used]) * np.median(edges[1] - edges[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(enough, total[1] / known[1] - total[0] / known[0], 0.0)
    size = np.abs(step)
    limit = max(STEP * 1.4826 * float(np.median(size[enough])), SMALLEST_STEP) if enough.any() else np.inf
    found: list[tuple[float, float]] = []
    for k in np.argsort(-size):
        if size[k] < limit:
            break
        if all(abs(at[k] - other) > 2 * SIDE for other, _ in found):
            found.append((float(at[k]), float(step[k])))
    return sorted(found)
