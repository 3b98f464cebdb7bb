"""PySME against Turbospectrum at equal labels, line list and model atmospheres.

    python -m tests.benchmarks.pysme_vs_turbospectrum [N_SPECTRA]        (from the repository's root; 4 s per spectrum)

Needs `pip install "emuinfer[pysme]"` and `../shared/data/grids/turbospectrum_5100_5300.npz` (it takes the first rows).
Writes `results/pysme_vs_turbospectrum.json` (errors by region of the labels, native and at R = 40,000; what the errors are
when one thing is changed; the wavelengths where the codes differ most) and `.png`.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np

from emuinfer.emulators.training.evaluate import error_table, format_table
from emuinfer.labels.windows import OPTICAL_FGK
from emuinfer.synthesis import load_line_list, make_backend, pysme
from emuinfer.synthesis.elements import element_data

HERE = Path(__file__).parent
GRID = HERE.parents[1] / ".." / "shared" / "data" / "grids" / "turbospectrum_5100_5300.npz"
RESULTS = HERE / "results"
FEW = 20  # spectra of which the changes are measured
# Turbospectrum's trace elements follow Grevesse et al. (2007), see `elements.solar_composition`: not what is compared here.
SAME = {"solar_composition": "mixed"}


def spectra(labels, wavelength, **options):
    """Flux and continuum `(n, n_wave)`, not-a-number where PySME failed; reasons; seconds per spectrum."""
    backend = make_backend("pysme", wavelength=wavelength, **{**SAME, **options})
    flux = np.full((len(labels), len(wavelength)), np.nan, np.float32)
    continuum, failures, start = flux.copy(), [], time.perf_counter()
    for i, row in enumerate(labels):
        try:
            flux[i], continuum[i] = (x[0] for x in backend(row))
        except Exception as error:
            failures.append({"row": i, "labels": row.tolist(), "reason": str(error)})
    return flux, continuum, failures, (time.perf_counter() - start) / len(labels)


def listed_widths(lines, stark=False):
    """The columns with the widths that the list gives, where it gives them, instead of those that Turbospectrum takes."""
    columns = original_columns(lines, stark)
    fdamp = lines[np.argsort(lines.wavelength, kind="stable")].fdamp.astype(float)
    return columns | {"gamvw": np.where(fdamp < 0, fdamp, columns["gamvw"])}


original_columns = pysme.vald_columns


def changes(labels, wavelength):
    """Spectra with one thing changed at a time, by name."""
    yield "approximate Stark widths", spectra(labels, wavelength, stark=True)[0]
    yield "no broadening by H2", spectra(labels, wavelength, h2_broadening=False)[0]
    yield "all abundances of Asplund et al. 2009", spectra(labels, wavelength, solar_composition="asplund2009")[0]
    with mock.patch.object(pysme, "vald_columns", listed_widths):
        yield "widths of the list as they are", spectra(labels, wavelength)[0]


def summary(residual, labels):
    cool_dwarf = (labels[:, 0] < 4800) & (labels[:, 1] > 4)
    hot, rest = labels[:, 0] > 6000, ~cool_dwarf & (labels[:, 0] <= 6000)
    parts = {
        "all": np.ones(len(labels), bool),
        "below 4800 K, log g above 4": cool_dwarf,
        "above 6000 K": hot,
        "others": rest,
    }
    return {
        name: {"n": int(part.sum()), "mae": float(np.abs(residual[part]).mean()), "bias": float(residual[part].mean())}
        for name, part in parts.items()
        if part.any()
    }


def strength_of(lines):
    """Rough log10 strength at about 5600 K: gf, excitation, abundance and the fraction of neutral atoms."""
    data, z, ion = element_data(), lines.element.astype(int) - 1, lines.ion.astype(int)
    neutral = np.where(ion == 1, 0.9 * np.minimum(data["ionisation_energy"][z, 0] - 8.0, 0.0), 0.0)
    return lines.log_gf - 0.9 * lines.e_low + data["abundance"][z] + neutral


def largest(wavelength, residual, count=20):
    """Where the mean |residual| is largest, at least 0.4 Å apart, and the strongest line of the list there."""
    lines, symbol = load_line_list(), element_data()["symbol"]
    strength = strength_of(lines)
    mean, left, rows = np.abs(residual).mean(0), np.abs(residual).mean(0), []
    for _ in range(count):
        i = int(left.argmax())
        left[np.abs(wavelength - wavelength[i]) < 0.4] = 0.0
        near = np.flatnonzero(np.abs(lines.wavelength - wavelength[i]) < 0.12)
        row = {"wavelength": float(wavelength[i]), "mae": float(mean[i]), "bias": float(residual[:, i].mean())}
        if len(near):
            k = near[strength[near].argmax()]
            row["line"] = f"{symbol[lines.element[k] - 1]} {lines.ion[k]} {lines.wavelength[k]:.3f}"
            row |= {"e_low": round(float(lines.e_low[k]), 2), "log_gf": round(float(lines.log_gf[k]), 2)}
        rows.append(row)
    return rows


def species(wavelength, residual, labels, flux):
    """By how much the lines of a species are deeper in PySME, as a fraction of their depth, at the cores of unblended lines."""
    lines, symbol = load_line_list(), element_data()["symbol"]
    strength = strength_of(lines)
    rows = {}
    for z, ion in sorted(set(zip(lines.element.tolist(), lines.ion.tolist()))):
        own = np.flatnonzero(
            (lines.element == z) & (lines.ion == ion) & (lines.wavelength > 5100) & (lines.wavelength < 5300)
        )
        own = own[np.argsort(-strength[own])][:8]
        depth, off = [], []
        for k in own:
            close = np.abs(lines.wavelength - lines.wavelength[k]) < 0.15
            if strength[k] < np.max(strength[close & ((lines.element != z) | (lines.ion != ion))], initial=-99) + 1.0:
                continue  # blended with something not ten times weaker
            i = np.abs(wavelength - lines.wavelength[k]).argmin()
            depth.append(1.0 - flux[:, i])
            off.append(residual[:, i])
        if depth and np.mean(depth) > 0.02:
            relative = float(np.sum(off) / np.sum(depth))
            rows[f"{symbol[z - 1]} {ion}"] = {"lines": len(depth), "deeper_by": round(-relative, 4)}
    return rows


def plot(wavelength, reference, flux, labels, few, changed):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 1, figsize=(11, 12), constrained_layout=True)
    residual = flux - reference
    order = np.argsort(np.abs(residual).mean(1))
    inside = (wavelength > 5160) & (wavelength < 5200)
    for axis, quantile in zip(axes, (0.5, 1.0)):
        i = order[int(quantile * (len(order) - 1))]
        axis.plot(wavelength[inside], reference[i, inside], "k", lw=1.0, label="Turbospectrum")
        axis.plot(wavelength[inside], flux[i, inside], "C1", lw=0.7, label="PySME")
        axis.plot(wavelength[inside], residual[i, inside], "C0", lw=0.7, label="PySME − Turbospectrum")
        teff, logg, fe_h, vmic = labels[i, :4]
        title = f"{teff:.0f} K, log g {logg:.2f}, [Fe/H] {fe_h:.2f}, {vmic:.2f} km/s"
        axis.set_title(
            f"{title}: mean |difference| {np.abs(residual[i]).mean():.4f} ({'median' if quantile < 1 else 'largest'})"
        )
        axis.set_ylabel("normalised flux")
    axes[0].set_ylim(-0.06, 1.25)
    axes[0].legend(ncol=3, fontsize=8, loc="upper right")
    axes[2].plot(wavelength, np.abs(residual).mean(0), "C0", lw=0.6, label="mean |difference|")
    axes[2].plot(wavelength, residual.mean(0), "C3", lw=0.6, label="mean difference")
    axes[2].set_title(f"{len(flux)} spectra")
    axes[2].legend(fontsize=8)
    for axis in axes[:3]:
        axis.set_xlabel("wavelength in air (Å)")
    axes[3].plot(labels[:, 0], np.abs(residual).mean(1), "ko", ms=4, label="as compared")
    for k, (name, other) in enumerate(changed.items()):
        axes[3].plot(labels[:few, 0], np.abs(other - reference[:few]).mean(1), f"C{k}.", ms=5, label=name)
    axes[3].set(xlabel="Teff (K)", ylabel="mean |difference|", yscale="log", ylim=(1e-5, 2e-2))
    axes[3].legend(fontsize=8, ncol=2)
    figure.savefig(RESULTS / "pysme_vs_turbospectrum.png", dpi=110)


def main(n_spectra: int):
    grid = np.load(GRID)
    wavelength, labels, reference = grid["wavelength"], grid["labels"][:n_spectra], grid["flux"][:n_spectra]
    flux, continuum, failures, seconds = spectra(labels, wavelength)
    good = np.isfinite(flux).all(1)
    few = int(good[:FEW].sum())
    ratio = continuum[good][:, ::500] * 1e6 / grid["continuum"][:n_spectra][good]
    flux, labels, reference = flux[good], labels[good], reference[good]
    residual = flux - reference
    regions = {"teff": (4500.0, 5000.0, 6000.0), "logg": (2.0, 3.5, 4.5), "fe_h": (-2.0, -1.0, 0.0)}
    stand_in = SimpleNamespace(labels=OPTICAL_FGK.names, label_space=OPTICAL_FGK)
    table = error_table(stand_in, labels, reference, wavelength, predicted=flux, regions=regions)
    changed = dict(changes(labels[:few], wavelength))
    result = {
        "seconds_per_spectrum": round(seconds, 2),
        "failures": failures,
        "errors": table,
        "median_of_spectra_mae": float(np.median(np.abs(residual).mean(1))),
        "ln_continuum": {"mean": float(np.log(ratio).mean()), "sd": float(np.log(ratio).mean(1).std())},
        "changes_few": {"as compared": summary(residual[:few], labels[:few])}
        | {name: summary(other - reference[:few], labels[:few]) for name, other in changed.items()},
        "largest": largest(wavelength, residual),
        "species": species(wavelength, residual, labels, reference),
        "provenance": make_backend("pysme", **SAME).provenance,
    }
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / "pysme_vs_turbospectrum.json", "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    print(format_table(table))
    print(
        json.dumps(
            {k: result[k] for k in ("seconds_per_spectrum", "failures", "changes_few", "largest", "species")}, indent=1
        )
    )
    plot(wavelength, reference, flux, labels, few, changed)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
