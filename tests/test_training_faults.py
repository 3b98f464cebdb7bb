"""Training that goes wrong: killed runs, full disks, losses that are not finite, stages that do not fit together."""

import dataclasses
import errno
import json
import os

import equinox as eqx
import jax
import numpy as np
import pytest

from emuinfer import Grid, LabelSpace, TransformerPayne, load_emulator, save_emulator
from emuinfer.emulators import TransformerConfig
from emuinfer.emulators.training import TrainConfig, labels_for, train
from emuinfer.errors import TrainingError
from emuinfer.files import use_compilation_cache, writing
from emuinfer.training import checkpoint as checkpoints
from emuinfer.training import loop

SPACE = LabelSpace(("teff", "fe_h"), (4000, -1), (6000, 0))
WAVELENGTH = 5000.0 + 0.05 * np.arange(60)
SIZES = TransformerConfig(
    width=8, depth=1, heads=2, tokens=2, label_hidden=8, frequencies=4, rank=4, table_nodes=60, shortest_period=1e-5
)
SETTINGS = TrainConfig(
    steps=24, warmup=2, spectra=4, pixels=16, validate_every=4, checkpoint_every=4, average=0.9, learning_rate=1e-2
)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """The runs here are alike: let them share their compiled programs."""
    use_compilation_cache()


def make_grid(n=30, seed=0, space=SPACE, wavelength=WAVELENGTH, medium="air", shift=0.0):
    """One line whose width and depth follow the labels; `shift` moves it, as another physics would."""
    labels = np.random.default_rng(seed).uniform(space.lower, space.upper, (n, len(space)))
    values = space.to_dict(labels)
    width = 0.3 + 0.1 * (values.get("teff", np.full(n, 5000.0)) / 1000 - 5)
    depth = 0.5 + 0.3 * values.get("fe_h", np.zeros(n))
    x = (wavelength - wavelength.mean() - shift) / width[:, None]
    return Grid(labels, wavelength, 1 - depth[:, None] / (1 + x**2), label_space=space, medium=medium)


GRID = make_grid()
HELD = make_grid(8, seed=5)


def new(seed=0):
    return TransformerPayne(SPACE, (WAVELENGTH[0], WAVELENGTH[-1]), "air", SIZES, key=jax.random.key(seed))


