"""Many stars on the device at once: optimum, local surrogate, compressed likelihood, posterior, verification.

Each star goes through the steps of `inference.sample`, but in pure JAX and without a decision that depends on the star,
so that one compiled program serves all. What is heavy (spectra of the emulator) is mapped over the stars one after
another or a few at a time; what is light (sampling, once compressed) runs for all of them in lock-step, with
trajectories of one length, so that no star waits for another.
"""

import dataclasses
import functools

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..emulators.local import fit_local_device
from ..likelihoods.compressed import compress
from ..samplers.optimise import _ascend

WIDEN = 1.6  # width of the draws behind the local surrogate, in posterior standard deviations
WIDEN_AGAIN = 1.3  # the same about draws of the posterior itself
LEAPFROG = 4  # steps of a trajectory
LONGEST = 1.6 / LEAPFROG  # longest step: a quarter of the period of a Gaussian's trajectory in all
JITTER = 0.3
TARGET = 0.85
SEGMENT = 25  # steps between changes of the mass matrix
SHRINK = 10.0  # weight of the Gaussian approximation in it, in draws per dimension
LONGER = 5  # times the usual length, for stars whose chains have not mixed
ROUNDS = 3  # of outlier weights and model errors at the optimum


class Stars(eqx.Module):
    """What differs between the stars of a batch: `(n_stars, n_pix)` each, and `frame` `(n_stars,)` in km/s."""

    flux: jax.Array
    variance: jax.Array
    level: jax.Array
    weight: jax.Array
    reference_ivar: jax.Array
    frame: jax.Array


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of a survey run.

    - `chains`, `warmup`, `draws`: chains per star; steps per chain.
    - `local`, `test`, `components`: spectra of the full emulator behind each star's local surrogate, how many of them only
      measure its error, and its principal components.
    - `verify`: draws checked against the full emulator over all pixels; 0 skips it.
    - `robust`: down-weight outliers.
    - `at_once`: stars whose spectra are computed together: 1 on a CPU, tens on a GPU with memory for them.
    """

    chains: int = 4
    warmup: int = 150
    draws: int = 500
    local: int = 240
    test: int = 40
    components: int = 16
    verify: int = 64
    robust: bool = True
    at_once: int = 1


@eqx.filter_jit
def fit_batch(model_of, density, base, full, stars: Stars, starts, normals, key, settings: Settings):
    """Results of a batch as a dict of arrays with the stars along the first axis, and what the next functions need of them.

    `model_of`: the shared `StellarSpectrum` wrapped in a function (static); `density`: its `Unconstrained`; `base`: its
    `StarData`; `full`: the full emulator on the grid; `starts` `(n_stars, dim)`; `normals` `(local, dim)`.
    """
    model = model_of()

    def prepare(one):
        star, z0 = one
        z, data = _optimum(model, density, _with_star(base, star), z0, settings)
        root = _root(_covariance(density.information(z, data)))
        points = z + WIDEN * normals @ root.T
        return _around(model, density, data, full, z, points, settings)

    prepared = _over_stars(prepare, (stars, starts), settings.at_once)
    return _complete(model, density, base, full, stars, prepared, key, settings)


@eqx.filter_jit
def fit_again(model_of, density, base, full, stars: Stars, weight, cloud, key, settings: Settings):
    """As `fit_batch`, for stars whose surrogate does not hold: with a new one around draws `cloud` `(n_stars, local, dim)` of
    the first posterior, which the Gaussian approximation may miss."""
    model = model_of()

    def prepare(one):
        star, weight, cloud = one
        data = eqx.tree_at(lambda d: d.weight, _with_star(base, star), weight)
        centre = cloud.mean(0)
        return _around(model, density, data, full, centre, centre + WIDEN_AGAIN * (cloud - centre), settings)

    prepared = _over_stars(prepare, (stars, weight, cloud), settings.at_once)
    return _complete(model, density, base, full, stars, prepared, key, settings)


def _with_star(base, star):
    return eqx.tree_at(
        lambda d: (d.flux, d.variance, d.level, d.weight, d.reference_ivar, d.frame),
        base,
        (star.flux, star.variance, star.level, star.weight, star.reference_ivar, star.frame),
    )


def _complete(model, density, base, full, stars, prepared, key, settings):
    """Sampling and verification of stars whose likelihood is compressed."""
    compressed, z, covariance, fit, noise, error = prepared
    state = (compressed, z, covariance)
    drawn = _draw(density, base, state, key, settings)
    out = {**drawn, "surrogate_error": jnp.sqrt((error**2).mean(-1)), "outlier_weight": noise[2], **fit}

    def verify(one):
        star, small, draws, extra = one
        data = eqx.tree_at(lambda d: (d.model_variance, d.factors, d.weight), _with_star(base, star), extra)
        data = eqx.tree_at(lambda d: d.emulator, data, full, is_leaf=lambda x: x is data.emulator)
        ratio = lambda v: model.log_likelihood(v, data)[0] - model.log_likelihood(v, small)[0]
        return jax.vmap(lambda v: ratio(model.complete(v)))(draws)

    if settings.verify:
        step = max(1, settings.chains * settings.draws // settings.verify)
        some = jax.tree.map(lambda v: v[:, ::step][:, : settings.verify], drawn["values"])
        out["log_ratio"] = _over_stars(verify, (stars, compressed, some, noise), settings.at_once)
    return out, state


@eqx.filter_jit
def sample_again(density, base, state, key, settings: Settings):
    """The draws of some stars of a batch anew: longer by `LONGER`, and thinned to the same number."""
    longer = dataclasses.replace(settings, warmup=LONGER * settings.warmup, draws=LONGER * settings.draws)
    return _draw(density, base, state, key, longer, thin=LONGER)


def _draw(density, base, state, key, settings, thin=1):
    keys = jax.random.split(key, len(state[1]))
    positions, (lp, acceptance, diverging, step_size) = jax.vmap(functools.partial(_sample, density, settings))(
        *state, keys
    )
    positions = positions[:, :, ::thin]
    flat = positions.reshape(len(positions), -1, positions.shape[-1])
    values = jax.vmap(jax.vmap(density.constrain))(flat)
    cloud = flat[:, :: max(1, flat.shape[1] // settings.local)][:, : settings.local]
    return {"values": values, "cloud": cloud, "acceptance": acceptance, "diverging": diverging, "step_size": step_size}


def _over_stars(function, arguments, at_once):
    """`function` of each star, `at_once` together."""
    n = jax.tree.leaves(arguments)[0].shape[0]
    return (
        jax.lax.map(function, arguments)
        if at_once == 1
        else jax.lax.map(function, arguments, batch_size=min(at_once, n))
    )


def _noise(model, density, z, data, settings):
    """The variance of the model's errors (without factors) and the outlier weights at `z`."""
    values = model.complete(density.constrain(z))
    data = eqx.tree_at(lambda d: d.model_variance, data, model.model_errors(values, data)[0])
    return eqx.tree_at(lambda d: d.weight, data, model.reweight(values, data)) if settings.robust else data


