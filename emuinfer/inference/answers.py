"""From a guide and a problem to draws of the posterior: by weights, by adapted weights, or by chains in each mode."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from ..errors import SamplingError
from ..samplers import check_whole, systematic
from .modes import climb, merged, sample_modes
from .pool import ESS, K_HAT, Guided, Pool
from .problems import Problem
from .proposals import Conditional, Guide, TMixture, moments

MIXED, CERTAIN = 1.05, 0.3  # R-hat within a mode, error of the logarithm of its mass: above, a warning
DIVERGING = 0.01  # share of the transitions, the same
# Draws that look around: their share, and what their mixture is fitted to, a power of the posterior, with longer axes.
SCOUTS, FLATTER, LONGER = 0.4, 0.4, 2.0
AGREE = 0.1  # between the logarithms of two rounds' integrals
EFFICIENT = (
    0.2  # effective draws per draw: below, the mixture does not follow the posterior, whose arms it may not have found
)


@dataclasses.dataclass(frozen=True)
class Effort:
    """How `refine` is to be done; its arguments, checked."""

    seed: int = 0
    rename: dict | None = None
    proposals: int = 1024
    rounds: int = 5
    search: bool = False
    mcmc: bool = True
    chains: int = 4
    draws: int = 250

    def __post_init__(self):
        for name, least in {"proposals": 100, "rounds": 0, "chains": 1, "draws": 1}.items():
            check_whole(name, getattr(self, name), least)


class Answer(NamedTuple):
    """Positions `z` `(chains, draws, dim)`, their statistics, facts for the attributes, and sentences for the user."""

    z: np.ndarray
    stats: dict[str, np.ndarray]
    facts: dict[str, Any]
    warnings: list[str]


def answered(guide: Guide, problem: Problem, effort: Effort, modes: TMixture | None = None) -> tuple[Pool, Answer]:
    """The posterior of a problem. `modes`: where its optima are known to be."""
    pool = Pool(problem, Guided(guide, problem, effort.rename), effort.proposals, effort.seed)
    modes = first_round(pool, modes)
    first = {"guide_k_hat": pool.k_hat, "guide_ess": pool.ess}
    if modes is None and (effort.search or not pool.suffices):
        modes = climb(pool)
    adapted = not pool.suffices or (effort.search and modes is not None and len(modes.means) > 1)
    settled = adapt(pool, modes, effort.rounds) if adapted else True
    if settled or not effort.mcmc:
        z, stats, facts = resampled(pool, effort, first, settled, adapted)
    else:
        z, stats, facts = from_modes(pool, effort, first, modes)
    known = {"k_hat": pool.k_hat, "ess": pool.ess, "likelihoods": len(pool.log_weights), "seed": effort.seed}
    return pool, Answer(z, stats, first | known | facts, notes_on(pool))


def first_round(pool: Pool, modes: TMixture | None) -> TMixture | None:
    """The guide's draws. Parameters that it leaves out come from the Laplace approximation at the likeliest optimum, given those
    that it proposes; where no optimum is known, draws with all of them from about their prior are where it is looked for."""
    given, rest = pool.guided.given, pool.guided.rest
    if not len(rest):
        pool.add_guide(None)
    else:
        if modes is None:
            prior = pool.prior_positions()
            pool.add_guide(Conditional(*moments(prior, np.ones(len(prior))), given, rest))
            modes = climb(pool)
        if modes is not None:
            pool.add_guide(Conditional(modes.means[0], modes.scales[0], given, rest))
    if not np.isfinite(pool.log_ratio).any():
        raise SamplingError(
            f"The likelihood is finite at none of {len(pool.log_ratio)} draws of guide and prior. Check the data for NaN and zero "
            "uncertainties, and that guide and model use the same units."
        )
    return modes


def adapt(pool: Pool, modes: TMixture | None, rounds: int) -> bool:
    """Rounds of mixtures fitted to optima and weighted draws, until the weights suffice, many draws count, and two rounds agree on
    the posterior's integral: before, an arm of a curved posterior may not have been found yet. Whether that came about."""
    before = -np.inf
    for number in range(rounds):
        mixture = pool.fitted().joined(pool.fitted(FLATTER).stretched(LONGER), SCOUTS)
        pool.add_mixture(mixture if number or modes is None else mixture.joined(modes, 0.5))
        fits = pool.ess > EFFICIENT * len(pool.log_weights)
        if pool.suffices and fits and abs(pool.log_integral - before) < AGREE:
            return True
        before = pool.log_integral
    return False


