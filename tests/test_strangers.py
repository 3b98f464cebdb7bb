"""Weights, grids and tables from strangers: what they claim is compared with what there is before it is believed."""

import hashlib
import io
import json
import os
import resource
import time
import zipfile
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
import tiny
from astropy.io import fits
from astropy.table import Table
from safetensors.numpy import load, save

from emuinfer import Grid, LabelSpace, load_emulator, save_emulator
from emuinfer.emulators import TransformerConfig, TransformerPayne, load_card
from emuinfer.emulators.strangers import DESCRIBED, hash_of
from emuinfer.errors import EmuinferError, EmulatorError, GridError, LabelError, ObservationError
from emuinfer.files import read_arrays, read_json
from emuinfer.grids import import_grid
from emuinfer.observations.stack import SpectrumStack

DEEP = "[" * 200_000


@pytest.fixture
def saved(tmp_path):
    """A small transformer on disk: the path without suffix."""
    config = TransformerConfig(
        width=8, depth=1, heads=2, tokens=2, label_hidden=8, frequencies=4, table_nodes=50, rank=4
    )
    emulator = TransformerPayne(tiny.SPACE, tiny.RANGE, "air", config, key=jax.random.key(0))
    save_emulator(emulator, tmp_path / "small")
    return tmp_path / "small"


def edit(path, *, honest=False, arrays=None, **changes):
    """Change entries of a card, `config__depth` for nested ones; `honest`: with the hashes that then are right."""
    file, weights = path.with_suffix(".json"), path.with_suffix(".safetensors")
    card = json.loads(file.read_text())
    for key, value in changes.items():
        inner, _, name = key.partition("__")
        (card[inner] if name else card)[name or key] = value
    if arrays is not None:
        blob = save(arrays)
        weights.write_bytes(blob)
        card["weights_sha256"] = hashlib.sha256(blob).hexdigest()
    if honest:
        found = {k: a.astype(np.float32) for k, a in load(weights.read_bytes()).items()}
        card["hash"] = hash_of({k: card[k] for k in DESCRIBED}, found)
    file.write_text(json.dumps(card))


WRONG = {
    "medium": ({"medium": "water"}, "medium must be 'air' or 'vacuum'; got 'water'"),
    "reversed": ({"wavelength_range": [6194.0, 6180.0]}, "rise from above 0; got"),
    "infinite": ({"wavelength_range": [1.0, float("inf")]}, "rise from above 0; got"),
    "text": ({"wavelength_range": "ab"}, "rise from above 0; got"),
    "heads": ({"config__heads": 0}, "heads must be a whole number from 1 to"),
    "heads that do not divide": ({"config__heads": 3}, "must be a multiple of heads"),
    "width": ({"config__width": -3}, "width must be a whole number from 1 to"),
    "depth": ({"config__depth": 10_000}, "depth = 10000 does not go with the weights"),
    "branch": ({"config__branch_layers": 60}, "branch_layers = 60 does not go with the weights"),
    "nodes": ({"config__table_nodes": 10**9}, "table_nodes = 1000000000 does not go with the weights"),
    "period": ({"config__shortest_period": -1.0}, "periods must be positive"),
    "epsilon": ({"config__epsilon": float("nan")}, "epsilon = nan"),
    "config": ({"config": []}, "config and labels must be mappings"),
    "labels": ({"labels__lower": [4500, -1.5, float("nan")]}, "both finite"),
    "kind": ({"kind": ["transformer"]}, "unknown kind"),
    "unknown": ({"config__colour": 1}, "colour"),
}


