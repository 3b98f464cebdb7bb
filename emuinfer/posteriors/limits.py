"""What the data do not measure: limits instead of values, from the draws of a posterior. NumPy.

A parameter whose prior ends at a bound is measured if its posterior has fallen, at the bound, to less than exp(−2) of its highest
density: for a Gaussian, if its mean is two standard deviations or more away. Else the bound is not excluded, and what the data say is
the other side: a limit. Where neither bound is excluded, or the posterior is as wide as the prior, they say nothing.
"""

from typing import NamedTuple

import numpy as np

MEASURED, UPPER, LOWER, UNCONSTRAINED = "measured", "upper limit", "lower limit", "unconstrained"
SIGNS = {MEASURED: "", UPPER: "<", LOWER: ">", UNCONSTRAINED: "?"}
LEVEL = 0.95  # of the limits
ALIVE = np.exp(-2.0)  # of the highest density, above which a bound is not excluded
AS_WIDE = 0.9  # standard deviations of the prior
# In ln L: half of 2.7055, which chi² of one degree of freedom exceeds with a probability of 2 (1 − LEVEL).
DROP = 1.3528
NODES = 200  # of the density
# Standard deviations of the kernel, in those of the draws: the steepness of an end matters, not its details.
SMOOTH = 0.25


class Prior(NamedTuple):
    """Of one parameter: its bounds (infinite where there are none), its standard deviation, and whether it is flat between them."""

    lower: float
    upper: float
    sd: float
    flat: bool = True


class Limit(NamedTuple):
    """`verdict`: of `MEASURED`, `UPPER`, `LOWER`, `UNCONSTRAINED`. `value`: the quantile `LEVEL` of the posterior on the side that is
    excluded, NaN where there is no limit; `likelihood`: where the likelihood, integrated over all other parameters, has fallen by
    `DROP` from its highest, NaN where the prior is not flat."""

    verdict: str
    value: float = np.nan
    likelihood: float = np.nan

    @property
    def sign(self) -> str:
        """`<`, `>`, `?`, or nothing for what is measured."""
        return SIGNS[self.verdict]


def limit_of(draws, prior: Prior) -> Limit:
    """The verdict on one parameter from its `draws`, of any shape."""
    x = np.asarray(draws, float).ravel()
    if not np.isfinite(x).all() or np.ptp(x) == 0:
        return Limit(UNCONSTRAINED)
    x = np.clip(x, prior.lower, prior.upper)
    if np.ptp(x) == 0:  # all of them lean on the wall beyond a bound
        return Limit(UPPER if x[0] == prior.lower else LOWER, float(x[0]))
    grid, density = density_of(x, prior.lower, prior.upper)
    at_lower, at_upper = density[[0, -1]] > ALIVE * density.max()
    at_lower, at_upper = at_lower and np.isfinite(prior.lower), at_upper and np.isfinite(prior.upper)
    if (at_lower and at_upper) or x.std() > AS_WIDE * prior.sd:
        return Limit(UNCONSTRAINED)
    if not (at_lower or at_upper):
        return Limit(MEASURED)
    value = float(np.quantile(x, LEVEL if at_lower else 1.0 - LEVEL))
    inside = np.flatnonzero(density >= np.exp(-DROP) * density.max())
    # Under a flat prior the posterior density is that likelihood.
    likelihood = float(grid[inside[-1 if at_lower else 0]]) if prior.flat else np.nan
    return Limit(UPPER if at_lower else LOWER, value, likelihood)


def density_of(x, lower: float, upper: float) -> tuple[np.ndarray, np.ndarray]:
    """A grid `(NODES,)` over the draws `x` `(n,)`, from a bound where they come near to it, and their density there.

    A histogram smoothed by a Gaussian kernel, with the draws mirrored at the bounds, so that the density does not fall there only
    because nothing lies beyond.
    """
    width = SMOOTH * min(x.std(), np.subtract(*np.quantile(x, [0.75, 0.25])) / 1.349 or x.std())
    lo, hi = max(lower, x.min() - 4 * width), min(upper, x.max() + 4 * width)
    edges = np.linspace(lo, hi, NODES + 1)
    counts = np.histogram(x, edges)[0].astype(float)
    step = edges[1] - edges[0]
    reach = min(int(np.ceil(4 * width / step)), NODES)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / max(width, 1e-300)) ** 2)
    mirrored = np.concatenate([
        counts[:reach][::-1] if lo == lower else np.zeros(reach), counts, counts[::-1][:reach] if hi == upper else np.zeros(reach)
    ])  # fmt: skip
    smooth = np.convolve(mirrored, kernel / kernel.sum(), mode="valid")
    return 0.5 * (edges[1:] + edges[:-1]), smooth / (smooth.sum() * step)


def limits_of(draws: dict, priors: dict) -> dict[str, Limit]:
    """The verdict on each parameter that has a `Prior`, by name."""
    return {n: limit_of(draws[n], prior) for n, prior in priors.items() if n in draws}
