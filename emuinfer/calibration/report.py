"""The page of a calibration, `index.html`, for a person to read."""

import html

import numpy as np

from ..errors import SamplingError
from ..files import write_bytes
from ..survey.summary import FLAGS
from .statistics import ALL

STYLE = """body{font:16px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:14px;margin:1em 0}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}img{max-width:100%}.bad{background:#f6d5d9}.note{background:#fff4d6;padding:.6em 1em}"""
GOAL = 0.02
GUIDE = """<p>Each star's true labels are known. If posteriors are right, 68 % of the truths lie inside the central 68 % intervals,
95 % inside the 95 % intervals, and the rank of the truth among posterior draws is uniform. Coverage that is too low means error
bars that are too small; too high, too large.</p>"""


def write_page(path, results, summary, labels, notes, plan):
    """Write the page; `results`, `summary` as of `check_coverage`, `labels` the names of the emulator's labels."""
    mock = plan["mock"]
    head = (
        f"{plan['stars']} stars at S/N {', '.join(f'{s:g}' for s in mock['snr'])} per pixel, R = {mock['resolution']:g}, "
        f"{mock['pixels_per_fwhm']:g} pixels per FWHM, "
        f"velocities {mock['rv_range'][0]:g} to {mock['rv_range'][1]:g} km/s, seed {mock['seed']}. "
        f"Emulator {plan['emulator']}, source {plan['source'][:16]}."
    )
    parts = [f"<h1>Calibration</h1><p>{html.escape(head)}</p>", GUIDE]
    parts += [f'<p class="note">{html.escape(n)}</p>' for n in notes]
    parts += ["<h2>Coverage of all labels together</h2>", _overview(summary)]
    parts += [
        '<h2>Coverage by parameter</h2><img src="coverage.png" alt="coverage">',
        "<p>Full symbols: emulator error in the likelihood; open: without. Grey: within 2 points of nominal. Errors are binomial.</p>",
    ]
    for on in sorted(set(summary["emulator_error"]), reverse=True):
        parts += [f"<h3>Emulator error {'on' if on else 'off'}</h3>", _by_parameter(summary, on)]
    parts += [
        (
            "<p>Marked: off by more than 2 points and by more than 2 errors. Bias and spread: mean and standard deviation of "
            "(mean − truth) / sd, 0 and 1 in the ideal case; near the bounds of the prior posteriors are cut off and neither holds "
            "exactly. p: of uniform ranks. Of many parameters some p are small by chance.</p>"
        ),
        '<h2>Ranks</h2><img src="ecdf.png" alt="distribution functions of the ranks"><img src="ranks.png" alt="rank histograms">',
        "<h2>Flags</h2>",
        _flags(results),
        (
            "<p>Tables: <a href='results.ecsv'>results.ecsv</a> (a row per star, S/N, emulator error and parameter), "
            "<a href='summary.ecsv'>summary.ecsv</a>.</p>"
        ),
    ]
    page = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Calibration</title><style>{STYLE}</style>{''.join(parts)}</html>"
    write_bytes(path, page.encode(), SamplingError)


def _table(head, rows):
    cells = lambda row, tag: "".join(
        f"<{tag}{c[1] if isinstance(c, tuple) else ''}>{c[0] if isinstance(c, tuple) else c}</{tag}>" for c in row
    )
    body = "".join(f"<tr>{cells(r, 'td')}</tr>" for r in rows)
    return f"<table><tr>{cells(head, 'th')}</tr>{body}</table>"


def _snr(value):
    return "all" if np.isnan(value) else f"{value:g}"


def _share(row, level):
    value, error = row[f"coverage_{level}"], row[f"coverage_{level}_error"]
    off = abs(value - level / 100) > max(GOAL, 2 * error)
    text = f"{100 * value:.1f} ± {100 * error:.1f}"
    return (text, ' class="bad"') if off else text


def _overview(summary):
    head = ("emulator error", "stars", "S/N", "fits", "68 %", "95 %", "spread of pulls")
    rows = [
        (
            "on" if r["emulator_error"] else "off",
            r["stars"],
            _snr(r["snr"]),
            r["n"],
            _share(r, 68),
            _share(r, 95),
            f"{r['spread']:.2f}",
        )
        for r in summary[summary["parameter"] == ALL]
    ]
    return _table(head, rows)


def _by_parameter(summary, on):
    part = summary[(summary["emulator_error"] == on) & (summary["stars"] == "all") & (summary["parameter"] != ALL)]
    head = ("parameter", "S/N", "68 %", "95 %", "bias", "spread", "p", "median sd", "rms error")
    rows = []
    for name in dict.fromkeys(part["parameter"]):
        for r in part[part["parameter"] == name]:
            p = "" if np.isnan(r["p_uniform"]) else f"{r['p_uniform']:.2g}"
            rows.append(
                (
                    name,
                    _snr(r["snr"]),
                    _share(r, 68),
                    _share(r, 95),
                    f"{r['bias']:+.2f} ± {r['bias_error']:.2f}",
                    f"{r['spread']:.2f} ± {r['spread_error']:.2f}",
                    p,
                    f"{r['width']:.3g}",
                    f"{r['rms']:.3g}",
                )
            )
    return _table(head, rows)


def _flags(results):
    """How many stars have each flag, by emulator error and S/N."""
    first = results[results["parameter"] == results["parameter"][0]]
    groups = [(on, s) for on in sorted(set(first["emulator_error"]), reverse=True) for s in sorted(set(first["snr"]))]
    pick = lambda on, s: np.asarray(first["flag"][(first["emulator_error"] == on) & (first["snr"] == s)])
    head = ("flag", *(f"{'on' if on else 'off'}, S/N {s:g}" for on, s in groups))
    rows = [("stars", *(len(pick(*g)) for g in groups))]
    rows += [(name, *(int((pick(*g) & bit > 0).sum()) for g in groups)) for name, bit in FLAGS.items()]
    return _table(head, [r for r in rows if r[0] == "stars" or any(r[1:])])
