"""Draws of several proposals in one pool, weighted by the density of all proposals together; and how to propose better."""

import jax
import numpy as np
from scipy.special import logsumexp

from ..errors import LabelError, SamplingError, suggestion
from ..posteriors import pareto_smoothed_weights
from .problems import Problem, Rows, evaluate
from .proposals import Conditional, Guide, TMixture, fit_mixture, scattered

DEFENCE = 0.1  # share of the prior in every round
K_HAT, ESS = 0.7, 200.0  # weights suffice below and above these
COMPONENTS = 12  # at most, of a fitted mixture


class Guided:
    """A guide on a model: which parameters it proposes, and its density as one of positions.

    **Raises:** `LabelError` where its names do not fit the model's, listing both.
    """

    def __init__(self, guide: Guide, problem: Problem, rename: dict | None = None):
        rename = dict(rename or {})
        if unknown := [n for n in rename if n not in guide.names]:
            raise LabelError(
                f"rename= has {', '.join(unknown)}, which the guide does not propose. It proposes: {', '.join(guide.names)}."
            )
        names = [str(rename.get(n, n)) for n in guide.names]
        free = [n for n, axis in zip(problem.names, problem.axes) if axis >= 0]
        if wrong := [n for n in names if n not in free]:
            raise LabelError(
                f"The guide proposes {', '.join(names)}; of these {', '.join(wrong)} is no sampled parameter of the model."
                f"{suggestion(wrong[0], free)} The model samples {', '.join(problem.names)}. Ask the guide for other labels, or "
                "map its names with rename={'name in the guide': 'name in the model'}."
            )
        if len(set(names)) < len(names) or not names:
            raise LabelError(f"The guide must propose one parameter or more, each once; it proposes {names}.")
        self.guide, self.problem = guide, problem
        self.columns = np.array([problem.names.index(n) for n in names])
        self.given = problem.axes[self.columns]
        self.rest = np.setdiff1d(np.arange(problem.axes.max() + 1), self.given)
        self.outside = 0.0

    def draw_values(self, key, n: int) -> dict[str, np.ndarray]:
        """Draws of the guide, each `(n,)`, under the model's names."""
        values = np.asarray(self.guide.sample(key, n), float)
        if values.shape != (n, len(self.columns)):
            raise SamplingError(
                f"`guide.sample(key, {n})` must return draws of shape ({n}, {len(self.columns)}), a column for each of its names; "
                f"got {values.shape}."
            )
        return {self.problem.names[c]: x for c, x in zip(self.columns, values.T)}

    def draw(self, key, prior_values) -> np.ndarray:
        """Positions `(n, dim)` of draws of the guide, with its other coordinates from values of the prior `(n, m)`."""
        whole = prior_values.copy()
        whole[:, self.columns] = np.stack(list(self.draw_values(key, len(whole)).values()), -1)
        z = np.asarray(self.problem.positions(whole), float)
        self.outside = float(1 - np.isfinite(z).all(1).mean())
        return z

    def log_prob(self, rows: Rows) -> np.ndarray:
        """Log density `(n,)` of the guide's coordinates; NaN counts as zero density."""
        log_prob = np.asarray(self.guide.log_prob(rows.x[:, self.columns].astype(np.float32)), float)
        if log_prob.shape != (len(rows.x),):
            raise SamplingError(
                f"`guide.log_prob` of {len(rows.x)} rows must return one value for each; got the shape {log_prob.shape}."
            )
        log_prob = log_prob + rows.log_jacobian[:, self.columns].sum(1)
        return np.where(np.isnan(log_prob) | (log_prob == np.inf), -np.inf, log_prob)


