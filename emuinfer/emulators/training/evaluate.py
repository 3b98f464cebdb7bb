"""How far an emulator is from spectra that it has not seen: tables of errors, and statistics of the residuals.

Any `Emulator` will do. A slow one is called once: `predict` it and hand the result to both functions as `predicted`.
"""

import numpy as np

from ...constants import FWHM_PER_SIGMA
from ...entry import public
from ...errors import TrainingError
from ...files import read_arrays, write_arrays
from ..components import principal_components

# Edges between the regions in which errors are told apart, by label.
REGIONS = {"teff": (5000.0, 6000.0), "fe_h": (-2.0, -1.0), "logg": (2.0, 3.5)}


@public
def predict(emulator, labels, wavelength) -> np.ndarray:
    """Flux `(n, n_wave)` of `emulator` at labels `(n, n_labels)`, float32. Labels may lie outside the domain."""
    return np.asarray(emulator(np.asarray(labels), wavelength, extrapolate=True))


def convolve(flux, wavelength, resolution: float):
    """`(flux, inside)`: spectra `(n, n_wave)` seen at FWHM λ/`resolution`, and the slice of pixels away from the edges.

    The line spread function is a Gaussian out to 5 standard deviations, its width that of the pixel it ends in; the
    wavelengths must be uniform. Raises `TrainingError` where they are not, or the spectrum is shorter than the kernel.
    """
    wavelength = np.asarray(wavelength, np.float64)
    step = (wavelength[-1] - wavelength[0]) / (len(wavelength) - 1)
    if np.abs(np.diff(wavelength) - step).max() > 1e-3 * step:
        raise TrainingError("Errors after convolution need equally spaced wavelengths. Resample the spectra first.")
    sigma = wavelength / resolution / FWHM_PER_SIGMA / step
    reach = int(np.ceil(5.0 * sigma.max()))
    n = len(wavelength) - 2 * reach
    if n < 1:
        raise TrainingError(
            f"At R = {resolution:g} the line spread function spans {2 * reach + 1} pixels of {step:g} Å, more than the "
            f"{len(wavelength)} of the spectrum. Take a higher resolution or a longer spectrum."
        )
    offsets = np.arange(-reach, reach + 1)
    inside = slice(reach, reach + n)
    kernel = np.exp(-0.5 * (offsets[:, None] / sigma[inside]) ** 2)
    kernel = (kernel / kernel.sum(0)).astype(np.float32)
    flux = np.asarray(flux, np.float32)
    seen = np.zeros((len(flux), n), np.float32)
    for weight, offset in zip(kernel, offsets):
        seen += flux[:, reach + offset : reach + offset + n] * weight
    return seen, inside


def error_table(
    emulator, labels, flux, wavelength, *, resolutions=(None, 40_000), regions=None, predicted=None
) -> dict:
    """Errors of normalised flux on held-out spectra, as a dictionary that can be written as JSON.

    **Arguments:**

    - `labels` `(n, n_labels)`, `flux` `(n, n_wave)`, `wavelength` `(n_wave,)` Å, uniform if a resolution is asked for.
    - `resolutions`: None for the stored sampling, or λ/FWHM of a Gaussian line spread function.
    - `regions`: label name to the edges between its regions; by default those of `REGIONS` that the emulator has.
    - `predicted`: the result of `predict`, if it is at hand.

    **Returns:** `{"spectra": n, "native" or "R=40000": {"all": figures, "regions": {"teff < 5000": figures, …}}}` with
    figures `n`, `mae`, `rmse`, `p95`, `max` (of |residual| over pixels and spectra).

    **Raises:** `TrainingError` on shapes that disagree; `LabelError` on unknown labels in `regions`.
    """
    labels, residual = _residual(emulator, labels, flux, wavelength, predicted)
    if regions is None:
        regions = {name: edges for name, edges in REGIONS.items() if name in emulator.labels}
    masks = region_masks(emulator.label_space, labels, regions)
    table: dict[str, int | dict] = {"spectra": len(labels)}
    for resolution in resolutions:
        seen = residual if resolution is None else convolve(residual, wavelength, resolution)[0]
        name = "native" if resolution is None else f"R={resolution:g}"
        parts = {region: _figures(seen[mask]) for region, mask in masks.items() if mask.any()}
        table[name] = {"all": _figures(seen), "regions": parts}
    return table


def _figures(residual) -> dict:
    absolute = np.abs(residual)
    return {
        "n": len(residual),
        "mae": float(absolute.mean(dtype=np.float64)),
        "rmse": float(np.sqrt((absolute**2).mean(dtype=np.float64))),
        "p95": float(np.percentile(absolute, 95)),
        "max": float(absolute.max()),
    }


def region_masks(label_space, labels, regions) -> dict:
    """Region name to a mask `(n,)` of the spectra in it: below the first edge, between edges, above the last."""
    masks = {}
    for name, edges in regions.items():
        value = labels[:, label_space.index(name)]
        place = np.digitize(value, edges)
        for k in range(len(edges) + 1):
            if k == 0:
                title = f"{name} < {edges[0]:g}"
            elif k == len(edges):
                title = f"{name} >= {edges[-1]:g}"
            else:
                title = f"{edges[k - 1]:g} <= {name} < {edges[k]:g}"
            masks[title] = place == k
    return masks


def format_table(table: dict) -> str:
    """An error table as Markdown."""
    lines = ["| spectra | sampling | n | MAE | RMSE | 95 % | max |", "|---|---|---|---|---|---|---|"]
    for sampling, part in table.items():
        if not isinstance(part, dict):
            continue
        for region, f in {"all": part["all"], **part["regions"]}.items():
            figures = " | ".join(f"{f[k]:.5f}" for k in ("mae", "rmse", "p95", "max"))
            lines.append(f"| {region} | {sampling} | {f['n']} | {figures} |")
    return "\n".join(lines)


