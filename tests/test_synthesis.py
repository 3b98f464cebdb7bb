"""The synthesizer as a whole: curve of growth, response to labels, gradients, Turbospectrum, backend."""

import json
import pickle
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import EmuinferError, LabelError
from emuinfer.labels.space import LabelSpace
from emuinfer.labels.windows import OPTICAL_FGK
from emuinfer.synthesis import LTESynthesizer, load_line_list, make_backend
from emuinfer.synthesis.elements import atomic_number

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
SUN = np.array([5777.0, 4.44, 0.0, 1.0] + [0.0] * 8, np.float32)
# Ti I 5192.97, Fe I 5192.34 and 5191.45, and weak ones between them
WINDOW = np.round(np.arange(5191.2, 5193.6, 0.02), 2)

run = eqx.filter_jit(lambda synthesizer, labels: jax.vmap(synthesizer)(labels))


@pytest.fixture(scope="module")
def window():
    return LTESynthesizer(wavelength=WINDOW, n_depth=36)


@pytest.mark.comparison
def test_atmosphere_is_in_hydrostatic_equilibrium(window):
    layers = {k: np.asarray(v, float) for k, v in eqx.filter_jit(lambda s, x: s.atmosphere(x))(window, SUN).items()}
    tau = np.exp(layers["ln_tau"])
    gradient = np.gradient(np.log(layers["pressure"]), layers["ln_tau"])
    expected = 10**4.44 * tau * layers["density"] / (layers["alpha_5000"] * layers["pressure"])
    np.testing.assert_allclose(gradient[2:-2], expected[2:-2], rtol=0.04, atol=0.008)
    # the Sun at tau = 2/3 and 1e-3: MARCS has 6090 K and 4505 K, log P = 5.05 and 3.54 (Gustafsson et al. 2008)
    at = lambda key, t: np.interp(np.log(t), layers["ln_tau"], layers[key])
    assert at("temperature", 2 / 3) == pytest.approx(6130.0, abs=120) and at("temperature", 1e-3) == pytest.approx(
        4505.0, abs=80
    )
    assert np.log10(at("pressure", 2 / 3)) == pytest.approx(5.05, abs=0.04)
    assert np.log10(at("pressure", 1e-3)) == pytest.approx(3.54, abs=0.06)


def test_curve_of_growth():
    """Equivalent width grows as the strength N, then hardly (sqrt(log N)), then as sqrt(N)."""
    lines = load_line_list()
    iron = np.flatnonzero((lines.element == 26) & (lines.ion == 1) & (np.abs(lines.wavelength - 5198.711) < 0.01))[:1]
    one = lines[iron]
    one.reach[:] = 1e3
    wavelength = np.round(np.arange(5188.0, 5209.0, 0.02), 2)
    synthesizer = LTESynthesizer(wavelength=wavelength, line_list=one, n_depth=36)

    @eqx.filter_jit
    def widths(synthesizer, shifts):
        def width(shift):
            constants = dict(synthesizer.constants)
            constants["ln_strength"] = constants["ln_strength"] + shift
            flux, _ = eqx.tree_at(lambda s: s.constants, synthesizer, constants)(SUN)
            return jnp.sum(1.0 - flux) * 0.02

        return jax.lax.map(width, shifts)

    dex = np.array([-3.5, -3.0, -0.4, 0.1, 3.2, 3.7])
    ln_w = np.log(np.asarray(widths(synthesizer, jnp.asarray(dex * np.log(10.0), jnp.float32)), float))
    slope = np.diff(ln_w)[::2] / (np.diff(dex)[::2] * np.log(10.0))
    assert slope[0] == pytest.approx(1.0, abs=0.03)
    assert 0.1 < slope[1] < 0.45
    assert slope[2] == pytest.approx(0.5, abs=0.05)


def test_titanium_deepens_its_own_lines_and_little_else(window):
    labels = np.stack([SUN, SUN])
    labels[1, OPTICAL_FGK.index("ti_fe")] = 0.3
    flux, continuum = (np.asarray(x) for x in run(window, jnp.asarray(labels)))
    change = flux[1] - flux[0]
    lines = load_line_list()
    titanium = lines.wavelength[(lines.element == atomic_number("Ti")) & (lines.reach > 0)]
    near = np.min(np.abs(WINDOW[:, None] - titanium), axis=1) < 0.25
    assert change.min() < -0.03 and abs(WINDOW[np.argmin(change)] - 5192.97) < 0.2
    assert np.max(np.abs(change[~near])) < 0.002
    np.testing.assert_allclose(continuum[1], continuum[0], rtol=1e-3)


forward = eqx.filter_jit(lambda s, x, v: jax.jvp(lambda y: s(y)[0], (x,), (v,)))


