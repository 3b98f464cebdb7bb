"""DESI: coadd and spectra files (https://desidatamodel.readthedocs.io): a row per target, an arm per camera. Host only."""

import numpy as np

from ....errors import ObservationError
from ..choices import Choices, checked_row
from ..frames import in_frame
from ..header import from_header
from ..units import standard_deviation
from .shared import chosen_arm

DESI_ARMS = ("B", "R", "Z")


def recognises(hdus) -> bool:
    """Whether the open FITS file is one of these."""
    return bool(arms(hdus))


def arms(hdus) -> list[str]:
    """The arms, of "b", "r" and "z", that a DESI coadd or spectra file holds."""
    names = {hdu.name.upper() for hdu in hdus}
    return [a.lower() for a in DESI_ARMS if {f"{a}_WAVELENGTH", f"{a}_FLUX", f"{a}_IVAR"} <= names]


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum of one target (`row`) in one arm (`arm`)."""
    import astropy.units as u

    arm, row = chosen_arm(choices, arms(hdus), "This DESI file"), choices.row
    data = lambda what: np.asarray(hdus[f"{arm.upper()}_{what}"].data)
    names = {hdu.name.upper() for hdu in hdus}
    flux = data("FLUX")
    fibres = hdus["FIBERMAP"].data if "FIBERMAP" in names else None
    targets = [str(t) for t in fibres["TARGETID"]] if fibres is not None else [str(i) for i in range(len(flux))]
    if row is None and len(flux) > 1:
        raise ObservationError(
            f"This DESI file has {len(flux)} spectra: give row=0 to {len(flux) - 1}. "
            f"Their targets are {', '.join(targets[:5])}{' …' if len(flux) > 5 else ''}."
        )
    row = checked_row(row or 0, len(flux), "This DESI file")
    fields = from_header(hdus[0].header)
    fields["name"] = f"DESI {targets[row]} {arm}"
    mask = data("MASK")[row] != 0 if f"{arm.upper()}_MASK" in names else None
    fields.update(
        wavelength=data("WAVELENGTH").astype(float) * u.AA,
        flux=flux[row].astype(float),
        uncertainty=standard_deviation(data("IVAR")[row].astype(float), "ivar"),
        mask=mask,
        medium="vacuum",
        resolution=data("RESOLUTION")[row].astype(float) if f"{arm.upper()}_RESOLUTION" in names else None,
    )
    return in_frame(fields, "barycentric")  # desispec shifts each exposure's wavelengths before it extracts
