"""Ranks, coverage and pulls of many posteriors whose truth is known; NumPy on the host.

Where truths are drawn from the prior and data from the likelihood, the rank of the truth among draws of the posterior is
uniform (Cook, Gelman & Rubin 2006, J. Comput. Graph. Stat. 15, 675; Talts et al. 2018, arXiv:1804.06788).
"""

import functools

import numpy as np

DRAWS = 99  # thinned draws among which the truth is ranked: ranks 0 to 99
LEVELS = (0.68, 0.95)
ALL = "all labels"


def ranks_of(draws, truth) -> tuple[np.ndarray, np.ndarray]:
    """`(rank, pit)` `(n,)` of `truth` `(n,)` in `draws` `(n, total)`; −1 and NaN where draws or truth are not finite.

    `rank`: how many of `DRAWS` draws, evenly taken, lie below; `pit`: the share of all draws below.
    """
    draws, truth = np.asarray(draws, float), np.asarray(truth, float)
    known = np.isfinite(draws).all(1) & np.isfinite(truth)
    some = draws[:, np.linspace(0, draws.shape[1] - 1, DRAWS).round().astype(int)]
    with np.errstate(invalid="ignore"):
        rank = np.where(known, (some < truth[:, None]).sum(1), -1)
        pit = np.where(known, (draws < truth[:, None]).mean(1), np.nan)
    return rank, pit


@functools.lru_cache(maxsize=32)
def _null(n: int, simulations: int = 4000):
    """Binomial CDF of the count below each rank `(DRAWS, n + 1)`, and sorted least p-values of simulated uniform ranks."""
    from scipy.stats import binom

    z = np.arange(1, DRAWS + 1) / (DRAWS + 1)
    cdf = binom.cdf(np.arange(n + 1), n, z[:, None])
    rng = np.random.default_rng(0)
    least = [_least(rng.integers(0, DRAWS + 1, n), cdf) for _ in range(simulations)]
    return cdf, np.sort(least)


def _least(ranks, cdf):
    """The least two-sided p-value of the empirical distribution function of `ranks` over all places."""
    below = np.cumsum(np.bincount(ranks, minlength=DRAWS + 1))[:DRAWS]
    place = np.arange(DRAWS)
    upper = 1.0 - np.where(below > 0, cdf[place, np.maximum(below - 1, 0)], 0.0)
    return 2.0 * np.minimum(cdf[place, below], upper).min()


def uniformity(ranks) -> float:
    """p-value of ranks `(n,)` being uniform: small where their empirical distribution function leaves its band.

    The band is simultaneous: adjusted by simulation so that a given share of uniform samples stays inside everywhere
    (Säilynoja, Bürkner & Vehtari 2022, Statistics and Computing 32, 32, section 2.2).
    """
    ranks = np.asarray(ranks, int)
    if not len(ranks):
        return np.nan
    cdf, null = _null(len(ranks))
    return float(np.searchsorted(null, _least(ranks, cdf), side="right") / len(null))


def ecdf_band(n: int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(z, low, high)`: the simultaneous band of the empirical distribution function of `n` uniform ranks, `(DRAWS,)`."""
    cdf, null = _null(n)
    gamma = np.quantile(null, 1 - level)
    z = np.arange(1, DRAWS + 1) / (DRAWS + 1)
    low = np.array([np.searchsorted(row, gamma / 2, side="left") for row in cdf])
    high = np.array([np.searchsorted(row, 1 - gamma / 2, side="left") for row in cdf])
    return z, low / n, high / n


def histogram_band(n: int, bins: int, level: float = 0.95) -> tuple[float, float]:
    """Counts of one of `bins` equal bins between which all bins lie with probability `level` or more (Bonferroni)."""
    from scipy.stats import binom

    tail = 0.5 * (1 - level) / bins
    return float(binom.ppf(tail, n, 1 / bins)), float(binom.ppf(1 - tail, n, 1 / bins))


def bins_for(n: int) -> int:
    """Bins of a rank histogram, a divisor of `DRAWS` + 1, with at least about ten ranks in each."""
    return max(b for b in (5, 10, 20) if b == 5 or n >= 12 * b)


def summarise(results, labels):
    """One row per emulator error (on, off), S/N, parameter, and stars (all, or those without a serious flag), as a `Table`.

    - `coverage_68`, `coverage_95` and `…_error`: share of the truths inside central intervals, and its binomial error.
    - `bias`, `spread` and `…_error`: mean and standard deviation of (mean − truth) / sd: 0 and 1, except near bounds.
    - `p_uniform`: of `uniformity`. `width`: median posterior sd; `rms`: root-mean-square error of the mean.

    Rows of the parameter `"all labels"` average the coverage over `labels`; as the labels of one star go together, their error
    is that of the mean over stars. Rows with S/N NaN take all S/N together, with errors over stars too.
    """
    from astropy.table import Table

    rows = []
    snr = np.asarray(results["snr"])
    parameters = list(dict.fromkeys(results["parameter"]))
    for on in sorted(set(results["emulator_error"]), reverse=True):
        for only in (False, True):
            for s in [*sorted(set(snr)), np.nan]:
                use = (np.asarray(results["emulator_error"]) == on) & (np.asarray(results["rank"]) >= 0)
                use &= np.isnan(s) | (snr == s)
                if only:
                    use &= ~np.asarray(results["serious"])
                part = results[use]
                rows += [_row(part[part["parameter"] == name], on, only, s, name) for name in parameters]
                rows.append(_row(part[np.isin(part["parameter"], labels)], on, only, s, ALL))
    return Table(rows=rows)


def _row(part, on, only, snr, name):
    out = {
        "emulator_error": bool(on),
        "stars": "unflagged" if only else "all",
        "snr": snr,
        "parameter": name,
        "n": len(set(zip(part["star"], part["snr"]))),
    }
    pit, star = np.asarray(part["pit"]), np.asarray(part["star"])
    for level in LEVELS:
        inside = (np.abs(pit - 0.5) <= 0.5 * level).astype(float)
        key = f"coverage_{100 * level:.0f}"
        out[key], out[f"{key}_error"] = _mean(inside, star, level)
    n = max(len(part), 1)
    error = np.asarray(part["mean"]) - np.asarray(part["truth"])
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = error / np.asarray(part["sd"])
    several = n > 1
    out["bias"] = pull.mean() if len(part) else np.nan
    out["spread"] = pull.std(ddof=1) if several else np.nan
    out["bias_error"] = out["spread"] / np.sqrt(n)
    out["spread_error"] = out["spread"] / np.sqrt(2 * max(n - 1, 1))
    single = name != ALL and not np.isnan(snr)
    out["p_uniform"] = uniformity(part["rank"]) if single else np.nan
    out["width"] = np.median(part["sd"]) if len(part) and name != ALL else np.nan
    out["rms"] = np.sqrt((error**2).mean()) if len(part) and name != ALL else np.nan
    return out


def _mean(inside, star, level):
    """Mean of zeros and ones and its error, that of independent stars with one or several values each."""
    if not len(inside):
        return np.nan, np.nan
    _, index, count = np.unique(star, return_inverse=True, return_counts=True)
    mean = inside.mean()
    if count.max() == 1:
        # With the nominal level in place of the observed one, which would give no error at 100 %.
        return mean, np.sqrt(level * (1 - level) / len(inside))
    away = np.bincount(index, inside - mean)
    return mean, np.sqrt((away**2).sum()) / len(inside)
