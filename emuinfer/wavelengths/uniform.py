"""Uniform grids of wavelengths: in wavelength, and in velocity (the logarithm of wavelength)."""

import dataclasses

import numpy as np

from ..constants import SPEED_OF_LIGHT
from ..errors import ObservationError


@dataclasses.dataclass(frozen=True)
class VelocityGrid:
    """Wavelengths (Å, float64, `(n,)`) uniform in ln(wavelength), `step` km/s apart."""

    wavelength: np.ndarray
    step: float

    def __len__(self):
        return len(self.wavelength)

    @classmethod
    def from_wavelength(cls, wavelength) -> "VelocityGrid":
        """The grid that has these wavelengths; `ObservationError` if they are not uniform in ln(wavelength)."""
        wavelength = np.asarray(wavelength, dtype=float)
        if wavelength.ndim != 1 or len(wavelength) < 8 or not (wavelength > 0).all():
            raise ObservationError(
                f"A velocity grid needs 8 or more positive wavelengths; got shape {wavelength.shape}."
            )
        velocity = SPEED_OF_LIGHT * np.log(wavelength / wavelength[0])
        step = float(velocity[-1] / (len(wavelength) - 1))
        error = np.abs(velocity - step * np.arange(len(wavelength))).max()
        if not step > 0 or error > 0.01 * step:
            raise ObservationError(
                f"The model wavelengths must be uniform in ln(wavelength), but leave the uniform "
                f"grid by up to {error:.3g} km/s (its step is {step:.3g}). Make them with velocity_grid(lo, hi, step_kms), in float64."
            )
        return cls(wavelength, step)


def log_uniform(lo: float, hi: float, n: int) -> np.ndarray:
    """`n` wavelengths uniform in ln(wavelength), `lo` and `hi` (Å) included."""
    return np.exp(np.linspace(np.log(lo), np.log(hi), n))


def velocity_grid(lo: float, hi: float, step_kms: float) -> VelocityGrid:
    """A grid from `lo` to `hi` (Å, both included), uniform in ln(wavelength), with steps of at most `step_kms`."""
    if not (0 < lo < hi and step_kms > 0):
        raise ObservationError(
            f"A velocity grid needs 0 < lo < hi and a positive step; got {lo}, {hi} Å and {step_kms} km/s."
        )
    n = int(np.ceil(SPEED_OF_LIGHT * np.log(hi / lo) / step_kms - 1e-9)) + 1
    x = np.linspace(np.log(lo), np.log(hi), n)
    return VelocityGrid(np.exp(x), float(SPEED_OF_LIGHT * (x[1] - x[0])))


def log_grid(lo: float, hi: float, step_kms: float) -> np.ndarray:
    """The wavelengths of `velocity_grid(lo, hi, step_kms)`."""
    return velocity_grid(lo, hi, step_kms).wavelength


def count_log_pixels(lo: float, hi: float, step: float) -> int:
    """How many pixels `log_pixels` makes."""
    return int(np.floor(np.log(hi / lo) / step + 1e-9)) + 1


def log_pixels(lo: float, hi: float, step: float) -> np.ndarray:
    """Pixels of a spectrograph, `(n_pix,)`: uniform in ln(wavelength) from `lo` to at most `hi` (Å), `step` apart.

    The step is 1 / (resolving power × pixels per full width at half maximum of the line spread function).
    """
    return lo * np.exp(step * np.arange(count_log_pixels(lo, hi, step)))