def residual_statistics(
    emulator, labels, flux, wavelength, *, resolution=None, rank: int = 10, predicted=None
) -> dict[str, np.ndarray]:
    """The emulator's error, emulated − true flux, as a likelihood can use it. Arrays, float32 but for the wavelengths.

    - `wavelength` `(p,)`: where the rest is given; with `resolution` the pixels near the edges are left out.
    - `bias` `(p,)`, `sd` `(p,)`: mean and standard deviation over the held-out spectra.
    - `basis` `(rank, p)`: residual − bias ≈ z @ basis with z of unit variance (their principal components).
    - `sd_rest` `(p,)`: standard deviation of what the basis leaves.
    - `depth_edges` `(b + 1,)`, `depth_rms` `(b,)`: root-mean-square residual in bins of predicted line depth 1 − f.
    - `scale_coefficients` `(1 + n_labels,)`: the error of a spectrum relative to the whole sample is
      exp(c₀ + c · scaled labels), from a ridge regression of the logarithm of each spectrum's rms residual.
    - `spectrum_rms` `(n,)`: that root-mean-square residual.

    Raises `TrainingError` on shapes that disagree or fewer than 3 spectra.
    """
    if len(labels) < 3:
        raise TrainingError(f"Statistics of residuals need at least 3 held-out spectra; got {len(labels)}.")
    predicted = predict(emulator, labels, wavelength) if predicted is None else predicted
    labels, residual = _residual(emulator, labels, flux, wavelength, predicted)
    wavelength = np.asarray(wavelength, np.float64)
    if resolution is not None:
        residual, inside = convolve(residual, wavelength, resolution)
        predicted, wavelength = convolve(predicted, wavelength, resolution)[0], wavelength[inside]
    degrees = len(residual) - 1
    bias, basis, coefficients = principal_components(residual, min(rank, degrees, len(wavelength)))
    basis = np.sqrt((coefficients**2).sum(0) / degrees)[:, None] * basis
    centred = residual - bias
    rest = np.maximum(centred.var(0, ddof=1) - (basis**2).sum(0), 0.0)
    edges, rms = _rms_by_depth(1.0 - predicted, residual)
    spectrum_rms = np.sqrt((residual**2).mean(1, dtype=np.float64))
    scaled = np.asarray(emulator.label_space.scale(labels), np.float64)
    arrays = {
        "bias": bias,
        "sd": centred.std(0, ddof=1),
        "basis": basis,
        "sd_rest": np.sqrt(rest),
        "depth_edges": edges,
        "depth_rms": rms,
        "scale_coefficients": _log_scale(scaled, spectrum_rms),
        "spectrum_rms": spectrum_rms,
    }
    return {"wavelength": wavelength} | {name: np.asarray(a, np.float32) for name, a in arrays.items()}


def error_scale(statistics, scaled_labels):
    """The error at scaled labels `(..., n_labels)` relative to that of the held-out sample; NumPy or JAX."""
    c = statistics["scale_coefficients"]
    logarithm = c[0] + scaled_labels @ c[1:]
    return np.exp(logarithm) if isinstance(logarithm, (np.ndarray, np.floating)) else _exp(logarithm)


def _exp(x):
    import jax.numpy as jnp

    return jnp.exp(x)


def _rms_by_depth(depth, residual, bins: int = 10):
    """Edges from 0 to 1 and the root-mean-square residual between them; empty bins are interpolated."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.digitize(depth.ravel(), edges) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    power = np.bincount(place, weights=residual.ravel().astype(np.float64) ** 2, minlength=bins)
    filled = np.flatnonzero(count)
    return edges, np.interp(np.arange(bins), filled, np.sqrt(power[filled] / count[filled]))


def _log_scale(scaled, rms):
    """Coefficients of ln(rms / overall rms) in the scaled labels, shrunk to a constant as if by 10 more spectra."""
    logarithm = np.log(np.maximum(rms, 1e-8) / np.sqrt((rms**2).mean()))
    centre = scaled.mean(0)
    design = scaled - centre
    shrunk = design.T @ design + 10.0 / 3.0 * np.eye(design.shape[1])  # 1/3: the variance of a uniform label
    slope = np.linalg.solve(shrunk, design.T @ (logarithm - logarithm.mean()))
    constant = logarithm.mean() - centre @ slope
    # The constant is set so that the mean square of the scale over the sample is one.
    return np.concatenate([[constant - 0.5 * np.log((np.exp(2 * (constant + scaled @ slope))).mean())], slope])


def save_statistics(path, statistics) -> None:
    """Write the arrays of `residual_statistics` to an `.npz` file, as a whole."""
    write_arrays(path, statistics, TrainingError)


def load_statistics(path) -> dict[str, np.ndarray]:
    """Read a file of `save_statistics`."""
    return read_arrays(path, TrainingError)


def _residual(emulator, labels, flux, wavelength, predicted):
    labels, flux = np.asarray(labels, np.float64), np.asarray(flux, np.float32)
    if labels.ndim != 2 or flux.shape != (len(labels), np.size(wavelength)):
        raise TrainingError(
            f"labels must be (n, n_labels) and flux (n, {np.size(wavelength)}); got {labels.shape} and {flux.shape}."
        )
    predicted = predict(emulator, labels, wavelength) if predicted is None else np.asarray(predicted, np.float32)
    if predicted.shape != flux.shape:
        raise TrainingError(f"predicted must have the shape of flux, {flux.shape}; got {predicted.shape}.")
    return labels, predicted - flux
