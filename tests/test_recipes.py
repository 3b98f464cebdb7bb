"""How the packaged data were made: the recipes run, on little data, and give what is shipped."""

import csv
import gzip
import types

import numpy as np
import pytest

from emuinfer.labels import OPTICAL_FGK, LabelSpace
from emuinfer.labels.windows import default_window
from emuinfer.likelihoods.line_errors import LineErrors
from emuinfer.recipes import example_spectrum, line_errors, line_list, temperature_table
from emuinfer.synthesis import load_line_list

SPACE = LabelSpace(("teff", "logg", "fe_h", "vmic"), (5000, 3.5, -0.5, 0.8), (6000, 4.8, 0.3, 1.6))


@pytest.mark.parametrize("space", [OPTICAL_FGK, SPACE], ids=["fgk", "small"])
def test_atmospheres_for_a_line_list(space):
    labels = line_list.sample_domain(space, 16)
    assert space.contains(labels, tolerance=0).all()
    assert (labels[:-16, space.index("fe_h")] == space.bounds["fe_h"][1]).all()
    assert set(labels[:-16, space.index("vmic")]) == set(space.bounds["vmic"])


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_a_line_list_from_csv(tmp_path, suffix):
    known = load_line_list()
    rows = np.flatnonzero((known.wavelength > 5183) & (known.wavelength < 5184) & (known.isotope == 0))
    names = {26: "Fe", 12: "Mg", 22: "Ti", 24: "Cr"}
    rows = [i for i in rows if int(known.element[i]) in names][:6]
    text = [("wl", "el", "ion", "iso", "elow", "loggf", "fdamp", "gup", "grad")]
    for i in rows:
        numbers = (known.e_low[i], known.log_gf[i], known.fdamp[i], known.g_up[i], known.gamma_rad[i])
        text.append((known.wavelength[i], names[int(known.element[i])], known.ion[i], 0, *numbers))
    with (gzip.open if suffix.endswith("gz") else open)(tmp_path / f"lines.{suffix}", "wt", newline="") as file:
        csv.writer(file).writerows(text)
    line_list.main([str(tmp_path / f"lines.{suffix}"), "--output", str(tmp_path / "lines.npz")])
    made = load_line_list(tmp_path / "lines.npz")
    np.testing.assert_allclose(made.wavelength, known.wavelength[rows])
    np.testing.assert_array_equal(made.element, known.element[rows])
    matter = known.reach[rows] > 0.05
    assert matter.any()
    np.testing.assert_allclose(made.reach[matter], known.reach[rows][matter], rtol=0.1)


def test_atmospheres_for_the_temperature_table():
    points = temperature_table.sample_domain(OPTICAL_FGK, 2000)
    assert points.shape == (2000, 4)
    margin = points[:, 1] - (points[:, 0] / 1000 - 4.3)
    assert -0.1 - 1e-9 <= margin.min() < 0  # a little beyond the domain's constraint


def test_the_example_is_cut_to_the_window(tmp_path):
    from astropy.io import fits

    wavelength = np.arange(5000.0, 5400.0, 0.5)
    names = ("wavelength", "flux", "uncertainty")
    columns = [fits.Column(name, "D", array=wavelength) for name in names]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(tmp_path / "in.fits")
    example_spectrum.build(str(tmp_path / "in.fits"), str(tmp_path / "out.fits"))
    lo, hi = default_window().wavelength_range
    with fits.open(tmp_path / "out.fits") as hdus:
        kept = hdus[1].data["wavelength"]
        assert (kept[0], kept[-1]) == (lo - 5, hi + 5) == (5095, 5305)
        assert hdus[1].header["MEDIUM"] == "air"


def test_line_errors_are_residuals_over_depths(tmp_path, monkeypatch):
    wavelength = np.linspace(5150.0, 5160.0, 2000)
    depth = 0.1 + 0.5 * np.exp(-0.5 * ((wavelength - 5155) / 0.3) ** 2)
    model = types.SimpleNamespace(wavelength=wavelength)
    monkeypatch.setattr(line_errors, "residual_and_depth", lambda fit: (0.2 * depth, depth))
    monkeypatch.setattr(line_errors, "load_emulator", lambda name: types.SimpleNamespace(medium="air"))
    monkeypatch.setattr(line_errors, "StellarModel", lambda *arguments, **options: model)
    monkeypatch.setattr(line_errors, "find_optimum", lambda model: types.SimpleNamespace(values={"rv": 30.0}))
    line_errors.main(["any", str(tmp_path / "table.npz"), "--per-dex", "0.3"])
    table = LineErrors.load(tmp_path / "table.npz")
    assert table.medium == "air" and table.per_dex == 0.3 and table.fe_h == -0.37
    np.testing.assert_allclose(table.wavelength, wavelength / (1 + 30 / 299_792.458), rtol=1e-6)
    np.testing.assert_allclose(table.relative, 0.2 * depth / (depth + 0.01), atol=0.01)


@pytest.mark.slow
def test_line_errors_of_the_first_window_are_those_shipped():
    from emuinfer import load_emulator

    emulator = load_emulator("optical-fgk")
    made, shipped = line_errors.measure_line_errors(emulator), LineErrors.shipped(emulator)
    np.testing.assert_allclose(made.wavelength, shipped.wavelength, atol=0.01)
    assert np.corrcoef(made.relative, shipped.relative)[0, 1] > 0.99
    assert made.meta["median"] == pytest.approx(shipped.meta["median"], rel=0.05)
