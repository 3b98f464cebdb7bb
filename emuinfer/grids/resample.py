"""Spectra of different samplings brought to common wavelengths."""

import numpy as np

from ..errors import GridError

TOLERANCE = 1.02  # a pixel may be this much wider than the spectrum's own before resolution counts as lost
SHORTER = 0.99  # share of the median coverage below which a spectrum is thought to be incomplete


def to_common(
    wavelengths, fluxes, where, step=None, limits=None, lose_resolution=False
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Common wavelengths (n_wave,) and fluxes (n, n_wave) float32 of spectra with their own wavelengths.

    - `wavelengths`, `fluxes`: lists of n arrays, ångström; `where`: n names of the spectra for messages.
    - `step`: of the common wavelengths, ångström. By default these are the pixels of the most finely sampled spectrum.
    - `limits`: their `(lowest, highest)`. By default what all spectra cover.
    - `lose_resolution`: allow common pixels wider than those of a spectrum.

    Spectra on the common wavelengths already are left alone. Others are interpolated by a cubic spline, which takes
    nothing away as long as no pixel becomes wider; where pixels become wider (`lose_resolution`), the spline is
    averaged over each of them, which conserves flux. The third value says what was done, for the provenance, and how
    well: `interpolation_error`, see `spline_error`, of the worst spectrum.

    Raises `GridError` if the spectra do not overlap, if one covers less than the others or than `limits`, or if
    resolution would be lost unasked.
    """
    first = wavelengths[0]
    if step is None and limits is None and all(_same(w, first) for w in wavelengths):
        return first, np.array(fluxes, np.float32), {}
    common = _common(wavelengths, where, step, limits)
    out, counts = np.empty((len(fluxes), len(common)), np.float32), {"kept": 0, "cubic spline": 0, "averaged": 0}
    for i, (wavelength, flux) in enumerate(zip(wavelengths, fluxes)):
        out[i], method = resample(wavelength, flux, common, where[i], lose_resolution)
        counts[method] += 1
    steps = [float(np.median(np.diff(w))) for w in wavelengths]
    error = max(map(spline_error, wavelengths, fluxes))
    return common, out, {"resampled": counts, "steps_before": [min(steps), max(steps)], "interpolation_error": error}


def _same(a, b):
    return len(a) == len(b) and np.abs(a - b).max() <= 1e-4 * np.diff(b).min()


def _common(wavelengths, where, step, limits):
    low, high = np.array([(w[0], w[-1]) for w in wavelengths]).T
    if limits is None:
        limits = low.max(), high.min()
        width = np.median(high - low)
        k = int(np.argmin(np.minimum(high, np.median(high)) - np.maximum(low, np.median(low))))
        if limits[1] - limits[0] < SHORTER * width:
            raise GridError(
                f"{where[k]} covers {low[k]:.2f} to {high[k]:.2f} Angstrom, but most spectra "
                f"{np.median(low):.2f} to {np.median(high):.2f}; all cover only {limits[0]:.2f} to "
                f"{limits[1]:.2f}. Remove it, or give the range of wavelengths to keep (wavelength_range, on the "
                f"command line --range)."
            )
    elif (low > limits[0]).any() or (high < limits[1]).any():
        k = int(np.argmax(np.maximum(low - limits[0], limits[1] - high)))
        raise GridError(
            f"{where[k]} covers {low[k]:.2f} to {high[k]:.2f} Angstrom, less than the range {limits[0]:g} to "
            f"{limits[1]:g} that was asked for. Narrow the range."
        )
    if step is not None:
        if not step > 0:
            raise GridError(f"The wavelength step must be positive; got {step}.")
        return limits[0] + step * np.arange(int((limits[1] - limits[0]) / step * (1 + 1e-9)) + 1)
    finest = min(wavelengths, key=lambda w: np.median(np.diff(w)))
    return finest[(finest >= limits[0]) & (finest <= limits[1])]


def spline_error(wavelength, flux) -> float:
    """Estimate of the root mean square error of a cubic spline half-way between the pixels.

    The spline of every second pixel is compared with the pixels between; its error is 16 times as large, as it goes
    with the fourth power of the step. For Gaussian lines the ratio is 17 at a standard deviation of one pixel, where
    the error is 2 % of the depth, and 31 at two pixels, where it is 0.05 %.
    """
    from scipy.interpolate import CubicSpline

    left = CubicSpline(wavelength[::2], flux[::2])(wavelength[1:-1:2]) - flux[1:-1:2]
    return float(np.sqrt(np.mean(left**2)) / 16)


def resample(wavelength, flux, common, name="The spectrum", lose_resolution=False) -> tuple[np.ndarray, str]:
    """One spectrum on the wavelengths `common`, and how: "kept", "cubic spline" or "averaged". See `to_common`."""
    from scipy.interpolate import CubicSpline

    start = int(np.searchsorted(wavelength, common[0] - 1e-6))
    if _same(wavelength[start : start + len(common)], common):
        return flux[start : start + len(common)], "kept"
    spline = CubicSpline(wavelength, flux)
    own = np.interp(common, 0.5 * (wavelength[1:] + wavelength[:-1]), np.diff(wavelength))
    ratio = np.gradient(common) / own
    if ratio.max() <= TOLERANCE:
        return spline(common), "cubic spline"
    if not lose_resolution:
        k = int(ratio.argmax())
        raise GridError(
            f"{name} has pixels of {own[k]:.4g} Angstrom at {common[k]:.2f}, the common wavelengths pixels of "
            f"{own[k] * ratio[k]:.4g}: resolution would be lost. Give a smaller step (--step), or allow the loss "
            f"(lose_resolution=True, on the command line --lose-resolution)."
        )
    middle = 0.5 * (common[1:] + common[:-1])
    edges = np.concatenate([[1.5 * common[0] - 0.5 * common[1]], middle, [1.5 * common[-1] - 0.5 * common[-2]]])
    edges = np.clip(edges, wavelength[0], wavelength[-1])
    return np.diff(spline.antiderivative()(edges)) / np.diff(edges), "averaged"
