"""Whether a posterior from a surrogate holds against the full emulator."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..entry import public
from ..likelihoods import Likelihood
from ..posteriors.pareto import pareto_smoothed_weights, verify_flag


@dataclasses.dataclass(frozen=True)
class ImportanceCheck:
    """`index` `(n,)` of the checked draws in the flattened (chain, draw) order, their `log_weights` `(n,)`, Pareto `k_hat`,
    effective number of draws `ess`, a `flag` (`"ok"`, `"warn"`, `"fail"`) and a `message` in plain words."""

    index: np.ndarray
    log_weights: np.ndarray
    k_hat: float
    ess: float
    flag: str
    message: str


@public
def importance_check(
    full: Likelihood, sampled: Likelihood, values: dict, *, n: int = 200, seed: int = 0, progress: bool = True
) -> ImportanceCheck:
    """Evaluate the likelihood `full` at `n` draws and weigh them by its ratio to `sampled`, from which the draws come.

    `values` maps all parameters, fixed ones too, to draws `(total,)` or to numbers. Priors cancel in the ratio.
    """
    total = max(np.size(v) for v in values.values())
    index = np.sort(np.random.default_rng([seed, 5]).choice(total, min(n, total), replace=False))
    rows = index
    if progress:
        from tqdm import tqdm

        rows = tqdm(index, desc="verifying", unit="draw", leave=False)
    ratio = np.empty(len(index))
    for i, row in enumerate(rows):
        at = {k: jnp.float32(np.broadcast_to(v, total)[row]) for k, v in values.items()}
        ratio[i] = float(_log_likelihood(full, at)) - float(_log_likelihood(sampled, at))
    log_weights, k_hat, ess = pareto_smoothed_weights(ratio)
    return ImportanceCheck(index, log_weights, k_hat, ess, *verify_flag(k_hat, ess, len(index)))


@eqx.filter_jit
def _log_likelihood(likelihood, values):
    return likelihood.log_likelihood(values)
