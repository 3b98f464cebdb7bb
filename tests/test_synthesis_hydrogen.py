"""Lines and edges of hydrogen, scattering, and the whole optical as a range, against independent formulas and the Sun."""

import pickle
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import EmuinferError
from emuinfer.labels import OPTICAL_FGK, LabelSpace
from emuinfer.synthesis import LTESynthesizer, hydrogen, load_line_list, make_backend, opacity, transfer

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
SPACE = LabelSpace(("teff", "logg", "fe_h", "vmic"), (4000, 0.5, -3.0, 0.5), (7000, 5.0, 0.5, 2.5))
SUN = np.array([5772.0, 4.438, 0.0, 1.0], np.float32)
run = eqx.filter_jit(lambda synthesizer, labels: synthesizer(labels))


def test_stark_profiles_are_normalised():
    """Their integrals over frequency are 1; the table misses up to 8 per cent where a Doppler core meets the wings."""
    from scipy.interpolate import CubicSpline

    data = hydrogen.profiles()
    x = data["arsinh_u"]
    fine = np.linspace(0.0, x[-1], 4000)
    for line in range(0, len(data["upper"]), 5):
        profile = np.exp(
            CubicSpline(x, data["ln_profile"][line], axis=0)(fine)
        )  # (n_fine, n_electrons, n_temperatures)
        integral = 2.0 * np.trapezoid(profile, np.sinh(fine), axis=0)
        assert np.all((integral > 0.90) & (integral < 1.03)) and np.median(integral) > 0.96


def test_wings_are_those_of_holtsmark():
    """In the far wing of Hβ the opacity is proportional to the electron density and falls as the power -2.5 of the detuning."""
    data = hydrogen.profiles()
    u, line, t = np.sinh(data["arsinh_u"]), 1, 1
    ln = data["ln_profile"][line]
    wing = (u > 60) & (u < 300)
    slope = np.gradient(ln[1:, 8, t], np.log(u[1:]))[wing[1:]]
    np.testing.assert_allclose(slope, -2.5, atol=0.35)
    ratio = ln[wing, 8, t] - ln[wing, 6, t]
    np.testing.assert_allclose(ratio, np.log(10.0), atol=0.35)


def test_cool_thin_gas_gives_a_doppler_core():
    """At 10^10 electrons per cm^3 the core of Hα is a Gaussian of the thermal width and of microturbulence."""
    wavelength = np.round(np.arange(6560.0, 6566.0, 0.02), 2)
    lines = hydrogen.HydrogenLines(wavelength)
    one = lambda value: jnp.full(1, value, jnp.float32)
    alpha = np.asarray(lines(one(6000.0), one(np.log(1e10)), one(1e12), one(1e11), jnp.float32(5.0)))[:, 0]
    centre = wavelength[np.argmax(alpha)]
    assert centre == pytest.approx(6562.8, abs=0.1)
    width = 6562.8 * np.sqrt(2 * 1.380649e-16 * 6000.0 / (1.00784 * 1.66053907e-24) + 25e10) / 2.99792458e10
    expected = np.exp(-(((wavelength - centre) / width) ** 2))
    inside = np.abs(wavelength - centre) < 1.5 * width
    np.testing.assert_allclose((alpha / alpha.max())[inside], expected[inside], atol=0.03)
    # pi e^2 f / (m c) N_2: f = 0.6407 (Wiese & Fuhr 2009), N_2 from Boltzmann
    population = (
        1e12 * 4.0 * np.exp(-10.199 / (8.617333e-5 * 6000.0)) * (1 - np.exp(-1.438776877e8 / (6562.8 * 6000.0)))
    )
    integral = np.sum(alpha) * 0.02 * 2.99792458e18 / 6562.8**2
    assert integral == pytest.approx(0.02654 * 0.6407 * population, rel=0.03)


def test_levels_dissolve():
    """High levels and dense plasmas; to first order the charges' term is that of Hummer & Mihalas, as computed by hand for n = 12."""
    densities = (jnp.float32(1e14), jnp.float32(1e16), jnp.float32(1e15))
    levels = jnp.arange(2.0, 40.0)
    w = np.asarray(opacity.occupation(levels, *densities))
    assert np.all(np.diff(w) <= 0) and w[0] > 0.999 and w[-1] < 1e-3
    n = 12.0
    k = 16 / 3 * (n / (n + 1)) ** 2 * (n + 7 / 6) / (n**2 + n + 0.5)
    distance = 1.43996e-7 / (13.598 / n**2 * np.sqrt(k))  # e^2 / (K^(1/2) chi), cm
    expected = np.exp(-4 / 3 * np.pi * 16 * distance**3 * 1e14)
    value = opacity.occupation(jnp.float32(n), jnp.float32(1e14), jnp.float32(0.0), jnp.float32(0.0))
    assert float(value) == pytest.approx(expected, rel=1e-3)


