"""Molecules: equilibrium against a direct solution in float64, cross-sections against a sum of lines, bands against Turbospectrum."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import EmuinferError
from emuinfer.labels.windows import WHOLE_OPTICAL
from emuinfer.synthesis import LTESynthesizer, chemistry, eos, molecular_lines
from emuinfer.synthesis.elements import element_data

GRID = Path(__file__).parents[1] / ".." / "shared" / "data" / "grids" / "turbospectrum_4200_9200.npz"
C, N, O_, SI = 5, 6, 7, 13
TEMPERATURE = np.array([2300.0, 3000.0, 3600.0, 4300.0, 5500.0], np.float32)


@pytest.fixture(scope="module")
def tables():
    return chemistry.Molecules(), eos.ElementTables()


def solved(tables, carbon=0.0):
    molecules, elements = tables
    log = np.where(np.arange(92) == C, carbon, 0.0) + element_data()["abundance"] - 12.0
    abundance = jnp.asarray(10.0**log, jnp.float32)
    state = eos.solve(elements, jnp.asarray(TEMPERATURE), jnp.full(5, 1e4, jnp.float32), abundance)
    return state, abundance, chemistry.solve(molecules, elements, jnp.asarray(TEMPERATURE), state, abundance)


def balance(tables, state, abundance):
    """Amounts (cm^-3) and constants in float64: nuclei, atoms and ions for each neutral atom, oxides, hydrides, and C2, CN, N2."""
    molecules, elements = tables
    oxide, hydride, other = (np.asarray(x, float) for x in molecules.association(jnp.asarray(TEMPERATURE)))
    fractions = np.asarray(
        eos.ionisation_fractions(elements.ln_saha(jnp.asarray(TEMPERATURE)), state["ln_ne"][:, None]), float
    )
    nuclei = np.asarray(state["nuclei"], float)[:, None] * np.asarray(abundance, float)
    return nuclei, 1.0 / fractions[..., 0], oxide, hydride, other


@pytest.mark.parametrize("carbon", [-0.5, 0.0, 0.25, 0.5], ids=["poor", "solar", "as much as oxygen", "carbon star"])
def test_equilibrium_against_scipy_and_nuclei_are_kept(tables, carbon):
    """A direct minimisation: a root of the four balances in ln n, from another start, in float64."""
    from scipy.optimize import root

    state, abundance, result = solved(tables, carbon)
    nuclei, charge, oxide, hydride, other = balance(tables, state, abundance)
    h1, neutral = np.asarray(state["h1"], float), np.asarray(result["neutral"], float)

    def amounts(n, k):
        c, nitrogen, o, si = n
        return np.array([
            c * (charge[k, C] + hydride[k, C] * h1[k] + oxide[k, C] * o + other[k, 1] * nitrogen + 2 * other[k, 0] * c),
            nitrogen * (charge[k, N] + hydride[k, N] * h1[k] + other[k, 1] * c + 2 * other[k, 2] * nitrogen),
            o * (charge[k, O_] + hydride[k, O_] * h1[k] + oxide[k, C] * c + oxide[k, SI] * si),
            si * (charge[k, SI] + hydride[k, SI] * h1[k] + oxide[k, SI] * o),
        ])  # fmt: skip

    index = [C, N, O_, SI]
    for k in range(len(TEMPERATURE)):
        kept = amounts(neutral[k, index], k)
        np.testing.assert_allclose(kept, nuclei[k, index], rtol=2e-4)
        start = np.log(neutral[k, index]) + [0.5, -0.5, 0.3, 0.2]
        found = root(lambda x, k=k: np.log(amounts(np.exp(x), k) / nuclei[k, index]), start, method="lm", tol=1e-12)
        assert found.success
        np.testing.assert_allclose(np.log(neutral[k, index]), found.x, atol=5e-3)


def test_molecular_hydrogen_has_the_constant_of_its_equation_of_state(tables):
    """The tables' H2 (Barklem & Collet), of which the equation of state has Tsuji's fit: they are 16 per cent apart."""
    data = chemistry.constants()
    hydrogen = (
        np.interp(4000.0, data["temperature"], data["hydride_ln_k"][0]) - data["hydride_energy"][0] * 11604.518 / 4000.0
    )
    expected = np.log(1.380649e-16 * 4000.0) - hydrogen
    assert np.log(float(eos.h2_constant(jnp.float32(4000.0)))) == pytest.approx(expected, abs=0.2)


def test_where_molecules_are_gone_and_where_they_are_not(tables):
    *_, result = solved(tables)
    free = np.exp(np.asarray(result["ln_free"]))
    assert free.max() < 1.0001 and np.all(free[-1, 2:] > 0.98)
    assert free[2, C] < 0.1 and 0.2 < free[2, O_] < 0.7  # CO binds what there is of the rarer
    assert free[0, 21] < 0.05 and free[2, 25] > 0.99  # TiO at 2300 K; iron is free


def test_gradient_of_the_equilibrium(tables):
    """Forward mode against central differences of 0.02 dex of carbon."""

    def ln_oxygen(carbon):
        log = jnp.asarray(element_data()["abundance"] - 12.0, jnp.float32).at[C].add(carbon) * np.float32(np.log(10.0))
        state = eos.solve(tables[1], jnp.asarray(TEMPERATURE), jnp.full(5, 1e4, jnp.float32), jnp.exp(log))
        return chemistry.solve(tables[0], tables[1], jnp.asarray(TEMPERATURE), state, jnp.exp(log))["ln_free"][:, O_]

    one = jnp.float32(1.0)
    derivative = jax.jit(lambda x: jax.jvp(ln_oxygen, (x,), (one,))[1])(jnp.float32(-0.1))
    value = jax.jit(ln_oxygen)
    difference = (value(jnp.float32(-0.08)) - value(jnp.float32(-0.12))) / np.float32(0.04)
    np.testing.assert_allclose(derivative, difference, rtol=0.03, atol=1e-3)


@pytest.mark.parametrize("name, start", [("CN", 8000.0), ("C2", 5160.0), ("CH", 4310.0), ("MgH", 5180.0)])
def test_tables_against_a_sum_of_lines(name, start):
    """At a temperature and a microturbulence between the nodes, line by line in float64, without the interpolation."""
    wavelength = start + 0.02 * np.arange(250)
    t, vmic = 4321.0, 1.37
    lines = molecular_lines.MolecularLines(wavelength, (name,))
    assert lines.names == (name,)
    amount = 1e12  # of both atoms, per unit of their partition functions
    neutral = jnp.full((1, 92), amount, jnp.float32)
    value = lines(jnp.full(1, t, jnp.float32), jnp.zeros((1, 92)), neutral, jnp.zeros(1), jnp.float32(vmic))[:, 0]

    data = molecular_lines.line_data()
    species, expected = data["molecule"][data["species"]], np.zeros(len(wavelength))
    first, second, family, place = molecular_lines.MOLECULES[name]
    mass = element_data()["mass"]
    reduced = mass[first] * mass[second] / (mass[first] + mass[second])
    k = 1.380649e-16
    thermal = (2 * np.pi * reduced * 1.66053907e-24 * k * t / 6.62607015e-27**2) ** -1.5
    energy = float(chemistry.constants()[f"{family}_energy"][place])
    for i in np.flatnonzero((species == name) & (np.abs(data["wavelength"] - wavelength.mean()) < 4.0)):
        isotope, lam = int(data["isotope"][data["species"][i]]), data["wavelength"][i]
        fraction = molecular_lines.FRACTION[isotope] * (0.9893 if name == "C2" else 1.0)
        whole = isotope + {"CN": 14.007, "C2": 12.011}.get(name, 1.008)
        width = lam * np.sqrt(2 * k * t / (whole * 1.66053907e-24) + (vmic * 1e5) ** 2) / 2.99792458e10
        strength = 8.85282e-13 * lam**2 * 1e-8 * 10.0 ** float(data["log_gf"][i]) * fraction
        strength *= np.exp(-float(data["e_low"][i]) / (8.617333e-5 * t)) * (1 - np.exp(-1.438776877e8 / (lam * t)))
        expected += strength / (np.sqrt(np.pi) * width) * np.exp(-(((wavelength - lam) / width) ** 2))
    expected *= thermal * np.exp(energy / (8.617333e-5 * t)) * amount**2
    np.testing.assert_allclose(np.asarray(value, float), expected, atol=0.01 * expected.max())


run = eqx.filter_jit(lambda synthesizer, labels: synthesizer(labels)[0])


@pytest.mark.slow
@pytest.mark.comparison
def test_bands_against_turbospectrum():
    """CN, CH, MgH and C2, CN red: with molecules the cool stars of the grid agree several times better than without."""
    if not GRID.exists():
        pytest.skip("needs the Turbospectrum grid of the whole optical")
    grid = np.load(GRID)
    wavelength = np.round(4200.0 + 0.03 * np.arange(grid["flux"].shape[1]), 2)
    inside = np.zeros(len(wavelength), bool)
    bands = ((4214.0, 4216.0), (4311.0, 4313.0), (5163.0, 5165.0), (8110.0, 8112.0))
    for lo, hi in bands:
        inside |= (wavelength > lo) & (wavelength < hi)
    cool = np.flatnonzero((grid["labels"][:, 0] < 4700) & (grid["labels"][:, 2] > -1.0))[:3]
    reference = grid["flux"][cool][:, inside] / 50_000
    whole = LTESynthesizer(WHOLE_OPTICAL, wavelength[inside], solar_composition="asplund2009", n_depth=30)
    bare = eqx.tree_at(lambda s: s.molecules.table, whole, jnp.zeros_like(whole.molecules.table))
    residuals = {}
    for molecules, synthesizer in ((True, whole), (False, bare)):
        flux = np.stack([run(synthesizer, jnp.asarray(grid["labels"][i], jnp.float32)) for i in cool])
        residuals[molecules] = np.abs(flux - reference)
    for lo, hi in bands:
        here = (wavelength[inside] > lo) & (wavelength[inside] < hi)
        assert residuals[True][:, here].mean() < min(0.02, 0.3 * residuals[False][:, here].mean())


def test_unknown_molecules_are_named():
    with pytest.raises(EmuinferError, match="no lines of the molecule 'TiO'.* CH, C2, CN, MgH"):
        LTESynthesizer(wavelength=[5200.0, 5201.0], molecules=("TiO",))
