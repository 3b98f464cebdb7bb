"""The highest point of a log density, from many starts at once, and the Gaussian approximation around it."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..errors import SamplingError
from ._compile import compile_once

DAMPINGS = (0.0, 0.1, 1.0, 10.0, 100.0)  # tried side by side, as multiples of the current damping


class OptimiseResult(NamedTuple):
    """The best end point of a multi-start optimisation.

    `position` (dim,) and `log_density` (float) of the best start; `all_positions` (n, dim) and `all_log_densities` (n,)
    of every start; `converged` (n,) bool, and `steps` (n,) until then; `compile_s`, `run_s` in seconds.
    """

    position: np.ndarray
    log_density: float
    all_positions: np.ndarray
    all_log_densities: np.ndarray
    converged: np.ndarray
    steps: np.ndarray
    compile_s: float
    run_s: float


def optimise(log_density, starts, data, *, max_steps=60, tolerance=1e-3, metric=None, max_move=3.0) -> OptimiseResult:
    """Maximise `log_density(z, data)` from `starts`, shape `(n, dim)`, by a damped Newton method in float32.

    Each step tries several dampings side by side and keeps the best (Levenberg 1944; Marquardt 1963), with the absolute
    eigenvalues of the Hessian (saddle-free Newton: Dauphin et al. 2014, arXiv:1406.2572). There is no line search,
    because the sum over some 10^4 pixels leaves noise of about 0.01 in a float32 log density, which defeats one; a step
    may lose as much as that noise. A start has converged when the gain that its gradient and curvature promise is below
    `tolerance` (in units of the log density), which does not suffer from the noise.

    **Arguments:**

    - `metric`: optional `metric(z, data)`, a symmetric matrix `(dim, dim)` to be used in place of the negative Hessian,
      such as the Fisher matrix of data and prior.
    - `max_move`: longest allowed step in any one coordinate.

    Raises `SamplingError` if the log density is finite at no start.
    """
    starts = np.atleast_2d(np.asarray(starts, np.float32))
    call, compile_s = compile_once(
        ascend,
        log_density,
        data,
        starts,
        data if metric else (),
        metric=metric,
        max_steps=int(max_steps),
        tolerance=float(tolerance),
        max_move=float(max_move),
    )
    begin = time.perf_counter()
    z, lp, converged, steps = (np.asarray(x) for x in jax.block_until_ready(call(data, starts, data if metric else ())))
    if not np.isfinite(lp).any():
        raise SamplingError(
            f"The log density is not finite at any of the {len(starts)} starts of the optimisation. Check that the "
            "data hold no NaN and no zero uncertainties in used pixels, and that the starts lie inside the priors."
        )
    best = int(np.nanargmax(np.where(np.isfinite(lp), lp, -np.inf)))
    return OptimiseResult(z[best], float(lp[best]), z, lp, converged, steps, compile_s, time.perf_counter() - begin)


class _State(NamedTuple):
    z: Float[Array, " dim"]
    lp: Float[Array, ""]
    damping: Float[Array, ""]
    gain: Float[Array, ""]  # what a Newton step promises
    steps: Int[Array, ""]
    stalled: Bool[Array, ""]


def ascend(
    density, starts: Float[Array, "n dim"], metric_data, *, metric, max_steps: int, tolerance: float, max_move: float
) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Bool[Array, " n"], Int[Array, " n"]]:
    """All starts at once; returns positions, log densities, whether converged, and the steps taken."""

    def curvature(z):
        matrix = metric(z, metric_data) if metric else -jax.hessian(density)(z)
        values, vectors = jnp.linalg.eigh(jnp.where(jnp.isfinite(matrix), matrix, 0.0))
        return jnp.maximum(jnp.abs(values), 1e-6 * jnp.max(jnp.abs(values)) + 1e-12), vectors

    def step(s):
        here, gradient = jax.value_and_grad(density)(s.z)
        here, gradient = jnp.where(jnp.isfinite(here), here, -jnp.inf), jnp.nan_to_num(gradient)
        values, vectors = curvature(s.z)
        along = vectors.T @ gradient
        damping = s.damping * jnp.mean(values)

        def candidate(factor):
            move = vectors @ (along / (values + factor * damping))
            z = s.z + move * jnp.minimum(1.0, max_move / jnp.maximum(jnp.max(jnp.abs(move)), 1e-30))
            lp = density(z)
            return z, jnp.where(jnp.isfinite(lp), lp, -jnp.inf)

        zs, lps = jax.vmap(candidate)(jnp.asarray(DAMPINGS))
        best = jnp.argmax(lps)
        noise = 8 * jnp.finfo(lps.dtype).eps * jnp.maximum(1.0, jnp.abs(here))
        better = (lps[best] >= here - noise) & jnp.isfinite(lps[best])
        factor = jnp.clip(jnp.asarray(DAMPINGS)[best], 0.1, 100.0)
        return _State(
            z=jnp.where(better, zs[best], s.z),
            lp=jnp.where(better, lps[best], here),
            damping=jnp.clip(s.damping * jnp.where(better, factor, 1000.0), 1e-8, 1e12),
            gain=0.5 * jnp.sum(along**2 / values),
            steps=s.steps + 1,
            stalled=~better & (s.damping > 1e8),
        )

    def unfinished(s):
        return (s.gain > tolerance) & (s.steps < max_steps) & ~s.stalled & jnp.isfinite(s.lp)

    def one(z):
        # The density at the start is that of the first step: to ask for it here too would compile it once more.
        first = _State(z, jnp.float32(0), jnp.float32(0.01), jnp.float32(jnp.inf), jnp.int32(0), jnp.bool_(False))
        last = jax.lax.while_loop(unfinished, step, first)
        return last.z, last.lp, last.gain <= tolerance, last.steps

    return jax.vmap(one)(starts)


def laplace_covariance(log_density, position, data, *, metric=None, floor=1e-4) -> tuple[np.ndarray, tuple]:
    """Inverse of the negative Hessian (or of `metric(z, data)`) at `position`, made positive definite.

    The matrix is first scaled to a unit diagonal; eigenvalues whose absolute value is below `floor`, which float32
    cannot tell from zero, are raised to it, and negative ones lose their sign.

    Returns `(covariance, notes)`: `(dim, dim)`, float64, and a tuple of sentences about repairs, empty if none.
    Raises `SamplingError` if the matrix is not finite.
    """
    z = np.asarray(position, np.float32)
    function = _metric if metric else _negative_hessian
    extra = (data,) if metric else ()
    static = {"metric": metric} if metric else {}
    call, _ = compile_once(function, log_density, data, z, *extra, **static)
    return covariance_and_notes(call(data, z, *extra), floor)


def covariance_and_notes(information, floor=1e-4) -> tuple[np.ndarray, tuple]:
    """`covariance_of` in float64 on the host, and sentences about repairs; as `laplace_covariance`, from the matrix itself."""
    matrix = np.asarray(information, float)
    if not np.isfinite(matrix).all():
        raise SamplingError(
            "The Hessian of the log density is not finite at the optimum. Start from another point, and check for "
            "square roots or logarithms of zero in the model."
        )
    covariance, values = _positive_inverse(matrix, floor, np)
    changed = int(np.sum(values < floor))
    if not changed:
        return covariance, ()
    return covariance, (
        f"The Hessian at the optimum has {changed} of {len(values)} directions without proper curvature (smallest "
        f"scaled eigenvalue {values.min():.2g}); the Laplace covariance was made positive definite there.",
    )


def covariance_of(information: Float[Array, "dim dim"], floor: float = 1e-4) -> Float[Array, "dim dim"]:
    """The inverse of an information matrix `(dim, dim)`, made positive definite as by `laplace_covariance`. Pure JAX."""
    return _positive_inverse(jnp.where(jnp.isfinite(information), information, 0.0), floor, jnp)[0]


def root_of(covariance: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """A lower triangular root; where rounding left the matrix indefinite, with the smallest addition that helps."""
    scale = jnp.sqrt(jnp.diagonal(covariance))
    unit = covariance / scale[:, None] / scale
    eye = jnp.eye(len(scale))
    roots = jnp.stack([jnp.linalg.cholesky(unit + eps * eye) for eps in (1e-6, 1e-3)])
    return scale[:, None] * jnp.where(jnp.isfinite(roots[0]).all(), roots[0], roots[1])


def _positive_inverse(matrix, floor, xp):
    """The inverse of a symmetric matrix with eigenvalues of its unit-diagonal form raised to `floor`; and these."""
    matrix = 0.5 * (matrix + matrix.T)
    diagonal = xp.abs(xp.diagonal(matrix))
    scale = 1 / xp.sqrt(xp.maximum(diagonal, 1e-8 * xp.max(diagonal) + 1e-20))
    values, vectors = xp.linalg.eigh(matrix * scale[:, None] * scale)
    inverse = (vectors / xp.maximum(xp.abs(values), floor)) @ vectors.T
    return inverse * scale[:, None] * scale, values


def _negative_hessian(density, z: Float[Array, " dim"]) -> Float[Array, "dim dim"]:
    return -jax.hessian(density)(z)


def _metric(density, z, data, *, metric):
    return metric(z, data)
