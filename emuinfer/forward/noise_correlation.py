"""Pixel noise whose correlation falls exponentially with the distance in pixels, made white. JAX, float32.

For the covariance C_ij = σ_i σ_j ρ^|i−j| (a first-order autoregressive process; Rybicki & Press 1995, PRL 74, 1060), the
combinations x_i = (r_i − ρ^g (σ_i / σ_b) r_b) / √(1 − ρ^2g) with the last usable pixel b, g pixels before i, are independent
and keep the variances σ_i². So data, model and continuum terms go through this bidiagonal transform, and the likelihood of
independent pixels does the rest, exactly, pixels left out included.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..errors import ObservationError


class Correlation(eqx.Module):
    """The transform of vectors of pixels for one length of correlation, usable pixels and standard deviations.

    Variances that are added later, as a jitter's, thereby have the same correlation.
    """

    before: Int[Array, " n_pix"]  # the last usable pixel before each usable one, itself where there is none
    back: Float[Array, " n_pix"]  # what of it is taken off, already divided by √(1 − ρ^2g)
    gain: Float[Array, " n_pix"]  # 1 / √(1 − ρ^2g)
    smooth: float = eqx.field(
        static=True
    )  # (1 − ρ) / (1 + ρ): what the transform leaves of the variance of slow errors

    def __init__(self, length, sigma, good):
        """`length`: pixels over which the correlation falls to 1/e; `sigma` `(n_pix,)`; `good` `(n_pix,)` bool."""
        length = _check_length(length)
        used = np.flatnonzero(good)
        before, rho = np.arange(len(good)), np.zeros(len(good))
        before[used[1:]] = used[:-1]
        rho[used[1:]] = np.exp(-np.diff(used) / length)
        gain = 1.0 / np.sqrt(1.0 - rho**2)
        ratio = np.where(rho > 0, sigma / sigma[before], 0.0)
        self.before = jnp.asarray(before, jnp.int32)
        self.back, self.gain = jnp.asarray(gain * rho * ratio, jnp.float32), jnp.asarray(gain, jnp.float32)
        self.smooth = float(np.tanh(0.5 / length))

    def __call__(self, x: Float[Array, "*rows n_pix"]) -> Float[Array, "*rows n_pix"]:
        """White combinations of `x` `(…, n_pix)`; pixels that are not usable stay as they are."""
        return self.gain * x - self.back * x[..., self.before]

    def transposed(self, x: Float[Array, "*rows n_pix"]) -> Float[Array, "*rows n_pix"]:
        """The transform's transpose on `x` `(…, n_pix)`."""
        return self.gain * x - jnp.zeros_like(x).at[..., self.before].add(self.back * x)

    def transposed_diagonal(self, w: Float[Array, " n_pix"]) -> Float[Array, " n_pix"]:
        """The diagonal `(n_pix,)` of Tᵀ diag(w) T for the transform T."""
        return self.gain**2 * w + jnp.zeros_like(w).at[self.before].add(self.back**2 * w)

    @property
    def log_determinant(self) -> float:
        """Of the transform: the sum of log(1 / √(1 − ρ^2g))."""
        return float(np.log(np.asarray(self.gain, float)).sum())


def _check_length(length) -> float:
    if not (isinstance(length, int | float) and np.isfinite(length) and 0 < length <= 1000):
        raise ObservationError(
            f"correlation = {length!r} must be the number of pixels over which the noise's correlation falls to 1/e, above 0 "
            "and up to 1000; None for independent pixels."
        )
    return float(length)


class WhiteTerms(eqx.Module):
    """Terms of a continuum already multiplied by a model and made white, in place of a `Continuum`; itself 1 everywhere."""

    basis: Float[Array, "n_terms n_pix"]
    mean: Float[Array, " n_terms"]
    sd: Float[Array, " n_terms"]

    @property
    def n_terms(self) -> int:
        return len(self.mean)

    def __call__(self, coefficients: Float[Array, " n_terms"]) -> Float[Array, " n_pix"]:
        return jnp.ones(self.basis.shape[1:], self.basis.dtype)
