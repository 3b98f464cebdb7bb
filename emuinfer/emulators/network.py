"""A plain feed-forward network, as a list of weights and biases: `[(weight (n_in, n_out), bias (n_out,)), …]`.

The names of stored weights follow from this form, so a network of `equinox.nn` cannot take its place.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Layers = list[tuple[Array, Array]]  # each pair has sizes of its own


def dense_layers(key, sizes, variance: float = 2.0) -> Layers:
    """Layers of the widths `sizes`: normal weights of variance `variance` / n_in (2: He et al. 2015), zero biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (n_in, n_out), jnp.float32) * np.sqrt(variance / n_in), jnp.zeros(n_out))
        for k, n_in, n_out in zip(keys, sizes[:-1], sizes[1:])
    ]


def apply_layers(
    layers: Layers, x: Float[Array | np.ndarray, "*batch n_in"], activation=jax.nn.silu
) -> Float[Array, "*batch n_out"]:
    """The network's outputs; `activation` follows every layer but the last, which is linear."""
    out: Array = jnp.asarray(x)
    for weight, bias in layers[:-1]:
        out = activation(out @ weight + bias)
    weight, bias = layers[-1]
    return out @ weight + bias
