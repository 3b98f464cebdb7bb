"""From a model to a verified posterior: one fit of a synthetic spectrum, looked at from all sides."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from tiny import RV, TRUTH, VBROAD, line_emulator, local_surrogate, observe, reduced_lines

from emuinfer import Observation, StellarModel, sample
from emuinfer.emulators import emulator_hash
from emuinfer.errors import LabelError, SamplingError
from emuinfer.forecast.cramer_rao import cramer_rao
from emuinfer.inference import SamplingConfig, find_optimum, importance_check
from emuinfer.likelihoods import Unconstrained
from emuinfer.posteriors import draws_of, load_posterior, save_posterior, summary_table

FAKE = 6187.0  # Å, where the data have a line that the emulator lacks
SHORT = {"chains": 4, "progress": False, "verify": 40, "predictive": 4}


@pytest.fixture(scope="module")
def full():
    return line_emulator()


@pytest.fixture(scope="module")
def star(full):
    """`star(seed, **options)`: a model with a reduced emulator that needs a local surrogate, a fake line, masked pixels."""
    reduced = reduced_lines(full, n_train=200, components=10)

    def make(seed, rv=RV, **options):
        clean = observe(full, seed=seed, rv=rv)
        fake = 1 - 0.4 * np.exp(-0.5 * ((clean.wavelength - FAKE) / 0.12) ** 2)
        mask = (clean.wavelength > 6190) & (clean.wavelength < 6190.5)
        observation = Observation(
            clean.wavelength,
            np.where(mask, np.nan, clean.flux * fake),
            clean.uncertainty,
            mask=mask,
            resolution=clean.resolution,
            medium="air",
            name="synthetic",
            clip=None,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("emuinfer.likelihoods.stellar.reduce_emulator", lambda emulator, progress: reduced)
            return StellarModel(full, observation, progress=False, rv_range=(-60, 60), **options)

    return make


@pytest.fixture(scope="module")
def model(star):
    return star(5)


@pytest.fixture(scope="module")
def run(model):
    """`run(...)` samples the model."""
    return lambda **options: sample(model, **{**SHORT, **options})


@pytest.fixture(scope="module")
def posterior(run):
    return run(seed=3, warmup=150, draws=600, verify=200)


def test_recovers_what_was_put_in(posterior, model):
    table = summary_table(posterior, units=model.units)
    rows = {row["label"]: row for row in table}
    assert set(rows) == {"teff", "fe_h", "mg_fe", "rv", "vbroad", "log10_jitter"}
    for name, true in {**TRUTH, "rv": RV, "vbroad": VBROAD}.items():
        assert abs(rows[name]["mean"] - true) < 4 * rows[name]["sd"], name
        assert rows[name]["r_hat"] < 1.01 and rows[name]["ess_bulk"] > 400, name
        assert rows[name]["verdict"] == ("" if name == "rv" else "measured"), name
    assert draws_of(posterior, "teff").shape == (4, 600)


def test_widths_are_those_of_the_data(posterior, model):
    """Neither jitter nor outlier weights inflate or shrink the errors: they stay near the Cramér–Rao bound."""
    bounds = cramer_rao(model, TRUTH, rv=RV, vbroad=VBROAD)
    for name in ("teff", "fe_h", "mg_fe", "rv", "vbroad"):
        assert 0.85 < draws_of(posterior, name).std() / bounds.marginal[name] < 1.45, name


def test_fake_line_is_down_weighted_and_masked_pixels_unused(posterior):
    facts = posterior.constant_data
    wavelength, weight = facts["wavelength"].values, facts["weight"].values
    assert weight[np.abs(wavelength - FAKE) < 0.1].max() < 0.1
    masked = (wavelength > 6190.1) & (wavelength < 6190.4)
    assert (weight[masked] == 0).all() and (facts["good"].values[masked] == 0).all()
    clean = (np.abs(wavelength - FAKE) > 0.6) & (facts["good"].values == 1)
    assert weight[clean].mean() > 0.8


def test_posterior_predictive_follows_the_data(posterior):
    flux, facts = posterior.observed_data["flux"].values, posterior.constant_data
    model = posterior.posterior_predictive["model_flux"].values
    assert model.shape == (4, 1, len(flux))
    used = facts["weight"].values > 0.3
    pull = (flux - model[0, 0])[used] / facts["uncertainty"].values[used]
    assert pull.std() == pytest.approx(0.95, abs=0.25)


def test_verified_against_the_full_emulator(posterior, full, model):
    attrs = posterior.attrs
    assert attrs["verification"] == "ok" and attrs["k_hat"] < 0.7 and attrs["in_domain"] == 1
    assert attrs["emulator_hash"] == emulator_hash(full) and attrs["reduced_hash"] == emulator_hash(model.reduced)
    assert attrs["data_hash"] == model.observation.hash and attrs["seed"] == 3
    assert posterior.constant_data["verified_draw"].shape == (200,)
    assert not any(name.startswith("_") for name in attrs)


def test_attributes_survive_a_file(posterior, tmp_path):
    loaded = load_posterior(save_posterior(posterior, tmp_path / "posterior.nc"))
    assert loaded.attrs == posterior.attrs
    assert isinstance(json.loads(loaded.attrs["warnings"]), list) and "jax" in json.loads(loaded.attrs["versions"])
    assert {"optimise_s", "verify_s"} <= set(json.loads(loaded.attrs["timings"]))
    np.testing.assert_array_equal(draws_of(loaded, "fe_h"), draws_of(posterior, "fe_h"))


def test_same_seed_same_draws(run):
    one, two, other = (run(seed=s, warmup=30, draws=20, verify=0) for s in (7, 7, 8))
    for name in ("teff", "rv"):
        np.testing.assert_array_equal(draws_of(one, name), draws_of(two, name))
        assert (draws_of(one, name) != draws_of(other, name)).any()
    assert one.attrs["verification"] == "skipped" and "k_hat" not in one.attrs


def test_a_second_star_compiles_nothing(run, star, model):
    """Of equal shapes and kinds of priors; what differs, a velocity and priors here, are arguments and no constants."""
    settings = dict(seed=7, warmup=30, draws=20, verify=0)
    run(**settings)
    models = (
        (rv, star(6, rv=rv)) for rv in (9.0, 6.0, 3.0, 0.0)
    )  # where the shifted emulator ends between equal pixels
    rv, other = next(found for found in models if len(found[1].wavelength) == len(model.wavelength))
    compiled = []
    count = lambda event, seconds, **about: compiled.append((event, about)) if "/compile/" in event else None
    jax.monitoring.register_event_duration_secs_listener(count)
    posterior = sample(other, **{**SHORT, **settings})
    jax.monitoring.unregister_event_duration_listener(count)
    assert not compiled
    assert draws_of(posterior, "rv").mean() == pytest.approx(rv, abs=4 * draws_of(posterior, "rv").std())


def gaussian_draws(model, n=300, seed=0):
    """Draws as wide as the bound around the truth, as a sampler would give them."""
    bounds = cramer_rao(model, TRUTH, rv=RV, vbroad=VBROAD)
    names = [n for n in bounds.names if not n.startswith("continuum")]
    centre = [bounds.labels[n] for n in names]
    draws = np.random.default_rng(seed).multivariate_normal(centre, bounds.covariance[: len(names), : len(names)], n)
    return {**dict(zip(names, draws.T)), "log10_jitter": np.full(n, -3.5)}


def test_start_saves_the_search(posterior, model):
    """From values near the posterior the optimum is the same as from a search of the domain."""
    near = {n: float(draws_of(posterior, n).mean()) for n in model.names}
    found = find_optimum(model, start=near, progress=False)
    for name in ("teff", "fe_h", "mg_fe", "rv", "vbroad"):
        assert abs(found.values[name] - near[name]) < 0.5 * draws_of(posterior, name).std(), name
    with pytest.raises(LabelError, match="no value for rv"):
        find_optimum(model, start={n: v for n, v in near.items() if n != "rv"}, progress=False)


def test_importance_check_tells_good_from_bad(full, model):
    values = gaussian_draws(model)
    exact = model.likelihood.with_emulators(model.full_on_grid())
    surrogate = local_surrogate(model, values)
    good = importance_check(exact, model.likelihood.localised((surrogate,)), values, n=200, progress=False)
    assert good.flag == "ok" and good.ess > 150
    same = importance_check(exact, exact, values, n=30, progress=False)
    assert same.k_hat == 0 and same.ess == 30
    # A surrogate whose lines respond half again as much to the labels: its posterior is another one.
    wrong = eqx.tree_at(lambda e: e.coefficients, surrogate, surrogate.coefficients.at[1:4].multiply(1.5))
    bad = importance_check(exact, model.likelihood.localised((wrong,)), values, n=200, progress=False)
    assert bad.flag == "fail" and "full emulator" in bad.message


def test_flat_positions_and_parameters_are_inverse(model):
    density = Unconstrained(model)
    values = {n: np.array([v]) for n, v in {**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter": -2.0}.items()}
    z = density.unconstrain(values)
    assert z.shape == (1, 6)
    back = density.constrain(jnp.asarray(z[0]))
    for name in values:
        assert float(back[name]) == pytest.approx(values[name][0], rel=2e-4), name


@pytest.mark.slow
def test_gaussian_prior_in_kelvin_is_found(full):
    """A prior on the whole real line, in units far from 1, must not hold the optimiser back."""
    reduced = reduced_lines(full, n_train=200, components=10)
    priors = {"teff": dist.Normal(5200.0, 20.0), "log10_jitter": -3.0, "vbroad": VBROAD}
    model = StellarModel(
        reduced, observe(full, snr=30, seed=6), progress=False, rv_range=(-60, 60), priors=priors, robust=False
    )
    found = find_optimum(model, progress=False)
    # Linear Gaussian theory: the prior pulls by its share of the information.
    share = cramer_rao(model, TRUTH).covariance[0, 0] / 20**2
    assert 0.8 < share < 1
    assert found.values["teff"] == pytest.approx(TRUTH["teff"] + share * (5200 - TRUTH["teff"]), abs=20)


@pytest.mark.parametrize("wrong", [{"chains": 0}, {"draws": 2.5}, {"verify": -1}, {"local": 45}, {"test": True}])
def test_numbers_that_make_no_fit(wrong):
    (name,) = wrong
    with pytest.raises(SamplingError, match=f"{name} = .* must be a whole number"):
        SamplingConfig(**wrong)


def test_chains_that_stood_still_tell_no_covariance():
    from emuinfer.inference.steps import _is_positive

    draws = np.random.default_rng(0).normal(size=(200, 3)) * [1.0, 1e-6, 1e4]
    assert _is_positive(np.cov(draws.T))
    assert not _is_positive(np.cov(np.c_[draws, draws[:, :1] + draws[:, 1:2]].T))
    assert not _is_positive(np.cov(np.c_[draws, np.ones(200)].T))
