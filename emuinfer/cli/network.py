"""`emuinfer network`: train a network of stars, and say how far its error bars hold."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import NetworkError
from ..files import use_compilation_cache
from . import options_training as o
from .options import Seed, console, result_table, telling

network = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Train networks that `emuinfer ask` uses; check them."
)
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Network to write: OUTPUT.safetensors and its card, OUTPUT.json.")
]
TableFile = Annotated[
    Path | None, typer.Argument(help="Table of `emuinfer data stars-xp` (.npz); where that puts it, if not given.")
]


@network.command()
def train(
    output: Output,
    table: TableFile = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; those of the recipe if not given.")] = None,
    seed: o.TrainSeed = 0,
    directory: o.RunFolder = None,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
):
    """Train a network by the recipe of stars-xp: an hour or two on two cores. Started again after an interruption, it goes on.

    Calibration, errors and scores of outliers are measured on the validation split in the end and kept in the card.

    \b
    Examples:
      emuinfer network train -o my-stars
      emuinfer network train stars.npz -o quick --steps 2000 --seed 1
    """
    stem = o.stem_of(output, overwrite)
    use_compilation_cache()
    from ..networks import finish_network, save_network, stars_xp, train_any_to_any

    recipe = stars_xp(**{"seed": seed, **({} if steps is None else {"steps": steps})})
    train_rows, validation = _splits(table, None)
    directory = directory or stem.with_name(stem.name + ".run")
    with telling(f"Start the same command again to go on from the last checkpoint in {directory}."):
        trained = train_any_to_any(train_rows, recipe, validation=validation, directory=directory, progress=not quiet)
        say = (lambda text: None) if quiet else lambda text: console().print(text)
        trained = finish_network(trained, validation, {"title": f"stars-xp, seed {seed}"}, say=say)
        written = save_network(trained, stem)
    console().print(f"Written to {written} and {stem.name}.safetensors beside it.")


@network.command()
def coverage(
    name: Annotated[str, typer.Argument(metavar="NETWORK", help="Name of a shipped network, or path of a card.")],
    table: TableFile = None,
    batches: Annotated[int, typer.Option(min=1, help="Batches of 256 random contexts with questions.")] = 40,
    seed: Seed = 0,
):
    """How many true values lie inside the central 68 and 95 % of the answers, for random contexts of the validation stars.

    By kinds, before and after the calibration in the card, and after it by thirds of the S/N of the spectra. The calibration
    was fitted to stars of this split: the card has the figures of held-out halves.

    \b
    Examples:
      emuinfer network coverage stars-xp
    """
    use_compilation_cache()
    from ..networks import load_network
    from ..networks.calibrate import asked_with_errors
    from ..networks.finish import coverage

    found = load_network(name)
    if found.calibration is None:
        raise NetworkError(f"The card of {name} has no calibration. Finish it: emuinfer network train writes one.")
    asked, _ = asked_with_errors(found, _splits(table, found.vocabulary)[1], batches, seed)
    percent = lambda pair: "" if pair is None else " / ".join(f"{100 * share:.1f}" for share in pair)
    shown = result_table(("kinds", "n", "before", "after", "low S/N", "middle", "high"), "inside 68 / 95 %")
    for kind, figures in coverage(found, found.calibration, asked).items():
        row = (figures["before"], figures["after"], *figures["thirds"])
        shown.add_row(kind, f"{figures['n']:,}", *map(percent, row))
    console().print(shown)


def _splits(table, vocabulary):
    """The training and the validation stars as tokens."""
    from ..tokens import stars_tokens, training_table
    from ..tokens.stars import TRAIN, VALIDATION

    stars = stars_tokens(training_table(table), vocabulary)
    return stars.rows(TRAIN), stars.rows(VALIDATION)
