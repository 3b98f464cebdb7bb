"""Hamiltonian Monte Carlo with trajectories of one length (Duane et al. 1987; Neal 2011, arXiv:1206.1901), BlackJAX."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ..errors import SamplingError
from ._chains import FAST, SLOW, Adapted, Method, Run, run_chains
from ._result import SamplerResult
from ._setup import check_arguments, check_whole, known_covariance

JITTER = 0.3  # a step is up to 30 % shorter or longer, lest a trajectory close upon itself (Neal 2011, section 3.2)


def hmc(
    log_density,
    initial,
    data,
    *,
    seed,
    chains=4,
    warmup=200,
    draws=1000,
    target_acceptance=0.8,
    covariance=None,
    trajectory=1.6,
    max_steps=32,
    adapt_metric=True,
    progress=True,
    chunk=50,
    checkpoint=None,
) -> SamplerResult:
    """Sample `log_density(z, data)` with chains whose trajectories all have the same number of leapfrog steps.

    Use it where the posterior is near a Gaussian whose covariance is known well, as that of a star at good S/N: then it
    needs fewer gradients than `nuts`, a shorter warm-up, and no chain waits for another. Not where the posterior is
    strongly curved or heavy-tailed, because one length does not suit all of it: use `nuts`, and compare.

    **Arguments:** `initial`, `covariance`, `draws`, `chunk` and `checkpoint` as for `nuts`, but a start per chain needs
    a `covariance`, and

    - `warmup`: steps per chain in which dual averaging adapts the step size.
    - `adapt_metric`: estimate the mass matrix anew, half-way through the warm-up, from the draws of all chains.
    - `target_acceptance`: of the step size adaptation, at the jittered steps.
    - `trajectory`: length of a trajectory in posterior standard deviations, by default a quarter of a Gaussian's
      period. The number of leapfrog steps is this over the step size, rounded up, at most `max_steps`.

    Raises `SamplingError` on bad shapes, if the log density is finite at no start, or if the checkpoint is of another
    run.
    """
    initial = np.asarray(initial, np.float32)
    counts = check_arguments(initial, chains, warmup, draws, covariance, target_acceptance)
    check_whole("max_steps", max_steps)
    if not 0 < trajectory < np.inf:
        raise SamplingError(f"`trajectory` must be a positive number of standard deviations, as 1.6; got {trajectory}.")
    covariance, notes = known_covariance(log_density, initial, data, covariance, progress, "hmc")
    settings = float(trajectory), int(max_steps), bool(adapt_metric)
    method = Method("hmc", _transition, settings, _schedule(counts.warmup, adapt_metric))
    run = Run(counts, seed, target_acceptance, chunk, progress, checkpoint)
    return run_chains(method, run, log_density, initial, data, covariance, notes)


def _schedule(warmup, adapt_metric):
    """A fifth of the warm-up to settle, up to its half for the mass matrix, the rest for the step size."""
    schedule = np.zeros((warmup, 2), np.int32)
    schedule[:, 0] = FAST
    if adapt_metric and warmup >= 20:
        schedule[warmup // 5 : warmup // 2, 0] = SLOW
        schedule[warmup // 2 - 1, 1] = 1
    schedule[-1, 1] = 1
    return schedule


def _transition(
    keys: Key[Array, " chains"],
    states,
    density,
    adapted: Adapted,
    trajectory: float,
    max_steps: int,
    adapt_metric: bool,
):
    """One trajectory of all chains. `adapt_metric` acts in the schedule; it is here to be in checkpoints."""
    kernel = blackjax.hmc.build_kernel()
    steps = jnp.clip(jnp.ceil(trajectory / adapted.step_size), 1, max_steps).astype(jnp.int32)

    def one(key, state):
        jitter_key, key = jax.random.split(key)
        step_size = adapted.step_size * jax.random.uniform(jitter_key, minval=1 - JITTER, maxval=1 + JITTER)
        moved, info = kernel(key, state, density, step_size, adapted.metric, steps)
        # BlackJAX gives the energy of the proposal; that of the chain is the one it started with where it stayed.
        stayed = -state.logdensity + 0.5 * info.momentum @ (adapted.metric @ info.momentum)
        return moved, info, jnp.where(info.is_accepted, info.energy, stayed)

    states, info, energy = jax.vmap(one)(keys, states)
    return states, {
        "diverging": info.is_divergent,
        "energy": energy,
        "n_steps": jnp.broadcast_to(steps, energy.shape),
        "acceptance_rate": info.acceptance_rate,
    }
