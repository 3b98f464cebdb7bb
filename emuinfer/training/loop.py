"""The loop that trains any network: it knows a loss and batches, and nothing of what they are about."""

import dataclasses
import inspect
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..entry import public
from ..errors import TrainingError
from .batches import BatchSource
from .checkpoint import RunFolder, describe_weights, save_weights
from .config import LoopSettings
from .optimiser import Groups, groups_by_name, in_precision, make_optimiser


class TrainState(eqx.Module):
    """All that a step changes."""

    params: object
    average: object
    optimiser: object
    step: jax.Array


class Best(eqx.Module):
    """The averaged weights with the smallest validation figure, that figure, and the number of validations since."""

    params: object
    figure: jax.Array
    since: jax.Array

    def update(self, params, figure: float) -> "Best":
        if figure < float(self.figure):
            return Best(_copy(params), jnp.asarray(figure, jnp.float32), jnp.zeros((), jnp.int32))
        return Best(self.params, self.figure, self.since + 1)


@public
def train_network(
    model,
    loss,
    source: BatchSource,
    config: LoopSettings,
    *,
    groups: Groups | None = None,
    validate=None,
    described: dict | None = None,
    save=save_weights,
    directory=None,
    resume: bool = True,
    progress: bool = True,
):
    """Train `model` and return it with averaged weights (with `config.patience`, the best of them).

    **Arguments:**

    - `model`: any pytree; its floating-point arrays are trained.
    - `loss`: `loss(model, batch)`, a scalar, or `(scalar, {name: scalar})` with figures for the record. A loss that has the
      arguments `step` or `key` gets the step's number, a JAX integer, and a random key of the step. An `equinox.Module` may
      hold arrays: they are handed to the compiled step and not built into it.
    - `source`: what gives batches, a `BatchSource`.
    - `groups`: function of a weight's path and the weight to its `Group`; by default `groups_by_name`.
    - `validate`: model to `{name: figure}`, every `config.validate_every` steps. Smaller is better, and `config.patience` goes
      by the first figure.
    - `described`: what makes this run another besides settings and first weights, such as a summary of the data.
    - `directory`: where `checkpoint.eqx`, `metrics.jsonl` and `config.json` go; a run that finds a checkpoint there goes
      on from it if `resume`, with the same batches as if it had never stopped.
    - `save`: `save(model, path)` writes a model and returns where; for the last good weights of a run that fails.

    **Raises:** `TrainingError` when the directory holds another run or cannot be written to, and when the loss or the weights
    are no longer finite. The last good checkpoint then stays, and its averaged weights are saved beside it as `last_good`.
    """
    if config.patience and validate is None:
        raise TrainingError(f"patience = {config.patience} needs something to judge by: give validate.")
    share, replicate = placement(config.devices)
    identity = {**dataclasses.asdict(config), **(described or {}), "start": describe_weights(model)}
    run = Run(model, config, groups or groups_by_name(config), RunFolder(directory, identity, resume), save)
    run.state, loss = replicate(run.state), replicate(loss)
    for number, bar in run.steps(progress):
        # The batch is a function of the step, so that resuming is exact.
        run.take((loss, share(source.batch(number - 1, config.batch_size))))
        last = number == config.steps
        validating, saving = (last or number % n == 0 for n in (config.validate_every, config.checkpoint_every))
        if validating or (saving and directory is not None):
            run.refuse_non_finite(number)
        if validating:
            run.report(number, validate, bar)
        if saving or (validating and run.stopped):
            run.folder.save((run.state, run.best))
    return run.result


