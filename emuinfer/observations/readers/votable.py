"""Spectra in VOTables, of Gaia's DataLink or of any other service. Host only."""

import numpy as np

from ...errors import ObservationError
from .choices import Choices, open_file
from .columns import from_table
from .products import gaia


def is_votable(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    head = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    return head.startswith((b"<?xml", b"<VOTABLE"))


def read_votable(path, choices: Choices) -> dict:
    """Fields of the spectrum in the first table of the file."""
    from astropy.table import Table

    try:
        with open_file(path) as file:
            table = Table.read(file, format="votable")
    except Exception as error:  # astropy's parser raises anything from ValueError to its own
        raise ObservationError(f"It is XML but no VOTable with a table ({str(error)[:200]}).") from error
    columns = {n: np.ma.asarray(table[n]) for n in table.colnames}
    if gaia.is_rvs(columns):
        fields = gaia.spectrum_of(columns, choices)
        source = table.meta.get("source_id", table.meta.get("SOURCE_ID"))
        return fields if source is None else {**fields, "name": fields["name"] or f"Gaia DR3 {source}"}
    units = {n: str(table[n].unit) for n in table.colnames if table[n].unit is not None}
    air = [
        n
        for n in table.colnames
        if "em.wl" in str(table[n].meta.get("ucd", "")) and "obs.atmos" in str(table[n].meta["ucd"])
    ]
    return from_table(columns, units, table.meta, choices, air)
