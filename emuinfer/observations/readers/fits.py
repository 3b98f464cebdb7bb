"""Spectra in FITS files: products of archives that are known, tables, images, what specutils knows. Host only."""

import contextlib
import warnings

import numpy as np

from ...errors import ObservationError
from .choices import NEEDS, Choices
from .images import read_image
from .products import PRODUCTS, arms_of
from .spectrum import read_specutils
from .tables import read_tables


def read_arms(path) -> list[str]:
    """The arms that `read` knows in a file; empty if it is no file of several arms."""
    from astropy.io import fits

    with warnings.catch_warnings(action="ignore"), fits.open(path, memmap=False) as hdus:
        return arms_of(hdus)


def read_fits(path, choices: Choices) -> dict:
    """Fields of the spectrum in a FITS file; the first of `PRODUCTS` that recognises the file reads it."""
    from astropy.io import fits

    with warnings.catch_warnings(action="ignore"), fits.open(path, memmap=False) as hdus:
        for product in PRODUCTS:
            if product.recognises(hdus):
                return product.read(hdus, choices)
        fields, reasons = read_tables(hdus, choices)
        if fields is not None:
            return fields
        if hdus[0].data is not None and np.squeeze(hdus[0].data).ndim == 1 and "CRVAL1" in hdus[0].header:
            return read_image(hdus, choices)
        listed = "; ".join(f"{i}: {h.name or 'no name'} {type(h).__name__} {_shape(h)}" for i, h in enumerate(hdus))
    with contextlib.suppress(ObservationError):
        return read_specutils(path, None)
    if reasons:
        raise ObservationError(" ".join(reasons))
    raise ObservationError(f"This FITS file holds no spectrum that can be recognised; it holds {listed}. {NEEDS}")


def _shape(hdu) -> str:
    return "without data" if hdu.data is None else str(hdu.data.shape)
