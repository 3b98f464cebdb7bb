"""Every sampler on posteriors whose answer is known from elsewhere."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from emuinfer.errors import SamplingError
from emuinfer.samplers import (
    SAMPLERS,
    SamplerResult,
    get_sampler,
    hmc,
    laplace,
    laplace_covariance,
    mclmc,
    nested,
    optimise,
    pathfinder,
    smc,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

QUIET = {"progress": False}


def effective(x):
    return float(az.ess(np.asarray(x, float)))


# --- A correlated Gaussian: means, covariance and integral are known.

DIM = 5
SETTINGS = {
    "hmc": {"warmup": 200, "draws": 500},
    "mclmc": {"warmup": 200, "draws": 500},
    "smc": {"draws": 300},
    "nested": {"draws": 250, "live": 200},
    "pathfinder": {"draws": 500},
    "laplace": {"draws": 500},
}


def gaussian(z, data):
    residual = z - data["mean"]
    return -0.5 * residual @ (data["precision"] @ residual)


@pytest.fixture(scope="module")
def problem():
    """Mean, covariance with a condition number of 10^3 in rotated axes, and the data of the density."""
    rng = np.random.default_rng(3)
    axes, _ = np.linalg.qr(rng.normal(size=(DIM, DIM)))
    covariance = (axes * np.logspace(-3, 0, DIM)) @ axes.T
    mean = rng.normal(size=DIM)
    return mean, covariance, {"mean": np.float32(mean), "precision": np.float32(np.linalg.inv(covariance))}


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"nuts"}))  # which has its own in test_samplers.py
def test_gaussian(name, problem):
    mean, covariance, data = problem
    # What the samplers are told of the posterior is wrong by 30 % in scale and half a standard deviation in place.
    sd = np.sqrt(np.diag(covariance))
    told = mean + 0.5 * np.linalg.cholesky(covariance)[:, 0], 1.3**2 * covariance
    result = get_sampler(name)(gaussian, told[0], data, seed=4, chains=4, covariance=told[1], **SETTINGS[name], **QUIET)
    x = result.positions
    assert isinstance(result, SamplerResult) and x.shape == (4, SETTINGS[name]["draws"], DIM) and x.dtype == np.float32
    assert all(isinstance(s, np.ndarray) and s.shape == x.shape[:2] for s in result.stats.values())
    assert set(result.timings) == {"compile_s", "warmup_s", "sampling_s"} and result.inverse_mass_matrix.shape == (
        DIM,
        DIM,
    )

    # Of methods that resample: repetitions are not independent, and points of `nested` share ancestors.
    most = result.warmup.get("ess", np.inf) / (4 if name == "nested" else 1)
    sizes = np.array([min(effective(x[..., i]), most, x[..., 0].size) for i in range(DIM)])
    assert sizes.min() > (100 if name == "nested" else 400)
    assert np.all(np.abs(x.mean((0, 1)) - mean) < 4 * sd / np.sqrt(sizes))
    assert np.all(
        np.abs(x.std((0, 1)) / sd - 1) < 4 / np.sqrt(2 * 0.5 * sizes)
    )  # squares mix more slowly than positions
    found = np.cov(x.reshape(-1, DIM).T)
    np.testing.assert_allclose(found / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.2)
    flat = x.reshape(-1, DIM)
    expected = -0.5 * np.einsum("ni,ij,nj->n", flat - mean, np.linalg.inv(covariance), flat - mean)
    np.testing.assert_allclose(result.stats["lp"].ravel(), expected, atol=0.05)
    if "energy" in result.stats:
        energy = result.stats["energy"].astype(float)  # of a Gaussian: chi^2 of 2 dim degrees of freedom, over 2
        assert np.all(energy > -result.stats["lp"]) and energy.mean() == pytest.approx(DIM, abs=0.5)
        assert energy.var() == pytest.approx(DIM, rel=0.3)
    if name in ("smc", "nested"):
        truth = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
        log_z, error = result.evidence
        assert abs(log_z - truth) < 4 * error and error < 0.25
    else:
        assert result.evidence is None
    if name in ("pathfinder", "laplace"):
        assert (
            result.warmup["k_hat"] < 0.7
            and "Pareto k-hat" in result.notes[-1]
            and "does not hold" not in result.notes[-1]
        )


def test_the_same_seed_gives_the_same_draws(problem):
    mean, covariance, data = problem
    for name in ("hmc", "mclmc", "smc", "laplace"):
        one, two, other = (
            get_sampler(name)(
                gaussian, mean, data, seed=seed, covariance=covariance, **SETTINGS[name], **QUIET
            ).positions
            for seed in (4, 4, 5)
        )
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)


def test_hmc_chains_take_the_same_number_of_steps(problem):
    mean, covariance, data = problem
    result = hmc(gaussian, mean, data, seed=0, covariance=covariance, **SETTINGS["hmc"], **QUIET)
    steps = result.stats["n_steps"]
    assert np.ptp(steps) == 0 and result.stats["acceptance_rate"].mean() == pytest.approx(0.8, abs=0.1)
    assert result.gradients == steps.sum() + result.warmup["gradients"]
    lengths = mclmc(gaussian, mean, data, seed=0, covariance=covariance, **SETTINGS["mclmc"], **QUIET).stats["n_steps"]
    assert np.ptp(lengths) > 0 and np.all(lengths == lengths[:1])  # random, but no chain waits for another


# --- Eight schools, with the reference values of a public suite.

# Rubin (1981), J. Educ. Stat. 6, 377: effects of coaching in eight schools and their standard errors.
EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERROR = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
# Means and standard deviations from 20,000 draws of Stan: inference_gym 0.0.5, targets/ground_truth/eight_schools.py, for
# mean effect ~ N(0, 10), log sd ~ N(5, 1), effects ~ N(mean effect, sd): mean effect, log sd, effects of the schools.
STAN_MEAN = np.array([5.7598, 2.4533, 14.7649, 7.1560, 2.5890, 6.5568, 1.8190, 3.3973, 12.7918, 7.9491])
STAN_SD = np.array([5.4654, 0.5147, 10.7965, 7.8138, 10.4733, 8.3144, 7.4578, 8.4540, 8.1634, 10.9138])


def schools(z, data):
    """Non-centred, so that it has no funnel: z is (mean effect / 10, log sd - 5, scaled deviations)."""
    effect, error = data
    theta = 10 * z[0] + jnp.exp(5 + z[1]) * z[2:]
    return -0.5 * jnp.sum(((effect - theta) / error) ** 2) - 0.5 * jnp.sum(z**2)


@pytest.mark.comparison
@pytest.mark.parametrize(
    "sampler, settings",
    [
        (hmc, {"warmup": 400, "draws": 2000, "target_acceptance": 0.9}),
        (mclmc, {"warmup": 400, "draws": 2000, "trajectory_steps": 4.0}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
@pytest.mark.slow
def test_eight_schools_against_stan(sampler, settings):
    data = np.float32(EFFECT), np.float32(ERROR)
    best = optimise(schools, np.zeros((1, 10)), data).position
    result = sampler(schools, best, data, seed=2, **settings, **QUIET)
    z = result.positions.astype(float)
    mean_effect, log_sd = 10 * z[..., 0], 5 + z[..., 1]
    theta = mean_effect[..., None] + np.exp(log_sd)[..., None] * z[..., 2:]
    x = np.concatenate([mean_effect[..., None], log_sd[..., None], theta], axis=-1)
    assert max(float(az.rhat(x[..., i])) for i in range(10)) < 1.03
    # In units of the posterior's standard deviation: a bias matters, Monte Carlo error does not.
    np.testing.assert_allclose((x.mean((0, 1)) - STAN_MEAN) / STAN_SD, 0, atol=0.12)
    np.testing.assert_allclose(x.std((0, 1)) / STAN_SD, 1, atol=0.1)


# --- Two modes: their weights and the evidence are known.

MODES = np.array([[-3.0, 0, 0], [3, 1, 0]])
WEIGHTS = np.array([0.3, 0.7])
WIDTH, PRIOR_SD = 0.3, 5.0


def modes_likelihood(z, data):
    chi2 = jnp.sum((z - data["modes"]) ** 2, axis=1) / WIDTH**2
    norm = 3 * jnp.log(WIDTH * jnp.sqrt(2 * jnp.pi))
    return jax.scipy.special.logsumexp(jnp.log(data["weights"]) - 0.5 * chi2) - norm


def modes_prior(z, data):
    return -0.5 * jnp.sum((z / PRIOR_SD) ** 2) - 3 * jnp.log(PRIOR_SD * jnp.sqrt(2 * jnp.pi))


def modes_draw(key, data):
    return PRIOR_SD * jax.random.normal(key, (3,))


# The tolerance of means is in widths of a mode. Those of `nested` scatter by 0.07 to 0.1 from seed to seed.
@pytest.mark.parametrize(
    "sampler, settings, tolerance",
    [
        (smc, {"draws": 500}, 0.1),
        (nested, {"draws": 300, "live": 300}, 0.3),
    ],
    ids=["smc", "nested"],
)
@pytest.mark.slow
def test_two_modes(sampler, settings, tolerance):
    # The product of Gaussians: each mode has the mass w N(mode; 0, prior variance + width^2).
    mass = WEIGHTS * multivariate_normal(np.zeros(3), (PRIOR_SD**2 + WIDTH**2) * np.eye(3)).pdf(MODES)
    data = {"modes": np.float32(MODES), "weights": np.float32(WEIGHTS)}
    split = modes_prior, modes_likelihood, modes_draw
    result = sampler(None, np.zeros(3), data, seed=1, split=split, **settings, **QUIET)
    left = result.positions[..., 0] < 0
    assert left.mean() == pytest.approx(mass[0] / mass.sum(), abs=0.09)
    log_z, error = result.evidence
    assert abs(log_z - np.log(mass.sum())) < 4 * error and error < 0.25
    for side, mode in ((left, MODES[0]), (~left, MODES[1])):
        x = result.positions[side]
        shrunk = mode * PRIOR_SD**2 / (PRIOR_SD**2 + WIDTH**2)
        np.testing.assert_allclose(x.mean(0), shrunk, atol=tolerance * WIDTH)
        np.testing.assert_allclose(x.std(0), WIDTH / np.sqrt(1 + (WIDTH / PRIOR_SD) ** 2), rtol=0.15)


# --- Another code.


@pytest.mark.comparison
@pytest.mark.slow
def test_regression_against_numpyro():
    """Poisson regression by `hmc` and by NumPyro's NUTS."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    rng = np.random.default_rng(5)
    x = np.column_stack([np.ones(40), rng.normal(size=(40, 2))]).astype(np.float32)
    counts = rng.poisson(np.exp(x @ [0.5, 0.7, -0.4]))

    def model(x, counts):
        slope = numpyro.sample("slope", dist.Normal(0, 2).expand([3]).to_event(1))
        numpyro.sample("counts", dist.Poisson(jnp.exp(x @ slope)), obs=counts)

    def log_density(z, data):
        x, counts = data
        rate = x @ z
        return jnp.sum(counts * rate - jnp.exp(rate)) - 0.5 * jnp.sum((z / 2) ** 2)

    data = x, counts.astype(np.float32)
    best = optimise(log_density, np.zeros((1, 3)), data).position
    ours = hmc(log_density, best, data, seed=0, warmup=200, draws=1000, **QUIET).positions.astype(float)
    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=3000, progress_bar=False)
    mcmc.run(jax.random.key(1), x, counts)
    theirs = np.asarray(mcmc.get_samples()["slope"], float)
    for i in range(3):
        sizes = effective(ours[..., i]), effective(theirs[:, i].reshape(2, -1))
        assert min(sizes) > 500
        variance = ours[..., i].var() / sizes[0] + theirs[:, i].var() / sizes[1]
        assert abs(ours[..., i].mean() - theirs[:, i].mean()) < 4 * np.sqrt(variance)
        assert ours[..., i].std() == pytest.approx(theirs[:, i].std(), rel=0.1)


