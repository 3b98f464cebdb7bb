"""Modes of a posterior: climbed to from draws, told apart, sampled one by one, and put together with the right masses."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from ..samplers import nuts, systematic
from ..samplers.optimise import ascend, covariance_of
from .pool import Pool
from .problems import Problem, evaluate, log_target
from .proposals import TMixture, fit_mixture, moments, scattered

STARTS = 8  # climbs at once, half of them from draws of the prior
STEPS = 40
MODES = 4  # at most
NEGLIGIBLE = 12.0  # below the heaviest mode in the logarithm of the mass: left out
CHAINS = 2  # for each mode


def climb(pool: Pool) -> TMixture | None:
    """Student-t distributions at the optima that are reached from the likeliest draws, and from those of the prior, with the
    masses of their Laplace approximations; None where no climb ends at a finite density."""
    rows = np.concatenate([_apart(pool, np.full(len(pool.log_guide), True)), _apart(pool, pool.from_prior)])
    if not len(rows):
        return None
    starts = pool.rows.z[np.resize(rows, STARTS)].astype(np.float32)
    z, lp, covariance = (np.asarray(a, float) for a in _climb(pool.problem.target, jnp.asarray(starts)))
    finite = np.isfinite(lp) & np.isfinite(covariance).all((1, 2))
    kept: list[int] = []
    for i in np.argsort(-np.where(finite, lp, -np.inf)):
        near = [(z[i] - z[j]) @ np.linalg.solve(covariance[j], z[i] - z[j]) < 9.0 for j in kept]
        if finite[i] and not any(near) and len(kept) < MODES:
            kept.append(int(i))
    if not kept:
        return None
    mass = lp[kept] + 0.5 * np.array([np.linalg.slogdet(covariance[k])[1] for k in kept])
    heavy = mass > mass.max() - NEGLIGIBLE
    mass = np.exp((mass - mass.max()) / 2)[
        heavy
    ]  # the square root: these masses are rough, and no mode is to be missed
    return TMixture(mass / mass.sum(), z[kept][heavy], covariance[kept][heavy])


def _apart(pool, among) -> np.ndarray:
    """Rows of likely draws `among` all, as far from each other as may be, the likeliest first."""
    lp = np.where(among, pool.rows.log_posterior, -np.inf)
    best = np.argsort(-lp)[: 8 * STARTS if among.all() else 2 * STARTS]
    best = best[np.isfinite(lp[best])]
    if not len(best):
        return best
    u = pool.rows.z[best] / np.maximum(pool.rows.z[best].std(0), 1e-6)
    chosen = [0]
    while len(chosen) < min(STARTS // 2, len(best)):
        chosen.append(int(np.argmax(np.min([np.sum((u - u[c]) ** 2, 1) for c in chosen], axis=0))))
    return best[chosen]


@eqx.filter_jit
def _climb(target, starts):
    z, lp, _, _ = ascend(
        target.log_posterior,
        starts,
        target,
        metric=lambda z, target: target.information(z),
        max_steps=STEPS,
        tolerance=1e-2,
        max_move=3.0,
    )
    return z, lp, jax.lax.map(lambda one: covariance_of(target.information(one)), z)


def merged(problem: Problem, mixture: TMixture, n: int) -> list[TMixture]:
    """The components of a mixture as modes: those between which the posterior has no valley belong together."""
    k = len(mixture.means)
    pairs = [(i, j) for i in range(k) for j in range(i)]
    along = np.linspace(0, 1, 9)[:, None]
    path = [mixture.means[i] * (1 - along) + mixture.means[j] * along for i, j in pairs]
    points = np.concatenate([*path, mixture.means])
    points = np.concatenate([points, np.repeat(mixture.means[:1], -len(points) % n, 0)])
    lp = np.concatenate([evaluate(problem, rows)[0].log_posterior for rows in points.reshape(-1, n, points.shape[1])])
    group = list(range(k))
    for (i, j), heights in zip(pairs, lp[: 9 * len(pairs)].reshape(-1, 9)):
        if heights.min() > min(heights[0], heights[-1]) - 1.0:
            group = [group[j] if g == group[i] else g for g in group]
    found = []
    for g in dict.fromkeys(group):
        own = np.array([h == g for h in group])
        found.append(TMixture(mixture.weights[own], mixture.means[own], mixture.scales[own]))
    found.sort(key=lambda mode: -mode.weights.sum())
    return found[:MODES]


class Sampled(NamedTuple):
    """Draws of all modes with the right masses: `positions` `(chains, draws, dim)`, log density `lp`, `masses` of the modes and the
    `errors` of their logarithms, divergences, gradients, the largest R-hat within a mode."""

    positions: np.ndarray
    lp: np.ndarray
    masses: np.ndarray
    errors: np.ndarray
    divergences: int
    gradients: int
    r_hat: float


def sample_modes(pool: Pool, modes: list[TMixture], *, chains: int, draws: int, seed: int) -> Sampled:
    """NUTS from each mode, and the masses of the modes by bridge sampling."""
    from ..posteriors import r_hat

    target, rng = pool.problem.target, pool.rng
    each = chains * max(-(-draws // CHAINS), -(-200 // chains))
    runs = []
    for number, mode in enumerate(modes):
        starts = mode.means[rng.choice(len(mode.means), CHAINS, p=mode.weights / mode.weights.sum())]
        covariance = (
            moments(mode.sample(rng, 4000), np.full(4000, 1 / 4000))[1] if len(mode.means) > 1 else mode.scales[0]
        )
        runs.append(
            nuts(
                log_target,
                starts.astype(np.float32),
                target,
                seed=seed + number,
                warmup=300,
                draws=each,
                covariance=covariance,
                target_acceptance=0.9,
                progress=False,
            )
        )
    worst = max(float(np.max(r_hat(np.moveaxis(run.positions, -1, 0)))) for run in runs)
    facts = (
        sum(int(run.stats["diverging"].sum()) for run in runs),
        sum(run.gradients + run.warmup["gradients"] for run in runs),
        worst,
    )
    z = np.concatenate([run.positions.reshape(-1, run.positions.shape[-1]) for run in runs]).astype(float)
    lp = np.concatenate([run.stats["lp"].ravel() for run in runs]).astype(float)
    if len(modes) == 1:
        positions = runs[0].positions.reshape(chains, -1, z.shape[1])[:, :draws]
        return Sampled(positions, lp.reshape(chains, -1)[:, :draws], np.ones(1), np.zeros(1), *facts)
    region = _region(modes, z)
    log_mass, errors = np.array([_bridge(pool, modes, k, z[region == k], lp[region == k]) for k in range(len(modes))]).T
    masses = np.exp(log_mass - logsumexp(log_mass))
    weights = masses[region] / np.maximum(np.bincount(region, minlength=len(modes)), 1)[region]
    rows = systematic(rng, weights, chains * draws)
    return Sampled(z[rows].reshape(chains, draws, -1), lp[rows].reshape(chains, draws), masses, errors, *facts)


def _region(modes, z):
    """The mode that each position belongs to, wherever the chain that came there began."""
    return np.argmax([mode.log_prob(z) for mode in modes], axis=0)


def _bridge(pool, modes, k, z, lp) -> tuple[float, float]:
    """Log of the posterior's integral over the region of mode `k`, and its error, by bridge sampling (Meng & Wong 1996, Statistica
    Sinica 6, 831) between the draws `z` there and a mixture fitted to every second of them."""
    if len(z) < 20:
        return -np.inf, np.inf
    half = z[::2]
    equal = np.full(len(half), 1 / len(half))
    bridge = fit_mixture(half, equal, scattered(pool.rng, half, equal, 3))
    ours = lp[1::2] - bridge.log_prob(z[1::2])
    drawn = evaluate(pool.problem, bridge.sample(pool.rng, pool.n))[0]
    theirs = np.where(_region(modes, drawn.z) == k, drawn.log_posterior - bridge.log_prob(drawn.z), -np.inf)
    halves = [_meng_wong(a, b) for a, b in ((ours[::2], theirs[::2]), (ours[1::2], theirs[1::2]))]
    return _meng_wong(ours, theirs), abs(halves[0] - halves[1]) / 2


def _meng_wong(ours, theirs) -> float:
    """The fixed point of the optimal bridge, from log ratios of posterior to bridge at draws of the posterior and of the bridge."""
    a, b = np.log(len(ours) / (len(ours) + len(theirs))), np.log(len(theirs) / (len(ours) + len(theirs)))
    log_mass = float(np.median(ours))
    for _ in range(200):
        upper = logsumexp(theirs - np.logaddexp(a + theirs, b + log_mass)) - np.log(len(theirs))
        lower = logsumexp(-np.logaddexp(a + ours, b + log_mass)) - np.log(len(ours))
        log_mass, before = float(upper - lower), log_mass
        if abs(log_mass - before) < 1e-6:
            break
    return log_mass
