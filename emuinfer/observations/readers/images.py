"""Spectra that are FITS images with a wavelength axis in their header. Host only."""

import numpy as np

from ...errors import ObservationError
from .choices import Choices
from .columns import UNCERTAINTY
from .header import from_header
from .units import standard_deviation, with_unit


def read_image(hdus, choices: Choices) -> dict:
    """A one-dimensional image: linear axis, log10 axis (DC-FLAG, CTYPE1 'LOG...') or WCS '-LOG' (natural)."""
    header = hdus[0].header
    flux = np.squeeze(hdus[0].data).astype(float)
    step = header.get("CDELT1", header.get("CD1_1"))
    if step is None:
        raise ObservationError("The header has CRVAL1 but neither CDELT1 nor CD1_1: the wavelength step is missing.")
    offset = np.arange(1, len(flux) + 1) - header.get("CRPIX1", 1.0)
    axis, kind = header["CRVAL1"] + step * offset, str(header.get("CTYPE1", "")).upper()
    if kind.endswith("-LOG"):  # Greisen et al. 2006, A&A 446, 747, eq. 5
        axis = header["CRVAL1"] * np.exp(step * offset / header["CRVAL1"])
    elif header.get("DC-FLAG", 0) == 1 or kind.startswith("LOG"):
        axis = 10**axis
    fields = from_header(header)
    unit = choices.wavelength_unit or header.get("CUNIT1") or None
    fields.update(wavelength=with_unit(axis, unit), flux=flux)
    for hdu in hdus[1:]:
        if (
            hdu.data is not None
            and hdu.name.lower() in (*UNCERTAINTY, "errs", "errors")
            and np.size(hdu.data) == len(flux)
        ):
            fields["uncertainty"] = standard_deviation(np.squeeze(hdu.data), hdu.name.lower())
    return fields
