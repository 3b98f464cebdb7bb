"""Wavelengths in equal steps, and interpolation between them on the device."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import EmulatorError
from .interpolation import four_points


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
        """Indices and weights of four-point Lagrange interpolation, exact at pixels."""
        position = (np.asarray(wavelength, np.float64) - self.start) / self.step
        position = np.where(np.abs(position - np.round(position)) < 1e-6, np.round(position), position)
        index, weights = four_points(position, self.n)
        return PixelQuery(jnp.asarray(index), jnp.asarray(weights))
