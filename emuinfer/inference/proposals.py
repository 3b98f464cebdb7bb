"""What `refine` proposes from: guides, and mixtures of Student-t distributions that are fitted to weighted draws."""

import dataclasses
import functools
from typing import Protocol

import numpy as np
from scipy.special import gammaln, logsumexp

DEGREES = 5.0  # of freedom of all Student-t distributions: tails that cover a posterior's
ITERATIONS = 30  # of expectation-maximisation


class Guide(Protocol):
    """A distribution that knows, without a likelihood, about where a posterior lies.

    `names`: parameters of the model (or mapped onto them by `rename`). `sample(key, n)`: draws `(n, d)` in physical units;
    `log_prob(values)`: their normalised log density in physical units, `(n, d)` to `(n,)`.
    """

    names: tuple[str, ...]

    def sample(self, key, n: int):
        """Draws `(n, d)`."""

    def log_prob(self, values):
        """Log density `(n,)` of values `(n, d)`."""


@dataclasses.dataclass(frozen=True)
class TMixture:
    """A mixture of Student-t distributions: `weights` `(k,)`, `means` `(k, dim)`, `scales` `(k, dim, dim)`, the matrices that
    would be covariances if the degrees of freedom were infinite."""

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray

    @functools.cached_property
    def roots(self) -> np.ndarray:
        """Lower triangular roots of `scales`."""
        return np.linalg.cholesky(self.scales)

    def distances(self, z) -> np.ndarray:
        """Squared Mahalanobis distances `(n, k)` of positions `(n, dim)`."""
        away = [np.linalg.solve(root, (z - mean).T) for mean, root in zip(self.means, self.roots)]
        return np.stack([np.sum(a**2, 0) for a in away], -1)

    def log_joint(self, z) -> np.ndarray:
        """Log of weight times density of each component `(n, k)`."""
        dim = z.shape[1]
        half = np.log(np.diagonal(self.roots, axis1=1, axis2=2)).sum(1)
        tails = -0.5 * (DEGREES + dim) * np.log1p(self.distances(z) / DEGREES)
        with np.errstate(divide="ignore"):
            return np.log(self.weights) + _t_constant(DEGREES, dim) - half + tails

    def log_prob(self, z) -> np.ndarray:
        """Log density `(n,)`."""
        return logsumexp(self.log_joint(z), axis=1)

    def joined(self, other: "TMixture", share: float) -> "TMixture":
        """Together with another, which has `share` of the whole."""
        weights = np.concatenate([(1 - share) * self.weights, share * other.weights])
        return TMixture(weights, np.concatenate([self.means, other.means]), np.concatenate([self.scales, other.scales]))

    def stretched(self, factor: float) -> "TMixture":
        """With each component's longest axis, in units of its own standard deviations, multiplied by `factor`."""
        scales = self.scales.copy()
        for k, scale in enumerate(self.scales):
            unit = np.sqrt(np.diagonal(scale))
            values, vectors = np.linalg.eigh(scale / unit[:, None] / unit)
            axis = np.sqrt((factor**2 - 1) * values[-1]) * vectors[:, -1] * unit
            scales[k] += np.outer(axis, axis)
        return TMixture(self.weights, self.means, scales)

    def sample(self, rng, n: int) -> np.ndarray:
        """Draws `(n, dim)`; each component has its share of them as nearly as whole numbers go."""
        edges = np.cumsum(self.weights)
        which = np.searchsorted(edges / edges[-1], (rng.uniform() + np.arange(n)) / n)
        normal = rng.standard_normal((n, self.means.shape[1]))
        tail = np.sqrt(DEGREES / rng.chisquare(DEGREES, n))
        return self.means[which] + tail[:, None] * np.einsum("nij,nj->ni", self.roots[which], normal)


def _t_constant(degrees, dim):
    return gammaln(0.5 * (degrees + dim)) - gammaln(0.5 * degrees) - 0.5 * dim * np.log(degrees * np.pi)


def single(mean, scale) -> TMixture:
    """One Student-t distribution."""
    return TMixture(np.ones(1), np.asarray(mean, float)[None], np.asarray(scale, float)[None])


