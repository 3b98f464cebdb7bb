"""The instrument's line spread function: a Gaussian whose width may change from pixel to pixel. Host only."""

import numpy as np

from ..errors import ObservationError
from .doppler import SPEED_OF_LIGHT

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


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
