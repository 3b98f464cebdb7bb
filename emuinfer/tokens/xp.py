"""Gaia's XP spectra at their default sampling, as bins and as coefficients. Host only.

The archive's spectra are continuous functions of 55 + 55 coefficients (Gaia Collaboration, Montegriffo et al. 2023, A&A 674,
A3). GaiaXPy samples them at 336, 338, …, 1020 nm: 343 fluxes with less than 110 degrees of freedom and with errors that are
strongly correlated from sample to sample.
"""

import functools
from pathlib import Path

import numpy as np

from ..errors import TokenError
from ..files import read_arrays

FILE = Path(__file__).parents[1] / "data" / "stars" / "xp.npz"
WAVELENGTHS = np.arange(336.0, 1021.0, 2.0)  # nm, in vacuum
NORMALISATION = (WAVELENGTHS > 400) & (WAVELENGTHS < 950)  # fluxes are divided by their mean over these
SAMPLES = 5  # of a bin
BINS = WAVELENGTHS[: len(WAVELENGTHS) // SAMPLES * SAMPLES].reshape(-1, SAMPLES).mean(axis=1)  # nm: 340, 350, … 1010
BIN_NAMES = tuple(f"xp_bin_{wavelength:.0f}" for wavelength in BINS)
COEFFICIENTS = 90
COEFFICIENT_NAMES = tuple(f"xp_{k:03d}" for k in range(COEFFICIENTS))


def mean_flux(flux) -> np.ndarray:
    """`(n, 1)`: the mean over 400 to 950 nm of fluxes `(n, 343)`, of those that are finite; NaN where it is not positive."""
    flux = np.where(np.isfinite(flux), flux, np.nan)[:, NORMALISATION]
    known = np.isfinite(flux)
    mean = np.where(known, flux, 0.0).sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(mean > 0, mean, np.nan)


def in_bins(samples) -> np.ndarray:
    """`(n, 68)`: means over 10 nm of samples `(n, 343)`; NaN where one of the five is. The last three samples are in none."""
    samples = np.asarray(samples, dtype=float)
    return samples[:, : len(BINS) * SAMPLES].reshape(len(samples), len(BINS), SAMPLES).mean(axis=2)


def spectrum_tokens(flux, error, basis) -> dict[str, np.ndarray]:
    """The values of all XP kinds of fluxes `(n, 343)` in any unit per wavelength, and the errors of the bins.

    `coefficients` `(n, 90)`: flux over its mean, times the `basis` `(343, 90)`; NaN where one sample is missing. `bins`
    `(n, 68)` and `errors`: the same flux; an error is the mean of those of the samples, as neighbouring ones are correlated.
    """
    norm = mean_flux(np.asarray(flux, dtype=float))
    flux = np.where(np.isfinite(flux), flux, np.nan) / norm
    errors = np.full((len(flux), len(BINS)), np.nan) if error is None else in_bins(error) / norm
    return {"coefficients": flux @ np.asarray(basis, dtype=float), "bins": in_bins(flux), "errors": errors}


@functools.cache
def reference() -> dict[str, np.ndarray]:
    """What ships of XP spectra: `basis` `(343, 90)`, and of ln flux in the 68 bins of real stars, less its mean over the bins,
    `shape_mean` and `shape_covariance`. Made by `emuinfer.recipes.stars_xp`."""
    return read_arrays(FILE, TokenError, "Install emuinfer again.")


def basis() -> np.ndarray:
    """`(343, 90)`: the vectors that coefficients belong to, orthonormal.

    The first left singular vectors of GaiaXPy's design matrix of the default sampling. They are kept in a file as signs, and
    vectors of nearly equal singular values, differ from one linear algebra library to the next, and weights rely on them.
    """
    return reference()["basis"]


def samples_from(coefficients) -> np.ndarray:
    """`(n, 343)`: the fluxes, over their mean, of coefficients `(n, 90)`."""
    return np.asarray(coefficients, dtype=float) @ basis().T.astype(float)
