"""`emuinfer crb`: what an instrument could measure at best."""

import enum
from pathlib import Path
from typing import Annotated

import numpy as np
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


def crb(
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="NAME=NUMBER", help="A label of the star; the Sun's where not given."),
    ] = None,
    emulator: EmulatorName = DEFAULT_EMULATOR,
    instrument: Annotated[
        str | None, typer.Option("--instrument", "-i", help="A shipped instrument; --instruments lists them.")
    ] = None,
    instruments: Annotated[bool, typer.Option("--instruments", help="List the shipped instruments and stop.")] = False,
    wavelength_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range", metavar="A B", help="Wavelengths in Å, in the emulator's medium; all it has by default."
        ),
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Resolving power, wavelength / FWHM.", show_default="40000")
    ] = None,
    sampling: Annotated[
        float | None, typer.Option(help="Pixels per FWHM of the line spread function.", show_default="3")
    ] = None,
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio at the continuum.")] = 100.0,
    snr_per: Annotated[SnrPer, typer.Option(help="What the S/N refers to.")] = SnrPer.pixel,
    exposures: Annotated[float, typer.Option(help="Equal exposures added up.")] = 1.0,
    mask: Annotated[
        list[str] | None, typer.Option(metavar="A:B", help="Wavelengths in Å that do not count; may be repeated.")
    ] = None,
    correlation: Annotated[
        float, typer.Option(help="Pixels over which the correlation of the noise falls to 1/e; 0 for none.")
    ] = 0.0,
    broadening: Annotated[
        Broadening, typer.Option(help="Broadening that is free: Gaussian (vbroad), rotational (vsini), both or none.")
    ] = Broadening.vbroad,
    vbroad: Annotated[float, typer.Option(help="Gaussian broadening of the star, km/s (standard deviation).")] = 3.0,
    vsini: Annotated[float, typer.Option(help="Projected rotation velocity of the star, km/s.")] = 3.0,
    fix: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="A label or nuisance that is known; may be repeated."),
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SD", help="Standard deviation of a Gaussian prior; may be repeated."),
    ] = None,
    reduced: Annotated[bool, typer.Option("--reduced", help="Derivatives of the fast copy of the emulator.")] = False,
    model_error: Annotated[
        bool,
        typer.Option(
            "--model-error/--photon-noise", help="With the errors of lines and emulator that a fit assumes, or without."
        ),
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="ECSV file to write.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    quiet: Quiet = False,
):
    """Compute Cramér–Rao bounds for an instrument and a star.

    These are the smallest standard deviations that an unbiased estimate from one spectrum can have.
    Marginal bounds hold with all other parameters unknown (radial velocity, broadening and continuum included),
    conditional ones with all others known. For a shipped emulator, 'emulator' is what its own error does to the labels
    whatever the S/N, and 'limited' both together.

    \b
    Examples:
      emuinfer crb --resolution 20000 --snr 50
      emuinfer crb -i WEAVE-HR-green --snr 50 --snr-per angstrom --prior teff=80 --mask 5160:5166
      emuinfer crb --label teff=4600 --label logg=1.6 --label fe_h=-2.5 --range 5150 5200 --output giant.ecsv
    """
    if instruments:
        return _list_instruments()
    if output is not None:
        refuse_existing(output, overwrite)
    if instrument is not None and any(v is not None for v in (wavelength_range, resolution, sampling)):
        raise EmuinferError("--instrument brings its own range, resolving power and sampling: give either it or those.")
    given, fixed, widths = assignments(label, "--label"), assignments(fix, "--fix"), assignments(prior, "--prior")
    for name, width in widths.items():
        if not width > 0 or name in fixed:
            raise EmuinferError(
                f"--prior {name}={width:g}: give a positive standard deviation, of nothing that --fix fixes."
            )
    use_compilation_cache()
    import numpyro.distributions as dist

    from ..emulators import emulator_hash, load_emulator, reduce_emulator
    from ..forecast.cramer_rao import instrument_model, model_bounds
    from ..forecast.forecast import Exposure, Forecast
    from ..forecast.instruments import Instrument, load_instrument
    from ..labels.space import solar_labels

    full = load_emulator(emulator)
    space = full.label_space
    space.require_names(list(given))
    # A label that is known has its known value, whatever else was said.
    labels = {**solar_labels(space), **given, **{n: v for n, v in fixed.items() if n in space.names}}
    space.check(labels)
    kernel = {"rv": fixed.get("rv", 0.0), "vbroad": fixed.get("vbroad", vbroad), "vsini": fixed.get("vsini", vsini)}
    centre = {**labels, **kernel}
    space.require_names([n for n in widths if n not in kernel])
    priors = fixed | {n: dist.Normal(centre[n], sd) for n, sd in widths.items()}
    resolution, sampling = resolution or 40_000.0, sampling or 3.0
    ends = wavelength_range or full.wavelength_range
    if model_error:
        if instrument is not None or mask or correlation or exposures != 1 or snr_per is not SnrPer.pixel or reduced:
            raise EmuinferError("--model-error goes with --range, --resolution, --sampling and an S/N per pixel only.")
        star = {n: v for n, v in kernel.items() if n != "rv"}
        model = instrument_model(
            full,
            wavelength_range=ends,
            resolution=resolution,
            snr=snr,
            pixels_per_fwhm=sampling,
            labels=labels,
            broadening=broadening.value,
            priors=priors,
            progress=not quiet,
            **star,
        )
        used = {n: v for n, v in star.items() if n in model.nuisance_priors}
        bounds, wavelength = model_bounds(model, labels, rv=kernel["rv"], model_error=True, **used), model.wavelength
        name = "custom"
    else:
        if instrument is None:
            full.check_wavelength(ends)
            chosen = Instrument.single(*ends, resolution, sampling, medium=full.medium)
        else:
            chosen = load_instrument(instrument)
        exposure = Exposure(
            chosen,
            snr,
            snr_per.value,
            count=exposures,
            mask=_pairs(mask),
            correlation_pixels=correlation,
        )
        used = reduce_emulator(full, progress=not quiet) if reduced else full
        forecast = Forecast(used, labels, exposure, priors=priors, broadening=broadening.value, **kernel)
        bounds, name = forecast.bounds(uncertainty=_uncertainty(full, used)), chosen.name
        wavelength = np.concatenate([s.wavelength for s in forecast.spectra])
        resolution, sampling = ([float(getattr(a, k)) for a in chosen.arms] for k in ("resolution", "pixels_per_fwhm"))
        resolution, sampling = (x[0] if len(set(x)) == 1 else x for x in (resolution, sampling))
    table = bounds.table()
    table.meta = {
        "emulator": emulator,
        "emulator_hash": emulator_hash(full),
        "labels": {n: float(v) for n, v in labels.items()},
        "instrument": name,
        "wavelength_range": [float(wavelength.min()), float(wavelength.max())],
        "medium": full.medium,
        "resolution": resolution,
        "pixels_per_fwhm": sampling,
        "snr": snr,
        "snr_per": snr_per.value,
        "exposures": exposures,
        "mask": [list(p) for p in _pairs(mask)],
        "correlation_pixels": correlation,
        "broadening": broadening.value,
        "model_error": model_error,
        "fixed": fixed,
        "priors": widths,
        "notes": list(bounds.notes),
    }
    if output is not None:
        write_table(table, output)
    _print(table, len(wavelength))
    if output is not None:
        print(f"Written to {output}")


def _uncertainty(full, used):
    """The uncertainty of the emulator itself also where its fast copy is used."""
    from ..emulators import shipped_uncertainty

    return "shipped" if used is full else shipped_uncertainty(full)


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


def _print(table, n_pix):
    meta = table.meta
    (lo, hi), of = meta["wavelength_range"], "" if meta["instrument"] == "custom" else f"{meta['instrument']}, "
    resolving = meta["resolution"] if isinstance(meta["resolution"], list) else [meta["resolution"]]
    title = (
        f"Cramér–Rao bounds: {of}{lo:.1f} to {hi:.1f} Å ({meta['medium']}), R = {', '.join(f'{r:g}' for r in resolving)}, "
        f"{n_pix} pixels, S/N {meta['snr']:g} per {meta['snr_per'].replace('_', ' ')}"
    )
    shown = result_table(table.colnames, title)
    for row in table:
        shown.add_row(row["label"], row["unit"], *(f"{row[k]:.4g}" for k in table.colnames[2:]))
    console().print(shown)
    for note in meta["notes"]:
        print(f"Note: {note}")
