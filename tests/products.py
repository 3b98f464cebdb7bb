"""Files of archives as tests make them."""

import numpy as np
from astropy.io import fits

RNG = np.random.default_rng(0)
N = 400
WAVE = 5100 + 0.05 * np.arange(N)
FLUX = 100 + RNG.standard_normal(N)
SIGMA = np.full(N, 2.0)


def write(path, *hdus, **cards):
    """A FITS file of these HDUs after a primary one with these cards, of which `__` stands for a blank."""
    primary = fits.PrimaryHDU()
    primary.header.update({k.replace("__", " "): v for k, v in cards.items()})
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True, output_verify="ignore")
    return path


def one_row(columns, units=(), ucd=(), utype=(), name="SPECTRUM"):
    """A table of one row of arrays, as ESO's standard and LAMOST since DR8 have it."""
    formats = {"f": "D", "i": "J"}
    made = [
        fits.Column(
            n, f"{len(a)}{formats[np.asarray(a).dtype.kind]}", array=np.asarray(a)[None], unit=dict(units).get(n)
        )
        for n, a in columns.items()
    ]
    hdu = fits.BinTableHDU.from_columns(made, name=name)
    for i, n in enumerate(columns, start=1):
        hdu.header.update({f"TUCD{i}": dict(ucd).get(n, ""), f"TUTYP{i}": dict(utype).get(n, "")})
    return hdu
