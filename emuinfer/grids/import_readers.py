"""Readers of other people's grids: HDF5, FITS, and directories of spectra with a table of labels. See `foreign`."""

import contextlib
import warnings
from pathlib import Path

import numpy as np

from ..errors import EmuinferError, GridError
from ..files import check_dataset, refuse_more_than_memory, size_text
from . import hdf5
from .import_fields import Raw, check_same_medium, in_angstrom, label_columns, pick


@contextlib.contextmanager
def _reading(path, kind):
    """Turn the errors of a library that reads `path` into a `GridError`."""
    try:
        yield
    except EmuinferError:
        raise
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise GridError(f"{path} cannot be read as {kind}: {type(error).__name__}: {error}.") from error


def _native(values):
    """In the machine's byte order; arrays of different lengths become a list."""
    if values.dtype.kind == "O":
        return [np.asarray(v, float) for v in values]
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _wavelengths(values, unit, n):
    """In ångström: (n_wave,), or a list of `n` arrays."""
    values = _native(values)
    if isinstance(values, list) or values.ndim == 2:
        values = [in_angstrom(w, unit) for w in values]
        return values[0] if len(values) == 1 < n else values  # one row that holds the common wavelengths
    return in_angstrom(values, unit)


# HDF5


def read_hdf5(path, medium, names, wavelength_unit) -> Raw:
    """An HDF5 file that is not a grid of emuinfer."""
    import h5py

    with _reading(path, "HDF5"), h5py.File(path, "r") as file:
        if file.attrs.get("format") == hdf5.FORMAT:
            raise GridError(f"{path} is a grid of emuinfer already. Use it as it is.")
        datasets = {}
        file.visititems(lambda name, item: datasets.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        for dataset in datasets.values():
            check_dataset(dataset, path, GridError, whole=False)
        refuse_more_than_memory(2 * sum(d.size * d.dtype.itemsize for d in datasets.values()), path, error=GridError)
        tables = {name: d for name, d in datasets.items() if d.dtype.names}
        plain = {name: d for name, d in datasets.items() if not d.dtype.names}
        wave, flux = plain[pick("wavelength", plain, names)], pick("flux", plain, names)
        attributes = {**_text(file.attrs), **_text(wave.attrs)}
        check_same_medium(attributes, medium)
        n = len(plain[flux])
        continuum = pick("continuum", plain, names, required=False)
        at = pick("continuum_wavelength", plain, names, required=False)
        unit = wavelength_unit or next((attributes[k] for k in ("unit", "units") if attributes.get(k)), None)
        return Raw(
            _wavelengths(wave[:], unit, n),
            _native(plain[flux][:]),
            _hdf5_labels(plain, tables, names, n, {flux, wave.name.lstrip("/"), continuum, at}),
            [f"row {i}" for i in range(n)],
            None if continuum is None else plain[continuum][:],
            None if at is None else in_angstrom(plain[at][:], unit),
        )


def _text(attributes):
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}


def _hdf5_labels(plain, tables, names, n, used) -> dict:
    chosen = pick("labels", [*plain, *tables], names, required=False)
    if chosen in tables or (chosen is None and len(tables) == 1):
        table = tables[chosen or next(iter(tables))][:]
        return {c: table[c] for c in table.dtype.names if table[c].dtype.kind in "fiu" and table[c].ndim == 1}
    if chosen is None:  # one dataset per label
        return {
            name.rsplit("/", 1)[-1]: d[:] for name, d in plain.items()
            if name not in used and d.shape == (n,) and d.dtype.kind in "fiu"
        }  # fmt: skip
    array = plain[chosen]
    given = pick("label_names", plain, names, required=False)
    if given is not None:
        words = plain[given].asstr()[:] if plain[given].dtype.kind == "O" else plain[given][:].astype(str)
    else:
        words = next((array.attrs[k] for k in ("names", "label_names", "columns") if k in array.attrs), None)
        if words is None:
            raise GridError(
                f"'{chosen}' does not say what its columns are. Add a dataset label_names with their names."
            )
        words = [w.decode() if isinstance(w, bytes) else str(w) for w in np.ravel(words)]
    return dict(zip(map(str, words), label_columns(array[:], words)))


# FITS


