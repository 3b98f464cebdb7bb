"""Training of wavelength-wise emulators on stored pixels; needs only jax, equinox, optax and numpy."""

import dataclasses
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...errors import TrainingError
from ...training.checkpoint import RunFolder
from ...training.config import TrainConfig
from ...training.optimiser import MATRICES, make_optimiser
from .data import Replay, StoredSpectra, check_data, describe_spectra, describe_weights


class TrainState(eqx.Module):
    params: object
    average: object
    optimiser: object
    step: jax.Array


class Best(eqx.Module):
    """The averaged weights with the smallest held-out error, that error, and the number of validations since."""

    params: object
    mae: jax.Array
    since: jax.Array

    def update(self, params, mae: float) -> "Best":
        if mae < float(self.mae):
            return Best(_copy(params), jnp.asarray(mae, jnp.float32), jnp.zeros((), jnp.int32))
        return Best(self.params, self.mae, self.since + 1)


def _copy(tree):
    """Arrays of their own: a step donates its state, and the caller's emulator and the best weights must outlive it."""
    return jax.tree.map(jnp.array, tree)


def pseudo_huber(residual, delta):
    """δ (√(1 + (r/δ)²) − 1): quadratic below `delta`, absolute above (Charbonnier et al. 1994)."""
    return delta * (jnp.sqrt(1.0 + (residual / delta) ** 2) - 1.0)


def in_precision(emulator, precision: str):
    """The emulator with its blocks' matrices in `precision`; gradients flow back to the float32 weights."""
    if precision == "float32":
        return emulator
    matrices = lambda e: [getattr(block, name) for block in e.blocks for name in MATRICES]
    return eqx.tree_at(matrices, emulator, [m.astype(precision) for m in matrices(emulator)])


def make_step(static, optimiser, config: TrainConfig):
    """One jitted optimiser step on a batch `(labels (b, l), pixels (b, p), flux (b, p))`."""

    plateau = max(1.0, (1.0 - config.decay) * config.steps)

    def loss_fn(params, at, query, labels, pixels, target):
        emulator = in_precision(eqx.combine(params, static), config.precision)
        # Features of all stored pixels once, then each spectrum's own selection.
        features = jax.tree.map(lambda f: f[pixels], emulator.wavelength_features(query))
        x = jax.vmap(emulator.link)(labels, features)
        from ..base import from_link

        residual = from_link(x, emulator.config.epsilon) - target
        done = jnp.minimum(jnp.asarray(at, jnp.float32) / plateau, 1.0)
        delta = config.huber_start * (config.huber / config.huber_start) ** done
        return jnp.mean(pseudo_huber(residual, delta)), jnp.mean(jnp.abs(residual))

    @eqx.filter_jit(donate="all-except-first")
    def step(data, state: TrainState):
        query, labels, pixels, target = data
        (loss, mae), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.step, query, labels, pixels, target
        )
        updates, opt_state = optimiser.update(grads, state.optimiser, state.params)
        params = eqx.apply_updates(state.params, updates)
        # Early on the average follows the weights closely, later it remembers about 1/(1 - average) steps.
        number = jnp.asarray(state.step, jnp.float32)
        keep = jnp.minimum(config.average, (1.0 + number) / (10.0 + number))
        average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state.average, params)
        return TrainState(params, average, opt_state, state.step + 1), loss, mae

    return step


@eqx.filter_jit
def _flux(emulator, scaled, query):
    return emulator.flux(scaled, query)


def validate(emulator, query, scaled, flux, max_spectra: int = 64) -> dict:
    """MAE, RMSE and 95th percentile of |residual| on the first `max_spectra` held-out spectra, native sampling."""
    pairs = zip(scaled[:max_spectra], flux[:max_spectra])
    residual = np.concatenate([np.asarray(_flux(emulator, jnp.asarray(s), query)) - f for s, f in pairs])
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
    replay=None,
    directory=None,
    resume: bool = True,
    progress: bool = True,
):
    """Train `emulator` on stored spectra and return it with averaged weights (with `config.patience`, the best of them).

    **Arguments:**

    - `labels` `(n, n_labels)` in physical units and the emulator's order (`labels_for` gives them for a grid), `flux`
      `(n, n_wave)` normalised, `wavelength` `(n_wave,)` Å.
    - `held_out`: `(labels, flux)` of spectra kept for validation, or None.
    - `replay`: `(labels, flux)` of an earlier stage, which make up the share `config.replay` of each step's spectra.
    - `directory`: where `checkpoint.eqx`, `metrics.jsonl` and `config.json` go; a run that finds a checkpoint there goes
      on from it if `resume`, with the same batches as if it had never stopped.

    **Raises:** `TrainingError` when data do not match the emulator, hold non-finite values, or the directory holds another
    run or cannot be written to, and when the loss or the weights are no longer finite. The last good checkpoint then stays,
    and its averaged weights are saved beside it as the emulator `last_good`.
    """
    labels, flux = check_data(emulator, labels, flux, wavelength)
    scale = lambda labels: np.asarray(emulator.label_space.scale(labels), np.float32)
    source, described = (
        StoredSpectra(scale(labels), flux, config),
        {"data": describe_spectra(emulator, labels, flux, wavelength)},
    )
    if replay is not None:
        old_labels, old_flux = check_data(emulator, *replay, wavelength, "replayed")
        source = Replay(source, StoredSpectra(scale(old_labels), old_flux, config, stream=1), config.replay)
        described["replay_data"] = describe_spectra(emulator, old_labels, old_flux, wavelength)
    return run(
        emulator, source, described, wavelength,
        config=config, held_out=held_out, directory=directory, resume=resume, progress=progress,
    )  # fmt: skip


