"""`emuinfer pretrain`: train a transformer on spectra of simple physics that are made as it goes."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .cli_common import refuse_existing, telling, use_compilation_cache
from .errors import TrainingError


def pretrain(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Emulator to write: OUTPUT.safetensors and its card, OUTPUT.json.")
    ],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 100_000,
    warmup: Annotated[int, typer.Option(min=0, help="Steps over which the learning rate rises.")] = 500,
    learning_rate: Annotated[
        float, typer.Option(help="Highest learning rate, of a transformer of width 32 with 2 blocks; scaled to others (muP).")
    ] = 8e-3,
    spectra: Annotated[int, typer.Option(min=1, help="Spectra per step.")] = 32,
    pixels: Annotated[int, typer.Option(min=1, help="Pixels per spectrum and step.")] = 1024,
    ring: Annotated[int, typer.Option(min=1, help="Spectra kept on the device, a multiple of --chunk.")] = 2048,
    chunk: Annotated[int, typer.Option(min=1, help="Spectra made at once.")] = 16,
    renew: Annotated[int, typer.Option(min=1, help="Steps between chunks; raise it where the synthesis is slow.")] = 4,
    width: Annotated[int, typer.Option(min=1, help="Width of the transformer.")] = 64,
    depth: Annotated[int, typer.Option(min=1, help="Blocks.")] = 2,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 4,
    tokens: Annotated[int, typer.Option(min=1, help="Label tokens.")] = 16,
    optimiser: Annotated[str, typer.Option(help="muon for the matrices of the blocks, or adamw for all.")] = "muon",
    precision: Annotated[str, typer.Option(help="Of the blocks' products: float32, or bfloat16 on an accelerator.")] = "float32",
    devices: Annotated[int, typer.Option(min=1, help="Spread each step's spectra over this many devices.")] = 1,
    every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints, and between validations.")] = 500,
    validation: Annotated[
        Path | None, typer.Option(help="Grid whose first 64 spectra measure the error, natively sampled (.h5).")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Go on with this transformer (name or card).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first weights and of the spectra.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing emulator.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
):
    """Train an emulator on endless LTE spectra, made on the device while it learns: the first stage, for a GPU.

    Started again after an interruption, it goes on from the last checkpoint, with the spectra it would have seen. Fine-tune the
    result with `emuinfer train GRID --init OUTPUT`.

    \b
    Examples:
      emuinfer pretrain --precision bfloat16 --width 128 --depth 4 --output lte-emulator
      emuinfer pretrain --steps 2000 --ring 64 --renew 40 --width 32 --output small        (on a laptop)
    """
    stem = output.with_suffix("") if output.suffix in (".json", ".safetensors") else output
    refuse_existing(stem.with_name(stem.name + ".json"), overwrite)
    use_compilation_cache()
    import dataclasses

    import jax

    from .cli_train import save_or_explain, transformer
    from .emulators import TransformerConfig, TransformerPayne
    from .grids import Grid
    from .synthesis import LTESynthesizer
    from .synthesis.synthesizer import NATIVE_WAVELENGTH
    from .training import TrainConfig, labels_for
    from .training import pretrain as run

    config = TrainConfig(
        steps=steps, warmup=warmup, learning_rate=learning_rate, spectra=spectra, pixels=pixels, optimiser=optimiser,
        base_width=32, base_depth=2, precision=precision, devices=devices, seed=seed, validate_every=every, checkpoint_every=every,
    )  # fmt: skip
    synthesizer, wavelength = LTESynthesizer(), NATIVE_WAVELENGTH
    if init is not None:
        emulator = transformer(init)
    else:
        if width % heads:
            raise TrainingError(f"--width must be a multiple of --heads; got {width} and {heads}.")
        span = (float(wavelength[0]), float(wavelength[-1]))
        shortest, longest = 2.4 * float(np.diff(np.log10(wavelength)).max()), 2.0 * float(np.log10(span[1] / span[0]))
        sizes = TransformerConfig(
            width=width, depth=depth, heads=heads, tokens=tokens, rank=0, table_nodes=len(wavelength), shortest_period=shortest,
            longest_period=longest,
        )  # fmt: skip
        emulator = TransformerPayne(synthesizer.labels, span, "air", sizes, key=jax.random.key(seed))
    held_out = None
    if validation is not None:
        grid = Grid.load(validation, lazy=True)
        if grid.wavelength.shape != wavelength.shape or np.abs(grid.wavelength - wavelength).max() > 1e-3:
            raise TrainingError(
                f"{validation} must have the {len(wavelength)} pixels of the synthesis, {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å "
                f"in steps of 0.02 Å; it has {len(grid.wavelength)}, {grid.wavelength[0]:.2f} to {grid.wavelength[-1]:.2f} Å."
            )
        held_out = labels_for(emulator, grid, "the emulator", str(validation))[:64], np.asarray(grid.flux[:64])
    directory = stem.with_name(stem.name + ".run")
    with telling(f"Start the same command again to go on from the last checkpoint in {directory}."):
        trained = run(
            emulator, synthesizer, wavelength, config=config, ring=ring, renew=renew, chunk=chunk, held_out=held_out,
            directory=directory, progress=not quiet,
        )  # fmt: skip
    recipe = {**dataclasses.asdict(config), "ring": ring, "renew": renew, "chunk": chunk, "init": init}
    save_or_explain(trained, stem, {"title": "Transformer of LTE spectra", "recipe": recipe, "synthesis": "LTE, emuinfer"})
    print(f"Written to {stem.name}.json and {stem.name}.safetensors beside it.")
