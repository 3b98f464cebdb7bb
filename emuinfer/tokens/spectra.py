"""XP spectra in the columns of tables: vectors, texts of vectors, one row per sample; and the units of their fluxes. Host only."""

import re

import numpy as np

from ..errors import TokenError
from ..observations.readers.units import parse_unit
from . import xp
from .columns import Column, numbers

SAMPLING = f"GaiaXPy's default sampling, {len(xp.WAVELENGTHS)} fluxes at 336, 338, … 1020 nm"
REMEDY = (
    "Make them with gaiaxpy.calibrate(…) without `sampling`, or leave the column out with a column map: {'flux': None}."
)
FLUX_UNIT = "W / (m2 nm)"


def vectors(column: Column, name: str) -> np.ndarray:
    """`(n, 343)` floats of a column of arrays or of texts as "(1.2, 3.4, …)"; rows of NaN where there is no spectrum.

    **Raises:** `TokenError` that names the row where a spectrum has another length or is none.
    """
    values, size = np.ma.asarray(column.values), len(xp.WAVELENGTHS)
    if values.ndim == 2 and values.dtype.kind in "iuf":
        if values.shape[1] != size:
            raise TokenError(
                f"The column '{name}' has vectors of {values.shape[1]} numbers; {SAMPLING}, are expected. {REMEDY}"
            )
        return np.ma.filled(values.astype(float), np.nan)
    if values.ndim != 1 or values.dtype.kind not in "OSU":
        raise TokenError(f"The column '{name}' holds single numbers; {SAMPLING}, are expected in each row. {REMEDY}")
    found = np.full((len(values), size), np.nan)
    for i, row in enumerate(ragged_vectors(column, name)):
        if row is not None:
            if len(row) != size:
                raise TokenError(
                    f"The column '{name}' has {len(row)} numbers in row {i}; {SAMPLING}, are expected. {REMEDY}"
                )
            found[i] = row
    return found


def ragged_vectors(column: Column, name: str) -> list[np.ndarray | None]:
    """The vectors of a column of arrays or of texts, of any lengths; None where there is none."""
    values = np.ma.asarray(column.values)
    if values.ndim == 2 and values.dtype.kind in "iuf":
        return list(np.ma.filled(values.astype(float), np.nan))
    return [_vector(entry, name, i) for i, entry in enumerate(np.ma.filled(values.astype(object), None))]


def _vector(entry, name, row):
    """The numbers of an entry of a column; None where there are none."""
    if entry is None or (np.ndim(entry) == 0 and not isinstance(entry, str | bytes) and entry != entry):
        return None
    if isinstance(entry, bytes):
        entry = entry.decode(errors="replace")
    if not isinstance(entry, str):
        try:
            return np.ma.filled(np.ma.asarray(entry, dtype=float), np.nan).ravel()
        except (TypeError, ValueError) as error:
            raise TokenError(f"The column '{name}' has no numbers in row {row}: {error}.") from error
    words = re.split(r"[,;\s]+", entry.strip().strip("()[]{}\"' \n\t"))
    if words == [""] or (len(words) == 1 and words[0].lower() in ("nan", "null", "none", "--")):
        return None
    try:
        return np.array([np.nan if w.lower() in ("null", "none", "--", "masked") else float(w) for w in words if w])
    except ValueError as error:
        raise TokenError(
            f"The column '{name}' has a text in row {row} that is no vector of numbers: {error}."
        ) from error


def per_wavelength(flux, unit: str | None, name: str) -> np.ndarray:
    """Fluxes `(n, 343)` of any unit of flux density as such per wavelength; as they are where no unit is given.

    Only ratios matter, so that units per wavelength change nothing; those per frequency (Jy) have another shape.
    """
    import astropy.units as u

    text = str(unit or "").strip()
    if not text or text.lower() in ("-", "none", "unknown"):
        return flux
    known, wavelength = parse_unit(text), xp.WAVELENGTHS * u.nm
    try:
        factor = known.to(u.Unit(FLUX_UNIT), np.ones(len(xp.WAVELENGTHS)), equivalencies=u.spectral_density(wavelength))
    except (u.UnitsError, AttributeError, TypeError):
        raise TokenError(
            f"The column '{name}' has the unit '{text}', which is no flux density. Fluxes per wavelength (W m-2 nm-1) or per "
            f"frequency (Jy) are expected; if the unit in the table is wrong, say so in the column map: {{'flux': ('{name}', "
            "'W m-2 nm-1')}."
        ) from None
    return flux * (
        factor / factor[len(factor) // 2]
    )  # of order one: fluxes of 1e-18 and their squares stay representable


def is_long(columns: dict[str, Column]) -> bool:
    """Whether a table has one row per sample of a spectrum, as DataLink's files of single stars have."""
    plain = {name.lower(): np.ma.asarray(column.values) for name, column in columns.items()}
    single = lambda name: name in plain and plain[name].ndim == 1 and plain[name].dtype.kind in "iuf"
    return single("wavelength") and single("flux")


def one_row_per_star(columns: dict[str, Column], star: str = "") -> dict[str, Column]:
    """The columns of a table of samples with one row per star: fluxes as vectors, of other columns the first entry.

    Stars are told apart by `source_id`; without it a new one begins where the wavelength falls. `star`: the name of a sole one.
    """
    named = {name.lower(): name for name in columns}
    at = _sample_numbers(columns[named["wavelength"]])
    if "source_id" in named:
        ids = np.ma.filled(np.ma.asarray(columns[named["source_id"]].values), 0)
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        stars, first = rank[inverse], np.sort(first)
    else:
        begins = np.r_[True, np.diff(at) <= 0] if len(at) else np.zeros(0, bool)
        stars, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
    vectors = ("flux", "flux_error")
    found = {}
    for name, column in columns.items():
        if name.lower() in vectors:
            spectra = np.full((len(first), len(xp.WAVELENGTHS)), np.nan)
            spectra[stars, at] = numbers(column, name)
            found[name] = Column(spectra, column.unit)
        elif name.lower() != "wavelength":
            found[name] = Column(np.ma.asarray(column.values)[first], column.unit)
    if "source_id" not in named and star and len(first) == 1:
        found["source_id"] = Column(np.array([int(star) if star.isdecimal() else star]))
    return found


def _sample_numbers(column: Column) -> np.ndarray:
    """The numbers of the samples at wavelengths."""
    import astropy.units as u

    wavelength = numbers(column, "wavelength")
    unit = parse_unit(column.unit) if column.unit else u.nm
    if unit is None or not unit.is_equivalent(u.nm):
        raise TokenError(f"The column 'wavelength' has the unit '{column.unit}'; a wavelength is expected, as nm.")
    wavelength = unit.to(u.nm, wavelength)
    at = (wavelength - xp.WAVELENGTHS[0]) / 2
    with np.errstate(invalid="ignore"):
        wrong = ~((np.abs(at - np.rint(at)) < 0.01) & (np.rint(at) >= 0) & (np.rint(at) < len(xp.WAVELENGTHS)))
    if wrong.any():
        raise TokenError(f"The column 'wavelength' has {wavelength[wrong][0]:g} nm; {SAMPLING}, are expected. {REMEDY}")
    return np.rint(at).astype(int)
