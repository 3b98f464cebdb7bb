"""`check_coverage`: are posteriors as wide as they must be? Fits of spectra that another code than the emulator made."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import __version__
from ..deprecation import renamed_arguments, renamed_names
from ..entry import public
from ..errors import SamplingError
from ..files import RunFolder, write_table
from ..inference.config import SURVEY
from ..likelihoods.priors import described_prior
from .fits import FOLDERS, MOCK, checked_errors, fit_mocks, known_errors
from .mock import KS_ALARM, Mock, check_priors, check_source, choose_rows, labels_of, load_source, observe, prior_check
from .statistics import summarise

PLAN, RESULTS, SUMMARY = "plan.json", "results.ecsv", "summary.ecsv"
# Defaults of the model; a plan names only what departs from them.
MODEL = {"continuum_terms": None, "robust": True, "degrees_of_freedom": 4.0}
SEARCHED = 50.0  # km/s beyond the true velocities in which fits search


class Calibration(NamedTuple):
    """`results`: a row per star, S/N, emulator error and parameter; `summary`: of `statistics.summarise`;
    `notes`: what is to be known about source and prior; `path`: the folder with tables, figures and `index.html`."""

    results: object
    summary: object
    notes: list[str]
    path: Path


@public
@renamed_arguments(sampling="pixels_per_fwhm", settings="config")
def check_coverage(
    emulator,
    source,
    output,
    *,
    resolution,
    pixels_per_fwhm=2.5,
    snr=(30.0, 100.0, 300.0),
    n=None,
    rows=None,
    seed=0,
    emulator_error=("shipped", None),
    medium=None,
    broadening="vbroad",
    priors=None,
    rv_range=(-100.0, 100.0),
    continuum_terms=None,
    robust=True,
    degrees_of_freedom=4.0,
    config=SURVEY,
    batch=None,
    workers=1,
    keep_draws=False,
    overwrite=False,
    progress=True,
    uncertainty=None,
) -> Calibration:
    """Simulation-based calibration of fits with `emulator` against spectra of another code.

    Labels are those of the source's spectra; velocity and broadening are drawn from their priors, the continuum at random.
    All spectra are put through the instrument, given noise, and fitted by `fit_many` with `line_errors=None`, with the
    emulator's error in the likelihood and without. Ranks of the truth, coverage and pulls go to `output`, with figures and a
    page to read. A run that was killed goes on when it is started again.

    **Arguments:**

    - `emulator`: an `Emulator`, or the name or path of one (needed for `workers` > 1).
    - `source`: spectra that the emulator has not seen: a `Grid`, the path of one (`.h5`, `.npz`), `"lte"` for the LTE code
      (of which `n` spectra are made), or a backend of `generate_grid`. To test the whole posterior, its labels must be
      drawn from the emulator's flat prior; labels that differ visibly from it are noted.
    - `rows`: which spectra of the source: indices, a mask, a slice, or a name of `choose_rows`. `n`: how many of
      them, at random; all by default.
    - `resolution` (λ / FWHM), `pixels_per_fwhm`, `snr` (per pixel in the continuum; every star at each).
    - `emulator_error`: as of `StellarModel`, one of `"shipped"` (also the one saved beside the emulator), None or an
      `EmulatorUncertainty`; or a pair, None and another, to compare fits without that error and with it.
      `uncertainty` is the old way to give one.
    - `medium`: of the wavelengths of an `.npz` file; the emulator's by default.
    - `priors`: of vbroad, vsini and log10_jitter, as for `StellarModel`. `rv_range`: km/s, of the true velocities.
    - `continuum_terms`, `robust`, `degrees_of_freedom`: as for `StellarModel`. `config`, `batch`, `workers`: as for `fit_many`.
    - `keep_draws`: keep the draws as netCDF (some 100 kB per fit).

    **Raises:** `GridError` where the source does not fit the emulator, `SamplingError` where `output` holds another run.
    """
    named, loaded = _named_and_loaded(emulator)
    mock = Mock.of(resolution, pixels_per_fwhm, snr, broadening, rv_range, seed)
    priors, errors = check_priors(priors), checked_errors(emulator_error, uncertainty)
    output = _made(output)
    made = {"n": n, "medium": medium, "seed": mock.seed, "workers": workers if workers > 1 else 0, "progress": progress}
    grid = load_source(source, loaded, output, **made)
    check_source(grid, loaded, mock)
    chosen = choose_rows(grid, rows, n, mock.seed)
    errors, notes = known_errors(errors, loaded, named)
    notes += _training_notes(named, grid, rows is None)
    notes += _prior_notes(loaded.label_space, labels_of(grid, chosen, loaded.label_space))
    model = _departing(continuum_terms=continuum_terms, robust=robust, degrees_of_freedom=degrees_of_freedom)
    Folder(output, _plan(loaded, grid, chosen, mock, errors[0], priors, config, model), overwrite)
    truth = observe(grid, chosen, loaded, mock, priors, output / MOCK)
    options = model | {
        "config": config,
        "batch": batch,
        "seed": mock.seed,
        "workers": workers,
        "broadening": broadening,
        "rv_range": (mock.rv_range[0] - SEARCHED, mock.rv_range[1] + SEARCHED),
        "priors": priors,
        "line_errors": None,
        "progress": progress,
    }
    fit = lambda error: fit_mocks(emulator, output, error, truth, chosen, mock, options, keep_draws)
    return report(output, [fit(error) for error in errors], loaded.label_space.names, notes)


def _departing(**options) -> dict:
    return {name: value for name, value in options.items() if value != MODEL[name]}


def _named_and_loaded(emulator):
    """The emulator's name or path, None where it is an `Emulator`; and the emulator."""
    from ..emulators import load_emulator

    named = emulator if isinstance(emulator, str | Path) else None
    return named, emulator if named is None else load_emulator(emulator)


