"""A model as `refine` sees it: prior and posterior densities of a flat vector on the whole real space, many rows at once.

Two kinds of models: ours (`SpectrumModel`: priors known by name) and any NumPyro model with its arguments. Both become a
pytree, a `Target`, whose arrays are the data: a program that was compiled for one star serves the next.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import SamplingError
from ..likelihoods import Likelihood, SpectrumModel, Unconstrained
from ..samplers import in_batches

BATCH = 128  # likelihoods that are computed together
DRAWN = 256  # draws of a prior that say where it lies


class Target(eqx.Module):
    """What compiled programs take of a model; `z` is a position `(dim,)`."""

    @abc.abstractmethod
    def constrain(self, z: Float[Array, " dim"]) -> Float[Array, " m"]:
        """The sampled parameters in their own units."""

    @abc.abstractmethod
    def log_prior(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        """Log density of the priors at a position, normalised."""

    @abc.abstractmethod
    def log_posterior(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        """Log of prior times likelihood at a position, up to a constant of the data."""

    def information(self, z: Float[Array, " dim"]) -> Float[Array, "dim dim"]:
        """Curvature of the log posterior: the negative Hessian, unless there is a Fisher matrix."""
        return -jax.hessian(self.log_posterior)(z)


class Problem(NamedTuple):
    """A model, on the host.

    - `sites`: name and shape of what is sampled; `names` `(m,)`: of all its elements in turn, those of arrays as `a[0]`.
    - `axes` `(m,)`: the coordinate of the position that belongs to an element alone, −1 where there is none (in a simplex, say).
    - `draw_prior(key, n)`: values `(n, m)`; `positions(values)`: `(n, dim)`, not finite outside the support.
    """

    sites: tuple[tuple[str, tuple[int, ...]], ...]
    names: tuple[str, ...]
    axes: np.ndarray
    target: Target
    draw_prior: Callable
    positions: Callable


class Rows(NamedTuple):
    """Draws, on the host in float64: positions `z` `(n, dim)`, values `x` `(n, m)`, the logarithm of `|dx/dz|` of each parameter
    that has a coordinate of its own `(n, m)`, and the two log densities `(n,)`."""

    z: np.ndarray
    x: np.ndarray
    log_jacobian: np.ndarray
    log_prior: np.ndarray
    log_posterior: np.ndarray


def evaluate(problem: Problem, z: np.ndarray) -> tuple[Rows, int]:
    """All that is to be known at positions `(n, dim)`, and at how many of those that are finite the likelihood is not.

    Where a position is not finite (outside the support of the priors), or the likelihood NaN or infinite, the posterior is zero.
    """
    z = np.asarray(z, np.float32)
    inside = np.isfinite(z).all(1)
    z = np.where(inside[:, None], z, np.float32(0))
    x, slope, prior, posterior = (np.asarray(a, float) for a in _evaluate(problem.target, jnp.asarray(z)))
    finite = np.isfinite(posterior) & np.isfinite(prior) & np.isfinite(x).all(1)
    bad = int((inside & ~finite & ~np.isneginf(posterior)).sum())
    with np.errstate(divide="ignore"):
        log_jacobian = np.log(np.abs(slope))
    posterior = np.where(inside & finite, posterior, -np.inf)
    return Rows(z.astype(float), x, log_jacobian, np.where(finite, prior, -np.inf), posterior), bad


def values_at(problem: Problem, z: np.ndarray) -> dict[str, np.ndarray]:
    """What is sampled at positions `(…, dim)`: name to values `(…, *shape)`."""
    flat = jnp.asarray(z.reshape(-1, z.shape[-1]), jnp.float32)
    x = np.asarray(_constrain(problem.target, flat), float).reshape(*z.shape[:-1], -1)
    edges = np.cumsum([0, *(int(np.prod(shape)) for _, shape in problem.sites)])
    return {
        name: x[..., a:b].reshape(*z.shape[:-1], *shape) for (name, shape), a, b in zip(problem.sites, edges, edges[1:])
    }


def log_target(z, target: Target):
    """`target.log_posterior(z)` in the order of a sampler's arguments: one function, whichever the model."""
    return target.log_posterior(z)


@eqx.filter_jit
def _constrain(target, rows):
    return jax.vmap(target.constrain)(rows)


@eqx.filter_jit
def _evaluate(target, rows):
    def one(z):
        x, slope = jax.jvp(target.constrain, (z,), (jnp.ones_like(z),))
        return x, slope, target.log_prior(z), target.log_posterior(z)

    return in_batches(one, rows, BATCH)


# Models of ours


class SpectrumTarget(Target):
    """The density of a `SpectrumModel` with a likelihood of its data."""

    density: Unconstrained
    likelihood: Likelihood

    def constrain(self, z):
        values = self.density.constrain(z)
        return jnp.stack([values[n] for n in self.density.names])

    def log_prior(self, z):
        return self.density.log_prior(z)

    def log_posterior(self, z):
        return self.density.log_density(z, self.likelihood)

    def information(self, z):
        return self.density.information(z, self.likelihood)


def spectrum_problem(model: SpectrumModel, density: Unconstrained, likelihood: Likelihood) -> Problem:
    """The `Problem` of one of our models with a likelihood of its data."""
    names = density.names
    priors = [model.all_priors[n] for n in names]

    def draw(key, n):
        keys = jax.random.split(key, len(names))
        return np.stack([np.asarray(p.sample(k, (n,)), float) for k, p in zip(keys, priors)], -1)

    axes = np.array([density.flat_names.index(n) for n in names])
    positions = lambda x: density.positions(dict(zip(names, np.asarray(x, float).T)))
    return Problem(tuple((n, ()) for n in names), names, axes, SpectrumTarget(density, likelihood), draw, positions)


