"""R-hat and effective sample sizes of many posteriors at once; NumPy on the host."""

import numpy as np


def _split(x):
    """Halves of the chains as chains: `(…, chains, draws)` to `(…, 2 chains, draws // 2)`."""
    half = x.shape[-1] // 2
    return np.concatenate([x[..., :half], x[..., -half:]], axis=-2)


def _rank_normal(x):
    """Normal scores of the ranks over all chains (Vehtari et al. 2021, eq. 14)."""
    from scipy.special import ndtri

    flat = x.reshape(*x.shape[:-2], -1)
    order = np.argsort(flat, axis=-1, kind="stable")
    rank = np.empty(flat.shape)
    np.put_along_axis(rank, order, np.arange(1.0, flat.shape[-1] + 1), axis=-1)
    return ndtri((rank - 0.375) / (flat.shape[-1] + 0.25)).reshape(x.shape)


def _variances(x):
    n = x.shape[-1]
    within = x.var(-1, ddof=1).mean(-1)
    between = x.mean(-1).var(-1, ddof=1)
    return within, (n - 1) / n * within + between


def r_hat(x) -> np.ndarray:
    """Rank-normalised split R-hat, the larger of bulk and folded (Vehtari et al. 2021, Bayesian Analysis 16, 667).

    `x` `(…, chains, draws)`; NaN where draws are not finite or do not move.
    """
    x = np.asarray(x, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        folded = np.abs(x - np.median(x, axis=(-2, -1), keepdims=True))
        both = []
        for one in (x, folded):
            within, total = _variances(_rank_normal(_split(one)))
            both.append(np.sqrt(total / within))
    return np.where(_moves(x), np.maximum(*both), np.nan)


def _moves(x):
    flat = x.reshape(*x.shape[:-2], -1)
    return np.isfinite(flat).all(-1) & (np.ptp(flat, axis=-1) > 0)


def effective_size(x) -> np.ndarray:
    """Bulk effective sample size of draws `(…, chains, draws)` (Vehtari et al. 2021; Geyer 1992 for the cut)."""
    x = np.asarray(x, float)
    moves = _moves(x)
    z = _rank_normal(_split(np.where(np.isfinite(x), x, 0.0)))
    chains, n = z.shape[-2:]
    centred = z - z.mean(-1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, 2 * n, axis=-1)) ** 2
    covariance = np.fft.irfft(power, axis=-1)[..., :n] / n
    with np.errstate(invalid="ignore", divide="ignore"):
        within, total = _variances(z)
        rho = 1 - (within[..., None] - covariance.mean(-2)) / total[..., None]
    rho[..., 0] = 1.0
    pairs = rho[..., : 2 * (n // 2)].reshape(*rho.shape[:-1], -1, 2).sum(-1)
    # Sums of pairs count until the first that is not positive, and may not grow (Geyer's initial monotone sequence).
    positive = np.cumprod(pairs > 0, axis=-1).astype(bool)
    falling = np.minimum.accumulate(np.where(positive, pairs, np.inf), axis=-1)
    after = np.minimum(positive.sum(-1), pairs.shape[-1] - 1)[..., None]
    next_even = np.take_along_axis(rho[..., ::2], after, -1)[..., 0]
    tau = -1 + 2 * np.where(positive, falling, 0.0).sum(-1) + np.maximum(next_even, 0.0)
    tau = np.maximum(tau, 1 / np.log10(chains * n))
    return np.where(moves, chains * n / tau, np.nan)
