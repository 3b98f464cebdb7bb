"""The loop of training on networks that have nothing to do with spectra: a plain regression, and tokens to classes."""

import dataclasses
import json
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import TrainingError
from emuinfer.training import Group, LoopConfig, Replay, Ring, StoredRows, groups_by_name, train_network
from emuinfer.training.checkpoint import load_checkpoint
from emuinfer.training.optimiser import make_optimiser

SETTINGS = LoopConfig(
    steps=60, warmup=5, batch=16, learning_rate=1e-2, average=0.9, validate_every=10, checkpoint_every=10, seed=3
)


class Stop(Exception):
    """The process dies."""


# A regression: eqx.nn.MLP learns y = sin(2 x0) + x1


def points(n, seed):
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2)).astype(np.float32)
    return x, np.sin(2 * x[:, :1]) + x[:, 1:]


def network(seed=0, width=16):
    return eqx.nn.MLP(2, 1, width, 2, key=jax.random.key(seed))


def squared_error(model, batch):
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


HELD = points(64, 9)


def judged(model):
    arrays, static = eqx.partition(model, eqx.is_array)
    return {"mse": float(jax.jit(lambda a: squared_error(eqx.combine(a, static), HELD))(arrays))}


def regression(directory=None, source=None, **changes):
    config = dataclasses.replace(SETTINGS, **changes)
    source = source or StoredRows(points(200, 1), config.seed)
    return train_network(
        network(), squared_error, source, config, validate=judged, directory=directory, progress=False
    )  # fmt: skip


# Tokens: an embedding, one layer of attention-free mixing, and classes; the class is the commonest token of a sequence


class Classifier(eqx.Module):
    embed: jax.Array  # (vocabulary, width)
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self, key, vocabulary=5, width=16):
        keys = jax.random.split(key, 3)
        self.embed = jax.random.normal(keys[0], (vocabulary, width))
        self.hidden, self.out = eqx.nn.Linear(width, width, key=keys[1]), eqx.nn.Linear(width, vocabulary, key=keys[2])
        self.drop = eqx.nn.Dropout(0.1)

    def __call__(self, tokens, key=None):
        x = jnp.mean(self.embed[tokens], axis=0)
        return self.out(self.drop(jax.nn.relu(self.hidden(x)), key=key, inference=key is None))


class TokenLoss(eqx.Module):
    """Cross-entropy with weights of the classes that are arrays of the loss, and dropout that takes a key."""

    weight: jax.Array  # (vocabulary,)

    def __call__(self, model, batch, key):
        logits = jax.vmap(model)(batch["tokens"], jax.random.split(key, len(batch["class"])))
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["class"][:, None], axis=1)[:, 0]
        right = jnp.mean((jnp.argmax(logits, axis=-1) == batch["class"]).astype(jnp.float32))
        return -jnp.mean(self.weight[batch["class"]] * chosen), {"right": right}


def sequences(n, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, (n, 9))
    tokens[np.arange(n), :] = np.where(rng.uniform(size=(n, 9)) < 0.5, tokens[:, :1], tokens)
    return {"tokens": tokens, "class": np.array([np.bincount(row, minlength=5).argmax() for row in tokens])}


def wrong(model):
    held = sequences(200, 7)
    found = jax.vmap(lambda t: jnp.argmax(model(t)))(held["tokens"])
    return {"wrong": float(np.mean(np.asarray(found) != held["class"]))}


def classification(directory=None, source=None, **changes):
    config = dataclasses.replace(SETTINGS, **{"steps": 120, "batch": 32, **changes})
    source = source or StoredRows(sequences(400, 2), config.seed)
    return train_network(
        Classifier(jax.random.key(1)), TokenLoss(jnp.ones(5)), source, config,
        validate=wrong, described={"task": "commonest token"}, directory=directory, progress=False,
    )  # fmt: skip


# What both must do


def leaves(model):
    return [np.asarray(a) for a in jax.tree.leaves(eqx.filter(model, eqx.is_array))]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Dying:
    """A source whose process dies at a step."""

    def __init__(self, source, step):
        self.source, self.step = source, step

    def batch(self, step, n):
        if step == self.step:
            raise Stop
        return self.source.batch(step, n)


