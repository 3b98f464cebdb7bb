"""What is measured of a network on objects it was not trained on: calibration, residuals, population; against what is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from emuinfer.errors import NetworkError, TokenError
from emuinfer.networks import AnyToAny, Network, finish_network, heads, load_network, save_network, similar
from emuinfer.networks.calibrate import Asked, calibrated_ranks, fit_calibration, ranks
from emuinfer.networks.outliers import ordinary_scores
from emuinfer.networks.population import population_card, population_shift, reweight
from emuinfer.networks.residuals import Residuals, check, fit_factors, whitened
from emuinfer.tokens import TokenSet
from tests.test_networks import RECIPE, SIZES, VOCABULARY, K, jiggled, toy

TEFF = VOCABULARY.index("teff")


@pytest.fixture(scope="module")
def network():
    card = {"recipe": dataclasses.asdict(RECIPE)}
    return Network(jiggled(AnyToAny(K, (7, 8), SIZES, key=jax.random.key(0))), VOCABULARY, card)


def test_widened_distributions():
    """Means stay, standard deviations grow by the factor, and quantiles by as much about the mean."""
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(3, heads.OUTPUTS)), jnp.float32)
    kinds = jnp.array([heads.MIXTURE, heads.STUDENT, heads.CATEGORICAL])
    wide = heads.widened(outputs, jnp.full(3, 1.7), kinds)
    (mean, sd), (again, more) = heads.moments(outputs, kinds), heads.moments(wide, kinds)
    assert np.allclose(again, mean, atol=1e-5) and np.allclose(more[:2], 1.7 * sd[:2], rtol=1e-4)
    levels = jnp.array([0.16, 0.84, 0.975])
    q, wider = (heads.quantiles(o[:2], levels, kinds[:2]) - mean[:2] for o in (outputs, wide))
    assert np.allclose(wider, 1.7 * q, rtol=1e-3, atol=1e-3)
    assert np.allclose(heads.widened(outputs, jnp.ones(3), kinds), outputs, atol=1e-4)
    noisy = heads.cumulative(outputs[1], jnp.float32(0.7), kinds[1], 0.0)
    assert noisy == heads.cumulative(outputs[1], jnp.float32(0.7), kinds[1])


def said(n, seed, width):
    """What a network of too narrow, or too wide, mixtures would have said: `width` of the truth over theirs, by object."""
    random = np.random.default_rng(seed)
    outputs = 0.3 * random.normal(size=(n, 1, heads.OUTPUTS)).astype(np.float32)
    quality = random.normal(size=n)
    mean, _ = heads.moments(jnp.asarray(outputs), jnp.array(heads.MIXTURE))
    drawn = heads.sample(jax.random.key(seed), jnp.asarray(outputs), jnp.array(heads.MIXTURE))
    noise = np.full((n, 1), 0.4, np.float32)
    y = np.asarray(mean + width(quality)[:, None] * (drawn - mean)) + noise * random.normal(size=(n, 1))
    asked = np.full((n, 1), TEFF)
    return Asked(outputs, np.full(n, 20), asked, asked > 0, y.astype(np.float32), noise, quality, quality < 9)


def test_calibration_finds_what_is_wrong(network):
    """Widths that are wrong by the quality of the data: factors, and coverage on other objects."""
    width = lambda quality: np.where(quality < stats.norm.ppf(1 / 3), 1.4, 0.8)
    calibration = fit_calibration(network, said(6000, 1, width))
    factor = calibration.factor(np.array([4, 5, 6]))[:, TEFF]  # 13 to 60 elements, by thirds
    assert np.allclose(factor, [1.4, 0.8, 0.8], rtol=0.06)
    other = said(6000, 2, width)
    for rank, right in ((ranks(network, other), False), (calibrated_ranks(network, calibration, other), True)):
        for third in np.array_split(np.argsort(other.quality), 3):
            off = np.array([np.mean(np.abs(rank[third] - 0.5) < p / 2) - p for p in (0.68, 0.95)])
            assert np.all(np.abs(off) < [0.035, 0.016]) == right
    # what is said of a level and its inverse
    levels = calibration.levels([0.16, 0.5, 0.84], np.array([4, 5]), np.array([TEFF]))
    back = calibration.ranks(levels[:, 1], np.array([4, 5]), np.full((2, 1), TEFF))
    assert np.allclose(back, 0.5, atol=1e-4)


def test_a_calibration_in_the_card(network, tmp_path):
    """It widens answers, draws and guides alike, goes through files, and can be switched off."""
    calibration = fit_calibration(network, said(2000, 1, lambda quality: np.full(len(quality), 1.3)))
    calibrated = dataclasses.replace(network, card={**network.card, "calibration": calibration.to_json()})
    save_network(calibrated, tmp_path / "toy")
    loaded = load_network(tmp_path / "toy")
    tokens = toy(3).only("bins")
    answer, plain = loaded.ask(tokens, "teff", draws=400), loaded.ask(tokens, "teff", calibrated=False)
    factor = calibration.factor(calibration.cells(tokens))[:, TEFF]
    assert np.allclose(answer.standardised_sd[:, 0] / plain.standardised_sd[:, 0], factor, rtol=1e-3)
    assert np.allclose(factor, 1.3, rtol=0.05)
    assert np.allclose(plain.sd, network.ask(tokens, "teff").sd, rtol=1e-5)
    spread = np.log(answer.draws[..., 0]).std(1) / VOCABULARY["teff"].scale
    assert np.allclose(spread, answer.standardised_sd[:, 0], rtol=0.25)
    density = loaded.as_guide(tokens[0], "teff").log_prob(answer.draws[0])
    assert np.allclose(density, answer.log_prob[0], atol=0.02)
    damaged = dataclasses.replace(network, card={"calibration": {**calibration.to_json(), "factors": [[1.0]]}})
    with pytest.raises(NetworkError, match="calibration .* damaged"):
        damaged.ask(tokens, "teff")
    assert np.allclose(damaged.ask(tokens, "teff", calibrated=False).sd, plain.sd)


def test_factors_of_residuals():
    """Residuals with known factors, errors and a few that are wrong: the covariance is found, whitened ones are independent."""
    random = np.random.default_rng(3)
    m, n = 12, 3000
    factors, sd = 0.05 * random.normal(size=(m, 2)), 0.03 * random.uniform(0.7, 1.4, (n, m))
    error = 0.02 * random.uniform(0.5, 1.5, (n, m))
    y = random.normal(size=(n, 2)) @ factors.T + np.hypot(0.6 * sd, error) * random.normal(size=(n, m))
    y[:20] += 1.0
    found = fit_factors(Residuals(y, sd, error, np.arange(m)), 2)
    assert np.allclose(found.factors @ found.factors.T, factors @ factors.T, atol=1.5e-3)  # sampling: 0.0007
    assert np.allclose(found.unique, 0.6, atol=0.08)
    checked = check(Residuals(y[20:], sd[20:], error[20:], np.arange(m)), found)
    assert abs(checked["robust_sd"] - 1) < 0.03 and checked["rms_correlation"] < 0.025
    y[0, 3] = np.nan
    assert len(whitened(Residuals(y[:5], sd[:5], error[:5], np.arange(m)), found)) == 4


def test_a_finished_network(network):
    made = finish_network(
        network, toy(600, 1), {"title": "Toy"}, training=toy(900), observe=("bins", "colours"), batches=2, say=str
    )
    assert made.card["title"] == "Toy" and made.card["figures"]["objects"] == 600
    assert made.calibration is not None and made.card["population"]["names"] == ["teff", "logg"]
    emulator = made.as_emulator(["teff", "logg"], ["bin_2", "colour"])
    assert emulator.factors.shape[0] == 2 and np.all(emulator.unique > 0)
    own = made.latent(toy(50).only("bins"))
    assert np.allclose(np.linalg.norm(own, axis=1), 1, atol=1e-5)
    found = similar(made, toy(50)[:5].only("bins"), toy(50).only("bins"), 3, own)
    assert np.array_equal(found.rows[:, 0], np.arange(5)) and np.allclose(found.cosine[:, 0], 1, atol=1e-5)
    with pytest.raises(TokenError, match="k = 60"):
        similar(made, toy(5), toy(50), 60)


class Drawn:
    """An answer of draws of a label, for what weighs them."""

    def __init__(self, draws):
        self.vocabulary, self.names, self.draws = VOCABULARY, ("logg",), draws[..., None]
        self.quantiles = {0.5: np.median(self.draws, 1)}

    def __len__(self):
        return len(self.draws)


def test_populations(network):
    """A Gaussian posterior under the training's Gaussian prior, moved to another: the product of Gaussians."""
    training = TokenSet(VOCABULARY, toy(4000).values)  # logg: 4 ± 0.5
    known = dataclasses.replace(network, card={"population": population_card(training)})
    random = np.random.default_rng(4)
    draws = 3.8 + 0.3 * random.normal(size=(2, 20000))
    told = population_shift(known, Drawn(4 + 0.5 * random.normal(size=(1000, 5))))
    assert not told.told and told.distance["logg"] < 0.05
    assert "logg" in population_shift(known, Drawn(4.6 + 0.2 * random.normal(size=(1000, 5)))).told[0]
    prior = stats.norm(4.5, 0.2)
    found = reweight(known, Drawn(draws), {"logg": prior.logpdf})
    precision = 0.3**-2 - 0.5**-2 + 0.2**-2
    mean = (3.8 * 0.3**-2 - 4.0 * 0.5**-2 + 4.5 * 0.2**-2) / precision
    assert np.allclose(found.mean, mean, atol=0.02) and np.allclose(found.sd, precision**-0.5, atol=0.02)
    assert np.allclose(found.quantiles[0.5], mean, atol=0.03) and np.all((found.ess > 500) & (found.ess < 20000))
    with pytest.raises(TokenError, match="'teff' cannot"):
        reweight(known, Drawn(draws), {"teff": prior.logpdf})
    with pytest.raises(NetworkError, match="population"):
        reweight(network, Drawn(draws), {"logg": prior.logpdf})


def test_one_odd_group_is_told(network):
    """A colour that does not belong to the spectrum: rare by itself, lost among all elements; ordinary objects are as rare as p says."""
    card = {"outliers": ordinary_scores(network, toy(2000, 3))}
    judge, tokens = dataclasses.replace(network, card=card), toy(1000, 4)
    p = judge.outlier_score(tokens).p
    assert np.mean(p < 0.05) < 0.08 and np.mean(p < 0.5) > 0.3
    tokens.values[:, VOCABULARY.index("colour")] += 100.0
    assert np.mean(judge.outlier_score(tokens).p < 0.01) > 0.9
