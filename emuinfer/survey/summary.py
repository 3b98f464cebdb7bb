"""Summaries and flags of many posteriors at once; NumPy on the host."""

import numpy as np

from ..inference.goodness import THRESHOLDS, VERDICTS, judge
from ..likelihoods.priors import RV_HALF_WIDTH, prior_facts
from ..posteriors import ESS_LIMIT, R_HAT_LIMIT, effective_size, pareto_smoothed_weights, piles_up, r_hat, verify_flag
from .limits import no_limits, put_limits

# Numbers of each star beside its parameters: as columns of the table, in this order.
MEASURED = (
    "k_hat",
    "chi2",
    "chi2_model",
    "down_weighted",
    "acceptance",
    "surrogate_error",
    "in_domain",
    "edge_distance",
    *(f"misfit_{name}" for name in THRESHOLDS),
    "goodness",
    "velocity_significance",
    "second_velocity",
)
DIVERGENT = 0.01  # share of the transitions
INSIDE = 0.99  # share of the draws
POOR_FIT = 2.0  # weighted chi² per pixel
VELOCITY_MARGIN = 2.0  # km/s from the end of the velocities that the prior allows

FLAGS = {
    "bad_data": 1,  # not fitted: `problem` says why
    "not_finite": 2,  # the fit broke down
    "r_hat": 4,  # `R_HAT_LIMIT` or more for a parameter
    "ess": 8,  # bulk effective sample size below `ESS_LIMIT` for a parameter
    "divergent": 16,  # more than `DIVERGENT` of the transitions diverged
    "verification": 32,  # the surrogate does not hold against the full emulator
    "edge": 64,  # a label piles up at a bound of its prior
    "domain": 128,  # less than `INSIDE` of the draws lie inside the emulator's domain
    "poor_fit": 256,  # the verdict on the fit is poor, or the weighted chi² per pixel above `POOR_FIT` with all model errors
    "velocity": 512,  # the velocity leans on the window about its first guess, or on the end of the searched range
    "doubtful_fit": 1024,  # the verdict on the fit is doubtful
    "second_spectrum": 2048,  # the star's lines are there again at another velocity
    "emission": 4096,  # emission over a line's width
    "no_lines": 8192,  # lines are not significant
    "resolution": 16384,  # a broadening of zero: the resolution stated is probably too low
    "rotation": 32768,  # lines of a rotating star fitted with a Gaussian
    "no_velocity": 65536,  # noise explains the peak of the cross-correlation
    "no_parallax": 131072,  # no usable Gaia data where others have them: gravity from the spectrum alone
    "ruwe": 262144,  # Gaia does not see a single star: parallax and light may be those of two
}
SERIOUS = FLAGS["bad_data"] | FLAGS["not_finite"] | FLAGS["r_hat"] | FLAGS["verification"] | FLAGS["velocity"]
SERIOUS |= FLAGS["poor_fit"] | FLAGS["no_lines"] | FLAGS["no_velocity"]


def bits_of(names) -> int:
    """The flag in which the bits of these names are set."""
    return sum(FLAGS[name] for name in {*names})


def flag_names(flag: int) -> list[str]:
    """The names of the bits that are set in `flag`."""
    return [name for name, bit in FLAGS.items() if flag & bit]


