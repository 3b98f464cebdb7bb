"""A spectrum as FITS images of any layout, for the tests of readers."""

import numpy as np
import pytest
from astropy.io import fits

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation

N = 400
FLUX = 1 + 0.1 * np.sin(np.arange(N) / 9)
SIGMA = np.full(N, 0.02)
LINEAR = {"CRVAL1": 5110.0, "CDELT1": 0.05, "CRPIX1": 1.0}
AXIS = 5110 + 0.05 * np.arange(N)


def header_of(**cards):
    header = fits.Header()
    header.update({key.replace("DC_FLAG", "DC-FLAG"): value for key, value in cards.items()})
    return header


def image(data, name=None, kind=fits.ImageHDU, **cards):
    hdu = kind(np.asarray(data), header_of(**cards))
    if name:
        hdu.name = name
    return hdu


def read(path, *hdus, **options):
    """Write HDUs (a dictionary: cards of a spectrum in the primary image) and read them back."""
    first, *others = hdus
    if isinstance(first, dict):
        first = image(FLUX, kind=fits.PrimaryHDU, **first)
    elif not isinstance(first, fits.PrimaryHDU):
        first, others = fits.PrimaryHDU(), [first, *others]
    fits.HDUList([first, *others]).writeto(path / "a.fits", overwrite=True)
    return Observation.read(path / "a.fits", **{"medium": "air", "snr": None, **options})


def refused(path, *hdus, words=(), **options):
    with pytest.raises(ObservationError) as error:
        read(path, *hdus, **{"snr": 50, **options})
    for word in ("a.fits", *words):
        assert word in str(error.value)
