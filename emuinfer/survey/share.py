"""A worker's share of a survey: what it must know, its batches, and the table of all of them."""

import dataclasses
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from .. import __version__
from ..emulators import emulator_hash, list_emulators, load_emulator
from ..entry import public
from ..errors import SamplingError
from ..inference import SamplingConfig
from ..likelihoods.gaia import NOTHING
from ..likelihoods.gaia_tables import GaiaStars
from ..likelihoods.priors import described_prior
from ..observations.stack import SpectrumStack
from .catalogue import catalogue_of, write_catalogue
from .files import GO_ON, PLAN, TABLE, Folder
from .model import Survey
from .summary import FLAGS


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run does; `options` are those of `StellarModel`, `gaia` what is known of each star beside."""

    config: SamplingConfig
    batch: int
    seed: int
    rv_range: tuple[float, float]
    save_draws: bool
    options: dict
    gaia: GaiaStars | None = None  # of all stars


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a worker finds the emulator (name or path), the stack of spectra and the folder of results."""

    emulator: str
    spectra: str
    output: str
    resolution: object = None
    medium: str | None = None

    @classmethod
    def of(cls, emulator, spectra, output, resolution, medium) -> "Place":
        """With the paths so that processes elsewhere find them; the name of a shipped emulator stays a name."""
        named = str(emulator) if str(emulator) in list_emulators() else str(Path(emulator).resolve())
        return cls(named, str(Path(spectra).resolve()), str(Path(output).resolve()), resolution, medium)


def plan(emulator, stack, run: Run) -> dict:
    """What is written to the folder, so that no other run goes on with it."""
    options = {k: v for k, v in run.options.items() if v is not None}
    if priors := options.get("priors"):
        named = {n: p if isinstance(p, int | float) else described_prior(p) for n, p in priors.items()}
        options = {**options, "priors": named}
    shown = {k: repr(v) if not isinstance(v, int | float | str | bool) else v for k, v in sorted(options.items())}
    return {
        "emulator": emulator_hash(emulator),
        "data": stack.fingerprint,
        "stars": len(stack),
        "batch": run.batch,
        "seed": int(run.seed),
        "rv_range": list(run.rv_range),
        "config": dataclasses.asdict(run.config),
        "options": shown,
        **({} if run.gaia is None else {"gaia": hashlib.sha256(repr(run.gaia.stars).encode()).hexdigest()[:16]}),
        "versions": {"emuinfer": __version__},
    }


def known_batch(output) -> int | None:
    """Stars per batch of the run that `output` holds, so that it can go on with another number of workers."""
    try:
        return int(json.loads((Path(output) / PLAN).read_text())["batch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def default_batch(config: SamplingConfig, stars: int, workers: int = 1) -> int:
    """Stars per call: at most 64 on a CPU and 1024 elsewhere, no more than the memory holds, and some for each worker."""
    floats = config.chains * (config.draws + config.warmup) * 40 + 200_000
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 8
    most = 64 if jax.default_backend() == "cpu" else 1024
    return int(max(1, min(most, -(-stars // max(workers, 1)), memory / (4 * floats))))


@public
def do_share(place: Place, run: Run, worker: tuple[int, int]) -> None:
    """The batches of worker `(k, n)`, in a process of its own."""
    emulator = load_emulator(place.emulator)
    stack = SpectrumStack(place.spectra, medium=place.medium, resolution=place.resolution)
    folder = Folder(place.output, plan(emulator, stack, run))
    do_batches(emulator, stack, folder, run, worker, progress=False)


def do_batches(emulator, stack, folder, run: Run, worker, progress: bool) -> None:
    """Every n-th batch that is not done, for worker `(k, n)`."""
    from tqdm import tqdm

    numbers = range(-(-len(stack) // run.batch))
    mine = [i for i in numbers if i % worker[1] == worker[0] and not folder.done(i)]
    if not mine:
        return
    survey = Survey(
        emulator,
        stack.wavelength,
        stack.resolution,
        stack.medium,
        seed=run.seed,
        rv_range=run.rv_range,
        config=run.config,
        progress=progress,
        **run.options,
        **({} if run.gaia is None else {"gaia": NOTHING}),
    )
    with tqdm(total=len(mine) * run.batch, desc="stars", unit="star", disable=not progress, file=sys.stderr) as bar:
        for number in mine:
            rows = slice(number * run.batch, min((number + 1) * run.batch, len(stack)))
            clock = time.perf_counter()
            names, stars = zip(*stack.observations(rows))
            results = survey.fit(list(stars), number, run.batch, run.gaia and run.gaia.stars[rows])
            if run.gaia is not None:
                fitted = results["flag"] & FLAGS["bad_data"] == 0
                results["flag"][fitted & run.gaia.missing[rows]] |= FLAGS["no_parallax"]
                results["flag"][fitted & run.gaia.doubtful[rows]] |= FLAGS["ruwe"]
            results["row"], results["name"] = np.arange(rows.start, rows.stop), np.array(names)
            results["parameters"] = np.array(survey.density.names)
            results["units"] = np.array([survey.model.units[n] for n in survey.density.names])
            results["seconds"] = np.full(len(names), (time.perf_counter() - clock) / len(names))
            if run.save_draws:
                folder.save_draws(number, _draws(survey, results))
            folder.save(number, results)
            bar.update(run.batch)


def _draws(survey, results):
    from ..posteriors import build_posterior

    draws = results.get("draws")
    fitted = np.flatnonzero(results["flag"] & FLAGS["bad_data"] == 0)
    names = survey.density.names
    shape = (survey.config.chains, survey.config.draws, len(results["row"]))
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


def finish(folder: Folder, numbers, medium=None, frame=None):
    """The table of all batches, written to the folder. `medium`, `frame`: of the spectra, for the table's header."""
    parts = [folder.load(i) for i in numbers]
    names, units = parts[0]["parameters"].tolist(), parts[0]["units"].tolist()
    whole = {k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k not in ("parameters", "units")}
    meta = {
        "PARAMS": ",".join(names),
        "MEDIUM": medium,
        "FRAME": frame,
        "SEED": folder.plan["seed"],
        "EMULATOR": folder.plan["emulator"],
        "VERSION": __version__,
    }
    table = catalogue_of(whole, names, dict(zip(names, units)), meta)
    write_catalogue(table, folder.path / TABLE, SamplingError, remedy=GO_ON)
    return table
