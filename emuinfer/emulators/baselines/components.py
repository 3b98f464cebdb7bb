"""Principal components of spectra in a saturating space, with a small network for their coefficients."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp

from ...labels.space import LabelSpace
from ...wavelengths.pixels import PixelGrid
from ..base import from_link
from ..network import apply_layers, dense_layers
from .pixels import PixelEmulator


class LogitPCA(PixelEmulator):
    """x = log(1/f − 1 + ε) as `mean` + coefficients(labels) @ `basis`, the coefficients from the mean of some networks.

    A network gives standardised coefficients, which `scale` brings to their size. Several networks that differ in
    their random start are averaged.
    """

    mean: jax.Array  # (n,)
    basis: jax.Array  # (components, n)
    scale: jax.Array  # (components,)
    networks: list  # of networks, each a list of (weight, bias)
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    grid: PixelGrid = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    kind = "logit_pca"

    def __init__(
        self, label_space, grid, medium, components=120, hidden=(256, 256), n_networks=1, epsilon=0.003, *, key
    ):
        sizes = (len(label_space), *hidden, components)
        self.mean, self.basis = jnp.zeros(grid.n), jnp.zeros((components, grid.n))
        self.scale = jnp.ones(components)
        self.networks = [dense_layers(k, sizes, variance=0.25) for k in jax.random.split(key, n_networks)]
        self.label_space, self.medium, self.grid = label_space, medium, grid
        self.wavelength_range = grid.range
        self.hidden, self.epsilon = tuple(hidden), epsilon

    def coefficients(self, scaled_labels) -> jax.Array:
        """Component coefficients `(components,)`."""
        outputs = [apply_layers(layers, scaled_labels) for layers in self.networks]
        return sum(outputs) / len(outputs) * self.scale

    def link(self, scaled_labels) -> jax.Array:
        """x at the stored pixels, `(grid.n,)`."""
        return self.mean + self.coefficients(scaled_labels) @ self.basis

    def pixels(self, scaled_labels):
        return from_link(self.link(scaled_labels), self.epsilon)

    def to_config(self) -> dict:
        return {
            "grid": dataclasses.asdict(self.grid),
            "components": self.basis.shape[0],
            "hidden": list(self.hidden),
            "n_networks": len(self.networks),
            "epsilon": self.epsilon,
        }

    @classmethod
    def from_config(cls, config, label_space, wavelength_range, medium):
        settings = dict(config, grid=PixelGrid(**config["grid"]), hidden=tuple(config["hidden"]))
        return cls(label_space, settings.pop("grid"), medium, **settings, key=jax.random.key(0))
