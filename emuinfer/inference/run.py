"""From a model to a verified posterior: optimise, localise, compress, sample, verify."""

import json
import time

import numpy as np

from ..files import use_compilation_cache
from ..likelihoods import SpectrumModel
from ..samplers import get_sampler
from . import record
from .config import STAR, SamplingConfig
from .fit import find_optimum, say
from .verify import importance_check


def sample(
    model: SpectrumModel,
    *,
    seed: int = 0,
    start: dict | None = None,
    sampler: str = "nuts",
    config: SamplingConfig = STAR,
    chains: int | None = None,
    warmup: int | None = None,
    draws: int | None = None,
    verify: int | None = None,
    predictive: int | None = None,
    pointwise: int | None = None,
    progress: bool = True,
    **options,
):
    """The posterior of a `StellarModel` or `JointModel` as an ArviZ object, verified against the full emulator.

    **Arguments:**

    - `seed`: of everything random; the same seed on the same machine gives the same draws.
    - `start`: parameter name to value, near the posterior: saves the search over the domain, as for a second fit of the same
      star with other priors.
    - `sampler`: a name from `emuinfer.samplers.SAMPLERS`; `options` go to it.
    - `config`: a `SamplingConfig`; `chains`, `warmup`, `draws`, `verify`, `predictive` and `pointwise` replace its numbers.

    **Returns:** `InferenceData` (ArviZ 0.23) or `DataTree` (1.x) with groups posterior, sample_stats, observed_data,
    constant_data, posterior_predictive (`model_flux`, and simulated data `flux`) and log_likelihood (`flux`, per used pixel),
    and attributes `emulator_hash`, `data_hash`, `seed`, `k_hat`, `verification` (ok, warn, fail or skipped), `in_domain`
    (share of the draws), `edge_distance` (of the median labels from the domain's nearest bound, in half-widths of the
    labels; negative outside), `warnings`, `versions`, `timings`. `arviz.loo`, `arviz.compare` and `arviz.plot_ppc` take it.
    """
    run = get_sampler(sampler)
    use_compilation_cache()
    config = config.with_given(
        chains=chains, warmup=warmup, draws=draws, verify=verify, predictive=predictive, pointwise=pointwise
    )
    clock = time.perf_counter()
    fit = find_optimum(model, start=start, seed=seed, config=config, progress=progress)
    optimum_s = time.perf_counter() - clock
    for attempt in range(2):
        result = run(
            fit.density.log_density,
            fit.z,
            fit.compressed,
            seed=seed,
            chains=config.chains,
            warmup=config.warmup,
            draws=config.draws,
            covariance=fit.covariance,
            progress=progress,
            **{"target_acceptance": 0.9, **options},
        )
        values = fit.constrained(result.positions)
        clock = time.perf_counter()
        check = None
        if config.verify and fit.compressed is not None:
            complete = {k: np.asarray(v) for k, v in model.complete(values).items()}
            check = importance_check(fit.full, fit.compressed, complete, n=config.verify, seed=seed, progress=progress)
        verify_s = time.perf_counter() - clock
        if attempt or not check or check.flag != "fail":
            break
        say(
            progress,
            "the surrogate does not hold over the whole posterior: making one from its draws, and sampling again",
        )
        fit = fit.localised_again(result.positions, seed)
    timings = {"optimise_s": optimum_s, **result.timings, "verify_s": verify_s}
    return _posterior(fit, result, check, values, timings)


def _posterior(fit, result, check, values, timings):
    from ..posteriors import build_posterior, diagnose

    model, config = fit.model, fit.config
    shape = result.positions.shape[:2]
    positions = {n: np.asarray(v, np.float64).reshape(shape) for n, v in values.items()}
    constant = record.pixel_facts(fit)
    attrs, warnings = record.facts(fit, result, check, values, constant)
    by_pixel = {n: ["pixel"] for n in ("flux", "model_flux", *constant)}
    used = np.flatnonzero(constant["weight"] > 0)
    if check is not None:
        constant |= {"verified_draw": check.index, "verified_log_weight": check.log_weights}
    thin = {k: record.thinned(shape[1], count, shape[0]) for k, count in _kept(config).items()}
    predicted, points = {}, {}
    if "posterior_predictive" in thin:
        predicted = record.predictions(fit, positions, thin["posterior_predictive"], result.seed)
    if "log_likelihood" in thin:
        points = {"flux": record.pointwise(fit, positions, thin["log_likelihood"])}
    posterior = build_posterior(
        positions,
        result.stats,
        observed_data={"flux": record.observed_flux(fit)},
        posterior_predictive=predicted,
        log_likelihood=points,
        constant_data=constant,
        coords={"pixel": np.arange(len(constant["wavelength"])), "used_pixel": used},
        dims={**by_pixel, "verified_draw": ["verified"], "verified_log_weight": ["verified"]},
        group_dims={"log_likelihood": {"flux": ["used_pixel"]}},
        thinned=thin,
        attrs={**attrs, "timings": timings},
    )
    bounds = {n: model.label_space.bounds[n] for n in model.names if n in model.label_space.names}
    found = diagnose(posterior, names=list(model.names), bounds=bounds)
    posterior.attrs["warnings"] = json.dumps([*result.notes, *fit.notes, *found, *warnings])
    return posterior


def _kept(config) -> dict[str, int]:
    """Draws that groups of the posterior keep, where they keep any."""
    return {k: n for k, n in (("posterior_predictive", config.predictive), ("log_likelihood", config.pointwise)) if n}
