"""What an answer is: a distribution of one standardised value, from the numbers that a network gives for a query.

Three kinds of heads share one vector of `OUTPUTS` numbers: a mixture of Gaussians, Student's t, classes.
"""

import jax
import jax.numpy as jnp

COMPONENTS = 4
OUTPUTS = 3 * COMPONENTS
FREEDOM = 5.0  # degrees of freedom of Student's t
FLOOR = 0.005  # smallest width, in units of the kind's spread


def mixture(outputs):
    """Logarithms of weights, means and widths `(…, COMPONENTS)` from `outputs` `(…, OUTPUTS)`."""
    logits, means, widths = jnp.split(outputs, 3, -1)
    start = jnp.linspace(-1.0, 1.0, COMPONENTS)
    return jax.nn.log_softmax(logits), means + start, FLOOR + jax.nn.softplus(widths + 0.5)


def student(outputs):
    """Mean and scale `(…,)` of Student's t."""
    return outputs[..., 0], FLOOR + jax.nn.softplus(outputs[..., 1])


def log_prob_mixture(outputs, y, noise):
    log_weight, mean, width = mixture(outputs)
    variance = width**2 + noise[..., None] ** 2
    parts = log_weight - 0.5 * ((y[..., None] - mean) ** 2 / variance + jnp.log(2 * jnp.pi * variance))
    return jax.nn.logsumexp(parts, -1)


def log_prob_student(outputs, y, noise):
    mean, width = student(outputs)
    scale = jnp.sqrt(width**2 + noise**2)
    return jax.scipy.stats.t.logpdf((y - mean) / scale, FREEDOM) - jnp.log(scale)
