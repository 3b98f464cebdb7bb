"""The Laplace approximation, importance-resampled, for a quick look."""

import time

import jax
import numpy as np

from ._compile import compile_once
from ._importance import densities, resample
from ._progress import clock
from ._result import SamplerResult
from ._setup import check_arguments, check_starts, known_covariance, whitening


def laplace(
    log_density,
    initial,
    data,
    *,
    seed,
    chains=4,
    warmup=1,
    draws=1000,
    target_acceptance=None,
    covariance=None,
    batch=64,
    progress=True,
) -> SamplerResult:
    """Draws of the Gaussian around an optimum, resampled with Pareto-smoothed importance weights.

    Use it for a first look: it takes no gradients, and `warmup["k_hat"]`, also in the notes, tells whether it holds.
    Not for results where k-hat is above 0.7, nor with several modes, of which it sees one and does not notice.

    **Arguments:**

    - `initial`: the optimum, `(dim,)`; of several rows, the one with the highest density is taken.
    - `covariance`: `(dim, dim)`; by default `laplace_covariance`.
    - `chains`, `draws`: shape of the result. The draws are independent but for repetitions, so that the chains do not
      measure convergence; `warmup["ess"]` is the effective number of all of them together.
    - `batch`: log densities evaluated at once.
    - `warmup`, `target_acceptance`: not used; there, as all samplers are called alike.

    Raises `SamplingError` on bad shapes, or if the log density is not finite.
    """
    rows = np.asarray(initial, np.float32)
    check_arguments(rows, chains, 1, draws, covariance)
    flat = np.atleast_2d(rows)
    call, compile_s = compile_once(densities, log_density, data, flat, batch=len(flat))
    lp = np.asarray(call(data, flat))
    notes = check_starts(np.isfinite(lp))
    best = flat[int(np.argmax(np.where(np.isfinite(lp), lp, -np.inf)))]
    covariance, more = known_covariance(log_density, best, data, covariance, progress, "laplace")
    centre, root = whitening(best, covariance)
    rng = np.random.default_rng([seed, 1])
    u = rng.standard_normal((chains * draws, len(best))).astype(np.float32)
    z = (centre + u.astype(float) @ root.astype(float).T).astype(np.float32)
    with clock("compiling", progress):
        call, seconds = compile_once(densities, log_density, data, z, batch=int(batch))
    begin = time.perf_counter()
    lp = np.asarray(jax.block_until_ready(call(data, z)))
    positions, stats, facts, said = resample(
        rng, z, lp, -0.5 * np.sum(u.astype(float) ** 2, axis=1), chains, draws, "the Laplace approximation"
    )
    return SamplerResult(
        positions=positions,
        stats=stats,
        inverse_mass_matrix=np.asarray(covariance),
        warmup={"steps": 0, "gradients": 0, "evaluations": len(z), **facts},
        seed=seed,
        timings={"compile_s": compile_s + seconds, "warmup_s": 0.0, "sampling_s": time.perf_counter() - begin},
        gradients=0,
        notes=notes + more + said,
    )
