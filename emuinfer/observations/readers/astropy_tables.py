"""Spectra in text tables that describe themselves and that astropy reads: ECSV, IPAC, CDS. Host only."""

import re

import numpy as np

from ...errors import ObservationError
from .choices import Choices, open_file
from .columns import from_table


def format_of(head: bytes) -> str | None:
    """astropy's name of the format of a file that begins with `head`; `None` for other texts."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"# %ECSV"):
        return "ascii.ecsv"
    if re.match(rb"\\\w+ *=|(\\.*\n)*\|[^\n]*\|\s*\n\|\s*(double|real|float|int|char)", start):
        return "ascii.ipac"
    if b"Byte-by-byte Description" in head:
        return "ascii.mrt" if start.startswith(b"Title:") else "ascii.cds"
    return None


def read_astropy(path, format: str, choices: Choices) -> dict:
    """Fields of the table in a file, which `format` names as astropy does."""
    from astropy.table import Table

    with open_file(path) as file:
        raw = file.read()
    try:
        table = Table.read(raw.decode("utf-8-sig"), format=format)
    except ObservationError:
        raise
    except Exception as error:  # astropy's readers raise anything, from IndexError to errors of XML
        raise ObservationError(
            f"astropy cannot read it as '{format}': {type(error).__name__}: {str(error)[:200]}"
        ) from error
    units = {n: str(table[n].unit) for n in table.colnames if getattr(table[n], "unit", None) is not None}
    data = {n: np.ma.asarray(getattr(table[n], "value", table[n])) for n in table.colnames}
    header = {**table.meta, **{k: v.get("value") for k, v in table.meta.get("keywords", {}).items()}}
    return from_table(data, units, header, choices)
