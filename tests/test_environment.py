"""Where and beside what the package runs: homes that cannot be written to, 64-bit JAX, forks, signals, plain output, full disks."""

import errno
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from emuinfer import EmuinferError, StellarModel, cramer_rao, files, load_emulator, sample
from emuinfer.emulators import TransformerConfig, TransformerPayne
from emuinfer.errors import GridError

ROOT = Path(__file__).parents[1]
NUMBERS = {"sampler": "laplace", "draws": 30, "verify": 0, "predictive": 0, "pointwise": 0, "progress": False}


def program(code, *arguments, remove=(), **variables):
    """A process of its own with other variables, in which nothing is inherited of the tests' cache: `(status, stdout, stderr)`."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    for name in remove:
        known.pop(name, None)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=known, capture_output=True, timeout=240)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


# Homes and caches

LIBRARIES = """
from emuinfer.files import cache_directory
from emuinfer.files.cache import can_write
from emuinfer.plotting.figure import new_figure
from emuinfer.posteriors import import_arviz
import_arviz()
new_figure(1, 1)
import matplotlib
matplotlib.get_cachedir()
assert can_write(cache_directory())
print(cache_directory(), cache_directory())
"""


def test_a_home_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("in the way")
    without = ("XDG_CACHE_HOME", "EMUINFER_CACHE", "MPLCONFIGDIR", "XDG_CONFIG_HOME")
    status, out, err = program(LIBRARIES, remove=without, HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path))
    assert status == 0, err
    assert out.split() == [str(tmp_path / f"emuinfer-{os.getuid()}" / "emuinfer")] * 2
    assert err.count("cannot be written to") == 1 and "EMUINFER_CACHE" in err and "Matplotlib" not in err


def test_a_cache_that_cannot_be_written_to_is_still_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    files.cache.scratch_folder.cache_clear()
    monkeypatch.setenv("EMUINFER_CACHE", str(tmp_path / "file" / "cache"))
    try:
        usable, named = files.cache_folders()
    finally:
        files.cache.scratch_folder.cache_clear()
    assert (
        named == tmp_path / "file" / "cache"
        and usable == tmp_path / f"emuinfer-{os.getuid()}" / "emuinfer" == files.cache_directory()
    )
    assert usable.parent.stat().st_mode & 0o077 == 0
    assert capsys.readouterr().err.count("Note: the cache folder") == 1


def test_nobody_elses_folder_is_used_for_the_cache(tmp_path, monkeypatch):
    (tmp_path / f"emuinfer-{os.getuid()}").symlink_to(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files.cache.scratch_folder.cache_clear()
    try:
        assert files.cache.scratch_folder() not in (tmp_path, tmp_path / f"emuinfer-{os.getuid()}")
    finally:
        files.cache.scratch_folder.cache_clear()


def test_a_lock_is_not_waited_for_for_ever(tmp_path):
    with files.lock(tmp_path / "a"), pytest.raises(GridError, match=r"a\.lock for .* minutes\. If it hangs"):
        files.lock(tmp_path / "a", error=GridError, patience=0.3).__enter__()


# 64-bit JAX


def numbers(emulator, observation):
    model = StellarModel(emulator, observation, progress=False, line_errors=None)
    posterior = sample(model, seed=0, **NUMBERS)
    draws = np.asarray(posterior["posterior"]["teff"])
    bounds = cramer_rao(model, tiny.TRUTH | {"rv": tiny.RV, "vbroad": tiny.VBROAD})
    flux = emulator(tiny.TRUTH, observation.wavelength[5:-5])
    return draws, np.array([*bounds.marginal.values()], float), np.asarray(flux), flux.dtype


def test_64_bit_jax_gives_the_numbers_of_32(tiny_path, tiny_observation):
    first = numbers(load_emulator(tiny_path), tiny_observation)
    with jax.enable_x64(True):
        second = numbers(load_emulator(tiny_path), tiny_observation)
        assert jax.numpy.ones(1).dtype == np.float64  # the caller's setting is as it was
        network = TransformerPayne(tiny.SPACE, tiny.RANGE, "air", SMALL, key=jax.random.key(0))
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)
    leaves = jax.tree.leaves(network)
    assert {leaf.dtype for leaf in leaves if hasattr(leaf, "dtype")} == {np.dtype("float32")}


SMALL = TransformerConfig(width=8, depth=1, heads=2, tokens=2, label_hidden=8, frequencies=4, table_nodes=50, rank=4)


# Processes

FORK = """
import multiprocessing, sys
from emuinfer import load_emulator
emulator = load_emulator(sys.argv[1])
def child(queue):
    try:
        emulator({"teff": 5600.0, "fe_h": 0.0, "mg_fe": 0.0}, [6185.0])
        queue.put("computed")
    except Exception as error:
        queue.put(f"{type(error).__name__}: {error}")
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    job = context.Process(target=child, args=(queue,), daemon=True)
    job.start()
    print(queue.get())
    job.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_refused_in_words(tiny_path):
    status, out, err = program(FORK, tiny_path)
    assert status == 0, err
    assert out.startswith("EmuinferError: This process was forked from one in which JAX had started") and "spawn" in out


