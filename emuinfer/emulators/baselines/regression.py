"""Baselines on a stored grid of pixels: per-pixel polynomials and The Payne's network.

The stronger baselines, which work in a saturating space with principal components, are in `components` and
`gaussian_process`. All of them predict every stored pixel and interpolate to the wavelengths asked for.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp

from ...errors import EmulatorError, suggestion
from ...labels.features import monomial_values, monomials
from ...labels.space import LabelSpace
from ...wavelengths.pixels import PixelGrid
from ..base import from_link
from ..network import apply_layers, dense_layers
from .components import LogitPCA
from .gaussian_process import LogitGP
from .pixels import ACTIVATIONS, PixelEmulator

__all__ = ["LogitGP", "LogitPCA", "PerPixelMLP", "PixelGrid", "PixelPolynomial"]


class PixelPolynomial(PixelEmulator):
    """Each pixel's flux is a polynomial in the scaled labels (degree 2: The Cannon, Ness et al. 2015, ApJ 808, 16).

    With `saturating` the polynomial gives x of the link f = 1/(1 − ε + eˣ) instead of the flux.
    """

    coefficients: jax.Array  # (n_terms, n)
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    grid: PixelGrid = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    saturating: bool = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    kind = "polynomial"

    def __init__(self, label_space, grid, medium, degree=2, saturating=False, epsilon=0.003, coefficients=None):
        if degree not in (1, 2, 3):
            raise EmulatorError(f"The degree of a PixelPolynomial must be 1, 2 or 3; got {degree}.")
        shape = (len(monomials(len(label_space), degree)), grid.n)
        self.coefficients = jnp.zeros(shape) if coefficients is None else jnp.asarray(coefficients, jnp.float32)
        if self.coefficients.shape != shape:
            raise EmulatorError(f"The coefficients must have shape {shape}; got {self.coefficients.shape}.")
        self.label_space, self.medium, self.grid = label_space, medium, grid
        self.wavelength_range = grid.range
        self.degree, self.saturating, self.epsilon = degree, saturating, epsilon

    def pixels(self, scaled_labels):
        value = monomial_values(scaled_labels, self.degree) @ self.coefficients
        return from_link(value, self.epsilon) if self.saturating else value

    def to_config(self) -> dict:
        return {
            "grid": dataclasses.asdict(self.grid),
            "degree": self.degree,
            "saturating": self.saturating,
            "epsilon": self.epsilon,
        }

    @classmethod
    def from_config(cls, config, label_space, wavelength_range, medium):
        settings = dict(config, grid=PixelGrid(**config["grid"]))
        return cls(label_space, settings.pop("grid"), medium, **settings)


class PerPixelMLP(PixelEmulator):
    """The Payne's network (Ting et al. 2019, ApJ 879, 69): labels in [-0.5, 0.5], all pixels are outputs.

    `hidden=(300, 300)` with `"leaky_relu"` is The Payne; `hidden=(1024, 1024)` with `"silu"` a wider one.
    """

    layers: list
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    grid: PixelGrid = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    kind = "mlp"

    def __init__(self, label_space, grid, medium, hidden=(300, 300), activation="leaky_relu", *, key):
        if activation not in ACTIVATIONS:
            hint = suggestion(activation, ACTIVATIONS)
            raise EmulatorError(f"Unknown activation '{activation}'.{hint} Choose one of: {', '.join(ACTIVATIONS)}.")
        self.layers = dense_layers(key, (len(label_space), *hidden, grid.n))
        self.label_space, self.medium, self.grid = label_space, medium, grid
        self.wavelength_range = grid.range
        self.hidden, self.activation = tuple(hidden), activation

    def pixels(self, scaled_labels):
        return apply_layers(self.layers, 0.5 * scaled_labels, ACTIVATIONS[self.activation])

    def to_config(self) -> dict:
        return {"grid": dataclasses.asdict(self.grid), "hidden": list(self.hidden), "activation": self.activation}

    @classmethod
    def from_config(cls, config, label_space, wavelength_range, medium):
        grid, hidden = PixelGrid(**config["grid"]), tuple(config["hidden"])
        return cls(label_space, grid, medium, hidden, config["activation"], key=jax.random.key(0))
