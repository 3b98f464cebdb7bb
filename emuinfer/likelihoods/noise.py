"""The noise model: what a pixel scatters by, how much of it the model's own errors are, and which pixels are outliers."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..forward.noise_correlation import Correlation
from .forward_model import GridModel, LocalModel, scaled_labels
from .model_errors import ModelErrors

SUN = {"teff": 5772.0, "logg": 4.438, "fe_h": 0.0}  # where labels are missing


class Noise(eqx.Module):
    """Variances of a star's pixels in units of its scaled flux; all arrays `(n_pix,)` but for `factors` and scalars.

    The variance of a pixel is the data's, plus that of the model's errors, plus (`jitter` × continuum)². Outlying pixels are
    down-weighted as by a Student-t likelihood. Weights and model errors are found by iteration at an optimum and then kept.
    """

    variance: Float[Array, " n_pix"]  # of the data
    level: Float[Array, " n_pix"]  # a rough continuum of the scaled flux: the jitter is a fraction of it
    weight: Float[Array, " n_pix"]  # 0 for pixels not to be used, below 1 for outliers
    reference_ivar: Float[Array, " n_pix"]
    model_variance: Float[Array, " n_pix"]  # of the model: errors of its lines and of the emulator
    factors: Float[
        Array, "rank n_pix"
    ]  # errors of lines and of the emulator that many pixels share, relative to the continuum
    errors: ModelErrors
    # The model's variance is this times larger, as other arms see the same lines.
    share: Float[Array, " n_pix"] | None = None
    # Of the noise: variances and weights are then those of its white combinations.
    correlation: Correlation | None = None
    surrogate_error: bool = eqx.field(static=True, default=True)  # whether the error of a local surrogate counts
    degrees_of_freedom: float | None = eqx.field(static=True, default=4.0)  # of the weights; None: no down-weighting

    def total(self, values: dict) -> Float[Array, " n_pix"]:
        """Variance of the pixels at `values`: of the data, of the model's errors and of the jitter."""
        jitter = 10.0 ** values["log10_jitter"]
        return self.variance + self.model_variance + (jitter * self.level) ** 2

    def inverse_variance(self, values: dict) -> Float[Array, " n_pix"]:
        """Weights over variances, 0 where a pixel is not used."""
        return self.weight / self.total(values)

    def white(self, x: Float[Array, "*rows n_pix"]) -> Float[Array, "*rows n_pix"]:
        """Combinations of pixels whose noise is independent."""
        return x if self.correlation is None else self.correlation(x)

    def model_errors(self, values: dict, forward: GridModel | LocalModel):
        """`(variance, factors, error)` of `ModelErrors.at` at `values`: `(n_pix,)`, `(rank, n_pix)`, `(n_pix,)`. Pure JAX.

        In units of the scaled flux; `error` is that of single pixels, for figures.
        """
        own = forward.local_error
        if own is not None and not self.surrogate_error:
            own = jnp.zeros_like(own)
        scaled = scaled_labels(forward.label_space, values)
        broadening = jnp.float32(values.get("vbroad", 0.0)) + 0.5 * jnp.float32(values.get("vsini", 0.0))
        atmosphere = jnp.stack([jnp.float32(values.get(name, sun)) for name, sun in SUN.items()])
        flux = forward.rest_flux(values)
        variance, factors, error = self.errors.at(scaled, atmosphere, flux, forward.see(values), broadening, own)
        share = 1.0 if self.share is None else self.share
        # Errors of lines reach over several pixels; factors go through the transform themselves.
        kept = 1.0 if self.correlation is None else self.correlation.smooth
        return variance * self.level**2 * share * kept, factors * jnp.sqrt(share), error * self.level

    def with_model_errors(self, variance, factors=None) -> "Noise":
        """The same with another variance of the model's errors `(n_pix,)`, and factors `(rank, n_pix)` if given."""
        factors = self.factors if factors is None else factors
        return eqx.tree_at(lambda n: (n.model_variance, n.factors), self, (variance, factors))

    def with_weight(self, weight) -> "Noise":
        """The same with other weights `(n_pix,)`."""
        return eqx.tree_at(lambda n: n.weight, self, weight)

    def outlier_weights(self, residual: Float[Array, " n_pix"], values: dict) -> Float[Array, " n_pix"]:
        """Weights of a Student-t likelihood with ν degrees of freedom, (ν + 1) / (ν + r²), for data minus model.

        r is the residual in units of the total standard deviation. Divided by the weights' mean for Gaussian residuals and
        cut at 1, so that good data keep nearly all of theirs; pixels that are not to be used keep 0.
        """
        if self.degrees_of_freedom is None:
            return self.weight
        r = self.white(residual) / jnp.sqrt(self.total(values))
        return jnp.where(self.weight > 0, t_weights(r, self.degrees_of_freedom), 0.0)


def t_weights(r, nu: float):
    """Weights (ν + 1) / (ν + r²) over their mean for unit Gaussian `r`, at most 1."""
    nodes, share = np.polynomial.hermite_e.hermegauss(40)
    mean = np.sum(share * (nu + 1) / (nu + nodes**2)) / share.sum()
    return jnp.minimum((nu + 1) / (nu + r**2) / np.float32(mean), 1.0)
