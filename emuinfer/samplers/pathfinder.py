"""Multi-path Pathfinder (Zhang et al. 2022, JMLR 23, 306) by BlackJAX, for a quick look and for starts."""

import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ._chains import start_chains
from ._compile import compile_once
from ._importance import in_batches, resample
from ._progress import clock
from ._result import SamplerResult
from ._setup import check_arguments, check_whole, known_covariance, whitened, whitening


def pathfinder(
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
    paths=8,
    elbo_draws=50,
    max_iterations=30,
    progress=True,
) -> SamplerResult:
    """Gaussians along paths of an optimiser (L-BFGS) from several starts, resampled with Pareto-smoothed weights.

    Use it for a first look where the optimum is not known well, and for starts of other samplers. Not for results where
    `warmup["k_hat"]`, also in the notes, is above 0.7, which is common: then run `nuts`.

    **Arguments:**

    - `initial`: one position, around which the paths start twice as widely as `covariance` says; or one start per path,
      `(paths, dim)`, with a `covariance`.
    - `covariance`: `(dim, dim)`, which whitens the space; by default `laplace_covariance` at `initial`.
    - `chains`, `draws`: shape of the result. The draws are independent but for repetitions; `warmup["ess"]` is the
      effective number of all of them together.
    - `paths`: each gives an equal part of the draws that are weighted.
    - `elbo_draws`: per iterate, to choose the best Gaussian on each path. `max_iterations` of L-BFGS.
    - `warmup`, `target_acceptance`: not used; there, as all samplers are called alike.

    Raises `SamplingError` on bad shapes, or if the log density is finite at no start.
    """
    initial = np.asarray(initial, np.float32)
    check_arguments(initial, chains, 1, draws, covariance)
    for name, value in {"paths": paths, "elbo_draws": elbo_draws, "max_iterations": max_iterations}.items():
        check_whole(name, value)
    paths = len(initial) if initial.ndim == 2 else int(paths)
    covariance, notes = known_covariance(log_density, initial, data, covariance, progress, "pathfinder")
    affine = whitening(initial, covariance)
    each = -(-chains * draws // paths)
    key = jax.random.key(seed)
    with clock("compiling", progress):
        (states, _), more, compile_s = start_chains(log_density, initial, data, affine, paths, seed)
        notes += more
        static = {"each": each, "elbo_draws": int(elbo_draws), "max_iterations": int(max_iterations)}
        run, seconds = compile_once(_paths, log_density, data, affine, states.position, key, **static)
    begin = time.perf_counter()
    with clock("following paths", progress):
        z, lp, log_q = (np.asarray(x) for x in run(data, affine, states.position, key))
    rng, flat = np.random.default_rng([seed, 1]), z.reshape(-1, z.shape[-1])
    positions, stats, facts, said = resample(
        rng, flat, lp.ravel(), log_q.ravel(), int(chains), int(draws), "Pathfinder"
    )
    found = np.cov(positions.reshape(-1, positions.shape[-1]).T.astype(float))
    return SamplerResult(
        positions=positions,
        stats=stats,
        inverse_mass_matrix=np.atleast_2d(found),
        warmup={"steps": 0, "paths": paths, **facts},
        seed=seed,
        timings={"compile_s": compile_s + seconds, "warmup_s": 0.0, "sampling_s": time.perf_counter() - begin},
        # L-BFGS stops early where it has converged, which BlackJAX does not report.
        gradients=paths * int(max_iterations),
        notes=notes + said,
    )


def _paths(
    density,
    affine,
    starts: Float[Array, "paths dim"],
    key: Key[Array, ""],
    *,
    each: int,
    elbo_draws: int,
    max_iterations: int,
) -> tuple[Float[Array, "paths each dim"], Float[Array, "paths each"], Float[Array, "paths each"]]:
    """Draws, their log densities and those under the path of each."""
    inner = whitened(density, affine)
    at_start = jax.lax.stop_gradient(inner(starts[0]))

    def safe(u):  # relative to a start, so that float32 resolves it; L-BFGS fails on infinities
        value = inner(u)
        return jnp.where(jnp.isfinite(value), value - at_start, -1e10)

    def one(x):
        start, key = x
        path_key, draw_key = jax.random.split(key)
        state, _ = blackjax.pathfinder.approximate(path_key, safe, start, elbo_draws, maxiter=max_iterations, maxls=30)
        u, log_q = blackjax.pathfinder.sample(draw_key, state, each)
        return affine[0] + u @ affine[1].T, in_batches(inner, u, 64), log_q

    return jax.lax.map(one, (starts, jax.random.split(key, len(starts))))
