"""What is wrong with a posterior, in plain words."""

import numpy as np

from .posterior import _convergence, _scalars

R_HAT_LIMIT = 1.01  # Vehtari et al. 2021, Bayesian Analysis 16, 667

ESS_LIMIT = 400  # the same

EDGE_WIDTH, EDGE_SHARE = 0.25, 0.05  # standard deviations from a prior's bound, and the share of draws so near to it
BFMI_LIMIT = 0.3  # Betancourt 2016, arXiv:1604.00695; the limit of Stan's diagnose


def diagnose(posterior, *, names=None, bounds=None) -> list[str]:
    """What is wrong with a posterior, in plain words with the remedy; an empty list if nothing was found.

    Looks at R-hat, bulk ESS, divergences, the energy's Bayesian fraction of missing information, and, if `bounds`
    (parameter name to `(lower, upper)` of its prior) is given, at posteriors that lean on a bound.
    """
    found, r_hats, sizes = [], {}, {}
    for label, name, x in _scalars(posterior, names):
        r_hats[label], sizes[label] = _convergence(x)
        if name in (bounds or {}):
            found += _leaning(label, x, *bounds[name])
    return _sampling_warnings(posterior, r_hats, sizes) + found


def _sampling_warnings(posterior, r_hats, sizes):
    found = []
    if posterior["posterior"].sizes["chain"] < 2:
        found.append("There is only one chain, so R-hat cannot tell whether it has converged. Run 4.")
    high = {k: v for k, v in r_hats.items() if v >= R_HAT_LIMIT}
    if high:
        worst = max(high, key=high.__getitem__)
        found.append(
            f"The chains have not mixed: R-hat is {R_HAT_LIMIT} or more for {_listed(high)} (worst: {worst}, "
            f"{high[worst]:.3f}). Run longer; if it stays, the posterior may have several modes: "
            "look at its traces."
        )
    few = {k: v for k, v in sizes.items() if v < ESS_LIMIT}
    if few:
        worst = min(few, key=few.__getitem__)
        found.append(
            f"Few independent draws: the bulk effective sample size is below {ESS_LIMIT} for {_listed(few)} (worst: "
            f"{worst}, {few[worst]:.0f}). Take more draws; quantiles are uncertain until then."
        )
    frozen = [k for k, v in sizes.items() if np.isnan(v)]
    if frozen:
        found.append(
            f"The draws of {_listed(frozen)} are constant or not finite: the sampler did not move. Try another start."
        )
    return found + _energy_warnings(getattr(posterior, "sample_stats", None))


def _energy_warnings(stats):
    found = []
    if stats is not None and "diverging" in stats:
        count, total = int(stats["diverging"].values.sum()), stats["diverging"].size
        if count:
            found.append(
                f"{count} of {total} transitions diverged: the sampler missed regions of strong curvature, and the "
                "posterior may be biased. Raise the target acceptance (0.95, 0.99) or reparametrise."
            )
    if stats is not None and "energy" in stats:
        energy = np.asarray(stats["energy"].values, float)
        # Betancourt (2016), eq. 5: squared steps of the energy over its variance.
        bfmi = np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.maximum(energy.var(axis=1), 1e-300)
        if bfmi.min() < BFMI_LIMIT:
            found.append(
                f"The energy mixes slowly (E-BFMI {bfmi.min():.2f} < {BFMI_LIMIT} in chain {int(bfmi.argmin())}), a "
                "sign of heavy tails. Run longer, or reparametrise."
            )
    return found


def piles_up(x, lower, upper):
    """Whether draws `x` `(…, n)` pile up at the lower bound of a prior, and at the upper one; `(…,)` both.

    More than 5 % of the draws within a quarter standard deviation of the bound: a Gaussian whose mean is 1.2 standard
    deviations or less from the bound has that, and so has a posterior as flat as its prior.
    """
    near = EDGE_WIDTH * x.std(-1, keepdims=True)
    return (x < lower + near).mean(-1) > EDGE_SHARE, (x > upper - near).mean(-1) > EDGE_SHARE


def _leaning(label, x, lower, upper):
    """A sentence per prior bound at which the posterior piles up."""
    at_lower, at_upper = piles_up(x.ravel(), lower, upper)
    if at_lower and at_upper:
        return [
            f"The posterior of {label} fills its whole prior range [{lower:g}, {upper:g}]: the data say little about "
            "it. Report it as a limit or not at all."
        ]
    if not (at_lower or at_upper):
        return []
    side, bound = ("lower", lower) if at_lower else ("upper", upper)
    return [
        f"The posterior of {label} piles up at the {side} bound of its prior, {bound:g}: take it as a limit. "
        "Widen the prior if the emulator's domain allows, or use an emulator that reaches farther."
    ]


def _listed(names, most=6):
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
