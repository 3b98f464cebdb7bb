"""The PySME backend. Only the line list and the atmosphere reader can be tested without PySME and atmosnet."""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.special import gamma

from emuinfer.errors import EmuinferError
from emuinfer.grids import Grid, generate_grid
from emuinfer.labels.space import LabelSpace
from emuinfer.labels.windows import OPTICAL_FGK
from emuinfer.synthesis import atmosphere, load_line_list, make_backend
from emuinfer.synthesis.elements import atomic_number, element_data
from emuinfer.synthesis.pysme import NO_STARK, vald_columns

needs_atmosnet = pytest.mark.skipif(importlib.util.find_spec("atmosnet") is None, reason="atmosnet is not installed")
needs_pysme = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("pysme", "atmosnet")),
    reason="PySME or atmosnet is not installed",
)
SUN = np.array([5777.0, 4.44, 0.0, 1.0] + [0.0] * 8)
WINDOW = np.round(np.arange(5183.0, 5193.6, 0.02), 2)  # Mg b at 5183.60, Ti I 5192.97, Fe I 5192.34


# ---- the line list


@pytest.fixture(scope="module")
def lines():
    lines = load_line_list()
    return lines[np.argsort(lines.wavelength, kind="stable")]


def test_no_line_has_a_width_that_smelib_misreads(lines):
    """SMElib takes 0 to 10 for a linear width (enormous); the list has 1,500 factors on Unsöld's width in that range."""
    columns = vald_columns(lines)
    assert np.sum((lines.fdamp > 0) & (lines.fdamp < 20)) > 1000
    assert np.all((columns["gamvw"] < -5) & (columns["gamvw"] > -10) | (columns["gamvw"] > 20))
    assert np.all(np.diff(columns["wlcent"]) >= 0)  # SMElib refuses other orders
    assert np.all((columns["gamrad"] > 3) & (columns["gamrad"] < 11))
    assert set(columns["gamqst"]) == {NO_STARK}  # 0 would be SMElib's own, unbounded approximation
    stark = vald_columns(lines, stark=True)["gamqst"]
    assert np.all((stark > -9) & (stark < -4))


def test_widths_agree_with_the_formulas_of_smelib(lines):
    """Unsöld's theory and that of Anstee, Barklem & O'Mara as SMElib has them, at 10,000 K."""
    width, data = vald_columns(lines)["gamvw"], element_data()
    chi = data["ionisation_energy"][lines.element.astype(int) - 1, lines.ion.astype(int) - 1]
    upper = chi - lines.e_low - 12398.42 / lines.wavelength
    unsold = (lines.fdamp > 0) & (lines.fdamp < 20) & (upper > 0.5)
    n4 = lambda binding: (13.598 * lines.ion[unsold] ** 2.0 / binding[unsold]) ** 2
    c6 = 1.61e-33 * (n4(upper) - n4(chi - lines.e_low)) / lines.ion[unsold].astype(float) ** 2
    expected = np.log10(78654.213 * c6**0.4 * lines.fdamp[unsold])
    np.testing.assert_allclose(width[unsold], expected, atol=0.06)
    # sigma.alpha goes through unchanged, and means the width that our own synthesis uses
    from emuinfer.synthesis.lines import line_constants

    abo = lines.fdamp > 20
    np.testing.assert_array_equal(width[abo], lines.fdamp[abo].astype(float))
    sigma, alpha = np.floor(width[abo]) * 5.29177e-9**2, width[abo] % 1
    mass = data["mass"][lines.element[abo].astype(int) - 1]
    speed = np.sqrt(8 * 1.380658e-16 * 1e4 / np.pi / 1.66054e-24 * (1 / 1.008 + 1 / mass))
    expected = 2 * (4 / np.pi) ** (alpha / 2) * gamma(2 - alpha / 2) * sigma * speed * (speed / 1e6) ** -alpha
    np.testing.assert_allclose(np.exp(line_constants(lines)["ln_vdw"][abo]), expected, rtol=1e-3)


def test_isotopes_share_one_line_strength(lines):
    """Nd II 5293.16: its isotopes' components add up to the strength of the element (0.10 dex in the list)."""
    columns = vald_columns(lines)
    nd = (columns["species"] == "Nd 2") & (np.abs(lines.wavelength - 5293.17) < 0.05) & (lines.isotope > 0)
    assert len(set(lines.isotope[nd].tolist())) == 7
    assert np.log10(np.sum(10 ** columns["gflog"][nd])) == pytest.approx(float(lines.log_gf[nd].max()), abs=0.01)


