"""Windows: the registry, and where their data files are found or fetched."""

import dataclasses
import functools
import hashlib
import http.server
import subprocess
import sys
import tempfile
import threading
import types

import numpy as np
import pytest

from emuinfer.errors import EmulatorError
from emuinfer.labels import WINDOWS, LabelSpace, Window, data_files, default_window, window, window_of

SPACE = LabelSpace(("teff", "logg", "fe_h", "vmic"), (4500, 3.0, -1, 0.5), (6000, 5, 0.4, 2))
GREEN = Window("green", (5150.0, 5160.0), "vacuum", SPACE, step=0.05, emulator="green-1")
CONTENT = b"a few weights"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def green(monkeypatch):
    monkeypatch.setitem(WINDOWS, "green", GREEN)
    return GREEN


def test_default_window():
    entry = default_window()
    assert entry is window() is window("optical-fgk") is window(entry)
    assert entry.describe() == "5100 to 5300 Å (air)"
    # The very numbers that grid hashes were made from.
    expected = np.round(np.arange(10_001) * 0.02 + 5100.0, 2)
    assert entry.native_wavelength.tobytes() == expected.tobytes()
    assert entry.file(entry.line_list).is_file() and entry.file(entry.line_errors).is_file()


def test_windows_by_name(green):
    assert window("green") is green
    with pytest.raises(
        EmulatorError, match=r"Unknown window 'gren'. Did you mean 'green'\? The windows are: optical-fgk, green"
    ):
        window("gren")


def test_the_window_of_a_range(green):
    assert window_of((5120, 5400)) is default_window()
    assert window_of((5150, 5155)) is green  # the narrower of two that cover it
    assert window_of((5150, 5155), "air") is default_window()
    assert window_of((6000, 6100)) is None
    assert window_of(np.linspace(5200, 5290, 100)) is default_window()
    emulator = types.SimpleNamespace(wavelength_range=(5150.0, 5160.0), medium="air", label_space=SPACE)
    assert window_of(emulator) is default_window()
    emulator.medium = "vacuum"
    assert window_of(emulator) is green


def test_the_labels_decide_between_windows_of_one_range(green, monkeypatch):
    other = dataclasses.replace(green, name="other", label_space=LabelSpace(("teff",), (3000,), (4000,)))
    monkeypatch.setitem(WINDOWS, "other", other)
    grid = types.SimpleNamespace(wavelength=np.array([5150.0, 5160.0]), medium="vacuum", label_space=SPACE)
    assert window_of(grid) is green
    grid.label_space = other.label_space
    assert window_of(grid) is other


def test_windows_that_cannot_be():
    for change in ({"wavelength_range": (5160, 5150)}, {"step": 0.0}, {"medium": "water"}):
        with pytest.raises(EmulatorError, match="Window 'green'"):
            dataclasses.replace(GREEN, **change)


