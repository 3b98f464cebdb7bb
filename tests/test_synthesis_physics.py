"""Equation of state, opacities, profiles and formal solution against independent formulas and values."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expn, wofz

from emuinfer.synthesis import eos, opacity, structure, transfer
from emuinfer.synthesis.elements import ALPHA, abundance_matrix, atomic_number, element_data, solar_composition
from emuinfer.synthesis.profile import lorentz_wing, voigt

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def tables():
    return eos.ElementTables()


def abundances(metallicity=0.0):
    log = element_data()["abundance"] - 12.0 + metallicity * (np.arange(92) >= 2)
    return jnp.asarray(10.0**log, jnp.float32)


PURE_HYDROGEN = jnp.zeros(92).at[0].set(1.0)
solve = jax.jit(eos.solve)


@pytest.mark.parametrize("temperature, pressure", [(6000.0, 1e3), (9000.0, 1e2), (12000.0, 1e4), (25000.0, 1.0)])
def test_pure_hydrogen_ionises_as_sahas_quadratic(tables, temperature, pressure):
    state = solve(tables, jnp.float32(temperature), jnp.float32(pressure), PURE_HYDROGEN)
    # by hand, in float64: n_e^2 / n_HI = (2 pi m k T / h^2)^1.5 exp(-chi / kT), H2 and H- neglected
    k_ev = 8.617333e-5
    saha = 2.4146830e15 * temperature**1.5 * np.exp(-13.598434 / (k_ev * temperature))
    total = pressure / (1.380649e-16 * temperature)
    electrons = saha * (np.sqrt(1.0 + total / saha) - 1.0)  # n_e^2 = S (N - 2 n_e)
    assert np.exp(state["ln_ne"]) == pytest.approx(electrons, rel=2e-3)
    assert state["h1"] + np.exp(state["ln_ne"]) * 2 == pytest.approx(total, rel=2e-3)


def test_hydrogen_is_neutral_when_cool_and_ionised_when_hot(tables):
    state = solve(tables, jnp.array([4000.0, 25000.0]), jnp.array([1e4, 1.0]), abundances())
    ionised = 1.0 - (state["h1"] + 2.0 * state["h2"]) / state["nuclei"]
    assert abs(ionised[0]) < 1e-5 and ionised[1] > 0.999


def test_charges_and_particles_balance(tables):
    t, p = jnp.array([3000.0, 4500.0, 5800.0, 8000.0, 11000.0]), jnp.array([3e4, 1e3, 1e5, 1e5, 2e5])
    abundance = abundances()
    state = solve(tables, t, p, abundance)
    fractions = np.asarray(eos.ionisation_fractions(tables.ln_saha(t), state["ln_ne"][:, None]), float)
    charge = np.sum(fractions * [0.0, 1.0, 2.0], axis=-1)
    nuclei, a = np.asarray(state["nuclei"], float)[:, None], np.asarray(abundance, float)
    h1, h2, electrons = (np.asarray(x, float) for x in (state["h1"], state["h2"], np.exp(state["ln_ne"])))
    h_minus = np.asarray(eos.h_minus_constant(t)) * electrons * h1
    positive = h1 * fractions[:, 0, 1] / fractions[:, 0, 0] + np.sum((nuclei * a * charge)[:, 1:], axis=1)
    np.testing.assert_allclose(positive - h_minus, electrons, rtol=2e-3)
    heavy = nuclei[:, 0] * (1.0 + a[1:].sum()) - h2
    np.testing.assert_allclose(heavy + electrons, np.asarray(p / t, float) / 1.380649e-16, rtol=2e-3)


def test_gradients_of_the_electron_density(tables):
    """Reverse mode through the Newton iteration against central differences of 2 per cent."""
    ln_ne = jax.jit(lambda x: eos.solve(tables, x[0], x[1], abundances())["ln_ne"])
    x = jnp.array([5200.0, 3e4])
    gradient = jax.jit(jax.grad(ln_ne))(x)
    for i in range(2):
        h = jnp.zeros(2).at[i].set(0.02 * x[i])
        assert float(gradient[i]) == pytest.approx(float((ln_ne(x + h) - ln_ne(x - h)) / (2.0 * h[i])), rel=0.02)


def test_molecular_hydrogen_takes_over_when_cool_and_dense(tables):
    state = solve(tables, jnp.array([2000.0, 4000.0, 6000.0]), jnp.array([1e6, 1e6, 1e6]), abundances())
    share = 2.0 * state["h2"] / state["nuclei"]
    assert share[0] > 0.95 and 0.05 < share[1] < 0.5 and share[2] < 0.02


@pytest.mark.comparison
@pytest.mark.parametrize(
    "symbol, temperature, levels",
    [  # statistical weights and energies (eV) of the lowest terms, NIST Atomic Spectra Database
        ("Na", 5000.0, [(2, 0.0), (6, 2.104), (2, 3.191), (10, 3.617), (6, 3.753)]),
        ("Mg", 6000.0, [(1, 0.0), (9, 2.714), (3, 4.346), (3, 5.108)]),
        ("Ca", 5000.0, [(1, 0.0), (9, 1.890), (15, 2.524), (5, 2.709), (3, 2.933), (3, 3.910)]),
    ],
)
def test_partition_functions_are_sums_over_levels(tables, symbol, temperature, levels):
    expected = sum(g * np.exp(-energy / (8.617333e-5 * temperature)) for g, energy in levels)
    ln_u = tables.ln_partition(jnp.float32(temperature))[atomic_number(symbol) - 1, 0]
    assert np.exp(ln_u) == pytest.approx(expected, rel=0.01)


@pytest.mark.comparison
def test_h_minus_photodetachment_cross_section():
    """The cross-section peaks near 8500 Å at 4.0e-17 cm^2 (Wishart 1979); free-free is 2 per cent of it at 3000 K."""
    t, ln_ne, h1 = 3000.0, np.log(1e10), 1e17
    density = eos.h_minus_constant(jnp.float32(t)) * 1e10 * h1
    wavelength = jnp.array([5000.0, 8500.0, 14000.0])
    sigma = opacity.h_minus(wavelength, t, ln_ne, h1) / (density * opacity.stimulated(wavelength, t))
    assert float(sigma[1]) == pytest.approx(4.05e-17, rel=0.04)
    assert 0.6 < sigma[0] / sigma[1] < 0.8 and sigma[2] < 0.6 * sigma[1]


@pytest.mark.comparison
def test_marcs_sun():
    """Electron pressure and opacity at 5000 Å of the MARCS model of the Sun, at its temperatures and pressures."""
    path = DATA / "reference" / "marcs_sun.mod"
    if not path.exists():
        pytest.skip("needs the MARCS model of the Sun")
    text = path.read_text().splitlines()
    headers = [i for i, line in enumerate(text) if line.split()[:2] == ["k", "lgTauR"]]
    first, second = (np.array([line.split() for line in text[i + 1 : i + 57]], float) for i in headers[:2])
    t, pe, pg = first[:, 4:7].T
    slope = np.gradient(10.0 ** first[:, 2], second[:, -1])  # d tau_5000 / d column mass
    abundance = jnp.asarray(10.0 ** (element_data()["abundance_2007"] - 12.0), jnp.float32)  # the model's composition
    arrays = (jnp.asarray(x, jnp.float32) for x in (t, pg))
    kappa, state, _ = jax.jit(structure.opacity_5000)(eos.ElementTables(), *arrays, abundance)
    np.testing.assert_allclose(np.exp(state["ln_ne"]) * 1.380649e-16 * t, pe, rtol=0.02)
    np.testing.assert_allclose(kappa[1:-1], slope[1:-1], rtol=0.1)
    formed = (first[:, 2] > -3) & (first[:, 2] < 0)
    np.testing.assert_allclose(np.asarray(kappa)[formed], slope[formed], rtol=0.07)


@pytest.mark.comparison
def test_planck_against_astropy():
    from astropy import units as u
    from astropy.modeling.physical_models import BlackBody

    t = np.array([3000.0, 5777.0, 12000.0])
    unit = u.erg / (u.s * u.cm**2 * u.AA * u.sr)
    expected = [BlackBody(temperature=x * u.K, scale=1.0 * unit)(5200.0 * u.AA).value for x in t]
    np.testing.assert_allclose(opacity.planck(5200.0, jnp.asarray(t)) * 1e6, expected, rtol=1e-4)


@pytest.mark.comparison
def test_voigt_against_the_faddeeva_function():
    a = np.array([1e-4, 1e-3, 1e-2, 0.1, 0.5, 2.0, 10.0], np.float32)[:, None]
    u = np.concatenate([np.linspace(0.0, 12.0, 800), np.logspace(1.0, 5.0, 60)]).astype(np.float32)
    expected = wofz(u + 1j * a.astype(float)).real
    value = np.asarray(jax.jit(voigt)(a, u), float)
    assert np.max(np.abs(value - expected)) < 3e-6
    assert np.max(np.abs(value / expected - 1.0)[:, (u < 3) | (u > 7.8)]) < 2e-3
    far = np.abs(u) > 12
    np.testing.assert_allclose(np.asarray(lorentz_wing(a, u))[:, far], expected[:, far], rtol=2e-3)


def test_eddington_barbier_is_exact_for_a_linear_source_function():
    """S = a + b tau gives pi F = pi (a + 2/3 b), and the source at tau = 2/3."""
    ln_tau = jnp.linspace(-14.0, 5.0, 120)
    tau = jnp.exp(ln_tau)
    flux = transfer.emergent_flux(tau, 1.0 + 2.0 * tau)
    assert float(flux) == pytest.approx(np.pi * (1.0 + 2.0 * 2.0 / 3.0), rel=2e-3)


@pytest.mark.comparison
def test_flux_of_a_curved_source_function_against_the_exponential_integral():
    tau = np.exp(np.linspace(-14.0, 4.0, 400))
    source = np.exp(-tau) + np.sqrt(1.0 + tau)
    fine = np.exp(np.linspace(-16.0, 4.5, 20001))
    exact = 2.0 * np.pi * np.trapezoid((np.exp(-fine) + np.sqrt(1.0 + fine)) * expn(2, fine) * fine, np.log(fine))
    flux = transfer.emergent_flux(jnp.asarray(tau, jnp.float32), jnp.asarray(source, jnp.float32))
    assert float(flux) == pytest.approx(exact, rel=2e-3)


def test_optical_depth_of_a_constant_ratio():
    ln_tau = jnp.linspace(-13.8, 4.0, 56)
    tau = transfer.optical_depth(ln_tau, 2.5 * jnp.ones(56))
    np.testing.assert_allclose(tau[20:], 2.5 * np.exp(ln_tau[20:]), rtol=2e-2)


@pytest.mark.comparison
@pytest.mark.parametrize("name", structure.ANALYTIC)
def test_published_temperature_relations_give_the_effective_temperature(name):
    """T = Teff near tau = 2/3 in the grey atmosphere; solar fits are hotter there by up to 10 per cent."""
    relation = structure.ANALYTIC[name]
    assert 0.97 < float(relation(2.0 / 3.0)) ** 0.25 < 1.10
    tau = jnp.logspace(-5, 2, 50)
    assert np.all(np.diff(relation(tau)) > 0)


def test_abundances_follow_their_labels():
    names = ("teff", "logg", "fe_h", "vmic", "mg_fe", "ti_fe")
    matrix = abundance_matrix(names)
    iron, magnesium, silicon, titanium = (atomic_number(s) - 1 for s in ("Fe", "Mg", "Si", "Ti"))
    labels = np.array([5000.0, 4.0, -1.0, 1.0, 0.4, 0.1])
    shift = labels @ matrix
    assert shift[:2] == pytest.approx(0.0) and shift[iron] == pytest.approx(-1.0)
    assert shift[[magnesium, silicon]] == pytest.approx(-0.6) and shift[titanium] == pytest.approx(-0.9)
    assert "Ti" in ALPHA


def test_solar_compositions_share_the_labelled_elements():
    mixed, pure = (solar_composition(n, ("fe_h", "mn_fe")) for n in ("mixed", "asplund2009"))
    for symbol in ("Fe", "Mn", "Mg", "H"):
        assert mixed[atomic_number(symbol) - 1] == pure[atomic_number(symbol) - 1]
    assert pure[atomic_number("Fe") - 1] == pytest.approx(-4.50)
    assert mixed[atomic_number("Ce") - 1] == pytest.approx(-10.30)
