"""Cost and error of the surrogates: `python -m tests.benchmarks.reduced` from the repository's root.

One likelihood gradient of the packaged HD 41248 (its pixels, line spread function, continuum) with the full transformer,
with the full default emulator, with the global reduction and with the local surrogate, side by side in one process; and each
surrogate's error against the emulator it stands for, on fresh labels, native and at the example's resolution.
"""

import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import emuinfer as ei
from emuinfer.emulators import load_card
from emuinfer.emulators.reduction import reduction_key
from emuinfer.emulators.storage import ZOO
from emuinfer.likelihoods.stellar import FullOnGrid

STAR = {"teff": 5690, "logg": 4.36, "fe_h": -0.43, "vmic": 0.8, "mg_fe": 0.04, "ca_fe": 0.22, "ti_fe": 0.02, "cr_fe": -0.03,
        "mn_fe": -0.14, "co_fe": -0.17, "ni_fe": -0.11, "y_fe": -0.1}
WIDTH = np.array([16, 0.022, 0.011, 0.03, 0.007, 0.021, 0.013, 0.009, 0.04, 0.02, 0.012, 0.034])


def gradient_ms(model, data, repeats):
    values = {**STAR, "rv": 3.8, "vbroad": 1.9, "log10_jitter": -3.5}
    start = jnp.asarray([values[n] for n in model.names], jnp.float32)

    @eqx.filter_jit
    def gradient(x, data):
        return jax.grad(lambda x: model.log_likelihood(dict(zip(model.names, x)), data)[0])(x)

    jax.block_until_ready(gradient(start, data))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(gradient(start, data))
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times)), float(np.min(times))


def main():
    observation = ei.Observation.example("hd41248")
    default, transformer = ei.load_emulator("optical-fgk"), ei.load_emulator("optical-fgk-transformer")
    model = ei.StellarSpectrum(default, observation, progress=False)
    space, grid = model.label_space, model.reduced
    rng = np.random.default_rng(0)
    centre = space.scale(space.to_array(STAR))
    draws = centre + 1.6 * rng.standard_normal((360, 12)) * WIDTH / space.half_width
    rows = {}
    for name, emulator in (("transformer", transformer), ("default", default)):
        full = FullOnGrid(emulator, emulator.prepare(grid.config.wavelength))
        rows[f"{name}, full"] = {"gradient_ms": gradient_ms(model, model.with_emulator(full), 7)}
        begin = time.perf_counter()
        local = localise(grid, emulator, draws)
        row = {"gradient_ms": gradient_ms(model, model.with_emulator(local), 60), "build_s": time.perf_counter() - begin}
        fresh = centre + rng.standard_normal((60, 12)) * WIDTH / space.half_width
        seen = eqx.filter_jit(lambda e, o, s: o(e.grid_flux(s), 3.8, 1.9))
        at = lambda e: np.stack([np.asarray(seen(e, model.data.operator, jnp.asarray(s, jnp.float32))) for s in fresh])
        residual = np.abs(at(local) - at(full))
        row["mae_at_example_resolution"] = float(residual.mean())
        row["max_at_example_resolution"] = float(residual.max())
        rows[f"{name}, local surrogate"] = row
    card = load_card(ZOO / "reductions" / f"reduced-{reduction_key(default, grid.config)}")
    rows["default, global reduction"] = {"gradient_ms": gradient_ms(model, model.data, 60), **card["error_against_full"]}
    slow = rows["transformer, full"]["gradient_ms"][0]
    for row in rows.values():
        row["times_cheaper_than_transformer"] = slow / row["gradient_ms"][0]
        print(row)
    path = Path(__file__).parent / "results" / "reduced.json"
    path.write_text(json.dumps({"pixels": len(model.wavelength), "grid": grid.config.n_wave, "seed": 0, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
