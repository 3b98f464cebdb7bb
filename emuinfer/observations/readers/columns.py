"""What the columns of a table mean. Host only."""

import re

import numpy as np

from ...constants import FWHM_PER_SIGMA
from ...errors import ObservationError, suggestion
from ...wavelengths.medium import convert_medium
from .choices import Choices
from .header import from_header
from .masks import mask_of
from .units import INVERSE_VARIANCE, VARIANCE, match_units, parse_unit, standard_deviation, with_unit, words

# Column names, in lower case. ESO phase 3: WAVE, FLUX, ERR, QUAL; SDSS: loglam, flux, ivar, and_mask; others as seen in
# the wild. Of wavelengths also their logarithms, and names that end in a medium or a unit: `_parts`.
WAVELENGTH = words(
    "wavelength wavelengths wave lambda lam wl wlen wvl waveobs wave_obs lambda_obs wavelength_obs spectral_axis angstrom "
    "angstroms nm"
)
FLUX = words(
    "flux fluxes flux_density flam f_lambda flux_lambda intensity counts norm_flux flux_norm normflux nflux "
    "normalized_flux normalised_flux flux_normalized flux_normalised"
)
DEVIATION = words(
    "uncertainty uncertainties error errors err sigma std stddev std_dev unc flux_err flux_error flux_uncertainty "
    "flux_sigma flux_std flux_unc fluxerr err_flux sigma_flux e_flux eflux ferr dflux noise"
)
UNCERTAINTY = (*DEVIATION, *INVERSE_VARIANCE, *VARIANCE)
MEDIA = {"air": "air", "vac": "vacuum", "vacuum": "vacuum"}


def from_table(table: dict, units: dict, header, choices: Choices, air=()) -> dict:
    """Fields from named columns. `table`: name to array; `units`: name to unit text; `air`: columns in air."""
    wavelengths = lambda n: _wavelength(table[n], n, units, choices).to_value("AA", equivalencies=_spectral())
    wave, pair = _air_or_vacuum(table, choices, wavelengths)
    wave = wave or _pick(table, choices.wavelength_column, is_wavelength, "wavelength", choices.medium, wavelengths)
    flux = _pick(table, choices.flux_column, lambda n: n.lower() in FLUX, "flux")
    deviations = lambda n: standard_deviation(table[n], n.lower())
    is_sigma = lambda n: n.lower() in UNCERTAINTY
    sigma = _pick(table, choices.uncertainty_column, is_sigma, "uncertainty", None, deviations, required=False)
    fields = from_header(header)
    notes = list(fields["notes"])
    wavelength = _wavelength(table[wave], wave, units, choices)
    medium = "air" if wave in air else _parts(wave)[1] or pair
    if medium is not None:
        fields["medium"] = medium
    if wave.lower() == "loglam" and sigma is not None and sigma.lower() == "ivar":  # SDSS: always vacuum
        fields["medium"] = fields["medium"] or "vacuum"
        dispersion = next((n for n in table if n.lower() == "wdisp"), None)
        if dispersion is not None and fields["resolution"] is None:
            wdisp = np.asarray(table[dispersion], dtype=float)
            fields["resolution"] = _power_of_dispersion(wdisp, np.log(wavelength.value))
    fields["wavelength"] = wavelength
    fields["flux"] = table[flux]
    if sigma is not None:
        kind = sigma.lower()
        fields["uncertainty"] = match_units(
            deviations(sigma), kind, units.get(sigma), units.get(flux), wavelength, notes
        )
    fields["mask"] = mask_of(table, header, choices, notes)
    return {**fields, "notes": tuple(notes)}


def _spectral():
    import astropy.units as u

    return u.spectral()


def _wavelength(values, name, units, choices):
    """A column of wavelengths, or of frequencies, as a quantity."""
    try:
        values = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    except ValueError as error:
        raise ObservationError(f"The column '{name}' holds no numbers: {error}.") from error
    return with_unit(values, choices.wavelength_unit or units.get(name) or _parts(name)[2], name)


def is_wavelength(name) -> bool:
    """Whether a column of that name holds wavelengths."""
    return _parts(name)[0] in WAVELENGTH


def _air_or_vacuum(table, choices: Choices, wavelengths) -> tuple[str | None, str | None]:
    """Of two columns that are the same wavelengths in air and in vacuum, the one in `choices.medium`, or the first, and its medium."""
    found = [name for name in table if is_wavelength(name)]
    if choices.wavelength_column is not None or len(found) != 2:
        return None, None
    values = [wavelengths(name) for name in found]
    with np.errstate(invalid="ignore"):
        known = np.isfinite(values).all(axis=0) & (
            np.min(values, axis=0) > 2000
        )  # in the ultraviolet air is not defined
    for media in (("vacuum", "air"), ("air", "vacuum")):
        same = lambda x, y: len(x) > 0 and np.allclose(convert_medium(x, media[0], media[1]), y, rtol=1e-5, atol=0)
        if same(*(v[known] for v in values)):
            return next(((n, m) for n, m in zip(found, media) if m == choices.medium), (found[0], media[0]))
    return None, None


def _parts(name) -> tuple[str, str | None, str | None]:
    """Of a name such as "log_wave_vac", "wavelength_nm": what is left without logarithm, medium and unit; medium; unit."""
    core = re.sub(r"[\s\-./,]+", "_", name.strip().lower())
    if core in ("nm", "angstrom", "angstroms"):
        return core, None, core
    core = re.sub(r"^(log10|log|ln)_?(?=lam|wave|wl|wvl)", "", core)
    medium = unit = None
    while "_" in core:
        head, _, tail = core.rpartition("_")
        if tail in MEDIA:
            medium = MEDIA[tail]
        elif head in WAVELENGTH and tail != "obs" and parse_unit(tail) is not None:
            unit = tail
        else:
            break
        core = head
    return core, medium, unit


def _power_of_dispersion(wdisp, log_wavelength):
    """Resolving powers from SDSS's `wdisp`: the standard deviation of the line spread function in pixels; 0 where missing."""
    valid = np.isfinite(wdisp) & (wdisp > 0)
    if not valid.any():
        return None
    wdisp = np.where(valid, wdisp, np.median(wdisp[valid]))
    return 1.0 / (FWHM_PER_SIGMA * wdisp * np.abs(np.gradient(log_wavelength)))


def _pick(table, given, is_known, what, medium=None, values=None, required=True):
    """The name of the column that holds `what`. Of several that say the same by `values(name)`, the first."""
    if given is not None:
        if given in table:
            return given
        hint = suggestion(given, table)
        raise ObservationError(f"There is no column '{given}'.{hint} The columns are: {', '.join(table)}.")
    found = [name for name in table if is_known(name)]
    if len(found) > 1 and medium is not None:  # columns for both media: the caller has said which
        found = [n for n in found if medium[:3] in n.lower()] or found
    if len(found) == 1 or (not found and not required):
        return found[0] if found else None
    if found and values is not None and _agree([values(n) for n in found]):
        return found[0]
    problem = (
        f"Several columns could be the {what}: {', '.join(found)}."
        if found
        else f"No column is known to be the {what}."
    )
    raise ObservationError(f"{problem} Give {what}_column=. The columns are: {', '.join(table)}.")


def _agree(columns) -> bool:
    """Whether columns hold the same, wherever two have a value, to the accuracy of wavelengths in single precision."""
    first, *others = columns
    same = lambda x: np.shape(x) == np.shape(first) and np.allclose(x, first, rtol=1e-6, atol=0, equal_nan=True)
    return all(same(x) for x in others)
