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
