"""Spectra that are FITS tables: one of a file's tables, and its columns. Host only."""

import numpy as np

from ...errors import ObservationError
from .choices import Choices, checked_row, number_or_name
from .columns import FLUX, from_table


def read_tables(hdus, choices: Choices) -> tuple[dict | None, list[str]]:
    """Fields of the spectrum in the tables of an open FITS file, or `None`; and why tables hold none.

    `choices.hdu`, a number or a name, chooses the table. Else, of several with a spectrum, the first that covers all the
    others (a coadd before its exposures) is read, and a note names the others. Raises `ObservationError` where none does.
    """
    from astropy.io import fits

    number = number_or_name(choices.hdu)
    if number is not None and not isinstance(number, int):
        names = [h.name.upper() for h in hdus]
        number = names.index(str(number).strip().upper()) if str(number).strip().upper() in names else -1
    found, reasons = {}, []
    for i, hdu in enumerate(hdus):
        if number is not None and i != number:
            continue
        if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and hdu.data is not None and len(hdu.columns) > 1:
            try:
                found[i] = read_table(hdu, hdus[0].header, choices)
            except ObservationError as error:
                reasons.append(f"HDU '{hdu.name or i}': {error}")
    if not found:
        return None, reasons
    ranges = {i: _range(fields) for i, fields in found.items()}
    whole = min(lo for lo, _ in ranges.values()), max(hi for _, hi in ranges.values())
    slack = 0.02 * (whole[1] - whole[0])
    chosen = next((i for i, (lo, hi) in ranges.items() if lo - slack <= whole[0] and hi + slack >= whole[1]), None)
    listed = {i: f"{i}: {hdus[i].name or 'no name'} ({lo:.0f} to {hi:.0f} Å)" for i, (lo, hi) in ranges.items()}
    if chosen is None:
        raise ObservationError(
            f"{len(found)} tables hold a spectrum: {_some(listed.values())}. Give hdu=, the number or the name of one "
            "(on the command line --hdu)."
        )
    fields = found[chosen]
    if len(found) > 1:
        others = _some(text for i, text in listed.items() if i != chosen)
        note = f"read from the table {listed[chosen]}; other tables with a spectrum, for hdu=: {others}"
        fields = {**fields, "notes": (*fields.get("notes", ()), note)}
    return fields, reasons


def _some(texts, shown: int = 8) -> str:
    texts = list(texts)
    return ", ".join(texts[:shown]) + (f", and {len(texts) - shown} more" if len(texts) > shown else "")


def _range(fields) -> tuple[float, float]:
    """The first and the last wavelength, Å; of pixels that have one."""
    import astropy.units as u

    wavelength = fields["wavelength"].to_value(u.AA, equivalencies=u.spectral())
    wavelength = wavelength[np.isfinite(wavelength) & (wavelength > 0)]
    if not len(wavelength):
        raise ObservationError("The table has no wavelength that is finite and positive.")
    return float(wavelength.min()), float(wavelength.max())


def read_table(hdu, primary, choices: Choices) -> dict:
    """Fields of a table with one row per pixel, or one row of arrays."""
    names = hdu.columns.names
    data = _one_spectrum({n: column_values(hdu, n) for n in names}, len(hdu.data), choices)
    units = dict(zip(names, hdu.columns.units))
    ucd = {n: str(hdu.header.get(f"TUCD{i}", "")).lower() for i, n in enumerate(names, start=1)}
    air = [n for n, text in ucd.items() if text.startswith("em.wl") and "obs.atmos" in text]
    header = {**dict(primary), **dict(hdu.header)}
    fields = from_table(data, units, header, choices, air)
    is_eso = any(text.startswith("em.wl") for text in ucd.values()) and fields.get("medium") is None
    if is_eso:  # ESO Science Data Product standard: "em.wl" alone means vacuum
        fields["medium"] = "vacuum"
    _range(fields)
    return fields


def column_values(hdu, name) -> np.ma.MaskedArray | np.ndarray:
    """A column's values, scaled by TSCAL and TZERO; where the stored integers are TNULL they are masked."""
    values = np.asarray(hdu.data[name])
    null = hdu.columns[name].null
    if null is None or values.dtype.kind not in "iuf":
        return values
    stored = hdu.data.view(np.ndarray)[name]  # TNULL is a value before scaling (FITS standard 4.0, section 7.3.2)
    if stored.dtype.kind not in "iu" or stored.shape != values.shape:  # ASCII tables: astropy has NaN or 0 there
        return values
    return np.ma.array(values, mask=stored == int(null))


def _one_spectrum(data, n_rows, choices: Choices) -> dict:
    """The columns of one spectrum, flat, of a table with one row per pixel, or with a spectrum in each row."""
    arrays = {n for n, a in data.items() if (a.ndim > 1 and a[0].size > 1) or a.dtype == object}
    if not arrays or (n_rows > 1 and not any(n.lower() in (*FLUX, str(choices.flux_column).lower()) for n in arrays)):
        return {n: a.reshape(-1) if a.ndim == 2 and a.shape[1] == 1 else a for n, a in data.items()}
    if choices.row is None and n_rows > 1:
        raise ObservationError(f"The table holds {n_rows} spectra, one per row: give row=0 to {n_rows - 1}.")
    row = checked_row(choices.row or 0, n_rows, "The table")
    rows = {n: np.ma.asarray(a[row]).reshape(-1) for n, a in data.items()}
    return {n: a for n, a in rows.items() if a.size > 1}  # the others say something of the whole spectrum
