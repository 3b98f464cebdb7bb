"""`calibrate`: are posteriors as wide as they must be? Fits of spectra that another code than the emulator has made."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import __version__
from ..errors import SamplingError
from ..survey.files import write
from .mock import KS_ALARM, Mock, check_priors, check_source, choose_rows, load_source, observe, prior_check
from .statistics import ranks_of, summarise

PLAN, MOCK, RESULTS, SUMMARY = "plan.json", "mock.h5", "results.ecsv", "summary.ecsv"
FITS = {True: "emulator-error-on", False: "emulator-error-off"}


class Calibration(NamedTuple):
    """`results`: a row per star, S/N, emulator error and parameter; `summary`: of `calibration_statistics.summarise`;
    `notes`: what is to be known about source and prior; `path`: the folder with tables, figures and `index.html`."""

    results: object
    summary: object
    notes: list[str]
    path: Path


def calibrate(
    emulator,
    source,
    output,
    *,
    resolution,
    sampling=2.5,
    snr=(30.0, 100.0, 300.0),
    n=None,
    rows=None,
    seed=0,
    emulator_error=(True, False),
    uncertainty=None,
    medium=None,
    broadening="vbroad",
    priors=None,
    rv_range=(-100.0, 100.0),
    settings=None,
    batch=None,
    workers=1,
    keep_draws=False,
    overwrite=False,
    progress=True,
    **options,
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
    - `resolution` (λ / FWHM), `sampling` (pixels per FWHM), `snr` (per pixel in the continuum; every star at each).
    - `emulator_error`: True, False, or both. `uncertainty`: an `EmulatorUncertainty` for True; by default the one that ships
      with the emulator or is saved beside it.
    - `medium`: of the wavelengths of an `.npz` file; the emulator's by default.
    - `priors`: of vbroad, vsini and log10_jitter, as for `StellarSpectrum`. `rv_range`: km/s, of the true velocities.
    - `settings`, `batch`, `workers`: as for `fit_many`. `options`: as for `StellarSpectrum`: continuum_terms, robust.
    - `keep_draws`: keep the draws as netCDF (some 100 kB per fit).

    **Raises:** `GridError` where the source does not fit the emulator, `SamplingError` where `output` holds another run.
    """
    from ..emulators import load_emulator

    named = emulator if isinstance(emulator, str | Path) else None
    loaded = load_emulator(emulator) if named is not None else emulator
    mock = Mock(
        float(resolution),
        float(sampling),
        tuple(float(s) for s in np.atleast_1d(snr)),
        broadening,
        tuple(float(v) for v in rv_range),
        int(seed),
    )
    priors, switches = check_priors(priors), _switches(emulator_error)
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise SamplingError(f"The output {output} is a file; results go to a folder. Give another.")
    output.mkdir(parents=True, exist_ok=True)
    grid = load_source(
        source,
        loaded,
        output,
        n=n,
        medium=medium,
        seed=mock.seed,
        workers=workers if workers > 1 else 0,
        progress=progress,
    )
    check_source(grid, loaded, mock)
    everything = rows is None
    rows = choose_rows(grid, rows, n, mock.seed)
    on, notes = _uncertainty(loaded, named, uncertainty, True in switches)
    notes += _training_notes(named, grid, everything)
    notes += _prior_notes(loaded.label_space, loaded.label_space.to_array(grid.label_space.to_dict(grid.labels[rows])))
    _begin(output, _plan(loaded, grid, rows, mock, on, priors, settings, options), overwrite)
    truth = observe(grid, rows, loaded, mock, priors, output / MOCK)
    common = {
        "settings": settings,
        "batch": batch,
        "seed": mock.seed,
        "workers": workers,
        "broadening": broadening,
        "rv_range": (mock.rv_range[0] - 50, mock.rv_range[1] + 50),
        "priors": priors,
        "line_errors": None,
        "progress": progress,
        **options,
    }
    parts = [
        _fit(
            emulator if named is not None else loaded,
            output,
            switch,
            on if switch else False,
            truth,
            rows,
            mock,
            common,
            keep_draws,
        )
        for switch in switches
    ]
    return report(output, parts, loaded.label_space.names, notes)


def _switches(emulator_error):
    switches = [emulator_error] if isinstance(emulator_error, bool) else list(emulator_error)
    if not switches or not all(isinstance(s, bool) for s in switches):
        raise SamplingError(f"emulator_error must be True, False or both; got {emulator_error!r}.")
    return sorted(set(switches), reverse=True)


def _uncertainty(emulator, named, given, wanted):
    """What `emulator_error` is where it is on: an `EmulatorUncertainty`, or True if only the surrogate's error is known."""
    from ..emulators.uncertainty import load_uncertainty, shipped_uncertainty, uncertainty_files

    if given is not None or not wanted:
        return given, []
    found = shipped_uncertainty(emulator)
    if found is None and named is not None and all(f.exists() for f in uncertainty_files(Path(named).with_suffix(""))):
        found = load_uncertainty(named, emulator=emulator)
    if found is not None:
        return found, []
    return True, [
        "No EmulatorUncertainty is known for this emulator: 'emulator error on' contains the error of the surrogates alone."
    ]


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


