"""Nested sampling (Skilling 2006, Bayesian Analysis 1, 833) with slice moves (Yallup et al. 2026, arXiv:2601.23252)."""

import time

import blackjax
import jax
import numpy as np
from blackjax.ns.utils import finalise, log_weights
from jaxtyping import Array, Float, Key

from ..errors import SamplingError
from ._compile import compile_once
from ._importance import systematic
from ._progress import clock
from ._result import Evidence, SamplerResult
from ._setup import check_arguments, check_whole
from ._split import Target

MOST = 5000  # replacements of a tenth of the live points: a compression by exp(-500)


def nested(
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
    split=None,
    live=500,
    inner_steps=None,
    precision=0.02,
    progress=True,
) -> SamplerResult:
    """Live points that climb the likelihood from the prior, by BlackJAX's nested slice sampling.

    Use it for evidences, with an error, and for a few separate modes, where no gradients exist or `smc` is to be
    checked. Not in more than some 20 dimensions, nor where only draws of one mode are wanted: it takes 10 to 100 times
    the evaluations of `nuts`.

    **Arguments:**

    - `split`: `(log_prior, log_likelihood, draw_prior)` as for `smc`, with the same meaning where it is not given.
    - `live`: live points; the error of log Z falls as the inverse root of them.
    - `inner_steps`: slice moves per replaced point, by default `max(5, 2 dim)`.
    - `precision`: it ends when the live points hold less than this fraction of the evidence.
    - `chains`, `draws`: shape of the result. The draws are resampled from all points with their weights, so that the
      chains do not measure convergence. `warmup["ess"]`, from the weights, is the most that all of them together are
      worth; points share ancestors, and means were found to scatter twice as widely as it says (300 live points).
    - `warmup`, `target_acceptance`: not used; there, as all samplers are called alike.

    `gradients` is 0; `warmup["evaluations"]` counts log likelihoods. The result's `evidence` has log Z and its error,
    from simulated prior volumes. Raises `SamplingError` as `smc` does.
    """
    initial = np.asarray(initial, np.float32)
    check_arguments(initial, chains, 1, draws, covariance)
    inner_steps = max(5, 2 * initial.shape[-1]) if inner_steps is None else inner_steps
    check_whole("live", live, 20)
    check_whole("inner_steps", inner_steps)
    if not 0 < precision < 1:
        raise SamplingError(f"`precision` must lie between 0 and 1, usually 0.02; got {precision}.")
    target = Target(log_density, initial, data, split, covariance, progress, "nested")
    settings = dict(delete=max(int(live) // 10, 1), inner=int(inner_steps))
    u, key = target.draw(int(live), [seed, 0]), jax.random.key(seed)
    with clock("compiling", progress):
        start, compile_s = compile_once(_start, target.pair, target.all_data, u, **settings)
        state = start(target.all_data, u)
        if not np.isfinite(state.particles.loglikelihood).any():
            raise SamplingError(
                f"The log likelihood is finite at none of {live} draws of the prior. Check the split, and that the "
                "data hold no NaN and no zero uncertainties."
            )
        step, seconds = compile_once(_step, target.pair, target.all_data, state, key, **settings)
    begin = time.perf_counter()
    state, dead, evaluations = _climb(step, target.all_data, state, key, precision, progress)
    whole = finalise(state, dead, update_info=False)
    weights, evidence = _weigh(whole, key)
    rows = systematic(np.random.default_rng([seed, 1]), weights, int(chains) * int(draws))
    u, lp = np.asarray(whole.particles.position), np.asarray(whole.particles.loglikelihood + whole.particles.logdensity)
    ess, notes = float(1 / np.sum(weights**2)), target.notes
    if ess < chains * draws:
        notes += (f"The {chains * draws} draws are resampled from {ess:.0f} effective ones at most. Raise `live`.",)
    z = target.to_z(u)
    return SamplerResult(
        positions=z[rows].reshape(chains, draws, -1),
        stats={"lp": lp[rows].reshape(chains, draws)},
        inverse_mass_matrix=np.atleast_2d(np.cov(z.T.astype(float), aweights=weights)),
        warmup={"steps": len(dead), "gradients": 0, "evaluations": evaluations, "ess": ess},
        seed=seed,
        timings={"compile_s": compile_s + seconds, "warmup_s": 0.0, "sampling_s": time.perf_counter() - begin},
        gradients=0,
        notes=notes,
        evidence=evidence,
    )


def _climb(step, all_data, state, key, precision, progress):
    """The last live points, a list of dead ones, and the number of likelihoods evaluated."""
    dead: list = []
    evaluations = len(state.particles.loglikelihood)
    with clock("climbing", progress):
        while _left(state.integrator) > precision:
            if len(dead) >= MOST:
                raise SamplingError(
                    f"The live points still hold more than {precision:.1%} of the evidence after {MOST} replacements. "
                    "Check that the likelihood is bounded, or give a narrower prior."
                )
            state, info = step(all_data, state, jax.random.fold_in(key, len(dead)))
            dead.append(info)
            slices = info.update_info
            evaluations += int(np.sum(slices.num_expansions) + np.sum(slices.num_shrink))
    return state, dead, evaluations


def _weigh(whole, key):
    """Weights of all points, which add up to 1, and the evidence, over 200 simulations of the prior volumes."""
    log_w = np.asarray(log_weights(jax.random.fold_in(key, 2**30), whole, shape=200), float)
    log_w = np.where(np.isnan(log_w), -np.inf, log_w)
    log_z = np.logaddexp.reduce(log_w, axis=0)
    weights = np.mean(np.exp(log_w - log_z), axis=1)
    return weights / weights.sum(), Evidence(float(log_z.mean()), float(log_z.std()))


def _left(integrator):
    """Fraction of the evidence that the live points hold."""
    dead, live = float(integrator.logZ), float(integrator.logZ_live)
    return np.exp(live - np.logaddexp(dead, live))


def _algorithm(pair, delete, inner):
    return blackjax.nss(lambda u: pair(u)[0], lambda u: pair(u)[1], num_inner_steps=inner, num_delete=delete)


def _start(pair, u: Float[Array, "live dim"], *, delete: int, inner: int):
    return _algorithm(pair, delete, inner).init(u)


def _step(pair, state, key: Key[Array, ""], *, delete: int, inner: int):
    return _algorithm(pair, delete, inner).step(key, state)
