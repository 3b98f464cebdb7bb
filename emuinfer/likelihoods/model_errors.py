"""How wrong a model spectrum is expected to be at a star's pixels: its lines, the emulator, the surrogate. Pure JAX."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from ..emulators.uncertainty import EmulatorUncertainty, UncertaintyQuery, correlation_integral
from ..labels.features import label_terms
from .line_errors import DepthErrors
from .line_factors import LinesOnGrid

THERMAL_KMS = 1.5  # typical thermal and microturbulent width of an iron line
RATIOS = np.geomspace(0.02, 500.0, 120)  # of a line spread function's width to the lag of the errors' correlation


class ModelErrors(eqx.Module):
    """The error of the model flux: a variance per pixel, and factors that are common to many pixels.

    - Lines: what a line's strength or damping is wrong by changes all of its pixels together. With `LineFactors`, strong lines and
      species are factors. The variance of all other lines (of all with `LineErrors`) counts once per line and not once per pixel
      (`line_coherence`).
    - Emulator: `EmulatorUncertainty`, seen through the line spread function. Its diagonal part averages out as far as
      neighbouring errors are not correlated, and counts once per correlation length; its factors stay factors.
    - Surrogate: the root-mean-square error of the reduction or of the local surrogate in use.
    """

    lines: LinesOnGrid | DepthErrors | None
    reduction: jax.Array  # (n_grid,), error of the whole-domain reduction in flux
    uncertainty: EmulatorUncertainty | None
    query: UncertaintyQuery | None
    damping: jax.Array | None  # at RATIOS
    instrument_kms: jax.Array
    pixel_kms: Float[Array, ""]
    wavelength: Float[Array, ""]

    def __init__(self, grid_wavelength, wavelength, resolution, *, lines=None, reduction=None, uncertainty=None):
        """`grid_wavelength` `(n_grid,)` at rest, `wavelength` `(n_pix,)` observed, both Å; `lines` a
        `LineErrors` or a `LineFactors`."""
        self.lines = None if lines is None else lines.on(grid_wavelength)
        self.reduction = jnp.zeros(len(grid_wavelength)) if reduction is None else jnp.asarray(reduction, jnp.float32)
        self.uncertainty = uncertainty
        self.query = None if uncertainty is None else uncertainty.prepare(grid_wavelength)
        self.damping = None
        if uncertainty is not None:
            rho = np.asarray(uncertainty.correlation)
            self.damping = jnp.asarray([correlation_integral(rho, 1.0, r) for r in RATIOS], jnp.float32)
        self.instrument_kms = jnp.float32(SPEED_OF_LIGHT / np.median(resolution) / FWHM_PER_SIGMA)
        middle = float(np.median(wavelength))
        self.wavelength = jnp.float32(middle)
        self.pixel_kms = jnp.float32(SPEED_OF_LIGHT * np.median(np.diff(wavelength)) / middle)

    @property
    def rank(self) -> int:
        of_emulator = 0 if self.uncertainty is None else self.uncertainty.rank
        return of_emulator + (0 if self.lines is None else self.lines.rank)

    def line_width(self, broadening_kms):
        """Standard deviation in km/s of an observed line: of the instrument, the star's broadening and the atoms."""
        return jnp.sqrt(self.instrument_kms**2 + broadening_kms**2 + THERMAL_KMS**2)

    def line_coherence(self, broadening_kms):
        """Pixels over which an error in a line's strength is the same, at least 1.

        A line of Gaussian width σ has the equivalent width √(2π) σ.
        """
        return jnp.maximum(1.0, np.sqrt(2 * np.pi) * self.line_width(broadening_kms) / self.pixel_kms)

    def at(self, scaled_labels, atmosphere, grid_flux, operate, broadening_kms, local_error=None):
        """`(variance, factors, error)` at the pixels: `(n_pix,)`, `(rank, n_pix)`, and the error `(n_pix,)` of one pixel.

        Relative to a continuum of 1. `atmosphere` `(3,)`: Teff (K), log g, [Fe/H]; `grid_flux` `(n_grid,)`: the emulated flux at rest;
        `operate`: what turns it into pixels; `broadening_kms`: Gaussian width of the star's own broadening; `local_error`
        `(n_pix,)`: of the local surrogate, which then stands for the reduction.
        """
        see = lambda x: 1.0 - operate(1.0 - x)  # linear in x
        of_lines, factors = jnp.zeros_like(grid_flux), jnp.zeros((0, len(grid_flux)), jnp.float32)
        if self.lines is not None:
            of_lines, factors = self.lines.at(atmosphere, 1.0 - grid_flux)
        if local_error is None:
            smooth = see(jnp.sqrt(of_lines**2 + self.reduction**2)) ** 2
        else:
            smooth = see(of_lines) ** 2 + local_error**2
        variance = smooth * self.line_coherence(broadening_kms)
        if self.uncertainty is not None and self.query is not None:
            sd, shared = self.uncertainty.evaluate(scaled_labels, self.query, grid_flux)
            damping, coherence = self._diagonal(self.uncertainty, scaled_labels, broadening_kms)
            single = jnp.maximum(damping * see(sd**2), 0.0)
            factors = jnp.concatenate([factors, shared])
            variance, smooth = variance + single * coherence, smooth + single
        factors = jax.vmap(see)(factors) if len(factors) else jnp.zeros((0, len(variance)), jnp.float32)
        return variance, factors, jnp.sqrt(smooth + (factors**2).sum(0))

    def _diagonal(self, u: EmulatorUncertainty, scaled_labels, broadening_kms):
        """What the kernels leave of the diagonal variance, and over how many pixels the rest is the same."""
        step = u.grid.step * jnp.exp(label_terms(u.label_space, scaled_labels) @ u.stretch)
        width = jnp.sqrt(self.instrument_kms**2 + broadening_kms**2)
        sigma = width * self.wavelength / SPEED_OF_LIGHT
        damping = jnp.interp(
            jnp.log(sigma / step), jnp.log(jnp.asarray(RATIOS, jnp.float32)), jnp.asarray(self.damping)
        )
        length = step * (2.0 * u.correlation.sum() - u.correlation[0])
        pixel = self.pixel_kms * self.wavelength / SPEED_OF_LIGHT
        return damping, jnp.maximum(1.0, length / (damping * pixel))