def summaries(raw, base, index, survey) -> dict:
    """A batch's results with one row per star; those without data hold NaN and a flag.

    `raw`: of `fit_batch` for the stars `index`, or None if no star could be fitted.
    """
    names, config = survey.density.names, survey.config
    n, p = len(base["problem"]), len(names)
    out: dict[str, np.ndarray] = {
        k: np.full((n, p), np.nan) for k in ("mean", "sd", "q16", "median", "q84", "r_hat", "ess")
    }
    out["covariance"] = np.full((n, p, p), np.nan)
    for k in MEASURED:
        out[k] = np.full(n, np.nan)
    out["goodness"] = np.full(n, "", f"<U{max(map(len, VERDICTS))}")
    out["repaired"], out["edges"] = np.zeros(n, bool), np.zeros((n, p), bool)
    out["divergences"], out["flag"] = np.zeros(n, int), np.full(n, FLAGS["bad_data"])
    out |= base | no_limits(n, names, prior_facts(survey.model))
    if raw is None:
        return out
    draws = np.stack([np.asarray(raw["values"][k], float) for k in names], 1)
    draws[:, names.index("rv")] += raw["frame"][:, None]
    finite = np.isfinite(draws).all((1, 2))
    draws[~finite] = np.nan
    chains = draws.reshape(len(draws), p, config.chains, -1)
    out["mean"][index], out["sd"][index] = draws.mean(-1), draws.std(-1)
    out["q16"][index], out["median"][index], out["q84"][index] = np.quantile(draws, [0.16, 0.5, 0.84], axis=-1)
    centred = draws - draws.mean(-1, keepdims=True)
    out["covariance"][index] = np.einsum("sid,sjd->sij", centred, centred) / draws.shape[-1]
    out["r_hat"][index], out["ess"][index] = r_hat(chains), effective_size(chains)
    for k in ("chi2", "chi2_model", "down_weighted", "acceptance", "surrogate_error"):
        out[k][index] = raw[k]
    out["divergences"][index], out["repaired"][index] = raw["diverging"], raw["repaired"]
    out["edges"][index] = _edges(draws, names, survey.model.label_space)
    failed = _verify(raw, out, index)
    judged = _judge(raw, out, index, survey.model.wavelength, draws, names)
    inside, distance = _domain(draws, names, survey.model)
    out["in_domain"][index], out["edge_distance"][index] = inside, distance
    out["flag"][index] = flags_of(
        {k: v[index] for k, v in out.items()}, draws, names, survey, finite, failed, raw["frame"]
    )
    out["flag"][index] |= [bits_of({*one.flags, *peaks.flags}) for one, peaks in zip(judged, raw["peaks"])]
    out["velocity_significance"][index] = [p.significance for p in raw["peaks"]]
    out["second_velocity"][index] = [p.second if p.binary else np.nan for p in raw["peaks"]]
    if "stars" in raw:
        put_limits(out, index, draws, survey, raw["stars"], raw)
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


def _judge(raw, out, index, wavelength, draws, names) -> list:
    """The `Goodness` of each star; its numbers in `out`."""
    judged = []
    for i, row in enumerate(index):
        one = judge(wavelength, type(raw["residuals"])(*(a[i] for a in raw["residuals"])))
        for name, statistic in one.statistics.items():
            out[f"misfit_{name}"][row] = statistic.value
        out["goodness"][row] = one.verdict
        judged.append(one.with_broadening(draws[i, names.index("vbroad")] if "vbroad" in names else None))
    return judged


def _edges(draws, names, space):
    """Whether a label's draws pile up at a bound of its prior, `(n_stars, n_parameters)`."""
    at = lambda i, name: np.logical_or(*piles_up(draws[:, i], *space.bounds[name]))
    return np.stack([at(i, n) if n in space.names else np.zeros(len(draws), bool) for i, n in enumerate(names)], -1)


def parameter_flags(out) -> np.ndarray:
    """Bits of `FLAGS` for each parameter of each star: its own R-hat, effective size and edge, and what spoils them all."""
    all_of_them = sum(FLAGS[k] for k in ("bad_data", "not_finite", "verification"))
    flags = np.zeros(out["r_hat"].shape, int) | (np.asarray(out["flag"]) & all_of_them)[:, None]
    fitted = (np.asarray(out["flag"]) & FLAGS["bad_data"] == 0)[:, None]
    flags[fitted & ~(np.nan_to_num(out["r_hat"], nan=np.inf) < R_HAT_LIMIT)] |= FLAGS["r_hat"]
    flags[fitted & ~(np.nan_to_num(out["ess"]) >= ESS_LIMIT)] |= FLAGS["ess"]
    flags[np.asarray(out.get("edges", np.zeros_like(fitted)), bool) & fitted] |= FLAGS["edge"]
    return flags


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


def flags_of(out, draws, names, survey, finite, failed, frame):
    """Bits of `FLAGS` for each star; `frame` `(n_stars,)`: the first guess of its velocity, km/s."""
    count = draws.shape[-1]
    flag = np.zeros(len(draws), int)

    def raise_where(name, condition):
        flag[np.asarray(condition)] |= FLAGS[name]

    raise_where("not_finite", ~finite)
    raise_where("r_hat", ~(np.nan_to_num(out["r_hat"], nan=np.inf) < R_HAT_LIMIT).all(-1))
    raise_where("ess", ~(np.nan_to_num(out["ess"]) >= ESS_LIMIT).all(-1))
    raise_where("divergent", out["divergences"] > DIVERGENT * count)
    raise_where("verification", failed)
    raise_where("domain", out["in_domain"] < INSIDE)
    raise_where("poor_fit", out["chi2_model"] > POOR_FIT)
    raise_where("edge", out["edges"].any(-1))
    for i, name in enumerate(names):
        if name == "rv":
            far = RV_HALF_WIDTH - VELOCITY_MARGIN
            raise_where("velocity", np.abs(draws[:, i] - frame[:, None]).max(-1) > far)
    return flag
