"""Units and kinds of uncertainty as files write them. Host only."""

import numpy as np

from ...errors import ObservationError

INVERSE_VARIANCE, VARIANCE = ("ivar", "flux_ivar", "inverse_variance"), ("variance", "var")


def with_unit(wavelength, unit):
    import astropy.units as u

    if unit is None:
        if np.nanmedian(wavelength) < 1000:
            raise ObservationError(
                f"The wavelengths have no unit and lie near {np.nanmedian(wavelength):g}, too low for ångström. "
                'Give wavelength_unit="nm", "um" or what they are.'
            )
        return wavelength
    text = {"angstroms": "Angstrom", "ang": "Angstrom", "a": "Angstrom", "nanometers": "nm", "microns": "um"}.get(
        str(unit).strip().lower(), str(unit).strip()
    )
    try:
        return wavelength * u.Unit(text)
    except ValueError as error:
        raise ObservationError(
            f"The wavelength unit '{unit}' is not known to astropy. Give wavelength_unit=."
        ) from error


def standard_deviation(values, name: str):
    values = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    if name in VARIANCE:
        return np.sqrt(np.where(values > 0, values, np.nan))
    if name in INVERSE_VARIANCE:
        return np.where(values > 0, np.where(values > 0, values, 1.0) ** -0.5, np.nan)
    return values