class Run:
    """A training run between two steps: its state, the best weights so far, the figures since the last report, its folder."""

    def __init__(self, model, config: LoopSettings, groups: Groups, folder: RunFolder, save):
        params, self.static = eqx.partition(model, eqx.is_inexact_array)
        optimiser = make_optimiser(config, params, groups)
        state = TrainState(_copy(params), _copy(params), jax.jit(optimiser.init)(params), jnp.zeros((), jnp.int32))
        best = Best(_copy(params), jnp.asarray(jnp.inf), jnp.zeros((), jnp.int32)) if config.patience else None
        self.state, self.best = folder.load((state, best))
        folder.forget_after(int(self.state.step))
        self.config, self.folder, self.save = config, folder, save
        self.step = make_step(self.static, optimiser, config, groups)
        self.start, self.began = int(self.state.step), time.time()
        self.seen: list = []

    @property
    def stopped(self) -> bool:
        """Whether the run has lost its patience."""
        return self.best is not None and int(self.best.since) >= self.config.patience

    @property
    def result(self):
        return eqx.combine(self.state.average if self.best is None else self.best.params, self.static)

    def steps(self, progress: bool):
        """Numbers of the steps that are left, the first one of all being 1, and the bar that shows them, if any."""
        numbers = range(self.start + 1, self.config.steps + 1)
        if progress:
            from tqdm import tqdm

            numbers = tqdm(numbers, initial=self.start, total=self.config.steps, desc="training", mininterval=2)
        for number in numbers:
            if self.stopped:
                return
            yield number, numbers if progress else None

    def take(self, data) -> None:
        self.state, figures = self.step(data, self.state)
        self.seen.append(figures)

    def report(self, number: int, validate, bar) -> None:
        """Validate and write down the mean figures of the steps since the last report."""
        names = list(self.seen[0])
        means = np.mean([[figures[n] for n in names] for figures in jax.device_get(self.seen)], axis=0)
        record = {"step": number, **{n: float(mean) for n, mean in zip(names, means)}}
        record |= {"seconds": round(time.time() - self.began, 1), "from": self.start}
        judged = {} if validate is None else validate(eqx.combine(self.state.average, self.static))
        if self.best is not None:
            self.best = self.best.update(self.state.average, next(iter(judged.values())))
        if bar is not None:
            shown = {"loss": record["loss"], **dict(list(judged.items())[:1])}
            bar.set_postfix({name: f"{figure:.2e}" for name, figure in shown.items()})
        self.folder.record(record | judged)
        self.seen = []

    def refuse_non_finite(self, number: int) -> None:
        """Raise `TrainingError` if a loss or the weights are not finite, before these weights replace the last good ones."""
        losses = np.asarray(jax.device_get([figures["loss"] for figures in self.seen]))
        bad = np.flatnonzero(~np.isfinite(losses))
        if not bad.size and _all_finite(self.state.params):
            return
        what = f"loss is not finite at step {number - len(losses) + 1 + bad[0]}" if bad.size else None
        what = what or f"weights are not finite at step {number}"
        rate, clip = self.config.learning_rate, self.config.clip
        remedy = f"Lower learning_rate (now {rate:g}) or clip (now {clip:g})"
        if not self.folder.has_checkpoint:
            raise TrainingError(f"The training {what}, before the first checkpoint. {remedy} and train anew.")
        good, _ = self.folder.load((self.state, self.best))
        saved = self.save(eqx.combine(good.average, self.static), self.folder.checkpoint.with_name("last_good"))
        raise TrainingError(
            f"The training {what}. The checkpoint of step {int(good.step)} is kept, its averaged weights as {saved}. "
            f"{remedy} and train in another directory, anew or from those."
        )


def make_step(static, optimiser, config: LoopSettings, groups: Groups):
    """One compiled step: `((loss, batch), state)` to the next state and the step's figures, its `"loss"` among them."""

    @eqx.filter_jit(donate="all-except-first")
    def step(data, state: TrainState):
        loss, batch = data
        wanted = inspect.signature(loss).parameters
        more = {"step": state.step} if "step" in wanted else {}
        if "key" in wanted:
            more["key"] = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def value_of(params):
            found = loss(in_precision(eqx.combine(params, static), config.precision, groups), batch, **more)
            return found if isinstance(found, tuple) else (found, {})

        (value, figures), grads = jax.value_and_grad(value_of, has_aux=True)(state.params)
        updates, opt_state = optimiser.update(grads, state.optimiser, state.params)
        params = eqx.apply_updates(state.params, updates)
        # Early on the average follows the weights closely, later it remembers about 1/(1 - average) steps.
        steps = jnp.asarray(state.step, jnp.float32)
        keep = jnp.minimum(config.average, (1.0 + steps) / (10.0 + steps))
        # Frozen weights are their own average; rounding would let it drift.
        mean = lambda path, a, p: keep * a + (1 - keep) * p if groups(path, p).rate else p
        average = jax.tree_util.tree_map_with_path(mean, state.average, params)
        return TrainState(params, average, opt_state, state.step + 1), {"loss": value, **figures}

    return step


def placement(devices: int):
    """Two functions that put a batch on `devices` devices, a part of its examples on each, and what all need whole on all."""
    if devices == 1:
        return (lambda batch: batch), (lambda tree: tree)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    if devices > jax.device_count():
        raise TrainingError(
            f"devices = {devices}, but JAX sees {jax.device_count()}. On a CPU, set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={devices} before Python starts."
        )
    mesh = jax.make_mesh((devices,), ("examples",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])

    def put(spec):
        def on_devices(tree):
            arrays, rest = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
            return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, spec)), rest)

        return on_devices

    return put(PartitionSpec("examples")), put(PartitionSpec())


def _copy(tree):
    """Arrays of their own: a step donates its state, and the caller's model and the best weights must outlive it."""
    return jax.tree.map(jnp.array, tree)


@jax.jit
def _all_finite(tree):
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
