"""Residuals of the LTE synthesis against Turbospectrum from 4200 to 9200 Å, against the Sun, and its speed.

    python -m tests.benchmarks.synthesis_whole_optical [N_SPECTRA [WIDTH]]

Needs `../shared/data/grids/turbospectrum_4200_9200.npz`, and for the Sun `observed_wide/`. Of each 100 Å a stretch of WIDTH Å, by
default 40, is compared, and the Balmer lines. Writes `results/synthesis_whole_optical.json` and `.png`.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
DATA = HERE.parents[1] / ".." / "shared" / "data"
RESULTS = HERE / "results"
RANGE, STRETCH = (4200.0, 9200.0), 100.0
BALMER, AROUND = (4340.47, 4861.35, 6562.80), 30.0  # Å
PASCHEN = (8350.0, 9100.0)
BANDS = {  # Å, where molecules make most of the opacity of some stars of the grid
    "CN 4216": (4200.0, 4216.0), "CH": (4280.0, 4400.0), "C2 4737": (4680.0, 4740.0), "MgH, C2": (5000.0, 5190.0),
    "C2 5635": (5440.0, 5640.0), "CN red": (7050.0, 8350.0), "CN 9200": (9140.0, 9200.0),
}  # fmt: skip
SUN = (5772.0, 4.438, 0.0, 1.0)


def stretches(wavelength, width):
    """Pixels of one stretch of `width` in each 100 Å, at places that differ, and those around the Balmer lines."""
    inside = np.any(np.abs(wavelength[:, None] - BALMER) < AROUND, axis=1)
    for k, low in enumerate(np.arange(*RANGE, STRETCH)):
        start = low + (37 * k) % max(STRETCH - width, 1.0)
        inside |= (wavelength >= start) & (wavelength < start + width)
    return inside


def kinds(wavelength):
    """Pixels in the lines of hydrogen, in bands of molecules, and the rest."""
    hydrogen = np.any(np.abs(wavelength[:, None] - BALMER) < AROUND, axis=1)
    hydrogen |= (wavelength > PASCHEN[0]) & (wavelength < PASCHEN[1])
    molecules = np.any([(wavelength > lo) & (wavelength < hi) for lo, hi in BANDS.values()], axis=0) & ~hydrogen
    return {"hydrogen": hydrogen, "molecules": molecules, "rest": ~hydrogen & ~molecules}


def regions(labels):
    """Name and stars of regions of the domain."""
    teff, logg, fe_h = labels[:, :3].T
    return {
        "all": teff > 0, "Teff < 4800": teff < 4800, "4800 to 5800": (teff >= 4800) & (teff < 5800), "Teff > 5800": teff >= 5800,
        "log g < 3": logg < 3, "log g > 3": logg >= 3, "[Fe/H] < -1.5": fe_h < -1.5, "[Fe/H] > -0.5": fe_h > -0.5,
        "Teff < 4800, [Fe/H] > -0.5": (teff < 4800) & (fe_h > -0.5), "Teff < 4800, log g < 3": (teff < 4800) & (logg < 3),
    }  # fmt: skip


def summary(residual):
    of_star = np.mean(np.abs(residual), axis=1)
    return {
        "mean": float(of_star.mean()), "median_star": float(np.median(of_star)), "p90_star": float(np.percentile(of_star, 90)),
        "bias": float(residual.mean()), "n": len(of_star),
    }  # fmt: skip


def compare(n_spectra, width):
    from emuinfer.synthesis import make_backend

    grid = np.load(DATA / "grids" / "turbospectrum_4200_9200.npz")
    wavelength = np.round(RANGE[0] + 0.03 * np.arange(grid["flux"].shape[1]), 2)
    inside = stretches(wavelength, width)
    labels, reference = grid["labels"][:n_spectra], grid["flux"][:n_spectra, inside] / np.float32(50_000)
    wavelength = wavelength[inside]
    backend = make_backend("lte", labels="whole-optical", wavelength=wavelength, solar_composition="asplund2009")
    flux = np.concatenate([backend(row)[0] for row in labels])
    residual = flux - reference
    number = ((wavelength - RANGE[0]) // STRETCH).astype(int)
    cool, hot = labels[:, 0] < 4800, labels[:, 0] > 5800
    rows = []
    for k in np.unique(number):
        here = residual[:, number == k]
        parts = {name: summary(here[stars])["mean"] for name, stars in (("cool", cool), ("hot", hot)) if stars.any()}
        rows.append({"start": RANGE[0] + STRETCH * k, **summary(here), **parts})
    by_kind = {
        kind: {name: summary(residual[stars][:, pixels]) for name, stars in regions(labels).items() if stars.any()}
        for kind, pixels in {"everything": np.ones(len(wavelength), bool), **kinds(wavelength)}.items()
    }
    return {"stretches": rows, "kinds": by_kind, "provenance": backend.provenance}, (
        wavelength,
        reference,
        flux,
        labels,
    )


def sun():
    """Median absolute residual of the Sun's synthesis, broadened by macroturbulence, by 100 Å."""
    from astropy.io import fits
    from scipy.ndimage import gaussian_filter1d

    from emuinfer.labels import OPTICAL_FGK
    from emuinfer.synthesis import make_backend

    found = {}
    with fits.open(DATA / "observed_wide" / "sun_845_875.fits") as hdus:
        header, flux = hdus[0].header, np.asarray(hdus[0].data, float)
        far = (header["CRVAL1"] + header["CDELT1"] * np.arange(len(flux)), flux)
    with fits.open(DATA / "observed_wide" / "sun_uves.fits") as hdus:
        table = next(h for h in hdus if h.data is not None and h.data.dtype.names)
        near = tuple(np.asarray(table.data[name], float) for name in table.data.dtype.names[:2])
    labels = dict.fromkeys(OPTICAL_FGK.names, 0.0) | dict(zip(("teff", "logg", "fe_h", "vmic"), SUN))
    for observed, places in ((near, np.arange(4840.0, 6700.0, 200.0)), (far, (8500.0, 8600.0))):
        wavelength = np.concatenate([np.round(np.arange(p, p + 40.0, 0.02), 2) for p in places])
        synthetic = make_backend("lte", wavelength=wavelength, solar_composition="asplund2009")(labels)[0][0]
        sigma = np.median(wavelength) * 2.0 / 299_792.458 / 0.02  # 2 km/s: macroturbulence and the spectrograph
        residual = np.abs(gaussian_filter1d(synthetic, sigma) - np.interp(wavelength, *observed))
        for p in places:
            nearest = np.abs(
                observed[0][np.searchsorted(observed[0], wavelength).clip(0, len(observed[0]) - 1)] - wavelength
            )
            here = (wavelength >= p + 1) & (wavelength < p + 39) & (nearest < 0.1)  # the spectrum has gaps
            found[f"{p:.0f}"] = {"mean": float(residual[here].mean()), "median": float(np.median(residual[here]))}
    return found


