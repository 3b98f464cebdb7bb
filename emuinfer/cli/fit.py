"""`emuinfer fit`: from spectra to posteriors, figures and tables."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..errors import EmuinferError
from ..files import use_compilation_cache, write_table, written_together
from .options import (
    DEFAULT_EMULATOR,
    Broadening,
    EmulatorName,
    FileMedium,
    FitBroadening,
    Fixed,
    Quiet,
    SearchedVelocities,
    Seed,
    assignments,
    console,
    print_error,
    result_table,
    telling,
)

RESULTS = ("posterior.nc", "fit.png", "corner.png", "summary.ecsv")


def fit(
    ctx: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Spectra: FITS, ECSV, CSV, text, or anything specutils reads."),
    ] = None,
    example: Annotated[str | None, typer.Option(help="Fit a packaged example spectrum, such as hd41248.")] = None,
    emulator: EmulatorName = DEFAULT_EMULATOR,
    resolution: Annotated[
        float | None, typer.Option(help="Resolving power, wavelength / FWHM, if the file does not say or is wrong.")
    ] = None,
    snr: Annotated[
        float | None, typer.Option(help="Signal-to-noise ratio per pixel; replaces the file's uncertainties.")
    ] = None,
    medium: FileMedium = None,
    rv_range: SearchedVelocities = (-500.0, 500.0),
    broadening: FitBroadening = Broadening.vbroad,
    fix: Fixed = None,
    chains: Annotated[int, typer.Option(min=1, help="Chains.")] = 4,
    warmup: Annotated[int, typer.Option(min=1, help="Warm-up steps per chain.")] = 300,
    draws: Annotated[int, typer.Option(min=1, help="Draws per chain.")] = 500,
    verify: Annotated[
        int, typer.Option(min=0, help="Draws checked against the full emulator; 0 skips the check.")
    ] = 200,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results; fit-NAME by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier fit.")] = False,
    wavelength_column: Annotated[str | None, typer.Option(help="Name of the wavelength column.")] = None,
    flux_column: Annotated[str | None, typer.Option(help="Name of the flux column.")] = None,
    uncertainty_column: Annotated[str | None, typer.Option(help="Name of the uncertainty column.")] = None,
    wavelength_unit: Annotated[
        str | None, typer.Option(help="Unit of wavelengths that have none, such as nm; ångström by default.")
    ] = None,
    quiet: Quiet = False,
):
    """Fit spectra and write posteriors, summaries and figures.

    For each spectrum a folder receives summary.ecsv (one row per label and nuisance), posterior.nc (ArviZ), fit.png and
    corner.png. With several files each has a folder of its own, and one that fails does not stop the others.

    \b
    Examples:
      emuinfer fit --example hd41248
      emuinfer fit star.fits --resolution 47000 --snr 80 --medium air --output star
      emuinfer fit night/*.fits --broadening vsini --output night-fits
    """
    columns = {
        "wavelength_column": wavelength_column,
        "flux_column": flux_column,
        "uncertainty_column": uncertainty_column,
        "wavelength_unit": wavelength_unit,
    }
    spectra = _spectra(files or [], example)
    folders = _folders(spectra, output)
    for folder in folders.values():
        _refuse_results(folder, overwrite)
    use_compilation_cache()
    from ..emulators import load_emulator

    settings = {
        "emulator_name": emulator,
        "read": {"resolution": resolution, "snr": snr, "medium": medium and medium.value, **columns},
        "model": {"broadening": broadening.value, "rv_range": rv_range, "priors": assignments(fix, "--fix")},
        "sample": {"chains": chains, "warmup": warmup, "draws": draws, "verify": verify, "seed": seed},
        "progress": not quiet,
    }
    full = load_emulator(emulator)
    failed = []
    for name, path in spectra.items():
        try:
            with telling(f"Nothing was written to {folders[name]}."):
                _fit_one(full, path, folders[name], settings)
        except (EmuinferError, OSError) as error:
            if ctx.obj:
                raise
            print_error(str(error) if len(spectra) == 1 else f"{name}: {error}")
            failed.append(name)
    if failed:
        if len(spectra) > 1:
            print_error(f"{len(failed)} of {len(spectra)} spectra could not be fitted: {', '.join(failed)}.")
        raise typer.Exit(1)


def _spectra(files, example) -> dict[str, Path]:
    """Name of each spectrum to its file; names that repeat are numbered."""
    from ..observations.examples import example_path

    if not files and example is None:
        raise EmuinferError("Give a spectrum to fit, or --example hd41248. See `emuinfer fit --help`.")
    spectra = {} if example is None else {example: example_path(example)}
    for file in files:
        stem = re.sub(r"(\.(fits?|ecsv|csv|txt|dat|gz))+$", "", Path(file).name)
        name, number = stem, 1
        while name in spectra:
            number += 1
            name = f"{stem}-{number}"
        spectra[name] = Path(file)
    return spectra


def _folders(spectra, output) -> dict[str, Path]:
    if output is None:
        return {name: Path(f"fit-{name}") for name in spectra}
    return {name: output if len(spectra) == 1 else output / name for name in spectra}


def _refuse_results(folder, overwrite):
    if folder.exists() and not folder.is_dir():
        raise EmuinferError(f"The output {folder} is a file; results go to a folder. Give another --output.")
    found = [name for name in RESULTS if (folder / name).exists()]
    if found and not overwrite:
        raise EmuinferError(
            f"{folder} already holds the results of a fit ({', '.join(found)}). Give another --output, or --overwrite "
            "to replace them."
        )


def _fit_one(emulator, path, folder, settings):
    from ..inference import sample
    from ..likelihoods import StellarModel
    from ..observations import Observation

    progress = settings["progress"]
    observation = Observation.read(path, **settings["read"])
    if progress:
        print(observation, file=sys.stderr, flush=True)
    # Before the long part, so that an output that cannot be written is known at once.
    with written_together(folder, RESULTS) as staging:
        model = StellarModel(emulator, observation, progress=progress, **settings["model"])
        posterior = sample(model, progress=progress, **settings["sample"])
        table = _write_results(posterior, model, staging, settings)
    _print_results(table, posterior, observation, folder)


def _write_results(posterior, model, folder, settings):
    from ..plotting import plot_corner, plot_fit
    from ..posteriors.posterior import draws_of, save_posterior, summary_table

    name = model.observation.name
    table = summary_table(posterior, names=list(model.names), units=model.units)
    table.meta = _meta(posterior, model, settings)
    write_table(table, folder / "summary.ecsv")
    save_posterior(posterior, folder / "posterior.nc")
    low, median, high = np.quantile(
        posterior["posterior_predictive"]["model_flux"].values, [0.16, 0.5, 0.84], axis=(0, 1)
    )
    observation, pixels = model.observation, model.pixels
    plot_fit(
        folder / "fit.png",
        model.wavelength,
        observation.flux[pixels],
        observation.uncertainty[pixels],
        median,
        observation.good[pixels],
        model_band=(low, high),
        model_error=posterior["constant_data"]["model_error"].values,
        title=name,
    )
    samples = {n: draws_of(posterior, n) for n in model.names}
    moving = {n: x for n, x in samples.items() if np.isfinite(x).all() and np.ptp(x) > 0}
    if moving:
        plot_corner(folder / "corner.png", moving, title=name)
    return table


def _meta(posterior, model, settings) -> dict:
    """What the summary says beside its rows: plain values only, as ECSV wants them."""
    attrs = posterior.attrs
    known = ("emulator_hash", "reduced_hash", "data_hash", "k_hat", "verification", "in_domain", "created_at")
    meta = {"observation": model.observation.name, "emulator": settings["emulator_name"]}
    meta |= {k: attrs[k] for k in known if k in attrs}
    meta |= dict(settings["sample"].items())
    meta |= {"broadening": settings["model"]["broadening"], "fixed": dict(settings["model"]["priors"])}
    meta |= {"warnings": json.loads(attrs["warnings"]), "versions": json.loads(attrs["versions"])}
    return meta


def _print_results(table, posterior, observation, folder):
    out = console()
    shown = result_table(table.colnames, observation.name or None)
    for row in table:
        decimals = int(np.clip(1 - np.floor(np.log10(row["sd"])), 0, 6)) if row["sd"] > 0 else 4
        values = [f"{row[k]:.{decimals}f}" for k in ("mean", "sd", "q16", "median", "q84")]
        shown.add_row(row["label"], row["unit"], *values, f"{row['r_hat']:.3f}", f"{row['ess_bulk']:.0f}")
    out.print(shown)
    warnings = json.loads(posterior.attrs["warnings"])
    for text in warnings:
        out.print(f"Warning: {text}")
    if posterior.attrs["verification"] == "ok":
        out.print(posterior.attrs["verification_message"])
    out.print(f"Written to {folder}: {', '.join(n for n in reversed(RESULTS) if (folder / n).exists())}")
