"""One emulator of one package in its own Python, for `incumbent.py`, which starts it and says what it does.

    python incumbent_worker.py train FOLDER   reads FOLDER/task.json and data.npz, writes predicted.npy and report.json
    python incumbent_worker.py speed TASK     compiles; then, for each line on standard input, times one round

`task["package"]` is `emuinfer`, `toolkit` (astro-emulators-toolkit) or `payne` (transformer-payne, speed only, with
random weights). The process keeps to one core. Needs nothing of emuinfer in the Python of the peers.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

RANGE = (5100.0, 5300.0)


def draw(seed, step, n_spectra, n_pixels, task):
    """The rows and pixels of a step, drawn as `emuinfer.emulators.training.train` does: all packages see the same samples."""
    rng = np.random.default_rng([seed, step])
    rows = rng.integers(0, n_spectra, task["spectra"])
    return rows, rng.integers(0, n_pixels, (task["spectra"], task["pixels"]))


def axis_of(wavelength, task):
    """Wavelengths as the peer's encoding takes them: Å, or log10 Å as in the papers of TransformerPayne."""
    return np.log10(wavelength) if task.get("axis") == "log10" else wavelength


class Steps:
    """A data set of the toolkit whose rows are those of all training steps in turn."""

    def __init__(self, data, task):
        self.data, self.task = data, task
        self.axis = axis_of(data["wavelength"], task)

    def __len__(self):
        return self.task["steps"] * self.task["spectra"]

    def get_batch(self, indices):
        step = int(indices[0]) // self.task["spectra"]
        rows, pixels = draw(self.task["seed"], step, len(self.data["labels"]), len(self.axis), self.task)
        x = {"parameters": self.data["labels"][rows], "wavelengths": self.axis[pixels]}
        return {"x": x, "y": {"flux": self.data["flux"][rows[:, None], pixels]}}


