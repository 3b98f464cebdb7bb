"""Training of wavelength-wise emulators on stored pixels; needs only jax, equinox, optax and numpy."""

import dataclasses
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import TrainingError
from .checkpoint import RunFolder
from .config import TrainConfig


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


def make_optimiser(config: TrainConfig, params):
    """AdamW with clipping and the configured schedule; encodings and tables learn at `table_rate` times the rate."""
    import optax

    def group(path, _):
        name = path[0].name if hasattr(path[0], "name") else ""
        if name in config.frozen:
            return "frozen"
        return "table" if name in ("table", "encode", "trunk", "trunk_mean") else "network"

    def adamw(factor):
        schedule = config.schedule()
        return optax.adamw(lambda i: factor * schedule(i), b2=0.99, weight_decay=config.weight_decay)

    # A function, not its result: the labels are shaped like the emulator, which optax would take for a function and call.
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.multi_transform(
            {"network": adamw(1.0), "table": adamw(config.table_rate), "frozen": optax.set_to_zero()},
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
    directory=None,
    resume: bool = True,
    progress: bool = True,
):
    """Train `emulator` on stored spectra and return it with averaged weights (with `config.patience`, the best of them).

    **Arguments:**

    - `labels` `(n, n_labels)` in physical units and the emulator's order (`labels_for` gives them for a grid), `flux`
      `(n, n_wave)` normalised, `wavelength` `(n_wave,)` Å.
    - `held_out`: `(labels, flux)` of spectra kept for validation, or None.
    - `directory`: where `checkpoint.eqx`, `metrics.jsonl` and `config.json` go; a run that finds a checkpoint there goes
      on from it if `resume`, with the same batches as if it had never stopped.

    **Raises:** `TrainingError` when data do not match the emulator, hold non-finite values, or the directory holds another
    run or cannot be written to, and when the loss or the weights are no longer finite. The last good checkpoint then stays,
    and its averaged weights are saved beside it as the emulator `last_good`.
    """
    labels, flux = _check_data(emulator, labels, flux, wavelength)
    if held_out is not None:
        held_out = _check_data(emulator, *held_out, wavelength, "held-out")
        held_out = np.asarray(emulator.label_space.scale(held_out[0]), np.float32), held_out[1]
    elif config.patience:
        raise TrainingError(f"patience = {config.patience} needs held-out spectra to judge by: give held_out.")
    folder = RunFolder(directory, dataclasses.asdict(config) | _describe(emulator, labels, flux, wavelength), resume)
    params, static = eqx.partition(emulator, eqx.is_inexact_array)
    optimiser = make_optimiser(config, params)
    state = TrainState(_copy(params), _copy(params), optimiser.init(params), jnp.zeros((), jnp.int32))
    best = Best(_copy(params), jnp.asarray(jnp.inf), jnp.zeros((), jnp.int32)) if config.patience else None
    state, best = folder.load((state, best))
    folder.forget_after(int(state.step))
    query = emulator.prepare(emulator.check_wavelength(wavelength))
    scaled = np.asarray(emulator.label_space.scale(labels), np.float32)
    step_fn = make_step(static, optimiser, config)
    start, seen, began = int(state.step), [], time.time()
    steps = _steps(start, config.steps, progress)
    for i in steps:
        if best is not None and int(best.since) >= config.patience:
            break
        rng = np.random.default_rng([config.seed, i])  # the batch is a function of the step, so that resuming is exact
        rows, pixels = draw_batch(rng, len(labels), len(wavelength), config)
        data = (query, scaled[rows], pixels, flux[rows[:, None], pixels])
        state, loss, mae = step_fn(data, state)
        seen.append((loss, mae))
        last = i + 1 == config.steps
        validating, saving = ((i + 1) % every == 0 or last for every in (config.validate_every, config.checkpoint_every))
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


def _steps(start, stop, progress):
    steps = range(start, stop)
    if not progress:
        return steps
    from tqdm import tqdm

    return tqdm(steps, initial=start, total=stop, desc="training", mininterval=2)


def _report(step, seen, began, start):
    loss, mae = np.mean(np.asarray(jax.device_get(seen)), axis=0)
    return {"step": step, "loss": float(loss), "train_mae": float(mae), "seconds": round(time.time() - began, 1), "from": start}


