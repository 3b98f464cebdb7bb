"""`emuinfer fit`: from spectra to posteriors, figures and tables."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..constants import RV_RANGE
from ..errors import EmuinferError
from ..files import use_compilation_cache, written_together
from .fit_results import SUMMARY, print_results, results_of, write_results
from .options import (
    DEFAULT_EMULATOR,
    Broadening,
    ContinuumTerms,
    DegreesOfFreedom,
    EmulatorError,
    EmulatorName,
    FileMedium,
    FitBroadening,
    Fixed,
    Gaia,
    LineErrors,
    Priors,
    Quiet,
    Robust,
    SearchedVelocities,
    Seed,
    gaia_given,
    model_options,
    print_error,
    telling,
)

ALL_ARMS = "all"
EACH_ORDER = "each"  # of an echelle spectrum
Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FILE]...", help="Spectra: FITS, ECSV, CSV, text, or anything specutils reads."),
]
Example = Annotated[str | None, typer.Option(help="Fit a packaged example spectrum, such as hd41248.")]
Together = Annotated[
    bool, typer.Option("--together", help="The files are arms or exposures of one star, in one likelihood.")
]
Arms = Annotated[
    list[str] | None,
    typer.Option("--arm", help="Arm of a DESI file (b, r or z), repeated for several, or 'all': in one likelihood."),
]
Row = Annotated[int | None, typer.Option(help="Row of a file that holds many spectra, from 0.")]
Hdu = Annotated[str | None, typer.Option(help="Number or name of the FITS extension with the spectrum.")]
Order = Annotated[
    str | None,
    typer.Option(
        help="Order of an echelle, from 0; 'merge': all as one spectrum, not resampled; 'each': all in one likelihood."
    ),
]
Resolution = Annotated[
    str | None,
    typer.Option(
        metavar="R|fit[:R]",
        help="Resolving power, wavelength / FWHM, if the file does not say; 'fit' fits it about the file's, 'fit:R' about R.",
    ),
]
Snr = Annotated[float | None, typer.Option(help="Signal-to-noise ratio per pixel; replaces the file's uncertainties.")]
Correlation = Annotated[
    float | None, typer.Option(help="Pixels over which the noise's correlation falls to 1/e, as of resampled spectra.")
]
SamplerName = Annotated[str, typer.Option("--sampler", help="nuts, hmc, mclmc, smc, nested, pathfinder or laplace.")]
Chains = Annotated[int, typer.Option(min=1, help="Chains.")]
Warmup = Annotated[int, typer.Option(min=1, help="Warm-up steps per chain.")]
Draws = Annotated[int, typer.Option(min=1, help="Draws per chain.")]
Verify = Annotated[int, typer.Option(min=0, help="Draws checked against the full emulator; 0 skips the check.")]
Lines = Annotated[
    list[str] | None,
    typer.Option(
        "--lines", metavar="LABEL", help="Write and draw which lines tell of a label; repeated for several, or 'all'."
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the results; fit-NAME by default.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier fit.")]
WavelengthColumn = Annotated[str | None, typer.Option(help="Name of the wavelength column.")]
FluxColumn = Annotated[str | None, typer.Option(help="Name of the flux column.")]
UncertaintyColumn = Annotated[str | None, typer.Option(help="Name of the uncertainty column.")]
MaskColumn = Annotated[str | None, typer.Option(help="Name of the column of flags: pixels not to be used.")]
WavelengthUnit = Annotated[
    str | None, typer.Option(help="Unit of wavelengths that have none, such as nm; ångström by default.")
]


def fit(
    ctx: typer.Context,
    files: Files = None,
    example: Example = None,
    together: Together = False,
    arm: Arms = None,
    row: Row = None,
    hdu: Hdu = None,
    order: Order = None,
    emulator: EmulatorName = DEFAULT_EMULATOR,
    resolution: Resolution = None,
    snr: Snr = None,
    medium: FileMedium = None,
    rv_range: SearchedVelocities = RV_RANGE,
    broadening: FitBroadening = Broadening.vbroad,
    fix: Fixed = None,
    prior: Priors = None,
    continuum_terms: ContinuumTerms = None,
    line_errors: LineErrors = True,
    emulator_error: EmulatorError = True,
    robust: Robust = True,
    degrees_of_freedom: DegreesOfFreedom = 4.0,
    correlation: Correlation = None,
    gaia: Gaia = None,
    sampler: SamplerName = "nuts",
    chains: Chains = 4,
    warmup: Warmup = 300,
    draws: Draws = 500,
    verify: Verify = 200,
    lines: Lines = None,
    seed: Seed = 0,
    output: Output = None,
    overwrite: Overwrite = False,
    wavelength_column: WavelengthColumn = None,
    flux_column: FluxColumn = None,
    uncertainty_column: UncertaintyColumn = None,
    mask_column: MaskColumn = None,
    wavelength_unit: WavelengthUnit = None,
    quiet: Quiet = False,
):
    """Fit spectra and write posteriors, summaries and figures.

    For each spectrum a folder receives summary.ecsv (one row per label and nuisance), results.fits (one row per star, as
    of fit-many), posterior.nc (ArviZ), model.fits and residual.fits (for specutils and jdaviz), fit.png and corner.png. With
    several files each has a folder of its own, and one that fails does not stop the others.

    \b
    Examples:
      emuinfer fit --example hd41248
      emuinfer fit star.fits --resolution 47000 --snr 80 --medium air --output star
      emuinfer fit night/*.fits --broadening vsini --prior teff=6400:100 --output night-fits
      emuinfer fit blue.fits red.fits --together --output star
      emuinfer fit coadd.fits --arm all --row 7
      emuinfer fit echelle.fits --order merge
      emuinfer fit echelle.fits --order each
      emuinfer fit star.fits --gaia gaia_row.csv
    """
    power, fitted = _resolution(resolution)
    read = {"resolution": power, "snr": snr, "medium": medium and medium.value, "row": row}
    read |= {"hdu": hdu, "order": order, "wavelength_unit": wavelength_unit, "wavelength_column": wavelength_column}
    read |= {"flux_column": flux_column, "uncertainty_column": uncertainty_column, "mask_column": mask_column}
    options = model_options(
        broadening, fix, prior, continuum_terms, line_errors, emulator_error, robust, degrees_of_freedom
    )
    settings = {
        "emulator_name": emulator,
        "read": read,
        "arms": arm or [],
        "model": {**options, **fitted, "rv_range": rv_range, "correlation": correlation, "progress": not quiet},
        "gaia": gaia_given(gaia),
        "lines": lines or [],
        "written_priors": list(prior or ()),
        "sample": {"sampler": sampler, "chains": chains, "warmup": warmup, "draws": draws, "verify": verify}
        | {"seed": seed},
        "overwrite": overwrite,
    }
    _fit_all(_stars(files or [], example, together), output, settings, ctx.obj)


def _resolution(text) -> tuple[float | None, dict]:
    """The resolving power that `--resolution` gives, if any, and options of a model that is to fit it."""
    if text is None:
        return None, {}
    fitted = text == "fit" or text.startswith("fit:")
    try:
        power = None if text == "fit" else float(text.removeprefix("fit:"))
        if power is not None and not 0 < power < 1e9:
            raise ValueError
    except ValueError:
        raise EmuinferError(
            f"--resolution must be a resolving power such as 47000, 'fit' or 'fit:47000'; got '{text}'."
        ) from None
    return power, {"resolution": "fit"} if fitted else {}


def _fit_all(stars, output, settings, debug):
    """Fit each of `stars` (name to files); a star that fails does not stop the others."""
    from ..samplers import get_sampler

    get_sampler(settings["sample"]["sampler"])  # an unknown one is refused at once
    _import_all()
    folders = _folders(stars, output)
    for folder in folders.values():
        _refuse_results(folder, settings["overwrite"])
    use_compilation_cache()
    from ..emulators import load_emulator

    full = load_emulator(settings["emulator_name"])
    failed: list[str] = []
    for name, paths in stars.items():
        try:
            with telling(lambda name=name: _how_to_go_on(stars, folders, name)):
                _fit_one(full, name, paths, folders[name], settings)
        except (EmuinferError, OSError) as error:
            if debug:
                raise
            print_error(str(error) if len(stars) == 1 else f"{name}: {error}")
            failed.append(name)
    if failed:
        if len(stars) > 1:
            print_error(f"{len(failed)} of {len(stars)} spectra could not be fitted: {', '.join(failed)}.")
        raise typer.Exit(1)


def _import_all():
    """Import what writes the results: what fails there fails before the fit."""
    from ..plotting.figure import new_figure
    from ..posteriors import import_arviz

    import_arviz()
    new_figure(1, 1)


def _how_to_go_on(stars, folders, name) -> str:
    """What an end in the fit of `name` leaves, and what to do."""
    names = list(stars)
    left = names[names.index(name) :]
    done = [str(folders[n]) for n in names if n not in left and (folders[n] / SUMMARY).exists()]
    kept = f" Finished and kept: {', '.join(done)}." if done else ""
    files = " ".join(str(p) for n in left for p in stars[n])
    again = f" To go on, run the command again with what is left: {files}" if len(names) > 1 else " Run it again."
    return f"Nothing was written to {folders[name]}.{kept}{again}"


def _stars(files, example, together) -> dict[str, list[Path]]:
    """Name of each star to its files; names that repeat are numbered."""
    from ..observations.examples import example_path

    if not files and example is None:
        raise EmuinferError("Give a spectrum to fit, or --example hd41248. See `emuinfer fit --help`.")
    if together and (example is not None or len(files) < 2):
        raise EmuinferError("--together needs two files or more, and no --example.")
    stars = {} if example is None else {example: [example_path(example)]}
    if together:
        return {_stem(files[0]): [Path(file) for file in files]}
    for file in files:
        name, number = _stem(file), 1
        while name in stars:
            number += 1
            name = f"{_stem(file)}-{number}"
        stars[name] = [Path(file)]
    return stars


def _stem(file) -> str:
    return re.sub(r"(\.(fits?|ecsv|csv|txt|dat|gz))+$", "", Path(file).name)


def _folders(stars, output) -> dict[str, Path]:
    if output is None:
        return {name: Path(f"fit-{name}") for name in stars}
    return {name: output if len(stars) == 1 else output / name for name in stars}


def _refuse_results(folder, overwrite):
    if folder.exists() and not folder.is_dir():
        raise EmuinferError(f"The output {folder} is a file; results go to a folder. Give another --output.")
    found = [name for name in results_of(1) if (folder / name).exists()]
    if found and not overwrite:
        raise EmuinferError(
            f"{folder} already holds the results of a fit ({', '.join(found)}). Give another --output, or --overwrite "
            "to replace them."
        )


def _fit_one(emulator, name, paths, folder, settings):
    from ..inference import sample
    from ..likelihoods.gaia_tables import gaia_of

    observations = _observations(paths, settings)
    if ALL_ARMS in settings["arms"] or settings["read"]["order"] == EACH_ORDER:
        observations = _covered(emulator, observations)
    progress = settings["model"]["progress"]
    for observation in observations if progress else ():
        print(observation, file=sys.stderr, flush=True)
    # Before the long part, so that an output that cannot be written is known at once.
    names = {
        *results_of(len(observations)),
        *(p.name for pattern in ("fit*.png", "model*.fits", "residual*.fits") for p in folder.glob(pattern)),
    }  # also those of an earlier fit of more spectra
    with written_together(folder, names) as staging:
        known = None if settings["gaia"] is None else gaia_of(settings["gaia"], emulator.label_space, name)
        model = _model(emulator, observations, {**settings["model"], "gaia": known})
        posterior = sample(model, progress=progress, **settings["sample"])
        table = write_results(posterior, model, staging, settings)
    print_results(table, posterior, observations[0].name, folder)


def _observations(paths, settings) -> list:
    """The spectra of one star: of its files, or the arms of its file."""
    from ..observations import Observation

    arms, read = settings["arms"], settings["read"]
    if read["order"] == EACH_ORDER:
        read = {k: v for k, v in read.items() if k != "order"}
        return [one for path in paths for one in Observation.read_orders(path, **read)]
    if ALL_ARMS in arms:
        return [one for path in paths for one in Observation.read_arms(path, **read)]
    return [Observation.read(path, arm=arm, **read) for path in paths for arm in arms or [None]]


def _covered(emulator, observations) -> list:
    """The arms of which the emulator covers a part, all if that is none; the others are named on standard error."""
    lo, hi = emulator.wavelength_range
    ranges = [observation.wavelength_in(emulator.medium)[[0, -1]] for observation in observations]
    covered = [first < hi and last > lo for first, last in ranges]
    if not any(covered):
        return observations
    for (first, last), inside in zip(ranges, covered):
        if not inside:
            text = f"The arm of {first:.0f} to {last:.0f} Å is left out: the emulator covers {lo:.0f} to {hi:.0f} Å."
            print(text, file=sys.stderr, flush=True)
    return [observation for observation, inside in zip(observations, covered) if inside]


def _model(emulator, observations, options):
    from ..likelihoods import JointModel, StellarModel

    if len(observations) == 1:
        return StellarModel(emulator, observations[0], **options)
    return JointModel.of(emulator, observations, **options)
