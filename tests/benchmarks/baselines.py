"""Errors of all baselines on the Turbospectrum grid, by number of training spectra.

    python -m tests.benchmarks.baselines [--sizes 100 300 1065] [--only NAME ...] [--simple GRID.h5]

writes `results/baselines.json` and `results/baselines.md`. About five minutes of one core, and two more with
`--simple`, a grid of simple physics at the same wavelengths, of which the first 3,000 spectra are used.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from emuinfer.emulators.training import error_table, fit_logit_gp, fit_logit_pca, fit_mlp, fit_polynomial, predict
from emuinfer.grids import Grid
from emuinfer.grids.split import flagship_split
from emuinfer.labels.windows import OPTICAL_FGK

GRID = Path(__file__).parents[2] / ".." / "shared" / "data" / "grids" / "turbospectrum_5100_5300.npz"
RESULTS = Path(__file__).parent / "results"


class MeanSpectrum:
    """The emulator that knows nothing: the mean of the training spectra."""

    def __init__(self, label_space, labels, flux, wavelength, medium):
        self.label_space, self.mean = label_space, flux.mean(0)
        self.labels = label_space.names

    def __call__(self, labels, wavelength, extrapolate=False):
        return np.broadcast_to(self.mean, (len(labels), self.mean.size))


BASELINES = {
    "mean spectrum": MeanSpectrum,
    "polynomial, degree 1": lambda *a, **k: fit_polynomial(*a, degree=1, **k),
    "polynomial, degree 2": lambda *a, **k: fit_polynomial(*a, degree=2, **k),
    "polynomial, degree 3": lambda *a, **k: fit_polynomial(*a, degree=3, **k),
    "polynomial in x, degree 2": lambda *a, **k: fit_polynomial(*a, degree=2, saturating=True, **k),
    "polynomial in x, degree 3": lambda *a, **k: fit_polynomial(*a, degree=3, saturating=True, **k),
    "The Payne, 300 + 300": fit_mlp,
    "wide network, 1024 + 1024": lambda *a, **k: fit_mlp(*a, hidden=(1024, 1024), activation="silu", steps=1000, **k),
    "x, 120 components, network": fit_logit_pca,
    "x, Gaussian processes": fit_logit_gp,
}
WITH_SIMPLE = "x, Gaussian processes, with 3,000 LTE spectra"
NAMES = [*BASELINES, WITH_SIMPLE]


def run(sizes, only=None, simple=None):
    data = np.load(GRID)
    wavelength, flux, labels = data["wavelength"].astype(float), data["flux"], data["labels"].astype(float)
    train, test = flagship_split(len(flux))
    entries, baselines = [], dict(BASELINES)
    if simple is not None:
        grid = Grid.load(simple, lazy=True)
        spectra = grid.labels[:3000], grid.flux[:3000]
        baselines[WITH_SIMPLE] = lambda *a, **k: fit_logit_gp(*a, simple=spectra, **k)
    for name, fit in baselines.items():
        if only and name not in only:
            continue
        for size in sizes:
            rows = train[:size]
            began, cpu = time.time(), time.process_time()
            emulator = fit(OPTICAL_FGK, labels[rows], flux[rows], wavelength, medium="air")
            seconds = {"wall_s": round(time.time() - began, 1), "cpu_s": round(time.process_time() - cpu, 1)}
            predicted = predict(emulator, labels[test], wavelength)
            table = error_table(emulator, labels[test], flux[test], wavelength, predicted=predicted)
            entries.append({"control": name, "spectra": len(rows), **seconds, "errors": table})
            print(name, len(rows), seconds, table["R=40000"]["all"], flush=True)
    return entries


def markdown(entries) -> str:
    lines = [
        "# Baselines on the Turbospectrum grid, 5100–5300 Å, 12 labels",
        "",
        "118 held-out spectra that no fit and no choice has seen; |residual| of normalised flux. Written by",
        "`tests/benchmarks/baselines.py`; figures per region of the labels are in `baselines.json`. RMSE, 95 % and max: at R = 40,000.",
        "",
        "| baseline | training spectra | native MAE | R=40,000 MAE | RMSE | 95 % | max | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for e in entries:
        native, seen = e["errors"]["native"]["all"], e["errors"]["R=40000"]["all"]
        figures = " | ".join(f"{seen[k]:.5f}" for k in ("mae", "rmse", "p95", "max"))
        lines.append(f"| {e['control']} | {e['spectra']} | {native['mae']:.5f} | {figures} | {e['cpu_s']} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1065])
    parser.add_argument("--only", nargs="+", choices=NAMES)
    parser.add_argument("--simple", help="a grid of simple physics (HDF5)")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "baselines.json"
    entries = run(arguments.sizes, arguments.only, arguments.simple)
    if path.exists():
        done = {(e["control"], e["spectra"]) for e in entries}
        known = [e for e in json.loads(path.read_text()) if e["control"] in NAMES]
        kept = [e for e in known if (e["control"], e["spectra"]) not in done]
        entries = sorted(kept + entries, key=lambda e: (NAMES.index(e["control"]), e["spectra"]))
    path.write_text(json.dumps(entries, indent=1))
    path.with_suffix(".md").write_text(markdown(entries))
    print(markdown(entries))


if __name__ == "__main__":
    main()
