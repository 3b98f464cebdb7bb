"""Adjusted microcanonical Langevin Monte Carlo (Robnik, Cohn-Gordon & Seljak 2025, arXiv:2503.01707) by BlackJAX."""

import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc.dynamic_hmc import DynamicHMCState
from jaxtyping import Array, Float, Int, Key

from ..errors import SamplingError
from ._chains import start_chains
from ._compile import compile_once
from ._progress import bar, clock
from ._result import SamplerResult
from ._setup import check_arguments, known_covariance, whitened, whitening

ROUNDS = 5  # parts of the warm-up: three to tune, and two between them to measure the covariance
GRADIENTS = 2  # per step of the integrator of McLachlan that BlackJAX uses


def mclmc(
    log_density,
    initial,
    data,
    *,
    seed,
    chains=4,
    warmup=500,
    draws=1000,
    target_acceptance=0.9,
    covariance=None,
    trajectory_steps=2.0,
    progress=True,
    chunk=50,
) -> SamplerResult:
    """Sample `log_density(z, data)` along paths of constant speed, with a Metropolis test, in the whitened space.

    Use it in some tens of dimensions or more, where its step size falls more slowly with the number of dimensions than
    that of `nuts` and `hmc`. Not in few dimensions, where `hmc` needs fewer gradients, nor where the covariance is
    unknown.

    Each chain tunes its step size with BlackJAX's own tuning; the chains then share the median. The space is whitened
    anew twice, with the covariance of all chains' draws, and the step size tuned again. The chains also share the
    random number of steps of each path, so that none waits for another.

    **Arguments:** `initial` and `draws` as for `nuts`, but a start per chain needs a `covariance`, and

    - `warmup`: steps per chain for the tuning, at least 50.
    - `target_acceptance`: of the Metropolis test.
    - `trajectory_steps`: mean number of integrator steps per path, of two gradients each; above 1.1.

    `stats` hold no energy, because energies of this method say nothing of the mixing (there is no E-BFMI).
    Raises `SamplingError` on bad shapes, in one dimension, or if the log density is finite at no start.
    """
    initial = np.asarray(initial, np.float32)
    counts = check_arguments(initial, chains, warmup, draws, covariance, target_acceptance)
    if initial.shape[-1] < 2:
        raise SamplingError("'mclmc' moves at constant speed and needs at least two dimensions; use 'nuts' or 'hmc'.")
    if not trajectory_steps > 1.1:
        raise SamplingError(f"`trajectory_steps` must be above 1.1, usually 2; got {trajectory_steps}.")
    if warmup < 50:
        raise SamplingError(f"'mclmc' needs a `warmup` of at least 50 steps for its tuning, better 300; got {warmup}.")
    covariance, notes = known_covariance(log_density, initial, data, covariance, progress, "mclmc")
    affine, key = whitening(initial, covariance), jax.random.key(seed)
    chunk, mean = int(min(max(chunk, 1), draws, -(-warmup // ROUNDS))), float(trajectory_steps)

    with clock("compiling", progress):
        (states, _), more, compile_s = start_chains(log_density, initial, data, affine, counts.chains, seed)
        notes, u = notes + more, states.position
        static = {"warmup": -(-counts.warmup // ROUNDS), "target": float(target_acceptance), "trajectory_steps": mean}
        tune, seconds = compile_once(_tune, log_density, data, affine, u, key, **static)
        # Of the right shapes for compiling; the tuning gives the values.
        states = DynamicHMCState(u, states.logdensity, states.logdensity_grad, jax.random.split(key, counts.chains))
        arguments = affine, states, key, np.int32(0), np.float32(1)
        run, more_s = compile_once(_advance, log_density, data, *arguments, chunk=chunk, trajectory_steps=mean)
    begin = time.perf_counter()
    with clock("tuning", progress):
        affine, states, step_size, tuned = _warm_up(tune, run, data, affine, u, key, warmup, chunk)
    warmup_s, begin = time.perf_counter() - begin, time.perf_counter()
    positions, stats = _sample(run, data, affine, states, key, step_size, counts.draws, chunk, progress)
    sampling_s = time.perf_counter() - begin
    accepted = float(stats["acceptance_rate"].mean())
    if accepted < 0.5:
        notes += (
            f"Only {accepted:.0%} of the paths were accepted: the tuning failed. Lengthen the warm-up, or use 'nuts'.",
        )
    return SamplerResult(
        positions=positions,
        stats=stats,
        inverse_mass_matrix=affine[1] @ affine[1].T,
        warmup={"steps": int(warmup), "step_size": float(step_size), "gradients": tuned},
        seed=seed,
        timings={"compile_s": compile_s + seconds + more_s, "warmup_s": warmup_s, "sampling_s": sampling_s},
        gradients=int(GRADIENTS * stats["n_steps"].sum()) + tuned,
        notes=notes,
    )


def _sample(run, data, affine, states, key, step_size, draws, chunk, progress):
    """Positions `(chains, draws, dim)` and statistics, on the host."""
    parts = []
    with bar(draws, "sampling", progress) as shown:
        for first in range(0, draws, chunk):
            states, part = run(data, affine, states, key, np.int32(first), step_size)
            parts.append(jax.tree.map(np.asarray, part))
            shown.update(min(chunk, draws - first))
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, :draws], *parts)


def _warm_up(tune, run, data, affine, u, key, warmup, chunk):
    """Whitening, states, step size and the gradients taken, after three tunings and two measured covariances."""
    tunings, gradients = ROUNDS // 2 + 1, 0
    for i in range(tunings):
        round_key = jax.random.fold_in(key, 1000 + i)
        states, step_size, taken = jax.block_until_ready(tune(data, affine, u, round_key))
        gradients += int(GRADIENTS * taken.sum())
        step_size = jnp.float32(jnp.nanmedian(step_size))
        if not np.isfinite(step_size):
            raise SamplingError("The tuning of 'mclmc' found no step size. Use 'nuts', or start at an optimum.")
        if i == tunings - 1:
            return affine, states, step_size, gradients
        parts = []
        for first in range(0, -(-warmup // ROUNDS), chunk):
            states, (z, stats) = run(data, affine, states, round_key, np.int32(first), step_size)
            parts.append(np.asarray(z, float))
            gradients += int(GRADIENTS * stats["n_steps"].sum())
        z = np.concatenate(parts, axis=1)
        affine = _whiten_again(affine, z.reshape(-1, z.shape[-1]))
        u = np.linalg.solve(affine[1].astype(float), (z[:, -1] - affine[0]).T).T.astype(np.float32)


def _whiten_again(affine, z):
    """Centre and root of draws `z` `(n, dim)`, their covariance drawn towards the earlier one as in Stan's warm-up."""
    root, n = affine[1].astype(float), len(z)
    covariance = (n * np.atleast_2d(np.cov(z.T)) + 5 * root @ root.T) / (n + 5)
    return z.mean(0).astype(np.float32), np.linalg.cholesky(covariance).astype(np.float32)


def _kernel():
    def steps(key, mean):
        return jnp.clip(jnp.ceil(jax.random.uniform(key) * (2 * mean - 1)), 1).astype(jnp.int32)

    return blackjax.adjusted_mclmc_dynamic.build_kernel(integration_steps_fn=steps)


def _tune(
    density,
    affine,
    positions: Float[Array, "chains dim"],
    key: Key[Array, ""],
    *,
    warmup: int,
    target: float,
    trajectory_steps: float,
) -> tuple[DynamicHMCState, Float[Array, " chains"], Int[Array, " chains"]]:
    """States after the tuning, step sizes, and integrator steps taken."""
    inner, kernel = whitened(density, affine), _kernel()
    start_key, *keys = jax.random.split(jax.random.fold_in(key, 1), len(positions) + 1)
    states = jax.vmap(lambda u: blackjax.adjusted_mclmc_dynamic.init(u, inner, start_key))(positions)

    def one(state, key):
        # Two passes of two fifths adapt the step size; a fifth between measures the scale to begin the second with.
        state, found, taken = blackjax.adjusted_mclmc_find_L_and_step_size(
            mclmc_kernel=kernel,
            logdensity_fn=inner,
            num_steps=warmup,
            state=state,
            rng_key=key,
            target=target,
            frac_tune1=0.4,
            frac_tune2=0.2,
            diagonal_preconditioning=False,
            target_num_integration_steps=trajectory_steps,
        )
        return state, found.step_size, taken

    return jax.vmap(one)(states, jnp.stack(keys))


def _advance(
    density,
    affine,
    states: DynamicHMCState,
    key: Key[Array, ""],
    first: Int[Array, ""],
    step_size: Float[Array, ""],
    *,
    chunk: int,
    trajectory_steps: float,
):
    """One chunk of steps of all chains; returns the states, and (positions, statistics)."""
    inner, kernel = whitened(density, affine), _kernel()
    chain_keys = jax.random.split(jax.random.fold_in(key, 2), states.position.shape[0])

    def step(states, index):
        keys = jax.vmap(lambda k: jax.random.fold_in(k, index))(chain_keys)
        states, info = jax.vmap(
            lambda k, s: kernel(k, s, inner, step_size, integration_steps_params=(trajectory_steps,))
        )(keys, states)
        stats = {
            "lp": states.logdensity,
            "diverging": info.is_divergent,
            "n_steps": info.num_integration_steps,
            "acceptance_rate": info.acceptance_rate,
            "step_size": jnp.broadcast_to(step_size, states.logdensity.shape),
        }
        return states, (affine[0] + states.position @ affine[1].T, stats)

    states, record = jax.lax.scan(step, states, first + jnp.arange(chunk))
    return states, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), record)
