"""The workers of `fit_many`: processes of this machine, or those of a Dask cluster. Each takes every n-th batch."""

import os
import time

import jax

from ..errors import SamplingError
from ..processes import environment, obey_parent
from .share import do_share

KEPT = "What was finished is kept; run again to go on."


def run_processes(workers, place, run, done, total, progress):
    """`workers` processes, each on cores of its own.

    Each does its share of the `Run` at the `Place`; `done()` counts the finished ones of `total` batches.
    Raises `SamplingError` with the first error of one of them.
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    jobs = [
        context.Process(target=_process, args=(k, workers, place, run, errors), daemon=True) for k in range(workers)
    ]
    # Linear algebra of small matrices is up to 60 times slower where its threads compete for busy cores.
    variables = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if cache := jax.config.jax_compilation_cache_dir:  # settings of this process, which new ones do not inherit
        seconds = jax.config.jax_persistent_cache_min_compile_time_secs
        variables |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(seconds),
        }
    with environment(variables):
        for job in jobs:
            job.start()
    try:
        _watch(lambda: any(job.is_alive() for job in jobs), done, total, progress)
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
        _watch(lambda: not all(job.done() for job in jobs), done, total, progress)
    finally:
        client.cancel([job for job in jobs if not job.done()])
    for job in jobs:
        if job.status != "finished":
            raise SamplingError(f"A Dask worker failed: {job.exception()} {KEPT}")


def _watch(running, done, total, progress):
    from tqdm import tqdm

    with tqdm(total=total, initial=done(), desc="batches", unit="batch", disable=not progress) as bar:
        while running():
            time.sleep(0.5)
            bar.update(done() - bar.n)
        bar.update(done() - bar.n)


def _process(k, workers, place, run, errors):
    obey_parent()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) >= workers:
        os.sched_setaffinity(0, cores[k::workers])
    if len(cores[k::workers]) == 1:
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    try:
        do_share(place, run, (k, workers))
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")
