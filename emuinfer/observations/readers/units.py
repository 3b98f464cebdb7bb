"""Units and kinds of uncertainty as files write them. Host only."""

import re
import warnings

import numpy as np

from ...errors import ObservationError


def words(text: str) -> tuple[str, ...]:
    """The words of a text: lists of names that fit on a line."""
    return tuple(text.split())


INVERSE_VARIANCE = ("ivar", "flux_ivar", "ivar_flux", "inverse_variance", "inversevariance", "invvar", "inv_var")
VARIANCE = ("variance", "var", "flux_var", "flux_variance", "var_flux")

# Words of units, in lower case, as files write them; others are left to astropy. Capital letters first lose their meaning
# where nothing else is meant in a spectrum: "A" is no ampere, "S" no siemens, "NM" no newton metre.
_WORDS = {
    "Angstrom": "a aa å ang angs angst angstr angstrom angstroem angstroms ångström ångstrom",
    "nm": "nm nanometer nanometers nanometre nanometres",
    "um": "um µm μm micron microns micrometer micrometers micrometre micrometres",
    "mm": "mm",
    "cm": "cm",
    "m": "m meter meters metre metres",
    "erg": "erg ergs",
    "s": "s sec second seconds",
    "adu": "adu adus dn",
    "ct": "ct cts count counts",
    "electron": "electron electrons e",
    "photon": "photon photons ph",
    "Hz": "hz hertz",
    "Jy": "jy jansky",
    "pix": "pix pixel pixels channel channels",
}
WORDS = {word: unit for unit, words in _WORDS.items() for word in words.split()}
_NO_UNIT = {
    "lambda",
    "wavelength",
    "wavelengths",
    "wave",
    "air",
    "vacuum",
    "vac",
    "in",
    "of",
    "units",
    "unit",
    "flux",
    "err",
}
_LOG = re.compile(r"^\W*(alog10|log10|log|ln|dex)(?![a-z])\W*(.*)$", re.IGNORECASE)
LN_FROM = (
    5.2  # a "log" of ångström or nanometres from here on is a natural one: 10**5.2 Å = 16 µm, exp(5.2) nm = 181 nm
)
NO_LOGARITHM = 20.0  # exp(20) Å = 5 cm: larger values are no logarithms of a wavelength


def parse_unit(text):
    """The astropy unit that a file's `text` means, in most of the spellings that are about; `None` if it is not known."""
    import astropy.units as u

    text = str(text).strip()
    power = re.fullmatch(r"(\(.*\))\s*(?:\*\*|\^)?\s*\(?([-+]?\d)\)?", text)
    if power and _is_wrapped(power[1]):  # astropy knows no power of a number with a unit
        inner = parse_unit(power[1])
        return None if inner is None else inner ** int(power[2])
    text = re.sub(r"^[A-Za-z ]*[(\[](.*)[)\]]$", r"\1", text) if _is_wrapped(text) else text
    text = re.sub(r"\be-(?!\d)", "electron", text)
    text = re.sub(r"(?<![\d.])10\s*(?:\*\*|\^)?\s*\(?\s*([-+]\s*\d+)\s*\)?[\s*.]*", r"1e\1 ", text).replace("e ", "e")
    text = re.sub(r"([A-Za-z)])\.(?=[A-Za-z])|(?<=\d\))\.|×|·", r"\1 ", text)
    text = re.sub(r"(?<![\dA-Za-zÅµμ])([A-Za-zÅåµμöÖ]+)", _word, text).strip()
    if not text:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of several slashes, which are clear enough
            return u.Unit(text)
    except (ValueError, TypeError):
        return None


def _wavelength_unit(text):
    """`parse_unit` of what says a little more: "Angstrom (vacuum)", "lambda/Angstrom"; a sole word that means a unit."""
    words = [w for w in re.findall(r"[^\W\d_]+", text) if w.lower() not in _NO_UNIT]
    return parse_unit(words[0]) if len(words) == 1 and not re.search(r"\d", text) else parse_unit(text)


def _is_wrapped(text) -> bool:
    """Whether a text is a unit in brackets, perhaps after words: "[nm]", "Flux (10^-17 erg/s/cm^2/Ang)"."""
    match = re.fullmatch(r"([A-Za-z ]*)[(\[](.*)[)\]]", text)
    if match is None or _LOG.match(text):
        return False
    depth = 0
    for letter in match[2]:
        depth += (letter in "([") - (letter in ")]")
        if depth < 0:
            return False
    return True


def _word(match) -> str:
    word = match[1]
    return "" if word.lower() in _NO_UNIT else WORDS.get(word.lower(), word)


def refuse_pixel_numbers(wavelength) -> None:
    """`ObservationError` for 0, 1, 2, … or 1, 2, 3, …"""
    if (
        len(wavelength) > 2
        and wavelength[0] in (0, 1)
        and np.array_equal(np.diff(wavelength), np.ones(len(wavelength) - 1))
    ):
        raise ObservationError(
            f"The wavelengths are {wavelength[0]:g}, {wavelength[1]:g}, {wavelength[2]:g}, …: these are pixel numbers. The "
            "wavelengths must be in another column, or the spectrum is not calibrated."
        )