def run(directory=None, emulator=None, grid=GRID, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    held_out = (HELD.labels, HELD.flux)
    emulator = new() if emulator is None else emulator
    return train(
        emulator, grid.labels, grid.flux, grid.wavelength,
        config=settings, held_out=held_out, directory=directory, progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing has interrupted: its folder and its emulator."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(*(jax.tree.leaves(eqx.filter(e, eqx.is_array)) for e in (a, b))))


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def killed_at(monkeypatch, count):
    """The process dies when it would write its `count`-th checkpoint."""
    save, calls = checkpoints.save_checkpoint, []

    def save_or_die(path, state):
        calls.append(path)
        if len(calls) == count:
            raise KeyboardInterrupt
        save(path, state)

    monkeypatch.setattr(checkpoints, "save_checkpoint", save_or_die)


def disk_full(monkeypatch, name, mode):
    """Writing to the file `name` puts half of it there and then fails, as on a full disk."""
    real = open

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    def opened(path, given="r", *args, **kwargs):
        file = real(path, given, *args, **kwargs)
        return Full(file) if str(path).endswith(name) and given == mode else file

    for module in (checkpoints, writing):
        monkeypatch.setattr(module, "open", opened, raising=False)


# Killed runs


def two_stages(folder):
    """Simple physics, then realistic spectra: each stage is skipped when its emulator is there."""
    first, second = folder / "first.json", folder / "second.json"
    if not first.exists():
        save_emulator(run(folder / "stage1"), first)
    if not second.exists():
        tuned = run(
            folder / "stage2", load_emulator(first), make_grid(12, seed=1, shift=0.05), seed=1, learning_rate=3e-3
        )
        save_emulator(tuned, second)
    return load_emulator(second)


@pytest.fixture(scope="module")
def both_stages(tmp_path_factory):
    return two_stages(tmp_path_factory.mktemp("stages"))


@pytest.mark.parametrize("count", [3, 9], ids=["in stage 1", "in stage 2"])
def test_a_killed_run_of_two_stages_goes_on_where_it_was(count, both_stages, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, count)
        two_stages(tmp_path / "killed")
    stage = "stage1" if count == 3 else "stage2"
    assert (tmp_path / "killed" / "first.json").exists() == (stage == "stage2")
    written = (tmp_path / "killed" / "stage1" / "checkpoint.eqx").stat().st_mtime_ns
    assert same(two_stages(tmp_path / "killed"), both_stages)
    assert metrics(tmp_path / "killed" / stage)[-1]["from"] == 8
    if stage == "stage2":  # the finished stage was not touched
        assert (tmp_path / "killed" / "stage1" / "checkpoint.eqx").stat().st_mtime_ns == written


def test_metrics_of_a_resumed_run_are_those_of_a_whole_one(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 3)
        run(tmp_path / "killed")
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as file:
        file.write('{"step": 1')  # cut short by the kill
    run(tmp_path / "killed")
    resumed = metrics(tmp_path / "killed")
    assert [line["step"] for line in resumed] == [4, 8, 12, 16, 20, 24]
    assert [line["mae"] for line in resumed] == [line["mae"] for line in metrics(whole[0])]


def test_a_folder_is_not_gone_on_with_by_another_run(whole):
    folder, _ = whole
    with pytest.raises(TrainingError, match="learning_rate: 0.01 there, 0.02 now"):
        run(folder, learning_rate=0.02)
    with pytest.raises(TrainingError, match="data: 30 spectra .* there, 20 spectra of 60 pixels"):
        run(folder, grid=make_grid(20))
    with pytest.raises(TrainingError, match="start: .* there, .* now"):
        run(folder, new(seed=3))


# A full disk


@pytest.mark.parametrize("name, mode", [("checkpoint.eqx", "wb"), ("metrics.jsonl", "a")])
def test_a_full_disk_costs_nothing(name, mode, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 3)
        run(tmp_path / "full")
    before = {p.name: p.read_bytes() for p in (tmp_path / "full").iterdir()}
    with monkeypatch.context() as patch:
        disk_full(patch, name, mode)
        with pytest.raises(TrainingError, match="No space left on device.*start the same run again") as error:
            run(tmp_path / "full")
    assert str(tmp_path / "full" / name) in str(error.value)
    after = {p.name: p.read_bytes() for p in (tmp_path / "full").iterdir()}
    assert after.keys() == before.keys() and after["checkpoint.eqx"] == before["checkpoint.eqx"]
    assert all(line["step"] <= 12 for line in metrics(tmp_path / "full"))
    assert same(run(tmp_path / "full"), whole[1])  # with space again, nothing is missing


def test_a_full_disk_when_the_emulator_is_written(tmp_path, monkeypatch, cli):
    grid = tmp_path / "grid.h5"
    GRID.save(grid)
    call = ("train", grid, "--steps", 4, "--width", 8, "--depth", 1, "--heads", 2, "--tokens", 2, "--label-hidden", 8)
    call += ("--frequencies", 4, "--rank", 0, "--spectra", 4, "--pixels", 8, "-q", "--output", tmp_path / "small")
    with monkeypatch.context() as patch:
        disk_full(patch, "small.safetensors", "wb")
        status, _, err = cli(*call)
    assert (
        status == 1
        and "small.safetensors" in err
        and "No space left on device" in err
        and "start the same command" in err
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grid.h5", "small.run"]
    status, _, err = cli(*call)
    assert status == 0, err
    assert load_emulator(tmp_path / "small").labels == SPACE.names


# A loss that is not finite


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    real = loop.make_step

    def break_at(step):
        def make_step(*args):
            inner = real(*args)

            def one(data, state):
                number = int(state.step) + 1
                state, figures = inner(data, state)
                return state, {k: v * np.nan if (k, number) == ("loss", step) else v for k, v in figures.items()}

            return one

        return make_step

    monkeypatch.setattr(loop, "make_step", break_at(2))
    with pytest.raises(TrainingError, match="not finite at step 2, before the first checkpoint. Lower learning_rate"):
        run(tmp_path / "early")
    monkeypatch.setattr(loop, "make_step", break_at(11))
    with pytest.raises(
        TrainingError, match="not finite at step 11. The checkpoint of step 8 is kept.*last_good.json.*clip"
    ):
        run(tmp_path / "late")
    monkeypatch.setattr(loop, "make_step", real)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 3)
        run(tmp_path / "reference")  # dies with the checkpoint of step 8
    contents = [(tmp_path / name / "checkpoint.eqx").read_bytes() for name in ("late", "reference")]
    assert contents[0] == contents[1]
    good = load_emulator(tmp_path / "late" / "last_good")
    assert not same(good, new()) and np.isfinite(np.asarray(good(GRID.labels[0], WAVELENGTH))).all()


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    broken = eqx.tree_at(lambda e: e.head_bias, new(), np.array([np.nan], np.float32))
    with pytest.raises(TrainingError, match="not finite at step 1"):
        run(tmp_path, broken)
    assert not (tmp_path / "checkpoint.eqx").exists()


# Stages that do not fit together


def test_labels_are_matched_by_name():
    other = make_grid(space=LabelSpace(("fe_h", "teff"), (-1, 4000), (0, 6000)))
    np.testing.assert_array_equal(labels_for(new(), other), other.labels[:, ::-1])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"space": LabelSpace(("teff", "mg_fe"), (4000, -1), (6000, 0))},
         "stage 2 has the labels teff .K., mg_fe .dex., but stage 1 has teff .K., fe_h .dex."),
        ({"space": LabelSpace(("teff",), (4000,), (6000,))}, "stage 2 has the labels teff .*, but stage 1 has .*fe_h .*fe_h missing"),
        ({"medium": "vacuum"}, "stage 1 are in air, those of stage 2 in vacuum"),
        ({"wavelength": WAVELENGTH + 1.0}, "stage 1 covers 5000.00 to 5002.95 Å, stage 2 5001.00 to 5003.95 Å"),
        ({"wavelength": WAVELENGTH[10:-10]}, "stage 2 5000.50 to 5002.45 Å"),
    ],
    ids=["names", "number", "medium", "range", "part of the range"],
)  # fmt: skip
def test_stages_that_do_not_match_are_told_apart(changes, message):
    with pytest.raises(TrainingError, match=message):
        labels_for(new(), make_grid(**changes), "stage 1", "stage 2")


