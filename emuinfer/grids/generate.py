"""Generate a grid in parallel, so that a killed run loses nothing and repeats nothing.

Finished chunks of spectra are kept in `<output>.parts/` as small files, each written under a temporary name and
renamed; the HDF5 file is put together at the end, in one atomic step. A run that was killed finds its chunks when it is
started again; a finished file is extended by asking for more spectra.

    python -m emuinfer.grids.generate --backend lte --n 4000 --seed 0 --workers 2 --output runs/lte.h5
"""

import argparse
import concurrent.futures
import datetime
import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import EmuinferError, GridError
from ..labels.design import sobol_design
from . import hdf5
from . import workers as processes
from .grid import check_wavelength, count_reasons
from .parts import Parts

CONTINUUM_STRIDE = 500
FLUX_RANGE = (0.0, 1.5)  # normalised flux of an LTE photosphere; anything outside is a failed calculation
_GIVE_UP_AFTER = 32


def generate_grid(
    path,
    backend,
    n: int,
    *,
    seed: int = 0,
    workers: int | None = None,
    batch: int = 8,
    progress: bool = True,
    continuum_stride: int = CONTINUUM_STRIDE,
    flux_range: tuple[float, float] = FLUX_RANGE,
) -> dict:
    """Fill the grid file `path` with the first `n` points of the Sobol design of `seed` in the backend's label space.

    **Arguments:**

    - `backend`: the code that computes spectra: `(name, options)` for `emuinfer.synthesis.make_backend`, a function
        without arguments that returns a backend (worker processes import it by name), or a backend itself (then all is
        computed in this process). A backend has `.labels` (`LabelSpace`), `.wavelength` (`(n_wave,)`, ångström),
        `.medium`, `.provenance` (a dict that JSON can hold; its `"continuum_unit"`, if any, is the continuum's) and
        `backend(labels (b, n_labels)) -> (flux (b, n_wave), continuum (b, n_wave))`.
    - `workers`: processes, each with one thread and its own backend; as many as cores by default, 0 for this process.
    - `batch`: spectra per call of the backend and per saved chunk.
    - `continuum_stride`: the continuum is stored at every `continuum_stride`-th pixel and at the last.
    - `flux_range`: spectra with a normalised flux outside this range count as failed.

    Started again after a kill, it goes on from the chunks that are on disk. With a larger `n` it extends the file.
    Spectra that cannot be used (the backend raised an error, or gave non-finite or out-of-range values) are recorded as
    failed, with the reason.

    Returns `{"path", "n", "done", "failed", "computed", "reasons"}`: the rows in the file by status, how many this call
    computed, and `(reason, count)` pairs.

    Raises `GridError` if the file or its chunks were made with other settings, if no spectrum succeeds, if another
    process is filling the same file, or if a worker process dies.
    """
    path = Path(path)
    if n < 1 or batch < 1 or continuum_stride < 1:
        raise GridError(f"n, batch and continuum_stride must be at least 1; got {n}, {batch} and {continuum_stride}.")
    with Parts(path) as parts, processes.start(backend, workers) as synthesis:
        info = synthesis.info
        check_wavelength("The backend's wavelength", info.wavelength)
        settings = _settings(info, seed, continuum_stride, flux_range)
        old = parts.begin(settings)
        chunks = parts.scan(old, lambda stop: sobol_design(info.labels, stop, seed))
        n = max([n, old] + [stop for _, stop in chunks])
        labels = sobol_design(info.labels, n, seed)
        todo = _missing(old, n, chunks, batch)
        _compute(parts, synthesis, labels, todo, settings, fresh=not (old or chunks), progress=progress)
        if n > old:
            chunks = parts.scan(old, lambda stop: labels[:stop])
            if sum(stop - start for start, stop in chunks) != n - old:
                raise GridError(f"Chunks in {parts.folder} were damaged or removed. Start the same command again.")
            _merge(parts, path, labels, old, chunks, info, settings)
        parts.clear()
    return _report(path, sum(stop - start for start, stop in todo))


