"""The finished chunks of a grid that is being generated: small files in `<output>.parts/`, safe against a kill."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np

from ..errors import GridError
from ..files import differences, lock, read_arrays, write_arrays, write_json
from . import hdf5

GO_ON = "Free some space or allow writing there, and start the same command again: what was computed is kept."


class Parts:
    """Folder `<path>.parts/` with a manifest and one `rows_START_STOP.npz` per finished chunk.

    Used as a context manager, which holds a lock on the folder: a second process on the same output is refused.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.folder = self.path.with_name(self.path.name + ".parts")

    def __enter__(self):
        busy = GridError(f"Another process is generating {self.path} now. Wait for it, or choose another output.")
        self._lock = lock(self.folder / "run", busy=busy, error=GridError)
        self._lock.__enter__()
        return self

    def __exit__(self, *exc):
        self._lock.__exit__(None, None, None)
        if self.folder.is_dir() and {p.name for p in self.folder.iterdir()} <= {"run.lock"}:
            self.clear()

    def begin(self, settings: dict) -> int:
        """Compare `settings` with those of the finished file and of the chunks. Returns the rows in the finished file.

        Raises `GridError` that names what differs.
        """
        for leftover in self.folder.glob(".*.tmp.*"):  # of a killed run: this one holds the lock
            leftover.unlink()
        rows = 0
        if self.path.exists():
            with hdf5.open_grid(self.path) as file:
                if "generation" not in file.attrs:
                    raise GridError(
                        f"{self.path} exists and cannot be extended, as it was imported or saved, not generated. "
                        f"Choose another output."
                    )
                _compare(self.path, json.loads(file.attrs["generation"]), settings)
                rows = len(file["status"])
        manifest = self.folder / "manifest.json"
        if manifest.exists():
            with hdf5.reading(manifest):
                found = json.loads(manifest.read_text())
            _compare(self.folder, found, settings)
        else:
            write_json(manifest, settings, GridError, remedy=GO_ON)
        return rows

    def scan(self, old: int, design) -> list[tuple[int, int]]:
        """Row ranges `(start, stop)` of the usable chunks, sorted. Damaged and already merged ones are deleted.

        `design(n)` gives the labels that the rows must have.
        """
        found: list[tuple[int, int]] = []
        for file in sorted(self.folder.glob("rows_*.npz")):
            start, stop = map(int, file.stem.split("_")[1:])
            labels = self._labels(start, stop)
            if labels is None or start < old or (found and start < found[-1][1]):
                file.unlink()
                continue
            if not np.array_equal(labels, design(stop)[start:]):
                raise GridError(
                    f"{file} holds other labels than the design asks for. Delete {self.folder} to start afresh."
                )
            found.append((start, stop))
        return found

    def _labels(self, start, stop):
        """Labels of a chunk; None if an array cannot be read (numpy checks the checksums) or has a wrong length."""
        try:
            arrays = self.read(start, stop)
        except (GridError, KeyError):
            return None
        return arrays["labels"] if all(len(a) == stop - start for a in arrays.values()) else None

    def save(self, start, **arrays):
        """Write one chunk atomically: `labels`, `flux`, `continuum`, `status`, `reason`, rows on the first axis."""
        target = self._file(start, start + len(arrays["labels"]))
        write_arrays(target, arrays, GridError, compressed=False, remedy=GO_ON)

    def read(self, start, stop) -> dict:
        data = read_arrays(
            self._file(start, stop), GridError, "Delete it and run again: only its spectra are made anew."
        )
        return {name: data[name] for name in ("labels", "flux", "continuum", "status", "reason")}

    def _file(self, start, stop):
        return self.folder / f"rows_{start:08d}_{stop:08d}.npz"

    def clear(self):
        """Delete the folder. Called once everything is in the finished file."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def _compare(where, found, wanted):
    different = differences(found, wanted)
    if different:
        changes = "; ".join(f"{d.name}: {d.there} there, {d.now} asked for" for d in different)
        raise GridError(
            f"{where} was made with other settings ({changes}). Use the same settings to go on, choose another output, "
            f"or delete it to start afresh."
        )
