"""R-hat, effective sample sizes and summaries of many posteriors at once; NumPy on the host."""

import numpy as np

from ..posteriors.posterior import pareto_smoothed_weights, verify_flag

FLAGS = {
    "bad_data": 1,  # not fitted: `problem` says why
    "not_finite": 2,  # the fit broke down
    "r_hat": 4,  # 1.01 or more for a parameter
    "ess": 8,  # bulk effective sample size below 400 for a parameter
    "divergent": 16,  # more than 1 % of the transitions diverged
    "verification": 32,  # the surrogate does not hold against the full emulator
    "edge": 64,  # a label piles up at a bound of its prior
    "domain": 128,  # more than 1 % of the draws lie outside the emulator's domain
    "poor_fit": 256,  # weighted chi² per pixel above 2 with all model errors
    "velocity": 512,  # the velocity leans on the window about its first guess
}
SERIOUS = FLAGS["bad_data"] | FLAGS["not_finite"] | FLAGS["r_hat"] | FLAGS["verification"] | FLAGS["velocity"]


def flag_names(flag: int) -> list[str]:
    """The names of the bits that are set in `flag`."""
    return [name for name, bit in FLAGS.items() if flag & bit]


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


def summaries(raw, base, index, survey) -> dict:
    """A batch's results with one row per star; those without data hold NaN and a flag.

    `raw`: of `fit_batch` for the stars `index`, or None if no star could be fitted.
    """
    names, settings = survey.density.names, survey.settings
    n, p = len(base["problem"]), len(names)
    out = {k: np.full((n, p), np.nan) for k in ("mean", "sd", "q16", "median", "q84", "r_hat", "ess")}
    out["covariance"] = np.full((n, p, p), np.nan)
    for k in (
        "k_hat",
        "chi2",
        "chi2_model",
        "down_weighted",
        "acceptance",
        "surrogate_error",
        "in_domain",
        "edge_distance",
    ):
        out[k] = np.full(n, np.nan)
    out["repaired"] = np.zeros(n, bool)
    out["divergences"], out["flag"] = np.zeros(n, int), np.full(n, FLAGS["bad_data"])
    out |= base
    if raw is None:
        return out
    draws = np.stack([np.asarray(raw["values"][k], float) for k in names], 1)
    draws[:, names.index("rv")] += raw["frame"][:, None]
    finite = np.isfinite(draws).all((1, 2))
    draws[~finite] = np.nan
    chains = draws.reshape(len(draws), p, settings.chains, -1)
    out["mean"][index], out["sd"][index] = draws.mean(-1), draws.std(-1)
    out["q16"][index], out["median"][index], out["q84"][index] = np.quantile(draws, [0.16, 0.5, 0.84], axis=-1)
    centred = draws - draws.mean(-1, keepdims=True)
    out["covariance"][index] = np.einsum("sid,sjd->sij", centred, centred) / draws.shape[-1]
    out["r_hat"][index], out["ess"][index] = r_hat(chains), effective_size(chains)
    for k in ("chi2", "chi2_model", "down_weighted", "acceptance", "surrogate_error"):
        out[k][index] = raw[k]
    out["divergences"][index], out["repaired"][index] = raw["diverging"], raw["repaired"]
    failed = _verify(raw, out, index)
    inside, distance = _domain(draws, names, survey.model)
    out["in_domain"][index], out["edge_distance"][index] = inside, distance
    out["flag"][index] = flags_of({k: v[index] for k, v in out.items()}, draws, names, survey, finite, failed)
    out["draws"] = chains
    return out


def _verify(raw, out, index):
    """k-hat of each star; True where the posterior does not hold."""
    failed = np.zeros(len(index), bool)
    if "log_ratio" not in raw:
        return failed
    for i, ratio in enumerate(np.asarray(raw["log_ratio"], float)):
        if not np.isfinite(ratio).all():
            failed[i], out["k_hat"][index[i]] = True, np.inf
            continue
        _, k, ess = pareto_smoothed_weights(ratio)
        out["k_hat"][index[i]] = k
        failed[i] = verify_flag(k, ess, len(ratio))[0] == "fail"
    return failed


def _domain(draws, names, model):
    """Share of the draws inside the domain, and the least distance of the median from its bounds in half-widths of the
    labels (negative outside)."""
    space = model.label_space
    fixed = model.complete({})
    labels = np.stack(
        [draws[:, names.index(k)] if k in names else np.full(draws[:, 0].shape, float(fixed[k])) for k in space.names],
        -1,
    )
    inside = space.contains(np.nan_to_num(labels, nan=1e30), tolerance=0.05).mean(-1)
    return inside, space.edge_distance(np.median(labels, 1))


def flags_of(out, draws, names, survey, finite, failed):
    """Bits of `FLAGS` for each star."""
    space, count = survey.model.label_space, draws.shape[-1]
    flag = np.zeros(len(draws), int)

    def raise_where(name, condition):
        flag[np.asarray(condition)] |= FLAGS[name]

    raise_where("not_finite", ~finite)
    raise_where("r_hat", ~(np.nan_to_num(out["r_hat"], nan=9.0) < 1.01).all(-1))
    raise_where("ess", ~(np.nan_to_num(out["ess"]) >= 400).all(-1))
    raise_where("divergent", out["divergences"] > 0.01 * count)
    raise_where("verification", failed)
    raise_where("domain", out["in_domain"] < 0.99)
    raise_where("poor_fit", out["chi2_model"] > 2)
    for i, name in enumerate(names):
        if name in space.names:
            lo, hi = space.bounds[name]
            near = 0.25 * out["sd"][:, i]
            x = draws[:, i]
            raise_where("edge", np.maximum((x < lo + near[:, None]).mean(-1), (x > hi - near[:, None]).mean(-1)) > 0.05)
        if name == "rv":
            raise_where("velocity", np.abs(draws[:, i] - np.median(draws[:, i], -1, keepdims=True)).max(-1) > 18)
    return flag
