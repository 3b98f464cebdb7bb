"""A log density as prior times likelihood, for methods that go from one to the other."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import SamplingError
from ._compile import compile_once
from ._setup import known_covariance, whitening

WIDE = 3.0  # standard deviations of the Gaussian reference, in those of `covariance`


class Target:
    """Prior and likelihood in coordinates `u` with `z = centre + root @ u`.

    `pair(u, all_data)` gives log prior and log likelihood as densities in `z`; `all_data` is `(data, centre, root,
    shift)`. `draw(n, seed)` gives draws of the prior in `u`, `(n, dim)`, float32.
    """

    def __init__(self, log_density, initial, data, split, covariance, progress, method):
        initial = np.asarray(initial, np.float32)
        self.dim, self.data = initial.shape[-1], data
        self.notes: tuple[str, ...] = ()
        if split is None:
            covariance, self.notes = known_covariance(log_density, initial, data, covariance, progress, method)
            centre, root = whitening(initial, np.asarray(covariance, float) * WIDE**2)
            self.pair, self.draw_prior = _reference(log_density), None
        else:
            self.pair, self.draw_prior = _given(*_check_split(split)[:2]), split[2]
            z = self._prior_draws(200, 0)
            centre, scale = z.mean(0), np.maximum(z.std(0), 1e-6)
            root = np.diag(scale)
        self.centre, self.root = np.asarray(centre, np.float32), np.asarray(root, np.float32)
        shift = np.float32(np.sum(np.log(np.diag(self.root).astype(float))))
        self.all_data = (data, self.centre, self.root, shift)

    def draw(self, n, seed):
        if self.draw_prior is None:
            return np.random.default_rng(seed).standard_normal((n, self.dim)).astype(np.float32)
        z = self._prior_draws(n, seed)
        return np.linalg.solve(self.root.astype(float), (z - self.centre).T).T.astype(np.float32)

    def to_z(self, u):
        return (self.centre + np.asarray(u, float) @ self.root.astype(float).T).astype(np.float32)

    def _prior_draws(self, n, seed):
        keys = jax.random.split(jax.random.key(int(np.random.default_rng(seed).integers(2**31))), n)
        call, _ = compile_once(_all, self.draw_prior, self.data, keys)
        z = np.asarray(call(self.data, keys), float)
        if z.shape != (n, self.dim):
            raise SamplingError(
                f"`draw_prior(key, data)` of the split must return a position of shape ({self.dim},), as `initial` "
                f"has; {n} draws have the shape {z.shape}."
            )
        if not np.isfinite(z).all():
            raise SamplingError("`draw_prior(key, data)` of the split returns positions that are not finite.")
        return z


def _all(density, keys):
    return jax.vmap(density)(keys)


def _check_split(split):
    if not isinstance(split, (tuple, list)) or len(split) != 3 or not all(callable(f) for f in split):
        raise SamplingError(
            "`split` must be three functions, (log_prior, log_likelihood, draw_prior): log_prior(z, data), "
            "log_likelihood(z, data), draw_prior(key, data) -> z."
        )
    return split


# Made once per function, so that programs compiled for them are found again.
@functools.lru_cache(maxsize=32)
def _given(log_prior, log_likelihood):
    def pair(u, all_data):
        data, centre, root, _ = all_data
        z = centre + root @ u
        return log_prior(z, data), _or_nothing(log_likelihood(z, data))

    return pair


@functools.lru_cache(maxsize=32)
def _reference(log_density):
    def pair(u, all_data):
        data, centre, root, shift = all_data
        prior = -0.5 * u @ u - 0.5 * len(u) * math.log(2 * math.pi) - shift
        return prior, _or_nothing(log_density(centre + root @ u, data)) - prior

    return pair


def _or_nothing(x):
    return jnp.where(jnp.isfinite(x), x, -jnp.inf)
