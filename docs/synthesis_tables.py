"""Tables of the page on synthesis codes, from `synthesis_whole_optical.json`."""

from types import SimpleNamespace

import numpy as np
from benchmark_tables import figure, markdown_table

KINDS = {"everything": "all", "hydrogen": "lines of hydrogen", "molecules": "bands of molecules", "rest": "the rest"}


def whole_optical(saved):
    """`by_kind`, `by_range` and `sun`: tables; `speed`: spectra a second at 5100 to 5300 Å over those without the new physics."""
    names = list(saved["kinds"]["everything"])
    rows = [
        [
            name,
            saved["kinds"]["everything"][name]["n"],
            *(figure(saved["kinds"][kind][name]["mean"], 4) for kind in KINDS),
        ]
        for name in names
    ]
    by_kind = markdown_table(["stars", "spectra", *KINDS.values()], rows)
    start = np.array([row["start"] for row in saved["stretches"]])
    rows = []
    for low in range(4200, 9200, 500):
        here = [row for row in saved["stretches"] if low <= row["start"] < low + 500]
        mean = lambda key, here=here: figure(float(np.mean([row[key] for row in here])), 4)
        rows.append(
            [f"{low} to {low + 500}", *(mean(key) for key in ("mean", "median_star", "p90_star", "cool", "hot"))]
        )
    by_range = markdown_table(
        ["Å", "mean", "median star", "nine of ten stars below", "Teff < 4800 K", "Teff > 5800 K"], rows
    )
    sun = [
        [f"{low} to {int(low) + 40}", figure(value["mean"], 4), figure(value["median"], 4)]
        for low, value in saved["sun"].items()
    ]
    seconds = saved["speed"]["seconds"]
    return SimpleNamespace(
        by_kind=by_kind,
        by_range=by_range,
        sun=markdown_table(["Å", "mean", "median"], sun),
        speed=seconds["5100 basic"] / seconds["5100 full"],
        n=saved["n_spectra"],
        mean=saved["kinds"]["everything"]["all"]["mean"],
        n_stretches=len(start),
    )
