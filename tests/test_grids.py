"""Designs, the grid file and the import of arrays."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.stats import qmc

from emuinfer.errors import GridError, LabelError
from emuinfer.grids import Grid, describe, import_npz
from emuinfer.labels import sobol_design
from emuinfer.labels.space import LabelSpace
from emuinfer.labels.windows import OPTICAL_FGK

SPACE = LabelSpace(("teff", "logg"), (4000, 1), (7000, 5), constraints=(({"teff": 1e-3, "logg": -1.0}, 4.3),))
REAL_GRID = Path(__file__).parents[1] / ".." / "shared" / "data" / "grids" / "turbospectrum_5100_5300.npz"


def make_grid(n=40, n_wave=60, continuum=True):
    rng = np.random.default_rng(1)
    wave = np.linspace(5100, 5110, n_wave)
    thin = dict(continuum=1e6 * (1 + rng.random((n, 7))), continuum_wavelength=np.linspace(5100, 5110, 7))
    return Grid(
        sobol_design(SPACE, n),
        wave,
        rng.random((n, n_wave)),
        label_space=SPACE,
        medium="air",
        provenance={"code": "none", "options": {"x": 1}},
        continuum_unit="erg / (s cm2 Angstrom)",
        **(thin if continuum else {}),
    )


# ---- designs


def test_design_can_be_extended():
    whole = sobol_design(OPTICAL_FGK, 9000, seed=3)  # more than one block of the sequence
    assert np.array_equal(sobol_design(OPTICAL_FGK, 700, seed=3), whole[:700])
    assert np.array_equal(sobol_design(OPTICAL_FGK, 300, seed=3, start=8700), whole[8700:])
    assert not np.array_equal(sobol_design(OPTICAL_FGK, 700, seed=4), whole[:700])
    assert len(np.unique(whole, axis=0)) == len(whole)
    assert OPTICAL_FGK.contains(whole, tolerance=0).all()


def test_design_fills_the_box_more_evenly_than_random_points():
    box = LabelSpace(("teff", "logg", "fe_h", "vmic"), (4000, 1, -3, 0.5), (7000, 5, 0.5, 2.5))
    lower, upper = np.array(box.lower), np.array(box.upper)
    ours = qmc.discrepancy((sobol_design(box, 1000) - lower) / (upper - lower), method="L2-star")
    random = [qmc.discrepancy(np.random.default_rng(i).random((1000, 4)), method="L2-star") for i in range(5)]
    assert ours < 0.3 * min(random)


def test_design_fills_a_constrained_domain_in_proportion_to_volume():
    # The constraint cuts a triangle off the box: logg >= teff/1000 - 4.3 matters for teff > 5300 (logg = 1 there).
    points = sobol_design(SPACE, 2048)
    area = 3.0 * 4.0 - 0.5 * 1.7 * 1.7  # kK dex
    below = (points[:, 0] < 5300).mean()
    assert below == pytest.approx(1.3 * 4.0 / area, abs=0.005)  # random points: standard deviation 0.011
    assert (points[:, 1] > 3).mean() == pytest.approx(3.0 * 2.0 / area, abs=0.005)


def test_distance_from_the_edge_is_that_to_the_nearest_wall():
    space = LabelSpace(("x", "y"), (0.0, 0.0), (10.0, 2.0), constraints=(({"x": 0.1, "y": 1.0}, 2.0),))  # x/10 + y <= 2
    assert space.edge_distance([[5.0, 1.0], [0.0, 1.0], [11.0, 0.5]]) == pytest.approx(
        [1 / np.hypot(0.5, 1) * 0.5, 0.0, -0.2]
    )
    inside = space.contains(points := np.random.default_rng(0).uniform(-1, 11, (200, 2)), tolerance=0)
    assert np.array_equal(space.edge_distance(points) >= 0, inside)


def test_design_in_an_empty_domain_is_an_error():
    nowhere = LabelSpace(("teff", "logg"), (4000, 1), (7000, 5), constraints=(({"logg": 1.0}, 0.5),))
    with pytest.raises(GridError, match="meet the constraints"):
        sobol_design(nowhere, 5)


# ---- the file


def test_save_and_load_keep_everything(tmp_path):
    grid = make_grid()
    grid.save(tmp_path / "a.h5")
    for lazy in (False, True):
        back = Grid.load(tmp_path / "a.h5", lazy=lazy)
        assert np.array_equal(back.labels, grid.labels) and back.labels.dtype == np.float64
        assert np.array_equal(back.wavelength, grid.wavelength)
        assert np.array_equal(back.flux[:], grid.flux) and back.flux.dtype == np.float32
        assert np.array_equal(back.continuum[:], grid.continuum)
        assert np.array_equal(back.continuum_wavelength, grid.continuum_wavelength)
        assert back.continuum_unit == grid.continuum_unit
        assert back.label_space == SPACE and back.medium == "air" and back.provenance == grid.provenance
        assert back.hash == grid.hash and len(back) == 40
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    make_grid(continuum=False).save(tmp_path / "b.h5")
    assert Grid.load(tmp_path / "b.h5").continuum is None


def test_file_says_units_and_medium_to_any_hdf5_reader(tmp_path):
    make_grid().save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file["labels"].attrs["names"]) == ["teff", "logg"]
        assert list(file["labels"].attrs["units"]) == ["K", "dex(cm s-2)"]
        assert file["wavelength"].attrs["unit"] == "Angstrom" and file["wavelength"].attrs["medium"] == "air"
        assert file["continuum"].attrs["unit"] == "erg / (s cm2 Angstrom)"
        assert (file["status"][:] == 1).all()


def test_lazy_rows_follow_numpy_indexing(tmp_path):
    grid = make_grid()
    grid.save(tmp_path / "a.h5")
    flux = Grid.load(tmp_path / "a.h5", lazy=True).flux
    for key in (3, -1, slice(5, 30, 7), [7, 2, 2, 39], np.arange(40) % 3 == 0, (slice(None), 4), ([9, 1], slice(3, 8))):
        assert np.array_equal(flux[key], grid.flux[key]), key
    assert np.array_equal(np.asarray(flux), grid.flux)


def test_hash_depends_on_contents_only(tmp_path):
    a, b = make_grid(), make_grid()
    b.provenance = {"code": "other"}
    assert a.hash == b.hash
    c = make_grid()
    c.flux[3, 4] += 1e-3
    assert c.hash != a.hash


def test_subset(tmp_path):
    grid = make_grid()
    grid.save(tmp_path / "a.h5")
    rows = np.array([5, 1, 30])
    part, lazy = grid.subset(rows), Grid.load(tmp_path / "a.h5", lazy=True).subset(rows)
    assert np.array_equal(part.labels, grid.labels[rows]) and np.array_equal(part.flux, grid.flux[rows])
    assert lazy.hash == part.hash != grid.hash
    assert np.array_equal(lazy.continuum[:], grid.continuum[rows])
    assert len(grid.subset(grid.labels[:, 0] > 5500)) == (grid.labels[:, 0] > 5500).sum()
    with pytest.raises(GridError, match="rows 0 to 39"):
        grid.subset([3, 40])


@pytest.mark.parametrize("held_out", [0.1, 0.25, 0.3])
def test_split_is_repeatable_and_survives_growth(held_out):
    big, small = make_grid(n=200), make_grid(n=77)
    train, test = big.split(held_out, seed=2)
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(200))
    assert abs(len(test) - 200 * held_out) <= 1
    small_train, small_test = small.split(held_out, seed=2)
    assert set(small_test) <= set(test) and set(small_train) <= set(train)
    assert not np.array_equal(big.split(held_out, seed=3)[1], test)
    assert [len(part) for part in make_grid(n=3).split(0.1)] == [2, 1]


def test_describe_names_what_matters():
    text = describe(make_grid())
    for word in ("40 spectra", "5100.00 to 5110.00", "air", "teff", "[4000, 7000]", "logg", make_grid().hash):
        assert word in text


# ---- bad input


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(medium="ether"), "'air' or 'vacuum'"),
        (dict(flux=np.ones((4, 3))), r"flux must have shape \(4, 5\)"),
        (dict(wavelength=[1, 2, 2, 3, 4]), "strictly increasing"),
        (dict(flux=np.where(np.eye(4, 5), np.nan, 1)), "flux is not finite .* 4 of 4 rows: 0, 1, 2, 3"),
        (dict(continuum=np.ones((4, 2))), "continuum_wavelength"),
        (
            dict(labels=[[5000, 3], [5000, 3], [9000, 3], [5000, 3]]),
            "1 of 4 rows: 2. The first: teff = 9000 is outside",
        ),
    ],
)
def test_arrays_that_do_not_fit(change, message):
    arguments = dict(labels=[[5000, 3]] * 4, wavelength=np.arange(1, 6.0), flux=np.ones((4, 5)), medium="air")
    with pytest.raises(GridError, match=message):
        Grid(**{**arguments, **change}, label_space=SPACE)


def test_wrong_label_names():
    values = {"teff": np.full(4, 5000.0), "log_g": np.full(4, 3.0)}
    with pytest.raises(LabelError, match="Did you mean 'logg'"):
        Grid(values, np.arange(1, 6.0), np.ones((4, 5)), label_space=SPACE, medium="air")


def test_missing_foreign_and_newer_files(tmp_path):
    with pytest.raises(GridError, match="There is no grid file .*nowhere.h5"):
        Grid.load(tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("wavelength,flux\n")
    with pytest.raises(GridError, match="text.h5 is not an HDF5 file"):
        Grid.load(tmp_path / "text.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["spectra"] = np.ones(3)
    with pytest.raises(GridError, match="foreign.h5 is an HDF5 file but not an emuinfer grid"):
        Grid.load(tmp_path / "foreign.h5")
    make_grid().save(tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5", "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(GridError, match="version 99.*Update emuinfer"):
        Grid.load(tmp_path / "new.h5")


def test_truncated_file(tmp_path):
    make_grid().save(tmp_path / "a.h5")
    raw = (tmp_path / "a.h5").read_bytes()
    for size in (0, 100, len(raw) // 2, len(raw) - 1):
        (tmp_path / "a.h5").write_bytes(raw[:size])
        with pytest.raises(GridError, match="a.h5"):
            Grid.load(tmp_path / "a.h5")


def test_flipped_bytes_never_pass_for_data(tmp_path):
    grid, path = make_grid(), tmp_path / "a.h5"
    grid.save(path)
    raw = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["flux"].id.get_chunk_info(0).byte_offset
        labels = file["labels"].id.get_offset()
    for place in (chunk + 50, labels + 6):
        damaged = raw.copy()
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(GridError, match="a.h5 is a damaged grid file"):
            Grid.load(path)
    damaged = raw.copy()
    damaged[chunk + 50] ^= 0x55
    path.write_bytes(damaged)
    with pytest.raises(GridError, match="damaged"):
        Grid.load(path, lazy=True).flux[0]


def test_names_that_disagree_with_the_label_space(tmp_path):
    make_grid().save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["labels"].attrs["names"] = ["teff", "gravity"]
    with pytest.raises(GridError, match="called teff, gravity but its label space has teff, logg"):
        Grid.load(tmp_path / "a.h5")


# ---- import


def save_npz(path, drop=(), **change):
    labels = np.array([[3.0, 5000], [2.0, 4500], [4.0, 6000]])
    arrays = dict(wavelength=np.linspace(5100, 5101, 11), flux=np.full((3, 11), 0.9), labels=labels)
    arrays.update(label_names=["logg", "teff"], continuum=np.ones((3, 3)))
    arrays.update(change)
    np.savez(path, **{k: v for k, v in arrays.items() if k not in drop})
    return path


def test_import_npz(tmp_path):
    grid = import_npz(save_npz(tmp_path / "a.npz"), SPACE, "vacuum")
    assert grid.labels[1].tolist() == [4500, 2] and grid.medium == "vacuum"  # put in the label space's order
    assert grid.continuum_wavelength == pytest.approx([5100, 5100.5, 5101])
    spanned = import_npz(tmp_path / "a.npz", medium="air").label_space
    assert spanned.bounds == {"logg": (2, 4), "teff": (4500, 6000)}


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(drop=["flux", "labels"]), "lacks the arrays flux, labels; it has wavelength"),
        (dict(flux=np.ones((2, 11))), r"flux must have shape \(3, 11\)"),
        (dict(flux=np.array([[1.0] * 11, [np.nan] * 11, [1.0] * 11])), "flux is not finite .* 1 of 3 rows: 1"),
        (dict(labels=np.array([[3.0, 5000], [2.0, 4500], [9, 6000]])), "1 of 3 rows: 2. The first: logg = 9"),
        (dict(label_names=["logg", "temp"]), "has the labels logg, temp, but the label space has teff, logg"),
        (dict(label_names=["logg"]), "do not fit 1 label names"),
        (dict(continuum=np.ones((3, 4))), "do not spread evenly"),
        (dict(flux=np.array([["a"] * 11] * 3)), "'flux' must hold numbers"),
        (dict(flux=np.array([[None] * 11] * 3)), "cannot be read"),
    ],
)
def test_import_npz_of_bad_arrays(tmp_path, change, message):
    with pytest.raises(GridError, match=message) as error:
        import_npz(save_npz(tmp_path / "a.npz", **change), SPACE, "air")
    assert "a.npz" in str(error.value)


def test_import_npz_needs_a_file_and_a_medium(tmp_path):
    with pytest.raises(GridError, match="air or vacuum"):
        import_npz(save_npz(tmp_path / "a.npz"), SPACE)
    with pytest.raises(GridError, match="no file"):
        import_npz(tmp_path / "b.npz", SPACE, "air")
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-200])
    with pytest.raises(GridError, match="cannot be read"):
        import_npz(tmp_path / "c.npz", SPACE, "air")


@pytest.mark.skipif(not REAL_GRID.exists(), reason="needs the Turbospectrum grid")
def test_import_of_a_real_grid(tmp_path):
    grid = import_npz(REAL_GRID, OPTICAL_FGK, "air")
    assert len(grid) > 1000 and grid.label_space is OPTICAL_FGK
    assert grid.continuum_wavelength == pytest.approx(np.linspace(5100, 5300, 21))
    part = grid.subset(np.arange(100))
    part.save(tmp_path / "a.h5")
    assert np.array_equal(Grid.load(tmp_path / "a.h5").flux, part.flux)
    assert (tmp_path / "a.h5").stat().st_size < 0.7 * part.flux.nbytes
