"""`fit_many`: posteriors of thousands to millions of stars observed with one instrument."""

import os
import sys
from pathlib import Path

from ..constants import RV_RANGE
from ..deprecation import renamed_arguments
from ..emulators import ReducedEmulator, load_emulator, reduce_emulator
from ..entry import public
from ..errors import SamplingError
from ..files import use_compilation_cache
from ..inference import SURVEY, SamplingConfig
from ..likelihoods.gaia_tables import GaiaStars, gaia_of_stars
from ..observations.stack import SpectrumStack, as_stack
from . import share
from .files import Folder
from .workers import run_on_cluster, run_processes


@public
@renamed_arguments(settings="config")
def fit_many(
    emulator,
    spectra,
    output,
    *,
    resolution=None,
    medium=None,
    config: SamplingConfig = SURVEY,
    batch: int | None = None,
    seed: int = 0,
    rv_range=RV_RANGE,
    worker: tuple[int, int] = (0, 1),
    workers: int = 1,
    cluster=None,
    save_draws: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    priors=None,
    broadening="vbroad",
    continuum_terms=None,
    line_errors="shipped",
    emulator_error="shipped",
    robust=True,
    degrees_of_freedom=4.0,
    gaia=None,
):
    """Posteriors of all stars of a stack of spectra, written to a folder; returns its table.

    A killed run goes on when it is started again with the same arguments: finished batches are kept, and random keys depend
    on batch and seed only. A star with bad data is flagged and harms no other.

    **Arguments:**

    - `emulator`: an `Emulator`, or the name or path of one.
    - `spectra`: path of an HDF5 stack (`SpectrumStack`); or a folder, a list of files (`Observation.read`) or a list of
      `Observation`s, all with the same wavelengths. A file that cannot be read, and a spectrum with other wavelengths than
      most, gets a row with the flag `bad_data` and the reason in `problem`.
    - `output`: folder of the results (`survey/files.py`).
    - `resolution`, `medium`: where the file does not say.
    - `config`: numbers of draws, chains and so on (`SamplingConfig`).
    - `batch`: stars per compiled call; by default what the memory allows, at most 64 on a CPU, and some for each worker.
    - `rv_range`: km/s, searched for each star's velocity.
    - `workers`: processes on this machine, one per core is best. `worker`: `(k, n)` for the k-th of n jobs on many
      machines that share `output`; whichever finishes last writes the table. `cluster`: a `dask.distributed.Client`
      instead, whose workers do the batches (`pip install "emuinfer[dask]"`).
    - `save_draws`: write all draws as netCDF, one file per batch.
    - `priors` and all after it: as for `StellarModel`; `priors` may not name `rv`.
    - `gaia`: an astropy table, or the path of one, with the columns of Gaia's archive (`read_gaia`): rows with the stars' names in a
      column `name`, or, without it, one for each star in order. A star without a usable row is fitted without, and flagged `no_parallax`.

    **Returns:** an `astropy.table.Table` with one row per star in the order of the input (`survey.FLAGS` for its column
    `flag`), or None where other workers are not done. **Raises:** `ObservationError` on spectra that cannot be read at all,
    `SamplingError` where `output` holds another run or a worker failed.
    """
    use_compilation_cache()
    options = {"priors": priors, "broadening": broadening, "continuum_terms": continuum_terms, "robust": robust}
    options |= {"line_errors": line_errors, "emulator_error": emulator_error, "degrees_of_freedom": degrees_of_freedom}
    output = Path(output)
    spectra, stack = _stacked(spectra, output, medium, resolution, progress)
    named = emulator if isinstance(emulator, str | os.PathLike) else None
    emulator = load_emulator(emulator) if named is not None else emulator
    parts = _count(workers, worker, cluster)
    batch = int(batch or share.known_batch(output) or share.default_batch(config, len(stack), parts))
    run = share.Run(config, batch, seed, tuple(rv_range), save_draws, options, _known(gaia, stack, progress))
    folder = Folder(output, share.plan(emulator, stack, run), overwrite)
    numbers = range(-(-len(stack) // batch))
    if (workers > 1 or cluster is not None) and not all(folder.done(i) for i in numbers):
        if named is None:
            raise SamplingError("With several workers, give the emulator by name or path, so that each can load it.")
        place = share.Place.of(named, spectra, output, resolution, medium)
        _hand_out(emulator, place, run, folder, numbers, workers, cluster, progress)
    share.do_batches(emulator, stack, folder, run, worker, progress)
    if not all(folder.done(i) for i in numbers):
        return None
    return share.finish(folder, numbers, stack.medium, stack.frame)


def _stacked(spectra, output, medium, resolution, progress):
    """The path of the stack and the stack, with a note on what is not in it."""
    path = as_stack(spectra, output, medium=medium, resolution=resolution)
    stack = SpectrumStack(path, medium=medium, resolution=resolution)
    if progress and stack.errors:
        print(stack.note(), file=sys.stderr, flush=True)
    return path, stack


def _known(gaia, stack, progress) -> GaiaStars | None:
    """What Gaia knows of the stars, with a note on those of which it knows nothing."""
    known = None if gaia is None else gaia_of_stars(gaia, stack.names())
    if progress and known is not None and (lacking := [p for p in known.problems if p]):
        text = f"{len(lacking)} of {len(stack)} stars have no usable Gaia data: {lacking[0]}"
        print(text, file=sys.stderr, flush=True)
    return known


def _hand_out(emulator, place, run, folder, numbers, workers, cluster, progress):
    """Let the workers do the batches `numbers`, and wait for them."""
    done = lambda: sum(folder.done(i) for i in numbers)
    if cluster is not None:
        run_on_cluster(cluster, place, run, done, len(numbers), progress)
        return
    if not isinstance(emulator, ReducedEmulator):
        reduce_emulator(emulator, progress=progress)  # once and for all of them
    run_processes(workers, place, run, done, len(numbers), progress)


def _count(workers, worker, cluster) -> int:
    """Into how many parts the batches are divided."""
    if cluster is not None:
        return max(1, len(cluster.scheduler_info(n_workers=-1)["workers"]))
    return workers if workers > 1 else worker[1]
