"""What a network that proposes the starts of a fit could save: `python -m tests.benchmarks.starts` from the repository's root.

A fit of one star begins with the density at 256 points that fill the domain; the four best start the optimiser. A network that maps a
spectrum to a start would take the place of that search. Here the best of all such networks does: it starts at the optimum itself. The
packaged HD 41248 with noise of S/N 100 added, many times; medians after compilation, in one process, in turns.
"""

import argparse
import copy
import json
import platform
import time
from pathlib import Path

import numpy as np

import emuinfer as ei
from emuinfer.inference import steps
from emuinfer.inference.config import STAR

RESULT = Path(__file__).parent / "results" / "starts.json"


def timed(function, *arguments, **keywords):
    begun = time.perf_counter()
    found = function(*arguments, **keywords)
    return found, time.perf_counter() - begun


def main(stars: int, output: Path) -> None:
    emulator, example = ei.load_emulator(), ei.Observation.example("hd41248")
    rows: list[dict] = []
    for number in range(stars + 1):
        noise = 0.01 * np.random.default_rng(number).standard_normal(len(example.flux))
        observation = copy.copy(example)
        observation.__dict__.update(flux=example.flux + noise, uncertainty=np.hypot(example.uncertainty, 0.01))
        model = ei.StellarModel(emulator, observation)
        (fit, starts), screen = timed(steps.Fit.screened, model)
        found, climb = timed(fit.optimised, starts)
        again, climb_best = timed(fit.optimised, np.repeat(found.z[None], len(starts), 0))
        _, whole = timed(ei.sample, model, progress=False, predictive=0, pointwise=0)
        moved = float(np.abs(found.z - again.z).max())
        rows.append(
            {"screen": screen, "climb": climb, "climb_from_optimum": climb_best, "sample": whole, "moved": moved}
        )
        print(rows[-1], flush=True)
    warm = rows[1:]  # the first compiles
    medians = {name: float(np.median([row[name] for row in warm])) for name in warm[0]}
    saved = medians["screen"] + medians["climb"] - medians["climb_from_optimum"]
    result = {
        "stars": stars,
        "screened": steps.SCREENED,
        "median_s": medians,
        "saved_at_most_s": saved,
        "share_of_sample": saved / medians["sample"],
        "machine": platform.machine(),
        "sampling": {"chains": STAR.chains, "draws": STAR.draws},
    }
    output.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=10)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    main(arguments.stars, arguments.output)
