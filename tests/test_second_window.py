"""A window beside the first: an entry and its data files are all that synthesis, grids and emulators need."""

import dataclasses
import types

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer import Grid
from emuinfer.errors import EmuinferError
from emuinfer.grids import check_grid
from emuinfer.labels import WINDOWS, LabelSpace, Window, window_of
from emuinfer.likelihoods.line_errors import LineErrors
from emuinfer.synthesis import LTESynthesizer, load_line_list, make_backend
from emuinfer.wavelengths.medium import convert_medium

SPACE = LabelSpace(("teff", "logg", "fe_h", "vmic"), (5000, 3.5, -0.5, 0.8), (6000, 4.8, 0.3, 1.6))
SUN = np.array([5777.0, 4.44, 0.0, 1.0], np.float32)
SHIFT = 700.0  # Å from the lines of the first window to those of the made-up one


def write_lines(path):
    """The lines of a few Å of the first window, moved by `SHIFT`."""
    lines = load_line_list()
    lines = lines[(lines.wavelength > 5160) & (lines.wavelength < 5175)]
    columns = {f.name: getattr(lines, f.name) for f in dataclasses.fields(lines) if f.name != "covers"}
    np.savez(path, **{**columns, "wavelength": lines.wavelength + SHIFT, "source": "made up"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_lines(folder / "made_up_lines.npz")
    wavelength = np.linspace(5864.0, 5866.5, 50)
    table = LineErrors(wavelength, np.full(50, 0.2), fe_h=0.0, per_dex=0.1, medium="vacuum", meta={})
    table.save(folder / "made_up_errors.npz")
    return folder


@pytest.fixture
def made_up(folder, monkeypatch):
    entry = Window(
        "made-up",
        (5863.0, 5867.5),
        "vacuum",
        SPACE,
        step=0.05,
        line_list="made_up_lines.npz",
        line_list_range=(5860.0, 5875.0),
        line_errors="made_up_errors.npz",
    )
    monkeypatch.setitem(WINDOWS, entry.name, entry)
    monkeypatch.setenv("EMUINFER_WEIGHTS", str(folder))
    return entry


def test_spectra_of_a_second_window(made_up):
    synthesize = eqx.filter_jit(lambda synthesizer: synthesizer(jnp.asarray(SUN)))
    synthesizer = LTESynthesizer(window="made-up", n_depth=16)
    assert synthesizer.labels is SPACE
    flux, continuum = synthesize(synthesizer)
    assert flux.shape == made_up.native_wavelength.shape == (91,)
    assert 0.2 < float(flux.min()) < 0.9 and (np.asarray(continuum) > 0).all()
    # The same lines, at the same wavelengths in air.
    air = convert_medium(made_up.native_wavelength, "vacuum", "air")
    lines = load_line_list(window=made_up)
    assert lines.source == "made up" and lines.covers == (5860.0, 5875.0)
    same = synthesize(LTESynthesizer(SPACE, air, line_list=lines, n_depth=16))[0]
    np.testing.assert_array_equal(flux, same)


def test_what_is_given_stands_in_place_of_the_windows(made_up):
    backend = make_backend("lte", window=made_up, wavelength=[5865.0, 5865.1, 5865.2], medium="air")
    assert backend.medium == "air" and list(backend.wavelength) == [5865.0, 5865.1, 5865.2]
    with pytest.raises(EmuinferError, match="outside the line list's 5860 to 5875 Å"):
        LTESynthesizer(window="made-up", wavelength=[4150.0, 4160.0])
    with pytest.raises(EmuinferError, match="outside the line list's 5090 to 5310 Å"):
        LTESynthesizer(wavelength=made_up.native_wavelength + 4000.0)
    with pytest.raises(EmuinferError, match="Did you mean 'made-up'"):
        make_backend("lte", window="made-upp")


def test_a_window_without_lines(made_up, monkeypatch):
    monkeypatch.setitem(
        WINDOWS, "bare", dataclasses.replace(made_up, name="bare", line_list=None, wavelength_range=(3863.0, 3867.5))
    )
    with pytest.raises(EmuinferError, match="window 'bare' has no line list"):
        LTESynthesizer(window="bare")


def test_a_grid_of_a_second_window(made_up, cli, tmp_path):
    path = tmp_path / "grid.h5"
    settings = ("--n", 3, "--workers", 0, "--option", "n_depth=16", "--output", path)
    status, _out, err = cli("grid", "make", "--window", "made-up", *settings)
    assert status == 0, err
    grid = Grid.load(path)
    assert len(grid) == 3 and grid.medium == "vacuum" and grid.label_space == SPACE
    np.testing.assert_array_equal(grid.wavelength, made_up.native_wavelength)
    assert window_of(grid) is made_up
    arrays = {"wavelength": grid.wavelength, "flux": grid.flux, "labels": grid.labels, "label_names": SPACE.names}
    np.savez(tmp_path / "spectra.npz", **arrays)
    imported = ("grid", "import", tmp_path / "spectra.npz", "--medium", "vacuum", "-o", tmp_path / "imported.h5")
    status, _, err = cli(*imported, "--domain", "made-up")
    assert status == 0, err
    assert Grid.load(tmp_path / "imported.h5").label_space == SPACE
    status, _, err = cli(*imported, "--domain", "optical", "--overwrite")
    assert status == 1 and "--domain is spanned or a window (optical-fgk, made-up); got 'optical'" in err
    status, _, err = cli("grid", "make", "--window", "made", "--n", 3, "--output", tmp_path / "other.h5")
    assert status == 1 and "Did you mean 'made-up'" in err


def test_a_check_takes_the_lines_of_the_grids_own_window(made_up, monkeypatch):
    wanted = []

    def load(path=None, *, window=None):
        wanted.append(window)
        return load_line_list(path, window=window)

    monkeypatch.setattr("emuinfer.grids.check.load_line_list", load)
    rng = np.random.default_rng(0)
    labels = rng.uniform(SPACE.lower, SPACE.upper, (40, 4))
    flux = 1 - 0.3 * rng.random((40, 1)) * np.exp(-0.5 * ((made_up.native_wavelength - 5865) / 0.3) ** 2)
    check_grid(Grid(labels, made_up.native_wavelength, flux, label_space=SPACE, medium="air"))
    assert wanted == [made_up]


def test_line_errors_of_a_second_window(made_up):
    emulator = dataclasses.make_dataclass("E", ["wavelength_range", "medium", "label_space"])
    table = LineErrors.shipped(emulator((5863.0, 5867.5), "vacuum", SPACE))
    assert table.medium == "vacuum" and table.fe_h == 0.0
    assert LineErrors.shipped(emulator((5863.0, 5867.5), "air", SPACE)) is None
    assert LineErrors.shipped(emulator((5100.0, 5300.0), "air", SPACE)).fe_h == -0.37
    assert LineErrors.shipped(emulator((5300.5, 5400.0), "air", SPACE)) is None


def test_mock_observations_are_made_with_the_lines_of_the_emulators_window(made_up, tmp_path, monkeypatch):
    from emuinfer.calibration.mock import load_source

    made = []
    monkeypatch.setattr("emuinfer.grids.generate_grid", lambda path, backend, n, **options: made.append(backend))
    emulator = types.SimpleNamespace(wavelength_range=(5863.5, 5864.5), medium="vacuum", label_space=SPACE)
    with pytest.raises(EmuinferError, match="spectra.h5"):  # which was not made
        load_source("lte", emulator, tmp_path, n=2, medium=None, seed=0, progress=False)
    assert made[0].medium == "vacuum" and made[0].provenance["line_list"] == "made up"
    assert made[0].wavelength[0] >= 5863.5 and made[0].wavelength[-1] <= 5864.5
