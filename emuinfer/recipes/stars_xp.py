"""Make what ships for the stars: `python -m emuinfer.recipes.stars_xp TABLE`, with the table of `emuinfer data stars-xp`.

`data/stars/xp.npz`: the basis of the XP coefficients, and mean and covariance of the shapes of the training stars' spectra, by
which fluxes in another unit are told.
"""

import sys

import numpy as np

from ..files import read_arrays, write_arrays
from ..tokens import stars_tokens, xp
from ..tokens.stars import TRAIN

FLOOR = 0.005  # of ln flux, added to the covariance: rounding of the table and interpolation
KEPT = 0.98  # of the stars, by their chi-square, in each of a few rounds
ROUNDS = 4


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


def main(table: str) -> None:
    """Write the files; see the module's docstring."""
    arrays = read_arrays(table)
    mean, covariance = shapes(stars_tokens(arrays))
    single = {"basis": arrays["basis"], "shape_mean": mean, "shape_covariance": covariance}
    write_arrays(xp.FILE, {name: array.astype(np.float32) for name, array in single.items()})


if __name__ == "__main__":
    main(sys.argv[1])
