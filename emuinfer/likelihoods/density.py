"""A model as a log density on the whole real space, with its Fisher information: what optimisers and samplers take."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import LabelError
from .base import Likelihood, SpectrumModel
from .forward_model import scaled_labels
from .priors import domain_penalty

MARGIN = 0.02  # of a bounded parameter's range: starts keep this far from its ends
SMALLEST = 0.05  # start of a parameter that must be positive
LN_2_PI = float(np.log(2 * np.pi))
# What a density takes from a model.
CALLED = ("__call__", "complete", "domain_wall", "scaled_labels", "fixed", "all_priors")


@jax.tree_util.register_pytree_node_class
class Unconstrained:
    """A `StellarModel` or `JointModel` as a log density of a flat vector on the whole real space.

    Bounded parameters pass through a logistic function, positive ones through an exponential, those with a Gaussian prior (in
    kelvin, say) are counted from its mean in its standard deviations: optimisers and samplers expect coordinates of order 1.
    The density is that of the flat vector, normalised over the priors, as evidences need it, up to the constant of the data.

    Parameters with equal kinds of priors are transformed together, as vectors: written out one by one, as NumPyro does, the
    priors of 15 parameters take ten times as many operations as the likelihood of a compressed star, and most of the
    compilation.

    It is a pytree: the numbers of the priors (ends, means, scales) and the fixed values are its leaves, so that a program
    compiled for one star serves others whose priors are of the same kinds. Priors of other kinds, and models of which a
    subclass changes `CALLED`, are compared by identity.

    **Raises:** `LabelError` where a subclass' `__call__` samples something that is not among its `names`.
    """

    def __init__(self, model: SpectrumModel):
        self.names, self.label_space = model.names, model.label_space
        self._groups = _grouped({n: model.all_priors[n] for n in self.names})
        self._fixed = {n: np.float32(v) for n, v in model.fixed.items()}
        self._model = model if _own(model, CALLED) else None
        self._extended = _own(model, CALLED[:1])
        if self._extended:
            _check_sites(model)
        slope = np.concatenate([np.log(10.0) * np.asarray(g.unit, float) for g in self._groups])
        jitter = np.array([n.startswith("log10_jitter") for g in self._groups for n in g.names])
        self._prior_curvature = np.where(jitter, 2 * slope**2, 0.5).astype(np.float32)

    def tree_flatten(self):
        """Numbers, and what is static."""
        static = self.names, self.label_space, self._model, self._extended
        return (self._groups, self._fixed, self._prior_curvature), static

    @classmethod
    def tree_unflatten(cls, static, numbers):
        """The reverse."""
        density = object.__new__(cls)
        density.names, density.label_space, density._model, density._extended = static
        density._groups, density._fixed, density._prior_curvature = numbers
        return density

    @property
    def dim(self) -> int:
        """Number of sampled parameters."""
        return len(self.names)

    def log_density(self, z, likelihood: Likelihood):
        """Log posterior density at a position `(dim,)`."""
        values, prior, jacobian = self._unpacked(z)
        if self._extended:
            from numpyro.infer.util import log_density

            return log_density(self._model, (_Undeclared(likelihood),), {}, values)[0] + jacobian
        values = self.complete(values)
        return prior + jacobian + self._wall(values) + likelihood.log_likelihood(values)

    def _wall(self, values):
        if self._model is not None:
            return self._model.domain_wall(values)
        return domain_penalty(self.label_space, scaled_labels(self.label_space, values))

    def _unpacked(self, z):
        """Parameters by name, the log of their prior, and the log of the transforms' Jacobian determinant."""
        values: dict = {}
        prior, jacobian, first = 0.0, 0.0, 0
        for group in self._groups:
            x, log_prior, log_jacobian = group.forward(z[first : first + len(group.names)])
            values |= {n: x[i] for i, n in enumerate(group.names)}
            prior, jacobian, first = prior + log_prior, jacobian + log_jacobian, first + len(group.names)
        return values, prior, jacobian

    def information(self, z, likelihood: Likelihood):
        """Fisher information of the flat position, `(dim, dim)`, with the continuum projected out.

        Half a unit per parameter stands in for the curvature of the priors, whose logit transforms have at most that. For
        the log of a jitter that the data do not need, the likelihood falls as exp(−A j²) beside a prior that grows as j:
        there the curvature at the mode is twice the square of the slope. Much cheaper to compile and to evaluate than a
        Hessian, and never indefinite.
        """
        return jnp.diag(self._prior_curvature) + likelihood.information(self.values_at, z)

    def values_at(self, z) -> dict:
        """All parameters, fixed ones too, in their own units at one position `(dim,)`."""
        return self.complete(self.constrain(z))

    def complete(self, values: dict) -> dict:
        """`values` of the sampled parameters with the fixed ones added."""
        return {**self._fixed, **values} if self._model is None else self._model.complete(values)

    def constrain(self, z) -> dict:
        """Parameters in their own units at one position `(dim,)`."""
        values = self._unpacked(z)[0]
        return {name: values[name] for name in self.names}

    def unconstrain(self, values: dict) -> np.ndarray:
        """Positions `(n, dim)` of parameters given as name -> `(n,)`, kept strictly inside their support."""
        return np.concatenate([g.inverse(g.inside(x)) for g, x in self._stacked(values)], -1)

    def positions(self, values: dict) -> np.ndarray:
        """As `unconstrain`, of the values as they are; not finite where they lie outside the support of their priors."""
        with np.errstate(all="ignore"):
            return np.concatenate([g.inverse(x) for g, x in self._stacked(values)], -1)

    def _stacked(self, values):
        return [(g, np.stack([np.asarray(values[n], float) for n in g.names], -1)) for g in self._groups]

    @property
    def flat_names(self) -> tuple[str, ...]:
        """The parameters in the order of the flat position."""
        return tuple(n for g in self._groups for n in g.names)

    def log_prior(self, z):
        """Log of the priors as a density of the flat position, normalised, without the wall around the domain."""
        _, prior, jacobian = self._unpacked(z)
        return prior + jacobian