def test_labels_outside_the_domain_are_named():
    wide = make_grid(space=LabelSpace(("teff", "fe_h"), (3000, -1), (7000, 0)))
    with pytest.raises(TrainingError, match="training spectra lie outside .* row"):
        run(grid=wide)


def test_fine_tuning_on_another_grid_names_both(tmp_path, cli):
    save_emulator(new(), tmp_path / "first")
    make_grid(medium="vacuum").save(tmp_path / "second.h5")
    status, _, err = cli("train", tmp_path / "second.h5", "--init", tmp_path / "first", "-o", tmp_path / "tuned", "-q")
    assert status == 1 and "first' are in air" in err and "second.h5 in vacuum" in err
    assert not (tmp_path / "tuned.run").exists()


# Early stopping


def test_early_stopping_keeps_the_best_weights(tmp_path):
    settings = dict(steps=400, learning_rate=0.05, average=0.5, decay=0.01, patience=3)
    small = make_grid(3)  # too few spectra: they are learned by heart, and the held-out error rises
    stopped = run(tmp_path / "a", grid=small, **settings)
    seen = [line["mae"] for line in metrics(tmp_path / "a")]
    best = int(np.argmin(seen))
    assert len(seen) == best + 1 + 3 < 100
    error = np.abs(np.asarray(stopped(HELD.labels, WAVELENGTH)) - HELD.flux).mean()
    assert error == pytest.approx(seen[best], rel=1e-4)
    assert same(run(tmp_path / "a", grid=small, **settings), stopped)  # finished: nothing is trained again
    assert len(metrics(tmp_path / "a")) == len(seen)
    with pytest.raises(TrainingError, match="patience = 3 needs held-out spectra"):
        train(new(), GRID.labels, GRID.flux, WAVELENGTH, config=TrainConfig(patience=3))


def test_a_killed_run_with_early_stopping_goes_on(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", patience=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 3)
        run(tmp_path / "killed", patience=2)
    assert same(run(tmp_path / "killed", patience=2), whole)
