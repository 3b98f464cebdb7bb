"""A set of labels and their spectra."""

import json

import numpy as np

from ..errors import GridError
from ..files import refuse_more_than_memory
from ..labels.check import first_problem, row_list
from ..labels.space import LabelSpace
from . import hdf5
from .split import split_rows

MEDIA = ("air", "vacuum")


class Grid:
    """Spectra on one wavelength axis, with their labels, domain and provenance.

    **Arguments:**

    - `labels`: array `(n, n_labels)`, or a mapping of label name to `(n,)` values, in the units of `label_space`.
    - `wavelength`: `(n_wave,)`, ångström, strictly increasing.
    - `flux`: `(n, n_wave)`, flux over continuum.
    - `continuum`: `(n, n_wave)`, or `(n, m)` with `continuum_wavelength`; optional.
    - `label_space`: the domain of the labels, a `LabelSpace`.
    - `medium`: `"air"` or `"vacuum"`, of the wavelengths.
    - `provenance`: what made the spectra (a mapping that can be written as JSON).
    - `continuum_wavelength`: `(m,)`, ångström; where the continuum is given, if not at `wavelength`.
    - `continuum_unit`: unit of the continuum, such as `"erg / (s cm2 Angstrom)"`.
    - `validate`: with False, values that are not finite and labels outside the domain are left for `check_grid`.

    Raises `GridError` when the arrays do not fit together or are not finite, and when labels are outside the domain.
    """

    def __init__(
        self,
        labels,
        wavelength,
        flux,
        continuum=None,
        *,
        label_space: LabelSpace,
        medium: str,
        provenance: dict | None = None,
        continuum_wavelength=None,
        continuum_unit: str = "",
        validate: bool = True,
    ):
        self.label_space = label_space
        self.medium = medium
        self.provenance = dict(provenance or {})
        self.labels = np.asarray(label_space.to_array(labels), float)
        self.wavelength = np.asarray(wavelength, float)
        self.flux: np.ndarray | RowsOnDisk = np.asarray(flux, np.float32)
        self.continuum: np.ndarray | RowsOnDisk | None = (
            None if continuum is None else np.asarray(continuum, np.float32)
        )
        if continuum is not None and continuum_wavelength is None:
            continuum_wavelength = self.wavelength
        self.continuum_wavelength = None if continuum is None else np.asarray(continuum_wavelength, float)
        self.continuum_unit = continuum_unit
        self.failed: list[tuple[np.ndarray, str]] = []
        self._hash: str | None = None
        _check_shapes(self)
        if validate:
            _check_values(self)

    @classmethod
    def load(cls, path, lazy: bool = False) -> "Grid":
        """Read the finished rows of a grid file.

        With `lazy=True` flux and continuum stay in the file and are read as they are indexed (`grid.flux[rows]`,
        `grid.flux[rows, pixels]`); otherwise they are read and compared with the file's content hash.
        Rows that failed are not loaded: `grid.failed` lists their labels and the reason.
        Raises `GridError` on a missing, damaged or foreign file.
        """
        file = hdf5.open_grid(path)
        try:
            with hdf5.reading(path):
                grid = cls._from_file(path, file, lazy)
        except BaseException:
            file.close()
            raise
        if not lazy:
            file.close()
        return grid

    @classmethod
    def _from_file(cls, path, file, lazy):
        self = cls.__new__(cls)
        status = file["status"][:]
        rows = np.flatnonzero(status == hdf5.DONE)
        labels = file["labels"][:]
        self.label_space = LabelSpace.from_json(json.loads(file.attrs["label_space"]))
        self.provenance = json.loads(file.attrs["provenance"])
        self.medium = str(file["wavelength"].attrs["medium"])
        self.wavelength = file["wavelength"][:]
        self.labels = labels[rows]
        self.flux = RowsOnDisk(path, file["flux"], rows)
        self.continuum = RowsOnDisk(path, file["continuum"], rows) if "continuum" in file else None
        self.continuum_unit = str(file["continuum"].attrs["unit"]) if "continuum" in file else ""
        self.continuum_wavelength = None
        if "continuum" in file:
            own = "continuum_wavelength" in file
            self.continuum_wavelength = file["continuum_wavelength"][:] if own else self.wavelength
        bad = np.flatnonzero(status == hdf5.FAILED)
        reasons = file["reason"].asstr()[:] if len(bad) else []
        self.failed = [(labels[i], str(reasons[i])) for i in bad]
        stored, self._hash = str(file.attrs["content_hash"]), None
        if lazy:
            self._hash = stored
            return self
        needed = 3 * sum(4 * a.shape[0] * a.shape[1] for a in (self.flux, self.continuum) if a is not None)
        refuse_more_than_memory(needed, path, "Load it with lazy=True.", GridError)
        self.flux = self.flux[:]
        self.continuum = None if self.continuum is None else self.continuum[:]
        if self.hash != stored:
            raise GridError(
                f"{path} is a damaged grid file: its contents do not match its content hash. "
                f"Restore it from a copy, or generate it again."
            )
        return self

    def save(self, path) -> None:
        """Write the grid to an HDF5 file, atomically. The list of failed rows is not written."""
        attributes = {"provenance": _as_json(self.provenance)}
        with hdf5.writing_grid(path, len(self), attributes=attributes, **self._frame()) as writer:
            for rows in _blocks(len(self)):
                writer.write(self.labels[rows], self.flux[rows], self._continuum(rows))

    def _continuum(self, rows):
        return None if self.continuum is None else self.continuum[rows]

    def _frame(self) -> dict:
        return dict(
            label_space=self.label_space,
            medium=self.medium,
            wavelength=self.wavelength,
            continuum_wavelength=self.continuum_wavelength,
            continuum_unit=self.continuum_unit,
        )

    @property
    def hash(self) -> str:
        """SHA-256 (hexadecimal) of domain, medium, wavelengths, labels, flux and continuum; not of the provenance."""
        if self._hash is None:
            digest = hdf5.ContentHash(self.label_space, self.medium, self.wavelength, self.continuum_wavelength)
            for rows in _blocks(len(self)):
                digest.update(self.labels[rows], self.flux[rows], self._continuum(rows))
            self._hash = digest.hexdigest()
        return self._hash

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        return (
            f"Grid({len(self)} spectra, {len(self.label_space)} labels, {len(self.wavelength)} wavelengths "
            f"{self.wavelength[0]:.2f}-{self.wavelength[-1]:.2f} Angstrom in {self.medium})"
        )

    def subset(self, indices) -> "Grid":
        """The grid of these rows (indices or a boolean mask), in their order. Lazy grids stay lazy."""
        indices = np.asarray(indices)
        if indices.dtype == bool:
            if indices.shape != (len(self),):
                raise GridError(f"A mask of rows must have shape ({len(self)},); got {indices.shape}.")
            indices = np.flatnonzero(indices)
        if indices.size and (indices.min() < -len(self) or indices.max() >= len(self)):
            raise GridError(f"Row {indices.max()} was asked for, but the grid has rows 0 to {len(self) - 1}.")
        indices = indices.astype(int)
        other = object.__new__(Grid)
        other.__dict__.update(self.__dict__, _hash=None, failed=[], labels=self.labels[indices])
        if isinstance(self.flux, RowsOnDisk):
            other.flux = self.flux.select(indices)
            other.continuum = self.continuum.select(indices) if isinstance(self.continuum, RowsOnDisk) else None
        else:
            other.flux, other.continuum = self.flux[indices], self._continuum(indices)
        return other

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """`split_rows` of the grid: sorted `(train, test)` row indices."""
        return split_rows(len(self), held_out, seed)


