"""Default priors of a stellar fit, and the soft walls of an emulator's domain."""

import functools
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import LabelError
from ..posteriors import Prior

BROADENING = {"vbroad": ("vbroad",), "vsini": ("vsini",), "both": ("vbroad", "vsini"), "none": ()}  # which are free
WIDTHS = {"vbroad": 10.0, "vsini": 30.0}  # km/s, of half-normal priors
JITTER = 0.02  # of the continuum, the same
RV_HALF_WIDTH = 20.0  # km/s about the cross-correlation's velocity, where a flat prior of `rv` ends
RV_ROOM = (
    25.0  # km/s about it, over which the pixels must be determined: the prior, and what the sampler's steps pass over
)
RESOLUTION_SD = 0.15  # of log10 of a fitted resolving power, about the one stated
NUISANCE_UNITS = {
    "rv": "km / s",
    "vbroad": "km / s",
    "vsini": "km / s",
    "log10_jitter": "",
    "log10_resolution": "",
    "a_k": "mag",
}
WALL = 0.01  # standard deviation of the soft wall outside the domain, in units of a label's half-width


@functools.cache  # one object for all models, whose programs are then the same
def jitter_prior(scale: float):
    """Prior of log10 of a jitter that is half-normal with standard deviation `scale`.

    On the whole real line and without a bound, at which a jitter of zero, the usual case, would pile up.
    """
    import numpyro.distributions as dist

    class Log10HalfNormal(dist.Distribution):
        support = dist.constraints.real

        def sample(self, key, sample_shape=()):
            return jnp.log10(scale * jnp.abs(jax.random.normal(key, sample_shape)) + 1e-30)

        def log_prob(self, value):
            jitter = 10.0**value / scale
            return 0.5 * np.log(2 / np.pi) - 0.5 * jitter**2 + jnp.log(jitter) + np.log(np.log(10.0))

        def __reduce__(self):  # pickle does not find classes made in functions
            return jitter_prior, (scale,)

        # Moments of log10 |N(0, scale²)|, from those of the log of a chi-square variable with one degree of freedom.
        mean = np.log10(scale) - 0.5 * (np.euler_gamma + np.log(2)) / np.log(10)
        variance = np.pi**2 / 8 / np.log(10) ** 2

    return Log10HalfNormal()


def default_nuisance_priors(broadening: str) -> dict:
    """Priors of the free broadening and of the jitter, by name, where the caller gives none."""
    import numpyro.distributions as dist

    priors = {name: dist.HalfNormal(WIDTHS[name]) for name in BROADENING[broadening]}
    return {**priors, "log10_jitter": jitter_prior(JITTER)}


def upper_end(prior) -> float:
    """The 99.9 % quantile of a prior, from draws; of a fixed value, the value."""
    if isinstance(prior, float | int):
        return float(prior)
    return float(np.quantile(np.asarray(prior.sample(jax.random.key(0), (4000,))), 0.999))


def label_priors(label_space, overrides=None) -> dict:
    """One prior per label: flat within the emulator's bounds unless overridden.

    `overrides` maps label names to NumPyro distributions, or to numbers, which fix the label. Raises `LabelError` on
    unknown names and on fixed values outside the bounds.
    """
    import numpyro.distributions as dist

    overrides = dict(overrides or {})
    label_space.require_names(list(overrides))
    priors = {n: dist.Uniform(lo, hi) for n, (lo, hi) in label_space.bounds.items()}
    for name, prior in overrides.items():
        priors[name] = checked_prior(name, prior)
        if isinstance(priors[name], float) and not label_space.contains_value(name, prior):
            lo, hi = label_space.bounds[name]
            raise LabelError(f"'{name}' cannot be fixed at {prior:g}: the emulator's domain is [{lo:g}, {hi:g}].")
    return priors


def checked_prior(name, prior):
    """`prior` as it is if it is a NumPyro distribution, a number as `float`; `LabelError` on anything else."""
    import numpyro.distributions as dist

    if isinstance(prior, dist.Distribution):
        return prior
    if not isinstance(prior, numbers.Real) or not np.isfinite(float(prior)):
        raise LabelError(
            f"The prior of '{name}' must be a NumPyro distribution, or a number that fixes it; got {prior!r}."
        )
    return float(prior)


