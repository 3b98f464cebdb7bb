"""The command line of grids and training: `emuinfer grid` and `emuinfer train`."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from emuinfer import Grid, LabelSpace, load_emulator


class Lines:
    """A backend of one line whose depth and width follow the two labels."""

    labels = LabelSpace(("teff", "fe_h"), (4000, -1), (6000, 0))
    wavelength = 5000.0 + 0.05 * np.arange(120)
    medium = "air"
    provenance = {"backend": "analytic"}

    def __call__(self, labels):
        s = self.labels.scale(np.asarray(labels))[:, :, None]
        x = (self.wavelength - 5003.0) / (0.5 + 0.2 * s[:, 0])
        flux = 1 - (0.5 + 0.3 * s[:, 1]) / (1 + x**2)
        return flux.astype(np.float32), np.ones_like(flux, dtype=np.float32)


SIZES = ("--width", 8, "--depth", 1, "--heads", 2, "--tokens", 2, "--label-hidden", 8, "--frequencies", 4, "--rank", 4)
SCHEDULE = (
    "--steps",
    400,
    "--warmup",
    5,
    "--checkpoint-every",
    5,
    "--validate-every",
    200,
    "--spectra",
    4,
    "--pixels",
    16,
)


@pytest.fixture(scope="module")
def grid_file(tmp_path_factory):
    backend = Lines()
    labels = np.random.default_rng(0).uniform(backend.labels.lower, backend.labels.upper, (30, 2))
    path = tmp_path_factory.mktemp("grid") / "lines.h5"
    Grid(labels, backend.wavelength, backend(labels)[0], label_space=backend.labels, medium="air").save(path)
    return path


def test_grid_make_info_and_import(cli, tmp_path, monkeypatch):
    import emuinfer.synthesis

    monkeypatch.setattr(emuinfer.synthesis, "make_backend", lambda name, **options: Lines(), raising=False)
    made = tmp_path / "made.h5"
    status, out, _ = cli("grid", "make", "--n", 10, "--workers", 0, "--output", made)
    assert status == 0 and "10 spectra (10 computed now), 0 failed" in out
    status, out, _ = cli("grid", "make", "--n", 12, "--workers", 0, "--output", made)
    assert status == 0 and "12 spectra (2 computed now)" in out
    status, out, _ = cli("grid", "info", made, "--check")
    assert status == 0 and "12 spectra of 120 pixels" in out and "match the content hash" in out

    grid = Grid.load(made)
    arrays = dict(
        wavelength=grid.wavelength, flux=grid.flux, labels=grid.labels, label_names=list(grid.label_space.names)
    )
    np.savez(tmp_path / "other.npz", **arrays)
    call = (
        "grid",
        "import",
        tmp_path / "other.npz",
        "--medium",
        "vacuum",
        "--source",
        "a code",
        "-o",
        tmp_path / "other.h5",
    )
    assert cli(*call)[0] == 0
    imported = Grid.load(tmp_path / "other.h5")
    assert imported.medium == "vacuum" and imported.provenance["source"] == "a code"
    np.testing.assert_array_equal(imported.flux, grid.flux)
    status, _, err = cli(*call)
    assert status == 1 and "exists" in err
    assert cli(*call, "--overwrite")[0] == 0


def test_train_without_a_grid_says_which_command_makes_one(cli, tmp_path):
    for name, command in (("nowhere.h5", "emuinfer grid make"), ("spectra.npz", "emuinfer grid import")):
        if name.endswith("npz"):
            np.savez(tmp_path / name, flux=np.ones(3))
        status, _, err = cli("train", tmp_path / name, "--output", tmp_path / "new")
        assert status == 1 and name in err and f"`{command}`" in err
        assert "emuinfer.grids" not in err


def train(*arguments):
    """`emuinfer train` as a process of its own."""
    # A shell's background jobs ignore interrupts, and so do their children unless told otherwise.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from emuinfer.cli.main import main; main()"
    command = [sys.executable, "-c", start, "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def trained(cli, grid_file, tmp_path_factory):
    """The emulator of a run without interruption."""
    path = tmp_path_factory.mktemp("trained") / "whole"
    status, out, err = cli("train", grid_file, *SIZES, *SCHEDULE, "--title", "One line", "--output", path)
    assert status == 0, err
    assert "| all | native |" in out
    return path


def test_train_writes_emulator_and_card(trained, grid_file, cli):
    emulator, grid = load_emulator(trained), Grid.load(grid_file)
    card = json.loads(trained.with_suffix(".json").read_text())
    assert card["title"] == "One line" and card["grid"]["hash"] == grid.hash and card["recipe"]["steps"] == 400
    _, test = grid.split(0.1, 0)
    residual = np.asarray(emulator(grid.labels[test], grid.wavelength)) - grid.flux[test]
    assert card["validation"]["native"]["all"]["mae"] == pytest.approx(np.abs(residual).mean(), rel=1e-4)
    assert np.abs(residual).mean() < 0.5 * np.abs(1 - grid.flux[test]).mean()  # it has learnt something
    status, _, err = cli("train", grid_file, "--output", trained)
    assert status == 1 and "whole.json exists" in err


def test_a_new_emulator_starts_from_components(trained, grid_file):
    grid = Grid.load(grid_file)
    (start,) = (trained.parent / "whole.run").glob("start-*.json")
    first = load_emulator(start)
    assert first.config.table_nodes == len(grid.wavelength)
    rows, test = grid.split(0.1)
    assert len(test) == 3
    error = np.abs(np.asarray(first(grid.labels[test], grid.wavelength)) - grid.flux[test]).mean()
    spread = np.abs(grid.flux[rows].mean(0) - grid.flux[test]).mean()
    assert error < 0.3 * spread  # before any training, from 4 components of 27 spectra


def test_early_stopping_and_few_spectra_on_the_command_line(grid_file, cli, tmp_path):
    Grid.load(grid_file).subset(np.arange(12)).save(tmp_path / "few.h5")
    sizes = [*SIZES[:-2], "--rank", 128]  # more than 12 spectra can give
    call = ("train", tmp_path / "few.h5", *sizes, "--steps", 4000, "--spectra", 4, "--pixels", 16, "--decay", 0.01)
    status, _, err = cli(
        *call, "--learning-rate", 0.05, "--validate-every", 20, "--patience", 2, "-q", "-o", tmp_path / "few"
    )
    assert status == 0, err
    assert load_emulator(tmp_path / "few").config.rank == 10  # 11 spectra to train on, less one
    seen = [json.loads(line) for line in (tmp_path / "few.run" / "metrics.jsonl").read_text().splitlines()]
    assert seen[-1]["step"] < 4000 and np.argmin([line["mae"] for line in seen]) == len(seen) - 3


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_a_stopped_training_run_goes_on_as_if_nothing_had_been(kind, trained, grid_file, cli, tmp_path):
    path = tmp_path / "stopped"
    process = train(grid_file, *SIZES, *SCHEDULE, "--output", path)
    wait_for(tmp_path / "stopped.run" / "checkpoint.eqx", process)
    os.kill(process.pid, kind)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if kind == signal.SIGKILL else 130)
    assert "Traceback" not in err and not path.with_suffix(".json").exists()
    assert kind == signal.SIGKILL or "Start the same command again" in err
    status, _, err = cli("train", grid_file, *SIZES, *SCHEDULE, "--output", path)
    assert status == 0, err
    metrics = [json.loads(line) for line in (tmp_path / "stopped.run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["from"] >= 5  # it did go on from a checkpoint
    assert path.with_suffix(".safetensors").read_bytes() == trained.with_suffix(".safetensors").read_bytes()


def test_fine_tuning_starts_from_an_emulator(trained, grid_file, cli, tmp_path):
    call = (
        "train",
        grid_file,
        "--init",
        trained,
        "--steps",
        1,
        "--learning-rate",
        1e-9,
        "--output",
        tmp_path / "tuned",
        "-q",
    )
    status, _, err = cli(*call)
    assert status == 0 and err == ""
    labels, wavelength = {"teff": 5000.0, "fe_h": -0.5}, Lines.wavelength
    same = load_emulator(tmp_path / "tuned")(labels, wavelength), load_emulator(trained)(labels, wavelength)
    np.testing.assert_allclose(*same, atol=1e-5)
    assert json.loads((tmp_path / "tuned.json").read_text())["recipe"]["init"]["name"] == str(trained)
