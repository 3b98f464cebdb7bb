"""Gaia's RVS mean spectra, as FITS, VOTable or CSV of DataLink, and the table `rvs_mean_spectrum` with its arrays. Host only.

Gaia DR3 documentation, section 20.12.1: normalised, in vacuum, in the star's rest frame, 846 to 870 nm in 2,401 steps of
0.01 nm. Fluxes are empty (NaN) where too little was observed.
"""

import csv
import io
import re

import numpy as np

from ....errors import ObservationError
from ..choices import Choices, checked_row, open_file
from ..frames import in_frame
from .shared import columns_of, with_published_resolution

N_PIX = 2401
GRID = 846.0 + 0.01 * np.arange(N_PIX)  # nm
COLUMNS = ("flux", "flux_error")


def recognises(hdus) -> bool:
    """Whether the open FITS file has a table of such spectra."""
    return _table(hdus) is not None


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum; `row` chooses among several stars."""
    hdu = _table(hdus)
    fields = spectrum_of({n: hdu.data[n] for n in hdu.columns.names}, choices)
    source = hdu.header.get("SOURCE_ID", hdus[0].header.get("SOURCE_ID"))
    return fields if source is None else {**fields, "name": f"Gaia DR3 {source}"}


def is_rvs(columns: dict) -> bool:
    """Whether columns (name to array) are of RVS mean spectra: by the wavelengths, or the length of the arrays."""
    columns = {k.lower(): np.asarray(v) for k, v in columns.items()}
    if not set(COLUMNS) <= set(columns):
        return False
    if "wavelength" in columns:
        wave = np.ravel(columns["wavelength"])
        return len(wave) % N_PIX == 0 and len(wave) > 0 and bool(np.allclose(wave[:N_PIX], GRID, atol=1e-3))
    return columns["flux"].ndim == 2 and columns["flux"].shape[1] == N_PIX


def spectrum_of(columns: dict, choices: Choices) -> dict:
    """Fields of one spectrum of `is_rvs` columns: one row per pixel, or a row of arrays per star."""
    import astropy.units as u

    columns = {k.lower(): v for k, v in columns.items()}
    flux, error = (_filled(columns[n]) for n in COLUMNS)
    sources = [str(s) for s in np.ravel(columns["source_id"])] if "source_id" in columns else []
    sources = sources[:: max(1, len(sources) // len(flux))]  # repeated on every pixel's row
    if choices.row is None and len(flux) > 1:
        raise ObservationError(
            f"This file has {len(flux)} RVS spectra: give row=0 to {len(flux) - 1}. Their sources are "
            f"{', '.join(sources[:5])}{' …' if len(sources) > 5 else ''}."
        )
    row = checked_row(choices.row or 0, len(flux), "This file of RVS spectra")
    fields = {
        "name": f"Gaia DR3 {sources[row]}" if sources else "",
        "wavelength": GRID * u.nm,
        "flux": flux[row],
        "uncertainty": error[row],
        "medium": "vacuum",
        "notes": ("an RVS mean spectrum of Gaia, normalised",),
        "meta": {},
    }
    return in_frame(with_published_resolution(fields, "Gaia-RVS", GRID * 10), "rest")


def _filled(values) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(values, dtype=float), np.nan).reshape(-1, N_PIX)


def columns_of_csv(path) -> dict | None:
    """Columns of a CSV file of DataLink or of the archive; None if its first line does not name them."""
    with open_file(path) as file:
        first = file.readline(4096).decode(errors="replace").lstrip("\ufeff").lower().replace('"', "")
        names = [n.strip() for n in first.split(",")]
        if not {*COLUMNS} <= set(names) or not {"wavelength", "source_id"} & set(names):
            return None
        rows = [row for row in csv.reader(io.StringIO(file.read().decode())) if row]
    wanted = [n for n in ("source_id", "wavelength", *COLUMNS) if n in names]
    return {n: _column(n, [row[names.index(n)] for row in rows]) for n in wanted}


def _column(name, cells):
    if name == "source_id":
        return cells
    arrays = [[_number(w) for w in re.split(r"[,\s]+", c.strip("[](){} \n"))] for c in cells]
    lengths = {len(a) for a in arrays}
    if len(lengths) != 1:
        raise ObservationError(f"The arrays of the column {name} have different lengths.")
    values = np.array(arrays)
    return values[:, 0] if lengths == {1} else values


def _number(word: str) -> float:
    return float(word) if word and word.lower() != "null" else np.nan


def _table(hdus):
    wanted = (*COLUMNS, "wavelength")
    tables = [h for h in hdus[1:] if columns_of(h) >= set(COLUMNS) and h.data is not None]
    return next((h for h in tables if is_rvs({n: h.data[n] for n in h.columns.names if n.lower() in wanted})), None)
