"""Import of grids that other codes left in .npz, HDF5 and FITS files and in directories of spectra."""

import json

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from grid_files import COLUMNS, FE_H, FLUX, LOGG, TEFF, WAVELENGTH, N, assert_same, own_wavelengths, write_folder

from emuinfer.cli.main import main
from emuinfer.errors import GridError
from emuinfer.grids import Grid, import_grid
from emuinfer.grids.import_spectra import label_name
from emuinfer.labels.space import LabelSpace

# ---- HDF5


def write_hdf5(path, layout):
    with h5py.File(path, "w") as file:
        if layout == "matrix":
            file["wavelength"], file["flux"] = WAVELENGTH, FLUX
            file["labels"] = np.stack([TEFF, LOGG, FE_H], axis=1)
            file["label_names"] = np.array(["Teff", "log g", "[Fe/H]"], dtype=h5py.string_dtype())
        elif layout == "attribute":
            file["grid/wave"], file["grid/spectra"] = WAVELENGTH / 10, FLUX.astype(float)
            file["grid/wave"].attrs["units"] = "nm"
            file["grid/params"] = np.stack([TEFF, LOGG, FE_H], axis=1)
            file["grid/params"].attrs["names"] = ["Teff", "logg", "feh"]
        elif layout == "columns":
            file["wl"], file["norm_flux"] = WAVELENGTH, FLUX
            for name, values in (("T_eff", TEFF), ("log_g", LOGG), ("FeH", FE_H)):
                file[f"stellar/{name}"] = values
        elif layout == "compound":
            file["lambda"], file["fluxes"] = WAVELENGTH, FLUX
            table = np.zeros(N, [("name", "S5"), ("teff", "f4"), ("logg", "f8"), ("fe_h", "f8")])
            table["teff"], table["logg"], table["fe_h"] = TEFF, LOGG, FE_H
            file["models"] = table


@pytest.mark.parametrize("layout", ["matrix", "attribute", "columns", "compound"])
def test_hdf5_layouts(tmp_path, layout):
    write_hdf5(tmp_path / "grid.hdf5", layout)
    grid = import_grid(tmp_path / "grid.hdf5", "vacuum")
    assert_same(grid, "vacuum")
    assert grid.provenance["imported_from"] == "grid.hdf5"


def test_hdf5_names_can_be_given(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["raw/flux"], file["normalised/flux"] = WAVELENGTH, 1e6 * FLUX, FLUX
        file["p"] = np.stack([FE_H, TEFF, LOGG], axis=1)
        file["p"].attrs["columns"] = ["z", "t", "g"]
    with pytest.raises(
        GridError, match="nothing is known to be the wavelength; there are: .*raw/flux.*--name wavelength="
    ):
        import_grid(tmp_path / "a.h5", "air")
    with pytest.raises(GridError, match="normalised/flux, raw/flux could all be the flux"):
        import_grid(tmp_path / "a.h5", "air", names={"wavelength": "x"})
    names = {"wavelength": "x", "flux": "normalised/flux", "labels": "p"}
    grid = import_grid(tmp_path / "a.h5", "air", names=names, labels={"teff": "t", "logg": "g", "fe_h": "z"})
    assert_same(grid)
    with pytest.raises(GridError, match="a.h5: there is no label column q; there are: z, t, g"):
        import_grid(tmp_path / "a.h5", "air", names=names, labels={"teff": "q"})
    with pytest.raises(GridError, match="there is no 'y'"):
        import_grid(tmp_path / "a.h5", "air", names={"wavelength": "y"})
    with pytest.raises(GridError, match="got 'flx'"):
        import_grid(tmp_path / "a.h5", "air", names={"flx": "y"})


def test_hdf5_that_does_not_fit(tmp_path):
    write_hdf5(tmp_path / "a.h5", "matrix")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["wavelength"].attrs["medium"] = "air"
    with pytest.raises(GridError, match="a.h5: the file says that its wavelengths are in air, but vacuum was given"):
        import_grid(tmp_path / "a.h5", "vacuum")
    grid = import_grid(tmp_path / "a.h5", "air")
    grid.save(tmp_path / "own.h5")
    with pytest.raises(GridError, match="own.h5 is a grid of emuinfer already"):
        import_grid(tmp_path / "own.h5", "air")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["label_names"]
    with pytest.raises(GridError, match="'labels' does not say what its columns are"):
        import_grid(tmp_path / "a.h5", "air")


# ---- FITS


def table_hdu(wavelength=None, header=None):
    columns = [fits.Column(name, "D", array=v) for name, v in (("TEFF", TEFF), ("LOGG", LOGG), ("FE_H", FE_H))]
    columns.append(fits.Column("MODEL", "8A", array=[f"m{i}" for i in range(N)]))
    columns.append(fits.Column("FLUX", f"{len(WAVELENGTH)}E", array=FLUX))
    if wavelength is not None:
        columns.append(fits.Column("WAVE", f"{len(WAVELENGTH)}D", unit="nm", array=wavelength))
    return fits.BinTableHDU.from_columns(columns, header=header, name="MODELS")


def test_fits_table_with_wavelengths_per_row(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), table_hdu(np.tile(WAVELENGTH / 10, (N, 1)))]).writeto(tmp_path / "a.fits")
    assert_same(import_grid(tmp_path / "a.fits", "air"))