def test_derivatives_agree_with_finite_differences(window):
    """Forward mode against central differences, with steps large enough for float32."""
    steps = {"teff": 20.0, "logg": 0.05, "fe_h": 0.03, "vmic": 0.05, "ti_fe": 0.05}
    for name, step in steps.items():
        direction = np.zeros(12, np.float32)
        direction[OPTICAL_FGK.index(name)] = step
        pair, _ = run(window, jnp.asarray(np.stack([SUN + direction, SUN - direction])))
        difference = 0.5 * np.asarray(pair[0] - pair[1])
        _, derivative = forward(window, jnp.asarray(SUN), jnp.asarray(direction))
        scale = np.max(np.abs(difference))
        assert scale > 1e-3
        np.testing.assert_allclose(derivative, difference, atol=0.03 * scale)


def test_batch_equals_one_by_one_and_the_corners_of_the_domain_are_finite(window):
    labels = np.stack([SUN, SUN, SUN, SUN])
    labels[1, :4], labels[2, :4], labels[3, :4] = (4000, 5.0, -3.0, 0.5), (7000, 2.7, 0.5, 2.5), (4000, 0.5, 0.5, 2.5)
    labels[2:, 4:] = np.asarray(OPTICAL_FGK.upper)[4:]
    assert np.all(OPTICAL_FGK.contains(labels))
    together = np.concatenate([np.asarray(run(window, jnp.asarray(pair))[0]) for pair in (labels[:2], labels[2:])])
    single = np.stack([np.asarray(forward(window, jnp.asarray(row), jnp.zeros(12))[0]) for row in labels])
    np.testing.assert_allclose(together, single, atol=3e-4)  # float32, compiled differently
    assert np.all(np.isfinite(together)) and together.min() > 0 and together.max() < 1.02


@pytest.mark.comparison
def test_against_turbospectrum(window):
    """The Sun and stars of the grid, at native sampling; other code and other opacities, so only close."""
    path = DATA / "grids" / "turbospectrum_5100_5300.npz"
    if not path.exists():
        pytest.skip("needs the Turbospectrum grid")
    grid, sun = np.load(path), np.load(DATA / "grids" / "turbospectrum_sun.npz")
    pixels = np.searchsorted(grid["wavelength"], WINDOW - 0.01)
    labels = np.concatenate([sun["labels"][None], grid["labels"][:7]]).astype(np.float32)
    reference = np.concatenate([sun["flux"][None], grid["flux"][:7]])[:, pixels]
    flux, continuum = (np.concatenate(x) for x in zip(*(run(window, jnp.asarray(p)) for p in np.split(labels, 4))))
    residual = np.mean(np.abs(flux - reference), axis=1)
    assert residual[0] < 0.006 and np.max(residual) < 0.02 and np.median(residual) < 0.006
    nearest = np.argmin(np.abs(grid["wavelength"][::500] - WINDOW[0]))
    np.testing.assert_allclose(continuum[1:, 0] * 1e6, grid["continuum"][:7, nearest], rtol=0.12)


def test_backend_is_rebuilt_by_pickle_and_describes_itself():
    space = LabelSpace(("teff", "logg", "fe_h", "vmic"), (4000, 1, -2, 0.5), (7000, 5, 0.5, 2))
    backend = make_backend(
        "lte", labels=space, wavelength=WINDOW[:30], temperature_structure="vernazza", n_depth=24, batch=2
    )
    labels = np.array([[5000.0, 3.0, -1.0, 1.0], [6000.0, 4.0, 0.0, 1.5], [5500.0, 4.5, -0.5, 1.0]])
    flux, continuum = backend(labels)
    again = pickle.loads(pickle.dumps(backend))
    assert again.provenance == backend.provenance and again.labels == space
    np.testing.assert_array_equal(again.wavelength, backend.wavelength)
    assert flux.shape == continuum.shape == (3, 30) and flux.dtype == np.float32
    provenance = json.loads(json.dumps(backend.provenance))
    assert provenance["temperature_structure"] == "vernazza" and len(provenance["line_list_hash"]) == 16
    assert backend.medium == "air" and backend.labels == space


def test_line_list_is_complete():
    lines = load_line_list()
    assert len(lines) == 6528 and "Heiter" in lines.source
    mg = lines[np.argmin(np.abs(lines.wavelength - 5183.604))]
    assert mg.element == 12 and mg.e_low == pytest.approx(2.717, abs=0.001) and mg.reach > 50
    assert 0 < np.sum(lines.reach > 0) < len(lines)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: LTESynthesizer(wavelength=[4000.0, 4001.0]), EmuinferError, "5090 to 5310"),
        (lambda: LTESynthesizer(wavelength=[5200.0, 5199.0]), EmuinferError, "rising"),
        (lambda: LTESynthesizer(wavelength=WINDOW, temperature_structure="flat"), EmuinferError, "krishna-swamy"),
        (lambda: LTESynthesizer(wavelength=WINDOW, solar_composition="lunar"), LabelError, "asplund2009"),
        (lambda: make_backend("nlte"), EmuinferError, "lte"),
        (lambda: load_line_list("nowhere.npz"), EmuinferError, "nowhere.npz"),
        (lambda: LTESynthesizer(labels=LabelSpace(("teff",), (4000,), (7000,))), LabelError, "logg"),
    ],
)
def test_errors_name_the_remedy(call, error, words):
    with pytest.raises(error, match=words):
        call()
