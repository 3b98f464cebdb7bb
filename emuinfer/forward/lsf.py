"""The instrument's line spread function: Gaussians whose width may change from pixel to pixel, or a matrix. Host only.

A resolution matrix is an array `(n_diag, n_pix)` as in DESI's files: the diagonals of a banded matrix R, the outermost
above the main one first, stored by columns, so that with h = n_diag // 2 the element [k, j] is R[j − h + k, j] (that is
`scipy.sparse.dia_matrix((array, arange(h, -h - 1, -1)), (n_pix, n_pix))`; Guy et al. 2023, AJ 165, 144; Bolton
& Schlegel 2010, PASP 122, 248). The observed flux is R times the fluxes averaged over each pixel.
"""

import numpy as np

from ..constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from ..errors import ObservationError


def lsf_sigma(resolution, n_pix: int) -> np.ndarray:
    """Standard deviation of the line spread function in km/s, `(n_pix,)`: c / (2.3548 R) for resolving power R."""
    if resolution is None:
        raise ObservationError(
            "The spectrum's resolution is not known. Give the resolving power, resolution=R (lambda / FWHM)."
        )
    resolution = np.asarray(resolution, dtype=float)
    if resolution.shape not in ((), (n_pix,)) or not (resolution > 1).all():
        raise ObservationError(f"The resolution must be one resolving power above 1, or {n_pix} of them.")
    return np.broadcast_to(SPEED_OF_LIGHT / (FWHM_PER_SIGMA * resolution), (n_pix,))


def split_sigma(sigma, tolerance: float = 0.02) -> tuple[float, np.ndarray | None]:
    """The part of the widths common to all pixels, and what each pixel needs on top (in quadrature), or None.

    Widths that vary by less than `tolerance` (relative, peak to peak) count as constant: their root mean square is
    common.
    """
    sigma = np.asarray(sigma, dtype=float)
    if np.ptp(sigma) <= tolerance * sigma.mean():
        return float(np.sqrt((sigma**2).mean())), None
    common = float(sigma.min())
    return common, np.sqrt(sigma**2 - common**2)


def spline_weights(position, width=None) -> tuple[np.ndarray, np.ndarray]:
    """Weights of cubic B-spline coefficients on a uniform grid for values at `position` (`(n_pix,)`, in grid steps).

    With `width` (`(n_pix,)`, in grid steps), for values after convolution with Gaussians of these standard deviations.
    Returns `start` (`(n_pix,)` int) and `weights` (`(n_taps, n_pix)`): value[i] = sum_k weights[k, i]
    coefficient[start[i]+k].
    """
    position = np.asarray(position, dtype=float)
    reach = 0 if width is None else int(np.ceil(4.5 * np.max(width)))
    start = np.floor(position).astype(int) - 1 - reach
    offset = position - start - np.arange(4 + 2 * reach)[:, None]
    if width is None:
        return start, _cubic_spline(offset)
    # The Gaussian as 91 equal steps over +-4.5 standard deviations: for so smooth an integrand exact to 1e-6.
    nodes = np.linspace(-4.5, 4.5, 91)
    gauss = np.exp(-0.5 * nodes**2)
    weights = sum(g * _cubic_spline(offset - width * u) for u, g in zip(nodes, gauss / gauss.sum()))
    return start, weights / weights.sum(axis=0)


def _cubic_spline(x):
    """The cubic cardinal B-spline, support (-2, 2), unit area."""
    x = np.abs(x)
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - np.minimum(x, 2)) ** 3 / 6, 0.0))


def matrix_from_sparse(matrix) -> np.ndarray:
    """The diagonals `(n_diag, n_pix)` of a square SciPy sparse matrix, as this module stores them."""
    matrix = matrix.tocoo()
    reach = int(np.abs(matrix.row - matrix.col).max(initial=0))
    diagonals = np.zeros((2 * reach + 1, matrix.shape[1]))
    np.add.at(diagonals, (matrix.row - matrix.col + reach, matrix.col), matrix.data)
    return diagonals


def matrix_rows(matrix) -> np.ndarray:
    """`(n_diag, n_pix)`: element [m, i] is R[i, i − h + m], 0 outside the matrix; not normalised."""
    n_diag, n_pix = matrix.shape
    rows = np.zeros((n_diag, n_pix))
    for m in range(n_diag):
        column = np.arange(n_pix) - n_diag // 2 + m
        inside = (column >= 0) & (column < n_pix)
        rows[m, inside] = matrix[n_diag - 1 - m, column[inside]]
    return rows


def cut_resolution(resolution, keep: slice, lost: float = 1e-3):
    """The resolution of the pixels `keep`, and which of them, `(n_kept,)` or True, may be used.

    Not to be used are rows of a matrix that lose more than the share `lost` of their sum with the columns cut away.
    """
    if np.ndim(resolution) < 2:
        return (resolution[keep] if np.ndim(resolution) else resolution), True
    before = matrix_rows(resolution).sum(axis=0)[keep]
    part = resolution[:, keep]
    gone = np.abs(before - matrix_rows(part).sum(axis=0))
    return part, gone <= lost * np.maximum(np.abs(before), 1e-12)


def unit_rows(matrix) -> np.ndarray:
    """`matrix_rows` with rows that sum to 1, for a flat spectrum is to stay flat; empty rows become those of the identity."""
    rows = matrix_rows(matrix)
    total = rows.sum(axis=0)
    empty = total < 1e-3 * np.median(total)
    rows[:, empty], rows[len(rows) // 2, empty] = 0.0, 1.0
    return rows / np.where(empty, 1.0, total)


def resolving_power(resolution, wavelength):
    """Resolving powers lambda / FWHM as they are; of a matrix, `(n_pix,)`, those of Gaussians with the variance of its rows.

    The pixel counts with a twelfth of its width squared. Rows whose variance is negative, by their wings, get the median.
    """
    if np.ndim(resolution) < 2:
        return resolution
    rows = unit_rows(resolution)
    offset = np.arange(len(rows))[:, None] - len(rows) // 2
    variance = (offset**2 * rows).sum(axis=0) - (offset * rows).sum(axis=0) ** 2
    variance = np.where(variance > 0, variance, np.median(variance[variance > 0]) if (variance > 0).any() else 0.0)
    width = np.gradient(np.asarray(wavelength, dtype=float))
    return wavelength / (FWHM_PER_SIGMA * width * np.sqrt(variance + 1 / 12))


def box_weights(left, right) -> tuple[np.ndarray, np.ndarray]:
    """As `spline_weights`, for averages of the spline between `left` and `right` (`(n_pix,)`, in grid steps)."""
    start = np.floor(left).astype(int) - 1
    taps = int((np.floor(right).astype(int) + 2 - start).max()) + 1
    node = start + np.arange(taps)[:, None]
    return start, (_cubic_spline_integral(right - node) - _cubic_spline_integral(left - node)) / (right - left)


def _cubic_spline_integral(x):
    """The integral of `_cubic_spline` from -2 to x."""
    y = np.minimum(np.abs(x), 2.0)
    half = np.where(y < 1, 2 * y / 3 - y**3 / 3 + y**4 / 8, 0.5 - (2 - y) ** 4 / 24)
    return 0.5 + np.sign(x) * half
