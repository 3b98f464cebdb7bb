"""Products of archives and surveys, one module each.

A module has `recognises(hdus)`, of an open FITS file, and `read(hdus, choices)`; where one file holds several arms of a star,
also `arms(hdus)`, their names.
"""

from ..choices import Choices
from . import apogee, arms, desi, drs, eso, espdr, gaia, galah, lamost, mwm, pypeit, sdss

# The first that recognises a file reads it.
PRODUCTS = (desi, mwm, apogee, lamost, sdss, galah, gaia, pypeit, espdr, drs, eso, arms)


def arms_of(hdus) -> list[str]:
    """Names of the arms that `read` knows in an open FITS file; empty if it is no file of several arms."""
    product = next((p for p in PRODUCTS if p.recognises(hdus)), None)
    return getattr(product, "arms", lambda hdus: [])(hdus)


def read_text_product(path, choices: Choices) -> dict | None:
    """Fields of the spectrum in a text file of an archive; None if it is none that is known."""
    columns = gaia.columns_of_csv(path)
    return gaia.spectrum_of(columns, choices) if columns is not None and gaia.is_rvs(columns) else None
