"""The any-to-any network of stars, judged on real stars with Gaia XP spectra and APOGEE labels.

    python -m tests.benchmarks.stars_xp --network stars-xp --controls FOLDER [--split 1] [--figures FOLDER]
    python -m tests.benchmarks.stars_xp --network stars-xp other.json … --seeds-only

`--controls` is what `stars_xp_baselines --keep` has left: the answers of networks and controls are compared star by star. Several
networks are seeds of one recipe: all are scored on the first question, the first one on the others. `--seeds-only` adds these scores to
the saved result. `--network gaussian` is a joint Gaussian of all kinds, an any-to-any control. Split 1 is for development: the numbers
are printed, or go to `--output`. Split 2, the test split, is looked at once: the numbers go to results/stars_xp.json, the figures to
results/.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np

from tests.benchmarks import stars_xp_questions as ask
from tests.benchmarks.stars_xp_kit import KIT, LABELS, RESULTS, THREE, Kit, curve_of

AIMS = {  # upper bounds
    "teff": 66.0,
    "logg": 0.18,
    "fe_h": 0.110,
    "bp_to_rp": 0.016,
    "labels_to_xp": 0.028,
    "curve_rms_over_span": 0.03,
    "curve_slope_off": 0.05,
    "coverage_68_off": 0.02,
    "coverage_95_off": 0.015,
    "seconds_1000": 1.0,
}


def aims(result):
    """(number, bound, reached) of each row of `AIMS`."""
    cover = [e for entries in result["coverage"].values() for e in entries[:3]]
    worst = lambda k, v: max(abs(e[f"coverage_{k}"] - v) for e in cover)
    curve = curve_of(result)
    found = {k: result["labels"][k]["robust_sd"] for k in THREE} | {
        "bp_to_rp": result["bp_to_rp"]["median_abs_dln"],
        "labels_to_xp": result["labels_to_xp"]["median_abs_dln"],
        "curve_rms_over_span": curve["rms_over_span"],
        "curve_slope_off": abs(curve["slope"] - 1),
        "coverage_68_off": worst("68", 0.68),
        "coverage_95_off": worst("95", 0.95),
        "seconds_1000": result["speed"]["seconds_1000"],
    }
    rows = {k: {"found": v, "aim": AIMS[k], "reached": bool(v <= AIMS[k])} for k, v in found.items()}
    won = result["subsets_won"]
    each = {k: won[k] for k in THREE}
    rows["subsets"] = {"found": won["all_three_together"], "label_by_label": each, "of": won["of"], "aim": 9}
    rows["subsets"]["reached"] = won["of"] == 10 and won["all_three_together"] >= 9
    return rows


def of_seeds(each):
    """Scores of the first question by several trainings."""
    found = {k: [e[k]["robust_sd"] for e in each] for k in LABELS}
    return {k: {"each": v, "mean": float(np.mean(v)), "sd": float(np.std(v, ddof=1))} for k, v in found.items()}


def judged(networks, tokens, kit, split, controls):
    """All numbers, and what the figures show."""
    first = networks[0]
    by_label, shown = ask.labels(first, tokens, kit, split, controls)
    result = {"split": {1: "validation", 2: "test"}[split], "labels": by_label}
    if len(networks) > 1:
        result["seeds"] = of_seeds([by_label] + [ask.labels(n, tokens, kit, split, controls)[0] for n in networks[1:]])
    say = lambda name: print(time.strftime("%H:%M:%S"), name, json.dumps(result[name])[:600], flush=True)
    say("labels")
    result["subsets"] = ask.any_subset(first, tokens, kit, split, controls)
    result["subsets_won"] = ask.better(result["subsets"])
    say("subsets_won")
    result["number_of_tokens"] = ask.number_of_tokens(first, tokens, kit, split)
    result["bp_to_rp"], painted = ask.painting(first, tokens, kit, split, controls)
    say("bp_to_rp")
    result["labels_to_xp"], curves = ask.generated(first, tokens, kit, split, controls)
    say("labels_to_xp")
    result["coverage"] = ask.coverage(first, tokens, kit, split)
    result["speed"] = ask.speed(first, tokens, kit, split)
    say("speed")
    result["aims"] = aims(result)
    return result, {"labels": shown, "painted": painted, "curves": curves}


def load(name, kit_path):
    if name == "gaussian":
        from tests.benchmarks.stars_xp_gaussian import JointGaussian

        return JointGaussian.of_kit(kit_path)
    import emuinfer

    return emuinfer.load_network(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", required=True, help="names or files; several are seeds of one recipe")
    parser.add_argument("--controls", type=Path, help="folder that stars_xp_baselines --keep has filled")
    parser.add_argument("--split", type=int, choices=[1, 2], default=1)
    parser.add_argument(
        "--seeds-only", action="store_true", help="score the first question on split 2; add it to --output"
    )
    parser.add_argument("--kit", type=Path, default=KIT)
    parser.add_argument(
        "--output", type=Path, help="JSON; by default results/stars_xp.json for split 2, none for split 1"
    )
    parser.add_argument("--figures", type=Path, help="folder; by default results/ for split 2, none for split 1")
    given = parser.parse_args()
    final = given.split == 2
    kit, networks = Kit(given.kit), [load(name, given.kit) for name in given.network]
    tokens = ask.all_tokens(networks[0], kit, given.kit)
    if given.seeds_only:
        path = given.output or RESULTS / "stars_xp.json"
        none = ask.Controls(None, 2)
        seeds = of_seeds([ask.labels(n, tokens, kit, 2, none)[0] for n in networks])
        print(json.dumps(seeds, indent=1))
        path.write_text(json.dumps({**json.loads(path.read_text()), "seeds": seeds}, indent=1) + "\n")
        return
    result, shown = judged(networks, tokens, kit, given.split, ask.Controls(given.controls, given.split))
    result |= {
        "network": [Path(n).name for n in given.network],
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result["aims"], indent=1))
    output = given.output or (RESULTS / "stars_xp.json" if final else None)
    if output:
        output.write_text(json.dumps(result, indent=1) + "\n")
    folder = given.figures or (RESULTS if final else None)
    if folder:
        from tests.benchmarks.stars_xp_figures import draw

        folder.mkdir(parents=True, exist_ok=True)
        draw(result, shown, kit, folder)


if __name__ == "__main__":
    main()
