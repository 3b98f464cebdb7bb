"""Users' tables as tokens: astropy and pandas tables, mappings, structured arrays. Host only."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..errors import TokenError
from . import columns as named
from . import datalink, spectra, xp
from .columns import Column
from .kinds import Vocabulary
from .tokenset import TokenSet

SPECTRA = ("coefficients", "bins", "both")


class TableTokens(NamedTuple):
    """A table as tokens, one row for each of its rows; `aside`: its other columns (a parallax, for instance), by name."""

    tokens: TokenSet
    aside: dict[str, np.ndarray]


def tokens_of(
    data,
    vocabulary: Vocabulary,
    *,
    columns: Mapping | None = None,
    key: str | None = None,
    spectrum: str = "coefficients",
) -> TokenSet:
    """What is known of objects, as tokens: the `tokens` of `table_tokens`; a `TokenSet` is returned as it is."""
    if isinstance(data, TokenSet):
        if data.vocabulary.names != vocabulary.names:
            raise TokenError(
                f"These tokens are of another vocabulary: {data.vocabulary.describe()}. The one expected has "
                f"{vocabulary.describe()}."
            )
        return data
    return table_tokens(data, vocabulary, columns=columns, key=key, spectrum=spectrum).tokens


def table_tokens(
    table,
    vocabulary: Vocabulary,
    *,
    columns: Mapping | None = None,
    key: str | None = None,
    spectrum: str = "coefficients",
) -> TableTokens:
    """The rows of a table, in order, as tokens of `vocabulary`.

    **Arguments:**

    - `table`: an astropy Table, a pandas DataFrame, a structured array, or a mapping of names to arrays or numbers, in which
      `(value, error)` gives an error: `{"teff": (5777, 60), "j_h": 0.41, "xp": flux}`.
    - `columns`: what is in which column, where names do not say it: `{"teff": "T", "j_m": ("J", "mmag"), "logg": None}`; None
      leaves it out. Names known: the kinds', with `e_NAME`, `NAME_error` or `NAME_err` for errors; those of Gaia's archive and
      of 2MASS, whose magnitudes make colours; `flux` and `flux_error` as GaiaXPy writes them.
    - `key`: the column that identifies the objects; `source_id` or another usual name if None, else they are counted.
    - `spectrum`: XP spectra as "coefficients" (bins where samples are missing), "bins", or "both".

    Missing values stay missing. Units are converted. Other columns are kept aside; notes of the tokens name them.
    **Raises:** `TokenError` for units without a conversion, columns without numbers, and tables of which nothing is known.
    """
    if spectrum not in SPECTRA:
        raise TokenError(f"spectrum={spectrum!r} is none of {', '.join(SPECTRA)}.")
    found = as_columns(table)
    if spectra.is_long(found):
        found = spectra.one_row_per_star(found, str((getattr(table, "meta", None) or {}).get("source_id", "")))
    if datalink.is_continuous(found) and {"xp_coefficients", "xp_bins"} & set(vocabulary.groups):
        found = datalink.calibrated(found)
    roles = named.assign(found, vocabulary, columns)
    if not roles.used:
        raise TokenError(
            f"No column of the table is known. {named.unused_note(roles.unused, vocabulary, {}).capitalize()}. Known are "
            f"{vocabulary.describe()}; magnitudes {', '.join(named.MAGNITUDES)}; flux, flux_error. Give a column map: "
            "columns={'teff': 'name of the column'}."
        )
    rows = len(next(iter(found.values())).values)
    notes: list[str] = []
    reading = _Reading(found, roles.used, vocabulary, notes)
    values, errors = (np.full((rows, len(vocabulary)), np.nan) for _ in range(2))
    for k, kind in enumerate(vocabulary):
        values[:, k], errors[:, k] = reading.kind(kind)
    if "flux" in roles.used:
        _put_spectra(values, errors, vocabulary, reading.spectra(), spectrum, notes)
    notes += _notes_on(values, vocabulary)
    key = named.find_key(found, key)
    aside = {name: found[name].values for name in roles.unused if name != key}
    if aside:
        notes.append(named.unused_note(aside, vocabulary, roles.used))
    keys = np.arange(rows) if key is None else np.ma.filled(np.ma.asarray(found[key].values), 0)
    return TableTokens(TokenSet(vocabulary, values, errors, keys, key or "row", tuple(notes)), aside)


class _Reading:
    """The numbers of a table's columns by their roles, each read once."""

    def __init__(self, found, used, vocabulary, notes):
        self.found, self.used, self.vocabulary, self.notes = found, used, vocabulary, notes
        self.known: dict[str, np.ndarray | None] = {}
        self.nothing = np.full(len(next(iter(found.values())).values), np.nan)

    def numbers(self, role: str, unit: str, lower=None, upper=None) -> np.ndarray | None:
        """The column of a role in `unit`, or None; without placeholders outside of `lower` to `upper`."""
        if role not in self.used:
            return None
        if role not in self.known:
            name, said = self.used[role]
            raw, dropped = named.without_placeholders(named.numbers(self.found[name], name), lower, upper)
            if dropped:
                self.notes.append(f"{dropped} values of '{name}' such as -9999 or 99.9 are taken to be missing")
            self.known[role] = named.in_unit(raw, said or self.found[name].unit, unit, name, role.removeprefix("e_"))
        return self.known[role]

    def magnitude(self, name) -> tuple[np.ndarray | None, np.ndarray]:
        """A magnitude and its error."""
        value = self.numbers(name, "mag", *named.MAGNITUDE_RANGE)
        error = self.numbers(f"e_{name}", "mag", 0.0, named.MAGNITUDE_RANGE[1])
        if error is None and (ratio := self.numbers(named.RATIOS.get(name, ""), "")) is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                error = np.where(ratio > 0, named.MAG_PER_LN / ratio, np.nan)
        return value, self.nothing if error is None else error

    def kind(self, kind) -> tuple[np.ndarray, np.ndarray]:
        """Values and errors of a kind: its own column, a magnitude, or a colour of two magnitudes where it has none."""
        if kind.name in named.MAGNITUDES:
            value, error = self.magnitude(kind.name)
            return (self.nothing if value is None else value), error
        own = self.numbers(kind.name, kind.unit, kind.lower, kind.upper), self.numbers(f"e_{kind.name}", kind.unit, 0.0)
        value, error = (self.nothing if array is None else array for array in own)
        if kind.name in named.COLOURS:
            (blue, e_blue), (red, e_red) = (self.magnitude(name) for name in named.COLOURS[kind.name])
            if blue is not None and red is not None:
                absent = np.isnan(value)
                with np.errstate(invalid="ignore"):  # of infinite magnitudes
                    value = np.where(absent, blue - red, value)
                error = np.where(absent, np.hypot(e_blue, e_red), error)
        return value, error

    def spectra(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Fluxes and errors `(n, 343)` per wavelength; samples with an infinite error are missing."""
        read: list[np.ndarray] = []
        for role in ("flux", "flux_error"):
            if role in self.used:
                name, said = self.used[role]
                unit = said or self.found[name].unit or self.found[self.used["flux"][0]].unit
                read.append(spectra.per_wavelength(spectra.vectors(self.found[name], name), unit, name))
        flux, error = read[0], read[1] if len(read) > 1 else None
        if error is not None:
            flux = np.where(np.isinf(error), np.nan, flux)
            error = np.where(error >= 0, error, np.nan)
        return flux, error


def _put_spectra(values, errors, vocabulary: Vocabulary, read, spectrum: str, notes: list[str]) -> None:
    if not {"xp_coefficients", "xp_bins"} & set(vocabulary.groups):
        notes.append("the vocabulary has no XP spectra: the fluxes are not used")
        return
    flux, error = read
    found = xp.spectrum_tokens(flux, error, xp.basis())
    whole, some = (np.isfinite(found[what]) for what in ("coefficients", "bins"))
    whole, some = whole.all(axis=1), some.any(axis=1)
    without = np.zeros(len(values), bool)
    if spectrum != "bins" and "xp_coefficients" in vocabulary.groups:
        values[:, vocabulary.group("xp_coefficients")] = found["coefficients"]
        without = whole & (spectrum == "coefficients")
        if (some & ~whole).any():
            notes.append(
                f"{(some & ~whole).sum()} spectra have samples without a value: their bins are used, no coefficients"
            )
    if "xp_bins" in vocabulary.groups:
        columns = vocabulary.group("xp_bins")
        values[:, columns] = np.where(without[:, None], np.nan, found["bins"])
        errors[:, columns] = np.where(without[:, None], np.nan, found["errors"])


def _notes_on(values, vocabulary) -> list[str]:
    logarithmic = np.array([kind.transform == "log" for kind in vocabulary], dtype=bool)
    with np.errstate(invalid="ignore"):
        counts = ((values <= 0) & logarithmic).sum(axis=0)
    negative = [f"{vocabulary[k].name} ({counts[k]})" for k in np.flatnonzero(counts)]
    more = f" and {len(negative) - 8} more kinds" if len(negative) > 8 else ""
    return (
        [f"values that are not positive are taken to be missing: {', '.join(negative[:8])}{more}"] if negative else []
    )


def as_columns(table) -> dict[str, Column]:
    """The columns of a table of any kind by name. **Raises:** `TokenError` for what is no table, or one without rows of one length."""
    if hasattr(table, "colnames"):  # astropy
        found = {name: _of_astropy(table[name]) for name in table.colnames}
    elif hasattr(table, "iloc") and hasattr(table, "columns"):  # pandas
        found = {str(name): Column(_of_pandas(table[name])) for name in table.columns}
    elif isinstance(table, Mapping):
        found = _of_mapping(table)
    elif getattr(getattr(table, "dtype", None), "names", None):
        found = {name: Column(table[name]) for name in table.dtype.names}
    else:
        raise TokenError(
            f"A {type(table).__name__} is no table. Give an astropy Table, a pandas DataFrame, a structured array, a mapping of "
            "names to arrays, or the path of a file."
        )
    if not found:
        raise TokenError("The table has no columns.")
    lengths = {name: len(column.values) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        longest = max(lengths, key=lambda name: lengths[name])
        other = next(name for name in lengths if lengths[name] != lengths[longest])
        raise TokenError(
            f"'{longest}' has {lengths[longest]} entries and '{other}' {lengths[other]}; a table has one for each row."
        )
    return found


def _of_astropy(column) -> Column:
    unit = getattr(column, "unit", None)
    values = getattr(column, "value", column)  # of quantities
    return Column(
        np.ma.asarray(values) if hasattr(values, "dtype") else np.array(list(map(str, column))), str(unit or "")
    )


def _of_pandas(series) -> np.ndarray:
    if series.dtype.kind in "biuf" and isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    if getattr(series.dtype, "kind", "O") in "biuf":  # pandas' own types, with pandas.NA
        return series.to_numpy(dtype=float, na_value=np.nan)
    return series.to_numpy(dtype=object, na_value=None)


def _of_mapping(table: Mapping) -> dict[str, Column]:
    """Columns of a mapping; a tuple of two is a value and its error; numbers are those of a single object."""
    pairs: dict = {}
    for name, given in table.items():
        if isinstance(given, tuple) and len(given) == 2:
            pairs[name] = given[0]
            pairs["flux_error" if name in ("xp", "flux") else f"e_{name}"] = given[1]
        else:
            pairs[name] = given
    unit = {name: str(given.unit) for name, given in pairs.items() if hasattr(given, "unit") and given.unit is not None}
    arrays = {name: np.ma.asarray(getattr(given, "value", given)) for name, given in pairs.items()}
    long = "wavelength" in arrays
    vector = {name for name in arrays if name in ("xp", "flux", "flux_error") and not long}
    least = lambda name: 2 if name in vector and arrays[name].dtype.kind in "iuf" and arrays[name].size else 1
    arrays = {name: a[None] if a.ndim < least(name) else a for name, a in arrays.items()}
    rows = max(map(len, arrays.values()), default=1)
    spread = lambda a: np.ma.concatenate(list(itertools.repeat(a, rows))) if len(a) == 1 < rows else a
    return {name: Column(spread(a), unit.get(name, "")) for name, a in arrays.items()}