def with_unit(wavelength, unit, name: str = ""):
    """Wavelengths as a quantity. `unit`: a file's text or `None`; a logarithm is undone if it or the column's `name` says so."""
    import astropy.units as u

    text = "" if unit is None else str(unit).strip()
    match = _LOG.match(text)
    kind, text = (match[1].lower(), match[2].strip(" ()[]")) if match else (_log_of_name(name), text)
    known = _wavelength_unit(text) if text else None
    if known is None and not set(re.findall(r"\w+", text.lower())) <= _NO_UNIT:
        raise ObservationError(f"The wavelength unit '{unit}' is not known. Give wavelength_unit=, as \"nm\".")
    if known == u.pix:
        raise ObservationError(f"The axis has the unit '{unit}': these are pixel numbers, not wavelengths.")
    if not np.isfinite(wavelength).any():
        raise ObservationError("The wavelengths hold no finite number.")
    refuse_pixel_numbers(np.asarray(wavelength))
    if kind is not None:
        wavelength = _without_logarithm(wavelength, kind, known in (None, u.AA, u.nm))
    if known is None and np.nanmedian(wavelength) < 1000:
        raise ObservationError(
            f"The wavelengths have no unit and lie near {np.nanmedian(wavelength):g}, too low for ångström. "
            'Give wavelength_unit="nm", "um", "log10(Angstrom)" or what they are.'
        )
    return wavelength * (known or u.AA)


def _log_of_name(name) -> str | None:
    match = re.match(r"(log10|log|ln)_?(?=lam|wave|wl|wvl)", name.lower())
    return match[1] if match else None


def _without_logarithm(values, kind, is_common):
    """`values` whose logarithm, of base 10 or e as `kind` says ("log": as their size says), a file holds."""
    middle = np.nanmedian(values)
    if middle > NO_LOGARITHM:  # pixels that are uniform in the logarithm, but given in full
        return values
    natural = kind == "ln" or (kind == "log" and is_common and middle > LN_FROM)
    return np.exp(values) if natural else 10**values


def standard_deviation(values, name: str):
    """Standard deviations from what a column or image of that `name`, in lower case, holds; NaN where there is none."""
    values = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    if name in VARIANCE:
        return np.sqrt(np.where(values > 0, values, np.nan))
    if name in INVERSE_VARIANCE:
        return np.where(values > 0, np.where(values > 0, values, 1.0) ** -0.5, np.nan)
    return values


POWERS = {"std": 1.0, "variance": 0.5, "ivar": -0.5}  # of an uncertainty, to be a standard deviation
NDDATA = {"std": "std", "var": "variance", "ivar": "ivar"}  # astropy.nddata's names of types of uncertainty


def of_nddata(uncertainty):
    """`(values, unit)`: standard deviations, NaN where there is none, and their unit or `None`, of an uncertainty of
    `astropy.nddata`. Raises `ObservationError` for a type that is none of standard deviation, variance, inverse variance."""
    import astropy.units as u

    kind = NDDATA.get(uncertainty.uncertainty_type)
    if kind is None:
        raise ObservationError(
            f"The uncertainty is of type '{uncertainty.uncertainty_type}'; it must be a standard deviation, a variance or "
            "an inverse variance (StdDevUncertainty, VarianceUncertainty, InverseVariance of astropy.nddata)."
        )
    values = standard_deviation(np.squeeze(uncertainty.array), kind)
    return values, None if uncertainty.unit is None else u.Unit(uncertainty.unit) ** POWERS[kind]


def in_flux_unit(sigma, unit, flux_unit, wavelength=None):
    """Standard deviations, in astropy's `unit`, in the unit of the flux. `wavelength` (a quantity): for flux densities per
    frequency and per wavelength. Raises `ObservationError` where there is no conversion."""
    import astropy.units as u

    if unit == flux_unit:
        return sigma
    try:
        return unit.to(flux_unit, sigma, equivalencies=[] if wavelength is None else u.spectral_density(wavelength))
    except u.UnitConversionError as error:
        raise ObservationError(
            f"The uncertainty has the unit '{unit}', which cannot be converted to that of the flux, '{flux_unit}'. "
            "Give uncertainties in the unit of the flux, or snr= instead."
        ) from error


def match_units(sigma, kind: str, unit, flux_unit, wavelength, notes):
    """`in_flux_unit` for the texts of a file: `unit` is that of the column of that `kind` (its name in lower case)."""
    if unit and not flux_unit and parse_unit(unit) is not None:
        notes.append(f"the flux has no unit: it is taken to be in that of the uncertainty, '{unit}'")
    if not unit or not flux_unit or str(unit).strip() == str(flux_unit).strip():
        return sigma
    parsed, flux = parse_unit(unit), parse_unit(flux_unit)
    if parsed is None or flux is None:
        notes.append(
            f"flux in '{flux_unit}' and uncertainty in '{unit}' are taken to be in the same unit: not both are known"
        )
        return sigma
    if parsed == flux:
        return sigma
    power = 0.5 if kind in VARIANCE else -0.5 if kind in INVERSE_VARIANCE else 1
    converted = in_flux_unit(sigma, parsed**power, flux, wavelength)
    notes.append(f"uncertainties converted from '{unit}' to the unit of the flux, '{flux_unit}'")
    return converted
