"""Spectra of many stars with one set of wavelengths: a stack in an HDF5 file, read a batch at a time."""

import hashlib
import itertools
import os
from pathlib import Path

import numpy as np

from ..errors import ObservationError
from ..files import written_hdf5
from ..wavelengths.medium import check_medium
from . import Observation

REQUIRED = ("wavelength", "flux")
NOISE = ("uncertainty", "ivar")
SAME = 1e-6  # relative difference of wavelengths that count as the same


class SpectrumStack:
    """Spectra of many stars in one HDF5 file.

    The file has `wavelength` `(n_pix,)` in Å, `flux` `(n_stars, n_pix)`, and `uncertainty` (standard deviations) or `ivar`
    (inverse variances), `(n_stars, n_pix)`; optionally `mask` (true: not to be used), `name` `(n_stars,)`, and
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
        except OSError as error:
            raise ObservationError(f"{self.path} is not a readable HDF5 file ({error}).") from error

    def _look(self, file, medium, resolution):
        missing = [n for n in REQUIRED if n not in file]
        self.noise = next((n for n in NOISE if n in file), None)
        if missing or self.noise is None:
            lacks = missing + ([] if self.noise else ["uncertainty (or ivar)"])
            raise ObservationError(f"{self.path} lacks {', '.join(lacks)}; it has {', '.join(file) or 'nothing'}.")
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
            names, *arrays = self.read(slice(row, row + 1))
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
    path, names, frames = Path(path), [], set()
    with written_hdf5(path, ObservationError) as file:
        file["wavelength"] = first.wavelength
        new = lambda name, kind: file.create_dataset(name, (0, len(first)), kind, maxshape=(None, len(first)))
        arrays = {"flux": new("flux", "f4"), "uncertainty": new("uncertainty", "f4"), "mask": new("mask", "?")}
        for i, one in enumerate(itertools.chain([first], observations)):
            _check_same(one, first)
            for name, dataset in arrays.items():
                dataset.resize(i + 1, axis=0)
                dataset[i] = ~one.good if name == "mask" else getattr(one, name)
            names.append(one.name or f"star-{i}")
            frames.add(str(one.meta.get("frame", "")))
        file["name"] = names
        file.attrs["medium"] = first.medium
        if frames != {""}:
            file.attrs["frame"] = " or ".join(sorted(f or "unknown" for f in frames))
        if np.ndim(first.resolution):
            file["resolution"] = first.resolution
        elif first.resolution is not None:
            file.attrs["resolution"] = float(first.resolution)
    return path


def _check_same(other, first):
    same = len(other) == len(first) and np.allclose(other.wavelength, first.wavelength, rtol=SAME, atol=0)
    if not same or other.medium != first.medium or not np.allclose(other.resolution or 0, first.resolution or 0):
        raise ObservationError(
            f"'{other.name}' has other wavelengths, medium or resolving power than '{first.name}'. Stars that are fitted "
            "together must share them: resample them (specutils.manipulation), or fit them one by one."
        )


def as_stack(spectra, output, *, medium=None, resolution=None) -> Path:
    """A file for `SpectrumStack` of what `fit_many` takes: such a file, a folder of spectra, a list of their paths or of
    `Observation`s. What is not stacked yet is, once, beside `output`.
    """
    if isinstance(spectra, str | os.PathLike):
        if not Path(spectra).is_dir():
            return Path(spectra)
        spectra = sorted(p for p in Path(spectra).iterdir() if p.is_file() and not p.name.startswith("."))
    spectra = list(spectra)
    files = [isinstance(s, str | os.PathLike) for s in spectra]
    if any(files) and not all(files):
        raise ObservationError("Give paths or observations, not both.")
    known = lambda p: (
        f"{Path(p).resolve()} {Path(p).stat().st_size} {Path(p).stat().st_mtime_ns}" if Path(p).exists() else str(p)
    )
    marks = [known(s) if file else s.hash for s, file in zip(spectra, files)]
    digest = hashlib.sha256("\n".join([*marks, str(medium), str(resolution)]).encode()).hexdigest()[:12]
    output = Path(output)
    path = output.with_name(f"{output.name}-input-{digest}.h5")
    if not path.exists():
        read = lambda p: Observation.read(p, medium=medium, resolution=resolution)
        stack_observations((read(s) if file else s for s, file in zip(spectra, files)), path)
    return path
