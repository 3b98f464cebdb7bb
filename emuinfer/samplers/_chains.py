"""Chains of a Hamiltonian method that advance together and share their adaptation; the loop behind `nuts` and `hmc`."""

import time
from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import welford_algorithm
from blackjax.adaptation.step_size import dual_averaging_adaptation
from jaxtyping import Array, Float, Int, Key

from ._checkpoint import Checkpoint
from ._compile import compile_once
from ._progress import bar, clock
from ._result import SamplerResult
from ._setup import Counts, check_starts, start_candidates, whitened, whitening

SAMPLING, FAST, SLOW = -1, 0, 1  # stages; the last two as in Stan's schedule


class Method(NamedTuple):
    """What a Hamiltonian method is to `run_chains`.

    - `transition`: `transition(keys, states, density, adapted, *settings) -> (states, stats)`, one step of all chains.
    - `schedule`: stage, and whether a window ends, of each warm-up step, int32 `(warmup, 2)`.
    - `prior_scale`: the variance in the whitened space towards which the estimated inverse mass matrix is drawn.
    """

    name: str
    transition: Callable
    settings: tuple
    schedule: np.ndarray
    prior_scale: float = 1.0


class Run(NamedTuple):
    """How a method is run: arguments of the samplers, checked."""

    counts: Counts
    seed: int
    target: float
    chunk: int
    progress: bool
    checkpoint: object


def run_chains(method: Method, run: Run, log_density, initial, data, covariance, notes) -> SamplerResult:
    """Warm up and sample; arguments as of the samplers. `notes` are those that were made on the way here."""
    (chains, warmup, draws), affine = run.counts, whitening(initial, covariance)
    key, total = jax.random.key(run.seed), warmup + draws
    facts = {
        "method": method.name,
        "seed": int(run.seed),
        **run.counts._asdict(),
        "target_acceptance": float(run.target),
        "settings": list(method.settings),
    }
    stored = Checkpoint.open(run.checkpoint, facts, log_density, data, (initial, *affine))
    with clock("compiling", run.progress):
        carry, said, compile_s = start_chains(log_density, initial, data, affine, chains, run.seed)
        notes += said
        first, carry, parts, clocks = stored.load(carry)
        chunk, prior_scale = int(min(max(run.chunk, 1), total)), np.float32(method.prior_scale)
        steps = _padded(method.schedule, first, total, chunk)
        arguments = (affine, prior_scale, carry, key, np.int32(0), steps[:chunk])
        if first < total:
            static = {"target": float(run.target), "transition": method.transition, "settings": method.settings}
            advance, seconds = compile_once(_advance, log_density, data, *arguments, **static)
            compile_s += seconds

    begin = time.perf_counter() - clocks[-1][1]
    with bar(total, "warm-up", run.progress) as shown:
        shown.update(first)
        while first < total:
            now = steps[first : first + chunk]
            carry, part = advance(data, affine, prior_scale, carry, key, np.int32(first), now)
            parts.append(jax.tree.map(np.asarray, part))
            if now[-1, 0] == SAMPLING:
                shown.set_description("sampling")
            shown.update(min(chunk, total - first))
            first += chunk
            clocks.append((first, time.perf_counter() - begin))
            parts = stored.save(first, carry, parts, clocks)
    record = jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, :total], *parts)
    timings = {"compile_s": compile_s, **split_time(clocks, warmup)}
    return _result(record, carry[1], affine, warmup, run.seed, timings, notes)


def _result(record, adapted, affine, warmup, seed, timings, notes):
    positions, stats = record
    warm = {name: x[:, :warmup] for name, x in stats.items()}
    return SamplerResult(
        positions=positions[:, warmup:],
        stats={name: x[:, warmup:] for name, x in stats.items()},
        inverse_mass_matrix=affine[1] @ np.asarray(adapted.metric) @ affine[1].T,
        warmup={
            "steps": int(warmup),
            "step_size": float(adapted.step_size),
            "gradients": int(warm["n_steps"].sum()),
            "divergences": int(warm["diverging"].sum()),
        },
        seed=seed,
        timings=timings,
        gradients=int(stats["n_steps"].sum()),
        notes=notes,
    )


def split_time(clocks, warmup):
    """Seconds of warm-up and sampling; the chunk in which one turns into the other is shared by steps."""
    done, seconds = np.transpose(clocks)
    times = np.interp([0, warmup, done[-1]], done, seconds)
    return {"warmup_s": float(times[1] - times[0]), "sampling_s": float(times[2] - times[1])}


