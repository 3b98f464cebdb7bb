"""Reading spectra from files: FITS tables and images, ECSV, CSV, text, and whatever specutils knows. Host only."""

import contextlib
import re
import warnings
from pathlib import Path

import numpy as np

from ..errors import ObservationError
from .archives import desi_arms, read_archive
from .columns import FLUX, UNCERTAINTY, from_header, from_table, standard_deviation, with_unit

NEEDS = (
    "A spectrum is a FITS table, ECSV, CSV or text file with a wavelength, a flux and, if possible, an uncertainty "
    "column, a one-dimensional FITS image with a wavelength axis, or a file that specutils can read."
)


def read(
    path,
    *,
    medium=None,
    wavelength_column=None,
    flux_column=None,
    uncertainty_column=None,
    wavelength_unit=None,
    format=None,
    arm=None,
    row=None,
) -> dict:
    """Read one spectrum; returns keyword arguments for `Observation`.

    Tried in this order: files of APOGEE (apVisit, apStar, aspcapStar) and DESI (coadd, spectra), FITS tables (one row
    per pixel, or one row of arrays as in ESO phase 3), one-dimensional FITS images with a linear or logarithmic axis,
    ECSV, CSV and text columns, and what `specutils.Spectrum.read` identifies.
    `row` and `arm` ("b", "r" or "z") choose among the spectra of a file of DESI, `row` also in an apStar. SDSS's spec files
    are tables with `loglam`: vacuum, and resolving powers from `wdisp`.
    `format`, a specutils format name, goes to specutils at once. Columns are found by their names, or given by name.
    Column units are used; without any, wavelengths are in ångström, or in `wavelength_unit`. Inverse variances,
    variances and quality columns (non-zero: do not use) are understood. From headers (or ECSV metadata) come the medium
    (`MEDIUM`, `AIRORVAC`, `VACUUM`, axis type `AWAV`, ESO's `em.wl;obs.atmos`), the resolving power (`SPEC_RES`,
    `RESOLUTION`, `RESOLVE`), the signal-to-noise ratio (`SNR`, `SNR_EST`; only used without uncertainties) and the name
    (`OBJECT`). The axis type `WAVE` should mean vacuum but is often written for air, so that it is not believed.

    Raises `ObservationError` that names the file, what is in it, and what is needed.
    """
    path = Path(path)
    if path.is_dir():
        raise ObservationError(f"{path} is a directory, not a spectrum. {NEEDS}")
    if not path.exists():
        raise ObservationError(f"There is no file {path}.")
    columns = {"wavelength": wavelength_column, "flux": flux_column, "uncertainty": uncertainty_column}
    try:
        if format is not None:
            fields = _read_specutils(path, format)
        elif _head(path).startswith(b"SIMPLE  ="):
            fields = _read_fits(path, columns, medium, wavelength_unit, arm, row)
        elif _head(path).startswith(b"# %ECSV"):
            fields = _read_ecsv(path, columns, medium, wavelength_unit)
        else:
            fields = _read_text(path, columns, medium, wavelength_unit)
    except ObservationError as error:
        raise ObservationError(f"{path}: {error}") from error
    except (OSError, EOFError, TypeError, KeyError, IndexError, ValueError) as error:
        raise ObservationError(
            f"{path} cannot be read as a spectrum: {type(error).__name__}: {error}. {NEEDS}"
        ) from error
    fields.setdefault("name", "")
    fields["name"] = fields["name"] or re.sub(r"(\.(fits?|ecsv|csv|txt|dat|gz))+$", "", path.name)
    fields["meta"] = {"file": path.name, **fields.get("meta", {})}
    if medium is None and fields.get("medium") is None:
        raise ObservationError(
            f"{path} does not say whether its wavelengths are in air or in vacuum. "
            'Give medium="air" or medium="vacuum" '
            "(on the command line --medium)."
        )
    return fields


def _open(path):
    import gzip

    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _head(path) -> bytes:
    with _open(path) as file:
        return file.read(64)


# FITS


def read_arms(path) -> list[str]:
    """The arms that `read` knows in a file; empty if it is no DESI file."""
    from astropy.io import fits

    with warnings.catch_warnings(action="ignore"), fits.open(path, memmap=False) as hdus:
        return desi_arms(hdus)


def _read_fits(path, columns, medium, wavelength_unit, arm, row) -> dict:
    from astropy.io import fits

    with warnings.catch_warnings(action="ignore"), fits.open(path, memmap=False) as hdus:
        reasons = []
        if (found := read_archive(hdus, arm, row)) is not None:
            return found
        for hdu in hdus:
            if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and hdu.data is not None and len(hdu.columns) > 1:
                try:
                    return _fits_table(hdu, hdus[0].header, columns, medium, wavelength_unit)
                except ObservationError as error:
                    reasons.append(f"HDU '{hdu.name or 1}': {error}")
        if hdus[0].data is not None and np.squeeze(hdus[0].data).ndim == 1 and "CRVAL1" in hdus[0].header:
            return _fits_image(hdus, wavelength_unit)
        listed = "; ".join(f"{i}: {h.name or 'no name'} {type(h).__name__} {_shape(h)}" for i, h in enumerate(hdus))
    with contextlib.suppress(ObservationError):
        return _read_specutils(path, None)
    if reasons:
        raise ObservationError(" ".join(reasons))
    raise ObservationError(f"This FITS file holds no spectrum that can be recognised; it holds {listed}. {NEEDS}")


