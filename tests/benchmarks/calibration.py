"""Are posteriors calibrated against another code? `python -m tests.benchmarks.calibration` from the repository's root.

turbospectrum  fits with `optical-fgk` of the 118 held-out Turbospectrum spectra of the grid beside the repository
               at S/N 50, 100 and 200, with the emulator's error in the likelihood and without
lte            the same question, with the error alone, for single labels, which 118 stars cannot answer: a Gaussian-process
               emulator of 3,000 spectra of the LTE code (`emuinfer grid make`, 6,000 of them, Sobol seed 0), its error learned
               on 1,000 others, 1,000 more fitted at S/N 100

R = 28,000, 2.5 pixels per FWHM. Everything of a run stays in `--directory`, from
which a killed run goes on; summaries and figures go to `results/`.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np

from emuinfer.calibration import check_coverage
from emuinfer.calibration.statistics import ALL
from emuinfer.emulators import load_emulator, save_emulator
from emuinfer.grids import Grid, import_npz
from emuinfer.grids.split import flagship_split
from emuinfer.labels.windows import OPTICAL_FGK

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GRID = HERE.parents[1] / ".." / "shared" / "data" / "grids" / "turbospectrum_5100_5300.npz"
SETTING = {"resolution": 28_000, "pixels_per_fwhm": 2.5}


def turbospectrum(args):
    grid = import_npz(GRID, label_space=OPTICAL_FGK, medium="air")
    rows = flagship_split(len(grid))[1]
    return check_coverage(
        "optical-fgk",
        grid,
        args.directory / "turbospectrum",
        rows=rows,
        n=args.n or len(rows),
        snr=(50, 100, 200),
        workers=args.workers,
        **SETTING,
    )


def lte(args):
    if not args.simple:
        raise SystemExit("Give the grid of LTE spectra: --simple lte.h5")
    grid = Grid.load(args.simple)
    path = lte_emulator(grid, args.directory)
    return check_coverage(
        str(path),
        grid,
        args.directory / "lte",
        rows=slice(4000, 5000),
        n=args.n or 1000,
        snr=(100,),
        workers=args.workers,
        emulator_error="shipped",
        **SETTING,
    )


def lte_emulator(grid, directory):
    """A Gaussian-process emulator of the first 3,000 spectra and its error on the next 1,000; its path without suffix."""
    from emuinfer.emulators.training import fit_logit_gp, fit_uncertainty
    from emuinfer.emulators.training.evaluate import predict
    from emuinfer.emulators.uncertainty import save_uncertainty

    path = directory / "lte-gp"
    if not path.with_suffix(".json").exists():
        emulator = fit_logit_gp(
            OPTICAL_FGK, grid.labels[:3000], grid.flux[:3000], grid.wavelength, medium="air", components=160
        )
        save_emulator(
            emulator, path, {"title": "LTE code, Gaussian processes of 3,000 spectra", "grid_hash": grid.hash}
        )
        emulator = load_emulator(path)
        labels, flux = grid.labels[3000:4000], grid.flux[3000:4000]
        seen = predict(emulator, labels, grid.wavelength)
        print(f"mean |emulated − true|: {np.abs(seen - flux).mean():.5f}", flush=True)
        save_uncertainty(
            fit_uncertainty(OPTICAL_FGK, labels, seen - flux, seen, grid.wavelength), path, emulator=emulator
        )
    return path


def keep(name, calibration, seconds):
    """Summary as JSON and table, and the figures, in `results/`."""
    stem = RESULTS / f"calibration_{name}"
    summary = calibration.summary
    rows = [{k: _plain(r[k]) for k in summary.colnames} for r in summary]
    flags = calibration.results[calibration.results["parameter"] == "teff"]
    counts = {
        f"{'on' if on else 'off'}, S/N {s:g}": int(
            ((flags["emulator_error"] == on) & (flags["snr"] == s) & flags["serious"]).sum()
        )
        for on in (True, False)
        for s in sorted(set(flags["snr"]))
    }
    stem.with_suffix(".json").write_text(
        json.dumps(
            {
                **SETTING,
                "notes": calibration.notes,
                "serious_flags": counts,
                "seconds": round(seconds),
                "summary": rows,
            },
            indent=1,
        )
    )
    stem.with_suffix(".md").write_text(table(summary))
    for figure in ("coverage", "ecdf", "ranks"):
        shutil.copyfile(calibration.path / f"{figure}.png", f"{stem}_{figure}.png")


def _plain(value):
    value = value.item() if hasattr(value, "item") else value
    return (
        None
        if isinstance(value, float) and not np.isfinite(value)
        else round(value, 5)
        if isinstance(value, float)
        else value
    )


def table(summary) -> str:
    """Coverage by parameter, S/N and emulator error, as Markdown."""
    lines = [
        "| emulator error | S/N | parameter | n | 68 % | 95 % | bias | spread | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in summary[summary["stars"] == "all"]:
        if np.isnan(r["snr"]) and r["parameter"] != ALL:
            continue
        share = [f"{100 * r[f'coverage_{k}']:.1f} ± {100 * r[f'coverage_{k}_error']:.1f}" for k in (68, 95)]
        p = "" if np.isnan(r["p_uniform"]) else f"{r['p_uniform']:.2g}"
        lines.append(
            f"| {'on' if r['emulator_error'] else 'off'} | {'all' if np.isnan(r['snr']) else format(r['snr'], 'g')} | {r['parameter']} "
            f"| {r['n']} | {share[0]} | {share[1]} | {r['bias']:+.2f} | {r['spread']:.2f} | {p} |"
        )
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("turbospectrum", "lte"))
    parser.add_argument("--directory", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--simple", help="grid of LTE spectra (HDF5)")
    parser.add_argument("-n", type=int, help="stars; all by default")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    if args.part == "turbospectrum" and not GRID.exists():
        raise SystemExit(f"There is no grid {GRID}: nothing to do.")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    args.directory.mkdir(parents=True, exist_ok=True)
    clock = time.perf_counter()
    calibration = {"turbospectrum": turbospectrum, "lte": lte}[args.part](args)
    if not args.n:
        keep(args.part, calibration, time.perf_counter() - clock)


if __name__ == "__main__":
    main()
