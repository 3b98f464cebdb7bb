"""`emuinfer pretrain`: train a transformer on spectra of simple physics that are made as it goes."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..files import use_compilation_cache
from .options import WindowName, refuse_existing, telling
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


def pretrain(
    output: Output,
    steps: Steps = 100_000,
    warmup: Warmup = 500,
    learning_rate: Annotated[
        float,
        typer.Option(help="Highest learning rate, of a transformer of width 32 with 2 blocks; scaled to others (muP)."),
    ] = 8e-3,
    spectra: Spectra = 32,
    pixels: Pixels = 1024,
    ring: Annotated[int, typer.Option(min=1, help="Spectra kept on the device, a multiple of --chunk.")] = 2048,
    chunk: Annotated[int, typer.Option(min=1, help="Spectra made at once.")] = 16,
    renew: Annotated[int, typer.Option(min=1, help="Steps between chunks; raise it where the synthesis is slow.")] = 4,
    width: Width = 64,
    depth: Blocks = 2,
    heads: Heads = 4,
    tokens: Tokens = 16,
    optimiser: Optimiser = "muon",
    precision: Precision = "float32",
    devices: Devices = 1,
    every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints, and between validations.")] = 500,
    validation: Annotated[
        Path | None, typer.Option(help="Grid whose first 64 spectra measure the error, natively sampled (.h5).")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Go on with this transformer (name or card).")] = None,
    window: WindowName = None,
    seed: Annotated[int, typer.Option(help="Seed of the first weights and of the spectra.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
):
    """Train an emulator on endless LTE spectra, made on the device while it learns: the first stage, for a GPU.

    Started again after an interruption, it goes on from the last checkpoint, with the spectra it would have seen. Fine-tune the
    result with `emuinfer train GRID --init OUTPUT`.

    \b
    Examples:
      emuinfer pretrain --precision bfloat16 --width 128 --depth 4 --output lte-emulator
      emuinfer pretrain --steps 2000 --ring 64 --renew 40 --width 32 --output small        (on a laptop)
    """
    stem = stem_of(output)
    refuse_existing(stem.with_name(stem.name + ".json"), overwrite)
    use_compilation_cache()
    import dataclasses

    from ..emulators.training import TrainConfig, labels_for
    from ..emulators.training import pretrain as run
    from ..emulators.training.data import require_pixels
    from ..grids import Grid
    from ..labels.windows import window as window_by_name
    from ..synthesis import LTESynthesizer

    config = TrainConfig(
        steps=steps, warmup=warmup, learning_rate=learning_rate, spectra=spectra, pixels=pixels, optimiser=optimiser,
        base_width=32, base_depth=2, precision=precision, devices=devices, seed=seed, validate_every=every, checkpoint_every=every,
    )  # fmt: skip
    entry = window_by_name(window)
    synthesizer, wavelength = LTESynthesizer(window=entry), entry.native_wavelength
    if init is None:
        sizes = {"width": width, "depth": depth, "heads": heads, "tokens": tokens, "rank": 0}
        emulator = new_transformer(synthesizer.labels, wavelength, entry.medium, sizes, seed)
    else:
        emulator = known_transformer(init)
    held_out = None
    if validation is not None:
        grid = Grid.load(validation, lazy=True)
        require_pixels(grid.wavelength, str(validation), wavelength, "the synthesis")
        held_out = labels_for(emulator, grid, "the emulator", str(validation))[:64], np.asarray(grid.flux[:64])
    directory = stem.with_name(stem.name + ".run")
    with telling(f"Start the same command again to go on from the last checkpoint in {directory}."):
        trained = run(
            emulator, synthesizer, wavelength, config=config, ring=ring, renew=renew, chunk=chunk, held_out=held_out,
            directory=directory, progress=not quiet,
        )  # fmt: skip
    recipe = {
        **dataclasses.asdict(config),
        "ring": ring,
        "renew": renew,
        "chunk": chunk,
        "init": described_parent(init),
    }
    save_or_explain(
        trained, stem, {"title": "Transformer of LTE spectra", "recipe": recipe, "synthesis": "LTE, emuinfer"}
    )
    print(f"Written to {stem.name}.json and {stem.name}.safetensors beside it.")
