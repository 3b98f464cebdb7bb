"""Measure a trained emulator on the held-out tenth of the realistic grid and ship it with its card.

python -m emuinfer.recipes.release EMULATOR --name optical-fgk --realistic turbospectrum_5100_5300.npz --recipe "…"
"""

import argparse
import datetime
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..emulators import load_card, load_emulator, save_emulator
from ..emulators.storage import ZOO, half_precision
from ..emulators.training.evaluate import error_table, predict
from ..grids import import_npz
from ..grids.split import flagship_split
from ..labels.windows import window

CREDIT = (
    "Trained on LTE spectra of Turbospectrum v20 (Plez 2012, ascl:1205.004) with the Gaia-ESO line list (Heiter et al. 2021, "
    "A&A 645, A106) and C3K/ATLAS12 atmospheres; solar scale of Asplund et al. 2009 (ARA&A 47, 481)."
)
LIMITS = [
    "LTE, plane-parallel, no molecules (C2 and MgH, 5160-5166 Å, are missing); the line list is not tuned to the Sun.",
    "The simple-physics spectra share line list and temperature structures (C3K) with the realistic ones, and a few van der "
    "Waals widths of the simple physics were set by comparison with the realistic grid, held-out spectra included: with "
    "less related physics the gain of the first stage would be smaller.",
    "The held-out spectra measure how well the emulator reproduces Turbospectrum, not how well Turbospectrum reproduces stars.",
]


def baselines_table(path) -> dict:
    """MAE at R = 40,000 of every baseline by training size, from the benchmark's results, if they are there."""
    path = Path(path)
    if not path.exists():
        return {}
    table: dict[str, dict] = {}
    for row in json.loads(path.read_text()):
        seen = row["errors"]["R=40000"]["all"]
        table.setdefault(row["control"], {})[str(row["spectra"])] = {k: seen[k] for k in ("mae", "rmse", "p95", "max")}
    return table


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("emulator")
    parser.add_argument("--name", required=True)
    parser.add_argument("--title", required=True)
    parser.add_argument("--recipe", required=True, help="how it was trained, in words, with seeds and machine")
    parser.add_argument("--realistic", required=True)
    parser.add_argument("--baselines", default="tests/benchmarks/results/baselines.json")
    parser.add_argument("--window", help="whose labels and medium the spectra have; the first by default")
    args = parser.parse_args(argv)
    entry = window(args.window)
    emulator = half_precision(load_emulator(args.emulator))
    grid = import_npz(args.realistic, label_space=entry.label_space, medium=entry.medium)
    train, test = flagship_split(len(grid))
    labels, flux = np.asarray(grid.labels)[test], np.asarray(grid.flux)[test]
    predicted = predict(emulator, labels, grid.wavelength)
    card = {
        "title": args.title,
        "recipe": args.recipe,
        "grid": {"file": Path(args.realistic).name, "hash": grid.hash, "spectra": len(grid), "trained_on": len(train)},
        "split": "numpy.random.default_rng(0).permutation(n); the first tenth is held out",
        "held_out_error": error_table(emulator, labels, flux, grid.wavelength, predicted=predicted),
        "baselines_R40000": baselines_table(args.baselines),
        "credit": CREDIT,
        "limits": LIMITS,
        "licence": "BSD-3-Clause",
        "versions": {p: version(p) for p in ("jax", "equinox", "numpy")},
        "date": datetime.date.today().isoformat(),
    }
    previous = load_card(args.emulator)
    if isinstance(previous.get("recipe"), dict):
        card["training_settings"] = previous["recipe"]
    path = save_emulator(emulator, ZOO / args.name, card)
    errors = card["held_out_error"]
    print(path, {k: errors[k]["all"] for k in errors if k != "spectra"})


if __name__ == "__main__":
    main()
