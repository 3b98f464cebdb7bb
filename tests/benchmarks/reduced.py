"""Cost and error of the surrogates: `python -m tests.benchmarks.reduced` from the repository's root.

One gradient of the log likelihood of the packaged HD 41248 (its pixels, line spread function, velocity, broadening,
continuum, noise) with the full transformer, with the full default emulator, with the global reduction and with the local
surrogate, four chains at once, in turns in one process (medians over the rounds); and each surrogate's error against the emulator it stands for, on
fresh parameters, at the example's pixels and resolution.
"""

import copy
import json
import os
import platform
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import emuinfer as ei
from emuinfer.inference import LOCAL, WIDEN, local_surrogate

STAR = {"teff": 5690, "logg": 4.36, "fe_h": -0.43, "vmic": 0.8, "mg_fe": 0.04, "ca_fe": 0.22, "ti_fe": 0.02, "cr_fe": -0.03,
        "mn_fe": -0.14, "co_fe": -0.17, "ni_fe": -0.11, "y_fe": -0.1}
WIDTH = np.array([16, 0.022, 0.011, 0.03, 0.007, 0.021, 0.013, 0.009, 0.04, 0.02, 0.012, 0.034])


ROUNDS = 11
CHAINS = 4


def gradient(model, data, repeats):
    """A function without arguments that takes `repeats` gradients of `CHAINS` chains at once in one compiled loop, as the
    sampler does."""
    values = {**STAR, "rv": 3.8, "vbroad": 1.9, "log10_jitter": -3.5}
    at = jnp.asarray([values[n] for n in model.names], jnp.float32)

    @eqx.filter_jit
    def run(x, data):
        def one(x, _):
            slope = jax.grad(lambda x: model.log_likelihood(dict(zip(model.names, x)), data)[0])(x)
            return x * (1 + 1e-12 * slope), None  # each gradient needs the one before

        chains = x * (1 + 1e-5 * jnp.arange(CHAINS)[:, None])
        return jax.lax.scan(jax.vmap(one, in_axes=(0, None)), chains, jnp.zeros(repeats))[0]

    jax.block_until_ready(run(at, data))
    return lambda: jax.block_until_ready(run(at, data))


def milliseconds(call, repeats):
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin) / repeats / CHAINS


def draws(n, spread, seed):
    rng = np.random.default_rng(seed)
    values = {name: STAR[name] + spread * w * rng.standard_normal(n) for name, w in zip(STAR, WIDTH)}
    return {**values, "rv": 3.8 + spread * 0.02 * rng.standard_normal(n), "vbroad": 1.9 + spread * 0.04 * rng.standard_normal(n),
            "log10_jitter": np.full(n, -3.5)}


def main():
    observation = ei.Observation.example("hd41248")
    model = ei.StellarSpectrum(ei.load_emulator("optical-fgk"), observation, progress=False)
    models = {"optical-fgk-transformer": copy.copy(model), "optical-fgk": model}
    # On the grid of the default's reduction, which needs no reduction of its own.
    models["optical-fgk-transformer"].full = ei.load_emulator("optical-fgk-transformer")
    fresh = draws(60, 1.0, seed=1)
    seen = eqx.filter_jit(lambda model, v, d: model.normalised_flux(v, d))
    rows, calls = {}, {}
    for name, model in models.items():
        begin = time.perf_counter()
        surrogate = local_surrogate(model, draws(LOCAL, WIDEN, seed=0), model.data)
        built = time.perf_counter() - begin
        kinds = {"full": model.with_emulator(model.full_on_grid()), "global reduction": model.data,
                 "local surrogate": model.with_emulator(surrogate)}
        if name == "optical-fgk-transformer":
            del kinds["global reduction"]
        at = {k: np.stack([np.asarray(seen(model, {n: jnp.float32(v[i]) for n, v in fresh.items()}, d)) for i in range(60)])
              for k, d in kinds.items()}
        for kind, data in kinds.items():
            key = f"{name}, {kind}"
            repeats = 1 if kind == "full" else 40
            calls[key] = gradient(model, data, repeats), repeats
            error = np.abs(at[kind] - at["full"])
            rows[key] = {} if kind == "full" else {
                "mae_at_example_resolution": float(error.mean()), "max_at_example_resolution": float(error.max())}
        rows[key]["build_s"] = built
    times = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, call in calls.items():
            times[key].append(milliseconds(*call))
    slow = np.array(times["optical-fgk-transformer, full"])
    for key, row in rows.items():
        row["gradient_ms"] = float(np.median(times[key]))
        row["times_cheaper_than_transformer"] = float(np.median(slow / times[key]))
        print(f"{key:45s}", row)
    path = Path(__file__).parent / "results" / "reduced.json"
    facts = {"pixels": len(model.wavelength), "grid": model.reduced.config.n_wave, "rounds": ROUNDS, "chains": CHAINS, "load": os.getloadavg()[0],
             "cores": os.cpu_count(), "machine": platform.processor() or platform.machine(), "jax": jax.__version__}
    path.write_text(json.dumps({**facts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