def run(
    emulator, source, described: dict, wavelength, *, config, held_out=None, directory=None, resume=True, progress=True
):
    """The training loop of `train` and `pretrain`: `source.batch(step, n)` gives labels, pixels and flux of `n` spectra, and
    `described` says what, besides settings and first weights, makes this run another."""
    if held_out is not None:
        held_out = check_data(emulator, *held_out, wavelength, "held-out")
        held_out = np.asarray(emulator.label_space.scale(held_out[0]), np.float32), held_out[1]
    elif config.patience:
        raise TrainingError(f"patience = {config.patience} needs held-out spectra to judge by: give held_out.")
    share, replicate = placement(config.devices)
    folder = RunFolder(
        directory, dataclasses.asdict(config) | described | {"start": describe_weights(emulator)}, resume
    )
    params, static = eqx.partition(emulator, eqx.is_inexact_array)
    optimiser = make_optimiser(config, params)
    state = TrainState(_copy(params), _copy(params), jax.jit(optimiser.init)(params), jnp.zeros((), jnp.int32))
    best = Best(_copy(params), jnp.asarray(jnp.inf), jnp.zeros((), jnp.int32)) if config.patience else None
    state, best = folder.load((state, best))
    folder.forget_after(int(state.step))
    state, query = replicate(state), replicate(emulator.prepare(emulator.check_wavelength(wavelength)))
    step_fn = make_step(static, optimiser, config)
    start, seen, began = int(state.step), [], time.time()
    steps = _steps(start, config.steps, progress)
    for i in steps:
        if best is not None and int(best.since) >= config.patience:
            break
        # The batch is a function of the step, so that resuming is exact.
        state, loss, mae = step_fn((query, *share(source.batch(i, config.spectra))), state)
        seen.append((loss, mae))
        last = i + 1 == config.steps
        validating, saving = (
            (i + 1) % every == 0 or last for every in (config.validate_every, config.checkpoint_every)
        )
        if validating or (saving and directory is not None):
            _refuse_non_finite(i + 1, seen, state, static, best, folder, config)
        if validating:
            record, seen = _report(i + 1, seen, began, start), []
            if held_out is not None:
                record |= validate(eqx.combine(state.average, static), query, *held_out)
            if best is not None:
                best = best.update(state.average, record["mae"])
                saving |= int(best.since) >= config.patience
            if progress:
                steps.set_postfix({k: f"{record[k]:.2e}" for k in ("loss", "mae") if k in record})
            folder.record(record)
        if saving:
            folder.save((state, best))
    return eqx.combine(state.average if best is None else best.params, static)


def placement(devices: int):
    """Two functions that put a batch on `devices` devices, a part of its spectra on each, and a state whole on all of them."""
    if devices == 1:
        return (lambda batch: batch), (lambda state: state)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    if devices > jax.device_count():
        raise TrainingError(
            f"devices = {devices}, but JAX sees {jax.device_count()}. On a CPU, set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={devices} before Python starts."
        )
    mesh = jax.make_mesh((devices,), ("spectra",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    put = lambda spec: lambda tree: jax.device_put(tree, NamedSharding(mesh, spec))
    return put(PartitionSpec("spectra")), put(PartitionSpec())


def _steps(start, stop, progress):
    steps = range(start, stop)
    if not progress:
        return steps
    from tqdm import tqdm

    return tqdm(steps, initial=start, total=stop, desc="training", mininterval=2)


def _report(step, seen, began, start):
    loss, mae = np.mean(np.asarray(jax.device_get(seen)), axis=0)
    return {
        "step": step,
        "loss": float(loss),
        "train_mae": float(mae),
        "seconds": round(time.time() - began, 1),
        "from": start,
    }


def _refuse_non_finite(step, seen, state, static, best, folder, config):
    """Raise `TrainingError` if a loss or the weights are not finite, before these weights replace the last good ones."""
    bad = np.flatnonzero(~np.isfinite(np.asarray(jax.device_get(seen))[:, 0]))
    if not bad.size and _all_finite(state.params):
        return
    what = (
        f"loss is not finite at step {step - len(seen) + 1 + bad[0]}"
        if bad.size
        else f"weights are not finite at step {step}"
    )
    remedy = f"Lower learning_rate (now {config.learning_rate:g}) or clip (now {config.clip:g})"
    if not folder.has_checkpoint:
        raise TrainingError(f"The training {what}, before the first checkpoint. {remedy} and train anew.")
    from .. import save_emulator

    good, _ = folder.load((state, best))
    card = save_emulator(eqx.combine(good.average, static), folder.path / "last_good")
    raise TrainingError(
        f"The training {what}. The checkpoint of step {int(good.step)} is kept, its averaged weights as the emulator {card}. "
        f"{remedy} and train in another directory, anew or from that emulator."
    )


@jax.jit
def _all_finite(tree):
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
