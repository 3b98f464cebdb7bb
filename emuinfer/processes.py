"""What the worker processes of grids and surveys have in common: how they start, how many threads they use, how they end."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time

# Linear algebra of small matrices is up to 60 times slower where its threads compete for busy cores. The variables must be
# set before the libraries are loaded, hence before the workers start.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ONE_THREAD_OF_XLA = "--xla_cpu_multi_thread_eigen=false"


def spawning():
    """The way to start processes: JAX is not safe to fork."""
    return multiprocessing.get_context("spawn")


@contextlib.contextmanager
def environment(variables):
    """Set environment variables that are not set yet, for the processes started inside the block."""
    added = {key: value for key, value in variables.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def compilation_cache() -> dict[str, str]:
    """Variables by which a new process keeps compiled programs where this one does: it does not inherit JAX's settings."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.config.jax_compilation_cache_dir:
        return {}
    return {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(jax.config.jax_persistent_cache_min_compile_time_secs),
    }


def cores() -> list[int]:
    """The cores that this process may use; where the system does not say, all."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def keep_to_cores(k: int, workers: int) -> None:
    """In the k-th of several workers, before JAX has begun to compute: take every n-th core, if there is one for each."""
    known = cores()
    mine = known[k::workers]
    if len(known) >= workers and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, mine)
    if len(mine) == 1:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD_OF_XLA}"


def obey_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent has ended, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # killed while this worker was starting
        os._exit(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent):
    parent.join()
    os._exit(1)


def watch(running, done, total: int, progress: bool) -> None:
    """Wait while `running()`, with a bar of how many of `total` batches are `done()`, whoever does them."""
    from tqdm import tqdm

    with tqdm(total=total, initial=done(), desc="batches", unit="batch", disable=not progress) as bar:
        while running():
            time.sleep(0.5)
            bar.update(done() - bar.n)
        bar.update(done() - bar.n)
