"""How long forecasts take. `python -m tests.benchmarks.bounds_speed`; writes `results/bounds_speed.json` and `.md`.

Twelve labels, velocity, broadening and nine continuum terms on 10,000 pixels, for stars whose labels change from call to
call, and a map of 1,000 stars with the memory it takes. Medians of rounds; compilation apart.
"""

import json
import os
import resource
import time
from pathlib import Path

import jax
import numpy as np

import emuinfer as ei
from emuinfer.emulators import shipped_uncertainty
from emuinfer.forecast import Exposure, Forecast, Instrument, bounds_map

from .bounds_truth import stars

RESULTS = Path(__file__).parent / "results"
WIDE = Instrument.single(5101.0, 5299.0, 60_000.0, 4.4)
ROUNDS = 7


def memory():
    """The most memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    space = ei.OPTICAL_FGK
    emulator = ei.load_emulator("optical-fgk")
    kinds = {"optical-fgk, reduced": ei.reduce_emulator(emulator), "optical-fgk": emulator}
    labels, rows, uncertainty = stars(space, 1000), [], shipped_uncertainty(emulator)
    for name, e in kinds.items():
        for floor in (None, uncertainty):
            times = []
            for i in range(ROUNDS + 1):
                begin = time.perf_counter()
                forecast = Forecast(e, labels[i], Exposure(WIDE, 100.0))
                forecast.bounds(emulator_error=floor)
                times.append(time.perf_counter() - begin)
            what = f"bounds of a star, {name}" + (", with the emulator's floor" if floor is not None else "")
            rows.append({"what": what, "pixels": forecast.n_pix, "parameters": len(forecast.names), "first_s": times[0],
                         "s": float(np.median(times[1:]))})  # fmt: skip
            print(rows[-1], flush=True)
    narrow = Instrument.single(5101.0, 5299.0, 20_000.0, 3.0)
    for what, instrument in (("R = 20,000", narrow), ("10,000 pixels", WIDE)):
        bounds_map(kinds["optical-fgk, reduced"], labels[:16], Exposure(instrument, 100.0))
        before, begin = memory(), time.perf_counter()
        found = bounds_map(kinds["optical-fgk, reduced"], labels, Exposure(instrument, 100.0))
        rows.append({"what": f"map of 1,000 stars, reduced, {what}, compilation included", "pixels": len(instrument.arms[0].pixels()),
                     "parameters": 23, "s": time.perf_counter() - begin, "memory_added_mb": memory() - before,
                     "finite": int(np.isfinite(found.marginal).all(1).sum())})  # fmt: skip
        print(rows[-1], flush=True)
    facts = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "jax": jax.__version__, "rows": rows}
    (RESULTS / "bounds_speed.json").write_text(json.dumps(facts, indent=1))
    lines = [
        "# Time of forecasts",
        "",
        f"{facts['cores']} cores, load {facts['load']:.1f}; written by `tests/benchmarks/bounds_speed.py`.",
        "",
        "| what | pixels | parameters | seconds | first call | memory added |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        first = f"{r['first_s']:.1f}" if "first_s" in r else ""
        more = f"{r['memory_added_mb']:.0f} MB" if "memory_added_mb" in r else ""
        lines.append(f"| {r['what']} | {r['pixels']} | {r['parameters']} | {r['s']:.2f} | {first} | {more} |")
    (RESULTS / "bounds_speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
