"""Products of archives and surveys, one module each: `recognises(hdus)` an open FITS file, and `read(hdus, choices)`."""

from . import apogee, desi

PRODUCTS = (desi, apogee)  # the first that recognises a file reads it