def log_posterior(z, data):
    """`density.log_density(z, likelihood)` of `data`, `(density, likelihood)`: one function for samplers, whichever the star."""
    density, likelihood = data
    return density.log_density(z, likelihood)


def _own(model, names) -> bool:
    """Whether a subclass, or the object itself, has other `names` than a `SpectrumModel`."""
    return any(n in vars(model) or getattr(type(model), n) is not getattr(SpectrumModel, n) for n in names)


class _Undeclared(Likelihood):
    """A likelihood that is one factor to NumPyro, relative to its constant: no float32 digits go to that."""

    inner: Likelihood

    def log_likelihood(self, values):
        return self.inner.log_likelihood(values)

    def information(self, values_at, z):
        return self.inner.information(values_at, z)

    def declare(self, values, observe=True, site="flux"):
        import numpyro

        numpyro.factor(site, self.inner.log_likelihood(values))


def _check_sites(model):
    """Raise `LabelError` where `model` samples what it does not name."""
    from numpyro import handlers

    sites = {}

    def look(data):
        with handlers.seed(rng_seed=0), handlers.trace() as trace:
            model(data)
        sites.update(trace)
        return 0.0

    jax.eval_shape(look, model.likelihood)
    if more := [n for n, s in sites.items() if s["type"] == "sample" and not s["is_observed"] and n not in model.names]:
        raise LabelError(
            f"{type(model).__name__} samples {', '.join(more)}, which `sample` cannot: it samples {', '.join(model.names)}. Add "
            "factors of these (`numpyro.factor`), or hand the model to numpyro.infer.MCMC."
        )


# Parameters with one kind of prior; their numbers are arrays of float32 `(n,)`. `forward(z)`, `(n,)`: values, log prior, log of
# the Jacobian; of NumPy arrays `(…, n)`, `inverse(x)`, and `inside(x)`, away from the ends; `unit` `(n,)`: of a linear transform.


class _Group(eqx.Module):
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def unit(self):
        return np.ones(len(self.names), np.float32)

    def inside(self, x):
        return x


class _Bounded(_Group):
    """Flat priors between bounds."""

    low: Float[np.ndarray, " n"]
    width: Float[np.ndarray, " n"]
    log_width: np.float32

    def __init__(self, names, priors):
        low, width = (np.array(v, float) for v in zip(*((p.low, p.high - p.low) for p in priors)))
        self.names, self.low, self.width = names, low.astype(np.float32), width.astype(np.float32)
        self.log_width = np.float32(np.log(width).sum())

    def forward(self, z):
        away = jnp.abs(z)
        slope = -away - 2 * jnp.log1p(jnp.exp(-away))  # log of the logistic function's slope
        return self.low + self.width * jax.nn.sigmoid(z), -self.log_width, jnp.sum(slope) + self.log_width

    def inside(self, x):
        return self.low + self.width * np.clip((x - self.low) / self.width, MARGIN, 1 - MARGIN)

    def inverse(self, x):
        p = (x - self.low) / self.width
        return np.log(p / (1 - p))


