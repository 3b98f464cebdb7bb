"""Every reader with random files: `python -m tests.benchmarks.fuzz --examples 10000 --seed 1` from the repository's root.

Each file ends in an `Observation` or an `EmuinferError`; what ends otherwise is counted by its error, with one file kept.
Saves counts, seed, versions and the machine in results/fuzz.json.
"""

import argparse
import collections
import json
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(Path(__file__).parents[1]))
import fuzz

RESULTS = Path(__file__).parent / "results"


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--examples", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", type=Path, help="folder for files that are not read and not refused")
    options.add_argument("--output", type=Path, default=RESULTS / "fuzz.json")
    given_ = options.parse_args()
    ends, faults, seconds = collections.Counter(), {}, []
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:

        @hypothesis.seed(given_.seed)
        @settings(
            max_examples=given_.examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(fuzz.files())
        def run(file):
            start = time.perf_counter()
            try:
                ends[fuzz.check(file, Path(folder))] += 1
            except Exception as error:
                ends["fault"] += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                key = f"{type(error).__name__}: {str(error)[:120]} ({Path(where.filename).name}:{where.lineno})"
                faults[key] = faults.get(key, 0) + 1
                if given_.keep and faults[key] == 1:
                    given_.keep.mkdir(parents=True, exist_ok=True)
                    (given_.keep / f"{len(faults)}{file.suffix}").write_bytes(file.content)
                    (given_.keep / f"{len(faults)}.log").write_text(f"{file.options}\n{key}\n{traceback.format_exc()}")
            seconds.append(time.perf_counter() - start)

        run()
    result = {
        "examples": int(sum(ends.values())),
        "seed": given_.seed,
        **{k: ends[k] for k in ("read", "refused", "fault")},
        "faults": faults,
        "median_ms": round(1e3 * float(np.median(seconds)), 2),
        "longest_s": round(max(seconds), 2),
        "total_s": round(time.perf_counter() - clock, 1),
        "hypothesis": hypothesis.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    given_.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
