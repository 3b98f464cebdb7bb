"""Coverage of the predicted error of an emulator: `python -m tests.benchmarks.uncertainty` from the repository's root.

Needs the realistic grid beside the repository. The spectra are the held-out tenth, which neither the emulator nor its
uncertainty has seen; with `--residuals` (the file of `emuinfer.recipes.emulator_uncertainty`) also the cross-validated
residuals, in two halves: the covariance is fitted to one and tested on the other, which has fewer statistical errors.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from emuinfer.emulators import load_emulator
from emuinfer.emulators.training import coverage, fit_uncertainty
from emuinfer.emulators.training.evaluate import predict
from emuinfer.emulators.uncertainty import load_uncertainty
from emuinfer.grids.split import flagship_split

HERE = Path(__file__).parent
GRID = HERE.parents[1] / ".." / "shared" / "data" / "grids" / "turbospectrum_5100_5300.npz"


def held_out(name, grid):
    """Coverage of the held-out tenth by the saved uncertainty of emulator `name`."""
    emulator = load_emulator(name)
    uncertainty = load_uncertainty(name, emulator=emulator)
    test = flagship_split(len(grid["labels"]))[1]
    labels, flux, wavelength = grid["labels"][test], grid["flux"][test], grid["wavelength"]
    predicted = predict(emulator, labels, wavelength)
    return coverage(uncertainty, labels, predicted - flux, predicted, wavelength), uncertainty


def halves(uncertainty, grid, path):
    """Coverage of half of the cross-validated residuals by a covariance fitted to the other half."""
    with np.load(path) as file:
        labels, residuals = file["labels"], file["residuals"].astype(np.float32)
    train = flagship_split(len(grid["labels"]))[0]
    predicted, wavelength = grid["flux"][train] + residuals, grid["wavelength"]
    half = np.random.default_rng(3).permutation(len(labels)) % 2 == 0
    of_half = fit_uncertainty(
        uncertainty.label_space, labels[half], residuals[half], predicted[half], wavelength, rank=uncertainty.rank
    )
    return coverage(of_half, labels[~half], residuals[~half], predicted[~half], wavelength)


def figure(tables, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(12, 7), sharex=True, layout="constrained")
    for axis, sampling in zip(axes[0], ("native", "R=40000")):
        part = tables["held_out"][sampling]
        rows = {"all": part["all"], **part["regions"]}
        for key, style in (("rms", "ko"), ("predicted_rms", "C1x")):
            axis.plot(range(len(rows)), [1e3 * r[key] for r in rows.values()], style, ms=8, label=key.replace("_", " "))
        axis.set(title=f"118 held-out spectra, {sampling}", ylabel="rms error of the flux / 10⁻³", ylim=(0, None))
        axis.legend()
    for axis, sampling in zip(axes[1], ("native", "R=40000")):
        for shift, (name, table) in zip((-0.12, 0.12), tables.items()):
            rows = {"all": table[sampling]["all"], **table[sampling]["regions"]}
            for level, colour in (("0.68", "C0"), ("0.95", "C3")):
                values, errors = ([100 * r[k] for r in rows.values()] for k in (level, f"{level}_error"))
                place = np.arange(len(rows)) + shift
                style = {"fmt": "o" if name == "held_out" else "s", "mfc": colour if name == "held_out" else "w"}
                label = f"{name.replace('_', ' ')}, {level}"
                axis.errorbar(place, values, errors, color=colour, ms=5, label=label, **style)
        for level in (68, 95):
            axis.axhspan(level - 3, level + 3, color="0.9", zorder=0)
        axis.set(ylabel="pixels inside the interval / %", ylim=(55, 100))
        axis.set_xticks(range(len(rows)), ["all"] + thirds(rows), rotation=40, ha="right")
    axes[1, 1].legend(fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.82), ncols=2)
    fig.savefig(path, dpi=100)


def thirds(rows):
    """Names of the regions without their edges, which are quantiles and differ between the two sets of spectra."""
    place = {"<": "lowest", ">=": "highest"}
    words = [name.split() for name in rows if name != "all"]
    return [f"{place[w[1]]} {w[0]}" if len(w) == 3 else f"middle {w[2]}" for w in words]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emulator", default="optical-fgk")
    parser.add_argument("--residuals", help="cross-validated residuals (.npz)")
    args = parser.parse_args(argv)
    with np.load(GRID) as file:
        grid = {name: file[name] for name in ("labels", "flux", "wavelength")}
    table, uncertainty = held_out(args.emulator, grid)
    tables = {"held_out": table}
    if args.residuals:
        tables["other_half"] = halves(uncertainty, grid, args.residuals)
    numbers = {
        "emulator": args.emulator,
        "rank": uncertainty.rank,
        "degrees_of_freedom": uncertainty.degrees_of_freedom,
        "factor_degrees_of_freedom": uncertainty.factor_degrees_of_freedom,
        "coverage": tables,
    }
    (HERE / "results" / "uncertainty.json").write_text(json.dumps(numbers, indent=1))
    figure(tables, HERE / "results" / "uncertainty.png")


if __name__ == "__main__":
    main()
