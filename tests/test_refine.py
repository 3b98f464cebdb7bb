"""`refine` against posteriors that are known: conjugate Gaussians, a banana, two modes of known masses."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import tiny
from scipy.stats import kstest, norm

import emuinfer as ei
from emuinfer.errors import LabelError, SamplingError
from emuinfer.posteriors import load_posterior, save_posterior

NAMES = ("a", "b", "c")
DESIGN = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
PRIOR_MEAN, PRIOR_SD, NOISE = np.array([0.0, 1.0, 0.0]), np.array([2.0, 2.0, 1.0]), 0.5


class Gaussian:
    """A guide: a multivariate normal distribution."""

    def __init__(self, names, mean, covariance):
        self.names, self.mean = tuple(names), jnp.asarray(mean, jnp.float32)
        self.covariance = jnp.asarray(covariance, jnp.float32)

    def sample(self, key, n):
        root = jnp.linalg.cholesky(self.covariance)
        return self.mean + jax.random.normal(key, (n, len(self.names))) @ root.T

    def log_prob(self, values):
        return jax.scipy.stats.multivariate_normal.logpdf(jnp.asarray(values), self.mean, self.covariance)


def linear(y, design):
    """A linear model with Gaussian priors and noise, whose posterior is known."""
    a, b, c = (numpyro.sample(n, dist.Normal(m, s)) for n, m, s in zip(NAMES, PRIOR_MEAN, PRIOR_SD))
    numpyro.sample("y", dist.Normal(design @ jnp.stack([a, b, c]), NOISE), obs=y)


def mock(rng):
    """`(truth, data, mean and covariance of the posterior)`."""
    truth = PRIOR_MEAN + PRIOR_SD * rng.normal(size=3)
    y = DESIGN @ truth + NOISE * rng.normal(size=len(DESIGN))
    precision = np.diag(PRIOR_SD**-2.0) + DESIGN.T @ DESIGN / NOISE**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ (PRIOR_MEAN / PRIOR_SD**2 + DESIGN.T @ y / NOISE**2)
    return truth, (y.astype(np.float32), DESIGN), mean, covariance


def draws(posterior, names=NAMES):
    return np.stack([np.asarray(posterior["posterior"][n].values).ravel() for n in names], -1)


def agrees(posterior, mean, covariance, tolerance=0.2):
    """Means within `tolerance` standard deviations, standard deviations within 15 %."""
    x, sd = draws(posterior), np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((x.mean(0) - mean) / sd, 0, atol=tolerance)
    np.testing.assert_allclose(x.std(0) / sd, 1, atol=0.15)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_right_guide_suffices(seed):
    _, data, mean, covariance = mock(np.random.default_rng(seed))
    posterior = ei.refine(Gaussian(NAMES, mean, covariance), linear, data, seed=seed)
    assert posterior.attrs["method"] == "importance" and posterior.attrs["flag"] == "ok"
    assert posterior.attrs["k_hat"] == posterior.attrs["guide_k_hat"] < 0.7 and posterior.attrs["ess"] > 800
    assert posterior.attrs["likelihoods"] == 1024
    agrees(posterior, mean, covariance, 0.12)
    weights = np.exp(posterior.constant_data["log_weight"].values)
    proposed = posterior.constant_data["proposal"].values
    np.testing.assert_allclose(weights @ proposed, mean, atol=0.1 * np.sqrt(np.diag(covariance)).max())


@pytest.mark.parametrize(
    "shift, width", [(5.0, 1.0), (-5.0, 0.5), (0.0, 0.15), (0.0, 8.0)], ids=["shifted", "both", "narrow", "wide"]
)
def test_a_wrong_guide_is_seen_and_recovered(shift, width):
    _, data, mean, covariance = mock(np.random.default_rng(5))
    guide = Gaussian(NAMES, mean + shift * np.sqrt(np.diag(covariance)), width**2 * covariance)
    posterior = ei.refine(guide, linear, data, seed=1)
    assert posterior.attrs["guide_k_hat"] > 0.7 or posterior.attrs["guide_ess"] < 200
    assert posterior.attrs["method"] == "adaptive importance" and posterior.attrs["flag"] == "ok"
    assert "guide" in posterior.attrs["message"]
    agrees(posterior, mean, covariance)


def test_without_anything_more_a_wrong_guide_fails():
    _, data, mean, covariance = mock(np.random.default_rng(5))
    guide = Gaussian(NAMES, mean + 5 * np.sqrt(np.diag(covariance)), covariance)
    posterior = ei.refine(guide, linear, data, rounds=0, mcmc=False)
    assert posterior.attrs["flag"] == "fail" and "Do not use" in posterior.attrs["message"]


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_a_guide_on_a_part_of_the_parameters(shift):
    _, data, mean, covariance = mock(np.random.default_rng(6))
    sd = np.sqrt(covariance[1, 1])
    guide = Gaussian(["slope"], mean[1:2] + shift * sd, covariance[1:2, 1:2])
    posterior = ei.refine(guide, linear, data, rename={"slope": "b"}, seed=2)
    assert posterior.attrs["flag"] == "ok"
    assert posterior.attrs["method"] == ("adaptive importance" if shift else "importance")
    agrees(posterior, mean, covariance)


def two_modes(data):
    """Two Gaussians with 70 and 30 % of the posterior: the priors are wide, and flat as far as the modes reach."""
    x = numpyro.sample("x", dist.Uniform(-10.0, 10.0).expand([2]).to_event(1))
    logs = [jnp.log(w) + dist.Normal(jnp.asarray(m), s).log_prob(x).sum() for w, m, s in zip(*data)]
    numpyro.factor("data", jnp.logaddexp(*logs))


MODES = (jnp.array([0.7, 0.3]), jnp.array([[-3.0, 2.0], [4.0, -1.0]]), jnp.array([0.5, 0.3]))


@pytest.mark.parametrize("rounds", [5, 0], ids=["weights", "nuts"])
@pytest.mark.parametrize("centre", [[-3.0, 2.0], [4.0, -1.0]], ids=["heavy", "light"])
def test_masses_of_modes_where_the_guide_has_one(centre, rounds):
    guide = Gaussian(["x[0]", "x[1]"], centre, 0.2 * np.eye(2))
    posterior = ei.refine(guide, two_modes, (MODES,), seed=3, rounds=rounds, search=True)
    assert posterior.attrs["method"] == ("adaptive importance" if rounds else "nuts")
    x = posterior["posterior"]["x"].values.reshape(-1, 2)
    left = x[:, 0] < 0.5
    assert left.mean() == pytest.approx(0.7, abs=0.06)
    np.testing.assert_allclose(x[left].mean(0), [-3, 2], atol=0.1)
    np.testing.assert_allclose(x[~left].std(0), 0.3, atol=0.06)


def test_nuts_of_one_mode():
    one = jnp.array([1.0, 0.0]), *MODES[1:]
    posterior = ei.refine(Gaussian(["x[0]", "x[1]"], [0.0, 4.0], 0.1 * np.eye(2)), two_modes, (one,), rounds=0)
    assert (
        posterior.attrs["method"] == "nuts"
        and posterior.attrs["flag"] == "ok"
        and "one mode" in posterior.attrs["message"]
    )
    x = posterior["posterior"]["x"].values.reshape(-1, 2)
    np.testing.assert_allclose(x.mean(0), [-3, 2], atol=0.15)
    np.testing.assert_allclose(x.std(0), 0.5, rtol=0.2)


def banana(data):
    """y = x² + noise, with a normal x: curved, its density known."""
    x = numpyro.sample("x", dist.Normal(0.0, 5.0))
    y = numpyro.sample("y", dist.Normal(0.0, 10.0))
    numpyro.factor("data", dist.Normal(0.0, 1.0).log_prob(x) + dist.Normal(x**2, data).log_prob(y))


def test_a_banana():
    posterior = ei.refine(Gaussian("xy", [0.0, 0.0], np.diag([0.3, 0.3])), banana, jnp.float32(0.2), seed=5)
    grid = np.linspace(-5, 5, 401)
    y = np.linspace(-3, 25, 2801)[:, None]
    density = norm.pdf(grid, 0, 5) * norm.pdf(grid) * norm.pdf(y, 0, 10) * norm.pdf(y, grid**2, 0.2)
    marginal = density.sum(0) / density.sum()
    x = draws(posterior, "xy")
    assert posterior.attrs["flag"] == "ok"
    assert x[:, 0].mean() == pytest.approx(marginal @ grid, abs=0.2)
    assert x[:, 0].std() == pytest.approx(np.sqrt(marginal @ grid**2), rel=0.12)
    assert (x[:, 1] - x[:, 0] ** 2).std() == pytest.approx(0.2, rel=0.15)


def positive(data):
    """A likelihood that is NaN in places, and a parameter that must be positive."""
    s = numpyro.sample("s", dist.HalfNormal(3.0))
    u = numpyro.sample("u", dist.Uniform(0.0, 1.0))
    numpyro.factor("data", dist.Normal(1.0, 0.3).log_prob(s) + jnp.where(u > 0.8, jnp.nan, -((u - 0.4) ** 2)))


def test_outside_the_priors_and_likelihoods_of_nan():
    posterior = ei.refine(Gaussian("su", [0.8, 0.5], np.diag([0.5, 0.5])), positive, jnp.float32(0.0), seed=2)
    x = draws(posterior, "su")
    assert (x[:, 0] > 0).all() and (x[:, 1] > 0).all() and (x[:, 1] < 0.8).all()
    assert posterior.attrs["flag"] == "ok"
    said = posterior.attrs["warnings"]
    assert "outside the priors" in said and "NaN or infinite" in said
    s = np.linspace(0, 5, 4001)
    density = norm.pdf(s, 0, 3) * norm.pdf(s, 1, 0.3)
    assert x[:, 0].mean() == pytest.approx((density @ s) / density.sum(), abs=0.04)


def test_names_that_do_not_fit():
    _, data, mean, covariance = mock(np.random.default_rng(5))
    with pytest.raises(LabelError, match=r"a, b, cc.*cc is no.*Did you mean 'c'.*samples a, b, c") as error:
        ei.refine(Gaussian(["a", "b", "cc"], mean, covariance), linear, data)
    assert "rename=" in str(error.value)
    with pytest.raises(LabelError, match=r"rename= has d.*proposes: a, b, c"):
        ei.refine(Gaussian(NAMES, mean, covariance), linear, data, rename={"d": "a"})
    with pytest.raises(LabelError, match="each once"):
        ei.refine(Gaussian(NAMES, mean, covariance), linear, data, rename={"a": "b"})


def test_a_likelihood_that_is_finite_nowhere():
    _, (y, design), mean, covariance = mock(np.random.default_rng(5))
    with pytest.raises(SamplingError, match="finite at none"):
        ei.refine(Gaussian(NAMES, mean, covariance), linear, (y * np.nan, design))


def test_ranks_of_200_mocks_are_uniform_and_compile_once():
    """Simulation-based calibration (Talts et al. 2018), with guides that are wrong each in its way."""
    rng, ranks, methods, compiled = np.random.default_rng(11), [], [], 0

    def counted(y, design):
        nonlocal compiled
        compiled += isinstance(y, jax.core.Tracer)
        return linear(y, design)

    for k in range(200):
        truth, data, mean, covariance = mock(rng)
        wrong = np.linalg.cholesky(covariance) @ rng.normal(size=3)
        guide = Gaussian(NAMES, mean + 0.5 * wrong, 1.5 * covariance)
        before = compiled
        posterior = ei.refine(guide, counted, data, seed=k, draws=50)
        assert compiled == before or posterior.attrs["method"] not in methods  # only the first of a method compiles
        ranks.append((draws(posterior) < truth).mean(0))
        methods.append(posterior.attrs["method"])
    assert all(kstest(r, "uniform").pvalue > 0.01 for r in np.transpose(ranks))
    assert np.mean([m == "importance" for m in methods]) > 0.85


def test_the_result_is_kept_on_disk(tmp_path):
    _, data, mean, covariance = mock(np.random.default_rng(5))
    posterior, again = (ei.refine(Gaussian(NAMES, mean, covariance), linear, data, seed=9) for _ in range(2))
    np.testing.assert_array_equal(draws(posterior), draws(again))
    back = load_posterior(save_posterior(posterior, tmp_path / "refined.nc"))
    assert back.attrs["method"] == "importance" and back.attrs["message"] == posterior.attrs["message"]


def test_a_spectrum_from_right_and_wrong_labels(tiny_emulator, tiny_observation):
    """Velocity, broadening and jitter are not the guide's; where it is wrong by many standard deviations the answer is the same."""
    model = ei.StellarModel(tiny_emulator, tiny_observation, progress=False)
    right, wrong = (
        ei.refine(Gaussian(tiny.SPACE.names, mean, np.diag([60.0, 0.05, 0.05]) ** 2), model, seed=1)
        for mean in ([5620.0, -0.29, 0.14], [6100.0, -0.1, 0.3])
    )
    assert right.attrs["flag"] == wrong.attrs["flag"] == right.attrs["verification"] == "ok"
    assert wrong.attrs["guide_ess"] < 50 and right.attrs["goodness"] == "good"
    for name, truth in {**tiny.TRUTH, "rv": tiny.RV, "vbroad": tiny.VBROAD}.items():
        x, y = (draws(p, [name])[:, 0] for p in (right, wrong))
        assert abs(x.mean() - truth) < 3.5 * x.std() and abs(x.mean() - y.mean()) < 0.3 * x.std()
        assert x.std() == pytest.approx(y.std(), rel=0.2)
    assert {"log_likelihood", "posterior_predictive"} <= {g.strip("/") for g in right.groups()}
