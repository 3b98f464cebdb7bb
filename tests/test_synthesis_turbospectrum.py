"""The Turbospectrum backend: the whole chain with stand-ins for the programs, and, where TURBOSPECTRUM names an installation,
the programs themselves."""

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from emuinfer.cli.main import app
from emuinfer.errors import EmuinferError
from emuinfer.grids import Grid, generate_grid
from emuinfer.labels.space import LabelSpace
from emuinfer.synthesis import LineList, load_line_list, make_backend, turbospectrum
from emuinfer.synthesis import turbospectrum_programs as programs
from emuinfer.synthesis.atmosphere import ModelAtmosphere

WAVELENGTH = np.round(5100 + 0.02 * np.arange(501), 2)
SPACE = LabelSpace(("teff", "logg", "fe_h", "vmic", "mg_fe"), (4000, 3, -1, 0.5, -0.2), (7000, 5, 0.5, 2, 0.6))
COOL = LabelSpace(SPACE.names, SPACE.lower, (6000, 5, 0.5, 2, 0.6))  # where the stand-ins do not fail
SUN = np.array([5777.0, 4.44, 0.0, 1.1, 0.2])

# What stands in for the programs: temperatures decide what happens.
BABSMA = """
import sys, time
text = sys.stdin.read()
layer = open("model").read().splitlines()[1].split()
teff = float(layer[1])
assert open("DATA/IRWIN_atoms_v07.3.dat").read() == "table" and "'XIFIX:' 'T'" in text
print("fake babsma reads the model")
if teff > 6700:
    print("no convergence of Pe"); sys.exit(3)
if teff > 6400:
    print("STOP increase ndp!"); sys.exit(0)
if teff > 6100:
    time.sleep(60)
open("opacity", "w").write(str(teff))
"""
BSYN = """
import math, os, sys, time
ask = dict(line.split(None, 1) for line in sys.stdin.read().replace(" :", ":").splitlines() if line.startswith("'"))
number = lambda key: float(ask[key].strip("'"))
low, high, step = (number(f"'LAMBDA_{x}:'") for x in ("MIN", "MAX", "STEP"))
teff = float(open("opacity").read())
assert open("lines-of-emuinfer").read().count("'x'") > 100 and os.path.realpath("lines-0").endswith("Hlinedata")
with open(os.path.join(os.path.dirname(sys.argv[0]), "calls"), "a") as log:
    log.write(f"{teff}\\n")
time.sleep(float(os.environ.get("PAUSE", "0")))
with open("spectrum", "w") as out:
    for i in range(int((high - low) / step) + 1):
        w = low + i * step
        norm = 1 - 0.5 * math.exp(-0.5 * ((w - 5105) / 0.1) ** 2)
        out.write(f"{w:12.3f} {norm:9.5f} {norm * teff * 1e3:12.5E}\\n")
"""


def isothermal(teff, logg, fe_h, alpha_fe):
    """In place of the C3K atmospheres, whose package may not be installed."""
    layers = np.arange(1.0, 5.0)
    return ModelAtmosphere(0.01 * layers, np.full(4, float(teff)), 10.0**logg * 0.01 * layers, 1e12 * layers)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder like Turbospectrum's with programs that only look like its own."""
    monkeypatch.setattr(turbospectrum, "model_atmosphere", isothermal)
    monkeypatch.delenv(programs.VARIABLE, raising=False)
    return stand_ins(tmp_path / "installed")


def stand_ins(folder):
    (folder / "src" / "exec-gf").mkdir(parents=True)
    (folder / "python" / "turbospectrum" / "data").mkdir(parents=True)
    for name, text in (("babsma_lu", BABSMA), ("bsyn_lu", BSYN)):
        program = folder / "src" / "exec-gf" / name
        program.write_text(f"#!{sys.executable} -IS\n{text}")
        program.chmod(0o755)
    (folder / "python" / "turbospectrum" / "data" / programs.TABLE).write_text("table")
    (folder / "python" / "turbospectrum" / "data" / programs.HYDROGEN).write_text("hydrogen")
    return folder


def calls(folder):
    log = folder / "src" / "exec-gf" / "calls"
    return log.read_text().split() if log.exists() else []


def left_behind(process):
    return [p for p in Path(tempfile.gettempdir()).glob("emuinfer-turbospectrum-*") if f"-{process}-" in p.name]


