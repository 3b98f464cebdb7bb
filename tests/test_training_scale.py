"""Training that scales: devices, precision, rates between sizes, replay, and spectra made as training goes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer import Grid, LabelSpace, TransformerPayne
from emuinfer.emulators import TransformerConfig
from emuinfer.emulators.training import TrainConfig, pretrain, train
from emuinfer.emulators.training.data import StoredSpectra
from emuinfer.emulators.training.endless import EndlessSpectra
from emuinfer.emulators.training.rates import transformer_groups
from emuinfer.errors import TrainingError
from emuinfer.labels import WINDOWS, Window
from emuinfer.training import Replay
from emuinfer.training.loop import placement  # noqa: F401 (used in another process)
from emuinfer.training.optimiser import in_precision, make_optimiser

SPACE = LabelSpace(("teff", "fe_h"), (4000, -1), (6000, 0))
WAVELENGTH = 5000.0 + 0.05 * np.arange(60)
SIZES = TransformerConfig(
    width=8, depth=1, heads=2, tokens=2, label_hidden=8, frequencies=4, rank=0, table_nodes=60, shortest_period=1e-5
)
SETTINGS = TrainConfig(
    steps=12, warmup=2, spectra=4, pixels=16, validate_every=4, checkpoint_every=4, learning_rate=1e-2
)


def new(**sizes):
    config = dataclasses.replace(SIZES, **sizes)
    return TransformerPayne(SPACE, (WAVELENGTH[0], WAVELENGTH[-1]), "air", config, key=jax.random.key(0))


class OneLine(eqx.Module):
    """A synthesizer of one line; below `broken_below` K it fails."""

    offsets: jax.Array
    labels: LabelSpace = eqx.field(static=True)
    broken_below: float = eqx.field(static=True, default=0.0)

    def __call__(self, labels):
        labels = jnp.asarray(labels)
        flux = 1 - (0.5 + 0.3 * labels[1]) / (1 + (self.offsets / (labels[0] / 15_000)) ** 2)
        return jnp.where(labels[0] < self.broken_below, jnp.nan, flux), jnp.ones_like(flux)


LINE = OneLine(jnp.asarray(WAVELENGTH - WAVELENGTH.mean(), jnp.float32), SPACE)


def leaves(emulator):
    return [np.asarray(a) for a in jax.tree.leaves(eqx.filter(emulator, eqx.is_inexact_array))]


def stored(n=20, seed=0):
    labels = np.random.default_rng(seed).uniform(SPACE.lower, SPACE.upper, (n, 2))
    return labels, np.asarray(jax.vmap(LINE)(labels.astype(np.float32))[0])


@pytest.mark.slow
def test_several_devices_train_as_one(tmp_path):
    """In a process of its own: the number of host devices is fixed when JAX starts."""
    script = f"""
