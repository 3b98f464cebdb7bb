"""Air and vacuum wavelengths."""

import numpy as np

from ..errors import ObservationError, suggestion

MEDIA = ("air", "vacuum")


def check_medium(medium: str | None, what: str = "The spectrum") -> str:
    """`medium` if it is "air" or "vacuum"; otherwise raise `ObservationError` that asks for it."""
    if medium is None:
        raise ObservationError(
            f"{what} does not say whether its wavelengths are in air or in vacuum. "
            'Give medium="air" or medium="vacuum". '
            "(Optical spectra from the ground are mostly in air; SDSS and spacecraft data are mostly in vacuum.)"
        )
    if medium not in MEDIA:
        hint = suggestion(medium, MEDIA)
        raise ObservationError(f"Unknown medium {medium!r}; the known media are: 'air', 'vacuum'.{hint}")
    return medium


def refractive_index(vacuum_wavelength):
    """Refractive index of dry air at 15 C, 1 atm and 450 ppm CO2, for vacuum wavelengths in ångström.

    Birch & Downs (1994, Metrologia 31, 315), as Morton (2000, ApJS 130, 403, eq. 8) recommends, following the IAU
    standard.
    """
    s2 = (1e4 / np.asarray(vacuum_wavelength, dtype=float)) ** 2
    return 1.0 + 8.34254e-5 + 2.406147e-2 / (130.0 - s2) + 1.5998e-4 / (38.9 - s2)


def convert_medium(wavelength, source: str, target: str) -> np.ndarray:
    """Wavelengths in ångström, converted from medium `source` to `target`; shape is kept.

    Below 2000 Å, where the formula ends, wavelengths are by convention always those in vacuum and stay as they are.
    Vacuum to air is Morton's formula; air to vacuum its inverse by fixed-point iteration, to float64 precision.
    """
    check_medium(source)
    check_medium(target)
    wavelength = np.array(wavelength, dtype=float)
    if source == target:
        return wavelength
    if target == "air":
        optical = wavelength >= 2000.0
        return np.where(optical, wavelength / refractive_index(np.where(optical, wavelength, 2000.0)), wavelength)
    optical = wavelength >= 2000.0 / refractive_index(2000.0)
    air = np.where(optical, wavelength, 2000.0)
    vacuum = air
    for _ in range(5):  # the correction is 3e-4 and its derivative 1e-5: each step gains five digits
        vacuum = air * refractive_index(vacuum)
    return np.where(optical, vacuum, wavelength)
