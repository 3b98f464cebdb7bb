"""Space-filling designs inside a label space."""

import numpy as np

from ..errors import GridError
from .space import LabelSpace

_BLOCK = 4096  # points drawn at a time; a power of two keeps the Sobol sequence balanced
_MIN_ACCEPTED = 1e-4


def sobol_design(labels: LabelSpace, n: int, seed: int | list[int] = 0, start: int = 0) -> np.ndarray:
    """Points `start … start + n - 1` of a scrambled Sobol sequence that fills the domain of `labels`.

    Points of the bounding box that break a linear constraint are left out. The sequence depends on `labels` and `seed`
    alone: the first k points are the same for every n, so a design can be extended without repeating a point.
    Sobol' 1967, USSR Comput. Math. Math. Phys. 7, 86, with the linear matrix scramble and digital shift of
    Matoušek 1998, J. Complexity 14, 527, as implemented in `scipy.stats.qmc`.

    Returns an array of shape `(n, n_labels)`, float64, in the labels' units. Raises `GridError` if `n` or `start` is
    negative, or if the constraints leave (almost) nothing of the box.
    """
    from scipy.stats import qmc

    if n < 0 or start < 0:
        raise GridError(f"A design needs n >= 0 and start >= 0; got n = {n}, start = {start}.")
    engine = qmc.Sobol(len(labels), scramble=True, seed=np.random.default_rng(seed))
    lower, upper = np.asarray(labels.lower), np.asarray(labels.upper)
    accepted, count, drawn = [np.empty((0, len(labels)))], 0, 0
    while count < start + n:
        points = lower + (upper - lower) * engine.random(_BLOCK)
        drawn += _BLOCK
        points = points[labels.contains(points, tolerance=0.0)]
        accepted.append(points)
        count += len(points)
        if count < _MIN_ACCEPTED * drawn:
            raise GridError(
                f"Only {count} of {drawn} points of the bounding box meet the constraints "
                f"{labels.describe_constraints()}. Tighten the bounds of the label space around its domain."
            )
    return np.concatenate(accepted)[start : start + n]
