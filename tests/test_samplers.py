"""Samplers and the optimiser on densities whose answer is known."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import SamplingError
from emuinfer.samplers import get_sampler, laplace_covariance, nuts, optimise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

DIM = 8


def gaussian(z, data):
    residual = z - data["mean"]
    return -0.5 * residual @ (data["precision"] @ residual) + data["constant"]


def correlated(condition=1e4, seed=0):
    """Mean, covariance and data of a Gaussian whose axes are rotated and differ by sqrt(condition)."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(DIM, DIM)))
    covariance = (axes * np.logspace(0, np.log10(condition), DIM) * 1e-3) @ axes.T
    mean = rng.normal(size=DIM)
    data = {"mean": mean.astype(np.float32), "precision": np.linalg.inv(covariance).astype(np.float32), "constant": 0.0}
    return mean, covariance, data


@pytest.fixture(scope="module")
def gaussian_run():
    mean, covariance, data = correlated()
    result = nuts(gaussian, mean, data, seed=1, covariance=covariance, warmup=250, draws=500, progress=False)
    return mean, covariance, data, result


def effective(x):
    return float(az.ess(np.asarray(x, float)))


def test_nuts_finds_mean_and_covariance_of_a_gaussian(gaussian_run):
    mean, covariance, _, result = gaussian_run
    x = result.positions
    sd = np.sqrt(np.diag(covariance))
    sizes = np.array([effective(x[..., i]) for i in range(DIM)])
    assert np.all(sizes > 400) and max(float(az.rhat(x[..., i].astype(float))) for i in range(DIM)) < 1.02
    assert np.all(np.abs(x.mean((0, 1)) - mean) < 4 * sd / np.sqrt(sizes))
    found = np.cov(x.reshape(-1, DIM).T)
    np.testing.assert_allclose(found / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.15)
    np.testing.assert_allclose(np.sqrt(np.diag(found)), sd, rtol=0.1)
    # The log density of a Gaussian in d dimensions is -chi^2_d / 2.
    assert result.stats["lp"].mean() == pytest.approx(-DIM / 2, abs=0.4)
    assert result.stats["lp"].var() == pytest.approx(DIM / 2, rel=0.25)
    assert effective(x[..., 0]) / result.gradients > 0.05  # whitened: few gradients per independent draw


def test_result_is_complete(gaussian_run):
    _, _, _, result = gaussian_run
    assert result.positions.shape == (4, 500, DIM) and result.positions.dtype == np.float32
    assert set(result.stats) == {"lp", "diverging", "energy", "n_steps", "tree_depth", "acceptance_rate", "step_size"}
    assert all(x.shape == (4, 500) and isinstance(x, np.ndarray) for x in result.stats.values())
    assert not result.stats["diverging"].any() and result.stats["diverging"].dtype == bool
    assert result.stats["acceptance_rate"].mean() == pytest.approx(0.8, abs=0.1)
    np.testing.assert_array_equal(result.stats["step_size"], result.warmup["step_size"])  # fixed after warm-up
    assert result.gradients == result.stats["n_steps"].sum() + result.warmup["gradients"]
    assert set(result.timings) == {"compile_s", "warmup_s", "sampling_s"} and min(result.timings.values()) >= 0
    assert result.seed == 1 and result.notes == ()


def test_mass_matrix_is_the_posterior_covariance(gaussian_run):
    _, covariance, _, result = gaussian_run
    root = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(root, np.linalg.solve(root, result.inverse_mass_matrix).T)
    np.testing.assert_allclose(np.linalg.eigvalsh(whitened), 1, atol=0.5)


def test_seed_and_data_matter_and_nothing_is_compiled_twice(gaussian_run):
    mean, covariance, data, result = gaussian_run
    settings = dict(covariance=covariance, warmup=250, draws=500, progress=False)
    again = nuts(gaussian, mean, data, seed=1, **settings)
    np.testing.assert_array_equal(again.positions, result.positions)
    assert again.timings["compile_s"] == 0
    moved = nuts(gaussian, mean + 5, {**data, "mean": data["mean"] + 5}, seed=2, **settings)
    assert moved.timings["compile_s"] == 0  # the data are arguments of the program
    np.testing.assert_allclose(moved.positions.mean((0, 1)), mean + 5, atol=0.5)
    assert not np.array_equal(moved.positions - 5, result.positions)


def test_chunks_do_not_change_the_draws(gaussian_run):
    mean, covariance, data, result = gaussian_run
    other = nuts(gaussian, mean, data, seed=1, covariance=covariance, warmup=250, draws=500, progress=True, chunk=37)
    np.testing.assert_array_equal(other.positions, result.positions)
    for name, x in result.stats.items():
        np.testing.assert_array_equal(other.stats[name], x)


