"""SDSS-V Milky Way Mapper: mwmStar and mwmVisit (https://data.sdss.org/datamodel, Astra's data models). Host only.

Four tables, BOSS/APO, BOSS/LCO, APOGEE/APO and APOGEE/LCO, empty where a star was not observed; a row is the combined
spectrum of a star (mwmStar) or a visit (mwmVisit). Vacuum, and shifted to the star's rest frame.
"""

import numpy as np

from ....errors import ObservationError
from ..choices import Choices, checked_row
from ..frames import in_frame
from ..header import from_header
from ..units import standard_deviation
from .apogee import APOGEE_BAD
from .shared import chosen_arm, columns_of, with_published_resolution

ARMS = ("BOSS/APO", "BOSS/LCO", "APOGEE/APO", "APOGEE/LCO")
# Bits of SPPIXMASK that make a pixel useless: 18 (all rejected), 22 (no sky), 23 (bright sky), 24 (no data), 28 (red
# monster). https://www.sdss.org/dr17/algorithms/bitmasks. Others are set in a combined spectrum where one exposure had them.
BOSS_BAD = sum(1 << bit for bit in (18, 22, 23, 24, 28))
# Smee et al. 2013, AJ 146, 32: resolving power of the blue and the red camera, which meet at about 6000 Å.
BOSS_POWER = ([3700.0, 6000.0, 6001.0, 9000.0], [1560.0, 2270.0, 1850.0, 2650.0])


def recognises(hdus) -> bool:
    """Whether the open FITS file is one of these."""
    return bool(arms(hdus))


def arms(hdus) -> list[str]:
    """The tables that have a spectrum, in lower case: "boss/apo", …"""
    names = {hdu.name.upper(): hdu for hdu in hdus[1:]}
    full = lambda hdu: {"flux", "ivar"} <= columns_of(hdu) and hdu.data is not None and len(hdu.data) > 0
    return [a.lower() for a in ARMS if a in names and full(names[a])]


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum of one table (`arm`), in an mwmVisit of one visit (`row`)."""
    import astropy.units as u

    arm = chosen_arm(choices, arms(hdus), "This mwm file").upper()
    hdu, names = hdus[arm], columns_of(hdus[arm])
    n = len(hdu.data)
    if choices.row is None and n > 1:
        raise ObservationError(f"The table {arm} has {n} visits: give row=0 to {n - 1}.")
    row = checked_row(choices.row or 0, n, f"The table {arm}")
    value = lambda name: np.asarray(hdu.data[name][row], dtype=float).reshape(-1)
    if "wavelength" in names:
        wavelength = value("wavelength")
    else:
        wavelength = 10 ** (hdu.header["CRVAL"] + hdu.header["CDELT"] * np.arange(len(value("flux"))))
    fields = from_header(hdus[0].header)
    fields["name"] = f"SDSS {hdus[0].header.get('SDSS_ID', '')} {arm}".replace("  ", " ")
    mask = None
    if "pixel_flags" in names:
        bits = np.asarray(hdu.data["pixel_flags"][row]).reshape(-1).astype(np.int64)
        mask = (bits & (APOGEE_BAD if arm.startswith("APOGEE") else BOSS_BAD)) != 0
    fields.update(
        wavelength=wavelength * u.AA,
        flux=value("flux"),
        uncertainty=standard_deviation(value("ivar"), "ivar"),
        mask=mask,
        medium="vacuum",
    )
    if arm.startswith("APOGEE"):
        fields = with_published_resolution(fields, "APOGEE", wavelength)
    else:
        fields["resolution"] = np.interp(wavelength, *BOSS_POWER)
        fields["notes"] = (
            "resolving power of the BOSS spectrographs from the literature (Smee et al. 2013, AJ 146, 32)",
        )
    velocity = next((float(value(v)[0]) for v in ("v_rad", "xcsao_v_rad") if v in names), None)
    if velocity is not None and np.isfinite(velocity):
        fields["meta"]["v_rad"] = velocity
    return in_frame(fields, "rest")