def _climb(density, start, data, steps):
    climb = functools.partial(_ascend, metric=density.information, max_steps=steps, tolerance=1e-3, max_move=3.0)
    return climb(lambda x: density.log_density(x, data), start[None], data)[0][0]


def _optimum(model, density, data, start, settings):
    """The optimum from `start`; outlier weights and model errors are found on the way."""
    untouched = data.weight

    def one(carry, count):
        z, variance, weight = carry
        found = _noise(
            model, density, z, eqx.tree_at(lambda d: (d.model_variance, d.weight), data, (variance, weight)), settings
        )
        # What a first guess takes for outliers are its own errors.
        weight = jnp.where(count > 0, found.weight, untouched)
        found = eqx.tree_at(lambda d: d.weight, found, weight)
        return (_climb(density, z, found, 10), found.model_variance, weight), None

    first = (start, jnp.zeros_like(data.variance), untouched)
    # A loop, so that the climb is compiled once.
    (z, variance, weight), _ = jax.lax.scan(one, first, jnp.arange(ROUNDS))
    return z, eqx.tree_at(lambda d: (d.model_variance, d.weight), data, (variance, weight))


def _covariance(information, floor=1e-4):
    """The inverse of an information matrix, made positive definite as by `samplers.laplace_covariance`."""
    information = jnp.where(jnp.isfinite(information), information, 0.0)
    information = 0.5 * (information + information.T)
    diagonal = jnp.abs(jnp.diagonal(information))
    scale = 1.0 / jnp.sqrt(jnp.maximum(diagonal, 1e-8 * jnp.max(diagonal) + 1e-20))
    values, vectors = jnp.linalg.eigh(information * scale[:, None] * scale)
    return (vectors / jnp.maximum(jnp.abs(values), floor)) @ vectors.T * scale[:, None] * scale


