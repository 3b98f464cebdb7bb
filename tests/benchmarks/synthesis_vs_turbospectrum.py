"""Residuals of the LTE synthesis against Turbospectrum over the label domain, and its speed.

    python tests/benchmarks/synthesis_vs_turbospectrum.py [N_SPECTRA]

Needs `../shared/data/grids/turbospectrum_5100_5300.npz`. Writes `results/synthesis_vs_turbospectrum.ecsv` and `.png`.
"""

import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
DATA = HERE.parents[1] / ".." / "shared" / "data" / "grids"
RESULTS = HERE / "results"


def smooth(flux, wavelength, resolution=40_000):
    from scipy.ndimage import gaussian_filter1d

    sigma = wavelength.mean() / resolution / 2.3548 / np.median(np.diff(wavelength))
    return gaussian_filter1d(flux, sigma, axis=-1)


def regions(labels):
    """(name, mask) of regions of the domain."""
    yield "all", np.ones(len(labels), bool)
    for low, high in ((4000, 4500), (4500, 5500), (5500, 7000)):
        for metal_low, metal_high in ((-3, -2), (-2, -1), (-1, 0.5)):
            inside = (
                (labels[:, 0] >= low)
                & (labels[:, 0] <= high)
                & (labels[:, 2] >= metal_low)
                & (labels[:, 2] <= metal_high)
            )
            yield f"{low}-{high} K, [Fe/H] {metal_low} to {metal_high}", inside


def main(n_spectra: int):
    from astropy.table import Table

    from emuinfer.synthesis import make_backend

    grid, sun = np.load(DATA / "turbospectrum_5100_5300.npz"), np.load(DATA / "turbospectrum_sun.npz")
    labels, reference, wavelength = grid["labels"][:n_spectra], grid["flux"][:n_spectra], grid["wavelength"]
    backend = make_backend(wavelength=wavelength)
    start = time.perf_counter()
    sun_flux, _ = backend(sun["labels"])
    compiled = time.perf_counter()
    flux, continuum = backend(labels)
    wall, sun_error = time.perf_counter() - compiled, np.abs(sun_flux[0] - sun["flux"])
    residual = flux - reference
    at_40k = smooth(residual, wavelength)
    offset = np.log(continuum[:, ::500] * 1e6 / grid["continuum"][:n_spectra])
    slope = offset[:, -1] - offset[:, 0]
    rows = []
    for name, inside in regions(labels):
        r, s = np.abs(residual[inside]), np.abs(at_40k[inside])
        rows.append((name, inside.sum(), r.mean(), np.median(r.mean(axis=1)), np.percentile(r, 99), s.mean(),
                     residual[inside].mean(), offset[inside].mean(), np.abs(slope[inside]).mean()))  # fmt: skip
    names = (
        "region",
        "n",
        "mae",
        "median_mae",
        "p99",
        "mae_r40000",
        "bias",
        "ln_continuum_offset",
        "abs_continuum_slope",
    )
    table = Table(rows=rows, names=names)
    for column in table.colnames[2:]:
        table[column].info.format = ".5f"
    table.meta = {
        "sun_mae": round(float(sun_error.mean()), 5), "sun_median": round(float(np.median(sun_error)), 5),
        "compile_s": round(compiled - start, 1), "spectra_per_s": round(n_spectra / wall, 2),
        "provenance": backend.provenance,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    table.write(RESULTS / "synthesis_vs_turbospectrum.ecsv", overwrite=True)
    table.pprint_all()
    print({k: v for k, v in table.meta.items() if k != "provenance"})
    plot(wavelength, reference, flux, labels, residual)


def plot(wavelength, reference, flux, labels, residual):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    order = np.argsort(np.mean(np.abs(residual), axis=1))
    figure, axes = plt.subplots(4, 1, figsize=(11, 10), sharex=True, constrained_layout=True)
    inside = (wavelength > 5160) & (wavelength < 5200)
    for axis, quantile in zip(axes, (0.1, 0.5, 0.9, 1.0)):
        i = order[int(quantile * (len(order) - 1))]
        axis.plot(wavelength[inside], reference[i, inside], "k", lw=1.0, label="Turbospectrum")
        axis.plot(wavelength[inside], flux[i, inside], "C1", lw=0.7, label="emuinfer LTE")
        axis.plot(wavelength[inside], residual[i, inside], "C0", lw=0.7, label="difference")
        teff, logg, fe_h, vmic = labels[i, :4]
        title = f"{teff:.0f} K, log g {logg:.2f}, [Fe/H] {fe_h:.2f}, {vmic:.2f} km/s"
        axis.set_title(
            f"{title}: mean |difference| {np.abs(residual[i]).mean():.4f} (quantile {quantile:g})", fontsize=9
        )
        axis.set_ylabel("normalised flux")
    axes[0].legend(ncol=3, fontsize=8, loc="center right")
    axes[-1].set_xlabel("wavelength in air (Å)")
    figure.savefig(RESULTS / "synthesis_vs_turbospectrum.png", dpi=110)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
