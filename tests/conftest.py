"""What several test files share: a tiny emulator, a star observed through it, and the data beside the repository."""

import contextlib
import gc
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

MAPS = 10_000  # memory maps, a dozen of each program, beyond which a process frees what it compiled
QUICK = "--xla_cpu_use_fusion_emitters=false"  # the older emitters of loops: a third of the time to compile
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config):
    """Compile quickly rather than well, and once for all processes of a run, those that tests start too: most of the time is compiling.

    The numbers are the same but for rounding. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests the programs that users run.
    """
    quick = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
    # Tracing makes many objects that live: a seventh of the time went to looking for others.
    gc.set_threshold(100_000, 20, 100)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads wait in busy loops while another process works
    if quick and "XLA_FLAGS" not in os.environ and takes(QUICK):
        os.environ["XLA_FLAGS"] = QUICK
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        config.programs = tempfile.mkdtemp(prefix="emuinfer-tests-")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = config.programs
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"


def takes(flag):
    """Whether this version of XLA has a flag; one that it does not know ends the process."""
    start = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.make_cpu_client()"]
    return subprocess.run(start, env={**os.environ, "XLA_FLAGS": flag}, capture_output=True).returncode == 0


def pytest_unconfigure(config):
    if hasattr(config, "programs"):
        shutil.rmtree(config.programs, ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that take a minute or more each")


def pytest_collection_modifyitems(config, items):
    """Leave out slow tests unless asked; begin with the notebooks, lest a process waits for them in the end."""
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run pytest with --slow"))
    items.sort(key=lambda item: item.path.name != "test_tutorials.py")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory):
    """Keep the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMUINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def strict_types():
    import strict

    with strict.strict_promotion():
        yield


@pytest.fixture(scope="module", autouse=True)
def programs_of_the_module():
    """Free what test files compiled once it is much: a process that keeps thousands of programs runs out of memory maps
    (Linux allows 65,530) and crashes, but the next file uses many of the last one's programs."""
    yield
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and not (maps.exists() and maps.read_bytes().count(b"\n") < MAPS):
        from emuinfer.samplers import _compile

        _compile._EXECUTABLES.clear()
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def shared_data():
    """The folder of spectra and grids beside the repository; a test that asks for it is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"there is no folder {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_emulator():
    """A `ReducedEmulator` of 3 labels over 14 Å, fitted to the analytic lines of `tiny.py`."""
    import tiny

    return tiny.reduced_lines(tiny.line_emulator(), n_train=200, components=8, hidden=32, steps=800)


@pytest.fixture(scope="session")
def tiny_path(tiny_emulator, tmp_path_factory):
    """The tiny emulator on disk, as a path for `load_emulator` and `--emulator`."""
    from emuinfer import save_emulator

    path = tmp_path_factory.mktemp("emulator") / "tiny-lines"
    save_emulator(tiny_emulator, path, {"title": "Analytic lines", "validation": {"native": {"mae": 0.00123}}})
    return path


@pytest.fixture(scope="session")
def tiny_observation(tiny_emulator):
    """A noisy spectrum of the tiny emulator at `tiny.TRUTH`."""
    import tiny

    return tiny.observe(tiny_emulator, grid=tiny_emulator.config.wavelength)


@pytest.fixture(scope="session")
def star_file(tiny_observation, tmp_path_factory):
    """The tiny observation as an ECSV file."""
    path = tmp_path_factory.mktemp("star") / "star.ecsv"
    write_spectrum(path, tiny_observation.wavelength, tiny_observation.flux, tiny_observation.uncertainty)
    return path


def write_spectrum(path, wavelength, flux, uncertainty=None, **meta):
    from astropy.table import Table

    columns = {"wavelength": wavelength, "flux": flux}
    if uncertainty is not None:
        columns["uncertainty"] = uncertainty
    Table(columns, meta={"MEDIUM": "air", "RESOLUTION": 30000, **meta}).write(path, format="ascii.ecsv", overwrite=True)


def run_cli(*arguments):
    """`(exit status, stdout, stderr)` of the command line, run in this process."""
    from emuinfer.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code or 0, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def cli():
    return run_cli


@pytest.fixture(scope="session")
def spectrum_file():
    """`write_spectrum(path, wavelength, flux, uncertainty=None, **meta)`."""
    return write_spectrum
