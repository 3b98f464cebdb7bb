"""The command line, `emuinfer`: fit, fit-many, emulators, grid, pretrain, train, crb."""

import json
import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import EmuinferError
from .coverage import coverage
from .crb import crb
from .fit import fit
from .fit_many import fit_many
from .grid import grid
from .options import console, print_error
from .pretrain import pretrain
from .train import train

app = typer.Typer(
    name="emuinfer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(fit)
app.command("fit-many")(fit_many)
app.add_typer(grid, name="grid")
app.command()(pretrain)
app.command()(train)
app.command()(crb)
app.command()(coverage)
app.command("calibrate", hidden=True)(coverage)  # its old name


def _version(wanted: bool) -> None:
    if wanted:
        print(f"emuinfer {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
):
    """Bayesian inference of stellar spectra with neural emulators.

    Start with:  emuinfer fit --example hd41248
    """
    ctx.obj = debug


@app.command()
def emulators(
    name: Annotated[
        str | None, typer.Argument(help="Name of a shipped emulator, or path of a card; all are listed without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole card as JSON.")] = False,
):
    """List the shipped emulators, or show the card of one.

    \b
    Examples:
      emuinfer emulators
      emuinfer emulators optical-fgk
    """
    from ..emulators import list_emulators, load_card

    if name is None:
        for known in list_emulators():
            card = load_card(known)
            print(
                f"{known:<20} {_window(card)}, {len(card['labels']['names'])} labels  {card.get('title', '')}".rstrip()
            )
        if not list_emulators():
            print(
                "No emulators ship with this installation. Train one with `emuinfer train`, or give the path of a card."
            )
        return
    card = load_card(name)
    if as_json:
        print(json.dumps(card, indent=1))
        return
    _show_card(card)


def _window(card):
    lo, hi = card["wavelength_range"]
    return f"{lo:g} to {hi:g} Å ({card['medium']})"


def _show_card(card):
    from rich.table import Table

    from ..labels.space import LabelSpace

    space = LabelSpace.from_json(card["labels"])
    out = console()
    out.print(f"{card['title']}\n" if "title" in card else "", end="")
    out.print(f"kind          {card['kind']}, {card['parameters']:,} parameters")
    out.print(f"wavelengths   {_window(card)}")
    out.print(f"hash          {card['hash']}")
    table = Table("label", "unit", "lowest", "highest", box=None, padding=(0, 2, 0, 0))
    for name, unit, lo, hi in zip(space.names, space.units, space.lower, space.upper):
        table.add_row(name, unit, f"{lo:g}", f"{hi:g}")
    out.print(table)
    out.print(f"constraints   {space.describe_constraints()}")
    shown = {"title", "kind", "parameters", "wavelength_range", "wavelength_unit", "medium", "hash", "labels"}
    _show_rest(out, {k: v for k, v in card.items() if k not in shown}, 0)


def _show_rest(out, value, depth):
    """Nested mappings as indented lines."""
    for key, part in value.items():
        if isinstance(part, dict):
            out.print(f"{'  ' * depth}{key}")
            _show_rest(out, part, depth + 1)
        else:
            text = f"{part:.4g}" if isinstance(part, float) else part if isinstance(part, str) else json.dumps(part)
            out.print(f"{'  ' * depth}{key}: {text}")


def main(arguments=None) -> None:
    """Run the command line and exit: status 0, 1 on an error, 2 on a wrong call, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(args=arguments, prog_name="emuinfer")
    except (EmuinferError, OSError) as error:
        if "--debug" in arguments:
            raise
        print_error(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
