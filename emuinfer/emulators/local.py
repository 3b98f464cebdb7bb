"""A surrogate of one star's spectrum: exact enough to sample with, and the cheapest of all.

Over the small part of the parameter space that one star's posterior fills, the flux at the pixels of its observation (after
line spread function, Doppler shift and broadening) is nearly a quadratic function of the parameters. The full emulator and
the whole chain behind it are evaluated at some hundred draws of an approximate posterior; their principal components, with
coefficients quadratic in the whitened parameters, replace both.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .components import principal_components


class LocalSpectrum(eqx.Module):
    """f(p) = mean + q(u(p)) @ basis with u = (p − centre) @ whiten and q quadratic in u; see the module's docstring.

    `error` `(n_pix,)`: root-mean-square difference in flux from the full chain on draws that the fit has not seen.
    """

    centre: jax.Array  # (n_parameters,)
    whiten: jax.Array  # (n_parameters, n_free)
    coefficients: jax.Array  # (n_terms, components)
    mean: jax.Array  # (n_pix,)
    basis: jax.Array  # (components, n_pix)
    error: jax.Array  # (n_pix,)

    def __call__(self, parameters) -> jax.Array:
        """Normalised flux at the pixels, `(n_pix,)`, for `(n_parameters,)`."""
        terms = quadratic_terms((parameters - self.centre) @ self.whiten)
        return self.mean + (terms @ self.coefficients) @ self.basis


def quadratic_terms(u):
    """`[1, u_i, u_i u_j (i ≤ j)]` along the last axis, `(…, 1 + n + n (n + 1) / 2)`. JAX or NumPy."""
    xp = jnp if isinstance(u, jax.Array) else np
    i, j = np.triu_indices(u.shape[-1])
    return xp.concatenate([xp.ones_like(u[..., :1]), u, u[..., i] * u[..., j]], axis=-1)


def fit_local(parameters, spectra, *, n_test: int = 40, components: int = 16) -> LocalSpectrum:
    """Fit a `LocalSpectrum` to `spectra` `(n, n_pix)` at `parameters` `(n, n_parameters)` drawn around a star.

    The last `n_test` draws measure the error and are not fitted. Parameters that do not vary are left out of the quadratic.
    """
    p, spectra = np.asarray(parameters, np.float64), np.asarray(spectra)
    fit = slice(0, len(p) - n_test)
    centre = p.mean(0)
    whiten = _whitening(p - centre)
    terms = quadratic_terms((p - centre) @ whiten)
    mean, basis, target = principal_components(spectra[fit], min(components, len(spectra[fit]) - 1))
    # A ridge far below the terms' own size keeps near-collinear squares of narrow directions from growing.
    ridge = 1e-6 * len(terms[fit]) * np.eye(terms.shape[1])
    coefficients = np.linalg.solve(terms[fit].T @ terms[fit] + ridge, terms[fit].T @ target)
    residual = mean + terms[-n_test:] @ coefficients @ basis - spectra[-n_test:]
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    error = np.sqrt((residual**2).mean(0))
    return LocalSpectrum(as32(centre), as32(whiten), as32(coefficients), as32(mean), as32(basis), as32(error))


def _whitening(centred):
    """`(n_parameters, n_free)` that turns centred draws into uncorrelated ones of unit variance."""
    covariance = centred.T @ centred / len(centred)
    sd = np.sqrt(np.diag(covariance))
    free = sd > 1e-6
    values, vectors = np.linalg.eigh(covariance[np.ix_(free, free)] / np.outer(sd[free], sd[free]))
    whiten = np.zeros((len(sd), free.sum()))
    whiten[free] = vectors / np.sqrt(np.maximum(values, 1e-8)) / sd[free, None]
    return whiten
