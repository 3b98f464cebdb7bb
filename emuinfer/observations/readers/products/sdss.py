"""SDSS optical spectra: spSpec of SDSS-I/II, spec files since SDSS-III (https://data.sdss.org/datamodel). Host only.

A spSpec is an image of five rows: flux, flux without its continuum, error, mask, mask (classic.sdss.org/dr7/dm/flatFiles/spSpec).
A spec file has the combined spectrum in a table with `loglam` and `ivar`. Vacuum; heliocentric, in SDSS-V barycentric.
"""

import numpy as np

from ..choices import Choices
from ..frames import in_frame
from ..header import from_header
from ..spectral_axis import spectral_axis
from ..tables import read_table
from .shared import chosen_hdu, columns_of

# Smee et al. 2013, AJ 146, 32, table 4: mean of the SDSS spectrographs' resolving powers, 1500 at 3800 Å to 2500 at 9000 Å.
SDSS_POWER = ([3800.0, 9000.0], [1500.0, 2500.0])


def recognises(hdus) -> bool:
    """Whether the open FITS file is one of these."""
    return _is_image(hdus) or _table(hdus) is not None


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum; `hdu` chooses another table than that of the combined one."""
    header = hdus[0].header
    if _is_image(hdus):
        return in_frame(_image(hdus[0]), "heliocentric")
    fields = read_table(chosen_hdu(hdus, choices) or _table(hdus), header, choices)
    return in_frame(fields, "barycentric" if str(header.get("VERS2D", "")).startswith("v6") else "heliocentric")


def _is_sdss(header) -> bool:
    return str(header.get("TELESCOP", "")).upper().startswith("SDSS")


def _is_image(hdus) -> bool:
    data = hdus[0].data
    return _is_sdss(hdus[0].header) and data is not None and data.ndim == 2 and len(data) in (4, 5)


def _table(hdus):
    tables = [h for h in hdus[1:] if {"flux", "loglam", "ivar"} <= columns_of(h)]
    return tables[0] if tables and _is_sdss(hdus[0].header) else None


def _image(hdu) -> dict:
    import astropy.units as u

    header, data = hdu.header, hdu.data.astype(float)
    fields = from_header(header)
    wavelength = spectral_axis(header, data.shape[1]).values
    error = data[2] if (data[2] > 0).any() else data[1]  # some files leave out the flux without its continuum
    fields.update(wavelength=wavelength * u.AA, flux=data[0], uncertainty=error, mask=data[3] != 0, medium="vacuum")
    fields["uncertainty"] = np.where(error > 0, error, np.nan)
    if fields["resolution"] is None:
        fields["resolution"] = np.interp(wavelength, *SDSS_POWER)
        fields["notes"] = (
            "resolving power of the SDSS spectrographs from the literature (Smee et al. 2013, AJ 146, 32)",
        )
    return fields
