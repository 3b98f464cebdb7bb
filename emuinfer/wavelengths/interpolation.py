"""Lagrange interpolation: weights on the host in float64, or on the device."""

import functools
import math
import operator

import numpy as np


def lagrange_weights(nodes, at) -> list:
    """The weight of each of the `nodes` in the polynomial through all of them (Abramowitz & Stegun 25.2.2).

    `nodes` are numbers; `at`, where the polynomial is wanted, is an array of NumPy or JAX of any shape, as are the weights.
    """
    weights = []
    for node in nodes:
        others = [other for other in nodes if other != node]
        numerator = functools.reduce(operator.mul, [at - other for other in others])
        weights.append(numerator / math.prod(node - other for other in others))
    return weights


def four_points(position, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The four of `n` grid points around each fractional index `position` `(n_wave,)`, and their cubic Lagrange weights.

    Both `(n_wave, 4)`, int32 and float32; computed in float64. Beyond the second point from an end the polynomial through
    the last four serves.
    """
    position = np.asarray(position, np.float64)
    first = np.clip(np.floor(position) - 1, 0, n - 4)
    weights = np.stack(lagrange_weights(range(4), position - first), axis=-1)
    return first.astype(np.int32)[:, None] + np.arange(4, dtype=np.int32), weights.astype(np.float32)


def four_nodes(nodes, at) -> tuple[np.ndarray, np.ndarray]:
    """The first of the four of the rising `nodes` around each `at` `(n_wave,)`, int32 `(n_wave,)`, and their cubic Lagrange weights.

    Weights are float32 `(n_wave, 4)`, computed in float64. Beyond the second node from an end the last four serve.
    """
    nodes, at = np.asarray(nodes, np.float64), np.asarray(at, np.float64)
    first = np.clip(np.searchsorted(nodes, at) - 2, 0, len(nodes) - 4)
    around = nodes[first[:, None] + np.arange(4)]
    weights = np.ones_like(around)
    for i in range(4):
        for j in range(4):
            if i != j:
                weights[:, i] *= (at - around[:, j]) / (around[:, i] - around[:, j])
    return first.astype(np.int32), weights.astype(np.float32)


def node_weights(nodes, at, dense: int = 64) -> tuple[np.ndarray | None, np.ndarray]:
    """What `from_nodes` needs: that of `four_nodes`; or, of up to `dense` nodes, None and all weights, float32 `(n_wave, n_nodes)`.

    A product of matrices is faster on a processor than four look-ups where there are few nodes.
    """
    first, weights = four_nodes(nodes, at)
    if len(nodes) > dense:
        return first, weights
    matrix = np.zeros((len(first), len(nodes)), np.float32)
    np.put_along_axis(matrix, first[:, None] + np.arange(4), weights, axis=1)
    return None, matrix


def from_nodes(first, weights, values):
    """`values` `(n_nodes, ...)` interpolated with what `node_weights` gives: `(n_wave, ...)`, on the device."""
    if first is None:
        return weights @ values
    shape = (len(first),) + (1,) * (values.ndim - 1)
    return sum(weights[:, k].reshape(shape) * values[first + k] for k in range(4))
