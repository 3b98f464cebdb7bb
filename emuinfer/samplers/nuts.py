"""The No-U-Turn sampler (Hoffman & Gelman 2014, JMLR 15, 1593) by BlackJAX, with Stan's warm-up for all chains."""

import time
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import welford_algorithm
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule

from ..errors import SamplingError
from ._compile import compile_once
from ._progress import bar, clock
from ._result import SamplerResult
from .optimise import laplace_covariance

SPREAD = (2.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.1, 0.0)   # tried in turn until a start has a finite density
SAMPLING, FAST, SLOW = -1, 0, 1   # stages; the last two as in Stan's schedule


def nuts(
    log_density, initial, data, *, seed, chains=4, warmup=500, draws=1000, target_acceptance=0.8, covariance=None,
    max_tree_depth=8, progress=True, chunk=50,
) -> SamplerResult:
    """Sample `log_density(z, data)` with several chains in one compiled program.

    Warm-up follows Stan's schedule (a fast window, slow windows of growing length, a fast window), but the chains
    advance together and share one step size and one dense mass matrix, estimated from all of them.

    **Arguments:**

    - `initial`: one position `(dim,)`, best an optimum, around which the chains start twice as widely as `covariance`
      says; or one start per chain, `(chains, dim)`.
    - `covariance`: `(dim, dim)`, a guess of the posterior's covariance, such as `laplace_covariance` gives (the default
      where `initial` is one position). The space is whitened with it, which makes warm-up short and trees shallow.
    - `warmup`, `draws`: steps per chain; warm-up adapts step size and dense mass matrix and is thrown away.
    - `target_acceptance`: of the step size adaptation; raise it towards 0.99 where there are divergences.
    - `max_tree_depth`: no trajectory is longer than `2**max_tree_depth - 1` steps. All chains advance together, so the
      longest trajectory sets the pace.
    - `chunk`: steps between two updates of the progress bar; it does not change the result.

    Raises `SamplingError` on bad shapes or if the log density is finite at no start.
    """
    initial = np.asarray(initial, np.float32)
    chains = _check(initial, chains, warmup, draws, target_acceptance, covariance)
    notes = ()
    if initial.ndim == 1 and covariance is None:
        with clock("Laplace approximation", progress):
            covariance, notes = laplace_covariance(log_density, initial, data)
    affine, key = _whitening(initial, covariance), jax.random.key(seed)
    # Where nothing is known of the scales, the mass matrix is drawn towards a small one, as in Stan.
    prior_scale = np.float32(1e-3 if covariance is None else 1.0)

    with clock("compiling", progress):
        candidates = _candidates(initial, affine, chains, seed)
        prepare, compile_s = compile_once(_prepare, log_density, data, affine, candidates)
        carry, finite = prepare(data, affine, candidates)
        notes += _check_starts(np.asarray(finite))
        chunk = int(min(max(chunk, 1), warmup + draws))
        schedule = _schedule(warmup, draws, chunk, settle=75 if covariance is None else 25)
        arguments = (affine, prior_scale, carry, key, np.int32(0), schedule[:chunk])
        run, seconds = compile_once(
            _advance, log_density, data, *arguments, target=float(target_acceptance), max_tree_depth=int(max_tree_depth)
        )

    parts, clocks = [], [time.perf_counter()]
    with bar(warmup + draws, "warm-up", progress) as shown:
        for first in range(0, len(schedule), chunk):
            steps = schedule[first : first + chunk]
            carry, part = run(data, affine, prior_scale, carry, key, np.int32(first), steps)
            parts.append(jax.tree.map(np.asarray, part))
            clocks.append(time.perf_counter())
            if steps[-1, 0] == SAMPLING:
                shown.set_description("sampling")
            shown.update(min(chunk, warmup + draws - first))
    timings = {"compile_s": compile_s + seconds, **_split_time(clocks, chunk, warmup)}
    record = jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, : warmup + draws], *parts)
    return _result(record, carry[1], affine, warmup, seed, timings, notes)


