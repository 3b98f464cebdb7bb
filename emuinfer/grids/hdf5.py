"""The HDF5 layout of a grid: writing it atomically in pieces, opening it, and saying what is wrong with a bad file.

    labels      (n, n_labels) f8   attributes: names, units
    wavelength  (n_wave,) f8       attributes: unit = "Angstrom", medium = "air" or "vacuum"
    flux        (n, n_wave) f4     flux over continuum; NaN where a row is missing or failed
    continuum   (n, m) f4          attribute: unit; optional
    continuum_wavelength (m,) f8   present if the continuum is stored on fewer wavelengths than the flux
    status      (n,) u1            0 missing, 1 done, 2 failed
    reason      (n,) string        why a row failed, else empty

Attributes of the file: format, format_version, label_space (JSON), provenance (JSON), content_hash and, for generated
grids, generation (JSON: the settings a later extension must match).
"""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np

from ..errors import GridError
from ..files import check_dataset, written_hdf5
from ..labels.space import LabelSpace

FORMAT = "emuinfer-grid"
VERSION = 1
MISSING, DONE, FAILED = 0, 1, 2
_REQUIRED = ("labels", "wavelength", "flux", "status")


class ContentHash:
    """SHA-256 of domain, medium, wavelengths and usable rows (labels, flux, continuum), fed in pieces of rows."""

    def __init__(self, label_space, medium, wavelength, continuum_wavelength):
        self._head = hashlib.sha256(json.dumps([label_space.to_json(), medium], sort_keys=True).encode())
        for array in (wavelength, continuum_wavelength):
            self._head.update(b"none" if array is None else np.ascontiguousarray(array, "<f8").tobytes())
        self._rows = [hashlib.sha256() for _ in range(3)]

    def update(self, labels, flux, continuum):
        for digest, array, kind in zip(self._rows, (labels, flux, continuum), ("<f8", "<f4", "<f4")):
            if array is not None:
                digest.update(np.ascontiguousarray(array, kind).data)

    def hexdigest(self) -> str:
        total = self._head.copy()
        for digest in self._rows:
            total.update(digest.digest())
        return total.hexdigest()