# --- What cannot work is said.


def cauchy(z, data):
    return -2.0 * jnp.sum(jnp.log1p(z**2 / 0.01)) + data


def test_approximations_that_do_not_hold_are_flagged():
    result = laplace(cauchy, np.zeros(4), 0.0, seed=0, covariance=np.eye(4) * 1e-4, draws=500, **QUIET)
    assert result.warmup["k_hat"] > 0.7 and "does not hold" in result.notes[-1]


def test_errors(problem):
    mean, covariance, data = problem
    given = {"seed": 0, "covariance": covariance, **QUIET}
    nan = {**data, "mean": data["mean"] * np.nan}
    for sampler in (hmc, mclmc, pathfinder, laplace):
        with pytest.raises(SamplingError, match="not finite at any"):
            sampler(gaussian, mean, nan, **given)
    for sampler in (smc, nested):
        with pytest.raises(SamplingError, match="finite at none of"):
            sampler(gaussian, mean, nan, **given)
        with pytest.raises(SamplingError, match="log_prior, log_likelihood, draw_prior"):
            sampler(gaussian, mean, data, split=(gaussian, gaussian), **given)
        with pytest.raises(SamplingError, match=r"must return a position of shape \(5,\)"):
            sampler(gaussian, mean, data, split=(gaussian, gaussian, lambda key, data: data["mean"][:2]), **given)
    for sampler in SAMPLERS.values():
        with pytest.raises(SamplingError, match=r"shape \(dim,\) or \(chains, dim\)"):
            sampler(gaussian, np.zeros((1, 2, 3)), data, **given)
        with pytest.raises(SamplingError, match=r"shape \(5, 5\)"):
            sampler(gaussian, mean, data, seed=0, covariance=np.eye(3), **QUIET)
        with pytest.raises(SamplingError, match="`draws`"):
            sampler(gaussian, mean, data, draws=0, **given)
    with pytest.raises(SamplingError, match="needs `covariance`"):
        hmc(gaussian, np.tile(mean, (4, 1)), data, seed=0, **QUIET)
    with pytest.raises(SamplingError, match="at least two dimensions"):
        mclmc(lambda z, data: -jnp.sum(z**2), np.zeros(1), (), seed=0, covariance=np.eye(1), **QUIET)
    with pytest.raises(SamplingError, match="`trajectory`"):
        hmc(gaussian, mean, data, trajectory=0, **given)


def test_laplace_is_the_default_covariance(problem):
    mean, covariance, data = problem
    result = laplace(gaussian, mean, data, seed=0, draws=100, **QUIET)
    np.testing.assert_allclose(result.inverse_mass_matrix, laplace_covariance(gaussian, mean, data)[0])
    np.testing.assert_allclose(result.inverse_mass_matrix, covariance, rtol=1e-2, atol=1e-5)
