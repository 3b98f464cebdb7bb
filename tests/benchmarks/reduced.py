"""Cost and error of the surrogates: `python -m tests.benchmarks.reduced` from the repository's root.

One gradient of the log likelihood of the packaged HD 41248 (its pixels, line spread function, velocity, broadening,
continuum, noise) with a transformer of two blocks (random weights: its time does not depend on them), with the default
emulator, with its global reduction, with its surrogate around the star over all pixels, and with that compressed, which
is what samplers take; four chains at once, in turns in one process (medians over the rounds). And each surrogate's error
against the emulator it stands for, on fresh parameters, at the example's pixels and resolution.
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
from emuinfer.emulators import TransformerConfig, TransformerPayne, fit_local
from emuinfer.inference import SamplingConfig, steps

STAR = {
    "teff": 5690,
    "logg": 4.36,
    "fe_h": -0.43,
    "vmic": 0.8,
    "mg_fe": 0.04,
    "ca_fe": 0.22,
    "ti_fe": 0.02,
    "cr_fe": -0.03,
    "mn_fe": -0.14,
    "co_fe": -0.17,
    "ni_fe": -0.11,
    "y_fe": -0.1,
}
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
            slope = jax.grad(lambda x: data.log_likelihood(dict(zip(model.names, x))))(x)
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
    return {
        **values,
        "rv": 3.8 + spread * 0.02 * rng.standard_normal(n),
        "vbroad": 1.9 + spread * 0.04 * rng.standard_normal(n),
        "log10_jitter": np.full(n, -3.5),
    }


def main():
    observation = ei.Observation.example("hd41248")
    model = ei.StellarModel(ei.load_emulator("optical-fgk"), observation, progress=False)
    deep = copy.copy(model)
    blocks = TransformerConfig(rank=240, label_hidden=512, branch_layers=3, branch_theta=True)
    e = model.full
    deep.full = TransformerPayne(e.label_space, e.wavelength_range, e.medium, blocks, key=jax.random.key(0))
    fresh = draws(60, 1.0, seed=1)
    seen = eqx.filter_jit(lambda v, d: d.normalised_flux(v))
    begin = time.perf_counter()
    values = {n: jnp.asarray(v, jnp.float32) for n, v in draws(SamplingConfig().local, steps.WIDEN, seed=0).items()}
    full = model.likelihood.with_emulators(model.full_on_grid())
    parameters, flux = eqx.filter_jit(steps.spectra)(full, values, 8)
    surrogate = eqx.filter_jit(fit_local)(parameters, flux, np.arange(parameters.shape[1]))
    middle = {n: jnp.float32(v[0]) for n, v in draws(1, 0.0, seed=0).items()}
    local = eqx.filter_jit(lambda v, d: d.with_model_errors(v))(middle, model.likelihood.localised((surrogate,)))
    star = eqx.filter_jit(lambda v, d: d.compressed(v))(middle, local)
    built = time.perf_counter() - begin
    errors = lambda d: d.with_noise(d.noise.with_model_errors(local.noise.model_variance))
    plain = lambda emulator: errors(model.likelihood.with_emulators((emulator,)))
    kinds = {
        "transformer of two blocks": (model, plain(*deep.full_on_grid())),
        "optical-fgk": (model, errors(full)),
        "its global reduction": (model, plain(model.reduced)),
        "its surrogate around the star": (model, errors(model.likelihood.localised((surrogate,)))),
        "the same, compressed": (model, star),
    }
    at = {
        key: np.stack([np.asarray(seen({n: jnp.float32(v[i]) for n, v in fresh.items()}, d)) for i in range(60)])
        for key, (m, d) in list(kinds.items())[1:4]
    }
    rows, calls = {}, {}
    for key, (m, data) in kinds.items():
        repeats = {"transformer of two blocks": 1, "optical-fgk": 4, "the same, compressed": 1000}.get(key, 40)
        calls[key] = gradient(m, data, repeats), repeats
        rows[key] = {}
        if key in ("its global reduction", "its surrogate around the star"):
            error = np.abs(at[key] - at["optical-fgk"])
            rows[key] = {
                "mae_at_example_resolution": float(error.mean()),
                "max_at_example_resolution": float(error.max()),
            }
    rows["the same, compressed"]["build_s"] = built
    times = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, call in calls.items():
            times[key].append(milliseconds(*call))
    slow, own = np.array(times["transformer of two blocks"]), np.array(times["optical-fgk"])
    for key, row in rows.items():
        row["gradient_ms"] = float(np.median(times[key]))
        row["times_cheaper_than_transformer"] = float(np.median(slow / times[key]))
        row["times_cheaper_than_optical_fgk"] = float(np.median(own / times[key]))
        print(f"{key:45s}", row)
    path = Path(__file__).parent / "results" / "reduced.json"
    facts = {
        "pixels": len(model.wavelength),
        "grid": model.reduced.config.n_wave,
        "rounds": ROUNDS,
        "chains": CHAINS,
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
    }
    path.write_text(json.dumps({**facts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
