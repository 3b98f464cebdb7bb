"""What the columns of a table mean. Host only."""

import numpy as np

from ...constants import FWHM_PER_SIGMA
from ...errors import ObservationError, suggestion
from .choices import Choices
from .header import from_header
from .units import standard_deviation, with_unit

# Column names, in lower case. ESO phase 3: WAVE, FLUX, ERR, QUAL; SDSS: loglam, flux, ivar, and_mask; others as seen in
# the wild.
WAVELENGTH = (
    "wavelength",
    "wave",
    "lambda",
    "lam",
    "wl",
    "waveobs",
    "wavelength_air",
    "wavelength_vac",
    "wave_air",
    "wave_vac",
    "wavelength_vacuum",
    "spectral_axis",
    "loglam",
    "angstrom",
    "nm",
)
FLUX = (
    "flux",
    "flux_density",
    "flam",
    "intensity",
    "counts",
    "norm_flux",
    "flux_norm",
    "normalized_flux",
    "normalised_flux",
)
UNCERTAINTY = (
    "uncertainty",
    "error",
    "err",
    "sigma",
    "std",
    "unc",
    "flux_err",
    "flux_error",
    "flux_uncertainty",
    "e_flux",
    "eflux",
    "ferr",
    "dflux",
    "noise",
    "ivar",
    "flux_ivar",
    "inverse_variance",
    "variance",
    "var",
)
MASK = ("mask", "quality", "qual", "dq", "and_mask")


def from_table(table: dict, units: dict, header, choices: Choices, air=()) -> dict:
    """Fields from named columns. `table`: name to array; `units`: name to unit text; `air`: columns in air."""
    wave = _pick(table, choices.wavelength_column, WAVELENGTH, "wavelength", choices.medium)
    flux = _pick(table, choices.flux_column, FLUX, "flux")
    sigma = _pick(table, choices.uncertainty_column, UNCERTAINTY, "uncertainty", required=False)
    mask = _pick(table, None, MASK, "mask", required=False)
    wavelength: np.ndarray = np.ma.filled(np.ma.asarray(table[wave], dtype=float), np.nan)
    if wave.lower() == "loglam":
        wavelength = 10**wavelength
    fields = from_header(header)
    if wave in air or wave.lower() in ("wavelength_air", "wave_air"):
        fields["medium"] = "air"
    elif wave.lower() in ("wavelength_vac", "wave_vac", "wavelength_vacuum"):
        fields["medium"] = "vacuum"
    if wave.lower() == "loglam" and sigma is not None and sigma.lower() == "ivar":  # SDSS: always vacuum
        fields["medium"] = fields["medium"] or "vacuum"
        dispersion = next((n for n in table if n.lower() == "wdisp"), None)
        if dispersion is not None and fields["resolution"] is None:
            fields["resolution"] = _power_of_dispersion(np.asarray(table[dispersion], dtype=float), np.log(wavelength))
    unit = choices.wavelength_unit or units.get(wave) or ("nm" if wave.lower() == "nm" else None)
    fields["wavelength"] = with_unit(wavelength, unit)
    fields["flux"] = table[flux]
    if sigma is not None:
        fields["uncertainty"] = standard_deviation(table[sigma], sigma.lower())
    if mask is not None:
        fields["mask"] = np.ma.filled(np.ma.asarray(table[mask]), 1).astype(bool)
    return fields


def _power_of_dispersion(wdisp, log_wavelength):
    """Resolving powers from SDSS's `wdisp`: the standard deviation of the line spread function in pixels; 0 where missing."""
    valid = np.isfinite(wdisp) & (wdisp > 0)
    if not valid.any():
        return None
    wdisp = np.where(valid, wdisp, np.median(wdisp[valid]))
    return 1.0 / (FWHM_PER_SIGMA * wdisp * np.abs(np.gradient(log_wavelength)))


def _pick(table, given, known, what, medium=None, required=True):
    """The name of the column that holds `what`."""
    if given is not None:
        if given in table:
            return given
        hint = suggestion(given, table)
        raise ObservationError(f"There is no column '{given}'.{hint} The columns are: {', '.join(table)}.")
    found = [name for name in table if name.lower() in known]
    if len(found) > 1 and medium is not None:  # columns for both media: the caller has said which
        found = [n for n in found if medium[:3] in n.lower()] or found
    if len(found) == 1 or (not found and not required):
        return found[0] if found else None
    problem = (
        f"Several columns could be the {what}: {', '.join(found)}."
        if found
        else f"No column is known to be the {what}."
    )
    argument = f"{what}_column=" if what != "mask" else "only one of them in the file"
    raise ObservationError(f"{problem} Give {argument}. The columns are: {', '.join(table)}.")
