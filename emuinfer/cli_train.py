"""`emuinfer train`: train a transformer emulator on a grid, or fine-tune one."""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .cli_common import refuse_existing, telling, use_compilation_cache
from .errors import EmuinferError, TrainingError


def train(
    grid: Annotated[Path, typer.Argument(help="Grid file of `emuinfer grid make` or `emuinfer grid import` (.h5).")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Emulator to write: OUTPUT.safetensors and its card, OUTPUT.json.")
    ],
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
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    warmup: Annotated[int, typer.Option(min=0, help="Steps over which the learning rate rises.")] = 500,
    decay: Annotated[
        float, typer.Option(min=0, max=1, help="Last fraction of the steps, over which it falls to zero.")
    ] = 0.4,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-3,
    weight_decay: Annotated[float, typer.Option(help="Decoupled weight decay of AdamW.")] = 1e-3,
    spectra: Annotated[int, typer.Option(min=1, help="Spectra per step.")] = 16,
    pixels: Annotated[int, typer.Option(min=1, help="Pixels per spectrum and step.")] = 1024,
    held_out: Annotated[float, typer.Option(help="Fraction of the spectra kept for validation.")] = 0.1,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
    width: Annotated[int, typer.Option(min=1, help="Width of the transformer (without --init).")] = 64,
    depth: Annotated[int, typer.Option(min=1, help="Blocks (without --init).")] = 2,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads (without --init).")] = 4,
    tokens: Annotated[int, typer.Option(min=1, help="Label tokens (without --init).")] = 16,
    label_hidden: Annotated[int, typer.Option(min=1, help="Width of the label networks (without --init).")] = 256,
    frequencies: Annotated[
        int, typer.Option(min=1, help="Sinusoids of the wavelength encoding (without --init).")
    ] = 64,
    rank: Annotated[int, typer.Option(min=0, help="Rank of the bilinear part, 0 for none (without --init).")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the first weights, the batches and the split.")] = 0,
    title: Annotated[str, typer.Option(help="Title of the card.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing emulator.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
):
    """Train an emulator on a grid. Started again after an interruption, it goes on from the last checkpoint.

    Its card records the grid's hash, the recipe, versions, and errors on the held-out spectra, natively sampled and at
    R = 40,000.

    \b
    Examples:
      emuinfer train lte.h5 --steps 20000 --output lte-emulator
      emuinfer train realistic.h5 --init lte-emulator --learning-rate 1e-3 --steps 5000 --output tuned
    """
    stem = output.with_suffix("") if output.suffix in (".json", ".safetensors") else output
    card_file = stem.with_name(stem.name + ".json")
    refuse_existing(card_file, overwrite)
    if not 0 < held_out <= 0.5:
        raise EmuinferError(f"--held-out must be above 0 and at most 0.5; got {held_out:g}.")
    use_compilation_cache()
    from .grids import Grid
    from .training import TrainConfig, error_table
    from .training import train as run

    data = Grid.load(grid)
    sizes = dict(width=width, depth=depth, heads=heads, tokens=tokens, label_hidden=label_hidden,
                 frequencies=frequencies, rank=rank)  # fmt: skip
    emulator = _start(data, init, sizes, seed)
    labels = emulator.label_space.to_array(data.label_space.to_dict(data.labels))
    kept, test = data.split(held_out, seed)
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
    )
    directory = directory or stem.with_name(stem.name + ".run")
    with telling(f"Start the same command again to go on from the last checkpoint in {directory}."):
        trained = run(
            emulator,
            labels[kept],
            data.flux[kept],
            data.wavelength,
            config=config,
            held_out=(labels[test], data.flux[test]),
            directory=directory,
            resume=resume,
            progress=not quiet,
        )
    from .emulators import save_emulator

    validation = error_table(trained, labels[test], data.flux[test], data.wavelength, resolutions=_resolutions(data))
    recipe = {**dataclasses.asdict(config), "held_out": held_out, "init": _parent(init)}
    save_emulator(trained, stem, _card(title, data, grid, recipe, validation))
    print(_figures(validation))
    print(f"Written to {card_file} and {stem.name}.safetensors beside it.")


def _start(data, init, sizes, seed):
    """The emulator before training: new, with tables on the grid's pixels, or loaded."""
    import jax

    from .emulators import TransformerConfig, TransformerPayne, load_emulator

    wavelength = data.wavelength
    if init is None:
        # Periods below about two pixels would leave the emulator undetermined between them.
        shortest = 2.4 * float(np.diff(np.log10(wavelength)).max())
        nodes = len(wavelength)
        config = TransformerConfig(shortest_period=shortest, table_nodes=nodes, **sizes)
        if config.width % config.heads:
            raise EmuinferError(f"--width must be a multiple of --heads; got {config.width} and {config.heads}.")
        span = (wavelength[0], wavelength[-1])
        return TransformerPayne(data.label_space, span, data.medium, config, key=jax.random.key(seed))
    emulator = load_emulator(init)
    if not isinstance(emulator, TransformerPayne):
        raise TrainingError(f"'{init}' is a '{emulator.kind}' emulator; only transformers can be trained further.")
    if emulator.medium != data.medium:
        raise TrainingError(f"'{init}' is for wavelengths in {emulator.medium}, the grid's are in {data.medium}.")
    return emulator


def _resolutions(data):
    step = np.diff(data.wavelength)
    reach = 10 * data.wavelength[-1] / 40_000 / 2.355  # the line spread function, to 5 sigma on both sides
    uniform = np.ptp(step) < 2e-3 * step.mean()
    return (None, 40_000) if uniform and data.wavelength[-1] - data.wavelength[0] > 2 * reach else (None,)


def _parent(init):
    if init is None:
        return None
    from .emulators import load_card

    return {"name": str(init), "hash": load_card(init)["hash"]}


def _card(title, data, path, recipe, validation) -> dict:
    from importlib.metadata import version

    from . import __version__

    versions = {"emuinfer": __version__, **{p: version(p) for p in ("jax", "equinox", "optax", "numpy")}}
    grid = {"file": Path(path).name, "hash": data.hash, "spectra": len(data), "provenance": data.provenance}
    described = {"grid": grid, "recipe": recipe, "versions": versions, "validation": validation}
    return {"title": title, **described} if title else described


def _figures(validation) -> str:
    from .training.evaluate import format_table

    return format_table(validation)