@pytest.mark.parametrize(
    "train, rows, figure",
    [(regression, lambda: StoredRows(points(200, 1), 3), "mse"), (classification, lambda: StoredRows(sequences(400, 2), 3), "wrong")],
    ids=["regression", "tokens"],
)  # fmt: skip
def test_it_learns_and_a_killed_run_goes_on_exactly(train, rows, figure, tmp_path):
    whole = train(tmp_path / "whole")
    seen = [line[figure] for line in records(tmp_path / "whole")]
    assert seen[-1] < 0.3 * seen[0]
    with pytest.raises(Stop):
        train(tmp_path / "cut", Dying(rows(), 37))
    resumed = train(tmp_path / "cut")
    assert same(resumed, whole) and records(tmp_path / "cut")[-1]["from"] == 30
    assert [line[figure] for line in records(tmp_path / "cut")] == seen
    assert (tmp_path / "cut" / "checkpoint.eqx").read_bytes() == (tmp_path / "whole" / "checkpoint.eqx").read_bytes()
    assert same(train(), whole)  # nothing depends on the folder


def test_figures_of_the_loss_are_recorded(tmp_path):
    classification(tmp_path)
    first, *_, last = records(tmp_path)
    assert first["right"] < last["right"] <= 1.0 and last["loss"] < first["loss"]
    assert json.loads((tmp_path / "config.json").read_text())["task"] == "commonest token"
    with pytest.raises(TrainingError, match="batch: 32 there, 16 now"):
        classification(tmp_path, batch=16)


def test_patience_keeps_the_best_by_the_first_figure(tmp_path):
    few = StoredRows(points(4, 1))
    kept = regression(tmp_path, few, steps=2000, patience=3, decay=0.01, learning_rate=3e-2, average=0.5)
    seen = [line["mse"] for line in records(tmp_path)]
    assert len(seen) == np.argmin(seen) + 1 + 3 < 200
    assert judged(kept)["mse"] == pytest.approx(min(seen), rel=1e-5)
    with pytest.raises(TrainingError, match="patience = 2 needs something to judge by"):
        train_network(network(), squared_error, few, LoopConfig(patience=2))


def test_a_loss_that_is_not_finite_leaves_the_last_good_weights(tmp_path):
    class Poisoned(StoredRows):
        def batch(self, step, n):
            x, y = super().batch(step, n)
            return x, np.full_like(y, np.nan) if step == 24 else y

    with pytest.raises(
        TrainingError, match="not finite at step 25. The checkpoint of step 20 .*last_good.eqx"
    ) as error:
        regression(tmp_path, Poisoned(points(200, 1), 3))
    assert "learning_rate (now 0.01)" in str(error.value)
    good = load_checkpoint(tmp_path / "last_good.eqx", eqx.filter(network(), eqx.is_array))
    assert not same(good, network()) and all(np.isfinite(a).all() for a in leaves(good))


# Groups of weights


def test_named_parts_are_frozen_or_learn_at_their_own_rate():
    config = dataclasses.replace(
        SETTINGS, frozen=("layers.0",), rates={"layers": 0.5, "layers.2.bias": 0.1}, warmup=0, weight_decay=0.0, clip=1e9
    )  # fmt: skip
    params = eqx.filter(network(), eqx.is_inexact_array)
    optimiser = make_optimiser(config, params, groups_by_name(config))
    gradient = jax.tree.map(jnp.ones_like, params)
    update = jax.jit(lambda g, p: optimiser.update(g, optimiser.init(p), p)[0])(gradient, params)
    for part, rate in ((update.layers[0].weight, 0.0), (update.layers[1].weight, 0.5), (update.layers[2].bias, 0.1)):
        np.testing.assert_allclose(part, -rate * config.learning_rate, rtol=1e-4)
    frozen = regression(frozen=("layers.0", "layers.1.bias"))
    assert np.array_equal(frozen.layers[0].weight, network().layers[0].weight)
    assert np.array_equal(frozen.layers[1].bias, network().layers[1].bias)
    assert not np.array_equal(frozen.layers[1].weight, network().layers[1].weight)


