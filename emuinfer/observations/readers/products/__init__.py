"""Products of archives and surveys, one module each.

A module has `recognises(hdus)`, of an open FITS file, and `read(hdus, choices)`; where one file holds several arms of a star,
also `arms(hdus)`, their names.
"""

from . import apogee, arms, desi, drs, eso, lamost, mwm, pypeit, sdss

PRODUCTS = (desi, mwm, apogee, lamost, sdss, pypeit, drs, eso, arms)  # the first that recognises a file reads it


def arms_of(hdus) -> list[str]:
    """Names of the arms that `read` knows in an open FITS file; empty if it is no file of several arms."""
    product = next((p for p in PRODUCTS if p.recognises(hdus)), None)
    return getattr(product, "arms", lambda hdus: [])(hdus)
