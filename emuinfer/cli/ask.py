"""`emuinfer ask`: any kind of number of many objects from any others, by a network."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import EmuinferError
from ..files import use_compilation_cache
from .options import Quiet, Seed, console, refuse_existing, result_table, telling

NetworkName = Annotated[
    str | None, typer.Argument(metavar="NETWORK", help="Name of a shipped network, or path of a card.")
]
Table = Annotated[
    Path | None,
    typer.Argument(help="FITS table, CSV, ECSV or VOTable; or a folder or ZIP file of such, as DataLink gives them."),
]
Want = Annotated[str | None, typer.Option(help="Kinds or groups to answer for, with commas between: teff,logg,fe_h.")]
Given = Annotated[
    str | None, typer.Option(help="Kinds or groups to answer from; all that the table has, if not given.")
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Table of the answers, by its ending: .fits, .ecsv, .csv or .xml (VOTable)."),
]
Draws = Annotated[int, typer.Option(min=0, help="Joint draws for each object.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND=COLUMN[,UNIT]",
        help="Column of a kind, of 'flux' or of a magnitude where the name does not say it; COLUMN may be empty for none. May be repeated.",
    ),
]
Key = Annotated[str | None, typer.Option(help="Column that identifies the objects; source_id or another usual name.")]
Outliers = Annotated[
    bool,
    typer.Option("--outliers/--no-outliers", help="Compare each object with itself; takes as long as the answers."),
]
List = Annotated[bool, typer.Option("--list", help="List networks and, by groups, what they know.")]
Example = Annotated[bool, typer.Option("--example", help="Ask for the 300 stars that come with the package.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output, and throw away another run's parts.")]


def ask(
    network: NetworkName = None,
    table: Table = None,
    want: Want = None,
    given: Given = None,
    output: Output = Path("answers.fits"),
    draws: Draws = 0,
    column: Column = None,
    key: Key = None,
    outliers: Outliers = True,
    list_: List = False,
    example: Example = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
):
    """Answer for any kinds of numbers of the objects of a table, from whatever else the table has of each.

    Columns with the names of Gaia's archive, of 2MASS, of GaiaXPy's output (source_id, flux, flux_error) or of the kinds
    themselves are known. One row comes out for each row, in order, with mean, standard deviation and quantiles; the flags
    are explained in the header. A killed run goes on when it is started again.

    \b
    Examples:
      emuinfer ask --list
      emuinfer ask stars-xp --example --want teff,logg,fe_h
      emuinfer ask stars-xp stars.csv --want teff,logg --given colours --draws 100 -o answers.fits
    """
    if list_:
        _list(network)
        return
    if network is None or want is None or (table is None) == (not example):
        raise EmuinferError(
            "`emuinfer ask` needs a network, a table (or --example) and --want, for example: emuinfer ask stars-xp stars.fits "
            "--want teff,logg,fe_h. `emuinfer ask --list` shows what there is."
        )
    refuse_existing(output, overwrite)
    use_compilation_cache()
    from ..networks import ask_table, load_network
    from ..tokens import example_stars_path

    columns = dict(_column(text) for text in column or ())
    with telling(f"Finished parts are kept in {output}.run: run the same command again to go on."):
        asked = ask_table(
            load_network(network),
            example_stars_path() if example else table,
            _names(want),
            output,
            given=None if given is None else _names(given),
            draws=draws,
            seed=seed,
            columns=columns,
            key=key,
            outliers=outliers,
            overwrite=overwrite,
            progress=not quiet,
        )
    out = console()
    if quiet:
        for note in asked.notes:
            out.print(f"Note: {note}")
    out.print(f"{asked.rows:,} objects; written to {asked.path}")
    for name, count in asked.flags.items():
        if count:
            out.print(f"  {name:<14}{count:,}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _column(text: str):
    role, separator, column = text.partition("=")
    if not separator or not role.strip():
        raise EmuinferError(f"--column takes KIND=COLUMN or KIND=COLUMN,UNIT; got '{text}'.")
    name, comma, unit = column.strip().partition(",")
    return role.strip(), (name, unit.strip()) if comma else name or None


def _list(network) -> None:
    from ..networks import list_networks, load_network

    out = console()
    names = [network] if network else list_networks()
    if not names:
        out.print("No networks are here. EMUINFER_WEIGHTS may name a folder that holds some.")
    for name in names:
        known = load_network(name)
        out.print(
            f"{name}: {known.card.get('title') or known.vocabulary.name}, {known.card['parameters']:,} parameters"
        )
        table = result_table(("group", "kinds", "number"), None)
        for group in known.vocabulary.groups:
            kinds = [known.vocabulary[int(i)] for i in known.vocabulary.group(group)]
            shown = [f"{kind.name} [{kind.unit}]" if kind.unit else kind.name for kind in kinds]
            table.add_row(group, ", ".join(shown) if len(shown) <= 6 else f"{shown[0]} … {shown[-1]}", str(len(kinds)))
        out.print(table)