def _shape(hdu) -> str:
    return "without data" if hdu.data is None else str(hdu.data.shape)


def _fits_table(hdu, primary, columns, medium, wavelength_unit) -> dict:
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
    fields = from_table(data, units, header, columns, medium, wavelength_unit, air)
    is_eso = any(text.startswith("em.wl") for text in ucd.values()) and fields.get("medium") is None
    if is_eso:  # ESO Science Data Product standard: "em.wl" alone means vacuum
        fields["medium"] = "vacuum"
    return fields


def _fits_image(hdus, wavelength_unit) -> dict:
    """A one-dimensional image: linear axis, log10 axis (DC-FLAG, CTYPE1 'LOG...') or WCS '-LOG' (natural)."""
    header = hdus[0].header
    flux = np.squeeze(hdus[0].data).astype(float)
    step = header.get("CDELT1", header.get("CD1_1"))
    if step is None:
        raise ObservationError("The header has CRVAL1 but neither CDELT1 nor CD1_1: the wavelength step is missing.")
    offset = np.arange(1, len(flux) + 1) - header.get("CRPIX1", 1.0)
    axis, kind = header["CRVAL1"] + step * offset, str(header.get("CTYPE1", "")).upper()
    if kind.endswith("-LOG"):  # Greisen et al. 2006, A&A 446, 747, eq. 5
        axis = header["CRVAL1"] * np.exp(step * offset / header["CRVAL1"])
    elif header.get("DC-FLAG", 0) == 1 or kind.startswith("LOG"):
        axis = 10**axis
    fields = from_header(header)
    unit = wavelength_unit or header.get("CUNIT1") or None
    fields.update(wavelength=with_unit(axis, unit), flux=flux)
    for hdu in hdus[1:]:
        if (
            hdu.data is not None
            and hdu.name.lower() in (*UNCERTAINTY, "errs", "errors")
            and np.size(hdu.data) == len(flux)
        ):
            fields["uncertainty"] = standard_deviation(np.squeeze(hdu.data), hdu.name.lower())
    return fields


# Text


def _read_ecsv(path, columns, medium, wavelength_unit) -> dict:
    from astropy.table import Table

    with _open(path) as file:
        table = Table.read(file.read().decode(), format="ascii.ecsv")
    units = {n: str(table[n].unit) for n in table.colnames if getattr(table[n], "unit", None) is not None}
    data = {n: np.ma.asarray(getattr(table[n], "value", table[n])) for n in table.colnames}
    return from_table(data, units, table.meta, columns, medium, wavelength_unit)


def _read_text(path, columns, medium, wavelength_unit) -> dict:
    """Columns separated by commas, semicolons or blanks; names in a first line or the last comment."""
    with _open(path) as file:
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
    return from_table(dict(zip(names, values.T)), {}, {}, columns, medium, wavelength_unit)


def _number(word: str) -> float:
    return float(word) if word else np.nan


def _is_numeric(words) -> bool:
    try:
        [_number(w) for w in words]
    except ValueError:
        return False
    return True


# specutils


def _read_specutils(path, format) -> dict:
    from specutils import Spectrum

    try:
        with warnings.catch_warnings(action="ignore"):
            spectrum = Spectrum.read(str(path), format=format)
    except Exception as error:  # loaders raise anything, from KeyError to astropy's own
        raise ObservationError(f"specutils cannot read it: {type(error).__name__}: {str(error)[:200]}") from error
    return from_specutils(spectrum)


def from_specutils(spectrum) -> dict:
    """Keyword arguments for `Observation` from a `specutils.Spectrum` that holds one spectrum."""
    import astropy.units as u

    flux = np.squeeze(np.asarray(spectrum.flux.value, dtype=float))
    if flux.ndim != 1:
        raise ObservationError(
            f"The Spectrum holds an array of shape {spectrum.flux.shape}; pick one spectrum, as spectrum[0]."
        )
    try:
        wavelength = spectrum.spectral_axis.to(u.AA, equivalencies=u.spectral())
    except u.UnitConversionError as error:
        raise ObservationError(
            f"The spectral axis has unit '{spectrum.spectral_axis.unit}', not a wavelength."
        ) from error
    meta = dict(spectrum.meta or {})
    header = meta.get("header", meta)
    fields = from_header(header if hasattr(header, "items") else {})
    fields.update(wavelength=u.Quantity(wavelength), flux=flux)
    if spectrum.uncertainty is not None:
        kind = {"var": "variance", "ivar": "ivar"}.get(spectrum.uncertainty.uncertainty_type, "std")
        fields["uncertainty"] = standard_deviation(np.squeeze(spectrum.uncertainty.array), kind)
    if spectrum.mask is not None:
        fields["mask"] = np.squeeze(np.asarray(spectrum.mask)).astype(bool)
    return fields
