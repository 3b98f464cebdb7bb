"""The stored grid of pixels that the baselines share, and small dense networks."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...labels.space import LabelSpace
from ...wavelengths.pixels import PixelGrid, PixelQuery
from ..base import Emulator

ACTIVATIONS = {"leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01), "silu": jax.nn.silu}


class PixelEmulator(Emulator):
    """What emulators with stored pixels share: subclasses give `pixels`, the flux at all stored pixels."""

    label_space: eqx.AbstractVar[LabelSpace]
    wavelength_range: eqx.AbstractVar[tuple[float, float]]
    medium: eqx.AbstractVar[str]
    grid: eqx.AbstractVar[PixelGrid]

    @abc.abstractmethod
    def pixels(self, scaled_labels) -> jax.Array:
        """Flux `(grid.n,)` at the stored pixels."""

    def prepare(self, wavelength) -> PixelQuery:
        return self.grid.query(wavelength)

    def flux(self, scaled_labels, query: PixelQuery) -> jax.Array:
        return jnp.sum(self.pixels(scaled_labels)[query.index] * query.weight, axis=-1)


def dense_layers(key, sizes, gain: float = 1.0) -> list:
    """Layers `[(W (n_in, n_out), b (n_out,)), …]` with normal weights of variance `gain`² / n_in and zero biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (gain * jax.random.normal(k, (a, b)) / np.sqrt(a), jnp.zeros(b)) for k, a, b in zip(keys, sizes[:-1], sizes[1:])
    ]


def apply_layers(layers, x, activation):
    """A network on `(..., n_in)`; no activation after the last layer."""
    for weight, bias in layers[:-1]:
        x = activation(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias
