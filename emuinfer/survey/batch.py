"""Many stars on the device at once: optimum, local surrogate, compressed likelihood, posterior, verification.

Each star goes through the steps of `inference.sample` (`inference/steps.py`), so that one compiled program serves all. What
is heavy (spectra of the emulator) is mapped over the stars one after another or a few at a time; what is light (sampling,
once compressed) runs for all of them in lock-step, with trajectories of one length, so that no star waits for another.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..inference import SamplingConfig, residuals_of, steps
from ..samplers.lockstep import lockstep
from ..samplers.optimise import covariance_of

WIDEN_AGAIN = 1.3  # width of the points of a second surrogate about draws of the posterior itself
LONGER = 5  # times the usual length, for stars whose chains have not mixed


class Stars(eqx.Module):
    """What differs between the stars of a batch."""

    flux: Float[Array, "n_stars n_pix"]
    variance: Float[Array, "n_stars n_pix"]
    level: Float[Array, "n_stars n_pix"]
    weight: Float[Array, "n_stars n_pix"]
    reference_ivar: Float[Array, "n_stars n_pix"]
    frame: Float[Array, " n_stars"]  # km/s
    beside: tuple = ()  # likelihoods of what else is known, with the stars along the first axis


@eqx.filter_jit
def fit_batch(density, base, full, stars: Stars, starts, normals, key, config: SamplingConfig):
    """Results of a batch as a dict of arrays with the stars along the first axis, and what the next functions need of them.

    `density`: the shared model's `Unconstrained`; `base`: its `PixelLikelihood`; `full`: the full emulator on the
    grid (`full_on_grid`); `starts` `(n_stars, dim)`; `normals` `(local, dim)`.
    """

    def prepare(one):
        star, start = one
        z, likelihood = steps.optimum(density, with_star(base, star), start[None])
        points = steps.spread(density, likelihood, z, normals)
        return _kept(density, steps.around(density, likelihood, full, z, points, config))

    prepared = _over_stars(prepare, (stars, starts), config.at_once)
    return _complete(density, base, full, stars, prepared, key, config)


@eqx.filter_jit
def fit_again(density, base, full, stars: Stars, weight, cloud, key, config: SamplingConfig):
    """As `fit_batch`, for stars whose surrogate does not hold: with a new one around draws `cloud` `(n_stars, local, dim)` of
    the first posterior, which the Gaussian approximation may miss."""

    def prepare(one):
        star, weight, cloud = one
        likelihood = with_star(base, star)
        likelihood = likelihood.with_noise(likelihood.noise.with_weight(weight))
        centre = cloud.mean(0)
        points = centre + WIDEN_AGAIN * (cloud - centre)
        return _kept(density, steps.around(density, likelihood, full, centre, points, config))

    prepared = _over_stars(prepare, (stars, weight, cloud), config.at_once)
    return _complete(density, base, full, stars, prepared, key, config)


def with_star(base, star):
    """The shared likelihood with one star's data."""
    mine = eqx.tree_at(
        lambda d: (d.flux, d.noise.variance, d.noise.level, d.noise.weight, d.noise.reference_ivar, d.forward.frame),
        base,
        (star.flux, star.variance, star.level, star.weight, star.reference_ivar, star.frame),
    )
    return dataclasses.replace(mine, beside=star.beside)


def _kept(density, found: steps.Localised) -> dict:
    """What is kept of one star: its compressed likelihood with optimum and covariance, its noise, facts about the fit."""
    likelihood, noise = found.likelihood, found.likelihood.noise
    values = density.values_at(found.z)
    used = noise.weight > 0
    residual = likelihood.flux - likelihood.model_flux(values)
    count = jnp.maximum(used.sum(dtype=jnp.float32), 1.0)
    # `lax.map` of several stars at once does not take empty arrays.
    factors = noise.factors if len(noise.factors) else jnp.zeros((1, len(noise.variance)))
    return {
        "state": (found.compressed, found.z, covariance_of(found.information)),
        "noise": (noise.model_variance, factors, noise.weight),
        "facts": {
            "chi2": jnp.sum(jnp.where(used, residual**2 / noise.variance, 0.0)) / count,
            "chi2_model": jnp.sum(noise.weight * residual**2 / noise.total(values)) / count,
            "down_weighted": jnp.sum(used & (noise.weight < 0.5), dtype=jnp.float32) / count,
            "pixels": used.sum(),
            "surrogate_error": jnp.sqrt((likelihood.forward.local_error**2).mean()),
            "outlier_weight": noise.weight,
            "residuals": residuals_of(likelihood, values),
        },
    }


def _complete(density, base, full, stars, prepared, key, config):
    """Sampling and verification of stars whose likelihood is compressed."""
    state = prepared["state"]
    drawn = _draw(density, state, key, config)
    out = {**drawn, **prepared["facts"]}

    def verify(one):
        star, compressed, draws, (variance, factors, weight) = one
        exact = with_star(base, star)
        noise = exact.noise.with_model_errors(variance, factors).with_weight(weight)
        exact = exact.with_noise(noise).with_emulators(full)
        ratio = lambda v: exact.log_likelihood(v) - compressed.log_likelihood(v)
        return jax.vmap(lambda v: ratio(density.complete(v)))(draws)

    if config.verify:
        step = max(1, config.chains * config.draws // config.verify)
        some = jax.tree.map(lambda v: v[:, ::step][:, : config.verify], drawn["values"])
        out["log_ratio"] = _over_stars(verify, (stars, state[0], some, prepared["noise"]), config.at_once)
    return out, state


@eqx.filter_jit
def sample_again(density, state, key, config: SamplingConfig):
    """The draws of some stars of a batch anew: longer by `LONGER`, and thinned to the same number."""
    longer = dataclasses.replace(config, warmup=LONGER * config.warmup, draws=LONGER * config.draws)
    return _draw(density, state, key, longer, thin=LONGER)


def _draw(density, state, key, config, thin=1):
    def one(state, key):
        compressed, z, covariance = state
        return lockstep(
            lambda x: density.log_density(x, compressed),
            z,
            covariance,
            key,
            chains=config.chains,
            warmup=config.warmup,
            draws=config.draws,
        )

    keys = jax.random.split(key, len(state[1]))
    positions, (_, acceptance, diverging, step_size) = jax.vmap(one)(state, keys)
    positions = positions[:, :, ::thin]
    flat = positions.reshape(len(positions), -1, positions.shape[-1])
    values = jax.vmap(jax.vmap(density.constrain))(flat)
    cloud = flat[:, :: max(1, flat.shape[1] // config.local)][:, : config.local]
    return {"values": values, "cloud": cloud, "acceptance": acceptance, "diverging": diverging, "step_size": step_size}


def _over_stars(function, arguments, at_once):
    """`function` of each star, `at_once` together."""
    n = jax.tree.leaves(arguments)[0].shape[0]
    if at_once == 1:
        return jax.lax.map(function, arguments)
    return jax.lax.map(function, arguments, batch_size=min(at_once, n))
