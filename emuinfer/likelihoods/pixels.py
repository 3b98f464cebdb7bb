"""The likelihood of one spectrum's pixels, and the steps of a fit on it."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..forward.continuum import Continuum
from ..labels import LabelSpace
from .base import SpectraLikelihood
from .compressed import CompressedLikelihood, compress
from .forward_model import GridModel, LocalModel, local_parameters
from .noise import Noise


class PixelLikelihood(SpectraLikelihood):
    """The forward model times a continuum that is integrated out, with Gaussian noise; all in units of the scaled flux.

    Every method is pure JAX; `values` maps all parameters to scalars in their own units.
    """

    flux: Float[Array, " n_pix"]  # scaled to a continuum near 1
    forward: GridModel | LocalModel
    continuum: Continuum
    noise: Noise
    scale: Float[Array, ""]  # of the data's own unit: data = flux × scale
    constant: Float[Array, ""]  # what `log_likelihood` leaves out
    beside: tuple = ()  # a `LabelLikelihood` of each of what else is known of the star

    def marginal(self, values: dict) -> tuple[Float[Array, ""], Float[Array, " n_terms"]]:
        """Log likelihood relative to `constant`, and the continuum's coefficients that fit best."""
        noise = self.noise
        factors = noise.factors * noise.level
        model, ivar = self.normalised_flux(values), noise.inverse_variance(values)
        return self.continuum.log_likelihood(model, self.flux, ivar, noise.reference_ivar, factors, noise.correlation)

    def log_likelihood(self, values: dict) -> Float[Array, ""]:
        """Log likelihood relative to `constant`, of the pixels and of what else is known."""
        return sum((one.log_likelihood(values) for one in self.beside), self.marginal(values)[0])

    def normalised_flux(self, values: dict) -> Float[Array, " n_pix"]:
        """Model flux at the pixels before the continuum."""
        return self.forward(values)

    def model_flux(self, values: dict) -> Float[Array, " n_pix"]:
        """Model flux with the continuum that fits best."""
        return self.normalised_flux(values) * self.continuum(self.marginal(values)[1])

    def leave_one_out(self, values: dict) -> tuple[Float[Array, " n_pix"], Float[Array, " n_pix"]]:
        """Mean and standard deviation of each pixel given all others, in the unit of the data.

        Pixels that are not used have the model flux and the standard deviation of their noise.
        """
        noise = self.noise
        model, ivar = self.normalised_flux(values), noise.inverse_variance(values)
        mean, variance, coefficients = self.continuum.leave_one_out(
            model, self.flux, ivar, noise.factors * noise.level, noise.correlation
        )
        used = noise.weight > 0
        mean = jnp.where(used, mean, model * self.continuum(coefficients))
        return mean * self.scale, jnp.sqrt(jnp.where(used, variance, noise.total(values))) * self.scale

    def distribution(self, values: dict):
        """The pixels as a NumPyro distribution with a batch of `n_pix`, in the unit of the data: each given all others."""
        from .observed import PixelDistribution

        return PixelDistribution(*jax.lax.stop_gradient(self.leave_one_out(values)), self.noise.weight > 0)

    def declare(self, values: dict, observe: bool = True, site: str = "flux") -> None:
        """Tell NumPyro of the pixels: an observed site, and a factor `site`_marginal.

        The log density of the site is that of each pixel given all others, with the continuum integrated out, which
        leave-one-out cross-validation takes. Their sum is not that of all pixels together; the factor adds what is missing,
        so that site and factor are `log_likelihood` plus `constant`. All derivatives go through the factor.
        """
        import numpyro

        pixels, data = self.distribution(values), self.flux * self.scale
        numpyro.sample(site, pixels, obs=data if observe else None)
        if observe:
            rest = self.marginal(values)[0] + self.constant - jax.lax.stop_gradient(pixels.log_prob(data).sum())
            numpyro.factor(f"{site}_marginal", rest)
        for one in self.beside:
            one.declare(values, observe)

    def information(self, values_at, z):
        """Fisher information on `z`; see `Likelihood`. Half of it comes from the dependence of the variance on the jitter."""

        def pixels(z):
            values = values_at(z)
            return self.normalised_flux(values), jnp.log(self.noise.total(values))

        flux, log_variance = pixels(z)
        by_flux, by_variance = jax.jacfwd(pixels)(z)
        continuum = self.continuum
        _, coefficients = self.marginal(values_at(z))
        ivar = self.noise.weight * jnp.exp(-log_variance)
        rows = self.noise.white((by_flux * continuum(coefficients)[:, None]).T).T
        terms = self.noise.white(continuum.basis[: continuum.n_terms] * flux)
        cross = terms @ (ivar[:, None] * rows)
        block = (terms * ivar) @ terms.T + jnp.diag(1 / continuum.sd**2)
        used = (self.noise.weight > 0)[:, None].astype(by_variance.dtype)
        noise = 0.5 * by_variance.T @ (used * by_variance)
        of_pixels = rows.T @ (ivar[:, None] * rows) - cross.T @ jnp.linalg.solve(block, cross) + noise
        return sum((one.information(values_at, z) for one in self.beside), of_pixels)

    # Steps of a fit, each of which gives a new likelihood

    @property
    def arms(self) -> tuple:
        """The one spectrum; see `JointLikelihood.arms`."""
        return (self,)

    @property
    def others(self) -> tuple:
        """What has no pixels."""
        return self.beside

    def parts(self, values: dict) -> list:
        """`[(spectrum, its values)]`: here the one; see `JointLikelihood.parts`."""
        return [(self, values)]

    def mapped(self, function, values: dict):
        """`function(spectrum, its values)` of each spectrum, joined; here of the one."""
        return function(self, values)

    def with_emulators(self, emulators: tuple) -> "PixelLikelihood":
        """With a full emulator on the grid (`full_on_grid`, a tuple of one) in place of the surrogate."""
        (emulator,) = emulators
        return self.with_forward(self.forward.with_emulator(emulator))

    def with_forward(self, forward) -> "PixelLikelihood":
        """With another forward model."""
        return eqx.tree_at(lambda s: s.forward, self, forward)

    def with_noise(self, noise: Noise) -> "PixelLikelihood":
        """With another noise model."""
        return eqx.tree_at(lambda s: s.noise, self, noise)

    def with_model_variance(self, values: dict) -> "PixelLikelihood":
        """With the variance of the model's errors at `values`, without factors."""
        variance, _, _ = self.noise.model_errors(values, self.forward)
        return self.with_noise(self.noise.with_model_errors(variance))

    def with_weights(self, values: dict) -> "PixelLikelihood":
        """With the weights of outliers at `values`."""
        weight = self.noise.outlier_weights(self.flux - self.model_flux(values), values)
        return self.with_noise(self.noise.with_weight(weight))

    def with_model_errors(self, values: dict) -> "PixelLikelihood":
        """With the variance and the factors of the model's errors at `values`."""
        variance, factors, _ = self.noise.model_errors(values, self.forward)
        return self.with_noise(self.noise.with_model_errors(variance, factors))

    def localised(self, surrogates: tuple) -> "PixelLikelihood":
        """With the star's own surrogate, a `LocalSpectrum`, behind which come those `beside` with theirs."""
        local, *beside = surrogates
        localised = self.with_forward(LocalModel(local, self.forward.grid))
        return dataclasses.replace(localised, beside=tuple(beside)) if beside else localised

    @property
    def label_space(self) -> LabelSpace:
        """The labels of its emulator."""
        return self.forward.label_space

    def local_parameters(self, values: dict) -> Float[Array, " n_parameters"]:
        """What a `LocalSpectrum` is a function of."""
        return local_parameters(self.label_space, values)

    def compressed(self, values: dict) -> CompressedLikelihood:
        """The likelihood compressed around `values`; the forward model must be a `LocalModel`."""
        _, coefficients = self.marginal(values)
        return compress(self, coefficients, self.normalised_flux(values))