def speed(repeats=15):
    """Seconds of processor time a spectrum of 10,001 pixels, with and without the new physics, in turn on one core."""
    import equinox as eqx
    import jax

    from emuinfer.labels import WHOLE_OPTICAL
    from emuinfer.synthesis import LTESynthesizer, load_line_list

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    lines = load_line_list(wavelength_range=RANGE)
    run = eqx.filter_jit(lambda synthesizer, x: synthesizer(x))
    x = np.array([*SUN] + [0.0] * 24, np.float32)
    first = np.round(5100.0 + 0.02 * np.arange(10_001), 2)
    kinds = {"5100 basic": LTESynthesizer(WHOLE_OPTICAL, first)}
    kinds |= {
        f"{start} full": LTESynthesizer(WHOLE_OPTICAL, first - 5100 + start, line_list=lines)
        for start in (4300, 5100, 6500)
    }
    seconds, compiling = {name: [] for name in kinds}, {}
    for name, synthesizer in kinds.items():
        start = time.perf_counter()
        jax.block_until_ready(run(synthesizer, x))
        compiling[name] = time.perf_counter() - start
    for i in range(repeats):
        for name, synthesizer in kinds.items():
            start = time.process_time()
            jax.block_until_ready(run(synthesizer, x + np.float32(0.01 * i)))
            seconds[name].append(time.process_time() - start)
    return {"seconds": {k: float(np.median(v)) for k, v in seconds.items()}, "compile_s": compiling}


def plot(result, wavelength, reference, flux, labels):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(5, 1, figsize=(12, 14), constrained_layout=True)
    start = np.array([row["start"] for row in result["stretches"]]) + STRETCH / 2
    for name in ("mean", "median_star", "cool", "hot"):
        axes[0].plot(
            start, [row.get(name, np.nan) for row in result["stretches"]], "o-", ms=3, label=name.replace("_", " ")
        )
    axes[0].set(yscale="log", ylabel="mean |difference|", xlabel="wavelength (Å)")
    axes[0].legend(ncols=4, fontsize=8)
    order = np.argsort(np.mean(np.abs(flux - reference), axis=1))
    star = order[len(order) // 2], order[int(0.9 * (len(order) - 1))]
    for axis, i, (lo, hi) in zip(
        axes[1:], (star[0], star[1], star[0], star[1]), ((4300, 4400), (5100, 5200), (6500, 6600), (8600, 8800))
    ):
        inside = (wavelength > lo) & (wavelength < hi)
        axis.plot(wavelength[inside], reference[i, inside], "k.", ms=1, label="Turbospectrum")
        axis.plot(wavelength[inside], flux[i, inside], "C1.", ms=1, label="emuinfer LTE")
        axis.plot(wavelength[inside], (flux - reference)[i, inside], "C0.", ms=1, label="difference")
        axis.set_title("Teff {:.0f}, log g {:.1f}, [Fe/H] {:+.1f}".format(*labels[i, :3]), fontsize=8)
    axes[1].legend(fontsize=8)
    figure.savefig(RESULTS / "synthesis_whole_optical.png", dpi=80)


def main(n_spectra=120, width=40.0):
    from emuinfer.files import write_json

    result, arrays = compare(int(n_spectra), float(width))
    result |= {"n_spectra": int(n_spectra), "width": float(width), "sun": sun(), "speed": speed()}
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "synthesis_whole_optical.json", result)
    plot(result, *arrays)
    for row in result["stretches"]:
        print("{start:.0f}  {mean:.4f}  {median_star:.4f}  {bias:+.4f}".format(**row))
    for kind, values in result["kinds"].items():
        print(
            kind,
            {name: round(value["mean"], 4) for name, value in values.items()},
            round(values["all"]["median_star"], 4),
        )
    print(result["sun"], result["speed"])


if __name__ == "__main__":
    main(*sys.argv[1:3])