def test_species_are_named_as_vald_does(lines):
    columns = vald_columns(lines)
    magnesium = np.flatnonzero(np.abs(columns["wlcent"] - 5183.604) < 0.002)
    assert [columns["species"][i] for i in magnesium if columns["gflog"][i] > -1] == ["Mg 1"]
    assert all(atomic_number(name.split()[0]) == z for name, z in zip(columns["species"], lines.element))


# ---- the atmosphere reader


def test_networks_give_logarithms_to_base_ten(monkeypatch):
    """Constant networks: 10**output; layers out of order, or below optical depth 50 (here 90 at the fifth), are left out."""
    mass = np.array([-3.0, -2.0, -2.5, -1.0, 0.0])
    outputs = [mass, np.full(5, 3.7), np.linspace(1, 5, 5), np.linspace(8, 12, 5), np.full(5, np.log10(90.0))]
    zero = {"w_array_0": np.zeros((2, 4)), "b_array_0": np.zeros(2), "w_array_1": np.zeros((2, 2)), "b_array_1": np.zeros(2),
            "w_array_2": np.zeros((5, 2)), "x_min": np.array([2500, -1, -4, -0.2]), "x_max": np.array([8500, 5.5, 1.5, 0.6])}  # fmt: skip
    monkeypatch.setattr(atmosphere, "_columns", lambda folder: [{**zero, "b_array_2": b} for b in outputs])
    layers = atmosphere.model_atmosphere(5777.0, 4.44, 0.0, 0.0, folder=Path("."))
    np.testing.assert_allclose(layers.column_mass, [1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(layers.temperature, 10**3.7)
    np.testing.assert_allclose(layers.gas_pressure, [10, 100, 1e4])
    np.testing.assert_allclose(layers.atoms + layers.electrons, layers.gas_pressure / (1.380649e-16 * 10**3.7))
    with pytest.raises(EmuinferError, match=r"TEFF = 8200; it must lie in \[2500, 8000\]"):
        atmosphere.model_atmosphere(8200.0, 4.0, 0.0, 0.0, folder=Path("."))


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(EmuinferError, match=r"no file .*emuinfer\[pysme\]"):
        atmosphere.model_atmosphere(5777.0, 4.44, 0.0, 0.0, folder=tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with open(foreign / atmosphere.FILE, "wb") as file:
        pickle.dump([{"labels": print}], file)  # a function: nothing but arrays is ever unpickled
    with pytest.raises(EmuinferError, match="not the file of atmosnet"):
        atmosphere.model_atmosphere(5777.0, 4.44, 0.0, 0.0, folder=foreign)


@pytest.mark.comparison
@needs_atmosnet
def test_solar_atmosphere_against_marcs():
    """MARCS has 6090 K at log P = 5.05 and 4505 K at log P = 3.54 (Gustafsson et al. 2008)."""
    layers = atmosphere.model_atmosphere(5777.0, 4.44, 0.0, 0.0)
    at = lambda log_p: np.interp(log_p, np.log10(layers.gas_pressure), layers.temperature)
    assert at(5.05) == pytest.approx(6090, abs=200) and at(3.54) == pytest.approx(4505, abs=80)
    # hydrostatic equilibrium: P = g m
    np.testing.assert_allclose(layers.gas_pressure[20:60], 10**4.44 * layers.column_mass[20:60], rtol=0.06)


# ---- the backend


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmuinferError, match=r'pip install "emuinfer\[pysme\]"'):
        make_backend("pysme")
    with pytest.raises(EmuinferError, match=r"atmosnet: pip install"):
        atmosphere.model_atmosphere(5777.0, 4.44, 0.0, 0.0)


@pytest.fixture(scope="module")
def backend():
    return make_backend("pysme", wavelength=WINDOW, solar_composition="mixed")


@pytest.mark.comparison
@needs_pysme
def test_sun_agrees_with_turbospectrum(backend, shared_data):
    """Another code, same lines and model: PySME's lines are 1 % too weak or strong at most places, not 10."""
    sun = np.load(shared_data / "grids" / "turbospectrum_sun.npz")
    at = np.searchsorted(sun["wavelength"], WINDOW - 0.005)
    flux, _ = backend(sun["labels"])
    assert flux.shape == (1, len(WINDOW)) and flux.dtype == np.float32
    assert np.abs(flux[0] - sun["flux"][at]).mean() < 0.006
    assert 0.9 < flux.max() <= 1.0005


@pytest.mark.comparison
@needs_pysme
def test_continuum_agrees_with_turbospectrum(backend, shared_data):
    """To 3 %; 6 % low in cool metal-poor giants, where it matters that PySME does not scatter light."""
    grid = np.load(shared_data / "grids" / "turbospectrum_5100_5300.npz")
    stars = [0, 2, 7]  # 4292 K dwarf, 6179 K dwarf, 4416 K giant with [Fe/H] = -2.9
    _, continuum = backend(grid["labels"][stars])
    ratio = continuum[:, np.abs(WINDOW - 5190.0).argmin()] * 1e6 / grid["continuum"][stars, 9]
    np.testing.assert_allclose(ratio, [1.0, 1.0, 0.95], atol=0.03)


@needs_pysme
def test_elements_move_their_own_lines(backend):
    """More magnesium deepens Mg b, more titanium Ti I 5192.97; elsewhere in the window between lines nothing moves."""
    rich = np.array([SUN, SUN, SUN])
    rich[1, OPTICAL_FGK.index("mg_fe")], rich[2, OPTICAL_FGK.index("ti_fe")] = 0.3, 0.3
    flux, _ = backend(rich)
    wing, titanium = np.abs(WINDOW - 5184.1).argmin(), np.abs(WINDOW - 5192.97).argmin()
    assert flux[1, wing] < flux[0, wing] - 0.01 and flux[2, titanium] < flux[0, titanium] - 0.02
    assert abs(flux[2, wing] - flux[0, wing]) < 2e-3


@needs_pysme
def test_no_state_is_left_behind(backend):
    """The library keeps state: a star must come out the same after any other, and in a copy of the backend."""
    giant = np.array([4416.0, 1.91, -2.93, 0.58] + [0.1] * 8)
    first, _ = backend(SUN)
    other, _ = backend(giant)
    np.testing.assert_array_equal(backend(SUN)[0], first)
    copy = pickle.loads(pickle.dumps(backend))
    assert copy.provenance == backend.provenance
    np.testing.assert_array_equal(copy(giant)[0], other)
    assert other.max() == pytest.approx(1.0, abs=2e-3)  # 0.96 if the continuum alone had a scattering source


@needs_pysme
def test_an_ended_library_is_reported_and_started_anew(backend):
    """SMElib ends its process where its equation of state does not converge; that must cost one spectrum and no more."""
    first, _ = backend(SUN)
    backend._library._process.kill()
    with pytest.raises(EmuinferError, match="PySME ended by itself"):
        backend(SUN)
    np.testing.assert_array_equal(backend(SUN)[0], first)
    with pytest.raises(EmuinferError, match="PySME failed: .*positive"):
        backend._library.intensities({"teff": -1.0, "logg": 4.4, "vmic": 1.0}, {}, np.zeros(99))


@needs_pysme
def test_grid_records_failures_with_labels_and_reason(tmp_path):
    """Half of this domain is hotter than the atmospheres; those spectra are failures on record, not gaps."""
    space = LabelSpace(("teff", "logg", "fe_h", "vmic"), (7500, 4, -0.5, 1), (8500, 4.5, 0, 1.5))
    options = dict(labels=space, wavelength=WINDOW[:20])
    report = generate_grid(tmp_path / "g.h5", ("pysme", options), 5, workers=0, batch=2, progress=False)
    grid = Grid.load(tmp_path / "g.h5")
    assert report["done"] + report["failed"] == 5 and report["done"] > 0 and report["failed"] > 0
    assert len(grid.labels) == report["done"] and grid.labels[:, 0].max() <= 8000
    assert len(grid.failed) == report["failed"]
    assert all(labels[0] > 8000 and "C3K atmospheres have no TEFF" in reason for labels, reason in grid.failed)
    assert grid.provenance["backend"]["atmospheres"].startswith("C3K") and grid.continuum_unit.startswith("1e6 erg")
