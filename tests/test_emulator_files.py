"""Where emulators come from: the package, a folder of the user's, a data package, or the web; and their reductions."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import tiny

from emuinfer.emulators import (
    emulator_hash,
    list_emulators,
    load_card,
    load_emulator,
    load_uncertainty,
    reduce_emulator,
    reduction,
    save_emulator,
    shipped_uncertainty,
    storage,
)
from emuinfer.emulators.training import fit_uncertainty
from emuinfer.emulators.uncertainty import save_uncertainty
from emuinfer.errors import EmulatorError
from emuinfer.labels import WINDOWS, Window, data_files, default_window

NAMES = ("green.json", "green.safetensors", "green-uncertainty.card.json", "green-uncertainty.safetensors")


@pytest.fixture(scope="module")
def site(tiny_emulator, tmp_path_factory):
    """A folder with an emulator and its uncertainty, as it would lie on the web."""
    site = tmp_path_factory.mktemp("site")
    save_emulator(tiny_emulator, site / "green", {"title": "Of another window"})
    wavelength = np.arange(6181.0, 6193.0, 0.05)
    labels = np.random.default_rng(1).uniform(tiny.SPACE.lower, tiny.SPACE.upper, (24, 3))
    flux = np.asarray(tiny_emulator(labels, wavelength))
    residuals = 1e-3 * np.random.default_rng(2).standard_normal(flux.shape)
    uncertainty = fit_uncertainty(tiny.SPACE, labels, residuals, flux, wavelength, rank=2, medium="air")
    save_uncertainty(uncertainty, site / "green", emulator=tiny_emulator)
    return site


@pytest.fixture
def green(site, monkeypatch, tmp_path):
    """The window of that emulator, which is on the web; the cache is empty."""
    monkeypatch.setenv("EMUINFER_CACHE", str(tmp_path / "cache"))
    files = {name: hashlib.sha256((site / name).read_bytes()).hexdigest() for name in NAMES}
    entry = Window("green", tiny.RANGE, "air", tiny.SPACE, emulator="green", files=files, url=site.as_uri())
    monkeypatch.setitem(WINDOWS, "green", entry)
    return entry


def kept(tmp_path):
    return sorted(p.name for p in (tmp_path / "cache" / "weights").glob("*"))


def test_an_emulator_is_fetched_when_it_is_loaded(green, tiny_emulator, tmp_path, monkeypatch):
    assert list_emulators() == ["optical-fgk", "green"]
    assert kept(tmp_path) == []
    assert load_card("green")["title"] == "Of another window"
    assert kept(tmp_path) == ["green.json"]
    emulator = load_emulator("green")
    assert emulator_hash(emulator) == emulator_hash(tiny_emulator)
    assert kept(tmp_path) == sorted(NAMES)
    assert shipped_uncertainty(emulator).rank == 2 == load_uncertainty("green", emulator=emulator).rank
    offline = dataclasses.replace(green, url="http://127.0.0.1:9")
    monkeypatch.setitem(WINDOWS, "green", offline)
    assert load_emulator("green").labels == emulator.labels  # from the cache


def test_the_command_line_knows_what_is_not_here_yet(green, cli, tmp_path):
    status, out, _ = cli("emulators")
    assert status == 0 and kept(tmp_path) == []
    assert f"{'green':<20} 6180 to 6194 Å (air), 3 labels  (is fetched when first used)" in out
    status, out, _ = cli("emulators", "green")
    assert status == 0 and kept(tmp_path) == ["green.json"]
    assert "window        green: 6180 to 6194 Å (air)" in out and "(weights are fetched when first used)" in out
    load_emulator("green")
    out = cli("emulators")[1]
    assert f"{'green':<20} 6180 to 6194 Å (air), 3 labels  Of another window" in out


def test_an_emulator_that_cannot_be_fetched(green, monkeypatch, tmp_path):
    monkeypatch.setitem(WINDOWS, "green", dataclasses.replace(green, url="http://127.0.0.1:9"))
    with pytest.raises(
        EmulatorError, match="green.json of window 'green' could not be fetched from http://127.0.0.1:9/green"
    ):
        load_emulator("green")
    with pytest.raises(EmulatorError, match="Did you mean 'green'.*Shipped emulators: optical-fgk, green"):
        load_emulator("gren")


def test_an_emulator_in_a_folder_of_the_user(site, monkeypatch, tiny_emulator):
    monkeypatch.setenv("EMUINFER_WEIGHTS", str(site))
    assert list_emulators() == ["optical-fgk", "green"]
    emulator = load_emulator("green")
    assert emulator_hash(emulator) == emulator_hash(tiny_emulator)
    assert shipped_uncertainty(emulator).rank == 2


def test_the_emulator_of_a_data_package(site, monkeypatch, tiny_emulator):
    monkeypatch.setattr(data_files, "package_folders", lambda: (site,))
    assert "green" in list_emulators()
    assert emulator_hash(load_emulator("green")) == emulator_hash(tiny_emulator)


def test_without_a_name_it_is_the_default_windows(green, monkeypatch):
    assert load_card()["hash"] == load_card("optical-fgk")["hash"]
    assert emulator_hash(load_emulator()) == load_card("optical-fgk")["hash"]
    monkeypatch.delitem(WINDOWS, "optical-fgk")
    assert default_window() is green and load_card()["title"] == "Of another window"


# Reductions


def test_the_shipped_reduction_is_found(monkeypatch, tmp_path):
    """Nothing that goes into the key of a reduction may change: labels, wavelengths, weights, settings."""
    monkeypatch.setenv("EMUINFER_CACHE", str(tmp_path))
    monkeypatch.setattr(reduction, "_build", lambda *arguments: pytest.fail("it is made anew"))
    emulator = load_emulator()
    reduced = reduce_emulator(emulator, progress=False)
    assert reduction.reduction_key(emulator, reduced.config) == "f35439089ed438c6"
    shipped = storage.ZOO / "reductions" / "reduced-f35439089ed438c6.json"
    assert json.loads(shipped.read_text())["hash"] == emulator_hash(reduced)
    assert list(tmp_path.iterdir()) == []


SMALL = {"n_train": 100, "n_test": 8, "components": 6, "hidden": 16, "steps": 50, "progress": False}


def test_a_kept_reduction_is_loaded_once(monkeypatch, tmp_path):
    monkeypatch.setenv("EMUINFER_CACHE", str(tmp_path / "cache"))
    lines = tiny.line_emulator()
    made = reduce_emulator(lines, **SMALL)
    loads = []

    def load(path):
        loads.append(path)
        return load_emulator(path)

    monkeypatch.setattr(reduction, "load_emulator", load)
    assert emulator_hash(reduce_emulator(lines, **SMALL)) == emulator_hash(made)
    assert len(loads) == 1


def test_a_reduction_in_a_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("EMUINFER_CACHE", str(tmp_path / "cache"))
    lines = tiny.line_emulator()
    made = reduce_emulator(lines, **SMALL)
    (tmp_path / "weights" / "reductions").mkdir(parents=True)
    for file in (tmp_path / "cache").glob("reduced-*.*"):
        shutil.move(file, tmp_path / "weights" / "reductions" / file.name)
    monkeypatch.setattr(reduction, "_build", lambda *arguments: pytest.fail("it is made anew"))
    monkeypatch.setenv("EMUINFER_WEIGHTS", str(tmp_path / "weights"))
    assert emulator_hash(reduce_emulator(lines, **SMALL)) == emulator_hash(made)
