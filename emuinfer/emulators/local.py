"""A surrogate of an expensive emulator around one star: exact enough to sample with, and the cheapest of all.

Over the small part of the domain that one star's posterior fills, x = log(1/f − 1 + ε) is nearly a quadratic function of the
labels and needs few components. The full emulator is evaluated at some hundred draws of an approximate posterior; their
principal components, with coefficients quadratic in the whitened labels, replace it.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .base import Emulator, depth_from_flux, flux_from_depth
from .components import principal_components
from .reduced import ReducedEmulator


class LocalEmulator(eqx.Module):
    """x(s) = mean + q(u(s)) @ basis with u = (s − centre) @ whiten and q quadratic in u; see the module's docstring.

    `error` `(n_wave,)`: root-mean-square difference in flux from the full emulator on draws that the fit has not seen.
    """

    centre: jax.Array  # (n_labels,), scaled
    whiten: jax.Array  # (n_labels, n_free)
    coefficients: jax.Array  # (n_terms, components)
    mean: jax.Array  # (n_wave,)
    basis: jax.Array  # (components, n_wave)
    error: jax.Array  # (n_wave,)
    epsilon: float = eqx.field(static=True)

    def grid_flux(self, scaled_labels) -> jax.Array:
        """Normalised flux on the reduced emulator's grid, `(n_wave,)`."""
        terms = quadratic_terms((scaled_labels - self.centre) @ self.whiten)
        return flux_from_depth(self.mean + (terms @ self.coefficients) @ self.basis, self.epsilon)


def quadratic_terms(u):
    """`[1, u_i, u_i u_j (i ≤ j)]` along the last axis, `(…, 1 + n + n (n + 1) / 2)`. JAX or NumPy."""
    xp = jnp if isinstance(u, jax.Array) else np
    i, j = np.triu_indices(u.shape[-1])
    return xp.concatenate([xp.ones_like(u[..., :1]), u, u[..., i] * u[..., j]], axis=-1)


def localise(reduced: ReducedEmulator, emulator: Emulator, scaled_draws, *, n_test: int = 40, components: int = 60) -> LocalEmulator:
    """Fit a `LocalEmulator` of `emulator`, on the grid of `reduced`, to scaled labels `(n, n_labels)` around a star.

    The last `n_test` draws measure the error and are not fitted. Labels that do not vary are left out of the quadratic.
    """
    draws = np.asarray(scaled_draws, np.float64)
    epsilon = reduced.config.epsilon
    query = emulator.prepare(emulator.check_wavelength(reduced.config.wavelength))
    x = np.stack([np.asarray(_depth(emulator, jnp.asarray(s, jnp.float32), query, epsilon)) for s in draws])
    centre = draws.mean(0)
    whiten = _whitening(draws - centre)
    terms = quadratic_terms((draws - centre) @ whiten)
    fit = slice(0, len(draws) - n_test)
    mean, basis, target = principal_components(x[fit], min(components, len(x[fit]) - 1))
    # A ridge far below the terms' own size keeps near-collinear squares of narrow directions from growing.
    ridge = 1e-6 * len(terms[fit]) * np.eye(terms.shape[1])
    coefficients = np.linalg.solve(terms[fit].T @ terms[fit] + ridge, terms[fit].T @ target)
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    local = LocalEmulator(
        as32(centre), as32(whiten), as32(coefficients), as32(mean), as32(basis), as32(np.zeros_like(mean)), epsilon
    )
    predicted = np.stack([np.asarray(_local_flux(local, as32(s))) for s in draws[-n_test:]])
    residual = predicted - np.asarray(flux_from_depth(x[-n_test:], epsilon))
    return eqx.tree_at(lambda e: e.error, local, as32(np.sqrt((residual**2).mean(0))))


def _whitening(centred):
    """`(n_labels, n_free)` that turns centred draws into uncorrelated ones of unit variance."""
    covariance = centred.T @ centred / len(centred)
    sd = np.sqrt(np.diag(covariance))
    free = sd > 1e-6
    values, vectors = np.linalg.eigh(covariance[np.ix_(free, free)] / np.outer(sd[free], sd[free]))
    whiten = np.zeros((len(sd), free.sum()))
    whiten[free] = vectors / np.sqrt(np.maximum(values, 1e-8)) / sd[free, None]
    return whiten


@eqx.filter_jit
def _depth(emulator: Any, scaled, query, epsilon):
    return depth_from_flux(emulator.flux(scaled, query), epsilon)


@eqx.filter_jit
def _local_flux(local, scaled):
    return local.grid_flux(scaled)
