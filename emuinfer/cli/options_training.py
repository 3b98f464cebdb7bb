"""What `emuinfer train` and `emuinfer pretrain` share: options, the transformer to train, and where it goes."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..errors import EmuinferError, TrainingError

Output = Annotated[
    Path, typer.Option("--output", "-o", help="Emulator to write: OUTPUT.safetensors and its card, OUTPUT.json.")
]
Steps = Annotated[int, typer.Option(min=1, help="Optimiser steps.")]
Warmup = Annotated[int, typer.Option(min=0, help="Steps over which the learning rate rises.")]
Spectra = Annotated[int, typer.Option(min=1, help="Spectra per step.")]
Pixels = Annotated[int, typer.Option(min=1, help="Pixels per spectrum and step.")]
Width = Annotated[int, typer.Option(min=1, help="Width of the transformer (without --init).")]
Blocks = Annotated[int, typer.Option(min=1, help="Blocks (without --init).")]
Heads = Annotated[int, typer.Option(min=1, help="Attention heads (without --init).")]
Tokens = Annotated[int, typer.Option(min=1, help="Label tokens (without --init).")]
Optimiser = Annotated[str, typer.Option(help="adamw, or muon for the matrices of the blocks.")]
Precision = Annotated[str, typer.Option(help="Of the blocks' products: float32, or bfloat16 on an accelerator.")]
Devices = Annotated[int, typer.Option(min=1, help="Spread each step's spectra over this many devices.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing emulator.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def stem_of(output: Path) -> Path:
    return output.with_suffix("") if output.suffix in (".json", ".safetensors") else output


def new_transformer(label_space, wavelength, medium, sizes: dict, seed: int):
    """A transformer with random weights and tables on the pixels `wavelength`; `sizes` are those of `TransformerConfig`."""
    import jax

    from ..emulators import TransformerConfig, TransformerPayne

    if sizes["width"] % sizes["heads"]:
        raise EmuinferError(f"--width must be a multiple of --heads; got {sizes['width']} and {sizes['heads']}.")
    # Periods below about two pixels would leave the emulator undetermined between them.
    shortest = 2.4 * float(np.diff(np.log10(wavelength)).max())
    longest = 2.0 * float(np.log10(wavelength[-1] / wavelength[0]))  # longer ones would all but be constants
    config = TransformerConfig(shortest_period=shortest, longest_period=longest, table_nodes=len(wavelength), **sizes)
    return TransformerPayne(label_space, (wavelength[0], wavelength[-1]), medium, config, key=jax.random.key(seed))


def known_transformer(name):
    """The transformer to go on with; raises `TrainingError` for an emulator of another kind."""
    from ..emulators import TransformerPayne, load_emulator

    emulator = load_emulator(name)
    if not isinstance(emulator, TransformerPayne):
        raise TrainingError(f"'{name}' is a '{emulator.kind}' emulator; only transformers can be trained further.")
    return emulator


def save_or_explain(emulator, stem, card):
    """Save an emulator; where the disk is full, leave nothing half-written and say what is safe."""
    from ..emulators import save_emulator

    remedy = (
        "Free some space or allow writing there, and start the same command again: it goes on from its last checkpoint."
    )
    save_emulator(emulator, stem, card, error=TrainingError, remedy=remedy)


def described_parent(init):
    if init is None:
        return None
    from ..emulators import load_card

    return {"name": str(init), "hash": load_card(init)["hash"]}