def toolkit(task, folder):
    """An emulator of the toolkit with the optimiser, schedule and loss of its preset, but for what `task` sets."""
    import dataclasses

    from astro_emulators_toolkit import Emulator
    from astro_emulators_toolkit.presets import transformer_payne_flux

    config = transformer_payne_flux(workdir=str(folder), init_hints={"parameter_dim": 12})
    steps = task.get("steps", 1)
    optimiser = {"warmup_steps": steps // 10} | task.get("optimiser", {})
    config = dataclasses.replace(
        config,
        seed=task.get("seed", 0),
        model=dataclasses.replace(config.model, params=config.model.params | task["model"]),
        optim=dataclasses.replace(config.optim, **optimiser),
        training=dataclasses.replace(
            config.training,
            batch_size=task.get("spectra", 1),
            num_steps=steps,
            shuffle=False,
            logging_interval_steps=None,
            evaluation_interval_steps=None,
            checkpoint_interval_steps=None,
        ),
    )
    return Emulator.from_config(config)


def train_toolkit(task, data, folder):
    import jax

    # The toolkit leaves the scaling of labels to its user; its examples map them to [0, 1].
    data = data | {"labels": (data["scaled"] + 1) / 2}
    steps = Steps(data, task)
    emulator = toolkit(task, folder)

    def fit():
        emulator.fit(steps)
        jax.block_until_ready(emulator.params)

    _, report = timed(fit)
    apply = emulator.make_frozen_apply(jit=True)
    axis = axis_of(data["wavelength"], task)[None]
    held = ((data["held_scaled"] + 1) / 2).astype(np.float32)
    predicted = [np.asarray(apply({"parameters": one[None], "wavelengths": axis})["flux"])[0] for one in held]
    return predicted, report | {"parameters": size(emulator.params)}


def fresh_transformer(task):
    import jax

    from emuinfer.emulators import TransformerConfig, TransformerPayne
    from emuinfer.labels.windows import OPTICAL_FGK

    config = TransformerConfig(**task["model"])
    return TransformerPayne(OPTICAL_FGK, RANGE, "air", config, key=jax.random.key(task.get("seed", 0)))


def train_emuinfer(task, data, folder):
    import equinox as eqx

    from emuinfer.emulators.training import TrainConfig, predict, train
    from emuinfer.emulators.training.start import start_from_components

    arrays = data["labels"], data["flux"], data["wavelength"]
    batch = {name: task[name] for name in ("spectra", "pixels", "seed")}
    steps = task["steps"]
    more = task.get("optimiser", {})
    constant = {"huber_start": more.get("huber", TrainConfig.huber)}  # the comparison was made before it was annealed
    config = TrainConfig(steps=steps, warmup=steps // 10, validate_every=steps, **batch | constant | more)

    def fit():
        emulator = fresh_transformer(task)
        if task.get("components"):
            emulator = start_from_components(emulator, *arrays, seed=task["seed"], progress=False)
        return train(emulator, *arrays, config=config, progress=False)

    emulator, report = timed(fit)
    predicted = predict(emulator, data["held_labels"], data["wavelength"])
    return predicted, report | {"parameters": size(eqx.filter(emulator, eqx.is_inexact_array))}


def timed(fit):
    """The result of `fit()` and its seconds, compiling included."""
    wall, cpu = time.time(), time.process_time()
    result = fit()
    return result, {"wall_s": time.time() - wall, "cpu_s": time.process_time() - cpu}


def size(tree):
    import jax

    return sum(a.size for a in jax.tree.leaves(tree))


def speed_emuinfer(task, wavelength):
    """`task["prepared"]`: the phases of the wavelengths are at hand, as they are in a fit; else they are made anew."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    if "load" in task:
        from emuinfer.emulators import load_emulator

        emulator = load_emulator(task["load"])
        wavelength = np.clip(wavelength, *emulator.wavelength_range)
    else:
        emulator = fresh_transformer(task)
    labels = jnp.full((task["spectra"], len(emulator.labels)), 0.1)
    query = emulator.prepare(wavelength)
    if task["spectra"] == 1:
        flux = eqx.filter_jit(lambda e, s, q: e.flux(s[0], q))
    else:
        flux = eqx.filter_jit(lambda e, s, q: jax.lax.map(lambda one: e.flux(one, q), s))
    count = size(eqx.filter(emulator, eqx.is_inexact_array))
    return count, lambda: flux(emulator, labels, query if task.get("prepared", True) else emulator.prepare(wavelength))


def speed_toolkit(task, wavelength):
    import jax.numpy as jnp

    emulator = toolkit(task, "/nonexistent")
    apply = emulator.make_frozen_apply(jit=True)
    axis = jnp.asarray(np.tile(axis_of(wavelength, task), (task["spectra"], 1)))
    x = {"parameters": jnp.full((task["spectra"], 12), 0.55, jnp.float32), "wavelengths": axis}
    return size(emulator.params), lambda: apply(x)


def speed_payne(task, wavelength):
    import jax
    import jax.numpy as jnp
    from transformer_payne.transformer_payne import TransformerPayneModel

    model = TransformerPayneModel(out_dim=2, input_dim=95, **task["model"])
    axis, labels = jnp.log10(jnp.asarray(wavelength)), jnp.full(95, 0.55, jnp.float32)
    weights = model.init(jax.random.key(0), (axis[:2], labels), False)
    apply = jax.jit(lambda w, x, p: model.apply(w, (x, p), False))
    return size(weights), lambda: apply(weights, axis, labels)


def speed(task):
    import jax

    count, call = globals()[f"speed_{task['package']}"](task, np.linspace(*RANGE, 10_001))
    begin = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    jax.block_until_ready(call())
    repeats = max(1, round(0.3 / (time.perf_counter() - begin)))
    facts = {"parameters": count, "first_call_s": first, "repeats": repeats, "versions": versions()}
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            jax.block_until_ready(call())
        taken = np.array([time.perf_counter() - wall, time.process_time() - cpu])
        print(json.dumps((taken / repeats).tolist()), flush=True)


def versions():
    from importlib import metadata

    names = ("astro-emulators-toolkit", "transformer-payne", "jax", "flax", "numpy")
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return {"python": sys.version.split()[0]} | {n: found[n] for n in names if n in found}


def main():
    mode, what = sys.argv[1:3]
    task = json.loads(what) if mode == "speed" else json.loads((Path(what) / "task.json").read_text())
    os.sched_setaffinity(0, {task["core"]})
    if task["package"] != "emuinfer":
        os.environ["JAX_ENABLE_X64"] = "1"  # both peers need it for their wavelengths; the networks are float32
    if mode == "speed":
        return speed(task)
    with np.load(Path(what) / "data.npz") as file:
        data = {name: file[name] for name in file.files}
    predicted, report = globals()[f"train_{task['package']}"](task, data, Path(what))
    np.save(Path(what) / "predicted.npy", np.asarray(predicted, np.float32))
    (Path(what) / "report.json").write_text(json.dumps(report | {"versions": versions()}))


if __name__ == "__main__":
    main()