def _padded(schedule, first, total, chunk):
    """The schedule with sampling added, in whole chunks from step `first` on, so that one program serves all."""
    length = first + -(-max(total - first, 0) // chunk) * chunk
    whole = np.tile(np.array([[SAMPLING, 0]], np.int32), (max(length, total), 1))
    whole[: len(schedule)] = schedule
    return whole


def start_chains(log_density, initial, data, affine, chains, seed):
    """The chains' states and their adaptation at starts with a finite density, notes, and the seconds of compiling."""
    candidates = start_candidates(initial, affine, chains, seed)
    prepare, seconds = compile_once(prepare_chains, log_density, data, affine, candidates)
    carry, finite = prepare(data, affine, candidates)
    return carry, check_starts(np.asarray(finite)), seconds


class Adapted(NamedTuple):
    averaging: tuple  # dual averaging of the step size
    moments: tuple  # running mean and covariance of this window
    step_size: Float[Array, ""]
    metric: Float[Array, "dim dim"]  # inverse mass matrix in the whitened space


def prepare_chains(density, affine, candidates: Float[Array, "chains tries dim"]):
    """Initial states of all chains and of the adaptation; and which chains found a usable start, `(chains,)`."""
    inner = whitened(density, affine)
    chains, _, dim = candidates.shape
    tried = jax.vmap(jax.vmap(lambda u: blackjax.nuts.init(u, inner)))(candidates)
    usable = jnp.isfinite(tried.logdensity) & jnp.isfinite(tried.logdensity_grad).all(-1)
    finite, choice = usable.any(1), jnp.argmax(usable, axis=1)
    # A chain without a usable start takes that of another.
    donors = jnp.nonzero(finite, size=chains, fill_value=0)[0]
    chain = jnp.where(finite, jnp.arange(chains), donors[jnp.arange(chains) % jnp.maximum(finite.sum(), 1)])
    states = jax.tree.map(lambda x: x[chain, choice[chain]], tried)
    step_size = jnp.float32(0.5)
    averaging = dual_averaging_adaptation(0.8)[0](step_size)  # the target plays no part in its initial state
    adapted = Adapted(averaging, welford_algorithm(False)[0](dim), step_size, jnp.eye(dim))
    return (states, jax.tree.map(jnp.asarray, adapted)), finite


def _advance(
    density,
    affine,
    prior_scale: Float[Array, ""],
    carry,
    key: Key[Array, ""],
    first: Int[Array, ""],
    schedule: Int[Array, "chunk 2"],
    *,
    target: float,
    transition,
    settings: tuple,
):
    """One chunk of steps of all chains, warm-up or not; returns the carry, and (positions, statistics)."""
    inner = whitened(density, affine)
    chain_keys = jax.random.split(jax.random.fold_in(key, 1), carry[0].position.shape[0])

    def step(carry, x):
        index, (stage, window_ends) = x
        states, adapted = carry
        # The key depends on the absolute step only, so that the size of the chunks does not change the draws.
        keys = jax.vmap(lambda k: jax.random.fold_in(k, index))(chain_keys)
        states, stats = transition(keys, states, inner, adapted, *settings)
        stats["lp"] = states.logdensity
        stats["step_size"] = jnp.broadcast_to(adapted.step_size, states.logdensity.shape)
        adapted = _adapt(adapted, stage, window_ends, states.position, stats["acceptance_rate"], target, prior_scale)
        return (states, adapted), (affine[0] + states.position @ affine[1].T, stats)

    carry, record = jax.lax.scan(step, carry, (first + jnp.arange(schedule.shape[0]), (schedule[:, 0], schedule[:, 1])))
    return carry, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), record)


def _adapt(
    adapted: Adapted,
    stage: Int[Array, ""],
    window_ends: Int[Array, ""],
    positions: Float[Array, "chains dim"],
    acceptance: Float[Array, " chains"],
    target: float,
    prior_scale: Float[Array, ""],
) -> Adapted:
    """Stan's adaptation (Stan reference manual, HMC algorithm parameters) after one step of all chains."""
    start, update, final = dual_averaging_adaptation(target)
    no_moments, add, covariance = welford_algorithm(False)

    def fast(a):
        averaging = update(a.averaging, jnp.mean(acceptance))
        return a._replace(averaging=averaging, step_size=jnp.exp(averaging.log_step_size))

    def slow(a):
        moments = a.moments
        for position in positions:
            moments = add(moments, position)
        return fast(a)._replace(moments=moments)

    def end_slow(a):
        matrix, count, _ = covariance(a.moments)
        count = jnp.asarray(count, matrix.dtype)
        metric = (count * matrix + 5 * prior_scale * jnp.eye(len(matrix))) / (count + 5)
        averaging = start(final(a.averaging))
        moments = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), no_moments(len(matrix)), a.moments)
        return Adapted(averaging, moments, jnp.exp(averaging.log_step_size), metric)

    def end_fast(a):
        return a._replace(step_size=final(a.averaging))

    adapted = jax.lax.switch(stage + 1, (lambda a: a, fast, slow), adapted)
    return jax.lax.switch(window_ends * (stage + 1), (lambda a: a, end_fast, end_slow), adapted)