def moments(z, weights) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean `(dim,)` and covariance `(dim, dim)`, kept positive definite, of draws `(n, dim)`."""
    weights = weights / weights.sum()
    mean = weights @ z
    away = z - mean
    return mean, _sound((weights[:, None] * away).T @ away)


def fit_mixture(z, weights, start: TMixture) -> TMixture:
    """A mixture fitted to weighted draws `(n, dim)` by expectation-maximisation (Cappé et al. 2008, Statistics and Computing
    18, 447) from `start`, with scales drawn towards the common one where a component has few draws; those that end with
    hardly any are left out."""
    weights = weights / weights.sum()
    used = weights > 1e-12
    z, weights = z[used], weights[used]
    dim = z.shape[1]
    mixture = start
    for _ in range(ITERATIONS):
        joint = mixture.log_joint(z)
        share = weights[:, None] * np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        mass = share.sum(0)
        effective = mass**2 / np.maximum((share**2).sum(0), 1e-300)
        keep = (mass > 1e-3) & (effective > 2)
        if not keep.any():
            return mixture
        share, mass, effective = share[:, keep], mass[keep], effective[keep]
        pull = share * ((DEGREES + dim) / (DEGREES + mixture.distances(z)[:, keep]))
        means = (pull.T @ z) / pull.sum(0)[:, None]
        away = z[None] - means[:, None]
        scatter = np.einsum("nk,kni,knj->kij", pull, away, away)
        common = scatter.sum(0)
        few = dim + 2.0
        own = effective[:, None, None] * scatter / mass[:, None, None]
        scales = (own + few * common) / (effective + few)[:, None, None]
        mixture = TMixture(mass / mass.sum(), means, np.stack([_sound(s) for s in scales]))
    return mixture


def _sound(matrix):
    """With eigenvalues of its unit-diagonal form at least 1e-6."""
    matrix = 0.5 * (matrix + matrix.T)
    scale = np.sqrt(np.maximum(np.diagonal(matrix), 1e-16))
    values, vectors = np.linalg.eigh(matrix / scale[:, None] / scale)
    return (vectors * np.maximum(values, 1e-6)) @ vectors.T * scale[:, None] * scale


def scattered(rng, z, weights, count: int) -> TMixture:
    """A mixture to start a fit from: `count` components at weighted draws far from each other (k-means++; Arthur & Vassilvitskii
    2007), with a part of the common scale."""
    _, covariance = moments(z, weights)
    root = np.linalg.cholesky(covariance)
    u = np.linalg.solve(root, z.T).T
    weights = weights / weights.sum()
    rows = [int(rng.choice(len(z), p=weights))]
    while len(rows) < count:
        away = np.min([np.sum((u - u[r]) ** 2, 1) for r in rows], axis=0)
        p = weights * away
        if not p.sum() > 0:
            break
        rows.append(int(rng.choice(len(z), p=p / p.sum())))
    k = len(rows)
    part = covariance / k ** (2 / z.shape[1])
    return TMixture(np.full(k, 1 / k), z[rows], np.repeat(part[None], k, 0))


class Conditional:
    """Some coordinates given the others, from a joint Student-t distribution (Ding 2016, The American Statistician 70, 293): its
    scale grows where the others are far from the joint mean, so that it stays wide where little is known."""

    def __init__(self, mean, scale, given, rest):
        self.mean, self.given, self.rest = mean, given, rest
        self.root = np.linalg.cholesky(scale[np.ix_(given, given)])
        whitened = np.linalg.solve(self.root, scale[np.ix_(given, rest)])  # (given, rest)
        self.slope = np.linalg.solve(self.root.T, whitened)
        self.inner = np.linalg.cholesky(_sound(scale[np.ix_(rest, rest)] - whitened.T @ whitened))
        self.degrees = DEGREES + len(given)

    def _at(self, z):
        away = z[:, self.given] - self.mean[self.given]
        distance = np.sum(np.linalg.solve(self.root, away.T) ** 2, 0)
        return self.mean[self.rest] + away @ self.slope, np.sqrt((DEGREES + distance) / self.degrees)

    def sample(self, rng, z) -> np.ndarray:
        """Draws `(n, rest)` for positions `(n, dim)`, of which the given coordinates are looked at."""
        mean, width = self._at(z)
        normal = rng.standard_normal(mean.shape)
        tail = np.sqrt(self.degrees / rng.chisquare(self.degrees, len(z)))
        return mean + (width * tail)[:, None] * (normal @ self.inner.T)

    def log_prob(self, z) -> np.ndarray:
        """Log density `(n,)` of the rest given the others."""
        mean, width = self._at(z)
        u = np.linalg.solve(self.inner, (z[:, self.rest] - mean).T) / width
        dim = len(self.rest)
        tails = -0.5 * (self.degrees + dim) * np.log1p(np.sum(u**2, 0) / self.degrees)
        half = np.log(np.diagonal(self.inner)).sum() + dim * np.log(width)
        return _t_constant(self.degrees, dim) - half + tails