# Files


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A window whose file is on a disk elsewhere; a cache folder of its own."""
    monkeypatch.setenv("EMUINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMUINFER_DATA_URL", raising=False)
    monkeypatch.delenv("EMUINFER_WEIGHTS", raising=False)
    (tmp_path / "site" / "reductions").mkdir(parents=True)
    (tmp_path / "site" / "green-1.safetensors").write_bytes(CONTENT)
    return dataclasses.replace(GREEN, files={"green-1.safetensors": SHA}, url=(tmp_path / "site").as_uri())


def kept(tmp_path):
    """All that lies in the folder of fetched files."""
    return sorted(p.name for p in (tmp_path / "cache" / "weights").rglob("*") if p.is_file())


def test_a_file_is_fetched_once(away, tmp_path):
    path = away.file("green-1.safetensors")
    assert path.read_bytes() == CONTENT and path.parent == tmp_path / "cache" / "weights"
    (tmp_path / "site" / "green-1.safetensors").unlink()
    assert away.file("green-1.safetensors") == path  # nothing is asked of the site again
    assert kept(tmp_path) == ["green-1.safetensors"]


def test_a_file_on_the_web(away, tmp_path, monkeypatch):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    serve = functools.partial(Handler, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("EMUINFER_DATA_URL", f"http://127.0.0.1:{server.server_address[1]}/")
        elsewhere = dataclasses.replace(away, url="https://nowhere.invalid")  # the variable has precedence
        assert elsewhere.file("green-1.safetensors").read_bytes() == CONTENT
        elsewhere.file("green-1.safetensors")
        assert asked == ["/green-1.safetensors"]
        lost = dataclasses.replace(away, files={"lost.json": SHA})
        with pytest.raises(EmulatorError, match="lost.json of window 'green' could not be fetched from http.*404"):
            lost.file("lost.json")
        server.shutdown()
    assert kept(tmp_path) == ["green-1.safetensors"]


def test_a_wrong_hash_leaves_nothing(away, tmp_path):
    (tmp_path / "site" / "green-1.safetensors").write_bytes(b"something else")
    with pytest.raises(EmulatorError, match="is not the file green-1.safetensors that window 'green' needs") as caught:
        away.file("green-1.safetensors")
    assert SHA in str(caught.value) and "EMUINFER_WEIGHTS" in str(caught.value)
    assert kept(tmp_path) == []


def test_a_damaged_file_is_fetched_again(away, tmp_path):
    away.file("green-1.safetensors").write_bytes(b"cut sho")
    assert away.file("green-1.safetensors").read_bytes() == CONTENT


def test_offline(away, tmp_path, monkeypatch):
    offline = dataclasses.replace(away, url="http://127.0.0.1:9/weights")  # nothing listens there
    with pytest.raises(EmulatorError) as caught:
        offline.file("green-1.safetensors")
    text = str(caught.value)
    for part in ("green-1.safetensors", "http://127.0.0.1:9/weights/green-1.safetensors", "EMUINFER_WEIGHTS", SHA):
        assert part in text
    assert kept(tmp_path) == []
    with pytest.raises(EmulatorError, match="no URL is known for it. Give that of its folder in EMUINFER_DATA_URL"):
        dataclasses.replace(away, url="").file("green-1.safetensors")
    with pytest.raises(EmulatorError, match="nothing is known of where to fetch it"):
        away.file("other.json")


def test_a_cache_that_cannot_be_written_to(away, tmp_path, monkeypatch):
    """A temporary folder takes its place."""
    (tmp_path / "cache").write_text("a file in place of the folder")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert tmp_path / "temporary" in away.file("green-1.safetensors").parents


def test_a_folder_of_the_user(away, tmp_path, monkeypatch):
    monkeypatch.setenv("EMUINFER_WEIGHTS", f"{tmp_path / 'empty'}:{tmp_path / 'site'}")
    offline = dataclasses.replace(away, url="")
    assert offline.file("green-1.safetensors") == tmp_path / "site" / "green-1.safetensors"
    assert kept(tmp_path) == []


@pytest.fixture
def data_package(tmp_path, monkeypatch):
    """Installs a package that brings weights, as `pip install` would leave it."""

    def install(value, code=""):
        site = tmp_path / "site-packages"
        (site / "green_weights").mkdir(parents=True)
        (site / "green_weights" / "__init__.py").write_text(code)
        (site / "green_weights" / "green-1.safetensors").write_bytes(CONTENT)
        info = site / "green_weights-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: green-weights\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[emuinfer.weights]\ngreen = {value}\n")
        monkeypatch.syspath_prepend(site)
        data_files.package_folders.cache_clear()
        return site / "green_weights" / "green-1.safetensors"

    yield install
    sys.modules.pop("green_weights", None)
    data_files.package_folders.cache_clear()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("green_weights", ""),
        ("green_weights:FOLDER", "import pathlib\nFOLDER = pathlib.Path(__file__).parent\n"),
        ("green_weights:folder", "def folder():\n    return __path__[0]\n"),
    ],
)
def test_a_data_package(away, data_package, value, code):
    path = data_package(value, code)
    assert dataclasses.replace(away, url="").file("green-1.safetensors") == path


def test_a_broken_data_package_is_left_out(away, data_package, tmp_path):
    data_package("green_weights:missing")
    with pytest.warns(UserWarning, match="data package 'green' .* cannot be used: AttributeError"):
        assert away.file("green-1.safetensors").parent == tmp_path / "cache" / "weights"


FETCH = """
import sys, time
from emuinfer.labels import data_files
def slow(url, output, _):
    open(sys.argv[3], "a").write("x")
    time.sleep(0.5)
    open(output, "wb").write(b"a few weights")
data_files._copy = slow
print(data_files.find("w.bin", {"w.bin": sys.argv[1]}, "file:///nowhere", "a test").read_bytes().decode())
"""


def test_two_processes_fetch_once(away, tmp_path):
    command = [sys.executable, "-c", FETCH, SHA, str(tmp_path), str(tmp_path / "count")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in both] == [CONTENT.decode()] * 2
    assert (tmp_path / "count").read_text() == "x"
    assert kept(tmp_path) == ["w.bin"]
