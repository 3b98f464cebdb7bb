"""Pareto-smoothed importance weights, in pure NumPy."""

import numpy as np

from ..errors import EmuinferError


def pareto_smoothed_weights(log_ratio) -> tuple[np.ndarray, float, float]:
    """Pareto-smoothed importance weights (Vehtari et al. 2024, JMLR 25, 72).

    `log_ratio`, shape `(draws,)`: log of the target density over the density the draws come from, up to a constant.
    Returns `(log_weights, k_hat, ess)`: weights normalised to sum to one, shape `(draws,)`; the Pareto shape of their
    tail; and the effective number of draws, 1 / sum(w^2). Equal ratios give `k_hat` 0, fewer than 25 draws infinity.

    Our own, because ArviZ 0.23 takes the log ratio here and ArviZ 1.x its negative, without a word when misused.
    Raises `EmuinferError` on NaN or infinite ratios; minus infinity, a weight of zero, is allowed.
    """
    log_ratio = np.asarray(log_ratio, float).ravel()
    n = len(log_ratio)
    bad = np.isnan(log_ratio) | (log_ratio == np.inf)
    if bad.any() or not np.isfinite(log_ratio).any():
        raise EmuinferError(
            f"{int(bad.sum())} of {n} log importance ratios are NaN or infinite, or all are minus infinity. One of the "
            "two densities cannot be evaluated at some draws: check whether they lie inside the emulator's domain."
        )
    if np.ptp(log_ratio) < 1e-9:
        return np.full(n, -np.log(n)), 0.0, float(n)
    log_weights, k_hat = log_ratio - log_ratio.max(), np.inf
    size = int(np.ceil(min(n / 5, 3 * np.sqrt(n))))  # draws in the tail (Vehtari et al. 2024, section 6)
    order = np.argsort(log_weights)
    tail, cut = order[n - size :], np.exp(log_weights[order[n - size - 1]])
    excess = np.exp(log_weights[tail]) - cut
    if size >= 5 and excess[-1] > 0 and excess[size // 4] > 0:
        k_hat, scale = _generalised_pareto(excess)
        quantile = (np.arange(size) + 0.5) / size
        growth = np.expm1(-k_hat * np.log1p(-quantile)) / k_hat if k_hat else -np.log1p(-quantile)
        log_weights[tail] = np.minimum(np.log(cut + scale * growth), 0.0)  # never above the largest raw weight
    log_weights -= np.logaddexp.reduce(log_weights)
    return log_weights, float(k_hat), float(1 / np.sum(np.exp(2 * log_weights)))


def _generalised_pareto(x):
    """Shape and scale of a generalised Pareto distribution fitted to sorted positive `x`.

    The quasi-Bayesian estimate of Zhang & Stephens (2009, Technometrics 51, 316), with the shape drawn weakly towards
    0.5 (Vehtari et al. 2024, appendix C).
    """
    n = len(x)
    grid = 30 + int(np.sqrt(n))
    b = 1 / x[-1] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1])
    k = np.mean(np.log1p(-b[:, None] * x), axis=1)
    profile = n * (np.log(-b / k) - k - 1)
    weight = np.exp(profile - profile.max())
    b_mean = np.sum(b * weight) / np.sum(weight)
    k_mean = np.mean(np.log1p(-b_mean * x))
    return (n * k_mean + 5) / (n + 10), -k_mean / b_mean


def verify_flag(k_hat, ess, n) -> tuple[str, str]:
    """A verdict on importance weights of `n` draws: `("ok" | "warn" | "fail", message)`.

    The limits are those of Vehtari et al. (2024): k-hat up to 0.5 is good, up to min(1 - 1/log10(n), 0.7) usable,
    beyond that the reweighted posterior cannot be trusted. Where the weights hardly vary (effective draws above 99 % of `n`,
    a standard deviation below 10 %), the shape of their tail is that of rounding errors and decides nothing.
    """
    limit = min(1 - 1 / np.log10(max(n, 11)), 0.7)
    figures = f"Pareto k-hat {k_hat:.2f}, effective draws {ess:.0f} of {n}"
    alike = np.isfinite(k_hat) and ess > 0.99 * n
    if (not k_hat <= limit or ess < 10) and not alike:
        return "fail", (
            f"The surrogate does not hold against the full emulator ({figures}; k-hat must be below {limit:.2f}). "
            "Build the reduced emulator anew around this star, or with a smaller error, and do not use these values."
        )
    if (k_hat > 0.5 or ess < 0.3 * n) and not alike:
        return "warn", (
            f"The reduced and the full emulator differ visibly ({figures}). Use the reweighted values, and take small "
            "differences with care."
        )
    return "ok", (
        f"The surrogate holds against the full emulator ({figures}): that compares the model with itself, not with the star."
    )
