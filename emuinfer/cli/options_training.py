"""What `emuinfer train` and `emuinfer pretrain` share: options, and where the emulator goes."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import TrainingError
from .options import refuse_existing

Output = Annotated[
    Path, typer.Option("--output", "-o", help="Emulator to write: OUTPUT.safetensors and its card, OUTPUT.json.")
]
RunFolder = Annotated[
    Path | None, typer.Option("--directory", help="Folder of the run: checkpoint and metrics; OUTPUT.run by default.")
]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on from the folder's checkpoint, or refuse if there is one.")
]
Title = Annotated[str, typer.Option(help="Title of the card.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing emulator.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

# Schedule and optimiser
Steps = Annotated[int, typer.Option(min=1, help="Optimiser steps.")]
Warmup = Annotated[int, typer.Option(min=0, help="Steps over which the learning rate rises.")]
Decay = Annotated[float, typer.Option(min=0, max=1, help="Last fraction of the steps, over which it falls to zero.")]
Rate = Annotated[float, typer.Option(help="Highest learning rate.")]
ScaledRate = Annotated[
    float,
    typer.Option(help="Highest learning rate, of a transformer of width 32 with 2 blocks; scaled to others (muP)."),
]
WeightDecay = Annotated[float, typer.Option(help="Decoupled weight decay of AdamW.")]
Optimiser = Annotated[str, typer.Option(help="adamw, or muon for the matrices of the blocks.")]
Precision = Annotated[str, typer.Option(help="Of the blocks' products: float32, or bfloat16 on an accelerator.")]
Devices = Annotated[int, typer.Option(min=1, help="Spread each step's spectra over this many devices.")]
CheckpointEvery = Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")]
ValidateEvery = Annotated[int, typer.Option(min=1, help="Steps between validations.")]
Every = Annotated[int, typer.Option(min=1, help="Steps between checkpoints, and between validations.")]
Patience = Annotated[
    int,
    typer.Option(
        min=0,
        help="Stop after this many validations without gain and keep the best weights; 0: never. "
        "A tenth of the training spectra is set apart for it.",
    ),
]

# Spectra
GridFile = Annotated[Path, typer.Argument(help="Grid file of `emuinfer grid make` or `emuinfer grid import` (.h5).")]
Spectra = Annotated[int, typer.Option(min=1, help="Spectra per step.")]
Pixels = Annotated[int, typer.Option(min=1, help="Pixels per spectrum and step.")]
HeldOut = Annotated[
    float, typer.Option(help="Fraction of the spectra kept for the errors of the card; the same for every seed.")
]
ReplayFile = Annotated[
    Path | None,
    typer.Option("--replay", help="Grid of an earlier stage, mixed in so that what was learned from it stays."),
]
ReplayShare = Annotated[float, typer.Option(help="Share of each step's spectra that are of that grid.")]
ValidationFile = Annotated[
    Path | None, typer.Option(help="Grid whose first 64 spectra measure the error, natively sampled (.h5).")
]
Ring = Annotated[int, typer.Option(min=1, help="Spectra kept on the device, a multiple of --chunk.")]
Chunk = Annotated[int, typer.Option(min=1, help="Spectra made at once.")]
Renew = Annotated[int, typer.Option(min=1, help="Steps between chunks; raise it where the synthesis is slow.")]
TrainSeed = Annotated[int, typer.Option("--seed", help="Seed of the first weights and of the batches.")]

# The transformer
Width = Annotated[int, typer.Option(min=1, help="Width of the transformer (without --init).")]
Blocks = Annotated[int, typer.Option(min=1, help="Blocks (without --init).")]
Heads = Annotated[int, typer.Option(min=1, help="Attention heads (without --init).")]
Tokens = Annotated[int, typer.Option(min=1, help="Label tokens (without --init).")]
LabelHidden = Annotated[int, typer.Option(min=1, help="Width of the label networks (without --init).")]
Frequencies = Annotated[int, typer.Option(min=1, help="Sinusoids of the wavelength encoding (without --init).")]
Rank = Annotated[
    int, typer.Option(min=0, help="Rank of the bilinear part, at most the training spectra less one (without --init).")
]
Init = Annotated[str | None, typer.Option("--init", help="Go on with this transformer (name or card).")]
InitOrTeacher = Annotated[
    str | None,
    typer.Option(
        "--init",
        help="Fine-tune this transformer, or start a new one from what these Gaussian processes have learned (name or card).",
    ),
]


def stem_of(output: Path, overwrite: bool) -> Path:
    """The files' common path, without an ending. Raises `EmuinferError` if the emulator exists and may not be replaced."""
    stem = output.with_suffix("") if output.suffix in (".json", ".safetensors") else output
    refuse_existing(stem.with_name(stem.name + ".json"), overwrite)
    return stem


def save(emulator, stem: Path, card: dict) -> None:
    """Save the emulator and say where; where the disk is full, leave nothing half-written and say what is safe."""
    from ..emulators import save_emulator

    remedy = (
        "Free some space or allow writing there, and start the same command again: it goes on from its last checkpoint."
    )
    written = save_emulator(emulator, stem, card, error=TrainingError, remedy=remedy)
    print(f"Written to {written} and {stem.name}.safetensors beside it.")
