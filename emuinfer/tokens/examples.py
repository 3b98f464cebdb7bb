"""The 300 example stars in the package."""

from pathlib import Path

FILE = Path(__file__).parents[1] / "data" / "stars" / "examples.fits.gz"


def example_stars_path() -> Path:
    """A FITS table of 300 real stars, none of which any network was trained on: XP spectra as GaiaXPy writes them (`source_id`,
    `flux`, `flux_error`), magnitudes under the names of Gaia and 2MASS, and APOGEE's labels as `apogee_teff`, … to compare with."""
    return FILE


def example_stars():
    """The table of `example_stars_path()` as an astropy Table; `meta["COMMENT"]` says whom to credit."""
    from astropy.table import Table

    return Table.read(FILE)
