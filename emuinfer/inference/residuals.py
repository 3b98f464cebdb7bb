"""What the pixels of a fitted spectrum show of the fit: residuals, and what other models would change. Pure JAX but for `goodness_of`."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..entry import public
from .goodness import SIMULATED, Goodness, judge, together

NARROW = 2.0  # km/s, the most broadening of the template for a second star
ROTATION = 2.1  # v sin i whose profile has the standard deviation of a Gaussian of 1 km/s (limb darkening 0.6)


class Residuals(NamedTuple):
    """One fitted spectrum in units of its scaled flux, all `(n_pix,)` but for the scalars.

    A pytree, so that it comes for thousands of stars from one program; `goodness.judge` says what it means.
    """

    flux: jax.Array
    model: jax.Array  # with its continuum
    continuum: jax.Array
    sigma: jax.Array  # of the data, as stated
    error: jax.Array  # of the model at single pixels: lines, emulator, surrogate
    variance: jax.Array  # of all, as the fit uses it
    weight: jax.Array  # 0 for pixels not to be used, below 1 for outliers
    template: jax.Array  # normalised flux with little broadening, at the star's velocity
    broader: jax.Array  # change of the normalised flux with 1 (km/s)² more of broadening
    rotation: jax.Array  # change where a rotation profile of the same width is in place of the Gaussian
    jitter: jax.Array  # scalar, of the continuum
    width_kms: jax.Array  # scalar, standard deviation of an observed line
    gain: jax.Array  # scalar, twice the log likelihood gained by the lines over none


@public
def residuals_of(likelihood, values: dict) -> Residuals:
    """Of a `PixelLikelihood` at `values` of all its parameters."""
    noise, forward = likelihood.noise, likelihood.forward
    here, coefficients = likelihood.marginal(values)
    normalised, continuum = likelihood.normalised_flux(values), likelihood.continuum(coefficients)
    _, _, error = noise.model_errors(values, forward)
    vbroad, vsini = (jnp.float32(values.get(k, 0.0)) for k in ("vbroad", "vsini"))
    rest, grid = forward.rest_flux(values), forward.grid
    seen = lambda vbroad, vsini: grid.broadened(rest, values, vbroad, vsini)
    as_fitted = seen(vbroad, vsini)
    return Residuals(
        flux=likelihood.flux,
        model=normalised * continuum,
        continuum=continuum,
        sigma=jnp.sqrt(noise.variance),
        error=error,
        variance=noise.total(values),
        weight=noise.weight,
        template=seen(jnp.minimum(vbroad, NARROW), jnp.float32(0.0)),
        broader=seen(jnp.sqrt(vbroad**2 + 1.0), vsini) - as_fitted,
        rotation=seen(jnp.float32(0.0), ROTATION * vbroad) - seen(vbroad, jnp.float32(0.0)),
        jitter=10.0 ** jnp.float32(values["log10_jitter"]),
        width_kms=noise.errors.line_width(jnp.sqrt(vbroad**2 + (vsini / ROTATION) ** 2)),
        gain=2.0 * (here - _without_lines(likelihood, values)),
    )


def _without_lines(likelihood, values):
    """Log likelihood of a continuum alone."""
    noise = likelihood.noise
    flat = jnp.ones_like(likelihood.flux)
    factors = noise.factors * noise.level
    ivar = noise.inverse_variance(values)
    return likelihood.continuum.log_likelihood(
        flat, likelihood.flux, ivar, noise.reference_ivar, factors, noise.correlation
    )[0]


_residuals = eqx.filter_jit(residuals_of)


def goodness_of(fit, draws: dict, seed: int = 0) -> Goodness:
    """The verdict on a `Fit` at its optimum, on its spectra and on what else is known of the star; `draws`: name to draws `(n,)` of the
    parameters."""
    values = {k: jnp.float32(v) for k, v in fit.model.complete(fit.values).items()}
    judged = []
    for k, (spectrum, part) in enumerate(zip(fit.model.spectra, fit.likelihood.parts(values)), 1):
        residuals = jax.tree.map(np.asarray, _residuals(*part))
        one = judge(spectrum.wavelength, residuals, simulate=SIMULATED, seed=seed)
        judged.append((spectrum.observation.name or f"spectrum {k}", one))
    numbers = {}
    for one in fit.likelihood.others:
        chi2, free = _chi2(one, values)
        numbers[one.site] = float(chi2), float(free)
    return together(judged).with_numbers(numbers).with_broadening(draws.get("vbroad"))


@eqx.filter_jit
def _chi2(one, values):
    return one.chi2(values)
