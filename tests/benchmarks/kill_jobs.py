"""What `tests.benchmarks.kills` kills: five commands, each with a check of its files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
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
