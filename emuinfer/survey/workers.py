"""The workers of `fit_many`: processes of this machine, or those of a Dask cluster. Each takes every n-th batch."""

import time

from ..errors import SamplingError
from ..processes import ONE_THREAD, compilation_cache, environment, keep_to_cores, obey_parent, spawning, watch
from .share import do_share

KEPT = "What was finished is kept; run again to go on."


def run_processes(workers, place, run, done, total, progress):
    """`workers` processes, each on cores of its own.

    Each does its share of the `Run` at the `Place`; `done()` counts the finished ones of `total` batches.
    Raises `SamplingError` with the first error of one of them.
    """
    context = spawning()
    errors = context.SimpleQueue()
    jobs = [
        context.Process(target=_process, args=(k, workers, place, run, errors), daemon=True) for k in range(workers)
    ]
    with environment(ONE_THREAD | compilation_cache()):
        for job in jobs:
            job.start()
    try:
        watch(lambda: any(job.is_alive() for job in jobs), done, total, progress)
    finally:
        for job in jobs:
            job.terminate()  # those that still run, where the user has interrupted
    if not errors.empty():
        raise SamplingError(f"A worker failed: {errors.get()} {KEPT}")
    if bad := [job.exitcode for job in jobs if job.exitcode]:
        raise SamplingError(f"A worker ended with status {bad[0]} (killed, or out of memory?). {KEPT}")


def run_on_cluster(client, place, run, done, total, progress):
    """The same on the workers of a `dask.distributed.Client`, one job for each; they must see the files of `place`."""
    names = list(client.scheduler_info(n_workers=-1)["workers"])
    if not names:
        raise SamplingError(
            f"The Dask cluster at {client.scheduler.address} has no workers yet: start some, or wait for them."
        )
    jobs = [
        client.submit(
            do_share, place, run, (k, len(names)), workers=[name], pure=False, key=f"fit_many-{k}-{time.time_ns()}"
        )
        for k, name in enumerate(names)
    ]
    try:
        watch(lambda: not all(job.done() for job in jobs), done, total, progress)
    finally:
        client.cancel([job for job in jobs if not job.done()])
    for job in jobs:
        if job.status != "finished":
            raise SamplingError(f"A Dask worker failed: {job.exception()} {KEPT}")


def _process(k, workers, place, run, errors):
    obey_parent()
    keep_to_cores(k, workers)
    try:
        do_share(place, run, (k, workers))
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")
