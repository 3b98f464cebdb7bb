"""Real stars at S/N 20, 50 and 100: `python -m tests.benchmarks.stars` from the repository's root; needs `../shared`.

Noise is added until a pixel of the spectrum as it was taken has the wanted S/N. Each posterior is compared with that of the
highest S/N (means) and with the Cramér–Rao bound of its own spectrum, errors of lines and emulator included (widths). Fits that
are done are kept in `--directory`.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import emuinfer as ei
from emuinfer.files import use_compilation_cache
from emuinfer.posteriors import draws_of, summary_table
from tests.conftest import SHARED

RESULTS = Path(__file__).parent / "results"
# file, S/N per pixel and resolving power, more options, S/N wanted; literature of Teff, log g, [Fe/H] where there is one
STARS = {
    "Sun": ("sun_uves.fits", 100, 80_000, {}, (20, 50, 100), (5777, 4.44, 0.0)),
    "HD 41248": (None, None, None, {}, (20, 50, 100), (5713, 4.49, -0.37)),
    "HD 122563": ("hd122563_mike.fits", 100, 40_000, {}, (20, 50, 100), (4587, 1.61, -2.64)),
    "WASP-120": ("wasp120_uves.fits", 50, 80_000, {"broadening": "vsini"}, (20, 50), (6450, 4.04, -0.05)),
    "IC 4651 No 9122": ("ic4651_9122_harps.fits", 23, 115_000, {}, (15, 23), None),
}
SHOWN = ("teff", "logg", "fe_h")


def observe(name, snr, seed):
    """The star's spectrum with noise added until a pixel has the S/N `snr`."""
    file, own, resolution, _, _, _ = STARS[name]
    if file is None:
        observation = ei.Observation.example("hd41248")
        own = 200.0
    else:
        observation = ei.Observation.read(SHARED / "observed" / file, resolution=resolution, snr=own, medium="air")
    return observation if snr >= own else observation.with_noise((snr**-2.0 - own**-2.0) ** -0.5, seed)


def fit(name, snr, seed):
    observation = observe(name, snr, seed)
    model = ei.StellarModel(ei.load_emulator("optical-fgk"), observation, progress=False, **STARS[name][3])
    begin = time.perf_counter()
    posterior = ei.sample(model, seed=seed, progress=False)
    seconds = time.perf_counter() - begin
    table = summary_table(posterior, names=list(model.names), units=model.units)
    mean = {n: float(draws_of(posterior, n).mean()) for n in model.names}
    star = {n: mean[n] for n in ("rv", "vbroad", "vsini", "log10_jitter") if n in mean}
    bounds = ei.cramer_rao(model, {n: mean[n] for n in model.label_space.names}, **star, model_error=True)
    flux, model_flux = (
        np.asarray(posterior[g][n].values)
        for g, n in (("observed_data", "flux"), ("posterior_predictive", "model_flux"))
    )
    good = np.asarray(posterior["constant_data"]["good"].values) > 0
    median = np.median(model_flux[0], axis=0)
    return {
        "star": name,
        "snr": snr,
        "seed": seed,
        "pixels": int(good.sum()),
        "seconds": seconds,
        "mean": mean,
        "sd": dict(zip(table["label"].tolist(), np.asarray(table["sd"]).tolist())),
        "bound": {n: float(bounds.marginal[n]) for n in model.label_space.names},
        "r_hat": float(np.max(table["r_hat"])),
        "ess": float(np.min(table["ess_bulk"])),
        "k_hat": float(posterior.attrs["k_hat"]),
        "verification": posterior.attrs["verification"],
        "warnings": json.loads(posterior.attrs["warnings"]),
        "residual_rms": float(np.std(((flux - median) / median)[good])),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("stars"), help="fits that are done are kept here")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="every N-th star, from the K-th"
    )
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    use_compilation_cache()
    k, n = args.part
    for name in list(STARS)[k::n]:
        wanted = STARS[name][4]
        for snr, seed in [*((s, 0) for s in wanted), (wanted[0], 1)]:
            path = args.directory / f"{name.replace(' ', '')}-{snr}-{seed}.json"
            if path.exists():
                continue
            result = fit(name, snr, seed)
            print(
                name,
                snr,
                {m: f"{result['mean'][m]:.4g} ± {result['sd'][m]:.2g}" for m in SHOWN},
                result["verification"],
                flush=True,
            )
            path.write_text(json.dumps(result, indent=1) + "\n")
    rows = [json.loads(p.read_text()) for p in sorted(args.directory.glob("*.json"))]
    if len(rows) == sum(len(s[4]) + 1 for s in STARS.values()):
        report(rows)


def report(rows):
    highest = {name: next(r for r in rows if r["star"] == name and r["snr"] == max(s[4])) for name, s in STARS.items()}
    for row in rows:
        best = highest[row["star"]]
        row["shift"] = {n: (row["mean"][n] - best["mean"][n]) / row["sd"][n] for n in row["bound"]}
        row["sd_over_bound"] = {n: row["sd"][n] / row["bound"][n] for n in row["bound"]}
    lower = [r for r in rows if r["snr"] < max(STARS[r["star"]][4])]
    shifts = np.array([list(r["shift"].values()) for r in lower])
    ratios = np.array([list(r["sd_over_bound"].values()) for r in rows])
    summary = {
        "fits": len(rows),
        "rms_shift": float(np.sqrt((shifts**2).mean())),
        "shifts_above_2": float((np.abs(shifts) > 2).mean()),
        "largest_shift": float(np.abs(shifts).max()),
        "sd_over_bound_median": float(np.median(ratios)),
        "sd_over_bound_5_95": np.quantile(ratios, [0.05, 0.95]).tolist(),
    }
    facts = {"machine": platform.machine(), "jax": jax.__version__}
    (RESULTS / "stars.json").write_text(json.dumps({**facts, "summary": summary, "fits": rows}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    plot(rows)


def plot(rows):
    figure, axes = plt.subplots(len(SHOWN), len(STARS), figsize=(13, 6.5), sharex="col", layout="constrained")
    for column, (name, star) in zip(axes.T, STARS.items()):
        own = [r for r in rows if r["star"] == name]
        for axis, label, i in zip(column, SHOWN, range(3)):
            for r in own:
                x = r["snr"] * (1.0 if r["seed"] == 0 else 1.12)
                axis.errorbar(
                    x,
                    r["mean"][label],
                    r["sd"][label],
                    fmt="o" if r["seed"] == 0 else "s",
                    color=f"C{r['seed']}",
                    ms=4,
                    capsize=2,
                )
            if star[5]:
                axis.axhline(star[5][i], color="0.6", lw=1, ls="--")
            axis.set(xscale="log")
            axis.set_xticks(star[4], [str(s) for s in star[4]])
            axis.minorticks_off()
        column[0].set_title(name)
        column[-1].set_xlabel("S/N per pixel")
    for axis, text in zip(axes[:, 0], ("Teff [K]", "log g", "[Fe/H]")):
        axis.set_ylabel(text)
    figure.savefig(RESULTS / "stars.png", dpi=110)


if __name__ == "__main__":
    main()
