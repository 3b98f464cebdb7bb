"""Doppler shifts of wavelengths in air and in vacuum. Host only.

Convention: a star that recedes has positive velocity v, and its lines appear in vacuum at `wavelength * (1 + v / c)`. This is
the radial-velocity measure cz (Lindegren & Dravins 2003, A&A 401, 1185), not the relativistic speed, from which it differs by
v² / 2c: 1.7 km/s at 1,000 km/s. Air wavelengths are shifted in vacuum: as they are, they would err by 12 m/s at 1,000 km/s.
"""

import numpy as np

from ..constants import SPEED_OF_LIGHT
from .medium import convert_medium, refractive_index


def shift_wavelength(wavelength, rv, medium: str = "vacuum") -> np.ndarray:
    """Where wavelengths (Å, in `medium`) of the star's rest frame appear when it recedes at `rv` km/s; arrays broadcast."""
    vacuum = convert_medium(wavelength, medium, "vacuum") * (1.0 + np.asarray(rv, float) / SPEED_OF_LIGHT)
    return convert_medium(vacuum, "vacuum", medium)


def rest_wavelength(wavelength, rv, medium: str = "vacuum") -> np.ndarray:
    """The inverse of `shift_wavelength`: observed wavelengths in the frame of a star that recedes at `rv` km/s."""
    vacuum = convert_medium(wavelength, medium, "vacuum") / (1.0 + np.asarray(rv, float) / SPEED_OF_LIGHT)
    return convert_medium(vacuum, "vacuum", medium)


def shift_factor(wavelength: float, medium: str) -> float:
    """By how much ln(wavelength) in `medium` moves when that in vacuum moves by a small 1, about `wavelength` Å.

    1 in vacuum; in air 1 − d ln n / d ln λ, 1 + 1.2e-5 at 5200 Å. Over ±2 % in wavelength it changes by 5e-7: 0.5 m/s at
    1,000 km/s.
    """
    if medium == "vacuum":
        return 1.0
    vacuum, h = float(convert_medium(wavelength, medium, "vacuum")), 1e-3
    ends = np.log(refractive_index(vacuum * np.exp([-h, h])))
    return float(1.0 - (ends[1] - ends[0]) / (2 * h))
