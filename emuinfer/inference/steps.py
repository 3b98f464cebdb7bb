"""The steps of a fit in pure JAX, the same for one star and for thousands: optimum, local surrogate, compression.

`density` is an `Unconstrained`, `likelihood` a pytree of the star's pixels, `full` the full emulator on the grid
(`full_on_grid`). Nothing here decides anything that depends on the star, so that one program serves all.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..emulators import fit_local
from ..likelihoods import Likelihood
from ..likelihoods.forward_model import motion
from ..samplers.optimise import ascend, covariance_of, root_of

ROUNDS = 3  # climbs: the first with all weights 1, before each the model's errors, before the later ones the weights
STEPS = 25  # at most in each climb
WIDEN = 1.6  # width of the points behind a local surrogate, in posterior standard deviations


class Localised(NamedTuple):
    """A star whose likelihood is compressed: where it is highest, and what it was made from."""

    z: jax.Array  # (dim,)
    information: jax.Array  # (dim, dim), the Fisher information there
    compressed: Likelihood
    likelihood: Any  # of the pixels: weights, model errors, local surrogate


def settled(likelihood, values):
    """With the model's errors, then the outlier weights, at `values`."""
    return likelihood.with_model_variance(values).with_weights(values)


def climb(density, likelihood, starts, steps=STEPS):
    """The highest of the optima from `starts` `(n, dim)`: `(dim,)`."""
    z, lp, _, _ = ascend(
        lambda x: density.log_density(x, likelihood),
        starts,
        likelihood,
        metric=density.information,
        max_steps=steps,
        tolerance=1e-3,
        max_move=3.0,
    )
    return z[jnp.nanargmax(jnp.where(jnp.isfinite(lp), lp, -jnp.inf))]


def optimum(density, likelihood, starts):
    """The optimum from `starts` `(n, dim)`, the likeliest first: `(z, likelihood)` with outlier weights and model errors."""
    variances = lambda whole: [part.noise.model_variance for part in whole.arms]
    weights = lambda whole: [part.noise.weight for part in whole.arms]
    noises = lambda whole: variances(whole) + weights(whole)

    def one(carry, count):
        z, state = carry
        values = density.values_at(z[0])
        found = eqx.tree_at(noises, likelihood, state).with_model_variance(values)
        # What a first guess takes for outliers are its own errors.
        weight = [
            jnp.where(count > 0, after, before)
            for after, before in zip(weights(found.with_weights(values)), weights(found))
        ]
        state = variances(found) + weight
        best = climb(density, eqx.tree_at(noises, likelihood, state), z)
        return (jnp.broadcast_to(best, z.shape), state), None

    # A loop, so that the climb is compiled once; later rounds start from as many copies of the best.
    (z, state), _ = jax.lax.scan(one, (starts, noises(likelihood)), jnp.arange(ROUNDS))
    return z[0], eqx.tree_at(noises, likelihood, state)


def spread(density, likelihood, z, normals, widen=WIDEN):
    """Points `(n, dim)` around `z`: `normals` `(n, dim)` in the Laplace approximation, widened to cover the tails."""
    return z + widen * normals @ root_of(covariance_of(density.information(z, likelihood))).T


def around(density, likelihood, full, z, points, config, batch_size=None) -> Localised:
    """The star with a local surrogate from spectra of the full emulator at `points` `(n, dim)` around `z`, compressed.

    `batch_size`: spectra that are computed together; all by default.
    """
    likelihood = likelihood.localised(surrogates(density, likelihood, full, points, config, batch_size))
    values = density.values_at(z)
    likelihood = settled(likelihood, values).with_model_errors(values)
    compressed = likelihood.compressed(values)
    z = climb(density, compressed, z[None])
    return Localised(z, density.information(z, compressed), compressed, likelihood)


def surrogates(density, likelihood, full, points, config, batch_size=None):
    """A `LocalSpectrum` for each of the star's spectra, from the full emulator at `points` `(n, dim)`."""
    values = jax.vmap(density.values_at)(points)
    found = []
    for part, own in likelihood.with_emulators(full).parts(values):
        parameters, flux = spectra(part, own, batch_size)
        found.append(fit_local(parameters, flux, _free(density, own), config.test, config.components))
    return tuple(found)


def spectra(part, values, batch_size=None) -> tuple[jax.Array, jax.Array]:
    """Local parameters `(n, n_parameters)` and normalised flux `(n, n_pix)` of one spectrum at `values`, each `(n,)` or a scalar."""
    n = max(jnp.size(v) for v in values.values())
    rows = jax.tree.map(lambda v: jnp.broadcast_to(v, (n,)), values)
    flux = jax.lax.map(part.normalised_flux, rows, batch_size=batch_size or n)
    return jax.vmap(part.local_parameters)(rows), flux


def _free(density, values):
    """Indices of the local parameters that vary over the draws."""
    moving = set(density.names) | ({"rv"} if any(n.startswith("rv_offset") for n in density.names) else set())
    moving |= {"vbroad"} if "log10_resolution" in moving else set()
    names = (*density.label_space.names, *motion(values))
    return np.flatnonzero([n in moving for n in names])
