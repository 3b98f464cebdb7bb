"""Default priors of a stellar fit, and the soft walls of an emulator's domain."""

import numbers

import jax.numpy as jnp
import numpy as np

from ..errors import LabelError

WALL = 0.01  # standard deviation of the soft wall outside the domain, in units of a label's half-width


def label_priors(label_space, overrides=None) -> dict:
    """One prior per label: flat within the emulator's bounds unless overridden.

    `overrides` maps label names to NumPyro distributions, or to numbers, which fix the label. Raises `LabelError` on
    unknown names and on fixed values outside the bounds.
    """
    import numpyro.distributions as dist

    overrides = dict(overrides or {})
    label_space.require_names(list(overrides))
    priors = {n: dist.Uniform(lo, hi) for n, (lo, hi) in label_space.bounds.items()}
    for name, prior in overrides.items():
        priors[name] = checked_prior(name, prior)
        if isinstance(priors[name], float) and not label_space.contains_value(name, prior):
            lo, hi = label_space.bounds[name]
            raise LabelError(f"'{name}' cannot be fixed at {prior:g}: the emulator's domain is [{lo:g}, {hi:g}].")
    return priors


def checked_prior(name, prior):
    """`prior` as it is if it is a NumPyro distribution, a number as `float`; `LabelError` on anything else."""
    import numpyro.distributions as dist

    if isinstance(prior, dist.Distribution):
        return prior
    if not isinstance(prior, numbers.Real) or not np.isfinite(prior):
        raise LabelError(f"The prior of '{name}' must be a NumPyro distribution, or a number that fixes it; got {prior!r}.")
    return float(prior)


def domain_penalty(label_space, scaled):
    """Log of a soft wall: 0 inside the domain, −½ (distance / `WALL`)² per broken bound or constraint outside.

    A wall with a gradient, because a hard one would stop a Hamiltonian sampler at every touch. `scaled` `(n_labels,)`.
    """
    over = jnp.maximum(jnp.abs(scaled) - 1.0, 0.0)
    matrix, bound = label_space.constraint_matrix()
    if len(bound):
        # In scaled labels, with each constraint's normal of unit length.
        rows = matrix * label_space.half_width
        length = np.linalg.norm(rows, axis=1)
        slack = (bound - matrix @ label_space.centre) / length
        broken = jnp.maximum(jnp.asarray(rows / length[:, None], jnp.float32) @ scaled - slack.astype(np.float32), 0.0)
        over = jnp.concatenate([over, broken])
    return -0.5 * jnp.sum((over / WALL) ** 2)
