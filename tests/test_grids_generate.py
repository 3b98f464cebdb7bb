"""Generation of grids: the result, failures, and what a kill at any moment leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emuinfer.errors import GridError
from emuinfer.grids import Grid, generate, generate_grid
from emuinfer.labels import sobol_design
from emuinfer.labels.space import LabelSpace


class Lines:
    """A backend of two analytic Gaussian lines. It logs the labels of every spectrum it is asked for, if LOG is set."""

    labels = LabelSpace(("teff", "fe_h"), (4000, -3), (7000, 0.5), constraints=(({"teff": 1e-3, "fe_h": 1.0}, 7.0),))
    wavelength = np.linspace(5100, 5110, 1001)
    medium = "air"

    def __init__(self, width=0.1, pause=0.0):
        self.provenance = {"code": "two lines", "width": width, "continuum_unit": "erg / (s cm2 Angstrom)"}
        self.width, self.pause = width, pause

    def __call__(self, labels):
        if "LOG" in os.environ:
            with open(os.environ["LOG"], "a") as log:
                log.writelines(f"{os.getpid()} {row[0]!r}\n" for row in labels.tolist())
        time.sleep(self.pause * len(labels))
        depth = 1 - np.exp(-(10 ** labels[:, 1:]))
        shape = sum(np.exp(-0.5 * ((self.wavelength - centre) / self.width) ** 2) for centre in (5103, 5107))
        continuum = (labels[:, :1] / 5000) ** 4 * (5100 / self.wavelength)
        return (1 - depth * shape).astype("f4"), continuum.astype("f4")


class Fragile(Lines):
    """Fails in three ways, each in its own range of temperature."""

    def __call__(self, labels):
        flux, continuum = super().__call__(labels)
        if np.any(labels[:, 0] < 4300):
            raise RuntimeError("no convergence")
        flux[labels[:, 0] > 6700, 10] = np.nan
        flux[(labels[:, 0] > 5000) & (labels[:, 0] < 5300)] += 2
        return flux, continuum


def slow():
    return Lines(pause=0.01)


def quick():
    return Lines()


def dying():
    backend = Lines()
    backend.__class__ = Dying
    return backend


class Dying(Lines):
    def __call__(self, labels):
        if labels[0, 0] == sobol_design(self.labels, 9)[8, 0] and not os.environ.get("SURVIVE"):
            os._exit(3)
        return super().__call__(labels)


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Reads the log of the backends as `(process, teff)` pairs."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("LOG", str(path))

    def read():
        return [(int(pid), float(teff)) for pid, teff in map(str.split, path.read_text().splitlines())]

    return read


def run(path, backend=None, n=20, **options):
    return generate_grid(path, backend or Lines(), n, progress=False, **options)


# ---- the result


def test_spectra_belong_to_their_labels(tmp_path):
    report = run(tmp_path / "g.h5", n=21, seed=5)
    assert (report["n"], report["done"], report["failed"], report["computed"]) == (21, 21, 0, 21)
    grid = Grid.load(tmp_path / "g.h5")
    assert np.array_equal(grid.labels, sobol_design(Lines.labels, 21, seed=5))
    flux, continuum = Lines()(grid.labels)
    assert np.array_equal(grid.flux, flux)
    assert np.array_equal(grid.continuum, continuum[:, ::500])
    assert np.array_equal(grid.continuum_wavelength, Lines.wavelength[::500])
    assert grid.continuum_unit == "erg / (s cm2 Angstrom)" and grid.label_space == Lines.labels and grid.medium == "air"
    assert grid.provenance["backend"]["code"] == "two lines" and grid.provenance["design"]["seed"] == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.h5"]


def test_workers_give_the_same_as_one_process(tmp_path, log):
    run(tmp_path / "a.h5", quick, n=30, workers=0)
    assert {pid for pid, _ in log()} == {os.getpid()}
    run(tmp_path / "b.h5", slow, n=30, workers=2)
    workers = {pid for pid, _ in log()[30:]}
    assert 1 <= len(workers) <= 2 and os.getpid() not in workers
    assert Grid.load(tmp_path / "a.h5").hash == Grid.load(tmp_path / "b.h5").hash
    assert "NPROC" not in os.environ  # the workers' settings stay with the workers


def test_growing_computes_only_what_is_new(tmp_path, log):
    run(tmp_path / "a.h5", n=13)
    first = Grid.load(tmp_path / "a.h5")
    assert run(tmp_path / "a.h5", n=50, batch=7)["computed"] == 37
    assert len(log()) == 50
    grown = Grid.load(tmp_path / "a.h5")
    assert grown.subset(np.arange(13)).hash == first.hash
    run(tmp_path / "b.h5", n=50)
    assert grown.hash == Grid.load(tmp_path / "b.h5").hash
    assert run(tmp_path / "a.h5", n=20) == {**run(tmp_path / "a.h5", n=50), "computed": 0}
    assert len(log()) == 100  # neither of the last two computed anything


def test_failures_are_recorded_and_reported(tmp_path):
    report = run(tmp_path / "g.h5", Fragile(), n=100)
    labels = sobol_design(Lines.labels, 100)
    cold, hot = labels[:, 0] < 4300, labels[:, 0] > 6700
    bright = (labels[:, 0] > 5000) & (labels[:, 0] < 5300)
    assert dict(report["reasons"]) == {
        "RuntimeError: no convergence": cold.sum(),
        "flux is not finite": hot.sum(),
        "flux is outside [0, 1.5]": bright.sum(),
    }
    grid = Grid.load(tmp_path / "g.h5")
    assert np.array_equal(grid.labels, labels[~(cold | hot | bright)])
    assert len(grid) == report["done"] and len(grid.failed) == report["failed"] == 100 - len(grid)
    teff, reason = [row[0] for row, _ in grid.failed], [text for _, text in grid.failed]
    assert np.array_equal(np.array(teff) < 4300, np.array(reason) == "RuntimeError: no convergence")
    assert "no convergence" in generate.format_report(report)
    run(tmp_path / "g.h5", Fragile(), n=120)  # growth keeps the record
    assert len(Grid.load(tmp_path / "g.h5").failed) >= report["failed"]


def test_a_backend_that_always_fails_ends_the_run_and_leaves_nothing(tmp_path):
    class Hopeless(Lines):
        def __call__(self, labels):
            raise RuntimeError("line list not found")

    with pytest.raises(GridError, match="first 32 spectra all failed.*32 x RuntimeError: line list not found"):
        run(tmp_path / "g.h5", Hopeless(), n=1000)
    assert list(tmp_path.iterdir()) == []


# ---- settings


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "g.h5"
    run(path)
    for changed in (dict(seed=1), dict(backend=Lines(width=0.2)), dict(continuum_stride=100)):
        with pytest.raises(GridError, match="g.h5 was made with other settings .*(seed|width|continuum_stride)"):
            run(path, n=30, **changed)
    Grid.load(path).save(path)
    with pytest.raises(GridError, match="cannot be extended"):
        run(path, n=30)


def test_chunks_of_other_settings_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "_merge", lambda *a: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "g.h5")
    with pytest.raises(GridError, match="has not finished"):
        Grid.load(tmp_path / "g.h5")
    with pytest.raises(GridError, match="g.h5.parts was made with other settings .*seed: 0 there, 1 asked for"):
        run(tmp_path / "g.h5", seed=1)


def test_wrong_calls(tmp_path):
    with pytest.raises(GridError, match="at least 1"):
        run(tmp_path / "g.h5", n=0)
    with pytest.raises(GridError, match="top of a module"):
        run(tmp_path / "g.h5", lambda: Lines(), workers=1)
    with pytest.raises(GridError, match=r"\(name, options\)"):
        run(tmp_path / "g.h5", 3, workers=0)


# ---- kills


def start(path, n, workers=2):
    """The same generation in a process of its own."""
    code = f"import test_grids_generate as t; t.run({str(path)!r}, t.slow, {n}, workers={workers}, batch=4)"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)


def wait_for(condition, process=None, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.005)


def saved_rows(path):
    ranges = [re.findall(r"\d+", p.name) for p in Path(f"{path}.parts").glob("rows_*.npz")]
    return {row for start, stop in ranges for row in range(int(start), int(stop))}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_kill_and_resume(tmp_path, log):
    path, n = tmp_path / "g.h5", 120
    rows = {teff: i for i, teff in enumerate(sobol_design(Lines.labels, n)[:, 0].tolist())}
    saved = set()
    for chunks in (3, 8):  # killed twice
        process = start(path, n)
        wait_for(lambda: len(saved_rows(path)) >= 4 * chunks, process)
        with pytest.raises(GridError, match="Another process is generating"):
            run(path, slow, n=n)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if Path("/proc").is_dir():
            wait_for(lambda: not any(alive(pid) for pid, _ in log()), seconds=10)  # the workers end with their parent
        assert saved < saved_rows(path)
        saved = saved_rows(path)
    before = len(log())
    assert len({rows[teff] for _, teff in log()} - saved) <= 2 * 2 * 2 * 4  # lost: at most what was being computed

    report = run(path, slow, n=n, workers=2, batch=4)
    again = [rows[teff] for _, teff in log()[before:]]
    assert sorted(again) == sorted(set(range(n)) - saved)  # nothing lost, nothing repeated
    assert report["computed"] == len(again) and report["done"] == n
    run(tmp_path / "whole.h5", n=n)
    assert Grid.load(path).hash == Grid.load(tmp_path / "whole.h5").hash
    assert not Path(f"{path}.parts").exists()


def test_damaged_chunks_are_computed_again(tmp_path, log, monkeypatch):
    path, n = tmp_path / "g.h5", 40
    monkeypatch.setattr(generate, "_merge", lambda *a: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        run(path, n=n)
    monkeypatch.undo()
    folder = Path(f"{path}.parts")
    chunks = sorted(folder.glob("rows_*.npz"))
    chunks[0].write_bytes(chunks[0].read_bytes()[:-100])
    chunks[2].write_bytes(b"")
    flipped = bytearray(chunks[3].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    chunks[3].write_bytes(flipped)
    (folder / ".elsewhere-123.tmp.rows_00000000_00000008.npz").write_bytes(b"half")
    assert run(path, n=n)["computed"] == 24
    run(tmp_path / "whole.h5", n=n)
    assert Grid.load(path).hash == Grid.load(tmp_path / "whole.h5").hash


@pytest.mark.parametrize("moment", ["before the file has its name", "after it, before the chunks are deleted"])
def test_end_of_the_run_interrupted(tmp_path, monkeypatch, moment):
    path = tmp_path / "g.h5"
    run(path, n=10)

    def interrupt(*args):
        raise KeyboardInterrupt

    if moment.startswith("before"):
        monkeypatch.setattr(os, "replace", lambda a, b: interrupt() if b == path else os.rename(a, b))
    else:
        monkeypatch.setattr(generate.Parts, "clear", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(path, n=30)
    monkeypatch.undo()
    assert len(Grid.load(path)) == (10 if moment.startswith("before") else 30)  # the file is whole at any time
    assert run(path, n=30)["computed"] == 0
    assert len(Grid.load(path)) == 30 and sorted(p.name for p in tmp_path.iterdir()) == ["g.h5"]


def test_a_dying_worker_is_reported_and_its_chunk_computed_later(tmp_path, monkeypatch):
    with pytest.raises(GridError, match="worker process died.*chunks are kept"):
        run(tmp_path / "g.h5", dying, n=24, workers=1, batch=4)
    monkeypatch.setenv("SURVIVE", "1")
    assert 0 < run(tmp_path / "g.h5", dying, n=24, workers=0, batch=4)["computed"] < 24
    run(tmp_path / "whole.h5", n=24)
    assert Grid.load(tmp_path / "g.h5").hash == Grid.load(tmp_path / "whole.h5").hash


def test_command_line(tmp_path, monkeypatch, capsys):
    import emuinfer.synthesis

    monkeypatch.setattr(emuinfer.synthesis, "make_backend", lambda name, **options: Lines(**options), raising=False)
    arguments = ["--n", "9", "--workers", "0", "--output", str(tmp_path / "g.h5")]
    assert generate.main(arguments + ["--option", "width=0.2"]) == 0
    assert "9 spectra (9 computed now), 0 failed" in capsys.readouterr().out
    assert Grid.load(tmp_path / "g.h5").provenance["backend"]["width"] == 0.2
    assert generate.main(arguments) == 1
    assert "other settings" in capsys.readouterr().err