def read_fits(path, medium, names, wavelength_unit) -> Raw:
    """A FITS table with a vector column of flux, or an image of spectra and a table of labels."""
    from astropy.io import fits

    columns, images, units = {}, {}, {}
    with _reading(path, "FITS"), warnings.catch_warnings(action="ignore"), fits.open(path, memmap=False) as hdus:
        for k, hdu in enumerate(hdus):
            check_same_medium(hdu.header, medium)
            _check_size(path, hdu)
            if isinstance(hdu, fits.BinTableHDU) and hdu.data is not None:
                for name, unit in zip(hdu.columns.names, hdu.columns.units):
                    columns[name], units[name] = hdu.data[name], unit
            elif hdu.data is not None:
                name = hdu.name.lower() if hdu.name not in ("", "PRIMARY") else "flux" if k == 0 else f"image{k}"
                images[name], units[name] = hdu.data, hdu.header.get("BUNIT")
    everything = {**images, **columns}
    wave, flux = pick("wavelength", everything, names), pick("flux", everything, names)
    continuum = pick("continuum", everything, names, required=False)
    at = pick("continuum_wavelength", everything, names, required=False)
    unit = wavelength_unit or units[wave] or None
    n = len(everything[flux])
    return Raw(
        _wavelengths(everything[wave], unit, n),
        _native(everything[flux]),
        {c: _native(v) for c, v in columns.items() if _is_label(v, n) and c not in (wave, flux)},
        [f"row {i}" for i in range(n)],
        None if continuum is None else _native(everything[continuum]),
        None if at is None else in_angstrom(np.ravel(_native(everything[at])), unit),
    )


def _check_size(path, hdu):
    """Raise `GridError` where an HDU claims more than the file or the memory holds: astropy would ask for the memory first."""
    claimed, found = hdu.size, hdu.fileinfo()
    there = path.stat().st_size
    plain = path.suffix.lower() in (".fits", ".fit")  # nothing is known of what is compressed
    if claimed < 0 or (plain and found is not None and found["datLoc"] + claimed > there):
        raise GridError(
            f"{path} is damaged: '{hdu.name}' claims {size_text(claimed)}, and the file has {size_text(there)}."
        )
    refuse_more_than_memory(3 * claimed, path, error=GridError)


def _is_label(values, n):
    return values.dtype.kind in "fiu" and values.shape == (n,)


# Directories


def read_directory(path, medium, names, label_table, wavelength_unit) -> Raw:
    """Spectra in files of their own, listed in a table of labels."""
    table_path = _find_table(path) if label_table is None else Path(label_table)
    table = _read_table(table_path)
    column = pick("file", table.colnames, names)
    labels = {}
    for name in table.colnames:
        values = np.ma.asarray(table[name])
        if name == column or values.dtype.kind not in "fiu" or values.ndim != 1:
            continue
        if np.ma.getmaskarray(values).any():
            row = int(np.flatnonzero(np.ma.getmaskarray(values))[0])
            raise GridError(f"{table_path}: label '{name}' is missing in row {row} ({table[column][row]}). Fill it in.")
        labels[name] = np.asarray(values)
    files = [_inside(path, str(name).strip(), table_path) for name in table[column]]
    if not files:
        raise GridError(f"{table_path} lists no spectra.")
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise GridError(f"{table_path} lists {len(missing)} files that do not exist, the first: {missing[0]}.")
    spectra = [_read_spectrum(file, medium, wavelength_unit) for file in files]
    return Raw([w for w, _ in spectra], [f for _, f in spectra], labels, [str(file) for file in files])


def _inside(folder, name, table):
    """The path of a file that a table of labels names; raises `GridError` where it is not in the folder."""
    file = folder / name
    try:
        inside = file.resolve().is_relative_to(folder.resolve()) and (file.is_file() or not file.exists())
    except (OSError, ValueError, RuntimeError):  # names that no file can have, links in a circle
        inside = False
    if not inside:
        raise GridError(
            f"{table} names the file {name!r}, which does not lie in {folder}. Put the spectra into that folder."
        )
    return file


def _find_table(path):
    found = [file for file in sorted(path.glob("labels.*")) if file.suffix in (".csv", ".ecsv", ".fits")]
    if len(found) != 1:
        raise GridError(
            f"{path} is a directory with {len(found)} files labels.csv, labels.ecsv or labels.fits. Give the table of "
            f"labels (label_table, on the command line --label-table): a row per spectrum, a column of file names."
        )
    return found[0]


def _read_table(path):
    from astropy.table import Table

    if not path.is_file():
        raise GridError(f"There is no table of labels {path}.")
    kind = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv"}.get(path.suffix.lower())
    try:
        with warnings.catch_warnings(action="ignore"):
            table = Table.read(path, format=kind)
    except Exception as error:  # astropy's readers raise errors of many kinds
        raise GridError(f"{path} cannot be read as a CSV, ECSV or FITS table: {str(error)[:300]}.") from error
    table.convert_bytestring_to_unicode()
    return table


def _read_spectrum(file, medium, wavelength_unit):
    """Wavelengths in ångström, increasing, and fluxes."""
    from ..observations.checks import to_angstrom
    from ..observations.readers import read

    fields = read(file, medium=medium, wavelength_unit=wavelength_unit)
    if fields.get("medium") not in (None, medium):
        raise GridError(
            f"{file} says that its wavelengths are in {fields['medium']}, but {medium} was given. "
            f"Find out which is true."
        )
    wavelength = to_angstrom(fields["wavelength"])
    flux = np.asarray(np.ma.filled(np.ma.asarray(fields["flux"], dtype=float), np.nan), np.float32)
    order = slice(None) if wavelength[-1] >= wavelength[0] else slice(None, None, -1)
    return wavelength[order], flux[order]
