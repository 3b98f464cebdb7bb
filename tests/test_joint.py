"""Several arms or exposures of one star in one likelihood, against one spectrum and against linear theory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from tiny import RANGE, RESOLUTION, RV, TRUTH, VBROAD, observe

from emuinfer import Observation, StellarModel, sample
from emuinfer.errors import LabelError, ObservationError
from emuinfer.likelihoods import JointModel
from emuinfer.posteriors import draws_of

OFFSET = 2.5  # km/s
OPTIONS = {"progress": False, "rv_range": (-60, 60), "line_errors": None}
NAMES = ("teff", "fe_h", "mg_fe", "rv", "vbroad")


def copy(observation, flux, factor=1.0, keep=slice(None)):
    return Observation(
        observation.wavelength[keep],
        flux[keep],
        factor * observation.uncertainty[keep],
        resolution=observation.resolution,
        medium="air",
        name="exposure",
        clip=None,
    )


@pytest.fixture(scope="module")
def arms(tiny_emulator):
    """A red and a blue arm, the second moved by `OFFSET`."""
    grid = tiny_emulator.config.wavelength
    blue, red = (observe(tiny_emulator, grid=grid, rv=rv, seed=s) for rv, s in ((RV, 1), (RV + OFFSET, 2)))
    return copy(blue, blue.flux, keep=blue.wavelength < 6188), copy(red, red.flux, keep=red.wavelength > 6186)


@pytest.fixture(scope="module")
def joint(tiny_emulator, arms):
    return JointModel.of(tiny_emulator, arms, **OPTIONS)


def test_names_units_and_priors(joint, tiny_emulator, arms):
    assert joint.names == ("teff", "fe_h", "mg_fe", "rv", "vbroad", "log10_jitter_1", "rv_offset_2", "log10_jitter_2")
    assert joint.units["rv_offset_2"] == "km / s" and joint.units["teff"] == "K"
    fixed = JointModel(joint.arms, priors={"rv_offset_2": OFFSET, "log10_jitter_1": -3.0, "teff": dist.Normal(5600, 9)})
    assert set(fixed.names) == {*NAMES, "log10_jitter_2"} and isinstance(fixed.priors["teff"], dist.Normal)
    with pytest.raises(LabelError, match="no parameter rv_offset_1"):
        JointModel(joint.arms, priors={"rv_offset_1": 1.0})
    other = StellarModel(tiny_emulator, arms[1], broadening="none", **OPTIONS)
    with pytest.raises(LabelError, match="Arm 2 has broadening='none'"):
        JointModel([joint.arms[0], other])
    with pytest.raises(ObservationError, match="one arm or more"):
        JointModel([])


@pytest.mark.comparison
def test_log_density_is_the_sum_of_the_arms_and_the_priors(joint):
    """By NumPyro's own tracing, with SciPy's priors."""
    from numpyro.infer.util import log_density
    from scipy.stats import norm

    values = {**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter_1": -2.5, "rv_offset_2": 2.0, "log10_jitter_2": -3.0}
    f32 = {k: jnp.float32(v) for k, v in values.items()}
    density = float(jax.jit(lambda v: log_density(joint, (), {}, v)[0])(f32))
    total = norm(0, 5).logpdf(2.0)
    first = {n: f32[n] for n in NAMES}
    for arm, rv, jitter in ((joint.arms[0], RV, -2.5), (joint.arms[1], RV + 2.0, -3.0)):
        one = {**first, "rv": jnp.float32(rv), "log10_jitter": jnp.float32(jitter)}
        total += float(eqx.filter_jit(arm.likelihood.log_likelihood)(one)) + float(arm.likelihood.constant)
        total += float(arm.nuisance_priors["log10_jitter"].log_prob(jitter))
    for name in NAMES:
        prior = joint.priors.get(name, joint.nuisance_priors.get(name))
        total += float(prior.log_prob(f32[name]))
    assert density == pytest.approx(total, abs=0.05)


def test_two_exposures_are_one_of_their_mean(tiny_emulator):
    """Exposures with √2 times the noise have the likelihood of their mean, up to a constant: so its means and widths.

    The model's errors included, which are common to both exposures.
    """
    mean = observe(tiny_emulator, grid=tiny_emulator.config.wavelength, seed=4)
    half = mean.uncertainty * np.random.default_rng(8).standard_normal(len(mean))
    one = StellarModel(tiny_emulator, mean, priors={"log10_jitter": -4.0}, **OPTIONS)
    exposures = [copy(mean, mean.flux + sign * half, np.sqrt(2)) for sign in (1, -1)]
    fixed = {"log10_jitter_1": -4.0, "log10_jitter_2": -4.0, "rv_offset_2": 0.0}
    two = JointModel.of(tiny_emulator, exposures, priors=fixed, **OPTIONS)
    assert set(one.names) == set(two.names) == set(NAMES)
    truth = {**TRUTH, "rv": RV, "vbroad": VBROAD}
    width = {"teff": 25.0, "fe_h": 0.01, "mg_fe": 0.02, "rv": 0.06, "vbroad": 0.1}
    rng = np.random.default_rng(3)
    points = [truth] + [{n: v + 1.5 * width[n] * rng.standard_normal() for n, v in truth.items()} for _ in range(30)]
    found = []
    for model in (one, two):
        data = with_errors(model, truth)
        value = eqx.filter_jit(lambda v, d: d.log_likelihood(v))
        found.append(
            np.array([float(value(model.complete({k: jnp.float32(x) for k, x in v.items()}), data)) for v in points])
        )
    alone, both = (f - f[0] for f in found)
    assert np.ptp(alone) > 10
    np.testing.assert_allclose(both, alone, rtol=0.02, atol=0.1)


def with_errors(model, values):
    values = model.complete({k: jnp.float32(v) for k, v in values.items()})
    return eqx.filter_jit(lambda v, d: d.with_model_errors(v))(values, model.likelihood)


def test_errors_of_the_model_do_not_average_out(tiny_emulator):
    """With exposures that see the same lines, information on a flux is 1 / (1 / S + m), S that of all exposures."""
    mean = observe(tiny_emulator, grid=tiny_emulator.config.wavelength, seed=4)
    joint = JointModel.of(tiny_emulator, [copy(mean, mean.flux), copy(mean, mean.flux, 2.0)], **OPTIONS)
    m = 1e-4
    information = 0.0
    for noise in (arm.noise for arm in joint.likelihood.arms):
        variance = np.asarray(noise.variance / noise.level**2, float)
        information = information + 1 / (variance + m * np.asarray(noise.share, float))
    noise = joint.likelihood.arms[0].noise
    variance = np.asarray(noise.variance / noise.level**2, float)
    np.testing.assert_allclose(information, 1 / (1 / (1.25 / variance) + m), rtol=0.02)


def test_arms_that_do_not_overlap_keep_their_errors(joint):
    share = np.asarray(joint.likelihood.arms[0].noise.share)
    blue = joint.arms[0].wavelength < 6185.5
    assert (share[blue] == 1).all() and share[joint.arms[0].wavelength > 6187].min() > 1.5


@pytest.fixture(scope="module")
def posterior(joint):
    start = {n: joint.first_guesses(n)[0] for n in joint.names if n not in TRUTH}
    start |= {**TRUTH, "teff": TRUTH["teff"] + 25, "vbroad": VBROAD}
    return sample(joint, seed=1, start=start, chains=4, warmup=150, draws=300, verify=40, predictive=3, progress=False)


@pytest.mark.slow
def test_the_offset_of_an_arm_is_found(posterior):
    truth = {**TRUTH, "rv": RV, "vbroad": VBROAD, "rv_offset_2": OFFSET}
    for name, true in truth.items():
        draws = draws_of(posterior, name)
        assert abs(draws.mean() - true) < 3.5 * draws.std(), name
    assert draws_of(posterior, "rv_offset_2").std() < 0.25
    assert posterior.attrs["verification"] == "ok"


@pytest.mark.slow
def test_the_posterior_holds_the_flux_of_each_arm(posterior, joint):
    facts = posterior.constant_data
    arm, flux = facts["arm"].values, posterior.observed_data["flux"].values
    model = posterior.posterior_predictive["model_flux"].values[0, 0]
    for k, spectrum in enumerate(joint.arms, start=1):
        of_arm = arm == k
        np.testing.assert_array_equal(facts["wavelength"].values[of_arm], spectrum.wavelength)
        pull = ((flux - model) / facts["uncertainty"].values)[of_arm]
        assert pull.std() == pytest.approx(1, abs=0.25)
    assert posterior.attrs["data_hash"] == ", ".join(a.observation.hash for a in joint.arms)
    assert RANGE[0] < facts["wavelength"].values.min() and joint.arms[0].resolution == RESOLUTION
