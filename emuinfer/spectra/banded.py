"""Products with tall banded matrices whose bands move monotonically, such as interpolation to observed pixels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class Banded(eqx.Module):
    """The matrix `A[i, start[i] + k] = weights[k, i]`, shape `(n_rows, n_columns)`, and its transpose in the same form.

    `A @ x` is `n_taps` gathers that XLA fuses into one loop. The transpose, needed by reverse-mode gradients, is stored too,
    so that it is again gathers rather than a scatter, which is slow on CPUs.
    """

    start: jax.Array
    weights: jax.Array
    start_t: jax.Array
    weights_t: jax.Array

    def __init__(self, start, weights, n_columns: int):
        """`start`: `(n_rows,)` int, non-decreasing; `weights`: `(n_taps, n_rows)`; all columns must exist."""
        start, weights = np.asarray(start, dtype=np.int32), np.asarray(weights, dtype=np.float64)
        taps, n_rows = weights.shape
        if (np.diff(start) < 0).any() or start[0] < 0 or start[-1] + taps > n_columns:
            raise ValueError(f"Band starts must increase within [0, {n_columns - taps}]; got {start[0]} to {start[-1]}.")
        # Column j is touched by the rows with j - taps < start <= j: neighbours, as start does not decrease.
        columns = np.arange(n_columns)
        first = np.searchsorted(start, columns - taps, side="right")
        count = np.searchsorted(start, columns, side="right") - first
        taps_t = max(1, int(count.max()))
        start_t = np.clip(first, 0, max(0, n_rows - taps_t))
        rows = start_t + np.arange(taps_t)[:, None]
        tap = columns - start[np.minimum(rows, n_rows - 1)]
        valid = (rows < n_rows) & (tap >= 0) & (tap < taps)
        values = weights[np.clip(tap, 0, taps - 1), np.minimum(rows, n_rows - 1)]
        self.start, self.weights = jnp.asarray(start), jnp.asarray(weights, jnp.float32)
        self.start_t = jnp.asarray(start_t, jnp.int32)
        self.weights_t = jnp.asarray(np.where(valid, values, 0.0), jnp.float32)

    def __matmul__(self, x):
        """`A @ x` for `x` of shape `(n_columns,)`."""
        return gather_product(x, self.start, self.weights)


def gather_product(x, start, weights):
    """`sum_k weights[k] x[start + k]`."""
    return sum(weights[k] * x[start + k] for k in range(weights.shape[0]))