class _Positive(_Group):
    """Half-normal priors."""

    scale: Float[np.ndarray, " n"]
    constant: np.float32

    def __init__(self, names, priors):
        scale = np.array([float(p.scale) for p in priors])
        self.names, self.scale = names, scale.astype(np.float32)
        self.constant = np.float32(np.sum(0.5 * np.log(2 / np.pi) - np.log(scale)))

    def forward(self, z):
        x = jnp.exp(z)
        return x, self.constant - 0.5 * jnp.sum((x / self.scale) ** 2), jnp.sum(z)

    def inside(self, x):
        return np.maximum(x, SMALLEST)

    def inverse(self, x):
        return np.log(x)


class _Gaussian(_Group):
    """Normal priors."""

    mean: Float[np.ndarray, " n"]
    sd: Float[np.ndarray, " n"]
    log_sd: np.float32

    def __init__(self, names, priors):
        mean, sd = (np.array([float(getattr(p, k)) for p in priors]) for k in ("loc", "scale"))
        self.names, self.mean, self.sd = names, mean.astype(np.float32), sd.astype(np.float32)
        self.log_sd = np.float32(np.log(sd).sum())

    @property
    def unit(self):
        return self.sd

    def forward(self, z):
        constant = np.float32(0.5 * len(self.names) * LN_2_PI)
        return self.mean + self.sd * z, -0.5 * jnp.sum(z**2) - constant - self.log_sd, self.log_sd

    def inverse(self, x):
        return (x - self.mean) / self.sd


class _Itself:
    """Something that is static, and compared by identity."""

    def __init__(self, thing):
        self.thing = thing

    def __eq__(self, other):
        return isinstance(other, _Itself) and self.thing is other.thing

    def __hash__(self):
        return id(self.thing)


class _Other(_Group):
    """One parameter with any other prior, by NumPyro's transform of its support."""

    held: _Itself = eqx.field(static=True)
    shift: np.float32
    sd: np.float32
    log_sd: np.float32

    def __init__(self, names, priors):
        self.names, self.held = names, _Itself(*priors)
        shift, sd = _location_scale(self.prior)
        self.shift, self.sd, self.log_sd = np.float32(shift), np.float32(sd), np.float32(np.log(sd))

    @property
    def prior(self):
        return self.held.thing

    @property
    def unit(self):
        return np.full(1, self.sd)

    @property
    def transform(self):
        from numpyro.distributions import biject_to

        return biject_to(self.prior.support)

    def forward(self, z):
        y = self.shift + self.sd * z[0]
        x = self.transform(y)
        return x[None], self.prior.log_prob(x), self.transform.log_abs_det_jacobian(y, x) + self.log_sd

    def inside(self, x):
        low, high = (getattr(self.prior.support, k, None) for k in ("lower_bound", "upper_bound"))
        if low is not None and high is not None:
            return np.clip(x, low + MARGIN * (high - low), high - MARGIN * (high - low))
        return x if low is None else np.maximum(x, low + SMALLEST)

    def inverse(self, x):
        y = np.asarray(self.transform.inv(jnp.asarray(x, jnp.float32)), float)
        return (y - self.shift) / self.sd


def _grouped(priors: dict) -> list:
    """The groups of the flat vector, in its order."""
    import numpyro.distributions as dist

    kinds = {dist.Uniform: _Bounded, dist.HalfNormal: _Positive, dist.Normal: _Gaussian}
    found: dict = {}
    for name, prior in priors.items():
        kind = kinds.get(type(prior), name)  # a group of its own
        found.setdefault(kind, []).append(name)
    return [
        (kind if isinstance(kind, type) else _Other)(tuple(names), [priors[n] for n in names])
        for kind, names in found.items()
    ]


def _location_scale(prior):
    """Mean and standard deviation of a prior on the whole line, 0 and 1 for all others."""
    bounded = hasattr(prior.support, "lower_bound") or hasattr(prior.support, "upper_bound")
    location, scale = (0.0, 1.0) if bounded else (float(prior.mean), float(prior.variance) ** 0.5)
    return (location, scale) if np.isfinite([location, scale]).all() else (0.0, 1.0)
