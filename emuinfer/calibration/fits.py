"""The fits of the mock observations, and where the truth lies among their draws."""

from pathlib import Path

import numpy as np

from ..deprecation import warn_old
from ..errors import SamplingError
from ..files import read_arrays, write_arrays
from .statistics import ranks_of

MOCK = "mock.h5"
FOLDERS = {True: "emulator-error-on", False: "emulator-error-off"}


def checked_errors(emulator_error, uncertainty=None) -> list:
    """The kinds of fits, as a list of one or two: an `EmulatorUncertainty` or `"shipped"`, then None.

    Raises `SamplingError` on anything else. `uncertainty` and booleans are old forms.
    """
    from ..emulators import EmulatorUncertainty

    given = list(emulator_error) if isinstance(emulator_error, list | tuple) else [emulator_error]
    for old, new in ((True, "shipped"), (False, None)):
        if any(e is old for e in given):
            warn_old(f"emulator_error={old} of check_coverage", f"emulator_error={new!r}", stacklevel=4)
            given = [new if e is old else e for e in given]
    if uncertainty is not None:
        warn_old("uncertainty= of check_coverage", "emulator_error=(uncertainty, None)", stacklevel=4)
        given = [uncertainty if isinstance(e, str) and e == "shipped" else e for e in given]
    known = [e for e in given if isinstance(e, EmulatorUncertainty) or (isinstance(e, str) and e == "shipped")]
    without = [e for e in given if e is None]
    if not given or len(known) > 1 or len(known) + len(set(without)) < len(given):
        raise SamplingError(
            "emulator_error must be 'shipped', None, an EmulatorUncertainty, or a pair of None and another; got "
            f"{emulator_error!r}."
        )
    return known + without


def known_errors(errors, emulator, named) -> tuple[list, list[str]]:
    """`errors` with the emulator's own `EmulatorUncertainty` for `"shipped"`; and notes.

    Where there is none, `"shipped"` stays, which is then the surrogates' error alone.
    """
    from ..emulators.uncertainty import load_uncertainty, shipped_uncertainty, uncertainty_files

    if not isinstance(errors[0], str):
        return errors, []
    found = shipped_uncertainty(emulator)
    if found is None and named is not None and all(f.exists() for f in uncertainty_files(Path(named).with_suffix(""))):
        found = load_uncertainty(named, emulator=emulator)
    if found is not None:
        return [found, *errors[1:]], []
    return errors, [
        "No EmulatorUncertainty is known for this emulator: 'emulator error on' contains the error of the surrogates alone."
    ]


def fit_mocks(emulator, output, emulator_error, truth, rows, mock, options, keep_draws):
    """A row per star, S/N and parameter of the fits with this `emulator_error`, as a `Table`.

    `output`: the folder with the file of mocks, in which the fits get one of their own. `truth`: of each of `rows`, by
    parameter; `options`: of `fit_many`.
    """
    from ..survey import fit_many

    switch = emulator_error is not None
    folder = output / FOLDERS[switch]
    fits = fit_many(emulator, output / MOCK, folder, save_draws=True, emulator_error=emulator_error, **options)
    names = [p for p in fits.meta["PARAMS"].split(",") if p in truth]
    count = len(mock.snr)
    true = {p: np.tile(truth[p], count) for p in names}
    rank, pit = _ranks(folder, names, true, len(fits), keep_draws)
    return _long_table(fits, names, true, rank, pit, np.tile(rows, count), np.repeat(mock.snr, len(rows)), switch)


def _ranks(folder, names, truth, n, keep_draws):
    """`rank` and `pit` `(n, len(names))`, from the draws on disk, or from an earlier call."""
    from ..posteriors import draws_of, load_posterior

    draws = folder / "draws"
    kept = draws / "ranks.npz"
    if kept.exists():
        ranks = read_arrays(kept, SamplingError, f"Delete {folder} and run again.")
        return ranks["rank"], ranks["pit"]
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
    write_arrays(kept, {"rank": rank, "pit": pit}, SamplingError, compressed=False)
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
