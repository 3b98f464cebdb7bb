"""Spectra as the archives of APOGEE and DESI write them: FITS images, vacuum wavelengths, bit masks. Host only.

Formats: https://data.sdss.org/datamodel (apVisit, apStar, aspcapStar) and https://desidatamodel.readthedocs.io (coadd,
spectra). SDSS's optical `spec` files are tables, which `columns` knows.
"""

import numpy as np

from ..errors import ObservationError
from .columns import from_header, standard_deviation

# Bits of APOGEE_PIXMASK that make a pixel useless: 0 to 7 (bad, cosmic ray, saturated, unfixable, dark, flat, error, no
# sky), 12 (a strong sky line) and 14 (too little of the profile). https://www.sdss.org/dr17/algorithms/bitmasks
APOGEE_BAD = sum(1 << bit for bit in (*range(8), 12, 14))
APOGEE_RESOLUTION = 22_500.0  # Majewski et al. 2017, AJ 154, 94
DESI_ARMS = ("B", "R", "Z")


def read_archive(hdus, arm=None, row=None) -> dict | None:
    """Fields of the spectrum in an open FITS file of APOGEE or DESI; None if it is neither.

    `row` counts spectra from 0. In an apStar file the first, which is the default, is the combined spectrum. DESI files
    hold one spectrum per target and `arm`.
    """
    if desi_arms(hdus):
        return _read_desi(hdus, arm, row)
    history = "".join(str(line) for line in hdus[0].header.get("HISTORY", ()))
    shapes = [np.shape(hdu.data) if hdu.is_image else () for hdu in hdus]
    if len(hdus) < 3 or not len(shapes[1]) or shapes[1] != shapes[2]:
        return None
    if "apogee" in str(hdus[0].header.get("SURVEY", "")).lower() and len(hdus) > 4 and shapes[4] == shapes[1]:
        return _read_visit(hdus)
    if str(hdus[0].header.get("SFILE1", "")).startswith(("apVisit", "asVisit")) or "APOGEE" in history.upper():
        return _read_apogee(hdus, row)
    if "ASPCAPFLAG" in hdus[-1].header.values():
        return _read_apogee(hdus, row)
    return None


# APOGEE


def _read_visit(hdus) -> dict:
    """Three detectors, each `(4096,)` with falling wavelengths, beginning with the reddest."""
    together = lambda i: np.asarray(hdus[i].data, dtype=float).reshape(-1)
    mask = np.asarray(hdus[3].data).reshape(-1)
    return _apogee(hdus, together(4), together(1), together(2), mask)


def _read_apogee(hdus, row) -> dict:
    """An apStar (a row per combination and visit) or an aspcapStar (one spectrum, divided by its continuum)."""
    flux, error = (np.atleast_2d(np.asarray(hdus[i].data, dtype=float)) for i in (1, 2))
    header = hdus[1].header
    if "CRVAL1" not in header or "CDELT1" not in header:
        raise ObservationError("The flux of this APOGEE file has no CRVAL1 and CDELT1: its wavelengths are not known.")
    row = _checked_row(row or 0, len(flux), "The file")
    offset = np.arange(1, flux.shape[1] + 1) - header.get("CRPIX1", 1.0)
    wavelength = 10 ** (header["CRVAL1"] + header["CDELT1"] * offset)
    # The third extension of an aspcapStar is the best model spectrum, not a mask.
    third = np.atleast_2d(np.asarray(hdus[3].data)) if len(hdus) > 3 else np.zeros(0)
    mask = third[row] if np.issubdtype(third.dtype, np.integer) else None
    return _apogee(hdus, wavelength, flux[row], error[row], mask)


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


# DESI


def desi_arms(hdus) -> list[str]:
    """The arms, of "b", "r" and "z", that a DESI coadd or spectra file holds."""
    names = {hdu.name.upper() for hdu in hdus}
    return [a.lower() for a in DESI_ARMS if {f"{a}_WAVELENGTH", f"{a}_FLUX", f"{a}_IVAR"} <= names]


def _read_desi(hdus, arm, row) -> dict:
    import astropy.units as u

    arms = desi_arms(hdus)
    if arm is None and len(arms) == 1:
        arm = arms[0]
    if arm is None or str(arm).lower() not in arms:
        raise ObservationError(
            f'This DESI file has the arms {", ".join(arms)}: give arm="{arms[0]}", or read all with '
            "Observation.read_arms(path)."
        )
    data = lambda what: np.asarray(hdus[f"{str(arm).upper()}_{what}"].data)
    names = {hdu.name.upper() for hdu in hdus}
    flux = data("FLUX")
    fibres = hdus["FIBERMAP"].data if "FIBERMAP" in names else None
    targets = [str(t) for t in fibres["TARGETID"]] if fibres is not None else [str(i) for i in range(len(flux))]
    if row is None and len(flux) > 1:
        raise ObservationError(
            f"This DESI file has {len(flux)} spectra: give row=0 to {len(flux) - 1}. "
            f"Their targets are {', '.join(targets[:5])}{' …' if len(flux) > 5 else ''}."
        )
    row = _checked_row(row or 0, len(flux), "This DESI file")
    fields = from_header(hdus[0].header)
    fields["name"] = f"DESI {targets[row]} {str(arm).lower()}"
    mask = data("MASK")[row] != 0 if f"{str(arm).upper()}_MASK" in names else None
    fields.update(
        wavelength=data("WAVELENGTH").astype(float) * u.AA,
        flux=flux[row].astype(float),
        uncertainty=standard_deviation(data("IVAR")[row].astype(float), "ivar"),
        mask=mask,
        medium="vacuum",
        resolution=data("RESOLUTION")[row].astype(float) if f"{str(arm).upper()}_RESOLUTION" in names else None,
    )
    return fields


def _checked_row(row, n, what):
    if not 0 <= row < n:
        raise ObservationError(f"{what} has {n} spectra; row={row} is not one of 0 to {n - 1}.")
    return int(row)
