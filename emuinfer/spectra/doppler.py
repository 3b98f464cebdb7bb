"""Velocities: the grid uniform in velocity, Doppler shifts, and a first radial velocity by cross-correlation.

Convention: a star that recedes has positive velocity v, and its lines appear at `wavelength * (1 + v / c)`. On a grid uniform
in ln(wavelength) this is a shift by `c log1p(v / c)`, whatever the wavelength. Air wavelengths are shifted as they are: the
index of air changes so slowly that the error is below 1 m/s for |v| < 100 km/s in the optical.
"""

import dataclasses

import numpy as np

from ..errors import ObservationError

SPEED_OF_LIGHT = 299792.458  # km/s, exact (SI)


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
            raise ObservationError(f"A velocity grid needs 8 or more positive wavelengths; got shape {wavelength.shape}.")
        steps = SPEED_OF_LIGHT * np.diff(np.log(wavelength))
        step = float(steps.mean())
        if not step > 0 or np.abs(steps - step).max() > 1e-3 * step:
            raise ObservationError(
                f"The model wavelengths must be uniform in ln(wavelength), but their steps range from {steps.min():.6g} to "
                f"{steps.max():.6g} km/s. Make them with velocity_grid(lo, hi, step_kms)."
            )
        return cls(wavelength, step)


def velocity_grid(lo: float, hi: float, step_kms: float) -> VelocityGrid:
    """A grid from `lo` to `hi` (Å, both included), uniform in ln(wavelength), with steps of at most `step_kms`."""
    if not (0 < lo < hi and step_kms > 0):
        raise ObservationError(f"A velocity grid needs 0 < lo < hi and a positive step; got {lo}, {hi} Å and {step_kms} km/s.")
    n = int(np.ceil(SPEED_OF_LIGHT * np.log(hi / lo) / step_kms - 1e-9)) + 1
    x = np.linspace(np.log(lo), np.log(hi), n)
    return VelocityGrid(np.exp(x), float(SPEED_OF_LIGHT * (x[1] - x[0])))


def shift_wavelength(wavelength, rv: float) -> np.ndarray:
    """Where wavelengths of the star's rest frame appear when it recedes at `rv` km/s."""
    return np.asarray(wavelength, dtype=float) * (1.0 + rv / SPEED_OF_LIGHT)
