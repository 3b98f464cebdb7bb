"""What an answer is: a distribution of one standardised value, from the numbers that a network gives for a query.

Three kinds of heads read one vector of `OUTPUTS` numbers: a mixture of Gaussians, Student's t, classes. Which one a kind has, its `Kind`
says; where kinds are mixed in one array, `heads` holds `MIXTURE`, `STUDENT` or `CATEGORICAL` for each. A value that was itself
measured with Gaussian noise is as probable as the distribution convolved with that noise (exact for the mixture; for Student's t the
scale is widened): the network then learns the distribution before the noise.
"""

import jax
import jax.numpy as jnp

COMPONENTS = 4
OUTPUTS = 3 * COMPONENTS
FREEDOM = 5.0  # degrees of freedom of Student's t; _cdf_student holds for no other
FLOOR = 0.005  # smallest width, in units of the kind's spread
MIXTURE, STUDENT, CATEGORICAL = 0, 1, 2
HEADS = {"mixture": MIXTURE, "student": STUDENT, "categorical": CATEGORICAL}


def mixture(outputs):
    """Logarithms of weights, means and widths `(…, COMPONENTS)` from `outputs` `(…, OUTPUTS)`."""
    logits, means, widths = jnp.split(outputs, 3, -1)
    start = jnp.linspace(-1.0, 1.0, COMPONENTS)
    return jax.nn.log_softmax(logits), means + start, FLOOR + jax.nn.softplus(widths + 0.5)


def student(outputs):
    """Mean and scale `(…,)` of Student's t with `FREEDOM` degrees of freedom."""
    return outputs[..., 0], FLOOR + jax.nn.softplus(outputs[..., 1])


def widened(outputs, factor, heads):
    """`outputs` of distributions whose widths are those of `outputs` times `factor` `(…,)`, about the mean; for classes the
    logarithms of the probabilities are divided by it. No width falls below `FLOOR`."""
    log_weight, means, widths = mixture(outputs)
    factor = factor[..., None]
    mean = jnp.sum(jnp.exp(log_weight) * means, -1, keepdims=True)
    means = mean + factor * (means - mean) - jnp.linspace(-1.0, 1.0, COMPONENTS)
    of_mixture = jnp.concatenate([outputs[..., :COMPONENTS], means, _inverse(factor * widths) - 0.5], -1)
    _, scale = student(outputs)
    of_student = outputs.at[..., 1].set(_inverse(factor[..., 0] * scale))
    kinds = heads[..., None]
    return jnp.select([kinds == MIXTURE, kinds == STUDENT], [of_mixture, of_student], outputs / factor)


def _inverse(width):
    """What FLOOR + softplus makes `width` of."""
    above = jnp.maximum(width - FLOOR, 1e-6)
    return above + jnp.log(-jnp.expm1(-above))


def log_prob(outputs, y, noise, heads):
    """Logarithm of the density of `y` `(…,)`, measured with Gaussian noise of `noise`; of the probability for classes,
    where `y` is the class's number."""
    each = [_log_prob_mixture(outputs, y, noise), _log_prob_student(outputs, y, noise), _log_prob_class(outputs, y)]
    return jnp.select([heads == MIXTURE, heads == STUDENT], each[:2], each[2])


def _log_prob_mixture(outputs, y, noise):
    log_weight, mean, width = mixture(outputs)
    variance = width**2 + noise[..., None] ** 2
    parts = log_weight - 0.5 * ((y[..., None] - mean) ** 2 / variance + jnp.log(2 * jnp.pi * variance))
    return jax.nn.logsumexp(parts, -1)


def _log_prob_student(outputs, y, noise):
    mean, width = student(outputs)
    scale = jnp.sqrt(width**2 + noise**2)
    return jax.scipy.stats.t.logpdf((y - mean) / scale, FREEDOM) - jnp.log(scale)


def _log_prob_class(outputs, y):
    number = jnp.clip(jnp.nan_to_num(y), 0, OUTPUTS - 1).astype(jnp.int32)
    return jnp.sum(jnp.where(jnp.arange(OUTPUTS) == number[..., None], jax.nn.log_softmax(outputs), 0.0), -1)


def moments(outputs, heads):
    """Mean and standard deviation `(…,)`; for classes the most probable one and 0."""
    log_weight, means, widths = mixture(outputs)
    weight = jnp.exp(log_weight)
    mean = jnp.sum(weight * means, -1)
    sd = jnp.sqrt(jnp.sum(weight * (widths**2 + (means - mean[..., None]) ** 2), -1))
    centre, scale = student(outputs)
    largest = jnp.argmax(outputs, -1).astype(mean.dtype)
    of_student = scale * (FREEDOM / (FREEDOM - 2)) ** 0.5
    kinds = [heads == MIXTURE, heads == STUDENT]
    return jnp.select(kinds, [mean, centre], largest), jnp.select(kinds, [sd, of_student], 0.0)


def sample(key, outputs, heads):
    """One draw `(…,)` of each distribution."""
    pick, normal, t, number = jax.random.split(key, 4)
    log_weight, means, widths = mixture(outputs)
    component = jax.random.categorical(pick, log_weight)[..., None]
    mean = jnp.take_along_axis(means, component, -1)[..., 0]
    width = jnp.take_along_axis(widths, component, -1)[..., 0]
    centre, scale = student(outputs)
    draws = [
        mean + width * jax.random.normal(normal, mean.shape),
        centre + scale * jax.random.t(t, FREEDOM, centre.shape),
        jax.random.categorical(number, outputs).astype(mean.dtype),
    ]
    return jnp.select([heads == MIXTURE, heads == STUDENT], draws[:2], draws[2])


def cumulative(outputs, y, heads, noise=0.0):
    """The probability `(…,)` of a value below `y`, measured with Gaussian noise of `noise`; classes have none (NaN)."""
    log_weight, means, widths = mixture(outputs)
    noise = jnp.broadcast_to(noise, y.shape)
    widths = jnp.hypot(widths, noise[..., None])
    below = jnp.sum(jnp.exp(log_weight) * jax.scipy.stats.norm.cdf(y[..., None], means, widths), -1)
    centre, scale = student(outputs)
    scale = jnp.hypot(scale, noise)
    return jnp.select([heads == MIXTURE, heads == STUDENT], [below, _cdf_student((y - centre) / scale)], jnp.nan)


def _cdf_student(t):
    """For five degrees of freedom (Abramowitz & Stegun 1964, 26.7.3)."""
    angle = jnp.arctan(t / FREEDOM**0.5)
    cosine = jnp.cos(angle)
    return 0.5 + (angle + jnp.sin(angle) * (cosine + 2.0 / 3.0 * cosine**3)) / jnp.pi


def quantiles(outputs, levels, heads, steps: int = 40):
    """Values `(levels, …)` below which the distribution has the probabilities `levels`, by bisection. `levels` `(levels,)`, or
    `(levels, …)` where each distribution has its own."""
    mean, sd = moments(outputs, heads)
    reach = 12.0 * sd + 1e-3
    levels = jnp.asarray(levels, mean.dtype)
    levels = levels.reshape(-1, *[1] * mean.ndim) if levels.ndim == 1 else levels
    low, high = (jnp.broadcast_to(a, (len(levels), *mean.shape)) for a in (mean - reach, mean + reach))

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        above = jax.vmap(lambda y: cumulative(outputs, y, heads))(middle) < levels
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    return 0.5 * (low + high)
