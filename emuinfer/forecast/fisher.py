"""Fisher information on the host: whitening, assembly, inversion, and what a degenerate combination is called.

Everything here is float64 NumPy. For Gaussian noise of covariance C the information is F = Jᵀ C⁻¹ J, the product of the
whitened derivatives with themselves; no unbiased estimate has a covariance below F⁻¹ (e.g. Ting et al. 2017, ApJ 843, 32;
Sandford, Weisz & Ting 2020, ApJS 249, 24).
"""

import numpy as np

from ..errors import EmuinferError

# Derivatives in float32 carry a noise of 1e-7 of the flux for one parameter, and 1e-5 where those of several cancel; less
# information than such noise would hold is none.
SILENT, SINGULAR = 1e-14, 1e-10


def whiten(rows, sigma, correlation=None, xp=np):
    """`rows` `(k, n)` times the inverse square root of the noise's covariance, `(k, n)`; NumPy or, as `xp`, `jax.numpy`.

    `sigma` `(n,)`. `correlation` `(n - 1,)`: of each pixel with the one before, for noise whose correlations are products of
    these (an Ornstein–Uhlenbeck process, AR(1) on equal steps): its inverse Cholesky factor has two diagonals.
    """
    scaled = rows / sigma
    if correlation is None:
        return scaled
    changed = (scaled[..., 1:] - correlation * scaled[..., :-1]) / xp.sqrt(1 - correlation**2)
    return xp.concatenate([scaled[..., :1], changed], axis=-1)


def unwhiten_transposed(rows, sigma, correlation=None):
    """The transpose of `whiten` applied to `rows` `(k, n)`: `unwhiten_transposed(whiten(x))` is x C⁻¹."""
    out = np.array(rows, float)
    if correlation is not None:
        part = rows[..., 1:] / np.sqrt(1 - correlation**2)
        out[..., 1:] = part
        out[..., :-1] -= correlation * part
    return out / sigma


def information(spectra, prior):
    """Information `(n + terms, n + terms)` of spectra that share n parameters and have a continuum each.

    - `spectra`: for each the whitened derivatives by the shared parameters `(n, n_pix)` and by its continuum's coefficients
      `(n_terms, n_pix)`, and the standard deviation of the coefficients' Gaussian prior, one or `(n_terms,)`.
    - `prior`: information of the shared parameters' priors, `(n,)`.
    """
    n = len(prior)
    fisher = np.zeros((n + sum(len(terms) for _, terms, _ in spectra),) * 2)
    fisher[:n, :n] = np.diag(prior)
    start = n
    for shared, terms, sd in spectra:
        own = slice(start, start + len(terms))
        fisher[:n, :n] += shared @ shared.T
        fisher[:n, own] = shared @ terms.T
        fisher[own, :n] = fisher[:n, own].T
        fisher[own, own] = terms @ terms.T + np.diag(np.ones(len(terms)) / np.square(sd))
        start += len(terms)
    return fisher


def check_information(fisher, names):
    """Raise `EmuinferError` that names the parameters without information, if there are any."""
    diagonal = np.diag(fisher)
    silent = [n for n, d in zip(names, diagonal) if not d > SILENT * np.nanmax(diagonal)]
    if silent:
        raise EmuinferError(
            f"The spectrum holds no information on {', '.join(silent)} at these values. Fix it in the model's priors, give it "
            "a Gaussian prior, or evaluate elsewhere (vbroad and vsini above 0)."
        )


def invert(fisher, names):
    """The inverse of the information `(n, n)`; an error that names the combination without information if there is one."""
    check_information(fisher, names)
    scale = 1 / np.sqrt(np.diag(fisher))
    values, vectors = np.linalg.eigh(fisher * np.outer(scale, scale))
    if values[0] < SINGULAR * values[-1]:
        weakest = vectors[:, 0]
        leading = [i for i in np.argsort(-np.abs(weakest)) if abs(weakest[i]) > 0.2][:5]
        combination = " ".join(f"{weakest[i]:+.2f} {names[i]}" for i in leading)
        raise EmuinferError(
            f"The information matrix is singular (smallest relative eigenvalue {values[0] / values[-1]:.1g}): the spectrum "
            f"does not determine the combination {combination} (each in units of its conditional bound). Fix one of them in "
            "the model's priors, or give one a Gaussian prior."
        )
    return np.outer(scale, scale) * ((vectors / values) @ vectors.T)


def covariance_of(fisher, names, space):
    """`invert` of information in the parameters' own units, in `step_sizes` of which it is well conditioned."""
    unit = step_sizes(space, names)
    return invert(fisher * np.outer(unit, unit), names) * np.outer(unit, unit)


def step_sizes(space, names):
    """Half the range of a label, 1 for everything else: in these units the information is well conditioned."""
    half = dict(zip(space.names, space.half_width))
    return np.array([half.get(n, 1.0) for n in names])


def prior_information(prior, value) -> float:
    """−d² log p/dθ² of a NumPyro distribution at `value` where that is positive, else 0: 1/sd² of a Gaussian one."""
    import jax
    import jax.numpy as jnp
    from numpyro.distributions import Uniform

    if isinstance(prior, Uniform):
        return 0.0
    second = float(jax.grad(jax.grad(lambda x: prior.log_prob(x)))(jnp.float32(value)))
    return max(-second, 0.0) if np.isfinite(second) else 0.0
