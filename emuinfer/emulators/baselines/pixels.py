"""The stored grid of pixels that the control emulators share, and small dense networks."""

import abc
import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...errors import EmulatorError
from ...labels.space import LabelSpace
from ..base import Emulator

ACTIVATIONS = {"leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01), "silu": jax.nn.silu}


class PixelQuery(eqx.Module):
    """Four neighbouring stored pixels of each wavelength and their cubic Lagrange weights; leading axis `(n_wave,)`."""

    index: jax.Array  # (n_wave, 4) int32
    weight: jax.Array  # (n_wave, 4) float32


@dataclasses.dataclass(frozen=True)
class PixelGrid:
    """`n` equally spaced wavelengths from `start` in steps of `step`, ångström, float64 on the host."""

    start: float
    step: float
    n: int

    @classmethod
    def from_wavelength(cls, wavelength) -> "PixelGrid":
        """The grid of an array `(n,)`; raises `EmulatorError` if it is not uniform to 1e-3 of a step."""
        wavelength = np.asarray(wavelength, np.float64)
        if wavelength.ndim != 1 or wavelength.size < 4:
            raise EmulatorError(f"A grid of pixels needs at least 4 wavelengths on one axis; got {wavelength.shape}.")
        step = (wavelength[-1] - wavelength[0]) / (wavelength.size - 1)
        grid = cls(float(wavelength[0]), float(round(step, 12)), int(wavelength.size))
        worst = np.abs(grid.wavelength - wavelength).max()
        if not step > 0 or worst > 1e-3 * step:
            raise EmulatorError(
                f"The stored pixels must be equally spaced and increasing in wavelength; steps range from "
                f"{np.diff(wavelength).min():.6g} to {np.diff(wavelength).max():.6g} Å. Resample the spectra first."
            )
        return grid

    @property
    def wavelength(self) -> np.ndarray:
        return self.start + self.step * np.arange(self.n)

    @property
    def range(self) -> tuple[float, float]:
        return (self.start, self.start + self.step * (self.n - 1))

    def query(self, wavelength) -> PixelQuery:
        """Indices and weights of four-point Lagrange interpolation (Abramowitz & Stegun 25.2.13), exact at pixels."""
        position = (np.asarray(wavelength, np.float64) - self.start) / self.step
        position = np.where(np.abs(position - np.round(position)) < 1e-6, np.round(position), position)
        first = np.clip(np.floor(position) - 1, 0, self.n - 4)
        t = position - first
        weights = np.stack(
            [
                -(t - 1) * (t - 2) * (t - 3) / 6,
                t * (t - 2) * (t - 3) / 2,
                -t * (t - 1) * (t - 3) / 2,
                t * (t - 1) * (t - 2) / 6,
            ],
            axis=-1,
        )
        index = first.astype(np.int32)[:, None] + np.arange(4, dtype=np.int32)
        return PixelQuery(jnp.asarray(index), jnp.asarray(weights, jnp.float32))


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