def _result(record, adapted, affine, warmup, seed, timings, notes):
    positions, stats = record
    warm = {name: x[:, :warmup] for name, x in stats.items()}
    return SamplerResult(
        positions=positions[:, warmup:],
        stats={name: x[:, warmup:] for name, x in stats.items()},
        inverse_mass_matrix=affine[1] @ np.asarray(adapted.metric) @ affine[1].T,
        warmup={
            "steps": int(warmup), "step_size": float(adapted.step_size), "gradients": int(warm["n_steps"].sum()),
            "divergences": int(warm["diverging"].sum()),
        },
        seed=seed,
        timings=timings,
        gradients=int(stats["n_steps"].sum()),
        notes=notes,
    )


def _split_time(clocks, chunk, warmup):
    """Seconds of warm-up and sampling; the chunk in which one turns into the other is shared by steps."""
    times = np.interp([0, warmup / chunk, len(clocks) - 1], np.arange(len(clocks)), clocks)
    return {"warmup_s": float(times[1] - times[0]), "sampling_s": float(times[2] - times[1])}


def _check(initial, chains, warmup, draws, target, covariance):
    if initial.ndim not in (1, 2) or 0 in initial.shape:
        raise SamplingError(f"`initial` must have shape (dim,) or (chains, dim); got {initial.shape}.")
    for name, value in {"chains": chains, "warmup": warmup, "draws": draws}.items():
        if int(value) != value or value < 1:
            raise SamplingError(f"`{name}` must be a whole number of at least 1; got {value}.")
    if not 0 < target < 1:
        raise SamplingError(f"`target_acceptance` must lie between 0 and 1, usually 0.8 to 0.99; got {target}.")
    dim = initial.shape[-1]
    if covariance is not None and (np.shape(covariance) != (dim, dim) or not np.isfinite(covariance).all()):
        shape = np.shape(covariance)
        raise SamplingError(f"`covariance` must be finite and of shape ({dim}, {dim}); got shape {shape}.")
    return int(chains) if initial.ndim == 1 else initial.shape[0]


def _check_starts(finite):
    if not finite.any():
        raise SamplingError(
            f"The log density or its gradient is not finite at any of the {len(finite)} starts. Give starts inside "
            "the priors, such as the end of `optimise`, and check that no used pixel has a NaN or zero uncertainty."
        )
    bad = int((~finite).sum())
    if not bad:
        return ()
    return (f"{bad} of {len(finite)} starts had no finite log density; these chains start where others do.",)


def _whitening(initial, covariance):
    """`(centre, root)` such that `z = centre + root @ u` makes the posterior about standard normal in `u`."""
    rows = initial.reshape(-1, initial.shape[-1]).astype(float)
    rows = rows[np.isfinite(rows).all(1)]
    if not len(rows):
        raise SamplingError("None of the starts in `initial` is finite. Give numbers, such as the end of `optimise`.")
    centre = rows.mean(0).astype(np.float32)
    if covariance is None:
        return centre, np.eye(initial.shape[-1], dtype=np.float32)
    try:
        return centre, np.linalg.cholesky(np.asarray(covariance, float)).astype(np.float32)
    except np.linalg.LinAlgError as error:
        raise SamplingError(
            "`covariance` is not positive definite. Use `laplace_covariance`, which repairs that, or leave it out."
        ) from error


