"""`emuinfer calibrate`: are the error bars of fits right?"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..errors import EmuinferError
from ..files import use_compilation_cache
from .options import (
    Broadening,
    EmulatorName,
    FitBroadening,
    Medium,
    OverwriteRun,
    Quiet,
    Seed,
    StarBatch,
    StarChains,
    StarDraws,
    StarWarmup,
    Workers,
    console,
    telling,
)

WHICH = {"on": True, "off": False, "both": (True, False)}


def calibrate(
    source: Annotated[
        str,
        typer.Argument(help="Spectra that the emulator has not seen: a grid (.h5, .npz), or 'lte' for the LTE code."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    resolution: Annotated[float, typer.Option(min=1, help="Resolving power, wavelength / FWHM.")],
    emulator: EmulatorName = "optical-fgk",
    sampling: Annotated[float, typer.Option(help="Pixels per FWHM.")] = 2.5,
    snr: Annotated[
        list[float] | None,
        typer.Option(help="S/N per pixel in the continuum; may be repeated. [default: 30, 100, 300]"),
    ] = None,
    rows: Annotated[
        str,
        typer.Option(
            metavar="ROWS",
            help="Spectra of the source: 'all', 'A:B', 'held-out' (what `emuinfer train` held out) or "
            "'flagship' (what the shipped emulator's training held out).",
        ),
    ] = "all",
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many of them, at random; all by default.")] = None,
    medium: Annotated[Medium | None, typer.Option(help="Medium of the wavelengths of an .npz file.")] = None,
    emulator_error: Annotated[
        str,
        typer.Option(
            metavar="WHICH", help="Fit with the emulator's error in the likelihood ('on'), without ('off'), or 'both'."
        ),
    ] = "both",
    broadening: FitBroadening = Broadening.vbroad,
    rv_range: Annotated[tuple[float, float], typer.Option(metavar="A B", help="True velocities, km/s.")] = (
        -100.0,
        100.0,
    ),
    chains: StarChains = 4,
    warmup: StarWarmup = 150,
    draws: StarDraws = 500,
    batch: StarBatch = None,
    workers: Workers = 1,
    seed: Seed = 0,
    keep_draws: Annotated[bool, typer.Option("--keep-draws", help="Keep the draws as netCDF.")] = False,
    overwrite: OverwriteRun = False,
    quiet: Quiet = False,
):
    """Test on spectra of another code whether error bars are right: coverage and ranks of the truth.

    The folder receives index.html, a page to read, with figures and tables. A killed run goes on when it is started again.

    \b
    Examples:
      emuinfer calibrate turbospectrum.npz -o calibration --rows flagship --resolution 28000 --snr 50 --snr 200
      emuinfer calibrate lte -n 500 --emulator my-emulator.json -o calibration --resolution 40000 --workers 2
    """
    if emulator_error not in WHICH:
        raise EmuinferError(f"--emulator-error must be on, off or both; got '{emulator_error}'.")
    use_compilation_cache()
    from ..calibration.check import calibrate
    from ..survey.fit_many import Settings

    with telling("Finished batches are kept: run the same command again to go on."):
        done = calibrate(
            emulator,
            source,
            output,
            resolution=resolution,
            sampling=sampling,
            snr=snr or (30.0, 100.0, 300.0),
            n=n,
            rows=_rows(rows),
            seed=seed,
            emulator_error=WHICH[emulator_error],
            medium=medium and medium.value,
            broadening=broadening.value,
            rv_range=rv_range,
            settings=Settings(chains=chains, warmup=warmup, draws=draws),
            batch=batch,
            workers=workers,
            keep_draws=keep_draws,
            overwrite=overwrite,
            progress=not quiet,
        )
    _print(done)


def _rows(text):
    """`all`, `A:B` or a name of `choose_rows`."""
    from ..calibration.mock import NAMED_ROWS

    if text == "all" or text in NAMED_ROWS:
        return None if text == "all" else text
    first, separator, last = text.partition(":")
    if not (separator and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise EmuinferError(f"--rows must be all, A:B with A < B, or one of {', '.join(NAMED_ROWS)}; got '{text}'.")
    return slice(int(first), int(last))


def _print(done):
    from ..calibration.statistics import ALL

    out = console()
    for note in done.notes:
        out.print(f"Note: {note}")
    out.print("Truths inside the central intervals, all labels together:")
    part = done.summary[(done.summary["parameter"] == ALL) & (done.summary["stars"] == "all")]
    for r in part[np.isfinite(part["snr"])]:
        share = [f"{100 * r[f'coverage_{k}']:.1f} ± {100 * r[f'coverage_{k}_error']:.1f}" for k in (68, 95)]
        switch = "on" if r["emulator_error"] else "off"
        out.print(
            f"  emulator error {switch:<3}  S/N {r['snr']:<5g}  68 %: {share[0]}   95 %: {share[1]}   ({r['n']} fits)"
        )
    out.print(f"Written to {done.path / 'index.html'}")
