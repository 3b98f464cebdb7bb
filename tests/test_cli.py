"""The command line: what it writes, prints and returns."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

from emuinfer import Grid, LabelSpace, load_emulator
from emuinfer.emulators import list_emulators

WINDOW = "{:g} to {:g} Å (air)".format(*tiny.RANGE)
COLUMNS = ["label", "unit", "mean", "sd", "q16", "median", "q84", "r_hat", "ess_bulk"]
COMMANDS = [
    (),
    ("fit",),
    ("emulators",),
    ("train",),
    ("crb",),
    ("grid",),
    ("grid", "make"),
    ("grid", "import"),
    ("grid", "info"),
]


# Help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_option(cli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    status, out, err = cli(*command, "--help")
    assert status == 0 and err == ""
    listed = out.split("Options:")[1].split("Commands:")[0].splitlines()
    options = [line for line in listed if line.strip().startswith("-")]
    assert options
    for i, line in enumerate(listed):
        if line.strip().startswith("-"):
            text = line.strip().split("  ", 1)[1:] or [listed[i + 1]]
            assert len(text[0].strip()) > 8, line
    if command not in ((), ("grid",)):
        assert "Example" in out and f"    emuinfer {' '.join(command)}" in out


def test_version(cli):
    import emuinfer

    assert cli("--version")[:2] == (0, f"emuinfer {emuinfer.__version__}\n")


@pytest.mark.parametrize(
    "code", [["-c", "import emuinfer"], ["-m", "emuinfer", "fit", "--help"]], ids=["import", "help"]
)
def test_starts_without_heavy_imports(code):
    result = subprocess.run([sys.executable, "-X", "importtime", *code], capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "emuinfer" in imported
    assert not imported & {"jax", "numpyro", "blackjax", "arviz", "matplotlib", "astropy", "specutils", "scipy"}


# Fits


@pytest.fixture(scope="module")
def fitted(cli, tiny_path, star_file, tmp_path_factory):
    """Two spectra in one call, of which one does not exist."""
    folder = tmp_path_factory.mktemp("fits")
    settings = ("--chains", 2, "--warmup", 150, "--draws", 250, "--seed", 3, "--rv-range", -50, 50)
    missing = folder / "missing.fits"
    return folder, cli("fit", missing, star_file, "--emulator", tiny_path, *settings, "--output", folder)


def test_fit_writes_its_results(fitted):
    from astropy.table import Table

    from emuinfer.posteriors import load_posterior

    folder, _ = fitted
    star = folder / "star"
    assert sorted(p.name for p in star.iterdir()) == ["corner.png", "fit.png", "posterior.nc", "summary.ecsv"]
    table = Table.read(star / "summary.ecsv", format="ascii.ecsv")
    assert table.colnames == COLUMNS
    assert list(table["label"]) == ["teff", "fe_h", "mg_fe", "rv", "vbroad", "log10_jitter"]
    assert list(table["unit"])[:5] == ["K", "dex", "dex", "km / s", "km / s"]
    for name, truth in {**tiny.TRUTH, "rv": tiny.RV, "vbroad": tiny.VBROAD}.items():
        row = table[list(table["label"]).index(name)]
        assert abs(row["mean"] - truth) < 4.5 * row["sd"], name
        assert row["q16"] < row["median"] < row["q84"] and row["r_hat"] < 1.1
    posterior = load_posterior(star / "posterior.nc")
    assert posterior["posterior"]["teff"].shape == (2, 250)
    assert float(posterior["posterior"]["teff"].mean()) == pytest.approx(table["mean"][0])
    for picture in ("fit.png", "corner.png"):
        assert (star / picture).read_bytes()[:4] == b"\x89PNG"


def test_summary_says_where_it_comes_from(fitted, tiny_emulator, tiny_observation):
    from astropy.table import Table

    from emuinfer.emulators import emulator_hash
    from emuinfer.posteriors import load_posterior

    folder, _ = fitted
    meta = Table.read(folder / "star" / "summary.ecsv", format="ascii.ecsv").meta
    assert meta["emulator_hash"] == emulator_hash(tiny_emulator) and meta["emulator"].endswith("tiny-lines")
    assert meta["data_hash"] == tiny_observation.hash
    assert meta["seed"] == 3 and meta["verification"] == "ok"
    # The tiny surrogate is so close that all weights are alike; the shape of their tail, k-hat, is then that of rounding errors.
    assert meta["k_hat"] <= 0.7 or load_posterior(folder / "star" / "posterior.nc").attrs["importance_ess"] > 0.99 * 200
    assert isinstance(meta["warnings"], list) and meta["versions"]["jax"]


def test_fit_prints_table_warnings_and_places(fitted):
    folder, (_, out, _) = fitted
    for word in ("teff", "ess_bulk", "log10_jitter", f"Written to {folder / 'star'}", "Pareto k-hat"):
        assert word in out
    assert "Warning: Few independent draws" in out  # 2 chains of 250 do not give 400 of the jitter


def test_a_failing_file_is_reported_and_the_rest_go_on(fitted):
    folder, (status, _, err) = fitted
    assert status == 1
    assert f"Error: missing: There is no file {folder / 'missing.fits'}" in err
    assert "1 of 2 spectra could not be fitted: missing." in err
    assert sorted(p.name for p in folder.iterdir()) == ["star"] and "Traceback" not in err


def test_results_are_replaced_only_on_demand(fitted, cli, star_file, tiny_path, spectrum_file, tmp_path):
    folder, _ = fitted
    before = {p.name: p.read_bytes() for p in (folder / "star").iterdir()}
    status, _, err = cli("fit", star_file, "--emulator", tiny_path, "--output", folder / "star")
    assert status == 1 and "already holds the results" in err and "--overwrite" in err
    # A fit that fails leaves the earlier results as they were.
    spectrum_file(tmp_path / "red.ecsv", np.linspace(8000, 8100, 500), np.ones(500), np.full(500, 0.01))
    status, _, err = cli(
        "fit", tmp_path / "red.ecsv", "--emulator", tiny_path, "--output", folder / "star", "--overwrite"
    )
    assert status == 1 and "do not overlap" in err
    assert {p.name: p.read_bytes() for p in (folder / "star").iterdir()} == before


@pytest.mark.skipif("optical-fgk" not in list_emulators(), reason="the emulator optical-fgk is not installed")
def test_the_example_and_the_default_emulator_exist(cli):
    status, out, _ = cli("emulators")
    assert status == 0 and "optical-fgk" in out and "5100 to 5300 Å (air), 12 labels" in out
    from emuinfer.observations import list_examples

    assert "hd41248" in list_examples()
    assert load_emulator("optical-fgk").labels[:3] == ("teff", "logg", "fe_h")


# Bounds


def test_bounds_agree_with_the_posterior(fitted, cli, tiny_path, tmp_path):
    from astropy.table import Table

    labels = [f"--label={n}={v}" for n, v in tiny.TRUTH.items()]
    # Pixels of 0.07 Å, as the observation has them.
    instrument = (
        "--resolution",
        tiny.RESOLUTION,
        "--sampling",
        np.mean(tiny.RANGE) / tiny.RESOLUTION / 0.07,
        "--snr",
        100,
        "--vbroad",
        tiny.VBROAD,
    )
    status, out, _ = cli("crb", "--emulator", tiny_path, *labels, *instrument, "-o", tmp_path / "crb.ecsv", "-q")
    assert status == 0 and "R = 30000" in out and "marginal" in out
    bounds = Table.read(tmp_path / "crb.ecsv", format="ascii.ecsv")
    assert bounds.colnames == ["label", "unit", "value", "marginal", "conditional"]
    assert (bounds["marginal"] >= bounds["conditional"]).all()
    assert bounds.meta["labels"] == tiny.TRUTH and bounds.meta["snr"] == 100
    summary = Table.read(fitted[0] / "star" / "summary.ecsv", format="ascii.ecsv")
    sd = dict(zip(summary["label"], summary["sd"]))
    for name, bound in zip(bounds["label"], bounds["marginal"]):
        assert sd[name] == pytest.approx(bound, rel=0.4), name
    status, _, err = cli("crb", "--emulator", tiny_path, "-o", tmp_path / "crb.ecsv")
    assert status == 1 and "crb.ecsv exists" in err


# Emulators


def test_emulators_are_listed_and_shown(cli, tiny_path, monkeypatch):
    from emuinfer.emulators import storage

    monkeypatch.setattr(storage, "ZOO", tiny_path.parent)
    status, out, _ = cli("emulators")
    assert status == 0 and out == f"{'tiny-lines':<20} {WINDOW}, 3 labels  Analytic lines\n"
    status, out, _ = cli("emulators", "tiny-lines")
    assert status == 0
    for word in ("Analytic lines", "reduced", "4500", "6500", WINDOW, "mae: 0.00123"):
        assert word in out
    card = json.loads(cli("emulators", tiny_path, "--json")[1])
    assert card["kind"] == "reduced" and card["labels"]["names"] == ["teff", "fe_h", "mg_fe"]


def test_the_card_of_the_default_emulator_is_readable(cli):
    status, out, _ = cli("emulators", "optical-fgk")
    assert status == 0 and len(out.splitlines()) <= 60
    for word in (
        "window        optical-fgk: 5100 to 5300 Å (air)",
        "3,906,962 parameters, 7.9 MB",
        "hash          c58bbeedaefff960",
        "teff     4000     7000            K",
        "all                      118       0.00082  0.00434        0.00061  0.00281",
        "contain 73 and 97 % (native)",
        "x, Gaussian processes, with 3,000 LTE spectra  0.00097  0.00079  0.00066",
        "made by       Teacher: joint Gaussian processes",
        "limits        LTE, plane-parallel, no molecules",
        "emuinfer emulators optical-fgk --json",
    ):
        assert word in out, word
    assert "shortest_period" not in out and "sha256" not in out
    assert json.loads(cli("emulators", "optical-fgk", "--json")[1])["config"]["shortest_period"] == 4e-6


# Grids and training


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