def test_fits_table_with_a_wavelength_extension(tmp_path):
    image = fits.ImageHDU(WAVELENGTH, name="WAVELENGTH")
    fits.HDUList([fits.PrimaryHDU(), table_hdu(), image]).writeto(tmp_path / "a.fits.gz")
    assert_same(import_grid(tmp_path / "a.fits.gz", "vacuum"), "vacuum")


def test_fits_image_with_a_table_of_labels(tmp_path):
    labels = Table(COLUMNS)
    hdus = [fits.PrimaryHDU(FLUX), fits.ImageHDU(WAVELENGTH, name="WAVE"), fits.BinTableHDU(labels, name="LABELS")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    assert_same(import_grid(tmp_path / "a.fits", "air"))


def test_fits_that_cannot_be_used(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), table_hdu()]).writeto(tmp_path / "a.fits")
    with pytest.raises(GridError, match="a.fits: nothing is known to be the wavelength; there are: .*FLUX"):
        import_grid(tmp_path / "a.fits", "air")
    header = fits.Header({"MEDIUM": "vacuum"})
    wavelength = np.tile(WAVELENGTH / 10, (N, 1))
    fits.HDUList([fits.PrimaryHDU(), table_hdu(wavelength, header)]).writeto(tmp_path / "b.fits")
    with pytest.raises(GridError, match="b.fits: .* in vacuum, but air was given"):
        import_grid(tmp_path / "b.fits", "air")
    (tmp_path / "c.fits").write_bytes((tmp_path / "b.fits").read_bytes()[:4000])
    with pytest.raises(GridError, match="c.fits"):
        import_grid(tmp_path / "c.fits", "vacuum")
    (tmp_path / "d.txt").write_text("1 2 3")
    with pytest.raises(GridError, match="d.txt: this is no .npz, HDF5 or FITS file"):
        import_grid(tmp_path / "d.txt", "air")


# ---- directories


@pytest.mark.parametrize("format", ["fits", "hdf5"])
def test_rows_of_different_lengths(tmp_path, format):
    """Each spectrum a piece of its own of the same wavelengths."""
    pieces = [slice(i, len(WAVELENGTH) - 2 * i) for i in range(N)]
    ragged = lambda values: np.array([None, *values], dtype=object)[1:]
    wave, flux = ragged([WAVELENGTH[p] for p in pieces]), ragged([FLUX[i][p] for i, p in enumerate(pieces)])
    path = tmp_path / f"a.{format}"
    if format == "fits":
        columns = [fits.Column(name, "D", array=values) for name, values in COLUMNS.items()]
        columns += [fits.Column("wave", "PD()", array=wave), fits.Column("flux", "PE()", array=flux)]
        fits.BinTableHDU.from_columns(columns).writeto(path)
    else:
        with h5py.File(path, "w") as file:
            for name, values in (("wave", wave), ("flux", flux)):
                data = file.create_dataset(name, (N,), h5py.vlen_dtype(values[0].dtype))
                for i, row in enumerate(values):
                    data[i] = row
            for name, values in COLUMNS.items():
                file[name] = values
    grid = import_grid(path, "air", wavelength_range=(5001, 5011))
    inside = (WAVELENGTH >= 5001) & (WAVELENGTH <= 5011)
    np.testing.assert_array_equal(grid.flux, FLUX[:, inside])
    assert grid.provenance["resampled"]["kept"] == N


@pytest.mark.parametrize("kind", ["txt", "ecsv", "fits"])
def test_directories(tmp_path, kind):
    grid = import_grid(write_folder(tmp_path / "spectra", kind), "air")
    assert_same(grid)
    assert "resampled" not in grid.provenance
    assert grid.provenance["label_columns"] == {"teff": "Teff", "logg": "log g", "fe_h": "[Fe/H]"}