def _root(covariance):
    """A lower triangular root; where rounding left the matrix indefinite, with the smallest addition that helps."""
    scale = jnp.sqrt(jnp.diagonal(covariance))
    unit = covariance / scale[:, None] / scale
    eye = jnp.eye(len(scale))
    roots = jnp.stack([jnp.linalg.cholesky(unit + eps * eye) for eps in (1e-6, 1e-3)])
    return scale[:, None] * jnp.where(jnp.isfinite(roots[0]).all(), roots[0], roots[1])


def _around(model, density, data, full, z, points, settings):
    """What `_finish` gives, and the surrogate's error, with a `LocalSpectrum` from spectra of the full emulator at `points`
    `(local, dim)` around `z`."""
    values = jax.vmap(density.constrain)(points)
    whole = eqx.tree_at(lambda d: d.emulator, data, full, is_leaf=lambda x: x is data.emulator)
    spectra = jax.vmap(lambda v: model.normalised_flux(model.complete(v), whole))(values)
    parameters = jax.vmap(lambda v: model.local_parameters(model.complete(v)))(values)
    free = np.array([n in model.names for n in (*model.label_space.names, "rv", "vbroad", "vsini")])
    free = np.flatnonzero(free[: parameters.shape[1]])
    local = fit_local_device(parameters, spectra, free, settings.test, settings.components)
    data = eqx.tree_at(lambda d: d.emulator, data, local, is_leaf=lambda x: x is data.emulator)
    data = _noise(model, density, z, data, settings)
    return (*_finish(model, density, data, z), local.error)


def _finish(model, density, data, z):
    """Compressed likelihood, its optimum and covariance there, and facts about the fit."""
    values = model.complete(density.constrain(z))
    variance, factors, _ = model.model_errors(values, data)
    if not len(factors):
        factors = jnp.zeros((1, len(variance)))  # `lax.map` of several stars at once does not take empty arrays
    data = eqx.tree_at(lambda d: (d.model_variance, d.factors), data, (variance, factors))
    flux = model.normalised_flux(values, data)
    coefficients = model.log_likelihood(values, data)[1]
    star = compress(data.emulator, data, coefficients, flux)
    z = _climb(density, z, star, 12)
    covariance = _covariance(density.information(z, star))
    used = data.weight > 0
    residual = data.flux - flux * data.continuum(coefficients)
    count = jnp.maximum(used.sum(), 1)
    fit = {
        "chi2": jnp.sum(jnp.where(used, residual**2 / data.variance, 0.0)) / count,
        "chi2_model": jnp.sum(data.weight * residual**2 / model.variance(values, data)) / count,
        "down_weighted": jnp.sum(used & (data.weight < 0.5)) / count,
        "pixels": used.sum(),
    }
    return star, z, covariance, fit, (variance, factors, data.weight)


