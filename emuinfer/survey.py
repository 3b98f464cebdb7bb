"""`fit_many`: posteriors of thousands to millions of stars observed with one instrument."""

import contextlib
import dataclasses
import hashlib
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from . import __version__
from .emulators import emulator_hash
from .errors import SamplingError
from .survey_batch import Settings
from .survey_files import TABLE, Folder, table_of_parts
from .survey_input import SpectrumStack, stack_observations
from .survey_model import Survey


def fit_many(
    emulator,
    spectra,
    output,
    *,
    resolution=None,
    medium=None,
    settings: Settings | None = None,
    batch: int | None = None,
    seed: int = 0,
    rv_range=(-500.0, 500.0),
    worker: tuple[int, int] = (0, 1),
    workers: int = 1,
    save_draws: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options,
):
    """Posteriors of all stars of a stack of spectra, written to a folder; returns its table.

    A run that was killed goes on when it is started again with the same arguments: finished batches are kept, and the
    random keys depend on the batch and the seed only. A star with bad data is flagged and harms no other.

    **Arguments:**

    - `emulator`: an `Emulator`, or the name or path of one.
    - `spectra`: path of an HDF5 stack (`SpectrumStack`), or a list of `Observation`s with the same wavelengths.
    - `output`: folder of the results (`survey_files`).
    - `resolution`, `medium`: where the file does not say.
    - `settings`: numbers of draws, chains and so on (`Settings`).
    - `batch`: stars per compiled call; by default as many as the memory allows, at most 64 on a CPU.
    - `rv_range`: km/s, searched for each star's velocity.
    - `workers`: processes on this machine, one per core is best. `worker`: `(k, n)` for the k-th of n jobs on many
      machines that share `output`; each takes every n-th batch, and whichever finishes last writes the table.
    - `save_draws`: write all draws as netCDF, one file per batch.
    - `options`: as for `StellarSpectrum`: priors, broadening, continuum_terms, line_errors, emulator_error, robust.

    **Returns:** an `astropy.table.Table` with one row per star in the order of the input, or None where other workers are
    not done. See `survey_statistics.FLAGS` for the column `flag`.
    """
    from .emulators import load_emulator

    settings = settings or Settings()
    output = Path(output)
    if not isinstance(spectra, str | os.PathLike):
        spectra = _stacked(spectra, output)
    stack = SpectrumStack(spectra, medium=medium, resolution=resolution)
    named = emulator if isinstance(emulator, str | os.PathLike) else None
    emulator = load_emulator(emulator) if named is not None else emulator
    batch = int(batch or default_batch(settings, len(stack)))
    plan = _plan(emulator, stack, settings, batch, seed, rv_range, options)
    folder = Folder(output, plan, overwrite)
    numbers = range(-(-len(stack) // batch))
    if workers > 1 and not all(folder.done(i) for i in numbers):
        if named is None:
            raise SamplingError("With several workers, give the emulator by name or path, so that each can load it.")
        common = {
            "resolution": resolution, "medium": medium, "settings": settings, "batch": batch, "seed": seed, "rv_range": rv_range,
            "save_draws": save_draws, **options,
        }
        _run_workers(workers, (str(named), str(spectra), str(output)), common, folder, numbers, len(stack), progress)
    mine = [i for i in numbers if i % worker[1] == worker[0] and not folder.done(i)]
    if mine:
        _run(Survey(emulator, stack.wavelength, stack.resolution, stack.medium, seed=seed, rv_range=rv_range, settings=settings,
                    progress=progress, **options), stack, folder, mine, batch, save_draws, progress)
    if not all(folder.done(i) for i in numbers):
        return None
    return _table(folder, numbers, plan)


def default_batch(settings: Settings, stars: int) -> int:
    """Stars per call: at most 64 on a CPU and 1024 elsewhere, and no more than the memory holds."""
    floats = settings.chains * (settings.draws + settings.warmup) * 40 + 200_000
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 8
    most = 64 if jax.default_backend() == "cpu" else 1024
    return int(max(1, min(most, stars, memory / (4 * floats))))


def _plan(emulator, stack, settings, batch, seed, rv_range, options):
    shown = {k: repr(v) if not isinstance(v, int | float | str | bool | type(None)) else v for k, v in sorted(options.items())}
    return {
        "emulator": emulator_hash(emulator), "data": stack.fingerprint, "stars": len(stack), "batch": batch, "seed": int(seed),
        "rv_range": list(rv_range), "settings": dataclasses.asdict(settings), "options": shown, "versions": {"emuinfer": __version__},
    }


def _stacked(observations, output):
    """The observations as a file in `output`, written once."""
    output.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("".join(o.hash for o in observations).encode()).hexdigest()[:12]
    path = output.with_name(f"{output.name}-input-{digest}.h5")
    return path if path.exists() else stack_observations(observations, path)


def _run_workers(workers, arguments, common, folder, numbers, stars, progress):
    """`workers` processes, each on cores of its own; raises `SamplingError` with the first error of one of them."""
    import multiprocessing

    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    jobs = [context.Process(target=_worker, args=(k, workers, arguments, common, errors), daemon=True) for k in range(workers)]
    # Linear algebra of small matrices is up to 60 times slower where its threads compete for busy cores.
    with _environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"):
        for job in jobs:
            job.start()
    done = lambda: sum(folder.done(i) for i in numbers)
    with tqdm(total=len(numbers), initial=done(), desc=f"batches of {stars} stars", unit="batch", disable=not progress) as bar:
        while any(job.is_alive() for job in jobs):
            time.sleep(0.5)
            bar.update(done() - bar.n)
        bar.update(done() - bar.n)
    if not errors.empty():
        raise SamplingError(f"A worker failed: {errors.get()} What it had finished is kept; run again to go on.")
    if bad := [job.exitcode for job in jobs if job.exitcode]:
        raise SamplingError(f"A worker ended with status {bad[0]} (killed, or out of memory?). Run again to go on.")


@contextlib.contextmanager
def _environment(**values):
    """Variables for processes started meanwhile; those that the user has set stay."""
    added = {k: v for k, v in values.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for k in added:
            del os.environ[k]


def _worker(k, workers, arguments, common, errors):
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) >= workers:
        os.sched_setaffinity(0, cores[k::workers])
    if len(cores[k::workers]) == 1:
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    try:
        fit_many(*arguments, worker=(k, workers), progress=False, **common)
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")


def _run(survey, stack, folder, mine, batch, save_draws, progress):
    from tqdm import tqdm

    with tqdm(total=len(mine) * batch, desc="stars", unit="star", disable=not progress, file=sys.stderr) as bar:
        for number in mine:
            rows = slice(number * batch, min((number + 1) * batch, len(stack)))
            clock = time.perf_counter()
            names, *arrays = stack.read(rows)
            results = survey.fit([_observe(stack, *one) for one in zip(names, *arrays)], number, batch)
            results["row"], results["name"] = np.arange(rows.start, rows.stop), np.array(names)
            results["parameters"] = np.array(survey.density.names)
            results["units"] = np.array([survey.model.units[n] for n in survey.density.names])
            results["seconds"] = np.full(len(names), (time.perf_counter() - clock) / len(names))
            if save_draws:
                folder.save_draws(number, _draws(survey, results))
            folder.save(number, results)
            bar.update(batch)


def _observe(stack, name, flux, uncertainty, mask):
    try:
        return stack.observation(name, flux, uncertainty, mask)
    except Exception as error:  # whatever is wrong with one star must not stop the others
        return error


def _draws(survey, results):
    from .posterior import build_posterior

    draws = results.get("draws")
    fitted = np.flatnonzero(results["flag"] & 1 == 0)
    names = survey.density.names
    shape = (survey.settings.chains, survey.settings.draws, len(results["row"]))
    values = {}
    for i, name in enumerate(names):
        values[name] = np.full(shape, np.nan, np.float32)
        if draws is not None:
            values[name][..., fitted] = np.moveaxis(draws[:, i], 0, -1)
    return build_posterior(
        values, None, observed_data={"row": results["row"]}, coords={"star": results["name"]},
        dims={**{n: ["star"] for n in names}, "row": ["star"]}, attrs={"seed": survey.seed},
    )


def _table(folder, numbers, plan):
    parts = [folder.load(i) for i in numbers]
    names, units = parts[0]["parameters"].tolist(), parts[0]["units"].tolist()
    for part in parts:
        del part["parameters"], part["units"]
    meta = {"PARAMS": ",".join(names), "SEED": plan["seed"], "EMULATOR": plan["emulator"], "VERSION": __version__}
    table = table_of_parts(parts, names, dict(zip(names, units)), meta)
    path = folder.path / TABLE
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        table.write(temporary, format="fits", overwrite=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return table
