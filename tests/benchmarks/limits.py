"""Do limits cover? `python -m tests.benchmarks.limits`; writes `results/limits.json`.

Mocks of hot metal-poor stars through the full emulator `optical-fgk`, whose abundances over iron are drawn from the flat prior of the
fit, R = 20,000, S/N 50: many of their abundances cannot be measured. `fit_many` fits them; of the limits on abundances that come out 95 %
should hold the truth, and of the values that are measured 95 % should lie within two standard deviations. Finished batches are kept in
`--folder`.
"""

import argparse
import json
import time
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np

import emuinfer as ei
from emuinfer.files import use_compilation_cache
from emuinfer.forward.operator import SpectrumOperator
from emuinfer.inference import SURVEY
from emuinfer.observations.stack import stack_observations

RESULTS = Path(__file__).parent / "results"
RESOLUTION, SNR, PIXELS = 20_000.0, 50.0, 3.0
RANGES = {"teff": (6000.0, 6700.0), "logg": (3.6, 4.6), "fe_h": (-2.6, -1.4), "vmic": (1.0, 1.8)}


def truths(space, n, seed=0) -> dict[str, np.ndarray]:
    """Labels of `n` stars: those of `RANGES` within these, abundances within the domain."""
    rng = np.random.default_rng([20261127, seed])
    return {name: rng.uniform(*RANGES.get(name, space.bounds[name]), n) for name in space.names}


def observations(emulator, labels, seed=1):
    """Noisy spectra of the stars, through the full emulator."""
    reduced = ei.reduce_emulator(emulator, progress=False)
    grid, medium = reduced.config.wavelength, emulator.medium
    lo, hi = emulator.wavelength_range
    wavelength = np.exp(np.arange(np.log(lo + 3), np.log(hi - 3), 1 / (RESOLUTION * PIXELS)))
    operator = SpectrumOperator(grid, wavelength, RESOLUTION, rv_range=(-50, 50), medium=medium)
    full = emulator.tabulate(emulator.prepare(emulator.check_wavelength(grid)))
    see = eqx.filter_jit(lambda full, x, rv: operator(full.grid_flux(x), rv, jnp.float32(4.0)))
    rng = np.random.default_rng(seed)
    for i, row in enumerate(emulator.label_space.to_array(labels)):
        scaled = jnp.asarray(emulator.label_space.scale(row), jnp.float32)
        flux = np.asarray(see(full, scaled, jnp.float32(rng.uniform(-30, 30))), float)
        flux += rng.standard_normal(len(flux)) / SNR
        yield ei.Observation(
            wavelength, flux, 1 / SNR, resolution=RESOLUTION, medium=medium, name=f"mock-{i}", clip=None
        )


def coverage(table, labels) -> dict:
    """Of each label and of all: how many of each verdict, and the share of them that hold the truth."""
    found, total = {}, {"limits": [], "measured": []}
    usable = ~np.isnan(np.asarray(table["teff"], float)) & (np.asarray(table["flag"]) & 32 == 0)
    for name, truth in labels.items():
        sign, limit = np.asarray(table[f"l_{name}"]).astype(str), np.asarray(table[f"{name}_limit"], float)
        upper, lower = usable & (sign == "<"), usable & (sign == ">")
        holds = np.concatenate([(truth < limit)[upper], (truth > limit)[lower]])
        measured = usable & (sign == "")
        offset = (np.asarray(table[f"{name}_mean"], float) - truth) / np.asarray(table[f"{name}_sd"], float)
        within = np.abs(offset[measured]) < 2
        if name not in RANGES:  # the others are not drawn from the prior of the fit
            total["limits"].append(holds)
            total["measured"].append(within)
        found[name] = {
            "upper": int(upper.sum()),
            "lower": int(lower.sum()),
            "unconstrained": int((usable & (sign == "?")).sum()),
            "measured": int(measured.sum()),
            "limits that hold": float(holds.mean()) if len(holds) else None,
            "measured within 2 sd": float(within.mean()) if len(within) else None,
        }
    joined = {k: np.concatenate(v) for k, v in total.items()}
    share = {
        k: {"n": len(v), "share": float(v.mean()), "error": float(np.sqrt(v.mean() * (1 - v.mean()) / len(v)))}
        for k, v in joined.items()
    }
    return {"usable": int(usable.sum()), "all": share, "labels": found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("limits-mocks"))
    parser.add_argument("--stars", type=int, default=192)
    given = parser.parse_args()
    use_compilation_cache()
    emulator = ei.load_emulator("optical-fgk")
    labels = truths(emulator.label_space, given.stars)
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "mocks.h5"
    if not path.exists():
        stack_observations(observations(emulator, labels), path)
    begin = time.perf_counter()
    options = {"line_errors": None, "emulator_error": None, "config": SURVEY, "batch": 24}
    table = ei.fit_many(emulator, path, given.folder / "out", progress=True, rv_range=(-60.0, 60.0), **options)
    result = {"stars": given.stars, "seconds": time.perf_counter() - begin, "resolution": RESOLUTION, "snr": SNR}
    result |= coverage(table, labels)
    decided = [text for text in np.asarray(table["limit_lines"]).astype(str) if "y_fe" in text]
    result["examples"] = decided[:5]
    (RESULTS / "limits.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