def _sample(density, settings, star, z, covariance, key):
    """Draws `(chains, draws, dim)` of one compressed star, and (log density, acceptance, divergences, step size).

    Segments of `SEGMENT` steps; after each of the warm-up the step size and the mass matrix, which is shrunk towards the
    Gaussian approximation, are those of all draws of all chains so far.
    """
    kernel = blackjax.hmc.build_kernel()
    dim, chains = len(z), settings.chains
    warm, segments = -(-settings.warmup // SEGMENT), -(-settings.draws // SEGMENT)
    first = _root(covariance)

    def segment(carry, inputs):
        z, root, log_step, moments = carry
        key, number = inputs
        adapt = number < warm
        target = lambda x: density.log_density(root @ x, star)

        def step(carry, key):
            state, log_step, average, i = carry
            jitter, key = jax.random.split(key)
            sizes = jnp.exp(log_step) * jax.random.uniform(jitter, (chains,), minval=1 - JITTER, maxval=1.0)
            move = lambda k, s, e: kernel(k, s, target, e, jnp.ones(dim), LEAPFROG)
            state, info = jax.vmap(move)(jax.random.split(key, chains), state, sizes)
            accepted = jnp.nan_to_num(info.acceptance_rate).mean()
            # Robbins & Monro (1951) on the logarithm of the step, and the mean over the later half.
            changed = log_step + (accepted - TARGET) / jnp.sqrt(1.0 + 0.3 * (i + 0.5 * SEGMENT * number))
            log_step = jnp.where(adapt, jnp.minimum(changed, np.log(LONGEST)), log_step)
            average = average + jnp.where(i >= SEGMENT // 2, log_step / (SEGMENT - SEGMENT // 2), 0.0)
            return (state, log_step, average, i + 1.0), (
                state.position @ root.T,
                state.logdensity,
                accepted,
                info.is_divergent,
            )

        u = jax.scipy.linalg.solve_triangular(root, z.T, lower=True).T
        state = jax.vmap(lambda x: blackjax.hmc.init(x, target))(u)
        carry = (state, log_step, jnp.float32(0), jnp.float32(0))
        (_, _, average, _), record = jax.lax.scan(step, carry, jax.random.split(key, SEGMENT))
        positions = record[0]
        log_step = jnp.where(adapt, average, log_step)
        # Draws of the first segment may still be on their way.
        use = adapt & (number > 0)
        moments = jax.tree.map(
            lambda new, old: jnp.where(use, new, old), _add(moments, positions.reshape(-1, dim)), moments
        )
        n, _, squares = moments
        prior = SHRINK * dim
        root = jnp.where(use, _root((squares + prior * covariance) / (n + prior)), root)
        return (positions[-1], root, log_step, moments), record

    start = z + jax.random.normal(jax.random.fold_in(key, 0), (chains, dim)) @ first.T
    moments = (jnp.float32(0), z, jnp.zeros((dim, dim)))
    carry = (start, first, jnp.log(jnp.float32(LONGEST)), moments)
    keys = jax.random.split(jax.random.fold_in(key, 1), warm + segments)
    (_, _, log_step, _), record = jax.lax.scan(segment, carry, (keys, jnp.arange(warm + segments)))
    # (segments, SEGMENT, chains, …) to (draws, chains, …), without the warm-up
    positions, lp, accepted, diverging = (a[warm:].reshape(-1, *a.shape[2:])[: settings.draws] for a in record)
    return jnp.swapaxes(positions, 0, 1), (jnp.swapaxes(lp, 0, 1), accepted.mean(), diverging.sum(), jnp.exp(log_step))


def _add(moments, x):
    """Count, mean and sum of squares about the mean `(dim, dim)` with the draws `x` `(n, dim)` added."""
    n, mean, squares = moments
    m = jnp.float32(len(x))
    centre = x.mean(0)
    away, step = x - centre, centre - mean
    total = n + m
    return total, mean + step * m / total, squares + away.T @ away + jnp.outer(step, step) * n * m / total
