"""A surrogate of one star's spectrum: exact enough to sample with, and the cheapest of all.

Over the small part of the parameter space that one star's posterior fills, the flux at the pixels of its observation (after
line spread function, Doppler shift and broadening) is nearly a quadratic function of the parameters. The full emulator and
the whole chain behind it are evaluated at some hundred draws of an approximate posterior; their principal components, with
coefficients quadratic in the whitened parameters, replace both.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..labels.features import quadratic_terms


class LocalSpectrum(eqx.Module):
    """f(p) = mean + q(u(p)) @ basis with u = (p − centre) @ whiten and q quadratic in u; see the module's docstring.

    `error` `(n_pix,)`: root-mean-square difference in flux from the full chain on draws that the fit has not seen.
    """

    centre: Float[Array, " n_parameters"]
    whiten: Float[Array, "n_parameters n_free"]
    coefficients: Float[Array, "n_terms components"]
    mean: Float[Array, " n_pix"]
    basis: Float[Array, "components n_pix"]
    error: Float[Array, " n_pix"]

    def __call__(self, parameters: Float[Array, " n_parameters"]) -> Float[Array, " n_pix"]:
        """Normalised flux at the pixels."""
        terms = quadratic_terms((parameters - self.centre) @ self.whiten)
        return self.mean + (terms @ self.coefficients) @ self.basis


def fit_local(
    parameters: Float[Array, "n n_parameters"],
    spectra: Float[Array, "n n_pix"],
    free,
    n_test: int = 40,
    components: int = 16,
) -> LocalSpectrum:
    """Fit a `LocalSpectrum` to `spectra` at `parameters` drawn around a star. Pure JAX.

    The last `n_test` draws measure the error and are not fitted. `free`: indices of the parameters that vary (static); the
    others are left out of the quadratic.
    """
    fit = slice(0, parameters.shape[0] - n_test)
    centre = parameters.mean(0)
    p = (parameters - centre)[:, free]
    sd = jnp.sqrt((p**2).mean(0)) + 1e-12
    values, vectors = jnp.linalg.eigh((p / sd).T @ (p / sd) / len(p))
    whiten = vectors / jnp.sqrt(jnp.maximum(values, 1e-6)) / sd[:, None]
    whiten = jnp.zeros((parameters.shape[1], len(free))).at[free].set(whiten)
    terms = quadratic_terms((parameters - centre) @ whiten)
    mean = spectra[fit].mean(0)
    away = spectra - mean
    # The leading components by subspace iteration on the spectra's small Gram matrix: a full decomposition of it is slow
    # on GPUs, and on CPUs whose cores are busy.
    gram = away[fit] @ away[fit].T
    leading = gram[:, : components + 8]
    for _ in range(4):
        leading = gram @ jnp.linalg.qr(leading)[0]
    basis = jnp.linalg.qr((jnp.linalg.qr(leading)[0].T @ away[fit]).T)[0].T
    # Ordered by variance, so that the least ones can be left out.
    _, rotation = jnp.linalg.eigh((basis @ away[fit].T) @ (away[fit] @ basis.T))
    basis = rotation.T[::-1][:components] @ basis
    target = away[fit] @ basis.T
    t = terms[fit]
    normal = t.T @ t
    ridge = 1e-5 * jnp.diag(jnp.diagonal(normal) + 1e-6 * len(t))
    coefficients = jax.scipy.linalg.solve(normal + ridge, t.T @ target, assume_a="pos")
    residual = away[-n_test:] - terms[-n_test:] @ coefficients @ basis
    return LocalSpectrum(centre, whiten, coefficients, mean, basis, jnp.sqrt((residual**2).mean(0)))
