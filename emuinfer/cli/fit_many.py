"""`emuinfer fit-many`: posteriors of many stars of one instrument."""

import shlex
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..constants import RV_RANGE
from ..errors import EmuinferError
from ..files import use_compilation_cache
from .options import (
    DEFAULT_EMULATOR,
    Broadening,
    ContinuumTerms,
    DegreesOfFreedom,
    EmulatorError,
    EmulatorName,
    FileMedium,
    FitBroadening,
    Fixed,
    LineErrors,
    OverwriteRun,
    Priors,
    Quiet,
    Robust,
    SearchedVelocities,
    Seed,
    StarBatch,
    StarChains,
    StarDraws,
    StarWarmup,
    Workers,
    console,
    model_options,
    telling,
)

SLURM = """#!/bin/bash
#SBATCH --array=0-15
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=4G
#SBATCH --time=04:00:00
# Submit with `sbatch`. Each task takes every 16th batch; tasks that were killed go on when they are submitted again, and the
# one that finishes last writes {output}/results.fits.
export OPENBLAS_NUM_THREADS=1
emuinfer fit-many {file} --output {output} --worker $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT {options}
"""


File = Annotated[
    Path,
    typer.Argument(
        help="HDF5 file with wavelength, flux and uncertainty (or ivar), see below; or a folder of spectra."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")]
Resolution = Annotated[float | None, typer.Option(help="Resolving power, if the file does not say.")]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Scheduler of a Dask cluster whose workers do the fits, such as tcp://host:8786."
    ),
]
Worker = Annotated[str, typer.Option(metavar="K/N", help="This job's number of several that share the output.")]
GaiaTable = Annotated[
    Path | None,
    typer.Option(
        "--gaia",
        metavar="FILE",
        help="Table with the columns of Gaia's archive, for gravity from outside: rows by a column 'name', or one for each star in order.",
    ),
]
SaveDraws = Annotated[bool, typer.Option("--save-draws", help="Write all draws as netCDF too.")]
Slurm = Annotated[bool, typer.Option("--slurm", help="Print a job script for SLURM arrays instead of fitting.")]


def fit_many(
    ctx: typer.Context,
    file: File,
    output: Output,
    emulator: EmulatorName = DEFAULT_EMULATOR,
    resolution: Resolution = None,
    medium: FileMedium = None,
    rv_range: SearchedVelocities = RV_RANGE,
    broadening: FitBroadening = Broadening.vbroad,
    fix: Fixed = None,
    prior: Priors = None,
    continuum_terms: ContinuumTerms = None,
    line_errors: LineErrors = True,
    emulator_error: EmulatorError = True,
    robust: Robust = True,
    degrees_of_freedom: DegreesOfFreedom = 4.0,
    gaia: GaiaTable = None,
    chains: StarChains = 4,
    warmup: StarWarmup = 150,
    draws: StarDraws = 500,
    batch: StarBatch = None,
    workers: Workers = 1,
    dask: Dask = None,
    worker: Worker = "0/1",
    save_draws: SaveDraws = False,
    seed: Seed = 0,
    overwrite: OverwriteRun = False,
    slurm: Slurm = False,
    quiet: Quiet = False,
):
    """Fit many stars that were observed with one instrument.

    FILE is HDF5 with wavelength (n_pix) in ångström, flux and uncertainty (or ivar), each (n_stars, n_pix), and if wanted
    mask and name; attributes medium and resolution. Or it is a folder of spectra with the same wavelengths. The output folder
    receives results.fits, one row per star. A killed run goes on when it is started again.

    \b
    Examples:
      emuinfer fit-many survey.h5 -o survey --workers 2
      emuinfer fit-many survey.h5 -o survey --slurm > job.sh && sbatch job.sh
    """
    if slurm:
        print(
            SLURM.format(file=shlex.quote(str(file)), output=shlex.quote(str(output)), options=_as_typed(ctx)), end=""
        )
        return
    part = _worker(worker)
    options = model_options(
        broadening, fix, prior, continuum_terms, line_errors, emulator_error, robust, degrees_of_freedom
    )
    use_compilation_cache()
    from ..inference import SURVEY
    from ..survey import fit_many

    with telling("Finished batches are kept: run the same command again to go on."):
        table = fit_many(
            emulator,
            file,
            output,
            resolution=resolution,
            medium=medium and medium.value,
            rv_range=rv_range,
            config=SURVEY.with_given(chains=chains, warmup=warmup, draws=draws),
            batch=batch,
            workers=workers,
            worker=part,
            cluster=_client(dask) if dask else None,
            save_draws=save_draws,
            seed=seed,
            overwrite=overwrite,
            progress=not quiet,
            gaia=gaia,
            **options,
        )
    if table is None:
        print(f"This job's share is done; {output / 'results.fits'} will be written when all are.")
        return
    _print(table, output)


def _as_typed(ctx) -> str:
    """The options of this call as a command line has them, but for those that the job script sets itself."""
    words = []
    for option in ctx.command.params:
        value = ctx.params.get(option.name)
        typed = ctx.get_parameter_source(option.name).name != "DEFAULT"
        if not typed or option.name in ("file", "output", "slurm", "worker", "workers"):
            continue
        if isinstance(value, bool):
            words.append((option.opts if value else option.secondary_opts)[0])
            continue
        for one in value if isinstance(value, list) else [value]:
            parts = one if isinstance(one, tuple) else (one,)
            words += [option.opts[-1], *(shlex.quote(str(getattr(p, "value", p))) for p in parts)]
    return " ".join(words)


def _client(address):
    try:
        from distributed import Client
    except ImportError as error:
        raise EmuinferError('--dask needs the package distributed: pip install "emuinfer[dask]".') from error
    try:
        return Client(address, timeout=20)
    except (OSError, ValueError, TypeError) as error:
        raise EmuinferError(f"There is no Dask scheduler at '{address}' ({error}).") from error


def _worker(text) -> tuple[int, int]:
    try:
        k, n = (int(v) for v in text.split("/"))
    except ValueError:
        k, n = 0, 0
    if not 0 <= k < n:
        raise EmuinferError(f"--worker must be K/N with 0 <= K < N, such as 0/16; got '{text}'.")
    return k, n


def _print(table, output):
    from ..survey.summary import FLAGS, SERIOUS

    flag = np.asarray(table["flag"])
    out = console()
    out.print(f"{len(table)} stars; {int(((flag & SERIOUS) == 0).sum())} without a serious flag.")
    for name, bit in FLAGS.items():
        if count := int((flag & bit > 0).sum()):
            out.print(f"  {name:<13}{count}")
    from ..grids.grid import count_reasons

    for reason, count in count_reasons(str(p) for p in table["problem"] if str(p).strip()):
        out.print(f"  {count} x {reason}")
    out.print(f"Written to {output / 'results.fits'}")
