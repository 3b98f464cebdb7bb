"""`emuinfer crb`: what an instrument could measure at best."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import EmuinferError
from ..files import use_compilation_cache, write_table
from .options import (
    DEFAULT_EMULATOR,
    Broadening,
    EmulatorName,
    Quiet,
    assignments,
    console,
    refuse_existing,
    result_table,
)


class SnrPer(enum.StrEnum):
    """What a signal-to-noise ratio refers to, as choices of an option."""

    pixel = "pixel"
    resolution_element = "resolution_element"
    angstrom = "angstrom"


RESOLUTION, PIXELS_PER_FWHM = 40_000.0, 3.0

Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label", "-l", metavar="NAME=NUMBER", help="A label of the star; may be repeated. The others are the Sun's."
    ),
]
Star = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The summary.ecsv or posterior.nc of a fit: labels, velocity and broadening that --label does not give.",
    ),
]
InstrumentName = Annotated[
    str | None,
    typer.Option("--instrument", "-i", metavar="NAME", help="A shipped instrument; --instruments lists them."),
]
Instruments = Annotated[bool, typer.Option("--instruments", help="List the shipped instruments and stop.")]
Range = Annotated[
    tuple[float, float] | None,
    typer.Option("--range", metavar="A B", help="Wavelengths in Å, in the emulator's medium; all it has by default."),
]
Resolution = Annotated[
    float | None, typer.Option(help=f"Resolving power, wavelength / FWHM. [default: {RESOLUTION:g}]")
]
PixelsPerFwhm = Annotated[
    float | None, typer.Option(help=f"Pixels per FWHM of the line spread function. [default: {PIXELS_PER_FWHM:g}]")
]
Snr = Annotated[float, typer.Option(help="Signal-to-noise ratio at the continuum.")]
Per = Annotated[SnrPer, typer.Option(help="What the S/N refers to.")]
Exposures = Annotated[float, typer.Option(help="Equal exposures added up.")]
Mask = Annotated[
    list[str] | None, typer.Option(metavar="A:B", help="Wavelengths in Å that do not count; may be repeated.")
]
CorrelationPixels = Annotated[
    float,
    typer.Option("--correlation", help="Pixels over which the correlation of the noise falls to 1/e; 0 for none."),
]
ContinuumTerms = Annotated[
    int | None,
    typer.Option(min=0, help="Free Chebyshev terms of the continuum; 0 where it is known. One per 25 Å by default."),
]
FreeBroadening = Annotated[
    Broadening | None,
    typer.Option(
        help="Broadening that is free: Gaussian (vbroad), rotational (vsini), both or none. [default: that of --star, or "
        "else vbroad]"
    ),
]
Rv = Annotated[
    float | None, typer.Option(help="Radial velocity of the star, km/s. [default: that of --star, or else 0]")
]
Vbroad = Annotated[
    float | None,
    typer.Option(
        help="Gaussian broadening of the star, km/s (standard deviation). [default: that of --star, or else 3]"
    ),
]
Vsini = Annotated[
    float | None,
    typer.Option(help="Projected rotation velocity of the star, km/s. [default: that of --star, or else 3]"),
]
Fix = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=NUMBER", help="A label, rv, vbroad or vsini that is known; may be repeated."),
]
Prior = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SD",
        help="What is known of one of them, as a standard deviation about its value; may be repeated.",
    ),
]
Reduced = Annotated[bool, typer.Option("--reduced", help="Derivatives of the fast copy of the emulator.")]
ModelError = Annotated[
    bool,
    typer.Option(
        "--model-error/--photon-noise", help="With the errors of lines and emulator that a fit assumes, or without."
    ),
]
EmulatorError = Annotated[
    bool,
    typer.Option("--emulator-error/--no-emulator-error", help="With what the emulator's own error does, or without."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="ECSV file to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Sampling = Annotated[float | None, typer.Option("--sampling", hidden=True, help="The old name of --pixels-per-fwhm.")]


def crb(
    label: Label = None,
    star: Star = None,
    emulator: EmulatorName = DEFAULT_EMULATOR,
    instrument: InstrumentName = None,
    instruments: Instruments = False,
    wavelength_range: Range = None,
    resolution: Resolution = None,
    pixels_per_fwhm: PixelsPerFwhm = None,
    snr: Snr = 100.0,
    snr_per: Per = SnrPer.pixel,
    exposures: Exposures = 1.0,
    mask: Mask = None,
    correlation_pixels: CorrelationPixels = 0.0,
    continuum_terms: ContinuumTerms = None,
    broadening: FreeBroadening = None,
    rv: Rv = None,
    vbroad: Vbroad = None,
    vsini: Vsini = None,
    fix: Fix = None,
    prior: Prior = None,
    reduced: Reduced = False,
    model_error: ModelError = False,
    emulator_error: EmulatorError = True,
    output: Output = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    sampling: Sampling = None,
):
    """Compute Cramér–Rao bounds: the smallest errors that an instrument can yield for a star.

    These are the smallest standard deviations that an unbiased estimate from one spectrum can have.
    Marginal bounds hold with all other parameters unknown (radial velocity, broadening and continuum included),
    conditional ones with all others known. For a shipped emulator, 'emulator' is what its own error does to the labels
    whatever the S/N, and 'limited' both together.

    \b
    Examples:
      emuinfer crb --resolution 20000 --snr 50
      emuinfer crb -i WEAVE-HR-green --snr 50 --snr-per angstrom --prior teff=80 --mask 5160:5166
      emuinfer crb -i HARPS --snr 30 --star fit-hd41248/summary.ecsv
      emuinfer crb --label teff=4600 --label logg=1.6 --label fe_h=-2.5 --range 5150 5200 --output giant.ecsv
    """
    if instruments:
        return _list_instruments()
    if output is not None:
        refuse_existing(output, overwrite)
    own = (wavelength_range, resolution, pixels_per_fwhm if sampling is None else sampling)
    given, fixed, widths = assignments(label, "--label"), assignments(fix, "--fix"), assignments(prior, "--prior")
    options: dict = {"count": exposures, "correlation_pixels": correlation_pixels, "continuum_terms": continuum_terms}
    options |= {"rv": rv, "vbroad": vbroad, "vsini": vsini, "broadening": broadening and broadening.value}
    options |= {"mask": _pairs(mask), "reduced": reduced, "model_error": model_error, "progress": not quiet}
    use_compilation_cache()
    from ..emulators import load_emulator
    from ..forecast import forecast_bounds
    from ..forecast.star import merged_star

    full = load_emulator(emulator)
    labels = {n: v for n, v in fixed.items() if n in full.label_space.names}
    bounds = forecast_bounds(
        full,
        merged_star(star, given, labels),
        _instrument(full, instrument, *own),
        snr,
        snr_per=snr_per.value,
        priors=fixed,
        prior_sd=widths,
        emulator_error="shipped" if emulator_error else None,
        **options,
    )
    table = bounds.table()
    table.meta = {"emulator": emulator, **table.meta}
    if output is not None:
        write_table(table, output)
    _print(table)
    if output is not None:
        print(f"Written to {output}")


def _instrument(emulator, name, wavelength_range, resolution, pixels_per_fwhm):
    """A shipped instrument, or one of one arm as the options say."""
    from ..forecast import Instrument, load_instrument

    own = (wavelength_range, resolution, pixels_per_fwhm)
    if name is None:
        lo, hi = wavelength_range or emulator.wavelength_range
        emulator.check_wavelength((lo, hi))
        resolution = RESOLUTION if resolution is None else resolution
        pixels_per_fwhm = PIXELS_PER_FWHM if pixels_per_fwhm is None else pixels_per_fwhm
        return Instrument.single(lo, hi, resolution, pixels_per_fwhm, medium=emulator.medium)
    if any(v is not None for v in own):
        raise EmuinferError("--instrument brings its own range, resolving power and sampling: give either it or those.")
    return load_instrument(name)


def _pairs(texts):
    """`["5160:5166", …]` as pairs of numbers."""
    pairs = []
    for text in texts or ():
        try:
            lo, hi = (float(x) for x in text.split(":"))
        except ValueError:
            lo, hi = 1.0, 0.0
        if not lo < hi:
            raise EmuinferError(
                f"--mask takes two rising wavelengths in Å, for example --mask 5160:5166; got '{text}'."
            )
        pairs.append((lo, hi))
    return tuple(pairs)


def _list_instruments():
    from ..forecast.instruments import instrument_table

    table = instrument_table()
    shown = result_table(("instrument", "medium", "from [Å]", "to [Å]", "R", "pixels/FWHM"), "Shipped instruments")
    for row in table:
        shown.add_row(
            row["name"], row["medium"], *(f"{row[k]:g}" for k in ("start", "end", "resolution", "pixels_per_fwhm"))
        )
    console().print(shown)
    print("Sources are in emuinfer/data/instruments.ecsv.")


def _print(table):
    meta = table.meta
    (lo, hi), of = meta["wavelength_range"], "" if meta["instrument"] == "custom" else f"{meta['instrument']}, "
    resolving = meta["resolution"] if isinstance(meta["resolution"], list) else [meta["resolution"]]
    title = (
        f"Cramér–Rao bounds: {of}{lo:.1f} to {hi:.1f} Å ({meta['medium']}), R = {', '.join(f'{r:g}' for r in resolving)}, "
        f"{meta['pixels']} pixels, S/N {meta['snr']:g} per {meta['snr_per'].replace('_', ' ')}"
    )
    shown = result_table(table.colnames, title)
    for row in table:
        shown.add_row(row["label"], row["unit"], *(f"{row[k]:.4g}" for k in table.colnames[2:]))
    console().print(shown)
    for note in meta["notes"]:
        print(f"Note: {note}")