def test_starts_of_the_user(gaussian_run):
    mean, _, data, _ = gaussian_run
    starts = np.tile(mean, (4, 1)) + 0.05 * np.random.default_rng(0).normal(size=(4, DIM))
    starts[2] = np.nan
    result = nuts(gaussian, starts, data, seed=3, warmup=300, draws=300, progress=False)
    assert "1 of 4 starts" in result.notes[0]
    assert np.isfinite(result.positions).all()
    sd = np.sqrt(np.diag(correlated()[1]))
    assert np.all(np.abs(result.positions.mean((0, 1)) - mean) < 0.3 * sd)  # unwhitened, condition number 10^4


def test_hopeless_starts_and_bad_arguments():
    mean, covariance, data = correlated()
    with pytest.raises(SamplingError, match="not finite at any of the 4 starts"):
        nuts(gaussian, mean, {**data, "constant": np.nan}, seed=0, covariance=covariance, progress=False)
    with pytest.raises(SamplingError, match="Hessian .* not finite"):
        nuts(gaussian, mean, {**data, "precision": data["precision"] * np.nan}, seed=0, progress=False)
    with pytest.raises(SamplingError, match="not finite at any of the 1 starts"):
        optimise(gaussian, mean, {**data, "constant": np.nan})
    with pytest.raises(SamplingError, match="None of the starts"):
        nuts(gaussian, np.full((4, DIM), np.nan), data, seed=0, progress=False)
    with pytest.raises(SamplingError, match="positive definite"):
        nuts(gaussian, mean, data, seed=0, covariance=-covariance, progress=False)
    with pytest.raises(SamplingError, match=r"shape \(8, 8\)"):
        nuts(gaussian, mean, data, seed=0, covariance=np.eye(3), progress=False)
    with pytest.raises(SamplingError, match="`draws`"):
        nuts(gaussian, mean, data, seed=0, covariance=covariance, draws=0, progress=False)
    with pytest.raises(SamplingError, match="between 0 and 1"):
        nuts(gaussian, mean, data, seed=0, covariance=covariance, target_acceptance=80, progress=False)


def test_unknown_sampler():
    with pytest.raises(SamplingError, match="Did you mean 'nuts'.*samplers are: .*nuts"):
        get_sampler("NUTs")
    with pytest.raises(SamplingError, match="Unknown sampler 'gibbs'"):
        get_sampler("gibbs")


# Rubin (1981), J. Educ. Stat. 6, 377: effects of coaching in eight schools and their standard errors.
EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERROR = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def exact_eight_schools():
    """E[mu], E[tau], E[theta_1] by quadrature over tau: given tau, mu and theta are Gaussian.

    Priors mu ~ N(0, 5), tau ~ half-Cauchy(5).
    """
    log_tau = np.linspace(-12, 8, 20001)
    tau = np.exp(log_tau)[:, None]
    variance = ERROR**2 + tau**2
    weight = 1 / 25 + np.sum(1 / variance, axis=1)
    mu = np.sum(EFFECT / variance, axis=1) / weight
    log_p = -0.5 * np.sum(np.log(variance) + EFFECT**2 / variance, axis=1) + 0.5 * mu**2 * weight - 0.5 * np.log(weight)
    log_p += -np.log1p((tau[:, 0] / 5) ** 2) + log_tau  # prior; d tau = tau d(log tau)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    shrunk = (EFFECT[0] / ERROR[0] ** 2 + mu / tau[:, 0] ** 2) / (1 / ERROR[0] ** 2 + 1 / tau[:, 0] ** 2)
    return p @ mu, p @ tau[:, 0], p @ shrunk


@pytest.mark.comparison
def test_eight_schools_against_quadrature():
    import numpyro
    import numpyro.distributions as dist
    from jax.flatten_util import ravel_pytree
    from numpyro.infer.util import initialize_model

    def model(effect, error):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        tau = numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("schools", 8):
            theta = numpyro.sample("theta", dist.Normal(0, 1))
            numpyro.sample("y", dist.Normal(mu + tau * theta, error), obs=effect)

    info = initialize_model(jax.random.key(0), model, dynamic_args=True, model_args=(EFFECT, ERROR))
    flat, unravel = ravel_pytree(info.param_info.z)

    def log_density(z, data):
        return -info.potential_fn(*data)(unravel(z))

    data = (EFFECT, ERROR)
    settings = dict(warmup=500, draws=1000, target_acceptance=0.9, progress=False)
    result = nuts(log_density, np.zeros_like(flat), data, seed=0, **settings)
    z = jax.vmap(jax.vmap(unravel))(result.positions)
    mu, tau = np.asarray(z["mu"], float), np.exp(np.asarray(z["tau"], float))
    theta = mu + tau * np.asarray(z["theta"][..., 0], float)
    for x, exact in zip((mu, tau, theta), exact_eight_schools()):
        assert abs(x.mean() - exact) < 4 * x.std() / np.sqrt(effective(x)), (x.mean(), exact)
    assert result.stats["diverging"].mean() < 0.01


