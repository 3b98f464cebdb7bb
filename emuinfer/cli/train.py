"""`emuinfer train`: train a transformer emulator on a grid, or fine-tune one."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..constants import FWHM_PER_SIGMA
from ..errors import EmuinferError
from ..files import use_compilation_cache
from .options import refuse_existing, telling
from .options_training import (
    Blocks,
    Devices,
    Heads,
    Optimiser,
    Output,
    Overwrite,
    Pixels,
    Precision,
    Quiet,
    Spectra,
    Steps,
    Tokens,
    Warmup,
    Width,
    described_parent,
    known_transformer,
    new_transformer,
    save_or_explain,
    stem_of,
)


def train(
    grid: Annotated[Path, typer.Argument(help="Grid file of `emuinfer grid make` or `emuinfer grid import` (.h5).")],
    output: Output,
    init: Annotated[
        str | None, typer.Option(help="Start from the weights of this transformer (name or card), to fine-tune it.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Folder of the run: checkpoint and metrics; OUTPUT.run by default.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on from the folder's checkpoint, or refuse if there is one."),
    ] = True,
    steps: Steps = 20_000,
    warmup: Warmup = 500,
    decay: Annotated[
        float, typer.Option(min=0, max=1, help="Last fraction of the steps, over which it falls to zero.")
    ] = 0.4,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-3,
    weight_decay: Annotated[float, typer.Option(help="Decoupled weight decay of AdamW.")] = 1e-3,
    spectra: Spectra = 16,
    pixels: Pixels = 1024,
    held_out: Annotated[
        float, typer.Option(help="Fraction of the spectra kept for the errors of the card; the same for every seed.")
    ] = 0.1,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
    width: Width = 64,
    depth: Blocks = 2,
    heads: Heads = 4,
    tokens: Tokens = 16,
    label_hidden: Annotated[int, typer.Option(min=1, help="Width of the label networks (without --init).")] = 256,
    frequencies: Annotated[
        int, typer.Option(min=1, help="Sinusoids of the wavelength encoding (without --init).")
    ] = 64,
    rank: Annotated[
        int,
        typer.Option(min=0, help="Rank of the bilinear part, at most the training spectra less one (without --init)."),
    ] = 128,
    optimiser: Optimiser = "adamw",
    precision: Precision = "float32",
    devices: Devices = 1,
    replay: Annotated[
        Path | None, typer.Option(help="Grid of an earlier stage, mixed in so that what was learned from it stays.")
    ] = None,
    replay_share: Annotated[float, typer.Option(help="Share of each step's spectra that are of that grid.")] = 0.5,
    patience: Annotated[
        int,
        typer.Option(
            min=0,
            help="Stop after this many validations without gain and keep the best weights; 0: never. "
            "A tenth of the training spectra is set apart for it.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the first weights and of the batches.")] = 0,
    title: Annotated[str, typer.Option(help="Title of the card.")] = "",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
):
    """Train an emulator on a grid. Started again after an interruption, it goes on from the last checkpoint.

    A new emulator starts from principal components of the training spectra if their wavelengths are equally spaced; --init
    goes on from one that exists, which must have the grid's labels, wavelength range and medium.

    Its card records the grid's hash, the recipe, versions, and errors on the held-out spectra, natively sampled and at
    R = 40,000.

    \b
    Examples:
      emuinfer train lte.h5 --steps 20000 --output lte-emulator
      emuinfer train realistic.h5 --init lte-emulator --learning-rate 1e-3 --steps 5000 --replay lte.h5 --output tuned
    """
    stem = stem_of(output)
    card_file = stem.with_name(stem.name + ".json")
    refuse_existing(card_file, overwrite)
    if not 0 < held_out <= 0.5:
        raise EmuinferError(f"--held-out must be above 0 and at most 0.5; got {held_out:g}.")
    use_compilation_cache()
    from ..emulators.training import TrainConfig, error_table, labels_for
    from ..emulators.training import train as run
    from ..emulators.training.data import require_pixels
    from ..grids import Grid
    from ..grids.split import split_rows

    data = Grid.load(grid)
    before = None if replay is None else Grid.load(replay)
    if before is not None:
        require_pixels(before.wavelength, str(replay), data.wavelength, str(grid))
    kept, test = data.split(held_out)
    directory = directory or stem.with_name(stem.name + ".run")
    if init is None:
        sizes = dict(width=width, depth=depth, heads=heads, tokens=tokens, label_hidden=label_hidden,
                     frequencies=frequencies, rank=min(rank, len(kept) - 1))  # fmt: skip
        emulator = _new(data, kept, sizes, seed, directory, not quiet)
    else:
        emulator = known_transformer(init)
    labels = labels_for(emulator, data, f"'{init}'", str(grid))
    judges = test
    if patience:  # what chooses the weights may not measure their error
        fit, judge = split_rows(len(kept))
        kept, judges = kept[fit], kept[judge]
    config = TrainConfig(
        steps=steps,
        warmup=warmup,
        decay=decay,
        spectra=spectra,
        pixels=pixels,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        validate_every=validate_every,
        checkpoint_every=checkpoint_every,
        patience=patience,
        optimiser=optimiser,
        precision=precision,
        devices=devices,
        replay=replay_share,
    )
    old = None if replay is None else (labels_for(emulator, before, "the emulator", str(replay)), before.flux)
    with telling(f"Start the same command again to go on from the last checkpoint in {directory}."):
        trained = run(
            emulator,
            labels[kept],
            data.flux[kept],
            data.wavelength,
            config=config,
            held_out=(labels[judges], data.flux[judges]),
            replay=old,
            directory=directory,
            resume=resume,
            progress=not quiet,
        )
    validation = error_table(trained, labels[test], data.flux[test], data.wavelength, resolutions=_resolutions(data))
    replayed = None if replay is None else {"file": replay.name, "hash": before.hash}
    recipe = {**dataclasses.asdict(config), "held_out": held_out, "init": described_parent(init), "replayed": replayed}
    save_or_explain(trained, stem, _card(title, data, grid, recipe, validation))
    print(_figures(validation))
    print(f"Written to {card_file} and {stem.name}.safetensors beside it.")


def _new(data, rows, sizes, seed, directory, progress):
    """An emulator with tables on the grid's pixels, its bilinear part set from the principal components of `rows` if the
    pixels are equally spaced, as the tables' nodes are. It is kept in `directory`, so that a resumed run finds it."""
    from ..emulators import load_emulator
    from ..emulators.training.start import start_from_components

    wavelength = data.wavelength
    emulator = new_transformer(data.label_space, wavelength, data.medium, sizes, seed)
    config, span = emulator.config, emulator.wavelength_range
    if not config.rank or np.abs(np.linspace(*span, len(wavelength)) - wavelength).max() > 1e-3:
        return emulator
    # Another seed, size or grid would be another start: the name tells them apart.
    digest = hashlib.sha256(
        json.dumps([data.hash, rows.tolist(), dataclasses.asdict(config), seed]).encode()
    ).hexdigest()
    start = directory / f"start-{digest[:12]}"
    if start.with_suffix(".json").exists():
        return load_emulator(start)
    emulator = start_from_components(
        emulator,
        data.label_space.to_array(data.labels)[rows],
        data.flux[rows],
        wavelength,
        seed=seed,
        progress=progress,
    )
    save_or_explain(emulator, start, {"title": "First weights, from principal components"})
    return emulator


def _resolutions(data):
    step = np.diff(data.wavelength)
    reach = 10 * data.wavelength[-1] / 40_000 / FWHM_PER_SIGMA  # the line spread function, to 5 sigma on both sides
    uniform = np.ptp(step) < 2e-3 * step.mean()
    return (None, 40_000) if uniform and data.wavelength[-1] - data.wavelength[0] > 2 * reach else (None,)


def _card(title, data, path, recipe, validation) -> dict:
    from importlib.metadata import version

    from .. import __version__

    versions = {"emuinfer": __version__, **{p: version(p) for p in ("jax", "equinox", "optax", "numpy")}}
    grid = {"file": Path(path).name, "hash": data.hash, "spectra": len(data), "provenance": data.provenance}
    described = {"grid": grid, "recipe": recipe, "versions": versions, "validation": validation}
    return {"title": title, **described} if title else described


def _figures(validation) -> str:
    from ..emulators.training.evaluate import format_table

    return format_table(validation)
