"""`emuinfer grid`: make, import and inspect grids of synthetic spectra."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from .cli_common import Medium, refuse_existing, telling

grid = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, import and inspect grids of synthetic spectra (HDF5).",
)


class Domain(enum.StrEnum):
    """Label domains that an imported grid may be given."""

    spanned = "spanned"
    optical_fgk = "optical-fgk"


@grid.command()
def make(
    output: Annotated[Path, typer.Option("--output", "-o", help="Grid file to write, extend or resume (.h5).")],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of spectra in the finished grid.")],
    seed: Annotated[int, typer.Option(help="Seed of the Sobol design.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; as many as cores by default, 0 for this process (GPU).")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Spectra per call of the code and per saved chunk.")] = 8,
    backend: Annotated[str, typer.Option(help="Code that computes the spectra.")] = "lte",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the code, as JSON or text; may be repeated."),
    ] = None,
):
    """Compute a grid that fills the label domain. Started again after an interruption, it goes on where it stopped.

    \b
    Examples:
      emuinfer grid make --n 2000 --output lte.h5
      emuinfer grid make --n 4000 --output lte.h5          (extends it)
    """
    from .grids.generate import _option, format_report, generate_grid

    options = dict(_option(text) for text in option or ())
    with telling("Start the same command again to go on; what was computed is kept."):
        report = generate_grid(output, (backend, options), n, seed=seed, workers=workers, batch=batch)
    print(format_report(report))


@grid.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="An .npz file with wavelength, flux, labels, label_names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Grid file to write (.h5).")],
    medium: Annotated[Medium, typer.Option(help="Medium of the wavelengths.")],
    domain: Annotated[
        Domain, typer.Option(help="Label domain: the box the labels span, or a named one.")
    ] = Domain.spanned,
    source: Annotated[str, typer.Option(help="What made the spectra; kept in the grid's provenance.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing grid file.")] = False,
):
    """Turn arrays that another code left in an .npz file into a grid.

    \b
    Example:
      emuinfer grid import spectra.npz --medium air --output spectra.h5
    """
    from .grids import import_npz
    from .labels import OPTICAL_FGK

    refuse_existing(output, overwrite)
    space = OPTICAL_FGK if domain is Domain.optical_fgk else None
    imported = import_npz(file, space, medium.value, {"source": source} if source else None)
    output.parent.mkdir(parents=True, exist_ok=True)
    imported.save(output)
    print(f"{output}: {imported!r}")


@grid.command()
def info(
    file: Annotated[Path, typer.Argument(help="Grid file (.h5).")],
    check: Annotated[
        bool, typer.Option("--check", help="Read all spectra and compare them with the content hash.")
    ] = False,
):
    """Say what is in a grid file: size, wavelengths, labels, failures, provenance.

    \b
    Example:
      emuinfer grid info lte.h5 --check
    """
    from .grids import Grid, describe

    print(describe(Grid.load(file, lazy=not check)))
    if check:
        print("\nThe contents match the content hash.")