# Any NumPyro model


class NumPyroTarget(Target):
    """A NumPyro model with its arguments. `sites`: name, shape and unconstrained shape of each latent site; positions are counted
    from `shift` in units of `scale`, both `(dim,)`, those of the prior on the whole real space."""

    model: Callable = eqx.field(static=True)
    sites: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = eqx.field(static=True)
    arguments: tuple
    keywords: dict
    transforms: dict[str, Any]
    shift: Float[Array, " dim"]
    scale: Float[Array, " dim"]

    def values(self, z):
        """The sites by name, and the log of the Jacobian determinant of all transforms."""
        values, log_jacobian, first = {}, jnp.sum(jnp.log(self.scale)), 0
        z = self.shift + self.scale * z
        for name, _, shape in self.sites:
            size = int(np.prod(shape))
            y, first = z[first : first + size].reshape(shape), first + size
            values[name] = self.transforms[name](y)
            log_jacobian = log_jacobian + jnp.sum(self.transforms[name].log_abs_det_jacobian(y, values[name]))
        return values, log_jacobian

    def constrain(self, z):
        return jnp.concatenate([v.reshape(-1) for v in self.values(z)[0].values()])

    def _densities(self, z):
        from numpyro.infer.util import log_density

        values, log_jacobian = self.values(z)
        joint, trace = log_density(self.model, self.arguments, self.keywords, values)
        prior = sum(jnp.sum(trace[name]["fn"].log_prob(value)) for name, value in values.items())
        return prior + log_jacobian, joint + log_jacobian

    def log_prior(self, z):
        return self._densities(z)[0]

    def log_posterior(self, z):
        return self._densities(z)[1]


def numpyro_problem(model: Callable, arguments: tuple, keywords: dict) -> Problem:
    """The `Problem` of `model(*arguments, **keywords)`; arrays among the arguments are those of compiled programs.

    **Raises:** `SamplingError` on discrete sites, on supports that change from draw to draw, on models without latent sites.
    """
    from numpyro.distributions import biject_to

    first, second = (_latent(model, arguments, keywords, seed) for seed in (0, 1))
    if not first:
        raise SamplingError(f"{_called(model)} samples nothing: there is no posterior of it to refine.")
    sites, transforms, names, axes, at = [], {}, [], [], 0
    for name, site in first.items():
        support, shape = site["fn"].support, jnp.shape(site["value"])
        if support.is_discrete:
            raise SamplingError(
                f"'{name}' of {_called(model)} is discrete; `refine` samples continuous parameters only."
            )
        other = second[name]["fn"].support
        if not jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), support, other)):
            raise SamplingError(
                f"The support of '{name}' of {_called(model)} depends on other parameters. Sample a parameter of fixed "
                "support, and compute this one from it with numpyro.deterministic."
            )
        while hasattr(support, "base_constraint"):  # of `to_event` and `plate`: element by element all the same
            support = support.base_constraint
        transform = biject_to(support)
        raw = tuple(transform.inverse_shape(shape))
        sites.append((name, shape, raw))
        transforms[name] = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), transform)
        elementwise = transform.domain.event_dim == 0
        names += [name + (f"[{', '.join(map(str, i))}]" if i else "") for i in np.ndindex(shape)]
        axes += list(range(at, at + int(np.prod(shape)))) if elementwise else [-1] * int(np.prod(shape))
        at += int(np.prod(raw))
    as_arrays = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf) if eqx.is_array_like(leaf) else leaf, tree)
    target = NumPyroTarget(
        model, tuple(sites), as_arrays(arguments), as_arrays(keywords), transforms, jnp.zeros(at), jnp.ones(at)
    )
    draw = lambda key, n: np.asarray(_draw_prior(target, jax.random.split(key, n)), float)
    target = eqx.tree_at(
        lambda t: (t.shift, t.scale), target, _location_scale(_positions(target, draw(jax.random.key(0), DRAWN)))
    )
    shapes = tuple((name, shape) for name, shape, _ in sites)
    return Problem(shapes, tuple(names), np.array(axes), target, draw, lambda x: _positions(target, x))


def _location_scale(z):
    """Median and standard deviation of positions `(n, dim)` that are finite, float32."""
    z = z[np.isfinite(z).all(1)]
    if len(z) < 2:
        raise SamplingError("Draws of the model's prior lie outside its own support: check its distributions.")
    return jnp.asarray(np.median(z, 0), jnp.float32), jnp.asarray(np.maximum(z.std(0), 1e-6), jnp.float32)


def _latent(model, arguments, keywords, seed):
    from numpyro import handlers

    with handlers.seed(rng_seed=seed):
        trace = handlers.trace(model).get_trace(*arguments, **keywords)
    return {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}


@eqx.filter_jit
def _draw_prior(target, keys):
    from numpyro import handlers

    def one(key):
        with handlers.seed(rng_seed=key):
            trace = handlers.trace(target.model).get_trace(*target.arguments, **target.keywords)
        return jnp.concatenate([trace[name]["value"].reshape(-1) for name, _, _ in target.sites])

    return jax.vmap(one)(keys)


@eqx.filter_jit
def _raw(target, x):
    first, found = 0, []
    for name, shape, _ in target.sites:
        size = int(np.prod(shape))
        value, first = x[:, first : first + size].reshape(-1, *shape), first + size
        found.append(jax.vmap(target.transforms[name].inv)(value).reshape(len(x), -1))
    return (jnp.concatenate(found, -1) - target.shift) / target.scale


def _positions(target, x):
    return np.asarray(_raw(target, jnp.asarray(x, jnp.float32)), float)


def _called(model):
    return f"The model {getattr(model, '__name__', type(model).__name__)}"