def test_label_tables_in_other_formats_and_places(tmp_path):
    folder = write_folder(tmp_path / "spectra")
    table = Table.read(folder / "labels.csv", format="ascii.csv")
    table.rename_column("file", "where")
    table.rename_columns(["log g", "[Fe/H]"], ["log_g", "fe_h"])
    table.write(tmp_path / "table.fits")
    table.write(tmp_path / "table.ecsv")
    for name in ("table.fits", "table.ecsv"):
        with pytest.raises(GridError, match="nothing is known to be the file"):
            import_grid(folder, "air", label_table=tmp_path / name)
        assert_same(import_grid(folder, "air", label_table=tmp_path / name, names={"file": "where"}))


def test_directories_that_do_not_fit(tmp_path):
    folder = write_folder(tmp_path / "spectra")
    (folder / "s4.txt").write_text("5000 1\n5001 nan\n5002 1\n5003 1\n5004 1\n")
    with pytest.raises(GridError, match="s4.txt: 1 fluxes are NaN"):
        import_grid(folder, "air")
    (folder / "s4.txt").write_text("no spectrum")
    with pytest.raises(GridError, match="s4.txt"):
        import_grid(folder, "air")
    (folder / "s4.txt").unlink()
    with pytest.raises(GridError, match="lists 1 files that do not exist, the first: .*s4.txt"):
        import_grid(folder, "air")
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace(f",{LOGG[2]},", ",,"))
    with pytest.raises(GridError, match=r"labels.csv: label 'log g' is missing in row 2 \(s2.txt\)"):
        import_grid(folder, "air")
    (folder / "labels.csv").unlink()
    with pytest.raises(GridError, match="Give the table of labels .*--label-table"):
        import_grid(folder, "air")


# ---- common to all


def test_medium_must_be_given(tmp_path):
    write_hdf5(tmp_path / "a.h5", "matrix")
    for medium in (None, "ether"):
        with pytest.raises(GridError, match="a.h5: say whether its wavelengths are in air or vacuum"):
            import_grid(tmp_path / "a.h5", medium)


def test_labels_must_fit_the_domain(tmp_path):
    write_hdf5(tmp_path / "a.h5", "matrix")
    space = LabelSpace(("teff", "logg", "m_h"), (4000, 0, -2), (7000, 5, 1))
    with pytest.raises(GridError, match="a.h5: it has the labels teff, logg, fe_h, but the domain has teff, logg, m_h"):
        import_grid(tmp_path / "a.h5", "air", label_space=space)
    assert import_grid(
        tmp_path / "a.h5", "air", label_space=space, labels={"teff": "Teff", "logg": "log g", "m_h": "[Fe/H]"}
    ).label_space is space  # fmt: skip
    narrow = LabelSpace(("teff", "logg", "fe_h"), (6000, 0, -2), (7000, 5, 1))
    with pytest.raises(GridError, match="a.h5: labels are outside the label space"):
        import_grid(tmp_path / "a.h5", "air", label_space=narrow)


@pytest.mark.parametrize(
    "text, name",
    [("Teff", "teff"), ("T_eff", "teff"), ("log g", "logg"), ("[Mg/Fe]", "mg_fe"), ("FE_H", "fe_h"), ("v_mic", "vmic")],
)
def test_spellings_of_labels(text, name):
    assert label_name(text) == name


def test_command(tmp_path, capsys):
    def call(*words):
        with pytest.raises(SystemExit) as exit:
            main(["grid", "import", *map(str, words)])
        return exit.value.code, capsys.readouterr()

    folder = write_folder(tmp_path / "spectra", wavelengths=own_wavelengths())
    labels = ("--label", "teff=Teff", "--label", "logg=log g", "--label", "fe_h=[Fe/H]")
    status, out = call(folder, "--medium", "air", *labels, "--step", 0.05, "--lose-resolution", "-o", tmp_path / "a.h5")
    assert status == 0 and "Brought to common wavelengths: 9 averaged" in out.out
    grid = Grid.load(tmp_path / "a.h5")
    assert grid.label_space.names == ("teff", "logg", "fe_h") and len(grid) == N
    json.dumps(grid.provenance)
    status, out = call(folder, "--medium", "air", "--label", "teff", "-o", tmp_path / "b.h5")
    assert status == 1 and "--label takes NAME=NAME" in out.err
    status, out = call(folder, "-o", tmp_path / "b.h5")
    assert status == 2
