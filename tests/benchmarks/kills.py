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
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
RESULTS = Path(__file__).parent / "results"
WITHOUT_RIGHTS = (
    ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override") if os.getuid() == 0 else ()
)  # else an administrator writes everywhere
STAR = ("--chains", "2", "--warmup", "60", "--draws", "60")


class Job:
    """A command with one output; `check` raises where a final file is not whole, `content` is what must be the same."""

    def __init__(self, name, command, output, check, content, environment=()):
        self.name, self.command, self.output, self.check, self.content = name, command, Path(output), check, content
        self.environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **dict(environment)}

    def start(self, **more):
        return subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **more
        )

    def run(self, **more):
        process = self.start(**more)
        error = process.communicate()[1]
        return process.returncode, error

    def wipe(self):
        for path in self.output.parent.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def left(self):
        """Hidden and temporary files, relative to the folder; files of locks are meant to stay."""
        found = [p for p in self.output.parent.rglob("*") if ".tmp" in p.name or ".partial" in p.name]
        return sorted(str(p.relative_to(self.output.parent)) for p in found)


def command_line(*arguments):
    return [sys.executable, "-m", "emuinfer", *map(str, arguments)]


def jobs(folder) -> list[Job]:
    """The five, each with a folder of its own."""
    import tiny
    from astropy.table import Table
    from test_cli_training import SCHEDULE, SIZES, Lines

    from emuinfer import Grid, save_emulator
    from emuinfer.observations.stack import stack_observations

    data = folder / "data"
    data.mkdir()
    emulator = tiny.reduced_lines(tiny.line_emulator(), n_train=200, components=8, hidden=32, steps=800)
    save_emulator(emulator, data / "tiny", {"title": "Analytic lines"})
    stars = [tiny.observe(emulator, seed=i, grid=emulator.config.wavelength) for i in range(6)]
    one = stars[0]
    table = Table({"wavelength": one.wavelength, "flux": one.flux, "uncertainty": one.uncertainty})
    table.meta = {"MEDIUM": "air", "RESOLUTION": 30000}
    table.write(data / "star.ecsv", format="ascii.ecsv")
    stack_observations(stars, data / "stars.h5")
    lines = Lines()
    labels = np.random.default_rng(0).uniform(lines.labels.lower, lines.labels.upper, (30, 2))
    grid = Grid(labels, lines.wavelength, lines(labels)[0], label_space=lines.labels, medium="air")
    grid.save(data / "lines.h5")
    place = lambda name: (folder / name).mkdir() or folder / name / "out"
    fit, many, made, trained, cache = (place(n) for n in ("fit", "fit-many", "grid", "train", "reduction"))
    tiny_path = data / "tiny"
    code = f"import test_grids_generate as t; t.run({str(made)!r} + '.h5', t.slow, 100, workers=2, batch=4)"
    reduce_ = (
        "import jax, tiny; from emuinfer.emulators import TransformerConfig, TransformerPayne, reduce_emulator; "
        "sizes = TransformerConfig(width=8, depth=1, heads=2, tokens=2, label_hidden=8, frequencies=4, table_nodes=0, rank=0); "
        "full = TransformerPayne(tiny.SPACE, tiny.RANGE, 'air', sizes, key=jax.random.key(0)); "
        "reduce_emulator(full, n_train=200, n_test=16, components=8, hidden=32, steps=400, progress=False)"
    )
    return [
        Job(
            "fit",
            command_line(
                "fit",
                data / "star.ecsv",
                "--emulator",
                tiny_path,
                *STAR,
                "--verify",
                20,
                "-q",
                "-o",
                fit,
                "--overwrite",
            ),
            fit,
            _check_fit,
            _draws_of_fit,
        ),
        Job(
            "fit-many",
            command_line("fit-many", data / "stars.h5", "--emulator", tiny_path, *STAR, "--batch", 2, "-q", "-o", many),
            many,
            _check_many,
            _table_of_many,
        ),
        Job("grid make", [sys.executable, "-c", code], made.with_suffix(".h5"), _check_grid, _hash_of_grid),
        Job(
            "train",
            command_line("train", data / "lines.h5", *SIZES, *SCHEDULE, "-q", "--output", trained),
            trained,
            _check_trained,
            lambda path: path.with_suffix(".safetensors").read_bytes(),
        ),
        Job(
            "reduction",
            [sys.executable, "-c", reduce_],
            cache,
            _check_cache,
            _content_of_cache,
            {"EMUINFER_CACHE": str(cache)}.items(),
        ),
    ]


def _check_fit(folder):
    from astropy.table import Table

    from emuinfer.posteriors import load_posterior

    names = {p.name for p in folder.glob("*") if not p.name.startswith(".")} if folder.exists() else set()
    if names and not {"summary.ecsv", "posterior.nc", "fit.png", "corner.png"} <= names:
        raise AssertionError(f"part of the results: {sorted(names)}")
    if names:
        Table.read(folder / "summary.ecsv", format="ascii.ecsv")
        load_posterior(folder / "posterior.nc")


def _draws_of_fit(folder):
    from emuinfer.posteriors import draws_of, load_posterior

    return draws_of(load_posterior(folder / "posterior.nc"), "teff").tobytes()


def _check_many(folder):
    from astropy.table import Table

    if (folder / "plan.json").exists():
        json.loads((folder / "plan.json").read_text())
    for part in folder.glob("parts/*.npz"):
        with np.load(part, allow_pickle=False) as arrays:
            dict(arrays)
    if (folder / "results.fits").exists():
        Table.read(folder / "results.fits")


def _table_of_many(folder):
    from astropy.table import Table

    table = Table.read(folder / "results.fits")
    return b"".join(np.ascontiguousarray(table[n]).tobytes() for n in ("teff", "fe_h", "mg_fe", "rv", "flag"))


def _check_grid(path):
    from emuinfer import Grid

    for part in Path(f"{path}.parts").glob("rows_*.npz"):
        with np.load(part, allow_pickle=False) as arrays:
            dict(arrays)
    if path.exists():
        Grid.load(path)


def _hash_of_grid(path):
    from emuinfer import Grid

    return Grid.load(path).hash


def _check_trained(path):
    from emuinfer import load_emulator

    if path.with_suffix(".json").exists():
        load_emulator(path)
    for line in (path.with_suffix(".run") / "plan.json",):
        if line.exists():
            json.loads(line.read_text())


def _check_cache(folder):
    for path in folder.rglob("*.safetensors"):
        from safetensors.numpy import load_file

        load_file(path)
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())


def _content_of_cache(folder):
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*.safetensors")) if not p.name.startswith("."))


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
