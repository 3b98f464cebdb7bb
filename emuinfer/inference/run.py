"""From a model to a verified posterior: optimise, localise, compress, sample, verify."""

import time

import numpy as np

from ..entry import public
from ..files import use_compilation_cache
from ..likelihoods import SpectrumModel, log_posterior
from ..posteriors import import_arviz
from ..samplers import get_sampler
from .config import STAR, SamplingConfig
from .record import posterior_of
from .steps import find_optimum, say
from .verify import importance_check


@public
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
    and attributes `emulator_hash`, `data_hash`, `seed`, `goodness` (of the fit: good, doubtful or poor), `goodness_message`,
    `goodness_statistics` (name to value, threshold and p), `flags` (names from `emuinfer.survey.FLAGS`), `k_hat`,
    `verification` (ok, warn, fail or skipped), `in_domain` (share of the draws), `edge_distance` (of the median labels from the
    domain's nearest bound, in half-widths of the labels; negative outside), `warnings`, `versions`, `timings`. `arviz.loo`,
    `arviz.compare` and `arviz.plot_ppc` take it.
    """
    run = get_sampler(sampler)
    import_arviz()  # what cannot be imported fails before the fit, not after
    use_compilation_cache()
    config = config.with_given(
        chains=chains, warmup=warmup, draws=draws, verify=verify, predictive=predictive, pointwise=pointwise
    )
    clock = time.perf_counter()
    fit = find_optimum(model, start=start, seed=seed, config=config, progress=progress)
    optimum_s = time.perf_counter() - clock
    for attempt in range(2):
        result = run(
            log_posterior,
            fit.z,
            (fit.density, fit.compressed),
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
    return posterior_of(fit, result, check, values, timings)
