"""Kill -9 at random moments: `python -m tests.benchmarks.kills --kills 50 --seed 0` from the repository's root.

`fit`, `fit-many`, the generation of a grid, `train` and the reduction of an emulator are each started, killed at a random moment
of their running time, and started again, until they have been killed so many times. After each kill, every file with a final
name must be whole; each run that comes to its end must give what an uninterrupted run gives, to the last bit, and leave
nothing hidden behind. Then each runs with a disk that is full from some size on (the largest file that a process may write),
and into a folder that cannot be written to: an error in words, and no file with a final name that is not whole.

The emulator and the grids are small analytic ones, as in the tests: what is tried is what is on the disk when. Saves
results/kills.json.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from .kill_jobs import Job, jobs

RESULTS = Path(__file__).parent / "results"
WITHOUT_RIGHTS = (
    ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override") if os.getuid() == 0 else ()
)  # else an administrator writes everywhere


def kill_often(job, kills, rng, log):
    """Kill it `kills` times; returns what was found."""
    job.run()  # compiles, so that the next takes its usual time
    job.wipe()
    clock = time.perf_counter()
    status, error = job.run()
    if status:
        raise SystemExit(f"{job.name} fails by itself: {error[-500:]}")
    duration, whole = time.perf_counter() - clock, job.content(job.output)
    job.wipe()
    done = different = failed = 0
    damaged, left = [], set()
    for _ in range(20 * kills):
        if done == kills:
            break
        process = job.start()
        try:
            error = process.communicate(timeout=rng.uniform(0, 1.02 * duration))[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            done += 1
            try:
                job.check(job.output)
            except Exception as problem:
                damaged.append(f"after kill {done}: {type(problem).__name__}: {str(problem)[:200]}")
                job.wipe()
            continue
        failed += process.returncode != 0
        different += process.returncode == 0 and job.content(job.output) != whole
        left |= set(job.left())
        job.wipe()
    status, error = job.run()
    failed += status != 0
    different += status == 0 and job.content(job.output) != whole
    left |= set(job.left())
    job.wipe()
    found = {"kills": done, "seconds_of_a_run": round(duration, 1), "damaged": damaged, "failed_to_go_on": failed}
    found |= {"other_results": different, "left_behind": sorted(left)}
    print(job.name, found, file=log, flush=True)
    return found


def _in_words(error):
    """Whether it ends in an error of ours; the two that are Python and no command show where it came from, too."""
    return "Traceback" not in error or "emuinfer.errors." in error.strip().splitlines()[-1]


def small_disk(job, log, sizes=(200, 3_000, 30_000)):
    """Runs in which no file may be longer than so many bytes; each must end in words, or succeed."""

    def limited(size):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        return limit

    found = {}
    for size in sizes:
        status, error = job.run(preexec_fn=limited(size))
        words = [line for line in error.strip().splitlines() if line][-1:] or [""]
        try:
            job.check(job.output)
            whole = True
        except Exception as problem:
            whole, words = False, [*words, f"{type(problem).__name__}: {problem}"]
        found[str(size)] = {
            "status": status,
            "in_words": _in_words(error),
            "whole": whole,
            "said": words[0][-300:],
        }
        job.wipe()
    print(job.name, "small disk", found, file=log, flush=True)
    return found


def read_only(job, log):
    """A run into a folder that forbids writing, without the rights of an administrator."""
    job.run()
    result = job.content(job.output)
    for path in [p for p in job.output.parent.rglob("*") if not p.is_dir()]:
        path.chmod(0o444)
    folders = [job.output.parent, *(p for p in job.output.parent.rglob("*") if p.is_dir())]
    for path in folders:
        path.chmod(0o555)
    obeying = Job(
        job.name, [*WITHOUT_RIGHTS, *job.command], job.output, job.check, job.content, job.environment.items()
    )
    status, error = obeying.run()
    said = [line for line in error.strip().splitlines() if line][-1:] or [""]
    same = job.content(job.output) == result
    for path in folders:
        path.chmod(0o755)
    job.wipe()
    status_empty, error_empty = _into_empty(obeying)
    found = {"status": status, "in_words": _in_words(error), "results_as_before": same, "said": said[0][-300:]}
    found |= {"status_empty": status_empty, "in_words_empty": _in_words(error_empty)}
    print(job.name, "read-only", found, file=log, flush=True)
    return found


def _into_empty(job):
    job.output.parent.chmod(0o555)
    try:
        return job.run()
    finally:
        job.output.parent.chmod(0o755)
        job.wipe()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", nargs="*")
    options.add_argument("--output", type=Path, default=RESULTS / "kills.json")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="emuinfer-kills-") as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(folder) / "programs"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        os.environ.setdefault("EMUINFER_CACHE", str(Path(folder) / "cache"))
        result = {
            "seed": chosen.seed,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {platform.system()}",
        }
        if chosen.output.exists() and chosen.only:
            result = json.loads(chosen.output.read_text())
        for number, job in enumerate(jobs(Path(folder))):
            if chosen.only and job.name not in chosen.only:
                continue
            rng = np.random.default_rng([chosen.seed, number])
            result[job.name] = kill_often(job, chosen.kills, rng, sys.stderr) | {
                "small_disk": small_disk(job, sys.stderr),
                "read_only": read_only(job, sys.stderr),
            }
            chosen.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