class RowsOnDisk:
    """Chosen rows of a two-dimensional HDF5 dataset, read when indexed."""

    def __init__(self, path, dataset, rows):
        self._path, self._dataset, self._rows = path, dataset, rows
        self.shape, self.dtype, self.ndim = (len(rows), dataset.shape[1]), dataset.dtype, 2

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, key):
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        wanted = self._rows[rows]
        # HDF5 reads rows in increasing order only, each once.
        unique, inverse = np.unique(np.atleast_1d(wanted), return_inverse=True)
        with hdf5.reading(self._path):
            block = self._dataset[unique] if len(unique) else np.empty((0, self.shape[1]), self.dtype)
        block = block if np.array_equal(inverse, np.arange(len(unique))) else block[inverse]
        return block[0][columns] if np.ndim(wanted) == 0 else block[:, columns]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype)

    def select(self, indices):
        return RowsOnDisk(self._path, self._dataset, self._rows[indices])


def describe(grid: Grid) -> str:
    """A summary of a grid for the terminal: size, wavelengths, label ranges, failures, provenance."""
    wave = grid.wavelength
    step = np.diff(wave)
    continuum = "none"
    if grid.continuum_wavelength is not None:
        continuum = f"{len(grid.continuum_wavelength)} points per spectrum, unit: {grid.continuum_unit or 'not stated'}"
    lines = [
        f"{len(grid)} spectra of {len(wave)} pixels, {wave[0]:.2f} to {wave[-1]:.2f} Angstrom in {grid.medium}, "
        f"steps {step.min():.4g} to {step.max():.4g} Angstrom",
        f"continuum: {continuum}",
        f"hash: {grid.hash}",
        "",
        f"{'label':<8} {'unit':<12} {'lowest':>9} {'highest':>9}   domain",
    ]
    low, high = (grid.labels.min(0), grid.labels.max(0)) if len(grid) else np.full((2, len(grid.label_space)), np.nan)
    for name, unit, a, b, lo, hi in zip(
        grid.label_space.names, grid.label_space.units, low, high, grid.label_space.lower, grid.label_space.upper
    ):
        lines.append(f"{name:<8} {unit:<12} {a:>9.6g} {b:>9.6g}   [{lo:g}, {hi:g}]")
    lines.append(f"constraints: {grid.label_space.describe_constraints()}")
    if grid.failed:
        lines += ["", f"{len(grid.failed)} spectra failed and are left out; the reasons:"]
        lines += [f"  {count} x {reason}" for reason, count in count_reasons(reason for _, reason in grid.failed)]
    lines += ["", "provenance:"] + [f"  {key}: {_short(value)}" for key, value in grid.provenance.items()]
    return "\n".join(lines)