def _made(output) -> Path:
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise SamplingError(f"The output {output} is a file; results go to a folder. Give another.")
    output.mkdir(parents=True, exist_ok=True)
    return output


def _training_notes(named, grid, everything):
    """A note where spectra were not chosen from the grid that the emulator's card names."""
    from ..emulators import load_card

    if named is None or not everything or grid.hash not in json.dumps(load_card(named)):
        return []
    return [
        "The emulator learned from spectra of this very grid: those make it look better than it is. Give rows that it has not seen."
    ]


def _prior_notes(space, labels):
    p, outside = prior_check(space, labels)
    notes = []
    if outside:
        notes.append(f"{outside} of {len(labels)} stars lie outside the emulator's domain: no prior draws them.")
    wrong = [f"{n} (p = {v:.1g})" for n, v in p.items() if v < KS_ALARM / len(p)]
    if wrong:
        notes.append(
            "These labels of the source are not drawn from the flat prior of the fit: "
            + ", ".join(wrong)
            + ". Ranks need not "
            "be uniform then, even where every posterior is right; widths that the spectra determine well suffer little."
        )
    return notes


def _plan(emulator, grid, rows, mock, uncertainty, priors, config, options):
    import dataclasses

    import jax

    from ..emulators import emulator_hash

    leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(True if isinstance(uncertainty, str) else uncertainty)]
    shown = {n: described_prior(p) for n, p in priors.items()} | {k: repr(v) for k, v in options.items()}
    return {
        "emulator": emulator_hash(emulator),
        "uncertainty": hashlib.sha256(b"".join(leaves)).hexdigest()[:16],
        "source": grid.hash,
        "rows": hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()[:16],
        "stars": len(rows),
        "mock": dataclasses.asdict(mock),
        "options": dict(sorted({**shown, "config": repr(config)}.items())),
        "versions": {"emuinfer": __version__},
    }


class Folder(RunFolder):
    """The folder of a coverage check: its plan, and a folder of fits with and without the emulator's error."""

    PLAN, KIND, ERROR, ALONE, RENEWED = PLAN, "calibration", SamplingError, False, True

    def found(self, plan):
        return _with_new_names(plan)

    def discard(self):
        for name in FOLDERS.values():
            shutil.rmtree(self.path / name, ignore_errors=True)


def _with_new_names(plan: dict) -> dict:
    """A plan with what version 0.1 called otherwise under its present name."""
    if "sampling" in plan.get("mock", {}):
        plan["mock"]["pixels_per_fwhm"] = plan["mock"].pop("sampling")
    return plan


def report(output, parts, labels, notes) -> Calibration:
    """Tables, figures and page in `output` from the tables of fits `parts`."""
    from astropy.table import vstack

    from .figures import plot_coverage, plot_ecdf, plot_ranks
    from .report import write_page

    results = vstack(parts)
    for column in ("truth", "mean", "sd", "pit", "ess", "k_hat", "chi2", "chi2_model", "down_weighted"):
        results[column].info.format = ".7g"
    summary = summarise(results, list(labels))
    results.meta["comments"] = summary.meta["comments"] = list(notes)
    write_table(results, output / RESULTS)
    write_table(summary, output / SUMMARY)
    plot_coverage(output / "coverage.png", summary)
    plot_ranks(output / "ranks.png", results)
    plot_ecdf(output / "ecdf.png", results)
    plan = _with_new_names(json.loads((output / PLAN).read_text()))
    write_page(output / "index.html", results, summary, list(labels), notes, plan)
    return Calibration(results, summary, notes, output)


__getattr__ = renamed_names(__name__, {"calibrate": check_coverage})