def _refuse_non_finite(step, seen, state, static, best, folder, config):
    """Raise `TrainingError` if a loss or the weights are not finite, before these weights replace the last good ones."""
    bad = np.flatnonzero(~np.isfinite(np.asarray(jax.device_get(seen))[:, 0]))
    if not bad.size and _all_finite(state.params):
        return
    what = f"loss is not finite at step {step - len(seen) + 1 + bad[0]}" if bad.size else f"weights are not finite at step {step}"
    remedy = f"Lower learning_rate (now {config.learning_rate:g}) or clip (now {config.clip:g})"
    if not folder.has_checkpoint:
        raise TrainingError(f"The training {what}, before the first checkpoint. {remedy} and train anew.")
    from ..emulators import save_emulator

    good, _ = folder.load((state, best))
    card = save_emulator(eqx.combine(good.average, static), folder.path / "last_good")
    raise TrainingError(
        f"The training {what}. The checkpoint of step {int(good.step)} is kept, its averaged weights as the emulator {card}. "
        f"{remedy} and train in another directory, anew or from that emulator."
    )


@jax.jit
def _all_finite(tree):
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _describe(emulator, labels, flux, wavelength) -> dict:
    """Data and first weights in a few figures, so coarse that another machine's rounding does not change them."""
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(eqx.filter(emulator, eqx.is_inexact_array))]
    size = sum(a.size for a in leaves)
    means = ", ".join(f"{n} {m:.5g}" for n, m in zip(emulator.labels, labels.mean(0)))
    return {
        "data": f"{flux.shape[0]} spectra of {flux.shape[1]} pixels, {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å, "
        f"mean flux {flux.mean(dtype=np.float64):.5g}, mean {means}",
        "start": f"{size} weights, root mean square {np.sqrt(sum((a**2).sum() for a in leaves) / size):.5g}",
    }


def labels_for(emulator, grid, emulator_name="the emulator", grid_name="the grid") -> np.ndarray:
    """Labels `(n, n_labels)` of a `Grid` in the emulator's order, which may differ from the grid's.

    Raises `TrainingError`, naming both sides, unless the grid has the emulator's labels (names and units), wavelength medium
    and range. The range may fall short by 1 %: training on less would spoil the rest unseen.
    """
    theirs, ours = dict(zip(grid.label_space.names, grid.label_space.units)), dict(zip(emulator.labels, emulator.label_space.units))
    if theirs != ours:
        listed = lambda units: ", ".join(f"{name} ({unit})" for name, unit in units.items())
        raise TrainingError(
            f"The labels differ: {emulator_name} has {listed(ours)}; {grid_name} has {listed(theirs)}. "
            "Bring the grid to the emulator's labels, or train a new emulator on it."
        )
    if emulator.medium != grid.medium:
        raise TrainingError(
            f"The wavelengths of {emulator_name} are in {emulator.medium}, those of {grid_name} in {grid.medium}. "
            "Convert the grid's, or train a new emulator on it."
        )
    (lo, hi), first, last = emulator.wavelength_range, grid.wavelength[0], grid.wavelength[-1]
    slack = 0.01 * (hi - lo)
    if first < lo - 1e-6 or last > hi + 1e-6 or first > lo + slack or last < hi - slack:
        raise TrainingError(
            f"The wavelength ranges differ: {emulator_name} covers {lo:.2f} to {hi:.2f} Å, {grid_name} {first:.2f} to {last:.2f} Å. "
            "Cut or extend the grid to the emulator's range, or train a new emulator on the grid's."
        )
    return emulator.label_space.to_array(grid.label_space.to_dict(grid.labels))


def _check_data(emulator, labels, flux, wavelength, kind="training"):
    labels, flux = np.asarray(labels, np.float64), np.asarray(flux, np.float32)
    n_labels = len(emulator.label_space)
    if labels.ndim != 2 or labels.shape[1] != n_labels:
        raise TrainingError(f"The emulator has {n_labels} labels {emulator.labels}; the {kind} labels have shape {labels.shape}.")
    if flux.shape != (len(labels), len(wavelength)):
        raise TrainingError(f"The {kind} flux must have shape ({len(labels)}, {len(wavelength)}), labels × wavelengths; got {flux.shape}.")
    if not len(labels):
        raise TrainingError(f"There are no {kind} spectra.")
    if not np.isfinite(labels).all() or not np.isfinite(flux).all():
        bad = np.flatnonzero(~(np.isfinite(labels).all(1) & np.isfinite(flux).all(1)))
        raise TrainingError(f"{bad.size} {kind} spectra hold values that are not finite, e.g. rows {bad[:5].tolist()}. Remove them.")
    inside = emulator.label_space.contains(labels)
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        raise TrainingError(
            f"{(~inside).sum()} of {len(labels)} {kind} spectra lie outside the emulator's label domain, e.g. row {row}: "
            f"{dict(zip(emulator.labels, np.round(labels[row], 4).tolist()))}."
        )
    return labels, flux
