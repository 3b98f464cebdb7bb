"""The table of one fit in the columns of `fit-many`, so that single fits and surveys make one catalogue."""

import json

import numpy as np


def catalogue_of_fit(posterior, model, summary, meta, lines=None):
    """An `astropy.table.Table` of one row, as `emuinfer.survey.catalogue.catalogue_of`; `summary`: of `summary_table`; `lines`: of
    `lines_of_limits`."""
    from ..posteriors import draws_of
    from ..survey.catalogue import catalogue_of

    names = list(model.names)
    draws = np.stack([draws_of(posterior, n).reshape(-1) for n in names])
    whole = {k: np.asarray(summary[k])[None] for k in ("mean", "sd", "q16", "median", "q84", "r_hat")}
    whole["ess"] = np.asarray(summary["ess_bulk"])[None]
    whole["covariance"] = np.atleast_2d(np.cov(draws))[None]
    whole["edges"] = np.array([[_at_edge(model, n, x) for n, x in zip(names, draws)]])
    whole |= _limits(posterior, names, lines or {})
    spectra = [spectrum.observation for spectrum in model.spectra]
    good = posterior["constant_data"]["good"].values > 0
    numbers = {k: float(posterior.attrs.get(k, np.nan)) for k in ("k_hat", "in_domain", "edge_distance")}
    numbers["down_weighted"] = float(posterior.attrs.get("down_weighted_pixels", np.nan))
    statistics = json.loads(posterior.attrs.get("goodness_statistics", "{}"))
    numbers |= {f"misfit_{name}": float(statistic["value"]) for name, statistic in statistics.items()}
    whole |= {k: np.array([v]) for k, v in numbers.items()}
    whole["goodness"] = np.array([posterior.attrs.get("goodness", "")])
    divergences = int(np.sum(posterior["sample_stats"]["diverging"].values)) if _has_divergences(posterior) else 0
    whole |= {"divergences": np.array([divergences]), "n_pixels": np.array([int(good.sum())])}
    whole["snr"] = np.array([float(np.median([o.snr for o in spectra]))])
    whole |= {"row": np.array([0]), "name": np.array([spectra[0].name]), "problem": np.array([""])}
    whole["flag"] = np.array([_flag(posterior, whole, draws)])
    return catalogue_of(whole, names, model.units, {"PARAMS": ",".join(names), **meta})


def _limits(posterior, names, lines) -> dict:
    from ..posteriors import Limit, stored_limits
    from ..survey.limits import NO_VERDICT

    known = stored_limits(posterior)
    return {
        "limit_sign": np.array([[known[n].sign if n in known else NO_VERDICT for n in names]]),
        "limit": np.array([[known.get(n, Limit("")).value for n in names]]),
        "limit_lines": np.array(["; ".join(f"{n}: {text}" for n, text in lines.items())]),
    }


def _at_edge(model, name, x) -> bool:
    from ..posteriors import piles_up

    space = model.label_space
    return name in space.names and bool(np.logical_or(*piles_up(x, *space.bounds[name])))


def _has_divergences(posterior) -> bool:
    try:
        return "diverging" in posterior["sample_stats"]
    except (KeyError, AttributeError):
        return False


def _flag(posterior, whole, draws) -> int:
    """Bits of `emuinfer.survey.FLAGS` of the fit."""
    from ..survey.summary import DIVERGENT, INSIDE, bits_of, parameter_flags

    true = {
        "not_finite": not np.isfinite(draws).all(),
        "divergent": whole["divergences"][0] > DIVERGENT * draws.shape[1],
        "verification": posterior.attrs.get("verification") == "fail",
        "domain": whole["in_domain"][0] < INSIDE,
    }
    raised = [name for name, condition in true.items() if condition]
    flag = bits_of([*raised, *json.loads(posterior.attrs.get("flags", "[]"))])
    return flag | int(np.bitwise_or.reduce(parameter_flags({**whole, "flag": np.array([flag])})[0]))