def described_prior(prior) -> str:
    """A prior in words that are the same in every process, for the plans of runs: `Normal(loc=5700.0, scale=80.0)`, `3.0`."""
    if isinstance(prior, numbers.Real):
        return repr(prior)
    names = prior.arg_constraints
    values = [f"{n}={np.asarray(getattr(prior, n)).tolist()}" for n in names if hasattr(prior, n)]
    if not names:  # of a distribution made of others, what it is made of; of one of our own, where it lies
        values = [str(np.asarray(leaf).tolist()) for leaf in jax.tree.leaves(prior)] or [f"mean={float(prior.mean)}"]
    return f"{type(prior).__name__}({', '.join(values)})"


def domain_penalty(label_space, scaled):
    """Log of a soft wall: 0 inside the domain, −½ (distance / `WALL`)² per broken bound or constraint outside.

    A wall with a gradient, because a hard one would stop a Hamiltonian sampler at every touch. `scaled` `(n_labels,)`.
    """
    over = jnp.maximum(jnp.abs(scaled) - 1.0, 0.0)
    matrix, bound = label_space.constraint_matrix()
    if len(bound):
        # In scaled labels, with each constraint's normal of unit length.
        rows = matrix * label_space.half_width
        length = np.linalg.norm(rows, axis=1)
        slack = (bound - matrix @ label_space.centre) / length
        broken = jnp.maximum(jnp.asarray(rows / length[:, None], jnp.float32) @ scaled - slack.astype(np.float32), 0.0)
        over = jnp.concatenate([over, broken])
    return -0.5 * jnp.sum((over / WALL) ** 2)


def prior_facts(model) -> dict[str, Prior]:
    """Of each sampled label, broadening and extinction of a model what `emuinfer.posteriors.limits_of` must know of its prior."""
    bounds = model.label_space.bounds
    facts = {}
    for name in model.names:
        if name not in bounds and name not in ("vbroad", "vsini", "a_k"):
            continue
        prior, (lo, hi) = model.all_priors[name], bounds.get(name, (0.0, np.inf))
        facts[name] = prior_fact(prior, lo, hi)
    return facts


def prior_fact(prior, lower: float, upper: float) -> Prior:
    """The same of one prior within bounds of its own. Its standard deviation is that of the range where it has none."""
    low, high = (float(getattr(prior, n, x)) for n, x in (("low", lower), ("high", upper)))
    lower, upper = max(lower, low), min(upper, high)
    sd = np.sqrt(float(prior.variance)) if hasattr(prior, "variance") else np.inf
    sd = min(sd, (upper - lower) / np.sqrt(12.0))
    return Prior(lower, upper, sd, type(prior).__name__ == "Uniform")


# Names of distributions in `parse_prior`, with their arguments.
WRITTEN = {
    "normal": ("Normal", "mean, sd"),
    "uniform": ("Uniform", "low, high"),
    "halfnormal": ("HalfNormal", "scale"),
    "lognormal": ("LogNormal", "mean, sd of the logarithm"),
    "studentt": ("StudentT", "degrees of freedom, location, scale"),
}


def parse_prior(text: str):
    """`"5700:80"` or `"normal(5700, 80)"` as a NumPyro distribution, `"5700"` as the number that fixes a parameter.

    **Raises:** `LabelError` that lists what can be written.
    """
    import numpyro.distributions as dist

    name, bracket, rest = text.strip().partition("(")
    mean, colon, sd = name.partition(":")
    try:
        if colon and not bracket:
            return dist.Normal(float(mean), float(sd), validate_args=True)
        if not bracket:
            return float(name)
        kind, described = WRITTEN[name.strip().lower().replace("-", "").replace("_", "")]
        given = [float(x) for x in rest.removesuffix(")").split(",")]
        if not rest.endswith(")") or len(given) != described.count(",") + 1:
            raise ValueError
        if kind == "Uniform" and not given[0] < given[1]:
            raise ValueError
        return getattr(dist, kind)(*given, validate_args=True)
    except (KeyError, ValueError) as error:
        known = ", ".join(f"{n}({a})" for n, (_, a) in WRITTEN.items())
        raise LabelError(
            f"The prior '{text}' is none of mean:sd, {known}, or a number that fixes the parameter; standard deviations and scales "
            "are positive, low is below high."
        ) from error
