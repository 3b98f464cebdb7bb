"""Draws of an approximation, weighted and resampled: what `laplace` and `pathfinder` end with."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import SamplingError
from ..posteriors.pareto import pareto_smoothed_weights


def in_batches(function, rows, batch):
    """`function` of each row of a pytree of arrays, `batch` at once; the last batch is filled up with the first row.

    `jax.lax.map` with `batch_size` would compile the function twice, once for what is left over.
    """
    n = len(jax.tree.leaves(rows)[0])
    batch = min(batch, n)
    index = jnp.concatenate([jnp.arange(n), jnp.zeros(-n % batch, int)]).reshape(-1, batch)
    out = jax.lax.map(jax.vmap(function), jax.tree.map(lambda x: x[index], rows))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], out)


def densities(density, positions: Float[Array, "n dim"], *, batch: int) -> Float[Array, " n"]:
    """Log densities of `positions`, `batch` of them at once."""
    return in_batches(density, positions, batch)


def systematic(rng, weights, n):
    """Indices of `n` draws with expectation n w, by one random offset (systematic resampling), in random order."""
    edges = np.cumsum(weights)
    return rng.permutation(np.searchsorted(edges / edges[-1], (rng.uniform() + np.arange(n)) / n))


def resample(rng, positions, lp, log_q, chains, draws, what):
    """Positions `(chains, draws, dim)`, statistics, facts and notes from draws of an approximation with density
    `log_q`.

    The weights are Pareto-smoothed; k-hat and the effective number of draws are among facts and notes. Raises
    `SamplingError` if the log density is finite at no draw.
    """
    lp, log_q = np.asarray(lp, float), np.asarray(log_q, float)
    usable = np.isfinite(lp) & np.isfinite(log_q)
    if usable.sum() < 2:
        raise SamplingError(
            f"The log density is finite at {int(usable.sum())} of {len(lp)} draws of {what}. Start at an optimum "
            "inside the priors (`optimise`), or use 'nuts'."
        )
    log_weights, k_hat, ess = pareto_smoothed_weights(np.where(usable, lp - np.where(usable, log_q, 0), -np.inf))
    rows = systematic(rng, np.exp(log_weights), chains * draws)
    note = f"Draws of {what}, importance-resampled: Pareto k-hat {k_hat:.2f}, effective draws {ess:.0f} of {len(lp)}."
    if not (k_hat <= 0.7 and ess >= 10) and ess < 0.99 * len(lp):  # limits as for the verification
        note += " The approximation does not hold (k-hat must be below 0.7): use these as starts only, and run 'nuts'."
    return (
        np.asarray(positions)[rows].reshape(chains, draws, -1).astype(np.float32),
        {"lp": lp[rows].reshape(chains, draws).astype(np.float32)},
        {"k_hat": k_hat, "ess": ess},
        (note,),
    )
