"""Cramér–Rao bounds against formulas, finite differences and a sampler."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from tiny import RANGE, RV, SPACE, TRUTH, VBROAD, Lines, line_emulator, observe, reduced_lines

from emuinfer import LabelSpace, StellarModel
from emuinfer.emulators import ReducedEmulator
from emuinfer.emulators.reduced import ReductionConfig
from emuinfer.errors import EmuinferError, LabelError
from emuinfer.forecast import cramer_rao, instrument_model
from emuinfer.labels.space import solar_labels
from emuinfer.wavelengths.uniform import log_grid

AT = {"rv": RV, "vbroad": VBROAD}


@pytest.fixture(scope="module")
def reduced(tiny_emulator):
    return tiny_emulator


@pytest.fixture(scope="module")
def model(reduced):
    return StellarModel(
        reduced,
        observe(reduced, snr=300, seed=2, grid=reduced.config.wavelength),
        progress=False,
        rv_range=(-60, 60),
        robust=False,
        priors={"log10_jitter": -5.0},
    )


@pytest.fixture(scope="module")
def bounds(model):
    return cramer_rao(model, TRUTH, **AT)


def test_marginal_and_conditional(bounds):
    assert bounds.names[:5] == ("teff", "fe_h", "mg_fe", "rv", "vbroad") and "log10_jitter" not in bounds.names
    assert all(bounds.marginal[n] >= bounds.conditional[n] > 0 for n in bounds.names)
    np.testing.assert_allclose(bounds.covariance @ bounds.fisher, np.eye(len(bounds.names)), atol=1e-6)
    np.testing.assert_allclose(np.diag(bounds.correlation), 1)
    assert bounds.units["teff"] == "K" and bounds.labels["rv"] == RV


def test_table_and_text(bounds):
    table = bounds.table()
    assert table.colnames == ["label", "unit", "value", "marginal", "conditional"]
    assert list(table["label"]) == ["teff", "fe_h", "mg_fe", "rv", "vbroad"]
    assert table["marginal"][0] == bounds.marginal["teff"]
    assert len(bounds.table(continuum=True)) == len(bounds.names)
    assert "teff" in repr(bounds) and "continuum" not in repr(bounds)


def test_agrees_with_finite_differences(model, bounds):
    """The information of the free parameters, by central differences of the flux."""
    steps = {"teff": 20.0, "fe_h": 0.02, "mg_fe": 0.02, "rv": 0.2, "vbroad": 0.2}
    data = model.likelihood
    flux_of = eqx.filter_jit(lambda v, d: d.normalised_flux(v))
    flux = lambda values: np.asarray(flux_of({n: jnp.float32(v) for n, v in values.items()}, data), float)
    centre = {**TRUTH, **AT}
    terms = np.asarray(data.continuum.basis[: data.continuum.n_terms], float)
    continuum = np.array([bounds.labels[f"continuum[{i}]"] for i in range(len(terms))]) @ terms
    rows = [
        continuum * (flux({**centre, n: centre[n] + h}) - flux({**centre, n: centre[n] - h})) / (2 * h)
        for n, h in steps.items()
    ]
    jacobian = np.concatenate([rows, terms * flux(centre)]) / np.sqrt(np.asarray(data.noise.variance, float))
    fisher = jacobian @ jacobian.T + np.diag([0.0] * 4 + [1 / 10.0**2] + [1.0] * len(terms))
    np.testing.assert_allclose(np.sqrt(np.diag(np.linalg.inv(fisher))), list(bounds.marginal.values()), rtol=0.01)


def test_line_depth_of_one_pixel_wide_noise():
    """A spectrum linear in its one label: sigma = noise / sqrt(sum (df/dlabel)²), by hand.

    f = 1 / (1 + e^x) with x = s b(λ), at s = 0: df/ds = −b / 4; b varies slowly, so that convolution leaves it alone.
    """
    space = LabelSpace(("fe_h",), (-1,), (1,))
    wavelength = log_grid(5000, 5100, 1.0)
    config = ReductionConfig(5000.0, 5100.0, len(wavelength), components=1, hidden=2, epsilon=0.0)
    b = np.sin(2 * np.pi * (wavelength - 5000) / 10)
    linear = [(jnp.ones((1, 1)), jnp.zeros(1))]
    emulator = ReducedEmulator(
        jnp.zeros(len(wavelength)),
        jnp.asarray(b[None], jnp.float32),
        linear,
        jnp.zeros(len(wavelength)),
        space,
        (5000.0, 5100.0),
        "air",
        config,
    )
    model = instrument_model(
        emulator,
        wavelength_range=(5010, 5090),
        resolution=20000,
        snr=50,
        pixels_per_fwhm=2,
        labels={"fe_h": 0.0},
        broadening="none",
        continuum_terms=2,
        priors={"rv": 0.0},
    )
    assert len(model.wavelength) == np.floor(np.log(5090 / 5010) * 40000) + 1
    result = cramer_rao(model, {"fe_h": 0.0})
    # The flux is 1/2 throughout: in units of it the noise is 2/50 of it, and eight periods average sin² to 1/2.
    assert result.conditional["fe_h"] == pytest.approx(4 / 50 / np.sqrt(len(model.wavelength) / 2), rel=0.01)


def test_priors_add_information(reduced, model, bounds):
    sharp = bounds.marginal["teff"] / 2
    with_prior = StellarModel(
        reduced,
        model.observation,
        progress=False,
        robust=False,
        priors={"log10_jitter": -5.0, "rv": RV, "teff": dist.Normal(5600.0, sharp)},
    )
    added = cramer_rao(with_prior, TRUTH, vbroad=VBROAD)
    assert "rv" not in added.names
    i = added.names.index("teff")
    assert added.fisher[i, i] - bounds.fisher[0, 0] == pytest.approx(sharp**-2, rel=1e-3)
    assert added.marginal["teff"] < sharp
    # The prior alone would give sharp², the data alone four times that (velocity hardly matters): together 0.8 sharp².
    assert added.marginal["teff"] == pytest.approx(np.sqrt(0.8) * sharp, rel=0.05)


def test_instrument_scalings(reduced):
    """Bounds go as 1 / (S/N) and as 1 / sqrt(pixels)."""
    make = lambda snr, pixels: cramer_rao(
        instrument_model(
            reduced,
            wavelength_range=(6181.5, 6192.5),
            resolution=20000,
            snr=snr,
            pixels_per_fwhm=pixels,
            labels=TRUTH,
            continuum_terms=2,
        ),
        TRUTH,
        rv=0.0,
    )
    base, bright, fine = make(50, 3), make(200, 3), make(50, 6)
    for name in ("teff", "fe_h", "mg_fe", "vbroad"):
        assert base.marginal[name] / bright.marginal[name] == pytest.approx(4, rel=0.02)
        assert base.marginal[name] / fine.marginal[name] == pytest.approx(np.sqrt(2), rel=0.02)


@pytest.mark.filterwarnings("ignore:Out-of-support")
def test_degenerate_combinations_are_named():
    """Two labels that do the same to every line cannot be told apart; at vbroad = 0 its information vanishes."""
    lines = line_emulator()
    same = eqx.tree_at(
        lambda e: (e.slope, e.bend), lines, (lines.slope.at[:, 2].set(0.5 * lines.slope[:, 1]), 0 * lines.bend)
    )
    reduced = reduced_lines(lines, n_train=40, n_test=2, components=4, hidden=4, steps=120)
    model = StellarModel(reduced, observe(same), progress=False, rv_range=(-60, 60))
    full = _OnGrid(same, same.prepare(np.clip(reduced.config.wavelength, *RANGE)))
    model.likelihood = model.likelihood.with_emulators((full,))
    with pytest.raises(
        EmuinferError, match=r"singular.*combination [+-]0\.\d+ (fe_h|mg_fe) [+-]0\.\d+ (fe_h|mg_fe) \("
    ):
        cramer_rao(model, TRUTH, vbroad=VBROAD)
    with pytest.raises(EmuinferError, match="no information on vbroad"):
        cramer_rao(model, TRUTH, vbroad=0.0)


class _OnGrid(eqx.Module):
    emulator: Lines
    query: jax.Array

    def grid_flux(self, scaled):
        return self.emulator.flux(scaled, self.query)


def test_bad_arguments(model, reduced):
    with pytest.raises(LabelError, match="teff = 9000 is outside the domain"):
        cramer_rao(model, {**TRUTH, "teff": 9000.0})
    with pytest.raises(EmuinferError, match="no vsini"):
        cramer_rao(model, TRUTH, vsini=5.0)
    with pytest.raises(EmuinferError, match="snr = 0 must be a positive number"):
        instrument_model(reduced, wavelength_range=RANGE, resolution=2e4, snr=0)
    with pytest.raises(EmuinferError, match="covers 6180"):
        instrument_model(reduced, wavelength_range=(6000, 6190), resolution=2e4, snr=10)


def test_solar_labels():
    assert solar_labels(SPACE) == {"teff": 5777.0, "fe_h": 0.0, "mg_fe": 0.0}
    assert solar_labels(LabelSpace(("teff", "fe_h"), (3500, -2), (4500, -1))) == {"teff": 4000.0, "fe_h": -1.5}


@pytest.mark.comparison
@pytest.mark.slow
def test_a_sampler_finds_the_bound(model, bounds):
    """The model as a plain NumPyro model under NumPyro's own NUTS: at high S/N its posterior is as wide as the bound."""
    from numpyro.infer import MCMC, NUTS, init_to_value

    start = {n: jnp.float32(bounds.labels[n]) for n in model.names}
    kernel = NUTS(model, init_strategy=init_to_value(values=start), dense_mass=True, max_tree_depth=5)
    mcmc = MCMC(kernel, num_warmup=150, num_samples=500, progress_bar=False)
    with jax.numpy_dtype_promotion("standard"):  # NumPyro's own samplers mix integers and floats
        mcmc.run(jax.random.key(3), model.likelihood)
    draws = mcmc.get_samples()
    for name in model.names:
        x = np.asarray(draws[name], float)
        assert x.std() == pytest.approx(bounds.marginal[name], rel=0.12), name
        assert abs(x.mean() - bounds.labels[name]) < 4.5 * bounds.marginal[name], name
