"""Tables of the page of the network of stars."""

from types import SimpleNamespace

from benchmark_tables import figure, markdown_table

NAMES = {
    "teff": ("Teff [K]", 1),
    "logg": ("log g", 3),
    "fe_h": ("[Fe/H]", 3),
    "alpha_m": ("[α/M]", 3),
    "a_k": ("A_K [mag]", 4),
}
THREE = ("teff", "logg", "fe_h")


def network(saved):
    """What the page needs beside the numbers themselves, of all the results `saved`."""
    stars = saved["stars_xp"]
    return SimpleNamespace(
        labels=_labels(stars),
        subsets=_subsets(stars["subsets"]),
        numbers=_numbers(stars["number_of_tokens"]),
        coverage=_coverage(stars["coverage"]),
        chi2={p: _chi2(stars["coverage"], p) for p in (68, 95)},
        generated=_generated(stars),
        aims=_aims(stars["aims"]),
        joint=_joint(saved["joint_xp"]["stars-xp"]["bounds"]),
        mocks=_mocks(saved["joint_xp"]["stars-xp"]["mocks_3000"]),
        refined=_refined({"synthetic": saved["refine"], "`stars-xp`": saved["refine_stars-xp"]}),
        real=_real(saved["refine_real"]),
    )


def _labels(saved):
    rows, seeds = [], saved.get("seeds") or {}
    for label, (name, digits) in NAMES.items():
        found = saved["labels"][label]
        row = [name, found["n"], figure(found["robust_sd"], digits), figure(found["bias"], digits)]
        row += [_control(found.get(control), digits) for control in ("xgboost", "mlps")]
        rows.append([*row, *([", ".join(figure(v, digits) for v in seeds[label]["each"])] if seeds else [])])
    head = ["", "n", "`stars-xp`", "bias", "XGBoost (difference in σ)", "three MLPs (difference in σ)"]
    return markdown_table([*head, *(["each seed"] if seeds else [])], rows)


def _control(entry, digits):
    return "" if not entry else f"{figure(entry['theirs'], digits)} ({figure(entry['in_sigma'], 1)})"


def _subsets(entries):
    rows = []
    for entry in entries:
        row = [entry["tokens"]]
        for label in THREE:
            digits, control = NAMES[label][1], entry[label]["xgboost"]
            row.append(f"{figure(entry[label]['robust_sd'], digits)} / {figure(control and control['theirs'], digits)}")
        rows.append([*row, figure(entry["ratio_to_xgboost"], 2)])
    return markdown_table(["elements", *(NAMES[k][0] for k in THREE), "ratio, mean of the three"], rows)


def _numbers(entries):
    rows = [[e["tokens"], *(figure(e[k], NAMES[k][1]) for k in THREE)] for e in entries]
    return markdown_table(["elements", *(NAMES[k][0] for k in THREE)], rows)


def _coverage(saved):
    rows = []
    for label, entries in saved.items():
        rows.append(
            [NAMES[label][0], *(f"{100 * e['coverage_68']:.1f} / {100 * e['coverage_95']:.1f}" for e in entries)]
        )
    return markdown_table(["", "low S/N", "middle", "high", "all"], rows)


def _chi2(saved, share):
    """Of the entries of all thirds, about what they should be, in units of their binomial errors."""
    p = share / 100
    entries = [entry for thirds in saved.values() for entry in thirds[:3]]
    return sum((entry[f"coverage_{share}"] - p) ** 2 * entry["n"] / (p * (1 - p)) for entry in entries)


def _generated(saved):
    painted, made, aims = saved["bp_to_rp"], saved["labels_to_xp"], saved["aims"]
    of = lambda entry: figure(entry and entry["median_abs_dln"], 4)
    rows = [
        ["BP to RP", painted["n"], of(painted), of(painted.get("bp_to_rp_mlp")), aims["bp_to_rp"]["aim"]],
        ["labels to XP", made["n"], of(made), of(made.get("mlp")), aims["labels_to_xp"]["aim"]],
    ]
    return markdown_table(["median abs. Δ ln f", "n", "`stars-xp`", "MLP for this alone", "aim"], rows)


def _aims(aims):
    rows = [
        [name, _short(row["found"]), row["aim"], "yes" if row["reached"] else "**no**"] for name, row in aims.items()
    ]
    return markdown_table(["aim", "found", "bound", "reached"], rows)


def _short(value):
    return value if isinstance(value, int) else f"{value:.4g}".replace("-", "−")


def _joint(bounds):
    """Bounds of log g by resolving power, of the network's emulator."""
    rows = [row for row in bounds if row["model_error"]]
    names = [name for name, value in rows[0].items() if isinstance(value, dict)]
    lines = [
        [f"{r['resolution']:,d}", *(figure(r[n]["logg"], 3) for n in names), figure(r["gain in log g"], 1)]
        for r in rows
    ]
    return markdown_table(["R", *names, "gain without the last two"], lines)


def _mocks(found):
    """Fits of mocks with all these errors: median standard deviations, and shares of true values within 68 and 95 %."""
    of = lambda e, k: f"{figure(e['sd'], 0 if k == 'teff' else 2)}: {100 * e['68']:.0f} / {100 * e['95']:.0f}"
    fits = {name: entry for name, entry in found.items() if isinstance(entry, dict)}
    rows = [[name, *(of(e[k], k) for k in THREE), f"{100 * e['verified']:.0f} %"] for name, e in fits.items()]
    return markdown_table(["", *(NAMES[k][0] for k in THREE), "verified"], rows)


def _refined(results):
    """Numbers of `refine` by generator."""
    rows = []
    for name, found in results.items():
        p, share = found["rank_p"].values(), lambda key, found=found: f"{100 * found[key]:.0f} %"
        row = [name, found["n"], f"{min(p):.2f} to {max(p):.2f}", share("by_weights_alone"), share("ok")]
        shifted = f"{share('shifted_recovered')} of {found['shifted_n']}"
        rows.append([*row, shifted, f"{found['median_seconds']['processors']:.2f}"])
    head = ["generator", "n", "p of ranks", "by weights alone", "flag ok"]
    return markdown_table([*head, "guide shifted by 5 σ: recovered", "CPU s a star"], rows)


def _real(found):
    """Departures of APOGEE's labels from refined answers for real stars, and what was stated."""
    rows = [
        [
            name,
            figure(found["departure"][k], 2),
            figure(found["sd"][k], digits),
            figure(found["sd_of_network"][k], digits),
        ]
        for k, (name, digits) in NAMES.items()
    ]
    return markdown_table(["", "robust sd of (refined − APOGEE) / error", "error stated", "the network's own"], rows)