def test_paschen_edge():
    """Bound-free absorption of n = 3 stops at 8204 Å in thin gas, and fades away behind it where levels dissolve."""
    wavelength = jnp.array([8100.0, 8190.0, 8230.0, 8300.0, 8500.0, 8900.0])
    thin, dense = (
        np.asarray(opacity.hydrogen_with_edges(wavelength, jnp.float32(9000.0), jnp.float32(np.log(ne)), 1e2, 1e1))
        for ne in (1e5, 1e15)
    )
    drop = thin[2] / thin[1]
    # n = 3 beside higher levels: their sum by hand with Gaunt factors of 1, in units of n = 3
    boltzmann = lambda n: n**-3.0 * np.exp(13.598 / n**2 / (8.617333e-5 * 9000.0))
    higher = sum(boltzmann(n) for n in range(4, 200)) + 8.617333e-5 * 9000.0 / (2 * 13.598)
    assert drop == pytest.approx(higher / (higher + boltzmann(3.0)), abs=0.05)  # Gaunt factors are 0.92 to 1.17
    np.testing.assert_allclose(dense[:2], thin[:2], rtol=0.03)  # the far tail of the Balmer edge
    assert np.all(dense[2:] > 1.02 * thin[2:]) and dense[2] > dense[1] * 0.9 and dense[-1] < 0.8 * dense[1]
    below = jnp.linspace(5000.0, 8000.0, 7)
    full = opacity.hydrogen_with_edges(below, jnp.float32(6000.0), jnp.float32(np.log(1e13)), 1e17, 1e16)
    np.testing.assert_allclose(full, opacity.hydrogen(below, jnp.float32(6000.0), 1e17), rtol=0.02)


def test_scattering_in_the_eddington_approximation():
    """In a half-space with constant B and a share e of absorption 1 - J / B falls as exp(-(3 e)^(1/2) tau), from 3^(1/2) / (3^(1/2) +
    (3 e)^(1/2)) at the surface; without scattering the source is B."""
    tau = jnp.exp(jnp.linspace(-10.0, 5.0, 200))
    e = 0.2
    source = np.asarray(transfer.scattered_source(tau, jnp.ones(200), jnp.full(200, 1.0 - e)))
    j = (source - e) / (1.0 - e)
    k = np.sqrt(3.0 * e)
    expected = 1.0 - np.sqrt(3.0) / (np.sqrt(3.0) + k) * np.exp(-k * np.asarray(tau))
    np.testing.assert_allclose(j, expected, atol=5e-3)
    planck = jnp.linspace(1.0, 2.0, 200)
    np.testing.assert_array_equal(transfer.scattered_source(tau, planck, jnp.zeros(200)), planck)


@pytest.mark.slow
def test_a_long_range_holds_wavelengths_as_a_short_one_does():
    """5000 Å in float32: lines do not move, and the result is that of a few Å."""
    short = np.round(np.arange(8688.0, 8689.5, 0.02), 2)
    options = dict(solar_composition="asplund2009", n_depth=24)
    flux = run(LTESynthesizer(SPACE, short, **options), SUN)[0]
    long = np.concatenate([np.linspace(4210.0, 4210.4, 4), short, np.linspace(9190.0, 9190.4, 4)])
    np.testing.assert_allclose(run(LTESynthesizer(SPACE, long, **options), SUN)[0][4:-4], flux, atol=1.5e-3)
    assert float(flux.min()) < 0.5  # Fe I 8688.62


@pytest.mark.slow
def test_gradients_with_all_physics():
    """Forward mode in float32 against central differences, in a cool star beside Hβ; all finite in reverse mode."""
    labels = LabelSpace((*SPACE.names, "c_fe", "o_fe"), (*SPACE.lower, -0.5, -0.5), (*SPACE.upper, 0.5, 0.5))
    wavelength = np.round(np.arange(4858.6, 4860.0, 0.02), 2)
    synthesizer = LTESynthesizer(labels, wavelength, n_depth=24)
    assert synthesizer.molecules is not None and synthesizer.hydrogen is not None and synthesizer.scattering
    star = jnp.array([4600.0, 2.5, -0.3, 1.5, 0.1, 0.1])
    forward = eqx.filter_jit(lambda s, x, v: jax.jvp(lambda y: s(y)[0], (x,), (v,)))
    for i, step in enumerate((25.0, 0.06, 0.03, 0.06, 0.05, 0.05)):
        v = jnp.zeros(6).at[i].set(step)
        _, derivative = forward(synthesizer, star, v)
        difference = np.asarray(run(synthesizer, star + v)[0] - run(synthesizer, star - v)[0]) / 2
        scale = max(np.max(np.abs(difference)), 2e-3)
        np.testing.assert_allclose(derivative, difference, atol=0.05 * scale)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda x, s: jnp.sum(s(x)[0])))(star, synthesizer)
    assert np.all(np.isfinite(gradient))


