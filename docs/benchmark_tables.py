"""Tables of the benchmark pages, and the numbers that are derived from the saved results."""

from types import SimpleNamespace

import numpy as np

LABELS = ("teff", "logg", "fe_h", "vmic", "mg_fe", "ca_fe", "ti_fe", "cr_fe", "mn_fe", "co_fe", "ni_fe", "y_fe")


def markdown_table(head, rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def figure(value, digits) -> str:
    """A number with a true minus sign, nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}".replace("-", "−")


def labels(described):
    """The labels of an emulator with their units and ranges."""
    from emuinfer.labels import LabelSpace

    space = LabelSpace.from_json(described)
    plain = {"dex(cm s-2)": "dex (cm s⁻²)", "km / s": "km/s"}
    rows = [
        [f"`{name}`", plain.get(unit, unit), f"{low:g}".replace("-", "−"), f"{high:g}".replace("-", "−")]
        for name, unit, low, high in zip(space.names, space.units, space.lower, space.upper)
    ]
    return SimpleNamespace(
        count=len(space.names),
        names=", ".join(f"`{name}`" for name in space.names),
        table=markdown_table(["label", "unit", "lowest", "highest"], rows),
        constraint=space.describe_constraints(),
    )


# Stars


def stars_table(saved):
    rows = []
    for fit in saved["fits"]:
        cells = [f"{fit['mean'][n]:.{d}f} ± {fit['sd'][n]:.{d}f}".replace("-", "−") for n, d in _SHOWN.items()]
        shifts = [figure(fit["shift"][n], 1) for n in _SHOWN]
        last = f"{fit['r_hat']:.3f}", f"{fit['ess']:.0f}", figure(fit["k_hat"], 2)
        rows.append([fit["star"], fit["snr"], fit["seed"], *cells, ", ".join(shifts), *last])
    head = ["star", "S/N", "noise", "Teff [K]", "log g", "[Fe/H]", "shift / σ", "R-hat", "ESS", "k-hat"]
    return markdown_table(head, rows)


_SHOWN = {"teff": 0, "logg": 2, "fe_h": 2}


def stars(saved):
    """The Sun at S/N 20 against S/N 100 (noise seed 0), and how many stars' [Fe/H] falls when the S/N does."""
    sun = {fit["snr"]: fit for fit in saved["fits"] if fit["star"] == "Sun" and fit["seed"] == 0}
    falls = {n: sun[100]["mean"][n] - sun[20]["mean"][n] for n in _SHOWN}
    shifts = [abs(sun[20]["shift"][n]) for n in _SHOWN]
    lowest = {fit["star"]: fit["shift"]["fe_h"] for fit in saved["fits"] if fit["shift"]["fe_h"]}
    assert all(shift < 0 for shift in lowest.values()), "the page says that [Fe/H] falls in all stars"
    passed = sum(fit["verification"] == "ok" for fit in saved["fits"])
    assert passed == len(saved["fits"]), "the page says that all fits pass the verification"
    return SimpleNamespace(fall=falls, least=min(shifts), most=max(shifts), fits=len(saved["fits"]))


# Emulators


def emulator_table(card, baselines):
    ours = card["held_out_error"]
    rows = [
        ["`optical-fgk`: TransformerPayne of rank 320 without attention blocks, taught by the next", *_both(ours)],
        [
            "Gaussian processes for 400 components of log(1/f − 1 + ε), 6,000 LTE and 1,065 Turbospectrum spectra jointly "
            "(29 MB, not shipped)",
            "0.00064",
            "0.00049",
        ],
    ]
    names = {
        "x, 120 components, network": "principal components of log(1/f − 1 + ε), network, Turbospectrum alone",
        "polynomial in x, degree 3": "polynomial of the labels in the same space",
        "The Payne, 300 + 300": "The Payne's network",
        "wide network, 1024 + 1024": "the same, wider",
        "polynomial, degree 3": "polynomial per pixel",
    }
    largest = {row["control"]: row["errors"] for row in baselines if row["spectra"] == 1065}
    rows += [[text, *_both(largest[name])] for name, text in names.items()]
    return markdown_table(["", "native sampling", "at R = 40,000"], rows)


def _both(errors):
    return [f"{errors[kind]['all']['mae']:.5f}" for kind in ("native", "R=40000")]


def learning_curve(entries):
    """Kind of emulator to number of realistic spectra to the median error at R = 40,000 over the seeds."""
    found = {}
    for entry in entries:
        seeds = found.setdefault(entry["emulator"], {}).setdefault(entry["spectra"], [])
        seeds.append(entry["errors"]["R=40000"]["mae"])
    return {name: {n: float(np.median(seeds)) for n, seeds in sizes.items()} for name, sizes in found.items()}


def curve_table(curve):
    sizes = sorted({n for found in curve.values() for n in found})
    best_last = sorted(curve.items(), key=lambda item: -item[1][sizes[0]])
    rows = [[name, *(f"{found[n]:.4f}" if n in found else "" for n in sizes)] for name, found in best_last]
    return markdown_table(["", *sizes], rows)


def scaling(runs):
    """How much lower Muon's held-out error is than AdamW's at each rate, and the last errors of the runs of rates."""
    last = {(r["run"], r.get("width"), r.get("rate")): r["curve"][-1]["mae"] for r in runs}
    rates = sorted({rate for run, _, rate in last if run.startswith("optimiser")})
    gains = [1 - last["optimiser muon", None, rate] / last["optimiser adamw", None, rate] for rate in rates]
    table = markdown_table(
        ["width, rates", *(f"{rate:g}" for rate in sorted({rate for run, _, rate in last if run == "muP"}))],
        [
            [
                f"{width}, {run}",
                *(f"{last[run, width, rate]:.4f}" for rate in sorted({r for k, _, r in last if k == "muP"})),
            ]
            for run in ("muP", "one rate")
            for width in (16, 64)
        ],
    )
    optimisers = markdown_table(
        ["rate", "AdamW", "Muon"],
        [[f"{r:g}", *(f"{last[f'optimiser {o}', None, r]:.4f}" for o in ("adamw", "muon"))] for r in rates],
    )
    return SimpleNamespace(
        exponent=_exponent([run for run in runs if run["run"].startswith("law")]),
        least=min(gains),
        most=max(gains),
        rates=table,
        optimisers=optimisers,
        four={width: last["muP", width, 0.064] for width in (16, 64)},
        diverged=last["one rate", 64, 0.064],
    )


def _exponent(runs):
    """Of a power law through the points of compute and squared error that no other point beats in both."""
    points = sorted((p["step"] * run["flops_per_step"], p["rmse"] ** 2) for run in runs for p in run["curve"])
    compute, error = np.array(points).T
    best = error <= np.minimum.accumulate(error)
    return np.polyfit(np.log(compute[best]), np.log(error[best]), 1)[0]


def incumbent_table(saved):
    rows = [
        [
            name,
            f"{run['parameters']:,}",
            f"{run['errors']['R=40000']['mae']:.4f}",
            f"{run['errors']['R=40000']['rmse']:.4f}",
        ]
        for name, run in sorted(saved["training"].items(), key=lambda item: item[1]["errors"]["R=40000"]["mae"])
    ]
    return markdown_table(["trained on equal samples", "parameters", "MAE at R = 40,000", "RMSE"], rows)


def korg_table(saved):
    rows = [[n, f"{r['mae']:.5f}", f"{r['p95']:.4f}", f"{r['seconds']:.1f}"] for n, r in saved["rows"].items()]
    return markdown_table(["", "MAE", "95 %", "seconds to train"], rows)


# Fits


def reduced_table(saved):
    rows = []
    for name, row in saved["rows"].items():
        ours, large = row["times_cheaper_than_optical_fgk"], row["times_cheaper_than_transformer"]
        error = row.get("mae_at_example_resolution")
        rows.append(
            [
                name,
                f"{row['gradient_ms']:.3g}",
                f"{float(f'{large:.2g}'):g}×",
                f"{float(f'{ours:.2g}'):g}×",
                f"{error:.1e}" if error else "",
            ]
        )
    return markdown_table(
        [
            "one gradient of four chains",
            "ms",
            "against the blocks",
            "against `optical-fgk`",
            "MAE against `optical-fgk`",
        ],
        rows,
    )


def samplers_table(saved):
    """One row per method, the best setting of `mclmc`."""
    rows, found = [], dict(saved["rows"])
    found["mclmc"] = found.pop("mclmc, 4 steps")
    for name, row in found.items():
        z = row.get("evidence")
        evidence = f"{figure(z[0], 2)} ± {z[1]:.2f}" if z else ""
        per = (
            [f"{row['ess']:.0f}", f"{row['ess_per_gradient']:.2f}", f"{row['ess_per_second']:.0f}"]
            if "ess" in row
            else [""] * 3
        )
        rows.append([f"`{name}`", *per, f"{row['mean_error']:.2f}, {row['sd_error']:.2f}", evidence])
    head = ["", "bulk ESS", "per gradient", "per second", "error of the mean, of the sd", "log Z"]
    return markdown_table(head, rows)


def survey(saved):
    """The largest run, and times of others: seconds per star, or of a first batch with its compilation."""
    large = saved["survey"][-1]
    later = saved["cost_of_later_batches"]["seconds"][-15:]  # no other work ran any more
    before, after = (saved["versions_side_by_side"][k] for k in ("before priors were transformed as vectors", "after"))
    per_draw = large["seconds_per_star_and_process"] / large["ess_p5"]
    nuts = {k: min(s["sampling_s"] / s["ess"] for s in v["stars"]) for k, v in saved["numpyro_nuts"].items()}
    return SimpleNamespace(
        **large,
        compliant=large["r_hat_all_labels_1.01"],
        gigabytes=large["peak_memory_mb_of_a_worker"] / 1000,
        later=len(later),
        later_least=min(later),
        later_most=max(later),
        before=float(np.median(before[1:])),
        after=float(np.median(after[1:])),
        batches_before=len(before) - 1,
        batches_after=len(after) - 1,
        first_before=large["batch"] * before[0],
        first_after=large["batch"] * after[0],
        per_draw=per_draw,
        nuts_reduced=nuts["reduced emulator"],
        nuts_full=nuts["optical-fgk"],
        gain_reduced=nuts["reduced emulator"] / per_draw,
        gain_full=nuts["optical-fgk"] / per_draw,
    )


def calibration(turbospectrum, lte):
    """Coverage of all labels together, `on[snr]` and `off[snr]`; and the range over labels for the LTE spectra."""

    of_all = lambda saved: [r for r in saved["summary"] if r["stars"] == "all"]

    def together(saved, on):
        chosen = [r for r in of_all(saved) if r["emulator_error"] == on and r["parameter"] == "all labels"]
        return {
            "all" if r["snr"] is None or np.isnan(r["snr"]) else int(r["snr"]): SimpleNamespace(**r) for r in chosen
        }

    each = [r for r in of_all(turbospectrum) if r["emulator_error"] and r["parameter"] != "all labels"]
    p = [r["p_uniform"] for r in each if r["snr"] is not None and r["p_uniform"] is not None]
    labels = {
        r["parameter"]: r for r in of_all(lte) if r["parameter"] in LABELS and r["emulator_error"] and r["snr"] == 100
    }
    inside = [r["coverage_95"] for r in labels.values()]
    narrow = [labels[n]["coverage_68"] for n in ("teff", "logg", "fe_h", "mn_fe", "co_fe")]
    return SimpleNamespace(
        on=together(turbospectrum, True),
        off=together(turbospectrum, False),
        tests=len(p),
        smallest=min(p),
        lte=SimpleNamespace(
            least_95=min(inside),
            most_95=max(inside),
            error_95=max(r["coverage_95_error"] for r in labels.values()),
            least_68=min(narrow),
            most_68=max(narrow),
            widest=max(r["coverage_68"] for r in labels.values()),
        ),
    )


# Bounds and synthesis


def bounds(saved):
    mean = lambda name: np.mean([row["median_absolute"] for row in saved["bounds_synthesis"]["table"][name].values()])
    truth = saved["bounds_truth"]
    medians = [row["nuts"]["median"] for row in truth["summary"].values()]
    inside = lambda star, name: star["edge_in_bounds"].get(name, np.inf) > 4
    far = lambda key, stars: np.array([star[key][n] for star in stars for n in star[key] if inside(star, n)])
    scatter = far("scatter_over_bound", truth["each"])
    widths = far("nuts_over_bound", [star for star in truth["each"] if not star["divergences"]])
    seconds = {row["what"]: row["s"] for row in saved["bounds_speed"]["rows"]}
    map_20000 = next(v for k, v in seconds.items() if k.startswith("map") and "R = 20,000" in k)
    return SimpleNamespace(
        ours=mean("optical-fgk"),
        processes=mean("Gaussian processes"),
        payne=mean("The Payne"),
        payne_lte=mean("The Payne, LTE spectra too"),
        least=min(medians),
        most=max(medians),
        within=float((np.abs(widths - 1) < 0.05).mean()),
        scatter=float(scatter.mean()),
        scatter_sd=float(scatter.std()),
        reduced_s=seconds["bounds of a star, optical-fgk, reduced"],
        full_s=seconds["bounds of a star, optical-fgk"],
        map_s=map_20000,
    )


def synthesis(path):
    from astropy.table import Table

    table = Table.read(path, format="ascii.ecsv")
    shown = ("region", "n", "mae", "median_mae", "p99", "mae_r40000", "bias")
    rows = [[row["region"], row["n"], *(figure(float(row[n]), 5) for n in shown[2:])] for row in table]
    head = ["region", "spectra", "MAE", "median", "99 %", "MAE at R = 40,000", "bias"]
    whole = table[table["region"] == "all"][0]
    return SimpleNamespace(table=markdown_table(head, rows), mae=float(whole["mae"]), sun=table.meta["sun_mae"])


def pysme_table(saved):
    rows = [
        [name, row["n"], f"{row['mae']:.5f}", f"{saved['errors']['R=40000']['regions'][name]['mae']:.5f}"]
        for name, row in saved["errors"]["native"]["regions"].items()
    ]
    whole = [saved["errors"][kind]["all"] for kind in ("native", "R=40000")]
    rows.insert(0, ["all", whole[0]["n"], *(f"{row['mae']:.5f}" for row in whole)])
    return markdown_table(["region", "spectra", "MAE, native", "at R = 40,000"], rows)
