"""Training of wavelength-wise emulators on stored pixels; needs only jax, equinox, optax and numpy."""

import dataclasses
import json
import os
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import TrainingError
from .checkpoint import load_checkpoint, save_checkpoint
from .config import TrainConfig


class TrainState(eqx.Module):
    params: object
    average: object
    optimiser: object
    step: jax.Array


def make_optimiser(config: TrainConfig, params):
    """AdamW with clipping and the configured schedule; encodings and tables learn at `table_rate` times the rate."""
    import optax

    def group(path, _):
        name = path[0].name if hasattr(path[0], "name") else ""
        return "table" if name in ("table", "encode", "trunk", "trunk_mean") else "network"

    def adamw(factor):
        schedule = config.schedule()
        return optax.adamw(lambda i: factor * schedule(i), b2=0.99, weight_decay=config.weight_decay)

    # A function, not its result: the labels are shaped like the emulator, which optax would take for a function and call.
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.multi_transform(
            {"network": adamw(1.0), "table": adamw(config.table_rate)},
            lambda tree: jax.tree_util.tree_map_with_path(group, tree),
        ),
    )


def pseudo_huber(residual, delta):
    """δ (√(1 + (r/δ)²) − 1): quadratic below `delta`, absolute above (Charbonnier et al. 1994)."""
    return delta * (jnp.sqrt(1.0 + (residual / delta) ** 2) - 1.0)


def make_step(static, optimiser, config: TrainConfig):
    """One jitted optimiser step on a batch `(labels (b, l), pixels (b, p), flux (b, p))`."""

    def loss_fn(params, query, labels, pixels, target):
        emulator = eqx.combine(params, static)
        # Features of all stored pixels once, then each spectrum's own selection.
        features = jax.tree.map(lambda f: f[pixels], emulator.wavelength_features(query))
        x = jax.vmap(emulator.depth)(labels, features)
        from ..emulators.base import flux_from_depth

        residual = flux_from_depth(x, emulator.config.epsilon) - target
        return jnp.mean(pseudo_huber(residual, config.huber)), jnp.mean(jnp.abs(residual))

    @eqx.filter_jit(donate="all-except-first")
    def step(data, state: TrainState):
        query, labels, pixels, target = data
        (loss, mae), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, query, labels, pixels, target)
        updates, opt_state = optimiser.update(grads, state.optimiser, state.params)
        params = eqx.apply_updates(state.params, updates)
        # Early on the average follows the weights closely, later it remembers about 1/(1 - average) steps.
        keep = jnp.minimum(config.average, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state.average, params)
        return TrainState(params, average, opt_state, state.step + 1), loss, mae

    return step


def draw_batch(rng, n_spectra, n_pixels, config: TrainConfig):
    """Rows `(b,)` and, for each, pixel indices `(b, p)`, drawn without order or interpolation."""
    rows = rng.integers(0, n_spectra, config.spectra)
    return rows, rng.integers(0, n_pixels, (config.spectra, config.pixels))


def validate(emulator, query, scaled, flux, max_spectra: int = 64) -> dict:
    """MAE, RMSE and 95th percentile of |residual| on the first `max_spectra` held-out spectra, native sampling."""
    predict = eqx.filter_jit(lambda e, s: e.flux(s, query))
    residual = np.concatenate(
        [np.asarray(predict(emulator, jnp.asarray(s))) - f for s, f in zip(scaled[:max_spectra], flux[:max_spectra])]
    )
    absolute = np.abs(residual)
    return {
        "mae": float(absolute.mean()),
        "rmse": float(np.sqrt((residual**2).mean())),
        "p95": float(np.percentile(absolute, 95)),
    }


