"""Files written whole or not at all, and locks: full disks, killed processes, two writers, folders that forbid."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emuinfer import files
from emuinfer.errors import EmuinferError, GridError, SamplingError, TrainingError

ROOT = Path(__file__).parents[1]


def names(folder):
    return sorted(p.name for p in folder.rglob("*"))


def python(code, *arguments):
    """A process of its own."""
    known = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=known)


# Written whole


def test_a_file_gets_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with files.written_whole(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".txt" and str(os.getpid()) in temporary.name
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one" and names(tmp_path) == ["a.txt", "new"]
    with files.written_whole(path, folder=tmp_path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("two")
    assert path.read_text() == "two" and names(tmp_path) == ["a.txt", "new"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_a_block_that_fails_changes_nothing(tmp_path, kind):
    path = tmp_path / "a.txt"
    path.write_text("before")
    raised = TrainingError if isinstance(kind, OSError) else kind
    with pytest.raises(raised) as error, files.written_whole(path, TrainingError, "Buy a disk.") as temporary:
        temporary.write_text("half")
        raise kind
    assert path.read_text() == "before" and names(tmp_path) == ["a.txt"]
    if raised is TrainingError:
        for word in (str(path), "No space left on device", "written before it is untouched", "Buy a disk."):
            assert word in str(error.value)


def test_all_kinds_of_files(tmp_path):
    from astropy.table import Table

    files.write_bytes(tmp_path / "a", b"bytes")
    files.write_json(tmp_path / "a.json", {"seed": [1, 2]})
    arrays = {"x": np.arange(3), "name": np.array(["a", "b"])}
    files.write_arrays(tmp_path / "a.npz", arrays)
    files.write_arrays(tmp_path / "b.npz", arrays, compressed=False)
    for format, name in (("ascii.ecsv", "t.ecsv"), ("fits", "t.fits")):
        for _ in range(2):  # the second takes the place of the first
            files.write_table(Table(arrays | {"name": [1, 2, 3]}), tmp_path / name, format=format)
        assert Table.read(tmp_path / name)["x"].tolist() == [0, 1, 2]
    assert (tmp_path / "a").read_bytes() == b"bytes" and (
        tmp_path / "a.json"
    ).read_text() == '{\n "seed": [\n  1,\n  2\n ]\n}'
    for name in ("a.npz", "b.npz"):
        with np.load(tmp_path / name, allow_pickle=False) as file:
            assert {k: file[k].tolist() for k in file} == {k: v.tolist() for k, v in arrays.items()}
    assert names(tmp_path) == ["a", "a.json", "a.npz", "b.npz", "t.ecsv", "t.fits"]


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from astropy.table import Table
from emuinfer import EmuinferError, Grid, LabelSpace, Observation, files
from emuinfer.observations.stack import stack_observations
from emuinfer.plotting.corner import plot_corner
from emuinfer.posteriors.posterior import build_posterior, save_posterior

folder = Path(sys.argv[1])
many = np.random.default_rng(0).normal(size=(200, 1000))
space = LabelSpace(("teff",), (4000.0,), (6000.0,))
wavelength = 5000 + 0.1 * np.arange(1000)
grid = Grid(np.linspace(4000, 6000, 200)[:, None], wavelength, many, label_space=space, medium="air")
stars = [Observation(wavelength, 1 + 0.01 * x, 0.01 + 0 * x, medium="air", resolution=20000) for x in many]
posterior = build_posterior({"x": many[None]}, None, observed_data={"y": many[0]})
writers = {
    "a.bin": lambda path: files.write_bytes(path, many.tobytes()),
    "a.npz": lambda path: files.write_arrays(path, {"x": many}),
    "a.fits": lambda path: files.write_table(Table({"x": many}), path, format="fits"),
    "grid.h5": grid.save,
    "stack.h5": lambda path: stack_observations(stars, path),
    "draws.nc": lambda path: save_posterior(posterior, path),
    "corner.png": lambda path: plot_corner(path, {str(i): x for i, x in enumerate(many[:8])}),
}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # a larger file is refused, as by a full disk
for name, write in writers.items():
    before = b"before"
    (folder / name).write_bytes(before)
    try:
        write(folder / name)
    except EmuinferError as error:
        for word in (str(folder / name), "could not be written", "before it is untouched", "Free some space"):
            assert word in str(error), (name, word, error)
    else:
        raise AssertionError(name)
    assert (folder / name).read_bytes() == before
assert sorted(p.name for p in folder.iterdir()) == sorted(writers), list(folder.iterdir())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on the size of files here")
def test_a_full_disk_leaves_every_kind_of_file_as_it_was(tmp_path):
    assert python(FULL, tmp_path).wait(240) == 0


WRITE = """
import sys, time
from emuinfer import files
path, letter, seconds = sys.argv[1:]
end = time.time() + float(seconds)
while time.time() < end:
    files.write_bytes(path, letter.encode() * 1_000_000)
