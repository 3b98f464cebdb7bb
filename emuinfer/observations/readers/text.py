"""Spectra in text: ECSV, CSV, columns. Host only."""

import re

import numpy as np

from ...errors import ObservationError
from .choices import NEEDS, Choices, open_file
from .columns import from_table


def read_ecsv(path, choices: Choices) -> dict:
    """Fields of an ECSV table."""
    from astropy.table import Table

    with open_file(path) as file:
        table = Table.read(file.read().decode(), format="ascii.ecsv")
    units = {n: str(table[n].unit) for n in table.colnames if getattr(table[n], "unit", None) is not None}
    data = {n: np.ma.asarray(getattr(table[n], "value", table[n])) for n in table.colnames}
    return from_table(data, units, table.meta, choices)


def read_text(path, choices: Choices) -> dict:
    """Columns separated by commas, semicolons or blanks; names in a first line or the last comment."""
    with open_file(path) as file:
        raw = file.read()
    try:
        lines = [line.strip() for line in raw.decode().lstrip("\ufeff").splitlines()]
    except UnicodeDecodeError as error:
        raise ObservationError(f"The file is neither FITS nor text. {NEEDS}") from error
    comments = [i for i, line in enumerate(lines) if line.startswith(("#", "!"))]
    rows = [line for line in lines if line and not line.startswith(("#", "!"))]
    if not rows:
        raise ObservationError(f"The file holds no rows. {NEEDS}")
    separator = next((s for s in (",", ";") if s in rows[0]), None)
    split = lambda line: [word.strip().strip("\"'") for word in line.split(separator)]
    if not _is_numeric(split(rows[0])):
        names, rows = split(rows[0]), rows[1:]
    else:
        names = split(lines[comments[-1]].lstrip("#! ")) if comments else []
        if len(names) != len(split(rows[0])):
            names = ["wavelength", "flux", "uncertainty"][: len(split(rows[0]))]
    try:
        values = np.array([[_number(w) for w in split(row)] for row in rows], dtype=float)
    except ValueError as error:
        raise ObservationError(f"The rows are not numbers in equally many columns ({error}). {NEEDS}") from error
    if values.ndim != 2 or values.shape[1] != len(names) or len(names) < 2:
        shape = f"{values.shape[-1] if values.ndim == 2 else '?'} columns and {len(names)} names ({', '.join(names)})"
        raise ObservationError(f"The file has {shape}. Without names, give two or three columns. {NEEDS}")
    names = [re.sub(r"\s*[\[(].*[\])]$", "", n) for n in names]  # "wavelength [nm]" -> "wavelength"
    return from_table(dict(zip(names, values.T)), {}, {}, choices)


def _number(word: str) -> float:
    return float(word) if word else np.nan


def _is_numeric(words) -> bool:
    try:
        [_number(w) for w in words]
    except ValueError:
        return False
    return True
