"""Gaia's XP spectra at their default sampling, as bins and as coefficients. Host only.

The archive's spectra are continuous functions of 55 + 55 coefficients (Gaia Collaboration, Montegriffo et al. 2023, A&A 674,
A3). GaiaXPy samples them at 336, 338, …, 1020 nm: 343 fluxes with less than 110 degrees of freedom and with errors that are
strongly correlated from sample to sample.
"""

import numpy as np

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
    return samples[:, : len(BINS) * SAMPLES].reshape(len(samples), -1, SAMPLES).mean(axis=2)


def tokens_of(flux, error, basis) -> dict[str, np.ndarray]:
    """The values of all XP kinds of fluxes `(n, 343)` in any unit per wavelength, and the errors of the bins.

    `coefficients` `(n, 90)`: flux over its mean, times the `basis` `(343, 90)`; NaN where one sample is missing. `bins`
    `(n, 68)` and `errors`: the same flux; an error is the mean of those of the samples, as neighbouring ones are correlated.
    """
    norm = mean_flux(np.asarray(flux, dtype=float))
    flux = np.where(np.isfinite(flux), flux, np.nan) / norm
    errors = np.full((len(flux), len(BINS)), np.nan) if error is None else in_bins(error) / norm
    return {"coefficients": flux @ np.asarray(basis, dtype=float), "bins": in_bins(flux), "errors": errors}