def backend(folder, **options):
    return make_backend("turbospectrum", **{"path": folder, "labels": SPACE, "wavelength": WAVELENGTH, **options})


# ---- the chain, with stand-ins for the programs


def test_where_the_programs_are(fake, monkeypatch, tmp_path):
    for path, message in (
        (None, "none is named.*--turbospectrum FOLDER.*TURBOSPECTRUM"),
        (tmp_path / "no", "There is no folder"),
    ):
        with pytest.raises(EmuinferError, match=message):
            backend(path)
    monkeypatch.setenv(programs.VARIABLE, str(fake))
    assert programs.find().bsyn == fake / "src" / "exec-gf" / "bsyn_lu"
    assert programs.find(fake / "src" / "exec-gf").data == (fake / "python" / "turbospectrum" / "data").resolve()
    (fake / "python" / "turbospectrum" / "data" / programs.TABLE).rename(tmp_path / programs.TABLE)
    assert programs.find(data=tmp_path).data == tmp_path.resolve()
    with pytest.raises(EmuinferError, match="tables .* are not in"):
        programs.find()
    (fake / "src" / "exec-gf" / "bsyn_lu").chmod(0o644)
    with pytest.raises(EmuinferError, match="no program bsyn_lu"):
        programs.find()


def test_spectra_and_their_continuum(fake):
    code = backend(fake)
    flux, continuum = code(np.stack([SUN, SUN * [0.9, 1, 1, 1, 1]]))
    assert flux.shape == continuum.shape == (2, 501) and flux.dtype == np.float32
    np.testing.assert_allclose(flux, [1 - 0.5 * np.exp(-0.5 * ((WAVELENGTH - 5105) / 0.1) ** 2)] * 2, atol=1e-5)
    np.testing.assert_allclose(continuum, np.array([[5777e-3], [5199.3e-3]]) * np.ones(501), rtol=1e-4)
    assert code.medium == "air" and code.provenance["program"].keys() == {"babsma_lu", "bsyn_lu"}
    copy = pickle.loads(pickle.dumps(code))
    assert copy.provenance == code.provenance
    np.testing.assert_array_equal(copy(SUN)[0], flux[:1])


def test_provenance_tells_line_lists_apart(fake, tmp_path):
    lines = load_line_list()
    calibrated = LineList(**{**vars(lines), "log_gf": lines.log_gf + 0.1})
    extra = tmp_path / "extra"
    extra.write_text("lines")
    first, second, third = (
        backend(fake, **x).provenance for x in ({}, {"line_list": calibrated}, {"line_files": [str(extra)]})
    )
    assert first["line_list_hash"] != second["line_list_hash"] and [name for name, _ in first["line_files"]] == [
        "Hlinedata"
    ]
    assert [name for name, _ in third["line_files"]] == ["extra", "Hlinedata"]


def test_options_that_cannot_be(fake, tmp_path):
    for options, message in (
        ({"medium": "vacuum"}, "in vacuum"),
        ({"wavelength": np.geomspace(5100, 5200, 5001)}, "not evenly spaced"),
        ({"line_files": [tmp_path / "none"]}, "no line list .*none"),
        ({"line_list": False, "hydrogen": False}, "There are no lines"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"line_list": False, "wavelength": np.round(4000 + 0.001 * np.arange(950_000), 3)}, "more than Turbospectrum"),
    ):
        with pytest.raises(EmuinferError, match=message):
            backend(fake, **options)


@pytest.mark.parametrize(
    ("teff", "message"),
    [
        (6800, r"babsma_lu failed \(exit status 3\); its last words: .*no convergence of Pe"),
        (6500, "babsma_lu wrote nothing; its last words: .*STOP increase ndp!"),
        (6200, "babsma_lu took longer than 0.5 s"),
    ],
)
def test_failures_are_told_and_leave_nothing(fake, teff, message):
    code = backend(fake, timeout=0.5)
    with pytest.raises(EmuinferError, match=message):
        code(SUN * 0 + [teff, 4, 0, 1, 0])
    assert not (code._folder / "spectrum").exists()
    folder = code._folder
    del code
    assert not folder.exists() and not [p for p in left_behind(os.getpid()) if p == folder]


def test_a_program_that_cannot_start_is_named(fake):
    (fake / "src" / "exec-gf" / "babsma_lu").write_text("#!/no/such/interpreter\n")
    with pytest.raises(EmuinferError, match="babsma_lu failed .*babsma_lu"):
        backend(fake)(SUN)


