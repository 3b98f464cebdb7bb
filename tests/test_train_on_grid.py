"""Training on a grid as one call: where it starts, what it is measured on, what the card says, and what goes on after a kill."""

import dataclasses
import functools
import inspect
import json

import equinox as eqx
import jax
import numpy as np
import pytest
from test_training_faults import GRID, SETTINGS, killed_at, make_grid, new, same

import emuinfer
from emuinfer import Grid, load_emulator, save_emulator
from emuinfer.emulators import TransformerConfig, emulator_hash
from emuinfer.emulators.training import TrainConfig, error_table, fit_logit_gp, pretrain_on_window, train_on_grid
from emuinfer.emulators.training.start import new_transformer, start_from_components, start_from_teacher
from emuinfer.errors import GridError, TrainingError
from emuinfer.files import use_compilation_cache
from emuinfer.grids.split import split_rows

SIZES = dict(width=8, depth=1, heads=2, tokens=2, label_hidden=8, frequencies=4, rank=4)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    use_compilation_cache()


def go(grid=GRID, init=None, **changes):
    config = dataclasses.replace(SETTINGS, **changes.pop("config", {}))
    return train_on_grid(grid, init, config, progress=False, **{"sizes": SIZES, **changes})


@pytest.fixture(scope="module")
def teacher():
    return fit_logit_gp(
        GRID.label_space, GRID.labels, GRID.flux, GRID.wavelength, medium="air", components=3, groups=(2,), iterations=3
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, go(directory=folder, title="One line")


def test_the_card_says_what_was_done_and_how_good_it_is(whole):
    emulator, card = whole[1]
    assert json.loads(json.dumps(card))["validation"] == card["validation"]
    assert card["title"] == "One line" and card["grid"] == {"hash": GRID.hash, "spectra": 30, "provenance": {}}
    assert card["recipe"]["steps"] == 24 and card["recipe"]["held_out"] == 0.1
    assert card["recipe"]["init"] is None and card["recipe"]["replayed"] is None
    assert card["versions"]["emuinfer"] == emuinfer.__version__
    test = GRID.split(0.1)[1]
    errors = error_table(emulator, GRID.labels[test], GRID.flux[test], GRID.wavelength, resolutions=(None,))
    assert card["validation"]["native"] == errors["native"]
    assert emuinfer.train_on_grid is train_on_grid


def test_a_file_is_as_good_as_a_grid(whole, tmp_path):
    GRID.save(tmp_path / "grid.h5")
    emulator, card = go(tmp_path / "grid.h5")
    assert same(emulator, whole[1].emulator) and card["grid"]["file"] == "grid.h5"
    with pytest.raises(GridError, match="emuinfer grid make"):
        go(tmp_path / "nowhere.h5")


def test_a_killed_run_goes_on_from_the_start_it_made(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 3)
        go(directory=tmp_path)
    (start,) = tmp_path.glob("start-*.json")
    made = start.stat().st_mtime_ns
    assert same(go(directory=tmp_path).emulator, whole[1].emulator)
    assert start.stat().st_mtime_ns == made
    rows = GRID.split(0.1)[0]
    fresh = new_transformer(GRID.label_space, GRID.wavelength, "air", SIZES, 0)
    made_here = start_from_components(fresh, GRID.labels[rows], GRID.flux[rows], GRID.wavelength, progress=False)
    assert same(load_emulator(start), made_here)
    with pytest.raises(TrainingError, match="already holds a run"):
        go(directory=tmp_path, resume=False)


def test_it_goes_on_from_an_emulator_by_object_or_by_name(tmp_path):
    save_emulator(new(), tmp_path / "first")
    by_object, by_name = (go(init=init, sizes=None) for init in (new(), tmp_path / "first"))
    assert same(by_object.emulator, by_name.emulator) and by_object.emulator.config == new().config
    assert by_object.card["recipe"]["init"] == {"hash": emulator_hash(new())}
    assert by_name.card["recipe"]["init"] == {"name": str(tmp_path / "first"), "hash": emulator_hash(new())}
    still = go(init=new(), config={"steps": 4, "frozen": ("trunk", "branch", "blocks")})
    assert same([still.emulator.trunk, still.emulator.blocks], [new().trunk, new().blocks])
    assert not same(still.emulator.table, new().table)


def test_gaussian_processes_teach_a_new_transformer(teacher, tmp_path, monkeypatch):
    quick = functools.partial(start_from_teacher, n=1024, steps=600)
    monkeypatch.setattr("emuinfer.emulators.training.start.start_from_teacher", quick)
    emulator, card = go(init=teacher, directory=tmp_path, sizes={**SIZES, "rank": 99}, config={"steps": 1})
    assert emulator.config.rank == len(teacher.basis) == 3 and emulator.config.epsilon == teacher.epsilon
    assert card["recipe"]["init"] == {"hash": emulator_hash(teacher)}
    first = load_emulator(next(tmp_path.glob("start-*.json")))
    seen = [np.asarray(e(GRID.labels[:5], GRID.wavelength)) for e in (first, teacher)]
    assert np.abs(seen[0] - seen[1]).mean() < 0.01
    with pytest.raises(TrainingError, match="'logit_pca' emulator; only transformers .* Gaussian processes"):
        from emuinfer.emulators.baselines import LogitPCA

        go(init=LogitPCA(GRID.label_space, teacher.grid, "air", 2, (4,), key=jax.random.key(0)))
    with pytest.raises(TrainingError, match="medium|are in air, those of .* in vacuum"):
        go(make_grid(medium="vacuum"), init=teacher)


def test_pixels_that_are_not_equally_spaced_start_at_random():
    wavelength = 5000.0 + 3.0 * np.linspace(0.0, 1.0, 60) ** 1.5
    uneven = make_grid(wavelength=wavelength)
    emulator, card = go(uneven, config={"steps": 1, "learning_rate": 1e-12, "warmup": 0, "weight_decay": 0.0})
    random = new_transformer(uneven.label_space, wavelength, "air", SIZES, 0)
    assert np.allclose(emulator.trunk, random.trunk, atol=1e-6) and set(card["validation"]) == {"spectra", "native"}


def test_replay_and_patience(tmp_path):
    before = make_grid(12, seed=4, shift=0.1)
    emulator, card = go(replay=before, config={"replay": 0.5})
    assert card["recipe"]["replayed"] == {"hash": before.hash} and not same(emulator, go().emulator)
    with pytest.raises(TrainingError, match="the grid must have the pixels of the grid"):
        go(replay=make_grid(wavelength=GRID.wavelength + 0.5))
    # What chooses the weights is apart from what is trained on and from what measures the error.
    settings = {"patience": 1, "steps": 400, "learning_rate": 0.05, "average": 0.5, "decay": 0.01}
    go(config=settings, directory=tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())["data"]
    rows, _ = GRID.split(0.1)
    assert data.startswith(f"{len(split_rows(len(rows))[0])} spectra") and len(rows) == 27


def test_sizes_that_cannot_be():
    with pytest.raises(TrainingError, match="multiple of heads .*; got 7 and 2"):
        go(sizes={**SIZES, "width": 7})
    with pytest.raises(GridError, match="at most 0.5; got 0.9"):
        go(held_out=0.9)
    few = Grid(GRID.labels[:6], GRID.wavelength, GRID.flux[:6], label_space=GRID.label_space, medium="air")
    assert (
        go(few, sizes={**SIZES, "rank": 128}, config={"steps": 1}).emulator.config.rank == 4
    )  # 5 to train on, less one


def test_options_of_the_command_line_are_those_of_python():
    from emuinfer.cli.pretrain import pretrain
    from emuinfer.cli.train import train

    options = inspect.signature(train).parameters
    for field in dataclasses.fields(TrainConfig):
        if field.name in options and field.name != "replay":
            assert options[field.name].default == field.default, field.name
    assert options["replay_share"].default == TrainConfig().replay
    for name in SIZES:
        assert options[name].default == getattr(TransformerConfig(), name)
    for function in (train, pretrain):
        mine = inspect.signature(train_on_grid if function is train else pretrain_on_window).parameters
        for name in set(mine) & set(inspect.signature(function).parameters):
            assert inspect.signature(function).parameters[name].default == mine[name].default, name


def test_the_emulator_that_was_given_stays():
    """The trained emulator is another object: what was given stays as it was."""
    given = new()
    before = [np.array(a) for a in jax.tree.leaves(eqx.filter(given, eqx.is_array))]
    go(init=given)
    after = jax.tree.leaves(eqx.filter(given, eqx.is_array))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