def resampled(pool, effort, first, settled, adapted):
    """Positions, statistics and facts from the weights."""
    rows = systematic(pool.rng, np.exp(pool.log_weights), effort.chains * effort.draws)
    figures = f"Pareto k-hat {pool.k_hat:.2f}, effective draws {pool.ess:.0f} of {len(pool.log_weights)}"
    flag = "ok" if settled else "fail"
    if not settled:
        message = (
            f"The weights do not hold, or do not agree yet from round to round ({figures}; k-hat must be below {K_HAT}, effective draws "
            f"above {ESS:.0f}). Do not use these "
            "values: allow more rounds or proposals, or mcmc=True."
        )
    elif adapted:
        message = (
            f"The guide alone is not the posterior of this model ({_verdict(first)}); proposals fitted to its weighted draws are "
            f"({figures})."
        )
    else:
        message = f"The guide, weighted by the likelihood, gives the posterior ({figures})."
    facts = {"method": "adaptive importance" if adapted else "importance", "flag": flag, "message": message}
    shape = lambda x: x[rows].reshape(effort.chains, effort.draws, *x.shape[1:])
    return shape(pool.rows.z), {"lp": shape(pool.rows.log_posterior)}, facts


def from_modes(pool, effort, first, modes):
    """The same from NUTS in each mode, those that are known and those of the weighted draws."""
    fitted = pool.fitted()
    modes = merged(pool.problem, fitted if modes is None else fitted.joined(modes, 0.5), pool.n)
    found = sample_modes(pool, modes, chains=effort.chains, draws=effort.draws, seed=effort.seed)
    shares = ", ".join(f"{100 * m:.0f} %" for m in found.masses)
    said = (
        "one mode"
        if len(modes) == 1
        else f"{len(modes)} modes, which have {shares} of the posterior by bridge sampling"
    )
    doubts = []
    if not found.r_hat < MIXED:
        doubts.append(f"The chains of a mode have not mixed (R-hat {found.r_hat:.2f}).")
    if found.divergences > DIVERGING * found.lp.size:
        doubts.append(f"{found.divergences} transitions diverged.")
    if (found.errors[found.masses > 0.01] > CERTAIN).any():
        doubts.append(f"The masses of the modes are uncertain (error of their logarithms {found.errors.max():.2f}).")
    message = f"Weights of the guide's draws do not suffice ({_verdict(first)}); NUTS from them sampled {said}."
    facts = {
        "method": "nuts",
        "flag": "warn" if doubts else "ok",
        "message": " ".join([message, *doubts]),
        "mode_masses": found.masses,
        "gradients": found.gradients,
    }
    return found.positions, {"lp": found.lp}, facts


def _verdict(first):
    return f"its k-hat is {first['guide_k_hat']:.2f}, with {first['guide_ess']:.0f} effective draws"


def notes_on(pool) -> list[str]:
    """What the user is to be told of the draws."""
    found = []
    if (share := pool.guided.outside) > 0.01:
        found.append(
            f"{100 * share:.0f} % of the guide's draws lie outside the priors of the model and count for nothing."
        )
    if pool.not_finite:
        found.append(
            f"The likelihood is NaN or infinite at {pool.not_finite} of {len(pool.log_guide)} draws, which count as impossible."
        )
    return found