def test_grid_records_failures_and_computes_nothing_twice(fake, tmp_path):
    options = dict(path=str(fake), labels=SPACE, wavelength=WAVELENGTH, timeout=0.5)
    report = generate_grid(tmp_path / "g.h5", ("turbospectrum", options), 12, workers=0, batch=6, progress=False)
    grid = Grid.load(tmp_path / "g.h5")
    hot = sum(labels[0] > 6100 for labels, _ in grid.failed)
    assert report["failed"] == hot == 12 - len(grid.labels) > 0
    assert len(calls(fake)) == len(set(calls(fake))) == len(grid.labels)
    assert all("babsma_lu" in reason for _, reason in grid.failed)
    assert grid.provenance["backend"]["backend"] == "turbospectrum" and grid.medium == "air"


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_synthesis_turbospectrum import COOL, WAVELENGTH, isothermal, turbospectrum
from emuinfer.grids import generate_grid
turbospectrum.model_atmosphere = isothermal
options = dict(path={path!r}, labels=COOL, wavelength=WAVELENGTH)
generate_grid({output!r}, ("turbospectrum", options), 7, workers=0, batch=1, progress=False)
"""


def test_killed_and_resumed(fake, tmp_path):
    """Killed while a program runs: what is finished is not computed again, and the folder left behind is removed."""
    output = tmp_path / "g.h5"
    script = SCRIPT.format(tests=str(Path(__file__).parent), path=str(fake), output=str(output))
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PAUSE": "0.2"})
    parts = tmp_path / "g.h5.parts"
    while process.poll() is None and len(list(parts.glob("rows_*.npz"))) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(parts.glob("rows_*.npz")))
    assert 3 <= finished < 7 and left_behind(process.pid)
    options = dict(path=str(fake), labels=COOL, wavelength=WAVELENGTH)
    arguments = dict(workers=0, batch=1, progress=False)
    report = generate_grid(output, ("turbospectrum", options), 7, **arguments)
    assert report["n"] == 7 and report["computed"] <= 7 - finished and not left_behind(process.pid)
    generate_grid(tmp_path / "whole.h5", ("turbospectrum", options), 7, **arguments)
    resumed, whole = Grid.load(output), Grid.load(tmp_path / "whole.h5")
    np.testing.assert_array_equal(resumed.flux, whole.flux)
    np.testing.assert_array_equal(resumed.labels, whole.labels)


def test_command_line(fake, tmp_path):
    from typer.testing import CliRunner

    arguments = f"grid make --backend turbospectrum --n 2 --workers 0 -o {tmp_path / 'g.h5'}".split()
    result = CliRunner().invoke(app, [*arguments, "--turbospectrum", str(fake), "--option", "timeout=0.5"])
    assert result.exit_code == 0, result.output
    assert Grid.load(tmp_path / "g.h5").flux.shape[1] == 10_001
    result = CliRunner().invoke(
        app, ["grid", "make", "--n", "2", "-o", str(tmp_path / "h.h5"), "--turbospectrum", str(fake)]
    )
    assert result.exit_code != 0


# ---- the programs themselves


@pytest.mark.slow
@pytest.mark.comparison
@pytest.mark.skipif(not os.environ.get(programs.VARIABLE), reason="TURBOSPECTRUM names no installation")
def test_spectra_of_others_are_reproduced(shared_data):
    """Spectra made with Turbospectrum by others, from the same atoms and atmospheres: to 3e-4 where levels are missing."""
    if importlib.util.find_spec("atmosnet") is None:
        pytest.skip("atmosnet is not installed")
    with np.load(shared_data / "grids" / "turbospectrum_5100_5300.npz") as grid:
        at = slice(4000, 4751)  # 5180 to 5195 Å
        labels, wavelength = grid["labels"][:4], grid["wavelength"][at]
        expected, continuum = grid["flux"][:4, at], grid["continuum"][:4, 8]
    code = make_backend("turbospectrum", wavelength=wavelength, solar_composition="mixed", hydrogen=False)
    flux, found = code(labels)
    assert np.abs(flux - expected).mean(axis=1).max() < 1e-3 and np.abs(flux - expected).mean() < 3e-4
    np.testing.assert_allclose(found[:, 0] * 1e6, continuum, rtol=2e-3)
    iron = labels[:1].copy()
    iron[0, code.labels.index("fe_h")] += 0.2
    assert code(iron)[0].mean() < flux[0].mean() - 1e-3