def _plan(emulator, grid, rows, mock, uncertainty, priors, settings, options):
    import dataclasses

    import jax

    from ..emulators import emulator_hash

    leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(uncertainty)]
    shown = {k: repr(v) for k, v in sorted({**priors, **options, "settings": settings}.items())}
    plan = {
        "emulator": emulator_hash(emulator),
        "uncertainty": hashlib.sha256(b"".join(leaves)).hexdigest()[:16],
        "source": grid.hash,
        "rows": hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()[:16],
        "stars": len(rows),
        "mock": dataclasses.asdict(mock),
        "options": shown,
        "versions": {"emuinfer": __version__},
    }
    return json.loads(json.dumps(plan))


def _begin(output, plan, overwrite):
    """Keep `plan` in `output`; `SamplingError` where it holds another run, unless that may be thrown away."""
    known = output / PLAN
    if known.exists():
        old = json.loads(known.read_text())
        different = sorted(k for k in {*old, *plan} if old.get(k) != plan.get(k) and k != "versions")
        if different and not overwrite:
            k = different[0]
            raise SamplingError(
                f"{output} holds a calibration with other settings ({', '.join(different)}: {old.get(k)!r} there, {plan.get(k)!r} "
                "now). Give another folder, or overwrite=True to throw that one away."
            )
        if different:
            for name in FITS.values():
                shutil.rmtree(output / name, ignore_errors=True)
    write(known, json.dumps(plan, indent=1).encode())


def _fit(emulator, output, switch, emulator_error, truth, rows, mock, common, keep_draws):
    """A row per star, S/N and parameter of the fits with or without the emulator's error, as a `Table`."""
    from ..survey.fit_many import fit_many

    folder = output / FITS[switch]
    fits = fit_many(emulator, output / MOCK, folder, save_draws=True, emulator_error=emulator_error, **common)
    names = [p for p in fits.meta["PARAMS"].split(",") if p in truth]
    count = len(mock.snr)
    true = {p: np.tile(truth[p], count) for p in names}
    rank, pit = _ranks(folder, names, true, len(fits), keep_draws)
    return _long_table(fits, names, true, rank, pit, np.tile(rows, count), np.repeat(mock.snr, len(rows)), switch)


def _ranks(folder, names, truth, n, keep_draws):
    """`rank` and `pit` `(n, len(names))`, from the draws on disk, or from an earlier call."""
    from ..posteriors.posterior import draws_of, load_posterior

    draws = folder / "draws"
    kept = draws / "ranks.npz"
    if kept.exists():
        with np.load(kept) as file:
            return file["rank"], file["pit"]
    rank, pit, start = np.full((n, len(names)), -1), np.full((n, len(names)), np.nan), 0
    files = sorted(draws.glob("draws-*.nc"))
    for file in files:
        posterior = load_posterior(file)
        for i, name in enumerate(names):
            x = draws_of(posterior, name)
            stars = slice(start, start + x.shape[-1])
            rank[stars, i], pit[stars, i] = ranks_of(x.reshape(-1, x.shape[-1]).T, truth[name][stars])
        start = stars.stop
    if start != n:
        raise SamplingError(f"{draws} has draws of {start} stars, not of {n}. Delete {folder} and run again.")
    temporary = draws / "ranks.tmp.npz"
    np.savez(temporary, rank=rank, pit=pit)
    temporary.replace(kept)
    for file in [] if keep_draws else files:
        file.unlink()
    return rank, pit


def _long_table(fits, names, truth, rank, pit, star, snr, switch):
    from astropy.table import Table, vstack

    from ..survey.summary import SERIOUS

    flag = np.asarray(fits["flag"])
    parts = []
    for i, name in enumerate(names):
        columns = {
            "star": star,
            "snr": snr,
            "emulator_error": np.full(len(fits), switch),
            "parameter": np.full(len(fits), name),
            "truth": truth[name],
            "mean": np.asarray(fits[f"{name}_mean"], float),
            "sd": np.asarray(fits[f"{name}_sd"], float),
            "rank": rank[:, i],
            "pit": pit[:, i],
            "ess": np.asarray(fits[f"{name}_ess"], float),
            "flag": flag,
            "serious": (flag & SERIOUS) > 0,
            "k_hat": np.asarray(fits["k_hat"], float),
            "chi2": np.asarray(fits["chi2"], float),
            "chi2_model": np.asarray(fits["chi2_model"], float),
            "down_weighted": np.asarray(fits["down_weighted"], float),
        }
        parts.append(Table(columns))
    return vstack(parts)


def report(output, parts, labels, notes) -> Calibration:
    """Tables, figures and page in `output` from the tables of fits `parts`."""
    from astropy.table import vstack

    from ..files import write_table
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
    plan = json.loads((output / PLAN).read_text())
    write_page(output / "index.html", results, summary, list(labels), notes, plan)
    return Calibration(results, summary, notes, output)