def _schedule(warmup, draws, chunk, settle):
    """Stage and whether a window ends, of every step, shape `(steps, 2)`; whole chunks, so that one program serves all.

    `settle` steps without adaptation of the mass matrix come first: Stan's 75, fewer where the space is whitened.
    """
    total = -(-(warmup + draws) // chunk) * chunk
    schedule = np.tile(np.array([[SAMPLING, 0]], np.int32), (total, 1))
    schedule[:warmup] = np.asarray(build_schedule(int(warmup), initial_buffer_size=settle), np.int32)
    schedule[warmup - 1, 1] = 1   # the last window ends with the averaged step size
    return schedule


class _Adapted(NamedTuple):
    averaging: tuple       # dual averaging of the step size
    moments: tuple         # running mean and covariance of this window
    step_size: jax.Array
    metric: jax.Array      # inverse mass matrix in the whitened space


def _whitened(density, affine):
    centre, root = affine
    return lambda u: density(centre + root @ u)


def _candidates(initial, affine, chains, seed):
    """Starts in the whitened space to be tried in turn by each chain, shape `(chains, tries, dim)`."""
    if initial.ndim == 2:
        u = np.linalg.solve(affine[1].astype(float), (initial - affine[0]).T.astype(float)).T
        return u[:, None].astype(np.float32)
    normal = np.random.default_rng(seed).normal(size=(chains, len(SPREAD), initial.shape[0]))
    return (np.asarray(SPREAD)[:, None] * normal).astype(np.float32)


def _prepare(density, affine, candidates):
    """Initial states of all chains and of the adaptation; and which chains found a usable start, `(chains,)`."""
    inner = _whitened(density, affine)
    chains, _, dim = candidates.shape
    tried = jax.vmap(jax.vmap(lambda u: blackjax.nuts.init(u, inner)))(candidates)
    usable = jnp.isfinite(tried.logdensity) & jnp.isfinite(tried.logdensity_grad).all(-1)
    finite, choice = usable.any(1), jnp.argmax(usable, axis=1)
    # A chain without a usable start takes that of another.
    donors = jnp.nonzero(finite, size=chains, fill_value=0)[0]
    chain = jnp.where(finite, jnp.arange(chains), donors[jnp.arange(chains) % jnp.maximum(finite.sum(), 1)])
    states = jax.tree.map(lambda x: x[chain, choice[chain]], tried)
    step_size = jnp.float32(0.5)
    averaging = dual_averaging_adaptation(0.8)[0](step_size)   # the target plays no part in its initial state
    adapted = _Adapted(averaging, welford_algorithm(False)[0](dim), step_size, jnp.eye(dim))
    return (states, jax.tree.map(jnp.asarray, adapted)), finite


def _advance(density, affine, prior_scale, carry, key, first, schedule, *, target, max_tree_depth):
    """One chunk of steps of all chains, warm-up or not; returns the carry, and (positions, statistics)."""
    inner = _whitened(density, affine)
    kernel = blackjax.nuts.build_kernel()
    chain_keys = jax.random.split(jax.random.fold_in(key, 1), carry[0].position.shape[0])

    def step(carry, x):
        index, (stage, window_ends) = x
        states, adapted = carry
        # The key depends on the absolute step only, so that the size of the chunks does not change the draws.
        keys = jax.vmap(lambda k: jax.random.fold_in(k, index))(chain_keys)
        states, info = jax.vmap(
            lambda k, s: kernel(k, s, inner, adapted.step_size, adapted.metric, max_tree_depth)
        )(keys, states)
        stats = {
            "lp": states.logdensity, "diverging": info.is_divergent, "energy": info.energy,
            "n_steps": info.num_integration_steps, "tree_depth": info.num_trajectory_expansions,
            "acceptance_rate": info.acceptance_rate,
            "step_size": jnp.broadcast_to(adapted.step_size, states.logdensity.shape),
        }
        adapted = _adapt(adapted, stage, window_ends, states.position, info.acceptance_rate, target, prior_scale)
        return (states, adapted), (affine[0] + states.position @ affine[1].T, stats)

    carry, record = jax.lax.scan(step, carry, (first + jnp.arange(schedule.shape[0]), (schedule[:, 0], schedule[:, 1])))
    return carry, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), record)


def _adapt(adapted, stage, window_ends, positions, acceptance, target, prior_scale):
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
        metric = (count * matrix + 5 * prior_scale * jnp.eye(len(matrix))) / (count + 5)
        averaging = start(final(a.averaging))
        moments = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), no_moments(len(matrix)), a.moments)
        return _Adapted(averaging, moments, jnp.exp(averaging.log_step_size), metric)

    def end_fast(a):
        return a._replace(step_size=final(a.averaging))

    adapted = jax.lax.switch(stage + 1, (lambda a: a, fast, slow), adapted)
    return jax.lax.switch(window_ends * (stage + 1), (lambda a: a, end_fast, end_slow), adapted)