def banana(z, data):
    return -0.5 * (z[0] ** 2 / 1.0 + ((z[1] - z[0] ** 2) / data) ** 2)


def test_optimise_follows_a_bent_ridge_and_laplace_matches_it():
    starts = np.random.default_rng(0).normal(size=(6, 2)) * 3
    best = optimise(banana, starts, 0.1)
    assert best.converged.all() and best.all_positions.shape == (6, 2)
    np.testing.assert_allclose(best.position, 0, atol=0.05)
    covariance, notes = laplace_covariance(banana, np.zeros(2), 0.1)
    np.testing.assert_allclose(covariance, [[1, 0], [0, 0.01]], rtol=1e-4)
    assert notes == ()
    fisher = lambda z, data: jnp.diag(jnp.array([4.0, 1.0]))
    metric_covariance, _ = laplace_covariance(banana, np.zeros(2), 0.1, metric=fisher)
    np.testing.assert_allclose(metric_covariance, np.diag([0.25, 1]), rtol=1e-5)


def test_laplace_repairs_a_saddle():
    covariance, notes = laplace_covariance(lambda z, data: -(z[0] ** 2) + z[1] ** 2, np.zeros(2), ())
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert "1 of 2 directions" in notes[0]


def spectrum_density(z, data):
    """A large float32 sum: chi^2 of many pixels with parameters of very different scales and one bounded."""
    x = data["x"]
    depth, width = jax.nn.sigmoid(z[0]), jnp.exp(z[1])
    model = 1 + 0.01 * z[2] * x - depth * jnp.exp(-0.5 * ((x - 0.1 * z[3]) / width) ** 2)
    return -0.5 * jnp.sum(((data["flux"] - model) / data["sigma"]) ** 2) - 0.5 * jnp.sum((z / 5) ** 2)


@pytest.mark.comparison
def test_optimise_copes_with_the_noise_of_float32():
    x = np.linspace(-3, 3, 20000).astype(np.float32)
    rng = np.random.default_rng(1)
    truth = np.array([0.4, -1.0, 0.5, 0.7])
    clean = spectrum_density_model(x, truth)
    data = {"x": x, "sigma": np.float32(0.01), "flux": (clean + 0.01 * rng.normal(size=len(x))).astype(np.float32)}
    best = optimise(spectrum_density, truth + rng.normal(size=(6, 4)) * 0.5, data)
    assert best.converged.sum() >= 4 and best.log_density < -9000  # some 10^4: its float32 spacing is 0.001
    sd = np.sqrt(np.diag(laplace_covariance(spectrum_density, best.position, data)[0]))
    assert np.all(np.abs(best.position - truth) < 4.5 * sd)
    from scipy.optimize import minimize  # in float64, with our own chi^2

    def chi2(z):
        residual = (data["flux"] - spectrum_density_model(x.astype(float), z)) / 0.01
        return 0.5 * np.sum(residual**2) + 0.5 * np.sum((z / 5) ** 2)

    reference = minimize(chi2, truth, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-6, "maxiter": 2000})
    np.testing.assert_allclose(best.position, reference.x, atol=0.1 * sd.max(), rtol=0)
    assert np.all(np.abs(best.position - reference.x) < 0.1 * sd)


def spectrum_density_model(x, z):
    return 1 + 0.01 * z[2] * x - 1 / (1 + np.exp(-z[0])) * np.exp(-0.5 * ((x - 0.1 * z[3]) / np.exp(z[1])) ** 2)


def test_data_may_hold_equinox_modules():
    """Weights are arguments, activation functions static: new weights of the same shapes need no new program."""
    import equinox as eqx

    from emuinfer.samplers._compile import compile_once

    def log_density(z, network):
        return -jnp.sum((network(z) - 1.0) ** 2)

    def value(density, z):
        return density(z)

    networks = [eqx.nn.MLP(2, 1, 4, 1, activation=jnp.tanh, key=jax.random.key(i)) for i in range(2)]
    z = np.array([0.3, -0.2], np.float32)
    for i, network in enumerate(networks):
        call, seconds = compile_once(value, log_density, network, z)
        assert float(call(network, z)) == pytest.approx(float(log_density(z, network)), rel=1e-5)
        assert (seconds == 0) == (i == 1)