def test_a_platform_that_does_not_exist(tiny_path):
    code = "import sys\nfrom emuinfer.cli.main import main\nmain(sys.argv[1:])"
    status, _, err = program(code, "crb", "--emulator", tiny_path, "teff=5600", JAX_PLATFORMS="nonsense")
    assert status in (1, 2) and "Traceback" not in err
    code = "import sys\nfrom emuinfer import load_emulator\nload_emulator(sys.argv[1])"
    status, _, err = program(code, tiny_path, JAX_PLATFORMS="nonsense")
    assert status == 1 and "JAX_PLATFORMS is 'nonsense': unset it" in err.splitlines()[-1]


def test_a_model_survives_pickle(tiny_emulator, tiny_observation):
    model = StellarModel(tiny_emulator, tiny_observation, progress=False, line_errors=None)
    again = pickle.loads(pickle.dumps(model))
    assert again.names == model.names and again.rv_guess == model.rv_guess
    value = model.nuisance_priors["log10_jitter"].log_prob(-2.0)
    assert again.nuisance_priors["log10_jitter"].log_prob(-2.0) == value


# Output


def test_output_that_takes_no_angstrom():
    text = ascii("5100–5300 Å, χ² ±1 \udcff")
    code = f"from emuinfer.cli.options import print_what_can_be\nprint_what_can_be()\nprint({text})"
    for variables in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        status, out, err = program(code, **variables)
        assert status == 0 and out.startswith("5100-5300 A, chi2 +/-1 ?"), err
    code = "from emuinfer.cli.main import main\nmain(['emulators'])"
    status, out, err = program(code, PYTHONIOENCODING="ascii")
    assert status == 0 and "5100 to 5300 A (air)" in out, err


# Signals

SLOW = """
import sys, time
from emuinfer import inference
from emuinfer.cli.main import main
def slow(*arguments, **keywords):
    print("begun", flush=True)
    time.sleep(100)
inference.sample = slow
main(sys.argv[1:])
"""


def test_sigterm_ends_a_fit_in_order(tiny_path, star_file, tmp_path):
    arguments = ["fit", star_file, "--emulator", tiny_path, "--output", tmp_path / "fit", "-q"]
    known = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SLOW, *map(str, arguments)]
    job = subprocess.Popen(command, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "begun\n"
    assert len(list((tmp_path / "fit").glob(".*.tmp.results"))) == 1
    job.terminate()
    _, err = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM
    assert "Terminated" in err and "Nothing was written to" in err and "again" in err and "Traceback" not in err
    assert not (tmp_path / "fit").exists()


LEFT = """
import os, signal, sys
from emuinfer import files
with files.written_together(sys.argv[1], ("a",)) as staging:
    (staging / "a").write_text("half")
    print(staging, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_fit_leaves_is_swept_by_the_next(tmp_path):
    status, out, _ = program(LEFT, tmp_path / "fit")
    left = Path(out.strip())
    assert status == -signal.SIGKILL and (left / "a").exists()
    mine = left.with_name(left.name.replace(left.name.split("-")[-1].partition(".")[0], str(os.getpid())))
    other = left.with_name(".elsewhere-1.tmp.results")
    other.mkdir()
    with files.written_together(tmp_path / "fit", ("a",)) as staging:
        assert not left.exists() and other.exists() and staging == mine
        (staging / "a").write_text("whole")
        with files.written_together(tmp_path / "other", ("a",)) as second:
            assert staging.exists() and second.parent == tmp_path / "other"
    assert sorted(p.name for p in (tmp_path / "fit").iterdir()) == [".elsewhere-1.tmp.results", "a"]


# Full disks


def test_a_full_disk_is_told_with_file_space_and_remedy(tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    expected = (
        r"a\.bin could not be written .*No space.*It needs 123 kB or more\. The disk has .* free\. Free some space"
    )
    with pytest.raises(EmuinferError, match=expected):
        files.write_bytes(tmp_path / "a.bin", b"x" * 123_000)
    with (
        pytest.raises(EmuinferError, match=f"{tmp_path}/fit/a could not be written"),
        files.written_together(tmp_path / "fit", ("a",)) as staging,
    ):
        files.write_bytes(staging / "a", b"x")
