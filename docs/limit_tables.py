"""Tables of what Gaia's parallax does to fits, and of how often limits hold."""


def gaia_table(saved: dict) -> str:
    """A row for each star and each set of data: means with standard deviations, bounds, literature."""
    rows = ["| star | data | Teff [K] | log g | bound | [Fe/H] |", "|---|---|---|---|---|---|"]
    for star, fits in saved["stars"].items():
        known = next(iter(fits.values()))["literature"]
        for name, fit in fits.items():
            mean, sd = fit["mean"], fit["sd"]
            shown = f"{mean['teff']:.0f} ± {sd['teff']:.0f} | {mean['logg']:.2f} ± {sd['logg']:.2f} | {fit['bound']['logg']:.2f}"
            rows.append(f"| {star} | {name} | {shown} | {mean['fe_h']:.2f} ± {sd['fe_h']:.2f} |")
        rows.append(f"| | *literature* | {known['teff']:.0f} | {known['logg']:.2f} | | {known['fe_h']:.2f} |")
    return "\n".join(rows).replace("-", "−").replace("|−−−", "|---").replace("−−−", "---")


def limits_table(saved: dict) -> str:
    """A row for each label: how many are limits, and which share of them holds."""
    rows = [
        "| label | upper limits | lower limits | unconstrained | measured | limits that hold |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in saved["labels"].items():
        share = one["limits that hold"]
        held = "" if share is None else f"{100 * share:.0f} %"
        rows.append(
            f"| `{name}` | {one['upper']} | {one['lower']} | {one['unconstrained']} | {one['measured']} | {held} |"
        )
    return "\n".join(rows)
