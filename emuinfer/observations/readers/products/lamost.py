"""LAMOST: low resolution (LRS) of all releases, medium resolution (MRS) with its arms b and r. Host only.

Formats: https://www.lamost.org/dr9/v1.0/doc (lr- and mr-data-production-description). LRS to DR7 is an image of five rows
(flux, inverse variance, wavelength, and mask, or mask); from DR8 a table COADD. MRS has a table per arm, COADD_B and COADD_R,
and one per exposure (B-…, R-…). Vacuum; heliocentric unless the header's HELIO says otherwise.
"""

from ..choices import Choices
from ..frames import frame_of, in_frame
from ..header import from_header
from ..spectral_axis import spectral_axis
from ..units import standard_deviation
from .shared import chosen_arm, chosen_hdu, columns_of, flat, with_published_resolution

# All bits of the masks (bad CCD, bad profile, no sky, bright sky, bad centre, no data) make a pixel useless where they are
# set in every exposure (ANDMASK) or in the only one (PIXMASK); ORMASK is used where it is all there is.
MASKS = ("andmask", "and_mask", "pixmask", "ormask", "or_mask")


def recognises(hdus) -> bool:
    """Whether the open FITS file is one of these."""
    return _is_image(hdus) or bool(arms(hdus)) or _low(hdus) is not None


def arms(hdus) -> list[str]:
    """The arms, of "b" and "r", that an MRS file holds a coadded spectrum of."""
    names = {hdu.name.upper(): hdu for hdu in hdus[1:]}
    return [a for a in "br" if _is_spectrum(names.get(f"COADD_{a.upper()}"))]


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum; in an MRS file of the arm `arm`, or of the exposure whose table `hdu` names."""
    if _is_image(hdus):
        fields, survey, header = _image(hdus), "LAMOST-LRS", hdus[0].header
    else:
        known = arms(hdus)
        low = _low(hdus)
        table = chosen_hdu(hdus, choices) or low
        if table is None:
            table = hdus[f"COADD_{chosen_arm(choices, known, 'This LAMOST file').upper()}"]
        header = {**dict(hdus[0].header), **dict(table.header)}
        fields, survey = _table(table, header), "LAMOST-MRS" if low is None else "LAMOST-LRS"
    fields["medium"] = "vacuum"
    fields = with_published_resolution(fields, survey, fields["wavelength"].value)
    return in_frame(fields, frame_of(header) or "heliocentric", header)


def _is_lamost(header) -> bool:
    return "LAMOST" in str(header.get("TELESCOP", "")).upper() or str(header.get("DESIG", "")).startswith("LAMOST")


def _is_image(hdus) -> bool:
    data = hdus[0].data
    return _is_lamost(hdus[0].header) and data is not None and data.ndim == 2 and len(data) == 5


def _is_spectrum(hdu) -> bool:
    names = columns_of(hdu) if hdu is not None else set()
    return {"flux", "ivar"} <= names and bool({"loglam", "wavelength"} & names)


def _low(hdus):
    tables = [h for h in hdus[1:] if h.name.upper() in ("COADD", "COADDED") and _is_spectrum(h)]
    return tables[0] if tables and _is_lamost(hdus[0].header) else None


def _image(hdus) -> dict:
    import astropy.units as u

    header, data = hdus[0].header, hdus[0].data.astype(float)
    fields = from_header(header)
    wavelength = spectral_axis(header, data.shape[1]).values
    fields.update(wavelength=wavelength * u.AA, flux=data[0], uncertainty=standard_deviation(data[1], "ivar"))
    fields["mask"] = data[3] != 0
    return fields


def _table(hdu, header) -> dict:
    import astropy.units as u

    names, fields = columns_of(hdu), from_header(header)
    wavelength = 10 ** flat(hdu, "loglam").astype(float) if "loglam" in names else flat(hdu, "wavelength").astype(float)
    mask = next((m for m in MASKS if m in names), None)
    fields.update(
        wavelength=wavelength * u.AA,
        flux=flat(hdu, "flux").astype(float),
        uncertainty=standard_deviation(flat(hdu, "ivar").astype(float), "ivar"),
        mask=None if mask is None else flat(hdu, mask) != 0,
    )
    return fields