class GridWriter:
    """The datasets of a grid of `n` rows in an open HDF5 `file`, filled piece by piece, in order. See `writing_grid`."""

    def __init__(self, file, n, *, label_space, medium, wavelength, continuum_wavelength, continuum_unit, attributes):
        import h5py

        self._file, self._n, self._at = file, n, 0
        self._hash = ContentHash(label_space, medium, wavelength, continuum_wavelength)
        thin = continuum_wavelength is not None and not np.array_equal(continuum_wavelength, wavelength)
        n_continuum = 0 if continuum_wavelength is None else len(continuum_wavelength)
        file.attrs.update(format=FORMAT, format_version=VERSION, **attributes)
        file.attrs["label_space"] = json.dumps(label_space.to_json())
        names = file.create_dataset("labels", (n, len(label_space)), "<f8")
        names.attrs["names"], names.attrs["units"] = list(label_space.names), list(label_space.units)
        file.create_dataset("wavelength", data=np.asarray(wavelength, "<f8")).attrs.update(
            unit="Angstrom", medium=medium
        )
        self._create("flux", len(wavelength), "<f4").attrs["unit"] = ""
        if n_continuum:
            self._create("continuum", n_continuum, "<f4").attrs["unit"] = continuum_unit
        if thin:
            file.create_dataset("continuum_wavelength", data=np.asarray(continuum_wavelength, "<f8"))
        file.create_dataset("status", (n,), "u1")
        file.create_dataset("reason", (n,), h5py.string_dtype())

    def _create(self, name, width, kind):
        # Checksummed (fletcher32) so that damage is noticed even when single rows are read. Shuffle and gzip save 40 %
        # of the normalised flux of real grids; a higher gzip level saves 1 % more.
        rows = max(1, min(self._n, 16384 // width))
        options = dict(compression="gzip", compression_opts=1, shuffle=True, fletcher32=True)
        return self._file.create_dataset(name, (self._n, width), kind, chunks=(rows, width), **options)

    def write(self, labels, flux, continuum=None, status=None, reasons=None):
        """Append rows. `status` and `reasons` default to done and empty."""
        rows = slice(self._at, self._at + len(labels))
        status = np.full(len(labels), DONE, "u1") if status is None else np.asarray(status, "u1")
        good = status == DONE
        self._hash.update(labels[good], flux[good], None if continuum is None else continuum[good])
        self._file["labels"][rows] = labels
        self._file["flux"][rows] = flux
        if continuum is not None:
            self._file["continuum"][rows] = continuum
        self._file["status"][rows] = status
        if reasons is not None:
            self._file["reason"][rows] = [str(r) for r in reasons]
        self._at = rows.stop

    def _finish(self, path):
        if self._at != self._n:
            raise GridError(f"{path}: {self._at} of {self._n} rows were written; this is a programming error.")
        self._file.attrs["content_hash"] = self._hash.hexdigest()


@contextlib.contextmanager
def writing_grid(path, n: int, *, folder=None, **frame):
    """A `GridWriter` of `n` rows; the file gets its name when the block has succeeded and all rows are there.

    `frame` is what `GridWriter` takes; the unfinished file lies in `folder`, beside `path` by default.
    """
    with written_hdf5(path, GridError, folder=folder) as file:
        writer = GridWriter(file, n, **frame)
        yield writer
        writer._finish(path)


@contextlib.contextmanager
def reading(path):
    """Turn HDF5's errors while reading `path` into a `GridError` that names the file."""
    try:
        yield
    except GridError:
        raise
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise GridError(
            f"{path} is a damaged grid file ({error}). Restore it from a copy, or generate it again."
        ) from error


def open_grid(path):
    """Open a grid file for reading and check that it is one: an `h5py.File`.

    Raises `GridError` if the file is missing, truncated, not HDF5, not a grid, or of a newer format.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        if path.with_name(path.name + ".parts").is_dir():
            raise GridError(f"The generation of {path} has not finished. Start the same command again to go on.")
        raise GridError(f"There is no grid file {path}. Check the path, or make one with `emuinfer grid make`.")
    if not h5py.is_hdf5(path):
        raise GridError(
            f"{path} is not an HDF5 file, so not a grid. Other files become one with `emuinfer grid import`."
        )
    with reading(path):
        file = h5py.File(path, "r")
    try:
        with reading(path):
            _check_layout(path, file)
    except BaseException:
        file.close()
        raise
    return file


def _check_layout(path, file):
    if file.attrs.get("format") != FORMAT:
        raise GridError(f"{path} is an HDF5 file but not an emuinfer grid (its attribute 'format' is not '{FORMAT}').")
    version = int(file.attrs.get("format_version", 0))
    if version != VERSION:
        raise GridError(
            f"{path} has grid format version {version}, but this emuinfer reads version {VERSION}. Update emuinfer."
        )
    missing = [name for name in _REQUIRED if name not in file]
    missing += [name for name in ("label_space", "provenance", "content_hash") if name not in file.attrs]
    if missing:
        raise GridError(f"{path} is a damaged grid file: it lacks {', '.join(missing)}. Generate it again.")
    for name in (*_REQUIRED, *(n for n in ("continuum", "continuum_wavelength") if n in file)):
        check_dataset(file[name], path, GridError)
    names = tuple(str(name) for name in file["labels"].attrs["names"])
    space = LabelSpace.from_json(json.loads(file.attrs["label_space"]))
    if names != space.names:
        raise GridError(
            f"{path} is a damaged grid file: its labels are called {', '.join(names)} but its label space has "
            f"{', '.join(space.names)}. Generate it again."
        )
    n, n_wave = file["status"].shape[0], file["wavelength"].shape[0]
    if file["flux"].shape != (n, n_wave) or file["labels"].shape != (n, len(names)):
        raise GridError(
            f"{path} is a damaged grid file: flux {file['flux'].shape}, labels {file['labels'].shape}, status ({n},) "
            f"and wavelength ({n_wave},) do not fit together. Generate it again."
        )
