"""What worker processes are given, and that they end with their parent."""

import os
import sys
import time

import pytest

from emuinfer import processes


def report(k, workers, queue):
    """In a worker: its variables and cores."""
    processes.keep_to_cores(k, workers)
    queue.put((dict(os.environ), processes.cores()))


def in_workers(workers, variables):
    context = processes.spawning()
    queue = context.Queue()
    jobs = [context.Process(target=report, args=(k, workers, queue), daemon=True) for k in range(workers)]
    with processes.environment(variables):
        for job in jobs:
            job.start()
    found = [queue.get(timeout=60) for _ in jobs]
    for job in jobs:
        job.join()
    return found


def test_workers_get_one_thread_the_cache_and_their_own_cores(tmp_path, monkeypatch):
    import jax

    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # what the user has set stays
    for name in ("MKL_NUM_THREADS", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        found = in_workers(2, processes.ONE_THREAD | processes.compilation_cache())
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    for variables, _ in found:
        assert variables["OMP_NUM_THREADS"] == "3" and variables["MKL_NUM_THREADS"] == "1"
        assert variables["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
    assert "MKL_NUM_THREADS" not in os.environ and os.environ["OMP_NUM_THREADS"] == "3"
    known = processes.cores()
    if len(known) >= 2 and sys.platform == "linux":
        assert sorted(found[0][1] + found[1][1]) == known and not set(found[0][1]) & set(found[1][1])
        alone = [processes.ONE_THREAD_OF_XLA in variables.get("XLA_FLAGS", "") for variables, _ in found]
        assert alone == [len(cores) == 1 for _, cores in found]


def test_no_cache_is_passed_on_where_there_is_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    assert processes.compilation_cache() == {}


def wait_for(pipe):
    processes.obey_parent()
    pipe.send(os.getpid())
    time.sleep(600)


def start_and_die(pipe):
    processes.spawning().Process(target=wait_for, args=(pipe,)).start()
    time.sleep(600)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_worker_ends_with_a_parent_that_is_killed():
    context = processes.spawning()
    here, there = context.Pipe()
    parent = context.Process(target=start_and_die, args=(there,))
    parent.start()
    assert here.poll(60)
    worker = here.recv()
    parent.kill()
    parent.join()
    end = time.monotonic() + 30
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}") or " Z " in open(f"/proc/{worker}/stat").read()


def test_watching_counts_what_others_have_done(monkeypatch, capsys):
    finished = iter([0, 1, 3, 4])
    rounds = iter([True, True, False])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    processes.watch(lambda: next(rounds), lambda: next(finished), 4, progress=True)
    assert "4/4" in capsys.readouterr().err
