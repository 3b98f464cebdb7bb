"""Arms of one star as tables of one file, of any instrument: tables of the same columns that share few wavelengths. Host only."""

import numpy as np

from ....errors import ObservationError
from ..choices import Choices
from ..columns import FLUX, WAVELENGTH
from ..tables import read_table
from .shared import chosen_arm, chosen_hdu, columns_of, flat

OVERLAP = 0.3  # of the shorter of two tables' ranges; spectra that share more are exposures, not arms


def recognises(hdus) -> bool:
    """Whether the open FITS file has two or more such tables, and only such."""
    return len(arms(hdus)) > 1


def arms(hdus) -> list[str]:
    """Names of the tables, in lower case, by rising wavelength."""
    tables = [h for h in hdus[1:] if columns_of(h) & set(FLUX) and len(columns_of(h) & set(WAVELENGTH)) == 1]
    if len({frozenset(columns_of(h)) for h in tables}) != 1 or len({h.name for h in tables}) < len(tables):
        return []
    ranges = sorted((*_range(h), h.name.lower()) for h in tables)
    for (low, high, _), (other_low, other_high, _) in zip(ranges, ranges[1:]):
        if not high - other_low < OVERLAP * min(high - low, other_high - other_low):
            return []
    return [name for _, _, name in ranges]


def read(hdus, choices: Choices) -> dict:
    """Fields of the table that `arm` (or `hdu`) names."""
    if (given := chosen_hdu(hdus, choices)) is not None:
        return read_table(given, hdus[0].header, choices)
    known = arms(hdus)
    try:
        name = chosen_arm(choices, known, "This file")
    except ObservationError as error:
        shown = ", ".join(f"{a.upper()} ({_range(hdus[a])[0]:g} to {_range(hdus[a])[1]:g})" for a in known)
        raise ObservationError(f"{error} They are the tables {shown}.") from error
    return read_table(hdus[name], hdus[0].header, choices)


def _range(hdu):
    """The lowest and the highest wavelength of a table, as it stands there."""
    values = flat(hdu, next(iter(columns_of(hdu) & set(WAVELENGTH))))
    values = np.concatenate(values).astype(float) if values.dtype == object and values.size else values.astype(float)
    return (float(np.nanmin(values)), float(np.nanmax(values))) if values.size else (np.nan, np.nan)
