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


def stars_xp(saved):
    """What the page needs beside the numbers themselves."""
    return SimpleNamespace(
        labels=_labels(saved),
        subsets=_subsets(saved["subsets"]),
        numbers=_numbers(saved["number_of_tokens"]),
        coverage=_coverage(saved["coverage"]),
        chi2={p: _chi2(saved["coverage"], p) for p in (68, 95)},
        generated=_generated(saved),
        missed=_missed(saved["aims"]),
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
    painted, made = saved["bp_to_rp"], saved["labels_to_xp"]
    of = lambda entry: figure(entry and entry["median_abs_dln"], 4)
    rows = [
        ["BP to RP", painted["n"], of(painted), of(painted.get("bp_to_rp_mlp")), "0.016"],
        ["labels to XP", made["n"], of(made), of(made.get("mlp")), "0.028"],
    ]
    return markdown_table(["median abs. Δ ln f", "n", "`stars-xp`", "MLP for this alone", "aim"], rows)


def _missed(aims):
    """Sentences on what was not reached."""
    rows = [
        [name, _short(row["found"]), row["aim"], "yes" if row["reached"] else "**no**"] for name, row in aims.items()
    ]
    return markdown_table(["aim", "found", "bound", "reached"], rows)


def _short(value):
    return value if isinstance(value, int) else f"{value:.4g}".replace("-", "−")


def joint(saved):
    """Bounds of log g by resolving power, of the network's emulator."""
    rows = [row for row in saved["stars-xp"]["bounds"] if row["model_error"]]
    names = [name for name, value in rows[0].items() if isinstance(value, dict)]
    lines = [
        [f"{r['resolution']:,d}", *(figure(r[n]["logg"], 3) for n in names), figure(r["gain in log g"], 1)]
        for r in rows
    ]
    return markdown_table(["R", *names, "gain without the last two"], lines)


def mocks(saved):
    """Fits of mocks with all these errors: standard deviations and shares of true values within 68 and 95 %."""
    found = next(v for k, v in saved["stars-xp"].items() if k.startswith("mocks_"))
    rows = []
    for name, entry in found.items():
        if isinstance(entry, dict):
            cells = [
                f"{figure(entry[k]['sd'], 0 if k == 'teff' else 2)}: {100 * entry[k]['68']:.0f} / {100 * entry[k]['95']:.0f}"
                for k in THREE
            ]
            rows.append([name, *cells])
    said = (
        f"Fits of {found['n']} mocks at R = {found['resolution']:,d}, drawn with all these errors; median standard deviations: "
        f"per cent of true values within 68 and 95 %. {found['failed']} more ended in an error."
    )
    return f"{said}\n\n{markdown_table(['', *(NAMES[k][0] for k in THREE)], rows)}"


def refined(saved):
    """Numbers of `refine` with each generator that was tried."""
    rows = []
    tried = {"synthetic": "refine", "`stars-xp`": "refine_stars-xp"}
    for name, found in ((name, saved[file]) for name, file in tried.items() if file in saved):
        p = found["rank_p"].values()
        percent = lambda share: "" if share is None else f"{100 * share:.0f} %"
        rows.append(
            [
                name,
                found["n"],
                f"{min(p):.2f} to {max(p):.2f}",
                percent(found["by_weights_alone"]),
                percent(found["ok"]),
            ]
        )
        rows[-1] += [f"{percent(found['shifted_recovered'])} of {found['shifted_n']}"]
        rows[-1] += [f"{found['median_seconds']['processors']:.2f}"]
    head = [
        "generator",
        "n",
        "p of ranks",
        "by weights alone",
        "flag ok",
        "guide shifted by 5 σ: recovered",
        "CPU s a star",
    ]
    return markdown_table(head, rows)
