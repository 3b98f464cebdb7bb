"""Gaia's XP_CONTINUOUS: coefficients of BP and RP, which GaiaXPy turns into sampled spectra. Host only."""

import contextlib
import io
import warnings

import numpy as np

from ..errors import TokenError
from ..plotting import kept_settings
from . import xp
from .columns import Column, numbers
from .spectra import ragged_vectors

BANDS = ("bp", "rp")
ARRAYS = ("coefficients", "coefficient_errors", "coefficient_correlations")
SINGLE = ("n_parameters", "standard_deviation")
INSTALL = "Install it: pip install 'emuinfer[stars]'"


def is_continuous(columns: dict[str, Column]) -> bool:
    """Whether a table has coefficients of XP spectra and no sampled ones."""
    names = {name.lower() for name in columns}
    return {f"{band}_coefficients" for band in BANDS} <= names and "flux" not in names


def import_gaiaxpy():
    """GaiaXPy's calibrator. It has matplotlib use TeX on import, which is undone. **Raises:** `TokenError` where it is missing."""
    try:
        with kept_settings(), warnings.catch_warnings(action="ignore"):
            from gaiaxpy.calibrator import calibrator
    except ImportError as error:
        raise TokenError(
            f"Coefficients of XP spectra (XP_CONTINUOUS) need GaiaXPy, which does not load: {error}. {INSTALL}."
        ) from error
    return calibrator


def calibrated(columns: dict[str, Column]) -> dict[str, Column]:
    """The columns with `flux` and `flux_error` (W m-2 nm-1, default sampling) in place of the coefficients and their errors.

    A star of which one band is missing has samples of the other band's range only. **Raises:** `TokenError` where GaiaXPy is
    missing or a column that it needs is.
    """
    import pandas as pd

    plain = {name.lower(): name for name in columns}
    needed = [f"{band}_{what}" for band in BANDS for what in (*SINGLE, *ARRAYS)]
    if missing := [name for name in needed if name not in plain]:
        raise TokenError(
            f"The coefficients of XP spectra lack the columns {', '.join(missing)}. Take the files XP_CONTINUOUS of DataLink, "
            "or the table gaiadr3.xp_continuous_mean_spectrum, as a whole."
        )
    calibrator = import_gaiaxpy()
    rows = len(columns[plain[needed[0]]].values)
    frame = pd.DataFrame({"source_id": np.arange(rows)})
    for name in needed:
        column = columns[plain[name]]
        if name.endswith(SINGLE):
            frame[name] = numbers(column, name)
        else:
            frame[name] = pd.Series(ragged_vectors(column, name), dtype=object)
    whole = _whole(frame)
    flux, error = (np.full((rows, len(xp.WAVELENGTHS)), np.nan) for _ in range(2))
    if whole.any():
        found = _calibrate(calibrator, frame[whole].reset_index(drop=True))
        flux[whole], error[whole] = (np.stack(found[name].to_numpy()) for name in ("flux", "flux_error"))
    rest = {
        name: column
        for name, column in columns.items()
        if not name.lower().startswith(("bp_", "rp_")) or name.lower() == "bp_rp"
    }
    return {**rest, "flux": Column(flux, "W / (m2 nm)"), "flux_error": Column(error, "W / (m2 nm)")}


def _whole(frame) -> np.ndarray:
    """Which rows have both bands."""
    lengths = {f"{band}_{what}": 55 for band in BANDS for what in ARRAYS[:2]}
    long = [frame[name].map(lambda v, n=n: v is not None and len(v) == n) for name, n in lengths.items()]
    deviations = [np.isfinite(frame[f"{band}_standard_deviation"]) for band in BANDS]
    return np.logical_and.reduce([np.asarray(x, dtype=bool) for x in (*long, *deviations)])


def _calibrate(calibrator, frame):
    """GaiaXPy's table of sampled spectra, without its messages."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        for band in BANDS:
            frame[f"{band}_coefficient_correlations"] = frame[f"{band}_coefficient_correlations"].map(np.asarray)
            frame[f"{band}_n_parameters"] = frame[f"{band}_n_parameters"].astype(int)
        try:
            found, wavelengths = calibrator.calibrate(frame, save_file=False)
        except Exception as error:  # of what is no spectrum, anything
            raise TokenError(
                f"GaiaXPy cannot calibrate these coefficients: {type(error).__name__}: {error}."
            ) from error
    if len(wavelengths) != len(xp.WAVELENGTHS) or not np.allclose(wavelengths, xp.WAVELENGTHS):
        raise TokenError(
            "This version of GaiaXPy has another default sampling than 336, 338, … 1020 nm; install another."
        )
    return found
