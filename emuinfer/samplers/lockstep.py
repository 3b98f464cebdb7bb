"""Hamiltonian Monte Carlo for thousands of targets side by side: no step decides anything, so that none waits for another."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from .optimise import root_of

LEAPFROG = 4  # steps of a trajectory
LONGEST = 1.6 / LEAPFROG  # longest step: a quarter of the period of a Gaussian's trajectory in all
JITTER = 0.3
TARGET = 0.85
SEGMENT = 25  # steps between changes of the mass matrix
SHRINK = 10.0  # weight of the Gaussian approximation in it, in draws per dimension


def lockstep(log_density, z, covariance, key, *, chains, warmup, draws):
    """Draws `(chains, draws, dim)` of one target, and (log density, acceptance, divergences, step size). Pure JAX.

    `log_density(z)` of a position `(dim,)`; `z` and `covariance`: a Gaussian approximation. To be mapped over targets with
    `jax.vmap`. Segments of `SEGMENT` steps; after each of the warm-up the step size and the mass matrix, which is shrunk
    towards the Gaussian approximation, are those of all draws of all chains so far.
    """
    segment, carry, keys = _prepare(log_density, z, covariance, key, chains, warmup, draws)
    warm = -(-warmup // SEGMENT)
    (_, _, log_step, _), record = jax.lax.scan(segment, carry, (keys, jnp.arange(len(keys))))
    # (segments, SEGMENT, chains, …) to (draws, chains, …), without the warm-up
    positions, lp, accepted, diverging = (a[warm:].reshape(-1, *a.shape[2:])[:draws] for a in record)
    return jnp.swapaxes(positions, 0, 1), (jnp.swapaxes(lp, 0, 1), accepted.mean(), diverging.sum(), jnp.exp(log_step))


def _prepare(log_density, z, covariance, key, chains, warmup, draws):
    """The function of a segment, its first carry, and the keys of all segments."""
    kernel = blackjax.hmc.build_kernel()
    dim = len(z)
    warm, segments = -(-warmup // SEGMENT), -(-draws // SEGMENT)
    first = root_of(covariance)

    def segment(carry, inputs):
        z, root, log_step, moments = carry
        key, number = inputs
        adapt = number < warm
        target = lambda x: log_density(root @ x)

        def step(carry, key):
            state, log_step, average, i = carry
            jitter, key = jax.random.split(key)
            sizes = jnp.exp(log_step) * jax.random.uniform(jitter, (chains,), minval=1 - JITTER, maxval=1.0)
            move = lambda k, s, e: kernel(k, s, target, e, jnp.ones(dim), LEAPFROG)
            state, info = jax.vmap(move)(jax.random.split(key, chains), state, sizes)
            accepted = jnp.nan_to_num(info.acceptance_rate).mean()
            # Robbins & Monro (1951) on the logarithm of the step, and the mean over the later half.
            changed = log_step + (accepted - TARGET) / jnp.sqrt(
                1.0 + 0.3 * (i + 0.5 * SEGMENT * number.astype(jnp.float32))
            )
            log_step = jnp.where(adapt, jnp.minimum(changed, np.log(LONGEST)), log_step)
            average = average + jnp.where(i >= SEGMENT // 2, log_step / (SEGMENT - SEGMENT // 2), 0.0)
            return (state, log_step, average, i + 1.0), (
                state.position @ root.T,
                state.logdensity,
                accepted,
                info.is_divergent,
            )

        u = jax.scipy.linalg.solve_triangular(root, z.T, lower=True).T
        state = jax.vmap(lambda x: blackjax.hmc.init(x, target))(u)
        carry = (state, log_step, jnp.float32(0), jnp.float32(0))
        (_, _, average, _), record = jax.lax.scan(step, carry, jax.random.split(key, SEGMENT))
        positions = record[0]
        log_step = jnp.where(adapt, average, log_step)
        # Draws of the first segment may still be on their way.
        use = adapt & (number > 0)
        moments = jax.tree.map(
            lambda new, old: jnp.where(use, new, old), _add(moments, positions.reshape(-1, dim)), moments
        )
        n, _, squares = moments
        prior = SHRINK * dim
        root = jnp.where(use, root_of((squares + prior * covariance) / (n + prior)), root)
        return (positions[-1], root, log_step, moments), record

    start = z + jax.random.normal(jax.random.fold_in(key, 0), (chains, dim)) @ first.T
    moments = (jnp.float32(0), z, jnp.zeros((dim, dim)))
    carry = (start, first, jnp.log(jnp.float32(LONGEST)), moments)
    return segment, carry, jax.random.split(jax.random.fold_in(key, 1), warm + segments)


def _add(moments, x):
    """Count, mean and sum of squares about the mean `(dim, dim)` with the draws `x` `(n, dim)` added."""
    n, mean, squares = moments
    m = jnp.float32(len(x))
    centre = x.mean(0)
    away, step = x - centre, centre - mean
    total = n + m
    return total, mean + step * m / total, squares + away.T @ away + jnp.outer(step, step) * n * m / total
