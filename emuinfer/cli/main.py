"""The command line, `emuinfer`: fit, fit-many, ask, emulators, grid, data, network, pretrain, train, crb."""

import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import EmuinferError
from .ask import ask
from .coverage import coverage
from .crb import crb
from .data import data
from .emulators import emulators
from .fit import fit
from .fit_many import fit_many
from .grid import grid
from .network import network
from .options import ending_in_order, print_error, print_what_can_be
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
app.command()(emulators)
app.command()(ask)
app.add_typer(grid, name="grid")
app.add_typer(data, name="data")
app.add_typer(network, name="network")
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


def main(arguments=None) -> None:
    """Run the command line and exit: status 0, 1 on an error, 2 on a wrong call, 130 when interrupted, 143 on SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    print_what_can_be()
    try:
        with ending_in_order():
            app(args=arguments, prog_name="emuinfer")
    except (EmuinferError, OSError) as error:
        if "--debug" in arguments:
            raise
        print_error(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
