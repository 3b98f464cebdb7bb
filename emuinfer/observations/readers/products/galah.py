"""GALAH: one file per camera (DR2 to DR4, HERMES reductions), and DR4's spectra of all four as they were fitted. Host only.

Formats: https://docs.datacentral.org.au/galah/dr3/galah-dr3-spectra (flux in the primary image, its *relative* error in
`input_sigma`), and the tables `*_fit_spectrum.fits` of DR4 (Buder et al. 2025, PASA 42, e051), with columns `wave`, `sob`
(normalised flux), `uob` (its error), `smod`, `mob` (true where their fit used the pixel, which is no mask of bad pixels).
"""

import numpy as np

from ..choices import Choices
from ..frames import frame_of, in_frame
from ..header import from_header
from .shared import chosen_arm, columns_of, flat, with_published_resolution

CAMERAS = {"1": (4700, 4920), "2": (5640, 5890), "3": (6460, 6750), "4": (7570, 7900)}  # Å
TABLE = {"wave", "sob", "uob"}


def recognises(hdus) -> bool:
    """Whether the open FITS file is one of these."""
    return _is_image(hdus) or _table(hdus) is not None


def arms(hdus) -> list[str]:
    """The cameras, of "1" to "4", that a table of DR4 covers; none for a file of one camera."""
    hdu = _table(hdus)
    if hdu is None:
        return []
    wave = flat(hdu, "wave")
    return [k for k, (lo, hi) in CAMERAS.items() if ((wave > lo) & (wave < hi)).sum() > 2]


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum; of a table of DR4 the whole, or the camera `arm`."""
    import astropy.units as u

    fields = from_header(hdus[0].header)
    fields["name"] = fields["name"] or str(hdus[0].header.get("SOBJECT_ID", hdus[0].header.get("GALAH_ID", "")))
    if _is_image(hdus):
        wave, flux, error = _image(hdus)
        frame = frame_of(hdus[0].header) or "barycentric"
    else:
        wave, flux, error = (flat(_table(hdus), n).astype(float) for n in ("wave", "sob", "uob"))
        frame = "rest"
        if choices.arm is not None:
            lo, hi = CAMERAS[chosen_arm(choices, arms(hdus), "This GALAH file")]
            inside = (wave > lo) & (wave < hi)
            wave, flux, error = wave[inside], flux[inside], error[inside]
    fields.update(wavelength=wave * u.AA, flux=flux, uncertainty=error, medium="air", snr=None)
    return in_frame(with_published_resolution(fields, "HERMES-GALAH", wave), frame, hdus[0].header)


def _is_image(hdus) -> bool:
    data, names = hdus[0].data, {h.name.lower() for h in hdus[1:]}
    ours = "GALAH" in str(hdus[0].header.get("ORIGIN", "")).upper() or "input_sigma" in names
    return ours and data is not None and data.ndim == 1 and len(hdus) > 1 and np.shape(hdus[1].data) == data.shape


def _table(hdus):
    return next((h for h in hdus[1:] if columns_of(h) >= TABLE), None)


def _image(hdus):
    header, flux = hdus[0].header, hdus[0].data.astype(float)
    first = header.get("CRPIX1", 1.0) or 1.0  # 0 in some files, where 1 is meant
    wave = header["CRVAL1"] + header["CDELT1"] * (np.arange(1, len(flux) + 1) - first)
    return wave, flux, np.abs(flux) * hdus[1].data.astype(float)
