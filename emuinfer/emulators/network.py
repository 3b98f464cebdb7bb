"""A plain feed-forward network, as lists of weights and biases."""

import jax
import jax.numpy as jnp
import numpy as np


def network(layers, x):
    """SiLU layers, the last one linear. `layers` is `[(weight, bias), …]`, `x` `(…, n_in)`."""
    for weight, bias in layers[:-1]:
        x = jax.nn.silu(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def init_network(key, sizes):
    """Layers for `network` with the widths `sizes`, He-normal weights and zero biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (n_in, n_out), jnp.float32) * np.sqrt(2.0 / n_in), jnp.zeros(n_out))
        for k, n_in, n_out in zip(keys, sizes[:-1], sizes[1:])
    ]
