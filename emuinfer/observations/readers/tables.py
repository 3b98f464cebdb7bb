"""Spectra that are FITS tables. Host only."""

import numpy as np

from ...errors import ObservationError
from .choices import Choices
from .columns import FLUX, from_table


def read_table(hdu, primary, choices: Choices) -> dict:
    """Fields of a table with one row per pixel, or one row of arrays."""
    names = hdu.columns.names
    data = {n: np.asarray(hdu.data[n]) for n in names}
    if len(hdu.data) == 1:  # one row of arrays: ESO phase 3
        data = {n: a.reshape(-1) for n, a in data.items() if a.size > 1}
    elif any(a.ndim > 1 for n, a in data.items() if n.lower() in FLUX):
        raise ObservationError(f"The table holds {len(hdu.data)} spectra, one per row. Write one spectrum per file.")
    units = dict(zip(names, hdu.columns.units))
    ucd = {n: str(hdu.header.get(f"TUCD{i}", "")).lower() for i, n in enumerate(names, start=1)}
    air = [n for n, text in ucd.items() if text.startswith("em.wl") and "obs.atmos" in text]
    header = {**dict(primary), **dict(hdu.header)}
    fields = from_table(data, units, header, choices, air)
    is_eso = any(text.startswith("em.wl") for text in ucd.values()) and fields.get("medium") is None
    if is_eso:  # ESO Science Data Product standard: "em.wl" alone means vacuum
        fields["medium"] = "vacuum"
    return fields