def _settings(info, seed, continuum_stride, flux_range):
    """All that decides the numbers in a grid; pinned, so that one file never mixes two settings."""
    settings = dict(
        design="sobol",
        seed=int(seed),
        continuum_stride=int(continuum_stride),
        flux_range=[float(x) for x in flux_range],
        backend=info.provenance,
        label_space=info.labels.to_json(),
        medium=info.medium,
        wavelength=hashlib.sha256(np.ascontiguousarray(info.wavelength, "<f8").data).hexdigest(),
    )
    try:
        return json.loads(json.dumps(settings))
    except TypeError as error:
        raise GridError(f"The provenance of the backend must be writable as JSON: {error}.") from error


def _missing(old, n, chunks, batch):
    """Runs of rows `(start, stop)` that are neither in the file nor in a chunk, cut at multiples of `batch`."""
    have = np.zeros(n, bool)
    for start, stop in [(0, old)] + chunks:
        have[start:stop] = True
    runs = []
    for first in range(0, n, batch):
        rows = np.flatnonzero(~have[first : first + batch]) + first
        pieces = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        runs += [(int(piece[0]), int(piece[-1]) + 1) for piece in pieces if len(piece)]
    return runs


def _compute(parts, synthesis, labels, todo, settings, fresh, progress):
    """Compute the runs of rows in `todo` and save each as it arrives."""
    from tqdm import tqdm

    n_wave = len(synthesis.info.wavelength)
    columns = _continuum_columns(n_wave, settings["continuum_stride"])
    total = sum(stop - start for start, stop in todo)
    waiting, done = iter(todo), 0
    flying: dict = {}
    reasons: list[str] = []
    before = len(labels) - total
    with tqdm(total=len(labels), initial=before, unit=" spectra", disable=not progress, smoothing=0.05) as bar:
        while True:
            while len(flying) < synthesis.in_flight and (run := next(waiting, None)):
                flying[synthesis.submit(labels[slice(*run)])] = run
            if not flying:
                return
            ready, _ = concurrent.futures.wait(flying, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ready:
                start, stop = flying.pop(future)
                flux, continuum, errors = future.result()
                reason = _judge(flux, continuum, errors, (stop - start, n_wave), settings["flux_range"])
                failed = reason != ""
                flux[failed] = continuum[failed] = np.nan
                status = np.where(failed, hdf5.FAILED, hdf5.DONE).astype("u1")
                arrays = dict(flux=flux, continuum=continuum[:, columns], status=status, reason=reason)
                parts.save(start, labels=labels[start:stop], **arrays)
                done, reasons = done + int(np.sum(~failed)), reasons + list(reason[failed])
                if fresh and not done and len(reasons) >= min(total, _GIVE_UP_AFTER):
                    parts.clear()
                    listed = "; ".join(f"{count} x {text}" for text, count in count_reasons(reasons))
                    raise GridError(f"The first {len(reasons)} spectra all failed, so the run was ended: {listed}.")
                bar.set_postfix(failed=len(reasons), refresh=False)
                bar.update(stop - start)


def _continuum_columns(n_wave, stride):
    columns = np.arange(0, n_wave, stride)
    return columns if columns[-1] == n_wave - 1 else np.append(columns, n_wave - 1)


def _judge(flux, continuum, errors, shape, flux_range):
    """Why each spectrum cannot be used, as an array of strings; empty where it can."""
    for name, array in (("flux", flux), ("continuum", continuum)):
        if array.shape != shape:
            raise GridError(f"The backend returned {name} of shape {array.shape}; {shape} was expected.")
    low, high = flux_range
    reasons = list(errors)
    for i, text in enumerate(reasons):
        if text:
            continue
        if not np.isfinite(flux[i]).all():
            reasons[i] = "flux is not finite"
        elif not np.isfinite(continuum[i]).all() or not (continuum[i] > 0).all():
            reasons[i] = "continuum is not finite and positive"
        elif flux[i].min() < low or flux[i].max() > high:
            reasons[i] = f"flux is outside [{low:g}, {high:g}]"
    return np.array(reasons, dtype=str)


def _merge(parts, path, labels, old, chunks, info, settings):
    """Put the finished file and all chunks into a new file, which then takes the old one's place."""
    provenance = _provenance(info, settings, len(labels))
    attributes = {"provenance": json.dumps(provenance), "generation": json.dumps(settings)}
    frame = dict(
        label_space=info.labels,
        medium=info.medium,
        wavelength=info.wavelength,
        continuum_wavelength=info.wavelength[_continuum_columns(len(info.wavelength), settings["continuum_stride"])],
        continuum_unit=str(info.provenance.get("continuum_unit", "")),
    )
    # Unfinished in the folder of the chunks, so that a kill leaves no stray file beside the output.
    with hdf5.writing_grid(path, len(labels), folder=parts.folder, attributes=attributes, **frame) as writer:
        if old:
            with hdf5.open_grid(path) as file, hdf5.reading(path):
                if not np.array_equal(file["labels"][:], labels[:old]):
                    raise GridError(f"{path} holds other labels than the design asks for. Choose another output.")
                for start in range(0, old, 256):
                    rows = slice(start, min(start + 256, old))
                    arrays = [file[name][rows] for name in ("labels", "flux", "continuum", "status")]
                    writer.write(*arrays, file["reason"].asstr()[rows])
        for start, stop in chunks:
            arrays = parts.read(start, stop)
            writer.write(*[arrays[name] for name in ("labels", "flux", "continuum", "status", "reason")])


def _provenance(info, settings, n):
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "jax", "h5py")}
    return {
        "backend": info.provenance,
        "design": {"kind": "scrambled Sobol", "seed": settings["seed"], "n": n},
        "flux_range": settings["flux_range"],
        "versions": {"emuinfer": __version__, **versions},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _report(path, computed):
    with hdf5.open_grid(path) as file:
        status = file["status"][:]
        reasons = file["reason"].asstr()[:][status == hdf5.FAILED]
    return {
        "path": str(path),
        "n": len(status),
        "done": int(np.sum(status == hdf5.DONE)),
        "failed": len(reasons),
        "computed": computed,
        "reasons": count_reasons(reasons),
    }


def format_report(report: dict) -> str:
    """The result of `generate_grid` in words, failures included."""
    text = f"{report['path']}: {report['done']} spectra ({report['computed']} computed now), {report['failed']} failed"
    return "\n".join([text] + [f"  {count} x {reason}" for reason, count in report["reasons"]])


def main(arguments=None) -> int:
    """The command line of this module. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m emuinfer.grids.generate", description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="grid file to write, extend or resume (.h5)")
    parser.add_argument("--backend", default="lte", help="name of a synthesis backend")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the backend, as JSON or text"
    )
    parser.add_argument("--n", type=int, required=True, help="number of spectra")
    parser.add_argument("--seed", type=int, default=0, help="seed of the Sobol design")
    parser.add_argument("--workers", type=int, help="worker processes; 0 computes in this process (for a GPU)")
    parser.add_argument("--batch", type=int, default=8, help="spectra per call and per saved chunk")
    args = parser.parse_args(arguments)
    try:
        options = dict(backend_option(text) for text in args.option)
        report = generate_grid(
            args.output, (args.backend, options), args.n, seed=args.seed, workers=args.workers, batch=args.batch
        )
    except EmuinferError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(format_report(report))
    return 0


def backend_option(text: str) -> tuple[str, object]:
    """`NAME=VALUE` of the command line as a name and a value, which is read as JSON where it is JSON."""
    name, separator, value = text.partition("=")
    if not separator:
        raise GridError(f"--option takes NAME=VALUE; got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    raise SystemExit(main())
