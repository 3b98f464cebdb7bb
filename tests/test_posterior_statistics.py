"""Our vectorised R-hat, effective sizes, Pareto smoothing and bands against ArviZ's for one posterior at a time.

ArviZ 0.23 has them itself, ArviZ 1.x (Python 3.12 and later) in `arviz_stats`.
"""

import importlib.util

import numpy as np
import pytest

from emuinfer.calibration.statistics import ecdf_band
from emuinfer.posteriors.convergence import effective_size, r_hat
from emuinfer.posteriors.library import import_arviz
from emuinfer.posteriors.pareto import pareto_smoothed_weights

pytestmark = pytest.mark.comparison


@pytest.fixture(scope="module")
def theirs():
    """`rhat(x)`, `ess(x)`, `psis(log ratio)` and `band(n)` of the ArviZ that is installed."""
    az = import_arviz()
    if importlib.util.find_spec("arviz_stats") is None:
        from arviz.stats.ecdf_utils import ecdf_confidence_band

        z = np.arange(1, 100) / 100
        band = lambda n: ecdf_confidence_band(n, z, z, 0.95)
        return az.rhat, az.ess, az.psislw, band
    from arviz_stats.base import array_stats
    from arviz_stats.ecdf_utils import get_pointwise_confidence_band, simulate_confidence_bands

    def band(n):
        z = np.arange(1, 100) / 100
        prob = simulate_confidence_bands(n, 1, z, 0.95, 4000, np.random.default_rng(1))
        return get_pointwise_confidence_band(prob, n, z)

    # The log ratio with its sign turned: ArviZ 1.x means log densities left out.
    return array_stats.rhat, array_stats.ess, lambda log_ratio: array_stats.psislw(-log_ratio), band


def chains(kind, rng):
    """Draws `(4, 400)`: of a good chain, slow, antithetic, heavy-tailed, with a chain apart or one of another width."""
    x = rng.standard_normal((4, 400))
    memory = {"slow": 0.9, "antithetic": -0.6}.get(kind, 0.0)
    for i in range(1, x.shape[1]):
        x[:, i] = memory * x[:, i - 1] + np.sqrt(1 - memory**2) * x[:, i]
    if kind == "heavy":
        x = rng.standard_cauchy(x.shape)
    if kind == "apart":
        x[0] += 1.5
    if kind == "wide":
        x[0] *= 3
    return x


@pytest.mark.parametrize("kind", ["good", "slow", "antithetic", "heavy", "apart", "wide"])
def test_convergence(theirs, kind):
    """Many posteriors in one call, and the library one by one; effective sizes differ where Geyer's sequence ends by a pair."""
    rhat, ess, _, _ = theirs
    x = np.stack([chains(kind, np.random.default_rng(seed)) for seed in range(12)])
    np.testing.assert_allclose(r_hat(x), [float(rhat(one)) for one in x], rtol=1e-3)
    np.testing.assert_allclose(effective_size(x), [float(ess(one)) for one in x], rtol=0.03)


@pytest.mark.parametrize("width", [0.6, 0.9, 1.3])
def test_smoothed_weights(theirs, width):
    psis = theirs[2]
    x = width * np.random.default_rng(2).standard_normal(2000)
    log_ratio = -0.5 * x**2 + 0.5 * (x / width) ** 2
    log_weights, k_hat, size = pareto_smoothed_weights(log_ratio)
    reference, their_k = psis(log_ratio)
    assert k_hat == pytest.approx(float(their_k), abs=0.08)  # two fits of the same tail, with and without a prior for k
    weights = np.exp(reference - np.logaddexp.reduce(reference))
    np.testing.assert_allclose(np.exp(log_weights), weights, rtol=0.08)
    assert size == pytest.approx(1 / np.sum(weights**2), rel=0.05)


@pytest.mark.parametrize("n", [50, 400])
def test_bands_of_ranks(theirs, n):
    """Simultaneous 95 % bands of the empirical distribution function of uniform ranks, to the steps that counts have."""
    _, low, high = ecdf_band(n)
    their_low, their_high = theirs[3](n)
    np.testing.assert_allclose(low, their_low, atol=2.01 / n)
    np.testing.assert_allclose(high, their_high, atol=2.01 / n)
