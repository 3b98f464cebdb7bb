"""What the columns and header keywords of a file mean. Host only."""

import re

import numpy as np

from ..constants import FWHM_PER_SIGMA
from ..errors import ObservationError, suggestion

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
INVERSE_VARIANCE, VARIANCE = ("ivar", "flux_ivar", "inverse_variance"), ("variance", "var")
MASK = ("mask", "quality", "qual", "dq", "and_mask")
# Header keywords. SPEC_RES and SNR: ESO Science Data Product standard.
RESOLUTION_KEYS, SNR_KEYS = ("SPEC_RES", "RESOLUTION", "RESOLUTN", "RESOLVE", "SPECRES"), ("SNR", "SNR_EST")


def from_table(table: dict, units: dict, header, columns: dict, medium, wavelength_unit, air=()) -> dict:
    """Fields from named columns. `table`: name to array; `units`: name to unit text; `air`: columns in air."""
    wave = _pick(table, columns["wavelength"], WAVELENGTH, "wavelength", medium)
    flux = _pick(table, columns["flux"], FLUX, "flux")
    sigma = _pick(table, columns["uncertainty"], UNCERTAINTY, "uncertainty", required=False)
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
    unit = wavelength_unit or units.get(wave) or ("nm" if wave.lower() == "nm" else None)
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


def standard_deviation(values, name: str):
    values = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    if name in VARIANCE:
        return np.sqrt(np.where(values > 0, values, np.nan))
    if name in INVERSE_VARIANCE:
        return np.where(values > 0, np.where(values > 0, values, 1.0) ** -0.5, np.nan)
    return values


def with_unit(wavelength, unit):
    import astropy.units as u

    if unit is None:
        if np.nanmedian(wavelength) < 1000:
            raise ObservationError(
                f"The wavelengths have no unit and lie near {np.nanmedian(wavelength):g}, too low for ångström. "
                'Give wavelength_unit="nm", "um" or what they are.'
            )
        return wavelength
    text = {"angstroms": "Angstrom", "ang": "Angstrom", "a": "Angstrom", "nanometers": "nm", "microns": "um"}.get(
        str(unit).strip().lower(), str(unit).strip()
    )
    try:
        return wavelength * u.Unit(text)
    except ValueError as error:
        raise ObservationError(
            f"The wavelength unit '{unit}' is not known to astropy. Give wavelength_unit=."
        ) from error


def from_header(header) -> dict:
    """Name, medium, resolution, S/N and a few words of provenance from a FITS header or a mapping."""
    header = {str(k).upper(): v for k, v in dict(header).items()}
    fields: dict = {"name": str(header.get("OBJECT", header.get("NAME", ""))).strip(), "medium": _medium_of(header)}
    for field, keys in (("resolution", RESOLUTION_KEYS), ("snr", SNR_KEYS)):
        values = [header[k] for k in keys if isinstance(header.get(k), (int, float)) and header[k] > 0]
        fields[field] = float(values[0]) if values else None
    skip = {
        "SIMPLE",
        "XTENSION",
        "BITPIX",
        "PCOUNT",
        "GCOUNT",
        "TFIELDS",
        "EXTEND",
        "COMMENT",
        "HISTORY",
        "CHECKSUM",
        "DATASUM",
        "",
    }
    keep = {k: v for k, v in header.items() if k not in skip and isinstance(v, (str, int, float, bool, dict, list))}
    fields["meta"] = {
        k.lower(): v for k, v in keep.items() if not re.match(r"(NAXIS|TTYPE|TFORM|TUNIT|TDIM|TUCD|TUTYP)", k)
    }
    return fields


def _medium_of(header) -> str | None:
    for key in ("MEDIUM", "AIRORVAC", "AIR_VAC"):
        text = str(header.get(key, "")).strip().lower()
        if text.startswith("air"):
            return "air"
        if text.startswith("vac"):
            return "vacuum"
    if isinstance(header.get("VACUUM"), (bool, int)):
        return "vacuum" if header["VACUUM"] else "air"
    return "air" if str(header.get("CTYPE1", "")).upper().startswith("AWAV") else None
