"""The model as NumPyro and ArviZ see it: fluxes that are observed, drawn, and weighed pixel by pixel."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive, log_likelihood
from scipy.stats import norm
from tiny import RV, TRUTH, VBROAD, observe

from emuinfer import JointModel, Observation, StellarModel, sample
from emuinfer.inference import record
from emuinfer.posteriors.library import import_arviz

OPTIONS = {"progress": False, "rv_range": (-60, 60), "line_errors": None}
VALUES = {**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter": -4.0}
SHORT = {"chains": 4, "warmup": 100, "draws": 100, "verify": 0, "progress": False}


def draws(n, values=None, seed=0):
    rng = np.random.default_rng(seed)
    width = {"teff": 20.0, "fe_h": 0.01, "mg_fe": 0.02, "rv": 0.05, "vbroad": 0.1}
    return {
        k: jnp.asarray(v + width.get(k, 0.0) * rng.standard_normal(n), jnp.float32)
        for k, v in (values or VALUES).items()
    }


@pytest.fixture(scope="module")
def star(tiny_emulator):
    """A star in units of 1e-14, with masked pixels."""
    clean = observe(tiny_emulator, grid=tiny_emulator.config.wavelength, seed=7)
    mask = np.zeros(len(clean), bool)
    mask[40:50] = True
    return Observation(
        clean.wavelength,
        1e-14 * clean.flux,
        1e-14 * clean.uncertainty,
        mask=mask,
        resolution=clean.resolution,
        medium="air",
        clip=None,
    )


@pytest.fixture(scope="module")
def model(tiny_emulator, star):
    return StellarModel(tiny_emulator, star, **OPTIONS)


def test_predictive_gives_fluxes_in_the_unit_of_the_data(model, star):
    flux = Predictive(model, draws(40))(jax.random.key(0), observe=False)["flux"]
    assert flux.shape == (40, len(model.wavelength))
    pull = (np.asarray(flux, float) - star.flux[model.pixels]) / star.uncertainty[model.pixels]
    good = np.asarray(model.likelihood.noise.weight) > 0
    # Both the data and the draws scatter about the model.
    assert pull[:, good].std() == pytest.approx(np.sqrt(2), abs=0.2)
    seen = Predictive(model, draws(3))(jax.random.key(0))["flux"]
    np.testing.assert_allclose(seen[:, good], np.tile(star.flux[model.pixels][good], (3, 1)), rtol=1e-5)


def test_prior_predictive_is_finite(model):
    flux = Predictive(model, num_samples=5)(jax.random.key(1), observe=False)["flux"]
    assert flux.shape == (5, len(model.wavelength)) and np.isfinite(flux).all()


def test_log_likelihood_is_per_pixel(model):
    found = log_likelihood(model, draws(3))["flux"]
    assert found.shape == (3, len(model.wavelength))
    weight = np.asarray(model.likelihood.noise.weight)
    assert (found[:, weight == 0] == 0).all() and (found[:, weight > 0] != 0).all()


@pytest.mark.parametrize("correlation, rank", [(None, 0), (None, 2), (2.5, 2)])
def test_each_pixel_given_all_others_is_that_of_the_dense_covariance(tiny_emulator, star, correlation, rank):
    """Mean and variance of a pixel given the others, from the covariance matrix with continuum and shared errors in it."""
    model = StellarModel(tiny_emulator, star, correlation=correlation, **OPTIONS)
    likelihood, n = model.likelihood, len(model.wavelength)
    factors = 0.01 * np.random.default_rng(2).standard_normal((rank, n))
    likelihood = eqx.tree_at(lambda d: d.noise.factors, likelihood, jnp.asarray(factors, jnp.float32))
    noise, terms = likelihood.noise, likelihood.continuum.basis[: likelihood.continuum.n_terms]
    values = {k: jnp.float32(v) for k, v in VALUES.items()}
    mean, sd = (np.asarray(a, float) / model.scale for a in eqx.filter_jit(likelihood.leave_one_out)(values))
    flux = np.asarray(likelihood.normalised_flux(values), float)
    sigma = np.sqrt(np.asarray(noise.total(values), float))
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    of_noise = np.eye(n) if correlation is None else np.exp(-distance / correlation)
    rows = flux * np.asarray(terms, float)
    covariance = of_noise * np.outer(sigma, sigma) + (rows.T * np.asarray(likelihood.continuum.sd, float) ** 2) @ rows
    covariance += (factors * np.asarray(noise.level)).T @ (factors * np.asarray(noise.level))
    used = np.flatnonzero(np.asarray(noise.weight) > 0)
    centre = (np.asarray(likelihood.continuum.mean, float) @ rows)[used]
    data, covariance = np.asarray(likelihood.flux, float)[used], covariance[np.ix_(used, used)]
    for i in (0, 30, len(used) // 2, len(used) - 1):
        others = np.arange(len(used)) != i
        gain = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, i])
        assert mean[used[i]] == pytest.approx(centre[i] + gain @ (data - centre)[others], abs=2e-5)
        assert sd[used[i]] ** 2 == pytest.approx(covariance[i, i] - gain @ covariance[others, i], rel=2e-3)


def test_arms_have_sites_of_their_own(tiny_emulator, star):
    joint = JointModel.of(tiny_emulator, [star, star], **OPTIONS)
    values = {**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter_1": -4.0, "rv_offset_2": 0.0, "log10_jitter_2": -4.0}
    found = Predictive(joint, draws(2, values))(jax.random.key(0), observe=False)
    assert found["flux_1"].shape == found["flux_2"].shape == (2, len(joint.arms[0].wavelength))


@pytest.fixture(scope="module")
def posterior(model):
    return sample(model, seed=1, predictive=40, pointwise=200, **SHORT)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")
def test_arviz_compares_models_and_plots_predictions(posterior, tiny_emulator, star, tmp_path):
    az = import_arviz()
    groups = {g: posterior[g]["flux"] for g in ("observed_data", "posterior_predictive", "log_likelihood")}
    n = groups["observed_data"].shape[-1]
    assert groups["posterior_predictive"].shape == (4, 10, n) and groups["log_likelihood"].shape[:2] == (4, 50)
    used = posterior["constant_data"]["weight"].values > 0
    np.testing.assert_array_equal(groups["log_likelihood"]["used_pixel"].values, np.flatnonzero(used))
    loo = az.loo(posterior)
    expected = norm.logpdf(
        groups["observed_data"].values[used],
        posterior["posterior_predictive"]["model_flux"].values.mean((0, 1))[used],
        posterior["constant_data"]["uncertainty"].values[used],
    ).sum()
    elpd = getattr(loo, "elpd_loo", None) if hasattr(loo, "elpd_loo") else loo.elpd
    assert float(elpd) == pytest.approx(expected, abs=0.1 * n)
    # A model whose magnesium is held at a wrong value predicts worse.
    value = TRUTH["mg_fe"] + 0.4
    held = dist.Uniform(value - 0.001, value + 0.001)  # no number: the programs of the other model serve
    wrong = StellarModel(tiny_emulator, star, priors={"mg_fe": held}, **OPTIONS)
    table = az.compare({"right": posterior, "wrong": sample(wrong, seed=1, predictive=0, **SHORT)})
    assert next(iter(table.index)) == "right"
    if hasattr(az, "plot_ppc"):
        import matplotlib.pyplot as plt

        axes = az.plot_ppc(posterior, num_pp_samples=10)
        np.ravel(axes)[0].figure.savefig(tmp_path / "ppc.png")
        plt.close("all")
        assert (tmp_path / "ppc.png").stat().st_size > 5000


def test_nothing_is_kept_where_nothing_is_asked_for(model):
    short = sample(model, seed=1, start=VALUES, predictive=0, pointwise=0, **SHORT)
    assert not hasattr(short, "posterior_predictive") and not hasattr(short, "log_likelihood")


def test_thinned_draws_are_equally_spaced():
    np.testing.assert_array_equal(record.thinned(500, 200, 4), np.linspace(0, 499, 50).round())
    np.testing.assert_array_equal(record.thinned(10, 200, 4), np.arange(10))