def test_muon_and_bfloat16_are_for_matrices():
    config = dataclasses.replace(SETTINGS, optimiser="muon")
    group = groups_by_name(config)
    named = jax.tree_util.tree_flatten_with_path(eqx.filter(network(), eqx.is_array))[0]
    assert {(a.ndim, group(path, a)) for path, a in named} == {(2, Group(1.0, "muon", True)), (1, Group())}
    assert judged(regression(optimiser="muon", learning_rate=0.1))["mse"] < judged(network())["mse"] / 3

    seen = []

    def low(model, batch):
        seen.append({layer.weight.dtype for layer in model.layers} | {layer.bias.dtype for layer in model.layers})
        raised = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, model)
        return squared_error(raised, batch)

    rows = StoredRows(points(200, 1))
    trained = train_network(network(), low, rows, dataclasses.replace(SETTINGS, precision="bfloat16"), progress=False)
    assert seen[0] == {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)}
    assert {a.dtype for a in leaves(trained)} == {np.dtype(np.float32)}


def test_groups_may_be_any_function():
    group = lambda path, weight: Group(rate=0.0 if weight.ndim == 2 else 1.0)
    trained = train_network(network(), squared_error, StoredRows(points(50, 1)), SETTINGS, groups=group, progress=False)
    for a, b in zip(leaves(trained), leaves(network()), strict=True):
        assert np.array_equal(a, b) == (a.ndim == 2)


# Batches


def test_replay_mixes_any_pytree():
    new, old = (StoredRows({"x": np.full((5, 2), v), "y": np.full(5, v)}, stream=v) for v in (0, 1))
    mixed = Replay(new, old, 0.25)
    batches = [mixed.batch(step, 8) for step in range(300)]
    assert {len(b["y"]) for b in batches} == {8} and {b["x"].shape for b in batches} == {(8, 2)}
    assert np.mean([b["y"].mean() for b in batches]) == pytest.approx(0.25, abs=0.02)
    with pytest.raises(TrainingError, match="number of rows"):
        StoredRows((np.zeros(3), np.zeros(4)))


def test_a_ring_of_endless_examples_follows_the_step():
    made = []

    def make(number):
        made.append(number)
        return np.full((4, 2), number), jnp.full(4, float(number))

    ring, other = (Ring(make, size=12, chunk=4, renew=2, seed=1) for _ in range(2))
    for step in range(9):
        host, device = ring.batch(step, 50)
        assert set(np.unique(host)) == set(np.asarray(device)) == {step // 2 + k for k in range(3)}
    assert made == list(range(7))
    for a, b in zip(other.batch(8, 50), ring.batch(8, 50), strict=True):
        np.testing.assert_array_equal(a, b)
    assert isinstance(host, np.ndarray) and isinstance(device, jax.Array)
    with pytest.raises(TrainingError, match="multiple of the chunk"):
        Ring(make, size=10, chunk=4, renew=1)


# The room


def test_the_loop_knows_no_emulator():
    code = (
        "import sys, emuinfer.training; bad = [m for m in sys.modules if m.startswith('emuinfer.') and m.split('.')[1] in "
        "('emulators', 'labels', 'grids', 'synthesis', 'wavelengths')]; assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_was_here_is_found_with_a_warning(monkeypatch):
    import emuinfer.training as training

    for name in ("TrainConfig", "train"):  # the old module of this name, if something in this process has imported it
        monkeypatch.delitem(vars(training), name, raising=False)
    with pytest.warns(DeprecationWarning, match="emuinfer.training.TrainConfig is now emuinfer.emulators.training"):
        old = training.TrainConfig
    from emuinfer.emulators.training import TrainConfig, train

    assert old is TrainConfig
    with pytest.warns(DeprecationWarning, match="next release"):
        from emuinfer.training import train as old_train
    assert old_train is train
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = training.nothing
