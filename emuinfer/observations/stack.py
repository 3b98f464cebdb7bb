"""Spectra of many stars with one set of wavelengths: a stack in an HDF5 file, read a batch at a time."""

import collections
import contextlib
import hashlib
import itertools
import os
from pathlib import Path

import numpy as np

from ..errors import ObservationError
from ..files import PATIENCE, check_dataset, lock, sweep, written_hdf5
from ..wavelengths.medium import check_medium
from . import Observation

REQUIRED = ("wavelength", "flux")
NOISE = ("uncertainty", "ivar")
SAME = 1e-6  # relative difference of wavelengths that count as the same
LOOKED_AT = 20  # spectra of a folder, the most frequent wavelengths among which are the stack's
ALL_BAD = 5  # reasons that are listed where no spectrum can be used


class SpectrumStack:
    """Spectra of many stars in one HDF5 file.

    The file has `wavelength` `(n_pix,)` in Å, `flux` `(n_stars, n_pix)`, and `uncertainty` (standard deviations) or `ivar`
    (inverse variances), `(n_stars, n_pix)`; optionally `mask` (true: not to be used), `name` `(n_stars,)`, `error` `(n_stars,)`
    (why there is no spectrum in that row, else empty), and
    the attributes `medium`, `frame` (of the velocities) and `resolution` (a resolving power; or a dataset `resolution`
    `(n_pix,)`). Nothing but what `read` is asked for is held in memory.

    **Raises:** `ObservationError` where the file is missing or lacks something, or shapes disagree.
    """

    def __init__(self, path, *, medium=None, resolution=None):
        import h5py

        self.path = Path(path)
        if not self.path.is_file():
            raise ObservationError(f"There is no file {self.path}.")
        try:
            with h5py.File(self.path, "r") as file:
                self._look(file, medium, resolution)
        except ObservationError:
            raise
        except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise ObservationError(f"{self.path} is not a readable HDF5 file of spectra ({error}).") from error

    def _look(self, file, medium, resolution):
        missing = [n for n in REQUIRED if n not in file]
        self.noise = next((n for n in NOISE if n in file), None)
        if missing or self.noise is None:
            lacks = missing + ([] if self.noise else ["uncertainty (or ivar)"])
            raise ObservationError(f"{self.path} lacks {', '.join(lacks)}; it has {', '.join(file) or 'nothing'}.")
        for name in ("wavelength", "flux", self.noise, *(n for n in ("mask", "resolution") if n in file)):
            check_dataset(file[name], self.path, ObservationError, whole=False)
        self.wavelength = np.asarray(file["wavelength"], float)
        self.shape = file["flux"].shape
        for name in ("flux", self.noise, *(["mask"] if "mask" in file else [])):
            if file[name].shape != self.shape or len(self.shape) != 2 or self.shape[1] != len(self.wavelength):
                raise ObservationError(
                    f"{self.path}: {name} has the shape {file[name].shape}; expected (stars, {len(self.wavelength)}) like flux "
                    f"{self.shape} and wavelength."
                )
        if not (np.isfinite(self.wavelength).all() and (np.diff(self.wavelength) > 0).all()):
            raise ObservationError(f"{self.path}: the wavelengths must be finite and increase.")
        self.has_mask, self.has_names = "mask" in file, "name" in file
        self.errors = {}
        if "error" in file:
            told = file["error"].asstr(errors="replace")[:]
            self.errors = {int(row): str(told[row]) for row in np.flatnonzero(told != "")}
        text = lambda found: found.decode() if isinstance(found, bytes) else found
        self.medium = check_medium(medium or text(file.attrs.get("medium")), str(self.path))
        self.frame = text(file.attrs.get("frame"))
        if resolution is None and "resolution" in file:
            resolution = np.asarray(file["resolution"], float)
        resolution = file.attrs.get("resolution") if resolution is None else resolution
        if resolution is None:
            raise ObservationError(
                f"The resolving power of {self.path} is not known. Give resolution=R (wavelength / FWHM)."
            )
        self.resolution = resolution if np.ndim(resolution) else float(resolution)

    def __len__(self):
        return self.shape[0]

    def names(self) -> list[str]:
        """The names of all stars, their numbers where there are none."""
        if not self.has_names:
            return [str(row) for row in range(len(self))]
        import h5py

        with h5py.File(self.path, "r") as file:
            return [n.decode() if isinstance(n, bytes) else str(n) for n in file["name"][:]]

    def read(self, rows: slice):
        """`(names, flux, uncertainty, mask)` of some stars; uncertainty is infinite where the inverse variance is 0."""
        import h5py

        with h5py.File(self.path, "r") as file:
            flux, noise = np.asarray(file["flux"][rows], float), np.asarray(file[self.noise][rows], float)
            mask = np.asarray(file["mask"][rows], bool) if self.has_mask else np.zeros(flux.shape, bool)
            names = file["name"][rows] if self.has_names else np.arange(len(self))[rows]
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in names]
        if self.noise == "ivar":
            with np.errstate(divide="ignore", invalid="ignore"):
                noise = np.where(noise > 0, 1 / np.sqrt(noise), np.where(noise == 0, np.inf, np.nan))
        return names, flux, noise, mask

    def observations(self, rows: slice) -> list[tuple[str, "Observation | Exception"]]:
        """Names of some stars, and each as an `Observation`, or what is wrong with it: a star harms no other."""
        try:
            stars: list = list(zip(*self.read(rows)))
        except Exception as error:
            if rows.stop - rows.start == 1:  # what is damaged on the disk
                return [(str(rows.start), error)]
            return [one for row in range(rows.start, rows.stop) for one in self.observations(slice(row, row + 1))]
        return [(star[0], self._one(row, star)) for row, star in zip(range(rows.start, rows.stop), stars)]

    def _one(self, row, star):
        if row in self.errors:
            return ObservationError(self.errors[row])
        try:
            return self.observation(*star)
        except Exception as error:  # whatever is wrong with one star must not stop the others
            return error

    def note(self, most: int = 3) -> str:
        """A sentence on the rows without a spectrum; empty where there are none."""
        if not self.errors:
            return ""
        first = "; ".join(list(self.errors.values())[:most])
        more = f"; and {len(self.errors) - most} more" if len(self.errors) > most else ""
        return f"{len(self.errors)} of {len(self)} spectra cannot be used and are flagged bad_data: {first}{more}"

    def observation(self, name, flux, uncertainty, mask) -> Observation:
        """One star as an `Observation`, with its checks. Raises `ObservationError` where it cannot be used."""
        return Observation(
            self.wavelength, flux, uncertainty, mask=mask, resolution=self.resolution, medium=self.medium, name=name
        )

    @property
    def fingerprint(self) -> str:
        """Of the file's shape, wavelengths, medium and resolution, and of up to 64 of its spectra evenly through the file."""
        digest = hashlib.sha256(f"{self.shape} {self.noise} {self.medium}".encode())
        digest.update(self.wavelength.tobytes() + np.asarray(self.resolution, float).tobytes())
        for row in np.unique(np.linspace(0, len(self) - 1, 64).astype(int)):
            try:
                names, *arrays = self.read(slice(row, row + 1))
            except OSError:  # damaged there, which is said of that star
                continue
            digest.update(names[0].encode() + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
        return digest.hexdigest()[:16]


def stack_observations(observations, path) -> Path:
    """Write `Observation`s of one instrument, any iterable, to a file for `SpectrumStack`, one by one; returns its path.

    Raises `ObservationError` where wavelengths, medium or resolving power differ, naming the first that does.
    """
    observations = iter(observations)
    first = next(observations, None)
    if first is None:
        raise ObservationError("There is no spectrum to stack.")
    rows = ((one.name, _alike(one, first)) for one in itertools.chain([first], observations))
    return _write(rows, first, path)


def stack_all(spectra, path) -> Path:
    """As `stack_observations` of pairs of a name and an `Observation` or, where there is none, an exception that says why.

    Those, and spectra whose wavelengths, medium or resolving power differ from those of most, get a row without data and with
    the reason. Raises `ObservationError` where nothing can be used.
    """
    spectra = iter(spectra)
    seen, bad = [], 0
    for one in spectra:
        seen.append(one)
        bad += isinstance(one[1], Exception)
        if len(seen) - bad >= LOOKED_AT:
            break
    good = [star for _, star in seen if not isinstance(star, Exception)]
    if not good:
        told = "; ".join(str(error) for _, error in seen[:ALL_BAD]) or "there are none"
        more = f"; and {len(seen) - ALL_BAD} more" if len(seen) > ALL_BAD else ""
        raise ObservationError(f"None of {len(seen)} spectra can be used: {told}{more}")
    frames = [(len(s), round(float(s.wavelength[0]), 3), s.medium, np.asarray(s.resolution).tobytes()) for s in good]
    first = good[frames.index(collections.Counter(frames).most_common(1)[0][0])]

    def rows():
        for name, star in itertools.chain(seen, spectra):
            try:
                yield name, star if isinstance(star, Exception) else _alike(star, first)
            except ObservationError as error:
                yield name, error

    return _write(rows(), first, path)


def _write(rows, first, path):
    """Write pairs of a name and an `Observation` like `first`, or an exception."""
    import h5py

    path, names, errors, frames = Path(path), [], [], set()
    with written_hdf5(path, ObservationError) as file:
        file["wavelength"] = first.wavelength
        new = lambda name, kind: file.create_dataset(name, (0, len(first)), kind, maxshape=(None, len(first)))
        arrays = {"flux": new("flux", "f4"), "uncertainty": new("uncertainty", "f4"), "mask": new("mask", "?")}
        none = {"flux": np.nan, "uncertainty": np.inf, "mask": True}
        for i, (name, one) in enumerate(rows):
            failed = isinstance(one, Exception)
            for key, dataset in arrays.items():
                dataset.resize(i + 1, axis=0)
                dataset[i] = none[key] if failed else ~one.good if key == "mask" else getattr(one, key)
            names.append(_plain(name) or f"star-{i}")
            errors.append(_plain(one) if failed else "")
            frames |= set() if failed else {str(one.meta.get("frame", "unknown"))}
        file["name"] = names
        if any(errors):
            file.create_dataset("error", data=errors, dtype=h5py.string_dtype())
        file.attrs["medium"] = first.medium
        if frames - {"unknown"}:
            file.attrs["frame"] = " or ".join(sorted(frames))
        if np.ndim(first.resolution):
            file["resolution"] = first.resolution
        elif first.resolution is not None:
            file.attrs["resolution"] = float(first.resolution)
    return path


def _plain(text) -> str:
    """One line without what HDF5 does not store; an exception that says nothing is named."""
    said = str(text) or (type(text).__name__ if isinstance(text, Exception) else "")
    return " ".join(said.replace("\0", " ").encode("utf-8", "replace").decode().split())[:1000]


def _alike(other, first):
    """`other`; raises `ObservationError` where its pixels are not those of `first`."""
    same = len(other) == len(first) and np.allclose(other.wavelength, first.wavelength, rtol=SAME, atol=0)
    power, wanted = [np.asarray(0 if s.resolution is None else s.resolution) for s in (other, first)]
    same = same and (power.ndim == 0 or wanted.ndim == 0 or power.shape == wanted.shape)
    if not same or other.medium != first.medium or not np.allclose(power, wanted):
        raise ObservationError(
            f"'{other.name}' has other wavelengths, medium or resolving power than '{first.name}'. Stars that are fitted "
            "together must share them: resample them (specutils.manipulation), or fit them one by one."
        )
    return other


def as_stack(spectra, output, *, medium=None, resolution=None) -> Path:
    """A file for `SpectrumStack` of what `fit_many` takes: such a file, a folder of spectra, a list of their paths or of
    `Observation`s. What is not stacked yet is, once, beside `output`; what cannot be read gets a row that says why.
    """
    if isinstance(spectra, str | os.PathLike):
        if not Path(spectra).is_dir():
            return Path(spectra)
        spectra = _files_of(Path(spectra))
    spectra = list(spectra)
    files = [isinstance(s, str | os.PathLike) for s in spectra]
    if any(files) and not all(files):
        raise ObservationError("Give paths or observations, not both.")
    marks = [_mark(Path(s)) if file else s.hash for s, file in zip(spectra, files)]
    digest = hashlib.sha256("\n".join([*marks, str(medium), str(resolution)]).encode("utf-8", "replace")).hexdigest()[
        :12
    ]
    output = Path(output)
    path = output.with_name(f"{output.name}-input-{digest}.h5")
    if not path.exists():
        read = lambda p: _read(Path(p), medium, resolution)
        waiting = f"Another process is stacking the same spectra: waiting for {path}."
        with lock(path, waiting=waiting, error=ObservationError, patience=PATIENCE):
            if not path.exists():
                sweep(path)
                stack_all((read(s) if file else (s.name, s) for s, file in zip(spectra, files)), path)
        with contextlib.suppress(OSError):
            path.with_name(path.name + ".lock").unlink()
    return path


def _files_of(folder) -> list[Path]:
    """All files of a folder that are not hidden, in alphabetical order; links that lead nowhere among them."""
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and (p.is_file() or p.is_symlink()))
    except OSError as error:
        raise ObservationError(f"The folder {folder} cannot be read ({error}).") from error
    found = [p for p in found if not p.is_dir()]
    if not found:
        raise ObservationError(
            f"There is no file in the folder {folder}. Give a folder of spectra, or an HDF5 file of them."
        )
    return found


def _mark(path) -> str:
    """What tells one state of a file from another."""
    try:
        found = path.stat()
        return f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
    except OSError:
        return str(path)


def _read(path, medium, resolution):
    """The name of a file's star, and its `Observation` or, with the file's name, what is wrong with it."""
    try:
        one = Observation.read(path, medium=medium, resolution=resolution)
    except Exception as error:  # whatever a file of somebody else's may hold
        said = str(error) or type(error).__name__
        return path.stem, error if path.name in said else ObservationError(f"{path}: {said}")
    return one.name or path.stem, one
