"""The stored grid of pixels that the baselines share."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

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
