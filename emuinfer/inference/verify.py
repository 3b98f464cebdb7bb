"""Whether a posterior from the reduced emulator holds against the full one."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..posteriors.posterior import pareto_smoothed_weights, verify_flag


class ImportanceCheck(NamedTuple):
    """`index` `(n,)` of the checked draws in the flattened (chain, draw) order, their `log_weights` `(n,)`, Pareto `k_hat`,
    effective number of draws `ess`, a `flag` (`"ok"`, `"warn"`, `"fail"`) and a `message` in plain words."""

    index: np.ndarray
    log_weights: np.ndarray
    k_hat: float
    ess: float
    flag: str
    message: str


def importance_check(
    model, data, values: dict, *, star=None, n: int = 200, seed: int = 0, progress: bool = True
) -> ImportanceCheck:
    """Evaluate the full emulator at `n` draws and weigh them by the ratio of the two likelihoods.

    `data` is what the draws were sampled with, or, with the compressed likelihood `star`, what that was made from; `values`
    maps parameters to draws `(total,)`. Priors cancel in the ratio.
    """
    total = len(next(iter(values.values())))
    index = np.sort(np.random.default_rng([seed, 5]).choice(total, min(n, total), replace=False))
    full = eqx.tree_at(lambda d: d.emulator, data, model.full_on_grid(), is_leaf=lambda x: x is data.emulator)
    one = eqx.filter_jit(lambda v, d: model.log_likelihood(v, d)[0])
    rows = index
    if progress:
        from tqdm import tqdm

        rows = tqdm(index, desc="verifying", unit="draw", leave=False)
    ratio = np.empty(len(index))
    for i, row in enumerate(rows):
        at = model.complete({k: jnp.float32(v[row]) for k, v in values.items()})
        ratio[i] = float(one(at, full)) - float(one(at, data if star is None else star))
    log_weights, k_hat, ess = pareto_smoothed_weights(ratio)
    return ImportanceCheck(index, log_weights, k_hat, ess, *verify_flag(k_hat, ess, len(index)))
