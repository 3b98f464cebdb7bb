"""How often the errors of an emulator lie within the intervals that its `EmulatorUncertainty` predicts."""

import numpy as np

from ...constants import FWHM_PER_SIGMA
from ...errors import TrainingError
from .evaluate import REGIONS, convolve, region_masks

LEVELS = (0.68, 0.95)
FEWEST = 8  # spectra


def check_residuals(label_space, labels, residuals, flux, wavelength):
    """Labels `(n, n_labels)`, residuals and flux `(n, p)` as arrays; raises `TrainingError` on what no covariance can come of."""
    labels = np.asarray(label_space.to_array(labels), np.float64)
    residuals, flux = np.asarray(residuals, np.float32), np.asarray(flux, np.float32)
    if labels.ndim != 2 or residuals.shape != (len(labels), np.size(wavelength)) or flux.shape != residuals.shape:
        raise TrainingError(
            f"labels must be (n, {len(label_space)}), residuals and flux (n, {np.size(wavelength)}); got "
            f"{labels.shape}, {residuals.shape} and {flux.shape}."
        )
    if len(labels) < FEWEST:
        raise TrainingError(f"The covariance of an error needs at least {FEWEST} spectra; got {len(labels)}.")
    for name, array in (("labels", labels), ("residuals", residuals), ("flux", flux)):
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise TrainingError(f"The {name} of spectrum {row} are not all finite. Leave such spectra out.")
    if not residuals.any(1).all():
        row = int(np.argmin(residuals.any(1)))
        raise TrainingError(f"The residuals of spectrum {row} are all zero: the emulator has been given its flux.")
    return labels, residuals, flux


def factor_statistic(residual, variance, factors) -> float:
    """Mahalanobis distance² of `residual` `(p,)` in the space of `factors` `(rank, p)`, over the rank.

    Its mean is 1 if all is well. With D = diag(variance), the projection t = U D⁻¹ r has covariance G + G² where
    G = U D⁻¹ Uᵀ.
    """
    return whitened_distance(*whitened_projection(residual, variance, factors))


def whitened_projection(residual, variance, factors):
    scaled = factors / variance
    return scaled @ residual, scaled @ factors.T


def whitened_distance(projection, gram):
    return float(projection @ np.linalg.solve(gram + gram @ gram, projection) / len(projection))


def predicted_error(uncertainty, labels, flux, wavelength, *, resolution=None):
    """An iterator over spectra of `(sd, factors, coherence)`, as `EmulatorUncertainty.at` has them; NumPy.

    With `resolution` (λ/FWHM) as seen through the line spread function, without the pixels near the edges: the factors
    are convolved; sd² too, and damped as its correlation tells.
    """
    scaled = np.asarray(uncertainty.label_space.scale(np.asarray(labels)), np.float32)
    pixel = (wavelength[-1] - wavelength[0]) / (len(wavelength) - 1)
    sigma = 0.0 if resolution is None else np.mean(wavelength) / resolution / FWHM_PER_SIGMA
    for row, spectrum in zip(scaled, flux):
        sd, factors = (np.asarray(a, np.float64) for a in uncertainty.at(row, wavelength, spectrum))
        if resolution is not None:
            both = convolve(np.concatenate([sd[None] ** 2, factors]), wavelength, resolution)[0]
            sd, factors = np.sqrt(uncertainty.damping(row, sigma) * both[0]), both[1:]
        yield sd, factors, uncertainty.coherence(row, sigma, pixel)


def coverage(uncertainty, labels, residuals, flux, wavelength, *, resolutions=(None, 40_000), regions=None) -> dict:
    """How often residuals `(n, p)` of held-out spectra lie within the intervals predicted for them; JSON-able.

    **Arguments:** as `fit_uncertainty`; `regions`: label name to the edges of its regions, by default thirds of the
    spectra by those labels of `REGIONS` that there are.

    **Returns:** `{"native" or "R=40000": {"all": figures, "regions": {"teff < 5000": figures}, "factors": …}}`.
    Figures: `n`; shares of pixels inside, `"0.68"` and `"0.95"`, and their statistical errors (`_error`, from the
    scatter among spectra); `rms` and `predicted_rms` of the residuals; shares `gauss_…` if ν were infinite.
    `factors`: shares of spectra whose `factor_statistic` is below the quantiles of its F distribution.
    """
    labels, residuals, flux = check_residuals(uncertainty.label_space, labels, residuals, flux, wavelength)
    if regions is None:
        names = [name for name in REGIONS if name in uncertainty.label_space.names]
        regions = {k: np.quantile(labels[:, uncertainty.label_space.index(k)], [1 / 3, 2 / 3]) for k in names}
    masks = region_masks(uncertainty.label_space, labels, regions)
    table = {}
    for resolution in resolutions:
        per_spectrum, statistic = _per_spectrum(uncertainty, labels, residuals, flux, wavelength, resolution)
        table["native" if resolution is None else f"R={resolution:g}"] = {
            "all": _figures(per_spectrum, slice(None)),
            "regions": {name: _figures(per_spectrum, mask) for name, mask in masks.items() if mask.any()},
            "factors": _factor_figures(statistic, uncertainty),
        }
    return table


def _per_spectrum(uncertainty, labels, residuals, flux, wavelength, resolution):
    """Columns of shares inside the intervals and mean squares, one row per spectrum, and the factor statistics."""
    from scipy import stats

    nu = uncertainty.degrees_of_freedom
    inside = [(1.0 + level) / 2.0 for level in LEVELS]
    limits = {f"{p:g}": np.sqrt((nu - 2.0) / nu) * stats.t.ppf(q, nu) for p, q in zip(LEVELS, inside)}
    limits |= {f"gauss_{p:g}": stats.norm.ppf(q) for p, q in zip(LEVELS, inside)}
    seen = residuals if resolution is None else convolve(residuals, wavelength, resolution)[0]
    columns: dict[str, list] = {name: [] for name in (*limits, "rms", "predicted_rms")}
    statistic = []
    predicted = predicted_error(uncertainty, labels, flux, wavelength, resolution=resolution)
    for residual, (sd, factors, coherence) in zip(seen, predicted):
        variance = sd**2 + (factors**2).sum(0)
        for name, limit in limits.items():
            columns[name].append((np.abs(residual) < limit * np.sqrt(variance)).mean())
        columns["rms"].append((residual.astype(np.float64) ** 2).mean())
        columns["predicted_rms"].append(variance.mean())
        statistic.append(factor_statistic(residual, sd**2 * coherence, factors))
    return {name: np.array(values) for name, values in columns.items()}, np.array(statistic)


def _figures(per_spectrum, mask) -> dict:
    chosen = {name: values[mask] for name, values in per_spectrum.items()}
    n = len(chosen["rms"])
    figures = {"n": n} | {k: float(np.sqrt(v.mean()) if "rms" in k else v.mean()) for k, v in chosen.items()}
    return figures | {f"{p:g}_error": float(chosen[f"{p:g}"].std() / np.sqrt(max(n - 1, 1))) for p in LEVELS}


def _factor_figures(statistic, uncertainty) -> dict:
    from scipy import stats

    nu = uncertainty.factor_degrees_of_freedom
    scaled = statistic * nu / (nu - 2.0)
    figures = {f"{p:g}": float((scaled < stats.f.ppf(p, uncertainty.rank, nu)).mean()) for p in LEVELS}
    return figures | {"rank": uncertainty.rank, "mean": float(statistic.mean()), "median": float(np.median(statistic))}
