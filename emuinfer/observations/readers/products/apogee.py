"""APOGEE: apVisit, apStar, aspcapStar (https://data.sdss.org/datamodel): FITS images, vacuum, bit masks. Host only."""

import numpy as np

from ..choices import Choices, checked_row
from ..frames import in_frame
from ..header import from_header
from ..spectral_axis import spectral_axis

# Bits of APOGEE_PIXMASK that make a pixel useless: 0 to 7 (bad, cosmic ray, saturated, unfixable, dark, flat, error, no
# sky), 12 (a strong sky line) and 14 (too little of the profile). https://www.sdss.org/dr17/algorithms/bitmasks
APOGEE_BAD = sum(1 << bit for bit in (*range(8), 12, 14))
APOGEE_RESOLUTION = 22_500.0  # Majewski et al. 2017, AJ 154, 94


def recognises(hdus) -> bool:
    """Whether the open FITS file is one of these."""
    return _kind(hdus) is not None


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum. `row` counts from 0; in an apStar the first, which is the default, is the combined one."""
    return _read_visit(hdus) if _kind(hdus) == "visit" else _read_star(hdus, choices.row)


def _kind(hdus) -> str | None:
    history = "".join(str(line) for line in hdus[0].header.get("HISTORY", ()))
    shapes = [np.shape(hdu.data) if hdu.is_image else () for hdu in hdus]
    if len(hdus) < 3 or not len(shapes[1]) or shapes[1] != shapes[2]:
        return None
    if "apogee" in str(hdus[0].header.get("SURVEY", "")).lower() and len(hdus) > 4 and shapes[4] == shapes[1]:
        return "visit"
    if str(hdus[0].header.get("SFILE1", "")).startswith(("apVisit", "asVisit")) or "APOGEE" in history.upper():
        return "star"
    return "star" if "ASPCAPFLAG" in hdus[-1].header.values() else None


def _read_visit(hdus) -> dict:
    """Three detectors, each `(4096,)` with falling wavelengths, beginning with the reddest."""
    together = lambda i: np.asarray(hdus[i].data, dtype=float).reshape(-1)
    mask = np.asarray(hdus[3].data).reshape(-1)
    fields = _apogee(hdus, together(4), together(1), together(2), mask)
    return in_frame(fields, "topocentric", hdus[0].header)  # https://data.sdss.org/datamodel: apVisit, as observed


def _read_star(hdus, row) -> dict:
    """An apStar (a row per combination and visit) or an aspcapStar (one spectrum, divided by its continuum)."""
    flux, error = (np.atleast_2d(np.asarray(hdus[i].data, dtype=float)) for i in (1, 2))
    header = hdus[1].header
    row = checked_row(row or 0, len(flux), "The file")
    wavelength = spectral_axis(header, flux.shape[1]).values
    # The third extension of an aspcapStar is the best model spectrum, not a mask.
    third = np.atleast_2d(np.asarray(hdus[3].data)) if len(hdus) > 3 else np.zeros(0)
    mask = third[row] if np.issubdtype(third.dtype, np.integer) else None
    return in_frame(_apogee(hdus, wavelength, flux[row], error[row], mask), "rest")


def _apogee(hdus, wavelength, flux, error, mask) -> dict:
    import astropy.units as u

    fields = from_header({**dict(hdus[1].header), **dict(hdus[0].header)})
    fields["name"] = fields["name"] or str(hdus[0].header.get("OBJID", "")).strip()
    # A pixel without data has an error of 0 or of 1e10 times the flux.
    error = np.where((error > 0) & (error < 1e9 * np.nanmedian(np.abs(flux))), error, np.nan)
    bad = (flux == 0) & ~np.isfinite(error)
    if mask is not None:
        bad |= (np.asarray(mask).astype(np.int64) & APOGEE_BAD) != 0
    fields.update(wavelength=wavelength * u.AA, flux=flux, uncertainty=error, mask=bad, medium="vacuum")
    fields["resolution"] = fields["resolution"] or APOGEE_RESOLUTION
    return fields
