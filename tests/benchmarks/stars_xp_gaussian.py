"""A joint Gaussian of all kinds that answers as a network does: the linear any-to-any control of `stars_xp`.

Mean and covariance of the standardised kinds are those of the training stars. What is wanted follows from what is seen by the
conditional Gaussian; stars with the same holes are answered together. The scale of the fluxes is unknown where bins are seen.
"""

import dataclasses
from statistics import NormalDist

import numpy as np

LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)
RIDGE = 1e-4  # of variance, added to the diagonal: coefficients and bins are functions of each other
FARTHEST = 20.0  # scales: values beyond count as that far
UNKNOWN = 3.0  # sd of the ln of the unit of the fluxes


@dataclasses.dataclass(frozen=True)
class Told:
    """Mean, sd `(n, d)`, quantiles and draws `(n, draws, d)` in physical units."""

    mean: np.ndarray
    sd: np.ndarray
    quantiles: dict
    draws: np.ndarray


@dataclasses.dataclass(frozen=True)
class JointGaussian:
    vocabulary: object
    centre: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of_kit(cls, path):
        from emuinfer.tokens import stars_tokens

        with np.load(path) as data:
            stars = stars_tokens(dict(data))
        context = stars.tokens[(stars.split == 0) & stars.usable].standardised()
        v = stars.vocabulary
        x = context.x + context.level[:, None] / v.scale * v.relative  # the table's fluxes have a mean of 1
        x = np.where(context.seen, np.clip(x, -FARTHEST, FARTHEST), np.nan).astype(float)
        centre = np.nanmean(x, 0)
        x = np.nan_to_num(x - centre)
        return cls(stars.vocabulary, centre, x.T @ x / len(x) + RIDGE * np.eye(len(centre)))

    def ask(self, tokens, want, *, draws=0, seed=0, levels=LEVELS):
        """As `Network.ask`: what is wanted is never read."""
        wanted = self.vocabulary.indices(want)
        context = tokens.without([self.vocabulary.names[i] for i in wanted]).standardised()
        mean, sd = (np.empty((len(tokens), len(wanted))) for _ in range(2))
        patterns, of = np.unique(context.seen, axis=0, return_inverse=True)
        unit = self.vocabulary.relative / self.vocabulary.scale
        for number, seen in enumerate(patterns):
            rows, a = np.flatnonzero(of == number), np.flatnonzero(seen)
            covariance = self.covariance + UNKNOWN**2 * np.outer(unit, unit) * (unit[a] > 0).any()
            x = np.clip(context.x[np.ix_(rows, a)], -FARTHEST, FARTHEST) - self.centre[a]
            inverse = np.linalg.solve(covariance[np.ix_(a, a)], covariance[np.ix_(a, wanted)])
            left = covariance[wanted, wanted] - np.sum(covariance[np.ix_(a, wanted)] * inverse, 0)
            mean[rows] = self.centre[wanted] + x @ inverse
            sd[rows] = np.sqrt(np.maximum(left, RIDGE))
        noise = np.random.default_rng(seed).standard_normal((len(tokens), draws, len(wanted)))
        physical = lambda z: self._physical(z, wanted, context.level)
        one = (physical(mean + sd) - physical(mean - sd)) / 2
        quantiles = {p: physical(mean + NormalDist().inv_cdf(p) * sd) for p in levels}
        return Told(physical(mean), one, quantiles, physical(mean[:, None] + sd[:, None] * noise))

    def _physical(self, z, wanted, level):
        v = self.vocabulary
        x = z * v.scale[wanted] + v.centre[wanted]
        x = x + level.reshape(-1, *[1] * (x.ndim - 1)) * v.relative[wanted]
        return np.stack([v[int(i)].physical(x[..., j]) for j, i in enumerate(wanted)], -1)