"""


def test_two_writers_and_a_reader_never_meet_half_a_file(tmp_path):
    path = tmp_path / "a"
    files.write_bytes(path, b"a" * 1_000_000)
    writers = [python(WRITE, path, letter, 4) for letter in "ab"]
    read = 0
    while any(w.poll() is None for w in writers):
        content = path.read_bytes()
        assert len(content) == 1_000_000 and len(set(content)) == 1
        read += 1
    assert read > 10 and [w.returncode for w in writers] == [0, 0] and names(tmp_path) == ["a"]


def test_a_killed_writer_leaves_the_file_before(tmp_path):
    path = tmp_path / "a"
    files.write_bytes(path, b"a" * 1_000_000)
    writer = python(WRITE, path, "b", 60)
    while path.read_bytes()[:1] == b"a":
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    assert path.read_bytes() == b"b" * 1_000_000
    assert all(n == "a" or (n.startswith(".") and ".tmp.a" in n) for n in names(tmp_path))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_forbids(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    for write in (
        lambda: files.write_bytes(locked / "a", b"", GridError),
        lambda: files.lock(locked / "a", error=GridError).__enter__(),
        lambda: files.written_together(locked, ("a",), GridError).__enter__(),
    ):
        with pytest.raises(GridError, match=f"{locked}.*Permission denied.*allow writing there"):
            write()


def test_permission_that_is_denied(tmp_path, monkeypatch):
    def denied(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files.writing, "open", denied, raising=False)
    with pytest.raises(GridError, match=f"{tmp_path}/a could not be written .*Permission denied.*allow writing there"):
        files.write_bytes(tmp_path / "a", b"", GridError)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for write in (
        lambda: files.write_bytes(tmp_path / "file" / "a", b"", SamplingError),
        lambda: files.lock(tmp_path / "file" / "a", error=SamplingError).__enter__(),
        lambda: files.written_together(tmp_path / "file" / "a", ("a",), SamplingError).__enter__(),
    ):
        with pytest.raises(SamplingError, match="file/a.* could not be written .*(exists|Not a directory)"):
            write()
    with pytest.raises(EmuinferError, match="no folder .*nowhere. Make it first"):
        files.require_folder_of(tmp_path / "nowhere" / "a")


# Several files together


def test_files_get_into_a_folder_together(tmp_path):
    folder = tmp_path / "fit"
    with pytest.raises(KeyboardInterrupt), files.written_together(folder, ("a", "b")) as staging:
        (staging / "a").write_text("first")
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    for made in ("ab", "a"):
        with files.written_together(folder, ("a", "b")) as staging:
            for name in made:
                (staging / name).write_text(made)
        assert names(folder) == sorted(made) and (folder / "a").read_text() == made
    (folder / "other").write_text("not ours")
    with pytest.raises(ValueError, match="no more"), files.written_together(folder, ("a", "b")) as staging:
        (staging / "b").write_text("new")
        raise ValueError("no more")
    assert names(folder) == ["a", "other"]


# Locks

HOLD = """
import sys, time
from pathlib import Path
from emuinfer import files
with files.lock(sys.argv[1]):
    Path(sys.argv[1]).write_text("held")
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1]).write_text("done")
"""


def held(path, seconds):
    holder = python(HOLD, path, seconds)
    while not path.exists():
        time.sleep(0.01)
    return holder


def test_a_lock_makes_others_wait_or_refuses_them(tmp_path, capsys):
    path = tmp_path / "build"
    holder = held(path, 2)
    with pytest.raises(GridError, match="someone else"), files.lock(path, busy=GridError("someone else")):
        pass
    with files.lock(path, waiting="Waiting for another process."):
        assert path.read_text() == "done"
    assert holder.wait(60) == 0
    assert "Waiting" in capsys.readouterr().err
    with files.lock(path, waiting="Waiting for another process."), files.lock(tmp_path / "another"):
        pass
    assert capsys.readouterr().err == ""


def test_a_killed_process_lets_go(tmp_path):
    path = tmp_path / "build"
    holder = held(path, 60)
    holder.kill()
    holder.wait()
    with files.lock(path, busy=GridError("someone else")):
        assert path.read_text() == "held"


# Compiled programs


def test_compiled_programs_are_kept_in_the_cache_unless_the_user_has_said_where(tmp_path, monkeypatch):
    import jax

    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in settings}
    monkeypatch.setenv("EMUINFER_CACHE", str(tmp_path))
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "the user's"))
        files.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "the user's") and not list(tmp_path.iterdir())
        jax.config.update("jax_compilation_cache_dir", None)
        files.use_compilation_cache()
        folder = Path(jax.config.jax_compilation_cache_dir)
        assert folder.is_dir() and folder.parent == tmp_path / "xla"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