class Pool:
    """All draws so far; the weight of each is the posterior over the mixture of all proposals (Veach & Guibas 1995; Cornuet et al.
    2012, Scandinavian Journal of Statistics 39, 798), so that a bad early proposal costs draws and never a wrong answer.

    **Attributes:** `rows`; `log_guide` `(n,)`; `log_weights` `(n,)`, smoothed and normalised; `k_hat`, `ess`; `not_finite`.
    """

    rows: Rows
    log_guide: np.ndarray

    def __init__(self, problem: Problem, guided: Guided, n: int, seed: int):
        self.problem, self.guided, self.n = problem, guided, n
        self.key, self.rng = jax.random.key(seed), np.random.default_rng([seed, 21])
        self.rounds, self.not_finite = 0, 0
        self._components: list = []  # (number of draws, log density of all rows)

    def add_guide(self, rest: Conditional | None) -> None:
        """A round of the guide, with its other coordinates from `rest`, and of the prior."""
        key = jax.random.fold_in(self.key, 2 * self.rounds + 1)
        z = self.guided.draw(key, self._prior())
        if rest is not None:
            inside = np.isfinite(z[:, rest.given]).all(1)
            z[:, rest.rest] = rest.sample(self.rng, np.where(inside[:, None], z, 0.0))
        self._add(z, lambda pool: pool.log_guide + (rest.log_prob(pool.rows.z) if rest is not None else 0.0))

    def add_mixture(self, mixture: TMixture) -> None:
        """A round of a mixture and of the prior."""
        self._add(mixture.sample(self.rng, self.n), lambda pool: mixture.log_prob(pool.rows.z))

    def prior_positions(self) -> np.ndarray:
        """Positions `(n, dim)` of draws of the prior."""
        return np.asarray(self.problem.positions(self._prior()), float)

    def _prior(self):
        return np.asarray(self.problem.draw_prior(jax.random.fold_in(self.key, 2 * self.rounds), self.n), float)

    def _add(self, z, log_density):
        defence = round(DEFENCE * self.n)
        z[:defence] = self.prior_positions()[:defence]
        rows, bad = evaluate(self.problem, z)
        log_guide = self.guided.log_prob(rows)
        self.from_prior = np.arange(self.n) < defence
        if self.rounds:
            rows = Rows(*(np.concatenate(pair) for pair in zip(self.rows, rows)))
            log_guide = np.concatenate([self.log_guide, log_guide])
            self.from_prior = np.tile(self.from_prior, self.rounds + 1)
        self.rows, self.log_guide = rows, log_guide
        self.rounds, self.not_finite = self.rounds + 1, self.not_finite + bad
        self._components += [(self.n - defence, log_density), (defence, lambda pool: pool.rows.log_prior)]
        self._weigh()

    def _weigh(self):
        finite = np.isfinite(self.rows.log_posterior)
        self.log_ratio = np.full(len(finite), -np.inf)
        if not finite.any():
            self.log_weights, self.k_hat, self.ess = self.log_ratio, np.inf, 0.0
            return
        shares = [np.log(count / len(finite)) + log_density(self) for count, log_density in self._components]
        self.log_proposal = logsumexp(np.stack(shares), axis=0)
        finite &= np.isfinite(self.log_proposal)
        self.log_ratio[finite] = (self.rows.log_posterior - self.log_proposal)[finite]
        self.log_weights, self.k_hat, self.ess = pareto_smoothed_weights(self.log_ratio)

    @property
    def log_integral(self) -> float:
        """Log of the integral of the posterior's density as it is."""
        return float(logsumexp(self.log_ratio) - np.log(len(self.log_ratio)))

    @property
    def suffices(self) -> bool:
        """Whether the weights are good enough to be the answer."""
        return self.k_hat < K_HAT and self.ess > ESS

    def fitted(self, power: float = 1.0) -> TMixture:
        """A mixture fitted to the weighted draws; `power` below 1: to a power of the posterior, which is wider."""
        usable = np.isfinite(self.log_ratio)
        dim, log_ratio = self.rows.z.shape[1], np.full(len(usable), -np.inf)
        log_ratio[usable] = power * self.rows.log_posterior[usable] - self.log_proposal[usable]
        weights = tempered(log_ratio, max(40.0, 8.0 * dim))
        count = int(np.clip(1 / np.sum(weights**2) / (4 * dim), 1, COMPONENTS))
        return fit_mixture(self.rows.z, weights, scattered(self.rng, self.rows.z, weights, count))


def tempered(log_ratio, enough: float) -> np.ndarray:
    """Weights `(n,)` of log ratios, raised to a power below 1 where fewer than `enough` draws have all the weight."""
    log_ratio = log_ratio - log_ratio.max()

    def weights(power):
        w = np.exp(power * log_ratio)
        return w / w.sum()

    low, high = 0.0, 1.0
    if 1 / np.sum(weights(1.0) ** 2) < enough:
        for _ in range(30):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if 1 / np.sum(weights(middle) ** 2) > enough else (low, middle)
    return weights(high)
