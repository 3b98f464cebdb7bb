"""Fill the numbers of the saved benchmarks into the pages that quote them: `python docs/benchmarks.py`.

Pages with numbers are written in `templates/`, with `{{ name:format }}` in place of every number and table that a file in
`tests/benchmarks/results/` holds, and come out beside it, to be read on a code host and to be built into the site. Fields are
those of `str.format`: `{{ reduced[pixels]:,d }}`, `{{ calibration.on[50].coverage_68:.1% }}`; `values` says what there is.
`--check` writes nothing and ends with status 1 where a page is not what its template makes.
"""

import functools
import json
import re
import string
import sys
from pathlib import Path

from benchmark_tables import (
    bounds,
    calibration,
    curve_table,
    emulator_table,
    incumbent_table,
    korg_table,
    labels,
    learning_curve,
    pysme_table,
    reduced_table,
    samplers_table,
    scaling,
    stars,
    stars_table,
    survey,
    synthesis,
)
from limit_tables import gaia_table, limits_table
from network_tables import network
from synthesis_tables import whole_optical

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[1]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
WEIGHTS = ROOT / "emuinfer" / "data" / "weights"
FIELD = re.compile(r"\{\{\s*(.+?)\s*\}\}")


class Formatter(string.Formatter):
    """`str.format` with a true minus sign, and a space before the sign of per cents."""

    def format_field(self, value, spec):
        text = super().format_field(value, spec)
        return text.replace("-", "−").replace("%", " %") if isinstance(value, int | float) else text


@functools.cache
def values() -> dict:
    """Every saved JSON file under its own name, the emulator's `card`, and what is derived from them."""
    saved = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    card, of_errors = (
        json.loads((WEIGHTS / f"optical-fgk{end}.json").read_text()) for end in ("", "-uncertainty.card")
    )
    derived = {
        "card": card,
        "labels": labels(card["labels"]),
        "covariance": of_errors["held_out_coverage"],
        "tables": {path.stem: _table(path) for path in RESULTS.glob("*.md")},
        "stars_table": stars_table(saved["stars"]),
        "star": stars(saved["stars"]),
        "baselines_table": _table(RESULTS / "baselines.md"),
        "emulator_table": emulator_table(card, saved["baselines"]),
        "curve": learning_curve(saved["learning_curve"]),
        "curve_table": curve_table(learning_curve(saved["learning_curve"])),
        "scaling_found": scaling(saved["scaling"]),
        "incumbent_table": incumbent_table(saved["incumbent"]),
        "korg_table": korg_table(saved["korg_marcs"]),
        "reduced_table": reduced_table(saved["reduced"]),
        "samplers_table": samplers_table(saved["samplers"]),
        "calibration": calibration(saved["calibration_turbospectrum"], saved["calibration_lte"]),
        "bounds": bounds(saved),
        "many": survey(saved["survey"]),
        "synthesis": synthesis(RESULTS / "synthesis_vs_turbospectrum.ecsv"),
        "whole_optical": whole_optical(saved["synthesis_whole_optical"]),
        "network": network(saved),
        "gaia_table": gaia_table(saved["gaia"]),
        "limits_table": limits_table(saved["limits"]),
        "pysme_table": pysme_table(saved["pysme_vs_turbospectrum"]),
    }
    return {**saved, **derived}


def _table(path) -> str:
    """What a benchmark has written for people, less its title."""
    return re.sub(r"\A# .*\n+", "", path.read_text(encoding="utf-8")).strip()


def filled(template: str) -> str:
    """The text with its fields filled in. Raises `LookupError` that names a field that the results do not have."""

    def fill(match):
        try:
            return Formatter().format("{" + match[1] + "}", **values())
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise LookupError(f"{match[0]} is not among the saved results ({error!r}).") from error

    return FIELD.sub(fill, template)


def pages() -> dict:
    """Page to its text, for all templates."""
    found = {}
    for template in sorted((HERE / "templates").rglob("*.md")):
        name = template.relative_to(HERE / "templates")
        title, _, rest = filled(template.read_text(encoding="utf-8")).partition("\n")
        note = f"<!-- Made by docs/benchmarks.py from docs/templates/{name.as_posix()}: change that. -->"
        found[HERE / name] = f"{title}\n\n{note}\n{rest}"
    return found


def main() -> None:
    made = pages()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what its template makes: run python docs/benchmarks.py")
        sys.exit(bool(stale))
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(made[path], encoding="utf-8")
        print(f"{path.relative_to(ROOT)} written")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
