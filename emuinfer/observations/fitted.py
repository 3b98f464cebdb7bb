"""Data, model and residuals of a fit as `specutils.Spectrum`, in Python and as files that specutils and jdaviz open."""

import warnings
from pathlib import Path

import numpy as np

from ..errors import EmuinferError
from ..files import written_whole
from .readers.frames import FITS_NAMES

UNKNOWN_UNIT = "ct"  # specutils' and jdaviz' word for fluxes without a unit of theirs


def fitted_spectra(posterior, arm: int | None = None) -> dict:
    """`{"data": …, "model": …, "residual": …}`, each a `specutils.Spectrum`, from a posterior of `emuinfer.sample`.

    `arm` counts the spectra of a joint fit from 1. The model is the median over the draws that the posterior keeps, with the
    half width of their central 68 % as its uncertainty; the residual is data - model, with the errors of data and model (that of
    the emulator and the line list) as its uncertainty. Pixels that were not used are masked. The flux has the unit of the
    data, which is counts (`ct`) by name where nobody knows it. `meta["header"]` has name, medium and frame.
    """
    constant = {k: np.asarray(v.values) for k, v in posterior["constant_data"].data_vars.items()}
    arms = int(constant["arm"].max()) if "arm" in constant else 1
    if (arm is None and arms > 1) or (arm is not None and not 1 <= arm <= arms):
        raise EmuinferError(f"The fit has {arms} spectra: give arm= a number from 1 to {arms}; got {arm}.")
    part = constant["arm"] == arm if arms > 1 else np.ones(len(constant["wavelength"]), bool)
    try:
        draws = np.asarray(posterior["posterior_predictive"]["model_flux"].values)[..., part]
    except (KeyError, AttributeError) as error:
        raise EmuinferError("The posterior holds no predictions: it was sampled with predictive=0.") from error
    low, model, high = np.quantile(draws, [0.16, 0.5, 0.84], axis=(0, 1))
    flux = np.asarray(posterior["observed_data"]["flux"].values)[part]
    sigma = constant["uncertainty"][part]
    header = _header(posterior.attrs, 0 if arm is None else arm - 1)
    make = lambda flux, sigma: _spectrum(constant["wavelength"][part], flux, sigma, constant["good"][part] > 0, header)
    return {
        "data": make(flux, sigma),
        "model": make(model, 0.5 * (high - low)),
        "residual": make(flux - model, np.hypot(sigma, constant["model_error"][part])),
    }


def write_spectrum(spectrum, path) -> Path:
    """Write a `specutils.Spectrum` as a FITS table (format "tabular-fits") that `Spectrum.read(path)` and jdaviz open.

    They know a column of fluxes by its unit; a flux without one is called counts (`ct`).
    """
    import astropy.units as u
    from specutils import Spectrum

    if spectrum.flux.unit == u.dimensionless_unscaled:
        unit = u.Unit(UNKNOWN_UNIT)
        sigma = spectrum.uncertainty
        spectrum = Spectrum(
            flux=spectrum.flux.value * unit,
            spectral_axis=spectrum.spectral_axis,
            uncertainty=None if sigma is None else type(sigma)(sigma.array),
            mask=spectrum.mask,
            meta=spectrum.meta,
        )
    with written_whole(path) as temporary, warnings.catch_warnings(action="ignore"):
        spectrum.write(str(temporary), format="tabular-fits", overwrite=True)
    return Path(path)


def _header(attrs, k):
    from astropy.io import fits

    of_arm = lambda key: (str(attrs.get(key, "")).split(", ") * (k + 1))[k]
    cards = {
        "OBJECT": str(attrs.get("observation", "")),
        "MEDIUM": of_arm("medium"),
        "SPECSYS": FITS_NAMES.get(of_arm("frame")),
        "EMULATOR": str(attrs.get("emulator_hash", "")),
    }
    return fits.Header([(key, value) for key, value in cards.items() if value])


def _spectrum(wavelength, flux, sigma, good, header):
    import astropy.units as u
    from astropy.nddata import StdDevUncertainty
    from specutils import Spectrum

    unit = u.Unit(header.get("BUNIT", UNKNOWN_UNIT))
    sigma = np.where(np.isfinite(sigma) & (sigma > 0), sigma, np.nan)
    return Spectrum(
        flux=np.asarray(flux, float) * unit,
        spectral_axis=np.asarray(wavelength, float) * u.AA,
        uncertainty=StdDevUncertainty(sigma, unit=unit),
        mask=~good,
        meta={"header": header},
    )
