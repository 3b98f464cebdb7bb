"""`emuinfer coverage`: are the error bars of fits right?"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..errors import EmuinferError
from ..files import use_compilation_cache
from .options import (
    DEFAULT_EMULATOR,
    Broadening,
    ContinuumTerms,
    DegreesOfFreedom,
    EmulatorName,
    FitBroadening,
    Fixed,
    Medium,
    OverwriteRun,
    Priors,
    Quiet,
    Robust,
    Seed,
    StarBatch,
    StarChains,
    StarDraws,
    StarWarmup,
    Workers,
    console,
    priors_of,
    telling,
)

WHICH = {"on": "shipped", "off": None, "both": ("shipped", None)}
SNR = (30.0, 100.0, 300.0)

Source = Annotated[
    str,
    typer.Argument(
        metavar="SPECTRA",
        help="Spectra that the emulator has not seen: a grid (.h5, .npz), or 'lte' to compute some with the LTE code.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the results.")]
Resolution = Annotated[float, typer.Option(min=1, help="Resolving power of the mock observations, wavelength / FWHM.")]
PixelsPerFwhm = Annotated[
    float, typer.Option(help="Pixels of the mock observations per FWHM of the line spread function.")
]
Snr = Annotated[
    list[float] | None,
    typer.Option(
        metavar="NUMBER",
        help="S/N of the mock observations per pixel in the continuum; may be repeated. [default: 30, 100, 300]",
    ),
]
Rows = Annotated[
    str,
    typer.Option(
        metavar="ROWS",
        help="Spectra of the source: 'all', 'A:B' (A to B − 1, from 0), 'held-out' (what `emuinfer train` held out) or "
        "'flagship' (what the shipped emulator's training held out).",
    ),
]
Number = Annotated[
    int | None, typer.Option("-n", "--number", min=1, help="How many of them, at random; all by default.")
]
SourceMedium = Annotated[Medium | None, typer.Option("--medium", help="Medium of the wavelengths of an .npz file.")]
EmulatorError = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Fit with the emulator's error in the likelihood ('on'), without ('off'), or 'both' for a comparison.",
    ),
]
TrueVelocities = Annotated[
    tuple[float, float], typer.Option("--rv-range", metavar="A B", help="True velocities, km/s, drawn between A and B.")
]
KeepDraws = Annotated[bool, typer.Option("--keep-draws", help="Keep the draws as netCDF, some 100 kB per fit.")]
Sampling = Annotated[float | None, typer.Option("--sampling", hidden=True, help="The old name of --pixels-per-fwhm.")]


def coverage(
    source: Source,
    output: Output,
    resolution: Resolution,
    emulator: EmulatorName = DEFAULT_EMULATOR,
    pixels_per_fwhm: PixelsPerFwhm = 2.5,
    snr: Snr = None,
    rows: Rows = "all",
    n: Number = None,
    medium: SourceMedium = None,
    emulator_error: EmulatorError = "both",
    broadening: FitBroadening = Broadening.vbroad,
    fix: Fixed = None,
    prior: Priors = None,
    rv_range: TrueVelocities = (-100.0, 100.0),
    continuum_terms: ContinuumTerms = None,
    robust: Robust = True,
    degrees_of_freedom: DegreesOfFreedom = 4.0,
    chains: StarChains = 4,
    warmup: StarWarmup = 150,
    draws: StarDraws = 500,
    batch: StarBatch = None,
    workers: Workers = 1,
    seed: Seed = 0,
    keep_draws: KeepDraws = False,
    overwrite: OverwriteRun = False,
    quiet: Quiet = False,
    sampling: Sampling = None,
):
    """Test whether error bars are right: fit mock spectra of another code, whose true labels are known.

    Of the true values 68 % should lie inside the 68 % intervals, 95 % inside the 95 % intervals. The folder receives
    index.html, a page to read, with figures and tables. A killed run goes on when it is started again.

    \b
    Examples:
      emuinfer coverage lte -n 100 -o coverage --resolution 28000 --snr 100
      emuinfer coverage turbospectrum.npz -o coverage --rows flagship --resolution 28000 --snr 50 --snr 200
      emuinfer coverage my-grid.h5 -o coverage --rows held-out --emulator my-emulator.json --resolution 40000 --workers 2
    """
    if emulator_error not in WHICH:
        raise EmuinferError(f"--emulator-error must be on, off or both; got '{emulator_error}'.")
    options = {"rows": _rows(rows), "n": n, "seed": seed, "medium": medium and medium.value, "rv_range": rv_range}
    options |= {"broadening": broadening.value, "priors": priors_of(fix, prior)}
    options |= {"continuum_terms": continuum_terms, "robust": robust, "degrees_of_freedom": degrees_of_freedom}
    options |= {"batch": batch, "workers": workers}
    options |= {"emulator_error": WHICH[emulator_error], "keep_draws": keep_draws, "overwrite": overwrite}
    use_compilation_cache()
    from ..calibration.check import check_coverage
    from ..inference import SURVEY

    with telling("Finished batches are kept: run the same command again to go on."):
        done = check_coverage(
            emulator,
            source,
            output,
            resolution=resolution,
            pixels_per_fwhm=pixels_per_fwhm if sampling is None else sampling,
            snr=snr or SNR,
            config=SURVEY.with_given(chains=chains, warmup=warmup, draws=draws),
            progress=not quiet,
            **options,
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