def test_the_default_window_keeps_its_physics():
    """The emulator that ships was made with them."""
    own = make_backend("lte", wavelength=np.round(np.arange(5191.2, 5191.6, 0.02), 2), n_depth=16)
    wide = make_backend("lte", wavelength_range=(6000.0, 6000.4), labels="whole-optical", n_depth=16)
    keys = ("molecular_lines", "hydrogen_lines", "continuum", "scattering")
    assert [own.provenance[k] for k in keys] == [[], False, "basic", False]
    assert [wide.provenance[k] for k in keys][1:] == [True, "full", True]
    assert pickle.loads(pickle.dumps(wide)).provenance == wide.provenance
    assert len(wide.wavelength) == 21 and len(wide.labels) == 28
    assert "hydrogen_lines.npz" in wide.provenance["physics_data_hash"]
    assert "hydrogen_lines.npz" not in own.provenance["physics_data_hash"]


def test_lines_are_chosen_by_range():
    assert load_line_list(wavelength_range=(5100, 5300)).covers == (5090.0, 5310.0)
    wide = load_line_list(wavelength_range=(5100, 5400))
    assert wide.covers == (4200.0, 9200.0) and len(wide) > 60_000 and wide.wavelength.max() > 9199
    with pytest.raises(EmuinferError, match="4200 to 9200 Å"):
        make_backend("lte", wavelength=[9300.0, 9301.0])
    with pytest.raises(EmuinferError, match="wavelength_range"):
        make_backend("lte", wavelength_range=(6001.0, 6000.0))
    with pytest.raises(EmuinferError, match="basic, full"):
        LTESynthesizer(SPACE, [6000.0, 6001.0], continuum="half")


@pytest.mark.comparison
def test_calcium_triplet_and_balmer_wings_of_the_sun():
    """Ca II 8542 at 1 to 6 Å from its core, where it is formed in LTE, and the wings of Hα; broadened."""
    from astropy.io import fits
    from scipy.ndimage import gaussian_filter1d

    folder = DATA / "observed_wide"
    if not folder.exists():
        pytest.skip("needs the spectra of the Sun")
    with fits.open(folder / "sun_845_875.fits") as hdus:
        header, flux = hdus[0].header, np.asarray(hdus[0].data, float)
        observed = (header["CRVAL1"] + header["CDELT1"] * np.arange(len(flux)), flux)
    wavelength = np.round(np.arange(8536.0, 8548.5, 0.03), 2)
    synthetic = np.asarray(run(LTESynthesizer(SPACE, wavelength, solar_composition="asplund2009"), SUN)[0])
    synthetic = gaussian_filter1d(synthetic, 2.0)
    reference = np.interp(wavelength, *observed)
    wing = (np.abs(wavelength - 8542.09) > 1.0) & (np.abs(wavelength - 8542.09) < 5.0)
    assert np.median(np.abs(synthetic - reference)[wing]) < 0.02
    strongest = np.abs(wavelength - 8542.09) < 1.0
    assert 1 - synthetic[strongest].mean() == pytest.approx(1 - reference[strongest].mean(), rel=0.12)
    assert OPTICAL_FGK.names[0] == "teff"


def test_derivatives_by_lines_with_all_physics():
    """Strengths of lines under molecules, Hβ's wing and scattering, against finite differences."""
    from emuinfer.synthesis.derivatives import line_derivatives

    wavelength = np.round(np.arange(4870.0, 4872.0, 0.02), 2)
    synthesizer = LTESynthesizer(SPACE, wavelength, n_depth=24)
    star = np.array([4600.0, 2.0, -1.0, 1.5], np.float32)
    found = line_derivatives(synthesizer, star)
    np.testing.assert_allclose(found.flux, run(synthesizer, star)[0], atol=2e-5)
    strongest = int(np.argmax(np.abs(found.strength).sum(axis=1)))
    fluxes = []
    for sign in (1.0, -1.0):
        changed = {**synthesizer.constants}
        changed["ln_strength"] = changed["ln_strength"].at[strongest].add(0.05 * sign)
        fluxes.append(run(eqx.tree_at(lambda s: s.constants, synthesizer, changed), star)[0])
    difference = np.asarray(fluxes[0] - fluxes[1]) / 0.1
    derivative = found.strength[[strongest]].toarray()[0]
    assert np.max(np.abs(difference)) > 0.02
    np.testing.assert_allclose(derivative, difference, atol=0.03 * np.max(np.abs(difference)))