@pytest.mark.parametrize("honest", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_an_edited_card_is_refused(saved, name, honest):
    changes, message = WRONG[name]
    edit(saved, honest=honest, **changes)
    begin = time.monotonic()
    with pytest.raises(EmuinferError) as error:
        load_emulator(saved)
    assert time.monotonic() - begin < 20
    if honest:
        assert message in str(error.value)


def test_a_card_that_could_be_but_was_changed_is_refused(saved):
    load_emulator(saved)
    edit(saved, wavelength_range=[6180.0, 6193.0])
    with pytest.raises(EmulatorError, match=r"small\.safetensors was changed: .* do not have the hash"):
        load_emulator(saved)
    edit(saved, honest=True)
    assert load_emulator(saved).wavelength_range == (6180.0, 6193.0)


def test_weights_that_are_not_finite_are_refused(saved):
    arrays = load(saved.with_suffix(".safetensors").read_bytes())
    arrays[".trunk"][3, 1] = np.nan
    edit(saved, honest=True, arrays=arrays)
    with pytest.raises(EmulatorError, match=r"\.trunk holds values that are not finite"):
        load_emulator(saved)


def test_json_that_is_nested_deeply_ends_in_a_sentence(saved, tmp_path):
    saved.with_suffix(".json").write_text(DEEP)
    with pytest.raises(EmulatorError, match=r"small\.json is not a readable .*nested too deeply"):
        load_card(saved)
    (tmp_path / "deep.json").write_text(DEEP)
    with pytest.raises(GridError, match="nested too deeply"):
        read_json(tmp_path / "deep.json", GridError)


@pytest.mark.parametrize("change", [{"lower": "abc"}, {"constraints": [3]}, {"names": [1, 2, 3]}, {"upper": None}])
def test_descriptions_of_labels_that_cannot_be(change):
    with pytest.raises(LabelError):
        LabelSpace.from_json({**tiny.SPACE.to_json(), **change})


# Grids


def grid(path):
    space = LabelSpace(("teff",), (4000.0,), (6000.0,))
    wavelength = 5000 + 0.1 * np.arange(50)
    made = Grid(np.linspace(4000, 6000, 4)[:, None], wavelength, np.ones((4, 50)), label_space=space, medium="air")
    made.save(path)
    return path


@pytest.fixture
def little_memory():
    """Let no process of the tests take 20 GB more: what is refused must be refused before it is allocated."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + 20_000_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs the process's memory")
def test_a_grid_that_claims_more_than_it_has(tmp_path, little_memory):
    path = grid(tmp_path / "grid.h5")
    with h5py.File(path, "r+") as file:
        n, n_wave = 10_000_000, 2001
        attributes = {name: dict(file[name].attrs) for name in ("labels", "wavelength", "flux")}
        for name in ("labels", "wavelength", "flux", "status"):
            del file[name]
        file.create_dataset("labels", (n, 1), "f8", chunks=(1000, 1))
        file.create_dataset("wavelength", data=5000 + 0.1 * np.arange(n_wave))
        file.create_dataset("flux", (n, n_wave), "f4", chunks=(8, n_wave), compression="gzip")
        file.create_dataset("status", (n,), "u1", fillvalue=1, chunks=(1000,))
        for name, own in attributes.items():
            file[name].attrs.update(own)
    for lazy in (True, False):
        with pytest.raises(
            GridError, match=r"grid\.h5 is damaged: /(labels|flux) claims the shape \(10000000, .*less of it"
        ):
            Grid.load(path, lazy=lazy)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["wavelength"] = 5000 + 0.1 * np.arange(n_wave)
        file.create_dataset("flux", (n, n_wave), "f4", chunks=(8, n_wave))
        file["teff"] = np.arange(3.0)
    with pytest.raises(GridError, match=r"foreign\.h5 is damaged: /flux claims"):
        import_grid(tmp_path / "foreign.h5", medium="air")
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file.create_dataset("wavelength", (10**10,), "f8", chunks=(1000,))
        file.create_dataset("flux", (1, 10**10), "f4", chunks=(1, 1000))
        file.create_dataset("ivar", (1, 10**10), "f4", chunks=(1, 1000))
    with pytest.raises(ObservationError, match=r"stack\.h5 is damaged: /wavelength claims"):
        SpectrumStack(tmp_path / "stack.h5", medium="air", resolution=1e4)


def test_a_grid_in_other_files_is_refused(tmp_path):
    path = grid(tmp_path / "grid.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["flux"] = np.ones((4, 50), "f4")
    with h5py.File(path, "r+") as file:
        del file["flux"]
        file["flux"] = h5py.ExternalLink("other.h5", "/flux")
    with pytest.raises(GridError, match=r"grid\.h5: /flux is a link to another file"):
        Grid.load(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs the process's memory")
def test_arrays_that_claim_more_than_they_have(tmp_path, little_memory):
    from numpy.lib import format

    header = io.BytesIO()
    format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10_000_000, 2001)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("flux.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(GridError, match=r"a\.npz .*flux\.npy claims 80 GB, of which the file has less"):
        read_arrays(tmp_path / "a.npz", GridError)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs the process's memory")
def test_a_fits_file_that_claims_more_than_it_has(tmp_path, little_memory):
    header = fits.Header()
    for key, value in {"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": 2001, "NAXIS2": 10_000_000}.items():
        header[key] = value
    (tmp_path / "a.fits").write_bytes(header.tostring().encode() + b"\0" * 2880)
    with pytest.raises(GridError, match=r"a\.fits is damaged: 'PRIMARY' claims 80 GB"):
        import_grid(tmp_path / "a.fits", medium="air")


@pytest.mark.parametrize("name", ["../x.csv", "/etc/passwd", "sub/../../x.csv", "link.csv", "a" * 300 + "\0"])
def test_tables_of_labels_name_files_of_their_own_folder(tmp_path, name):
    folder = tmp_path / "grid"
    folder.mkdir()
    (tmp_path / "x.csv").write_text("wavelength,flux\n5000,1\n5001,1\n")
    (folder / "link.csv").symlink_to(tmp_path / "x.csv")
    Table({"file": [name], "teff": [5000.0]}).write(folder / "labels.ecsv")
    with pytest.raises(GridError, match="does not lie in .*grid"):
        import_grid(folder, medium="air")