def train(
    emulator,
    labels,
    flux,
    wavelength,
    *,
    config: TrainConfig,
    held_out=None,
    directory=None,
    resume: bool = True,
    progress: bool = True,
):
    """Train `emulator` on stored spectra and return it with averaged weights.

    **Arguments:**

    - `labels` `(n, n_labels)` in physical units, `flux` `(n, n_wave)` normalised, `wavelength` `(n_wave,)` Å.
    - `held_out`: `(labels, flux)` of spectra kept for validation, or None.
    - `directory`: where `checkpoint.eqx`, `metrics.jsonl` and `config.json` go; a run that finds a checkpoint there goes
      on from it if `resume`, with the same batches as if it had never stopped.

    **Raises:** `TrainingError` when data do not match the emulator, hold non-finite values, or the loss turns NaN (the last
    good checkpoint stays).
    """
    labels, flux = _check_data(emulator, labels, flux, wavelength)
    query = emulator.prepare(emulator.check_wavelength(wavelength))
    scaled = np.asarray(emulator.label_space.scale(labels), np.float32)
    params, static = eqx.partition(emulator, eqx.is_inexact_array)
    optimiser = make_optimiser(config, params)
    copy = lambda tree: jax.tree.map(jnp.array, tree)  # the step donates its state; the caller's emulator stays whole
    state = TrainState(copy(params), copy(params), optimiser.init(params), jnp.zeros((), jnp.int32))
    directory = Path(directory) if directory is not None else None
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        state = _resume(directory, state, config, resume)
    step_fn = make_step(static, optimiser, config)
    start, seen, began = int(state.step), [], time.time()
    steps = range(start, config.steps)
    if progress:
        from tqdm import tqdm

        steps = tqdm(steps, initial=start, total=config.steps, desc="training", mininterval=2)
    for i in steps:
        rng = np.random.default_rng([config.seed, i])  # the batch is a function of the step, so that resuming is exact
        rows, pixels = draw_batch(rng, len(labels), len(wavelength), config)
        data = (query, scaled[rows], pixels, flux[rows[:, None], pixels])
        state, loss, mae = step_fn(data, state)
        seen.append((loss, mae))
        last = i + 1 == config.steps
        if (i + 1) % config.validate_every == 0 or last:
            record = _report(i + 1, seen, began, start)
            seen = []
            if not np.isfinite(record["loss"]):
                raise TrainingError(
                    f"The training loss is not finite at step {i + 1}. Lower learning_rate (now {config.learning_rate:g}) "
                    f"or clip (now {config.clip:g}) and start again from the last checkpoint in {directory}."
                )
            if held_out is not None:
                held_scaled = np.asarray(emulator.label_space.scale(np.asarray(held_out[0])), np.float32)
                record |= validate(eqx.combine(state.average, static), query, held_scaled, np.asarray(held_out[1]))
            if progress:
                steps.set_postfix({k: f"{record[k]:.2e}" for k in ("loss", "mae") if k in record})
            if directory is not None:
                with open(directory / "metrics.jsonl", "a") as file:
                    file.write(json.dumps(record) + "\n")
        if directory is not None and ((i + 1) % config.checkpoint_every == 0 or last):
            save_checkpoint(directory / "checkpoint.eqx", state)
    return eqx.combine(state.average, static)


def _report(step, seen, began, start):
    loss, mae = np.mean(np.asarray(jax.device_get(seen)), axis=0)
    return {"step": step, "loss": float(loss), "train_mae": float(mae), "seconds": round(time.time() - began, 1), "from": start}


def _resume(directory, state, config, resume):
    path, settings = directory / "checkpoint.eqx", directory / "config.json"
    described = dataclasses.asdict(config)
    if path.exists() and not resume:
        raise TrainingError(f"{directory} already holds a run. Give another directory, or resume it.")
    if path.exists():
        found = json.loads(settings.read_text()) if settings.exists() else {}
        changed = sorted(k for k in described if found.get(k, described[k]) != described[k])
        if changed:
            what = ", ".join(f"{k}: {found[k]} there, {described[k]} now" for k in changed)
            raise TrainingError(f"The run in {directory} has other settings ({what}). Use them, or another directory.")
        return load_checkpoint(path, state)
    temporary = settings.with_suffix(".tmp")
    temporary.write_text(json.dumps(described, indent=1))
    os.replace(temporary, settings)
    return state


def _check_data(emulator, labels, flux, wavelength):
    labels, flux = np.asarray(labels, np.float64), np.asarray(flux, np.float32)
    n_labels = len(emulator.label_space)
    if labels.ndim != 2 or labels.shape[1] != n_labels:
        raise TrainingError(f"The emulator has {n_labels} labels {emulator.labels}; the training labels have shape {labels.shape}.")
    if flux.shape != (len(labels), len(wavelength)):
        raise TrainingError(f"flux must have shape ({len(labels)}, {len(wavelength)}), labels × wavelengths; got {flux.shape}.")
    if not np.isfinite(labels).all() or not np.isfinite(flux).all():
        bad = np.flatnonzero(~(np.isfinite(labels).all(1) & np.isfinite(flux).all(1)))
        raise TrainingError(f"{bad.size} spectra hold values that are not finite, e.g. rows {bad[:5].tolist()}. Remove them.")
    inside = emulator.label_space.contains(labels)
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        raise TrainingError(
            f"{(~inside).sum()} of {len(labels)} training spectra lie outside the emulator's label domain, e.g. row {row}: "
            f"{dict(zip(emulator.labels, np.round(labels[row], 4).tolist()))}."
        )
    return labels, flux