import dataclasses, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import jax, numpy as np, test_training_scale as t
assert jax.device_count() == 4
share, replicate = t.placement(4)
assert [part.data.shape for part in share(np.zeros((8, 2))).addressable_shards] == 4 * [(2, 2)]
labels, flux = t.stored()
config = dataclasses.replace(t.SETTINGS, devices=4)
emulator = t.train(t.new(), labels, flux, t.WAVELENGTH, config=config, progress=False, directory={str(tmp_path)!r})
np.savez({str(tmp_path)!r} + "/four.npz", *t.leaves(emulator))
"""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    one, four = (
        leaves(train(new(), *stored(), WAVELENGTH, config=SETTINGS, progress=False)),
        np.load(tmp_path / "four.npz"),
    )
    assert len(one) == len(four.files)
    for a, b in zip(one, four.values()):
        np.testing.assert_allclose(b, a, atol=5e-5)


def test_more_devices_than_there_are():
    with pytest.raises(TrainingError, match="JAX sees .*xla_force_host_platform_device_count=64"):
        config = dataclasses.replace(SETTINGS, devices=64, spectra=64)
        train(new(), *stored(), WAVELENGTH, config=config, progress=False)


@pytest.mark.parametrize(
    "setting",
    [{"optimiser": "sgd"}, {"precision": "float16"}, {"devices": 3}, {"replay": 1.0}],
    ids=lambda s: next(iter(s)),
)
def test_settings_that_cannot_be(setting):
    with pytest.raises(TrainingError, match=next(iter(setting))):
        dataclasses.replace(SETTINGS, **setting)


def test_bfloat16_is_nearly_float32_and_weights_stay():
    emulator = new()
    emulator = eqx.tree_at(lambda e: e.head, emulator, emulator.head * 10)
    low = in_precision(emulator, "bfloat16", transformer_groups(emulator.config, SETTINGS))
    query = emulator.prepare(WAVELENGTH)
    exact, rough = (np.asarray(e.flux(jnp.array([0.3, -0.2]), query)) for e in (emulator, low))
    assert 0 < np.abs(rough - exact).max() < 0.01
    assert rough.dtype == np.float32
    config = dataclasses.replace(SETTINGS, precision="bfloat16")
    trained = train(emulator, *stored(), WAVELENGTH, config=config, progress=False)
    assert {a.dtype for a in leaves(trained)} == {np.dtype(np.float32)}
    assert np.abs(trained.blocks[0].expand - emulator.blocks[0].expand).max() > 1e-3


def first_step(config, **sizes):
    """What the first step at full rate adds to the weights."""
    params = eqx.filter(new(**sizes), eqx.is_inexact_array)
    config = dataclasses.replace(config, warmup=0, weight_decay=0.0, clip=1e9)
    optimiser = make_optimiser(config, params, transformer_groups(params.config, config))
    rng = np.random.default_rng(1)
    gradient = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    return jax.jit(lambda g, p: optimiser.update(g, optimiser.init(p), p)[0])(gradient, params)


def rms(update):
    return float(np.sqrt(np.mean(np.square(update))))


def test_rates_follow_width_and_depth():
    config = dataclasses.replace(SETTINGS, base_width=8, base_depth=1, table_rate=0.5, steps=10, frozen=("label_bias",))
    large, rate = first_step(config, width=32, depth=4), config.learning_rate
    assert rms(large.blocks[0].query) == pytest.approx(rate / 4, rel=0.01)
    assert rms(large.blocks[3].out) == pytest.approx(rate / 8, rel=0.01)
    assert rms(large.head) == pytest.approx(rate / 4, rel=0.01)
    assert rms(large.label_in) == pytest.approx(rate, rel=0.01)
    assert rms(large.encode) == pytest.approx(0.5 * rate, rel=0.01)
    assert rms(large.label_bias) == 0.0


def test_muon_turns_block_matrices_only():
    """Muon's step is orthogonal up to its few iterations: singular values are alike, where AdamW's are not."""
    update = first_step(dataclasses.replace(SETTINGS, optimiser="muon", steps=10), width=32, heads=4)
    spread = lambda m: np.ptp(np.log(np.linalg.svd(np.asarray(m), compute_uv=False)[:-4]))
    assert spread(update.blocks[0].query) < 0.7 < spread(update.table[:32])


def test_replay_keeps_its_share():
    scaled, flux = np.zeros((5, 2), np.float32), np.zeros((5, 60), np.float32)
    fresh, old = StoredSpectra(scaled, flux, SETTINGS), StoredSpectra(scaled, flux + 1, SETTINGS, stream=1)
    for share in (0.0, 0.1, 0.5):
        mixed = Replay(fresh, old, share)
        shares = [mixed.batch(step, 8)[2].mean() for step in range(400)]
        assert np.mean(shares) == pytest.approx(share, abs=0.02)


def test_replay_remembers():
    """Spectra of another line, learned alone, cost more of what was known than learned with replay."""
    labels, flux = stored(40)
    other = 1 - 0.5 * (1 - flux[:, ::-1])
    config = dataclasses.replace(SETTINGS, steps=150, spectra=8, pixels=32, validate_every=150)
    known = train(new(), labels, flux, WAVELENGTH, config=config, progress=False)
    half = labels[:, 1] > -0.5  # the new spectra are metal-rich, what is asked is metal-poor
    error = lambda e: np.abs(np.asarray(e(labels[~half], WAVELENGTH)) - flux[~half]).mean()
    tune = lambda **k: train(known, labels[half], other[half], WAVELENGTH, config=config, progress=False, **k)
    assert error(tune(replay=(labels[~half], flux[~half]))) < 0.5 * error(tune())


def test_endless_spectra_follow_the_step():
    make = lambda: EndlessSpectra(LINE, SPACE, 60, 16, ring=8, renew=2, chunk=4, seed=3)
    straight, jumped = make(), make()
    for step in range(8):
        expected = straight.batch(step, 4)
    for a, b in zip(expected, jumped.batch(7, 4)):
        np.testing.assert_array_equal(a, b)
    scaled, pixels, flux = expected
    physical = np.asarray(SPACE.unscale(scaled), np.float32)
    exact = np.take_along_axis(np.asarray(jax.vmap(LINE)(physical)[0]), pixels, axis=1)
    np.testing.assert_allclose(flux, exact, atol=1e-5)
    assert len({tuple(row) for step in range(40) for row in straight.batch(step, 4)[0]}) > 16  # the ring alone holds 8


def test_endless_spectra_replace_what_is_not_finite():
    source = EndlessSpectra(dataclasses.replace(LINE, broken_below=4800.0), SPACE, 60, 16, ring=32, chunk=8)
    scaled, _, flux = source.batch(0, 64)
    assert source.replaced > 0 and np.isfinite(flux).all()
    assert (SPACE.unscale(scaled)[:, 0] >= 4799).all()
    with pytest.raises(TrainingError, match="No spectrum of chunk 0"):
        EndlessSpectra(dataclasses.replace(LINE, broken_below=9e9), SPACE, 60, 16, ring=8, chunk=8).batch(0, 4)
    with pytest.raises(TrainingError, match="multiple"):
        EndlessSpectra(LINE, SPACE, 60, 16, ring=9, chunk=8)


def test_pretraining_learns_and_resumes(tmp_path):
    labels, flux = stored(16, seed=9)
    config = dataclasses.replace(SETTINGS, steps=60, spectra=8, pixels=32, validate_every=20, checkpoint_every=20)
    go = lambda folder, config=config: pretrain(
        new(),
        LINE,
        WAVELENGTH,
        config=config,
        ring=32,
        renew=2,
        chunk=8,
        held_out=(labels, flux),
        directory=folder,
        progress=False,
    )
    whole = go(tmp_path / "whole")
    records = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["mae"] < 0.7 * records[0]["mae"]

    class Stop(Exception):
        pass

    batch = EndlessSpectra.batch

    def until_41(self, step, n):
        if step == 41:
            raise Stop
        return batch(self, step, n)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(EndlessSpectra, "batch", until_41)
        go(tmp_path / "cut")
    for a, b in zip(leaves(go(tmp_path / "cut")), leaves(whole)):
        np.testing.assert_array_equal(a, b)


def test_pretraining_with_other_labels():
    other = dataclasses.replace(LINE, labels=LabelSpace(("teff", "mg_fe"), (4000, -1), (6000, 0)))
    with pytest.raises(TrainingError, match="teff, mg_fe.*teff, fe_h"):
        pretrain(new(), other, WAVELENGTH, config=SETTINGS, progress=False)


def test_pretrain_on_the_command_line(cli, tmp_path, monkeypatch):
    from emuinfer import load_emulator

    span = (WAVELENGTH[0], WAVELENGTH[-1])
    monkeypatch.setitem(WINDOWS, "made up", Window("made up", span, "air", SPACE, step=0.05))
    monkeypatch.setattr("emuinfer.synthesis.LTESynthesizer", lambda window: LINE)
    sizes = ["--width", 8, "--heads", 2, "--depth", 1, "--tokens", 2, "--pixels", 16, "--spectra", 4]
    ring = ["--ring", 8, "--chunk", 4, "--steps", 6, "--every", 3, "--optimiser", "adamw"]
    labels, flux = stored(6)
    Grid(labels, WAVELENGTH, flux, label_space=SPACE, medium="air").save(tmp_path / "grid.h5")
    judged = ["--validation", tmp_path / "grid.h5"]
    sizes += ["--window", "made up"]
    status, out, err = cli("pretrain", *sizes, *ring, *judged, "-q", "--output", tmp_path / "new")
    assert status == 0, err
    last = json.loads((tmp_path / "new.run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 6 and 0 < last["mae"] < 1
    assert "new.json" in out
    emulator = load_emulator(tmp_path / "new")
    assert emulator.config.width == 8 and emulator.labels == SPACE.names
    assert (tmp_path / "new.run" / "checkpoint.eqx").exists()
    status, _, err = cli("pretrain", *sizes, "--heads", 3, *ring, "-q", "--output", tmp_path / "other")
    assert status == 1 and "width (--width) must be a multiple of heads (--heads); got 8 and 3." in err
