"""`fit_many`: posteriors of thousands to millions of stars observed with one instrument."""

import dataclasses
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from .. import __version__
from ..emulators import ReducedEmulator, emulator_hash, list_emulators, load_emulator, reduce_emulator
from ..errors import SamplingError
from ..files import write_table
from ..observations.stack import SpectrumStack, as_stack
from .batch import Settings
from .files import GO_ON, TABLE, Folder, table_of_parts
from .model import Survey
from .workers import run_on_cluster, run_processes


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
    cluster=None,
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
    - `spectra`: path of an HDF5 stack (`SpectrumStack`); or a folder, a list of files (`Observation.read`) or a list of
      `Observation`s, all with the same wavelengths.
    - `output`: folder of the results (`survey_files`).
    - `resolution`, `medium`: where the file does not say.
    - `settings`: numbers of draws, chains and so on (`Settings`).
    - `batch`: stars per compiled call; by default as many as the memory allows, at most 64 on a CPU.
    - `rv_range`: km/s, searched for each star's velocity.
    - `workers`: processes on this machine, one per core is best. `worker`: `(k, n)` for the k-th of n jobs on many
      machines that share `output`; each takes every n-th batch, and whichever finishes last writes the table. `cluster`: a
      `dask.distributed.Client` instead, whose workers do the batches (`pip install "emuinfer[dask]"`).
    - `save_draws`: write all draws as netCDF, one file per batch.
    - `options`: as for `StellarSpectrum`: priors, broadening, continuum_terms, line_errors, emulator_error, robust.

    **Returns:** an `astropy.table.Table` with one row per star in the order of the input, or None where other workers are
    not done. See `survey_statistics.FLAGS` for the column `flag`.
    """
    settings = settings or Settings()
    output = Path(output)
    spectra = as_stack(spectra, output, medium=medium, resolution=resolution)
    stack = SpectrumStack(spectra, medium=medium, resolution=resolution)
    named = emulator if isinstance(emulator, str | os.PathLike) else None
    emulator = load_emulator(emulator) if named is not None else emulator
    batch = int(batch or default_batch(settings, len(stack)))
    plan = _plan(emulator, stack, settings, batch, seed, rv_range, options)
    folder = Folder(output, plan, overwrite)
    numbers = range(-(-len(stack) // batch))
    if (workers > 1 or cluster is not None) and not all(folder.done(i) for i in numbers):
        if named is None:
            raise SamplingError("With several workers, give the emulator by name or path, so that each can load it.")
        common = {
            "resolution": resolution,
            "medium": medium,
            "settings": settings,
            "batch": batch,
            "seed": seed,
            "rv_range": rv_range,
            "save_draws": save_draws,
            **options,
        }
        arguments = (_place(named), *(str(Path(p).resolve()) for p in (spectra, output)))
        done = lambda: sum(folder.done(i) for i in numbers)
        if cluster is not None:
            run_on_cluster(cluster, arguments, common, done, len(numbers), progress)
        else:
            if not isinstance(emulator, ReducedEmulator):
                reduce_emulator(emulator, progress=progress)  # once and for all of them
            run_processes(workers, arguments, common, done, len(numbers), progress)
    mine = [i for i in numbers if i % worker[1] == worker[0] and not folder.done(i)]
    if mine:
        _run(
            Survey(
                emulator,
                stack.wavelength,
                stack.resolution,
                stack.medium,
                seed=seed,
                rv_range=rv_range,
                settings=settings,
                progress=progress,
                **options,
            ),
            stack,
            folder,
            mine,
            batch,
            save_draws,
            progress,
        )
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
    shown = {
        k: repr(v) if not isinstance(v, int | float | str | bool | type(None)) else v
        for k, v in sorted(options.items())
    }
    return {
        "emulator": emulator_hash(emulator),
        "data": stack.fingerprint,
        "stars": len(stack),
        "batch": batch,
        "seed": int(seed),
        "rv_range": list(rv_range),
        "settings": dataclasses.asdict(settings),
        "options": shown,
        "versions": {"emuinfer": __version__},
    }


def _place(named) -> str:
    """The name of a shipped emulator as it is, the path of another so that processes elsewhere find it."""
    return str(named) if str(named) in list_emulators() else str(Path(named).resolve())


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
    from ..posteriors.posterior import build_posterior

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
        values,
        None,
        observed_data={"row": results["row"]},
        coords={"star": results["name"]},
        dims={**{n: ["star"] for n in names}, "row": ["star"]},
        attrs={"seed": survey.seed},
    )


def _table(folder, numbers, plan):
    parts = [folder.load(i) for i in numbers]
    names, units = parts[0]["parameters"].tolist(), parts[0]["units"].tolist()
    for part in parts:
        del part["parameters"], part["units"]
    meta = {"PARAMS": ",".join(names), "SEED": plan["seed"], "EMULATOR": plan["emulator"], "VERSION": __version__}
    table = table_of_parts(parts, names, dict(zip(names, units)), meta)
    write_table(table, folder.path / TABLE, SamplingError, format="fits", remedy=GO_ON)
    return table
