"""Which pixels of an observed spectrum may be used: gaps, cosmic rays. Host only."""

import numpy as np


def rough_continuum(flux, good, pixels_per_block: int = 200, percentile: float = 90.0) -> np.ndarray:
    """A rough upper envelope of a spectrum, shape `(n_pix,)`: a high percentile in blocks of pixels, linearly
    interpolated.

    Good enough to turn a signal-to-noise ratio into uncertainties, to judge spikes and to normalise before a
    cross-correlation; the fit itself has its own continuum.
    """
    flux, good = np.asarray(flux, dtype=float), np.asarray(good, dtype=bool)
    index = np.flatnonzero(good)
    blocks = np.array_split(index, max(1, len(index) // pixels_per_block))
    centres = np.array([b.mean() for b in blocks])
    level = np.array([np.percentile(flux[b], percentile) for b in blocks])
    if (
        len(level) >= 5
    ):  # strong broad lines fill whole blocks: bridge them by the higher of a block and its neighbours' median
        padded = np.pad(level, 2, mode="edge")
        level = np.maximum(level, np.median([padded[i : i + len(level)] for i in range(5)], axis=0))
    return np.interp(np.arange(len(flux)), centres, level)


def scaled_to_continuum(flux, uncertainty, good):
    """`(scale, flux, sigma, level)`: the median of a rough continuum, and flux, uncertainty and that continuum over it.

    All `(n_pix,)`; flux and uncertainty are 1 where a pixel is not `good`.
    """
    level = rough_continuum(flux, good)
    scale = float(np.median(level[good]))
    return scale, np.where(good, flux / scale, 1.0), np.where(good, uncertainty / scale, 1.0), level / scale


def zero_runs(flux, minimum: int = 3) -> np.ndarray:
    """True where `minimum` or more neighbouring pixels are exactly zero: a gap that a pipeline filled."""
    zero = np.asarray(flux) == 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], zero.astype(np.int8), [0]])))
    result = np.zeros(len(zero), dtype=bool)
    for begin, end in zip(edges[::2], edges[1::2]):
        result[begin:end] = end - begin >= minimum
    return result


def cosmic_rays(flux, uncertainty, good, threshold: float, width: int = 5) -> np.ndarray:
    """True on narrow positive spikes: cosmic rays and hot pixels, with the pixels beside them. Shape `(n_pix,)`.

    A spike stands, over at most `width` pixels, more than `threshold` times its uncertainty and 10 % of the continuum
    above both the running median and the rough continuum. Flux between absorption lines never rises above the
    continuum, so lines, however sharp, are never clipped; emission lines wider than `width` pixels are kept as well.
    """
    from scipy.ndimage import binary_dilation, label, median_filter

    flux, good = np.asarray(flux, dtype=float), np.asarray(good, dtype=bool)
    if good.sum() < 10 * width:
        return np.zeros(len(flux), dtype=bool)
    filled = np.interp(np.arange(len(flux)), np.flatnonzero(good), flux[good])
    continuum = rough_continuum(filled, good)
    base = np.maximum(median_filter(filled, 4 * width + 1, mode="nearest"), continuum)
    high = good & (filled - base > np.maximum(threshold * np.where(good, uncertainty, np.inf), 0.1 * np.abs(continuum)))
    regions, count = label(high)
    if count:
        sizes = np.bincount(regions.ravel())
        high &= sizes[regions] <= width
    return binary_dilation(high) & good if high.any() else high
