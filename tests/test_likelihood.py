"""`StellarModel`: likelihood, priors, outlier weights, local surrogates."""

import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import multivariate_normal
from tiny import RANGE, RV, SPACE, TRUTH, VBROAD, line_emulator, local_surrogate, observe, reduced_lines

from emuinfer import Observation, StellarModel
from emuinfer.errors import LabelError, ObservationError

AT_TRUTH = {**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter": -4.0}


@pytest.fixture(scope="module")
def full():
    return line_emulator()


@pytest.fixture(scope="module")
def reduced(full):
    return reduced_lines(full)


@pytest.fixture(scope="module")
def observation(full):
    return observe(full)


def make(emulator, observation, **options):
    return StellarModel(emulator, observation, **{"progress": False, "rv_range": (-60, 60), **options})


@pytest.fixture(scope="module")
def model(reduced, observation):
    return make(reduced, observation)


def f32(values):
    return {k: jnp.float32(v) for k, v in values.items()}


@eqx.filter_jit
def log_likelihood(likelihood, values):
    return likelihood.log_likelihood(values)


@eqx.filter_jit
def outlier_weights(likelihood, values):
    return likelihood.with_weights(values).noise.weight


def at(model, values=AT_TRUTH, likelihood=None):
    return float(log_likelihood(model.likelihood if likelihood is None else likelihood, f32(values)))


def test_reduction_is_close(reduced):
    assert np.sqrt(np.mean(np.asarray(reduced.error) ** 2)) < 2e-3


def test_first_velocity_is_found(model):
    assert model.rv_guess == pytest.approx(RV, abs=2)


@pytest.mark.comparison
def test_likelihood_is_the_dense_gaussian_one(model):
    """The continuum integrated out analytically is a Gaussian with covariance C + A S Aᵀ."""
    values = {**AT_TRUTH, "log10_jitter": -2.0}
    data, noise = model.likelihood, model.likelihood.noise
    flux = np.asarray(eqx.filter_jit(data.normalised_flux)(f32(values)), float)
    design = (flux * np.asarray(data.continuum.basis[: data.continuum.n_terms], float)).T
    variance = np.asarray(noise.variance, float) + (1e-2 * np.asarray(noise.level, float)) ** 2
    covariance = np.diag(variance) + design @ np.diag(np.asarray(data.continuum.sd, float) ** 2) @ design.T
    dense = multivariate_normal(design @ np.asarray(data.continuum.mean, float), covariance).logpdf(
        np.asarray(data.flux, float)
    )
    assert at(model, values) + model.constant == pytest.approx(dense, abs=0.05)


def test_model_at_the_truth_fits_to_the_noise(model):
    residual = np.asarray(model.likelihood.flux) - _model_flux(model, AT_TRUTH)
    chi2 = np.mean(residual**2 / np.asarray(model.likelihood.noise.variance))
    assert chi2 == pytest.approx(1, abs=4 * np.sqrt(2 / len(residual)))


def _model_flux(model, values):
    return np.asarray(eqx.filter_jit(model.likelihood.model_flux)(f32(values)))


def test_the_unit_of_the_flux_and_the_medium_do_not_matter(reduced, observation, model):
    cgs = Observation(
        observation.wavelength_in("vacuum"),
        3e-14 * observation.flux,
        3e-14 * observation.uncertainty,
        resolution=observation.resolution,
        medium="vacuum",
        clip=None,
    )
    assert at(make(reduced, cgs)) == pytest.approx(at(model), abs=0.05)


def test_masked_pixels_carry_no_information(reduced, observation):
    """Whatever stands in masked pixels, NaN included, value and gradient are the same and finite."""
    mask = np.zeros(len(observation), bool)
    mask[60:80] = True
    rebuild = lambda flux: make(
        reduced,
        Observation(
            observation.wavelength,
            flux,
            observation.uncertainty,
            mask=mask,
            resolution=observation.resolution,
            medium="air",
            clip=None,
        ),
    )
    plain = rebuild(observation.flux)
    spoilt = rebuild(np.where(mask, np.where(np.arange(len(mask)) % 2, np.nan, 1e9), observation.flux))
    both = eqx.filter_jit(jax.value_and_grad(lambda v, d: d.log_likelihood(v)))
    (one, slope), (other, spoilt_slope) = both(f32(AT_TRUTH), plain.likelihood), both(f32(AT_TRUTH), spoilt.likelihood)
    assert float(one) == pytest.approx(float(other), abs=1e-3)
    for name in slope:
        assert float(slope[name]) == pytest.approx(float(spoilt_slope[name]), rel=1e-3, abs=1e-3)


@pytest.mark.comparison
def test_numpyro_sees_priors_and_likelihood(model):
    """Log density by NumPyro's own tracing = log priors by SciPy + likelihood."""
    from numpyro.infer.util import log_density
    from scipy.stats import halfnorm

    values = {**AT_TRUTH, "log10_jitter": -3.0}
    value = jax.jit(lambda v: log_density(model, (), {}, v)[0])(f32(values))
    prior = -np.log([2000, 2.0, 0.9, 40]).sum() + halfnorm(scale=10.0).logpdf(VBROAD)
    prior += halfnorm(scale=0.02).logpdf(1e-3) + np.log(1e-3 * np.log(10))
    assert float(value) == pytest.approx(prior + at(model, values) + float(model.likelihood.constant), abs=0.02)
    assert set(model.names) == {"teff", "fe_h", "mg_fe", "rv", "vbroad", "log10_jitter"}


def test_priors_fixed_and_overridden(reduced, observation):
    priors = {"mg_fe": 0.15, "teff": dist.Normal(5500.0, 50.0), "vbroad": 4.0, "log10_jitter": -3.0}
    model = make(reduced, observation, priors=priors)
    assert model.names == ("teff", "fe_h", "rv")
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace()
    assert isinstance(trace["teff"]["fn"], dist.Normal) and "mg_fe" not in trace and "vbroad" not in trace
    assert float(model.complete({})["vbroad"]) == 4.0


@pytest.mark.parametrize("broadening, names", [("vsini", {"vsini"}), ("both", {"vbroad", "vsini"}), ("none", set())])
def test_broadening_choices(reduced, observation, broadening, names):
    model = make(reduced, observation, broadening=broadening, priors={"rv": RV})
    assert set(model.names) - set(SPACE.names) - {"log10_jitter"} == names


def test_bad_arguments(reduced, observation, model):
    with pytest.raises(LabelError, match="Did you mean 'teff'"):
        make(reduced, observation, priors={"Teff": 5000.0})
    with pytest.raises(LabelError, match="cannot be fixed at 9000"):
        make(reduced, observation, priors={"teff": 9000.0})
    with pytest.raises(LabelError, match="NumPyro distribution"):
        make(reduced, observation, priors={"teff": "hot"})
    with pytest.raises(LabelError, match="prior of 'rv' must be"):
        make(reduced, observation, priors={"rv": (0, 1)})
    with pytest.raises(LabelError, match="vsini was given, which broadening='vbroad'"):
        make(reduced, observation, priors={"vsini": 5.0})
    with pytest.raises(LabelError, match="broadening must be one of"):
        make(reduced, observation, broadening="gauss")
    w = observation.wavelength
    with pytest.raises(ObservationError, match="resolving power of 'nameless'.*resolution="):
        make(reduced, Observation(w, observation.flux, observation.uncertainty, medium="air", name="nameless"))
    far = Observation(w + 1000, observation.flux, observation.uncertainty, resolution=3e4, medium="air", name="far")
    with pytest.raises(
        ObservationError, match=r"'far' cover 7180\.0–7\d+\.\d Å \(air\), the emulator 6180\.0–6194\.0 Å"
    ):
        make(reduced, far)


def test_outlier_weights(full, reduced):
    """Weights of Gaussian residuals are near 1; a line that no model has is all but taken out."""
    observation = observe(full, seed=3)
    fake = np.exp(-0.5 * ((observation.wavelength - 6187.0) / 0.12) ** 2)
    spoilt = Observation(
        observation.wavelength,
        observation.flux * (1 - 0.4 * fake),
        observation.uncertainty,
        resolution=observation.resolution,
        medium="air",
        clip=None,
    )
    model = make(reduced, spoilt)
    weight = np.asarray(outlier_weights(model.likelihood, f32(AT_TRUTH)))
    hit = np.exp(-0.5 * ((model.wavelength - 6187.0) / 0.12) ** 2) > 0.5
    assert weight[hit].max() < 0.05
    away = np.abs(model.wavelength - 6187.0) > 1
    assert weight[away].min() > 0.2 and 0.85 < weight[away].mean() <= 1
    # Weights settle: they do not sink from round to round.
    data = model.likelihood
    for _ in range(4):
        last, data = weight, data.with_noise(data.noise.with_weight(jnp.asarray(weight)))
        weight = np.asarray(outlier_weights(data, f32(AT_TRUTH)))
    np.testing.assert_allclose(weight[away], last[away], atol=0.02)


def test_local_surrogate_equals_full_around_the_star(full, observation, monkeypatch):
    """Where the reduction is poor, the local surrogate is not, in value and in slope; its own error says so."""
    poor = reduced_lines(full, n_train=40, n_test=2, components=6, hidden=16, steps=200)
    monkeypatch.setattr("emuinfer.likelihoods.stellar.reduce_emulator", lambda emulator, progress: poor)
    model = make(full, observation)
    rng = np.random.default_rng(0)
    width = {"teff": 20.0, "fe_h": 0.02, "mg_fe": 0.02, "rv": 0.1, "vbroad": 0.2}
    draws = {n: AT_TRUTH[n] + w * rng.standard_normal(160) for n, w in width.items()}
    surrogate = local_surrogate(model, {**draws, "log10_jitter": np.full(160, -3.0)})
    local = model.likelihood.localised((surrogate,))
    exact = model.likelihood.with_emulators(model.full_on_grid())

    @eqx.filter_jit
    def look(x, data):
        values = lambda x: {**AT_TRUTH, **{n: AT_TRUTH[n] + width[n] * x[i] for i, n in enumerate(width)}}
        return jax.linearize(lambda x: data.normalised_flux(values(x)), x)[0], jax.jacfwd(
            lambda x: data.normalised_flux(values(x))
        )(x)

    x = jnp.array([1.0, -0.7, 0.8, -0.5, 0.9])
    (flux, slope), (flux_full, slope_full), (flux_poor, _) = (look(x, d) for d in (local, exact, model.likelihood))
    assert np.abs(flux_poor - flux_full).max() > 1e-3
    np.testing.assert_allclose(flux, flux_full, atol=1e-4)
    assert 0 < np.asarray(surrogate.error).max() < 5e-4
    np.testing.assert_allclose(slope, slope_full, atol=0.03 * np.abs(slope_full).max())


def test_full_emulator_on_the_grid(full, reduced, observation, monkeypatch):
    monkeypatch.setattr("emuinfer.likelihoods.stellar.reduce_emulator", lambda emulator, progress: reduced)
    model = make(full, observation)
    data = model.likelihood.with_emulators(model.full_on_grid())
    scaled = jnp.asarray(SPACE.scale(SPACE.to_array(TRUTH)), jnp.float32)
    np.testing.assert_allclose(
        data.forward.emulator.grid_flux(scaled), full(TRUTH, np.clip(reduced.config.wavelength, *RANGE)), atol=1e-6
    )
    assert at(model, likelihood=data) == pytest.approx(at(model), abs=2)


def test_two_processes_may_reduce_the_same_emulator(tmp_path, monkeypatch):
    from emuinfer.emulators import reduction

    monkeypatch.setenv("EMUINFER_CACHE", str(tmp_path))
    settings = {"n_train": 40, "n_test": 80, "components": 4, "hidden": 8, "steps": 20, "progress": False}
    fit, emulator = reduction._fit, line_emulator()

    def other_finishes_first(*arguments):
        for file in next(tmp_path.glob("reducing-*")).iterdir():
            file.unlink()
        next(tmp_path.glob("reducing-*")).rmdir()
        return fit(*arguments)

    monkeypatch.setattr(reduction, "_fit", other_finishes_first)
    first = reduction.reduce_emulator(emulator, **settings)
    monkeypatch.setattr(reduction, "_fit", None)  # the next must not come so far
    find, asked = reduction._load_reduction, []  # not there yet when the second first looks
    monkeypatch.setattr(
        reduction, "_load_reduction", lambda key: asked.append(key) or (find(key) if len(asked) > 1 else None)
    )
    second = reduction.reduce_emulator(emulator, **settings)
    np.testing.assert_array_equal(first.basis, second.basis)
    assert len(asked) > 1


REDUCE = """
import os, sys, time
from tiny import line_emulator
from emuinfer.emulators import reduction

def fit(*arguments):
    with open(os.environ["EMUINFER_CACHE"] + "/fits", "a") as file:
        file.write("fit\\n")
    time.sleep(3)  # so that the other comes to wait
    return real(*arguments)

real, reduction._fit = reduction._fit, fit
settings = {"n_train": 40, "n_test": 80, "components": 4, "hidden": 8, "steps": 20, "progress": False}
print(float(abs(reduction.reduce_emulator(line_emulator(), **settings).basis).sum()))
"""


def test_of_two_processes_one_reduces_and_the_other_reads(tmp_path):
    here = Path(__file__).parent
    known = {**os.environ, "EMUINFER_CACHE": str(tmp_path), "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    both = [subprocess.Popen([sys.executable, "-c", REDUCE], env=known, stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert said[0] == said[1] and float(said[0]) > 0
    assert (tmp_path / "fits").read_text() == "fit\n"
    assert not [p.name for p in tmp_path.rglob("*") if ".tmp" in p.name or p.name.startswith("reducing-")]