def count_reasons(reasons) -> list[tuple[str, int]]:
    """`(reason, how often)`, most frequent first, at most ten."""
    names, counts = np.unique(list(reasons), return_counts=True)
    return [(str(names[i]), int(counts[i])) for i in np.argsort(-counts, kind="stable")[:10]]


def _short(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _as_json(provenance) -> str:
    try:
        return json.dumps(provenance)
    except TypeError as error:
        raise GridError(f"The provenance of a grid must be writable as JSON: {error}.") from error


def _blocks(n, size=256):
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _check_shapes(grid):
    """Raise `GridError` unless the arrays of a new grid fit together."""
    n, n_wave = len(grid.labels), len(grid.wavelength)
    if grid.medium not in MEDIA:
        raise GridError(f"The wavelength medium must be 'air' or 'vacuum'; got {grid.medium!r}.")
    if grid.labels.ndim != 2 or grid.wavelength.ndim != 1:
        raise GridError(
            f"labels must be (n, n_labels), wavelength (n_wave,); got {grid.labels.shape} and {grid.wavelength.shape}."
        )
    if grid.flux.shape != (n, n_wave):
        raise GridError(
            f"flux must have shape ({n}, {n_wave}), for {n} labels and {n_wave} wavelengths; got {grid.flux.shape}."
        )
    check_wavelength("wavelength", grid.wavelength)
    if grid.continuum is not None:
        check_wavelength("continuum_wavelength", grid.continuum_wavelength)
        if grid.continuum.shape != (n, len(grid.continuum_wavelength)):
            raise GridError(
                f"continuum must have shape ({n}, {len(grid.continuum_wavelength)}); got {grid.continuum.shape}. "
                f"Give continuum_wavelength if it is stored on fewer points than the flux."
            )


def _check_values(grid):
    """Raise `GridError` if a value of a new grid is not finite, or labels are outside the domain."""
    for name in ("labels", "flux", "continuum"):
        array = getattr(grid, name)
        if array is not None:
            refuse_rows(~np.isfinite(array).all(axis=1), f"{name} is not finite (NaN or infinite)")
    outside = ~grid.label_space.contains(grid.labels)
    if outside.any():
        first = first_problem(grid.label_space, grid.labels[outside][0])
        refuse_rows(outside, "labels are outside the label space", f" {first}")


def check_wavelength(name, wavelength):
    if wavelength.ndim != 1 or len(wavelength) < 2 or not np.all(np.diff(wavelength) > 0) or wavelength[0] <= 0:
        raise GridError(f"{name} must be a list of at least two positive, strictly increasing values in Angstrom.")


def refuse_rows(bad, what, remark=""):
    """Raise `GridError` that lists the rows where `bad` is true, if any."""
    if (count := np.count_nonzero(bad)) > 0:
        listed = row_list(bad, most=10)
        raise GridError(f"{what} in {count} of {len(bad)} rows: {listed}.{remark} Remove or repair these rows.")
