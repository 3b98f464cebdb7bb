"""`emuinfer crb`: what an instrument could measure at best."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_common import (
    Broadening,
    assignments,
    console,
    refuse_existing,
    result_table,
    use_compilation_cache,
    write_table,
)


def crb(
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="NAME=NUMBER", help="A label of the star; the Sun's where not given."),
    ] = None,
    emulator: Annotated[str, typer.Option(help="Name of a shipped emulator, or path of a card.")] = "optical-fgk",
    wavelength_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range", metavar="A B", help="Wavelengths in Å, in the emulator's medium; all it has by default."
        ),
    ] = None,
    resolution: Annotated[float, typer.Option(help="Resolving power, wavelength / FWHM.")] = 40_000,
    sampling: Annotated[float, typer.Option(help="Pixels per FWHM of the line spread function.")] = 3.0,
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio per pixel at the continuum.")] = 100.0,
    broadening: Annotated[
        Broadening, typer.Option(help="Broadening that is free: Gaussian (vbroad), rotational (vsini), both or none.")
    ] = Broadening.vbroad,
    vbroad: Annotated[float, typer.Option(help="Gaussian broadening of the star, km/s (standard deviation).")] = 3.0,
    vsini: Annotated[float, typer.Option(help="Projected rotation velocity of the star, km/s.")] = 3.0,
    fix: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="A label or nuisance that is known; may be repeated."),
    ] = None,
    model_error: Annotated[
        bool,
        typer.Option("--model-error/--photon-noise", help="With the errors of lines and emulator that a fit assumes, or without."),
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="ECSV file to write.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
):
    """Compute Cramér–Rao bounds for an instrument and a star.

    These are the smallest standard deviations that an unbiased estimate from one spectrum can have.
    Marginal bounds hold with all other parameters unknown (radial velocity, broadening and continuum included),
    conditional ones with all others known.

    \b
    Examples:
      emuinfer crb --resolution 20000 --snr 50
      emuinfer crb --label teff=4600 --label logg=1.6 --label fe_h=-2.5 --range 5150 5200 --output giant.ecsv
    """
    if output is not None:
        refuse_existing(output, overwrite)
    given, fixed = assignments(label, "--label"), assignments(fix, "--fix")
    use_compilation_cache()
    from .bounds import cramer_rao, instrument_model, solar_labels
    from .emulators import emulator_hash, load_emulator

    full = load_emulator(emulator)
    space = full.label_space
    space.require_names(list(given))
    # A label that is known has its known value, whatever else was said.
    labels = {**solar_labels(space), **given, **{n: v for n, v in fixed.items() if n in space.names}}
    space.check(labels)
    kernel = {"vbroad": fixed.get("vbroad", vbroad), "vsini": fixed.get("vsini", vsini)}
    model = instrument_model(
        full,
        wavelength_range=wavelength_range or full.wavelength_range,
        resolution=resolution,
        snr=snr,
        pixels_per_fwhm=sampling,
        labels=labels,
        broadening=broadening.value,
        priors=fixed,
        progress=not quiet,
        **kernel,
    )
    used = {n: v for n, v in kernel.items() if n in model.nuisance_priors}
    table = cramer_rao(model, labels, rv=fixed.get("rv", 0.0), model_error=model_error, **used).table()
    table.meta = {
        "emulator": emulator,
        "emulator_hash": emulator_hash(full),
        "labels": {n: float(v) for n, v in labels.items()},
        "wavelength_range": [float(model.wavelength[0]), float(model.wavelength[-1])],
        "medium": full.medium,
        "resolution": resolution,
        "pixels_per_fwhm": sampling,
        "snr": snr,
        "broadening": broadening.value,
        "model_error": model_error,
        "fixed": fixed,
    }
    if output is not None:
        write_table(table, output)
    _print(table, len(model.wavelength))
    if output is not None:
        print(f"Written to {output}")


def _print(table, n_pix):
    lo, hi = table.meta["wavelength_range"]
    title = (
        f"Cramér–Rao bounds: {lo:.1f} to {hi:.1f} Å ({table.meta['medium']}), R = {table.meta['resolution']:g}, "
        f"{n_pix} pixels, S/N {table.meta['snr']:g} per pixel"
    )
    shown = result_table(table.colnames, title)
    for row in table:
        shown.add_row(row["label"], row["unit"], *(f"{row[k]:.4g}" for k in ("value", "marginal", "conditional")))
    console().print(shown)
