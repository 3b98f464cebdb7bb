"""The vocabulary `stars-xp` and its training table: Gaia XP spectra, colours and APOGEE labels of stars. Host only."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..errors import TokenError
from . import xp
from .columns import COLOURS as MAGNITUDES_OF_COLOURS
from .kinds import Kind, Vocabulary, fitted
from .tokenset import NORMALISED, TokenSet, level_of

NAME = "stars-xp"
TRAIN, VALIDATION, TEST = 0, 1, 2
COLOURS = ("bp_rp", "g_rp", "j_h", "j_k", "g_k")
MAGNITUDE = "phot_g_mean_mag"
# Gaia's and 2MASS's names of the magnitudes (Vega), and those of the training table.
COLUMNS = {
    "phot_g_mean_mag": "g",
    "phot_bp_mean_mag": "bp",
    "phot_rp_mean_mag": "rp",
    "j_m": "j",
    "h_m": "h",
    "ks_m": "k",
}
LABELS = {  # unit, transform, what it is
    "teff": ("K", "log", "effective temperature"),
    "logg": ("dex", "identity", "log10 of the surface gravity in cm/s2"),
    "fe_h": ("dex", "identity", "iron abundance [Fe/H]"),
    "alpha_m": ("dex", "identity", "abundance of alpha elements over metals, [alpha/M]"),
    "a_k": ("mag", "identity", "extinction in 2MASS Ks, A_K"),
}
CHUNK = 4000  # stars whose samples are in memory at a time
ITERATIONS = 4  # of centres and levels, which depend on each other


class Stars(NamedTuple):
    """The training table as tokens: `tokens` of n stars, `split` (0 train, 1 validation, 2 test) and APOGEE's S/N per pixel.

    `usable` are the stars of the published comparisons: [Fe/H] known, S/N above 30, Teff below 8,000 K.
    """

    vocabulary: Vocabulary
    tokens: TokenSet
    split: np.ndarray
    snr: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        value = lambda name: self.tokens.values[:, self.vocabulary.index(name)]
        with np.errstate(invalid="ignore"):
            return np.isfinite(value("fe_h")) & (self.snr > 30) & (value("teff") < 8000)

    def rows(self, split: int) -> TokenSet:
        """The stars of a split."""
        return self.tokens[self.split == split]


def kinds() -> list[Kind]:
    """The kinds of `stars-xp`, in order, not fitted to any data."""
    coefficients = [
        Kind(name, "", "xp_coefficients", head="student", description=f"XP flux on singular vector {k}")
        for k, name in enumerate(xp.COEFFICIENT_NAMES)
    ]
    bins = [
        Kind(name, "", "xp_bins", "log", wavelength=float(10 * nm), width=100.0, relative=True, head="student",
             description=f"mean XP flux per wavelength, {nm - 5:.0f} to {nm + 5:.0f} nm")
        for name, nm in zip(xp.BIN_NAMES, xp.BINS)
    ]  # fmt: skip
    colours = [Kind(name, "mag", "colours", description=" - ".join(MAGNITUDES_OF_COLOURS[name])) for name in COLOURS]
    # Pivot wavelength: Riello et al. (2021, A&A 649, A3); effective width: SVO Filter Profile Service, GAIA/GAIA3.G
    magnitude = Kind(MAGNITUDE, "mag", "magnitudes", wavelength=6217.6, width=4053.0, description="Gaia G")
    labels = [Kind(name, unit, "labels", how, description=what) for name, (unit, how, what) in LABELS.items()]
    return [*coefficients, *bins, *colours, magnitude, *labels]


def stars_tokens(arrays: Mapping[str, np.ndarray], vocabulary: Vocabulary | None = None) -> Stars:
    """All stars of the training table's arrays (`emuinfer data stars-xp`) as tokens, with splits and label errors.

    `vocabulary`: of a trained network; if none is given, one fitted to the stars of the training split.
    """
    arrays = _checked(arrays)
    index = {str(name): i for i, name in enumerate(arrays["label_names"])}
    label = lambda name: np.asarray(arrays["labels"][:, index[name]], dtype=float)
    n, unfitted = len(arrays["split"]), Vocabulary(kinds(), NAME)
    values, errors = (np.full((n, len(unfitted)), np.nan) for _ in range(2))
    coefficients, bins = unfitted.group("xp_coefficients"), unfitted.group("xp_bins")
    for rows in (slice(start, start + CHUNK) for start in range(0, n, CHUNK)):
        spectrum = xp.spectrum_tokens(*samples_of(arrays, rows), arrays["basis"])
        values[rows, coefficients], values[rows, bins] = spectrum["coefficients"], spectrum["bins"]
        errors[rows, bins] = spectrum["errors"]
    for name in COLOURS:
        blue, red = (label(COLUMNS[magnitude]) for magnitude in MAGNITUDES_OF_COLOURS[name])
        values[:, unfitted.index(name)] = blue - red
    values[:, unfitted.index(MAGNITUDE)] = label(COLUMNS[MAGNITUDE])
    for name in LABELS:
        values[:, unfitted.index(name)] = label(name)
        if f"{name}_err" in index:
            errors[:, unfitted.index(name)] = label(f"{name}_err")
    split = np.asarray(arrays["split"])
    if vocabulary is not None and vocabulary.names != unfitted.names:
        raise TokenError(f"The vocabulary is not that of {NAME}: its kinds are {vocabulary.describe()}.")
    vocabulary = vocabulary or fit_vocabulary(unfitted, values[split == TRAIN])
    tokens = TokenSet(vocabulary, values, errors, arrays["source_id"], "source_id")
    return Stars(vocabulary, tokens, split, label("apogee_snr"))


def stars_vocabulary(arrays: Mapping[str, np.ndarray]) -> Vocabulary:
    """The vocabulary of `stars-xp`, fitted to the training split of the table's arrays."""
    return stars_tokens(arrays).vocabulary


def fit_vocabulary(vocabulary: Vocabulary, values) -> Vocabulary:
    """`vocabulary` with the centres, scales and ranges of training values `(n, K)`."""
    values = np.array(values, dtype=float)
    relative = vocabulary.relative
    wavelength = np.array([kind.wavelength or np.nan for kind in vocabulary])
    with np.errstate(invalid="ignore"):
        inner = relative & (wavelength >= NORMALISED[0]) & (wavelength <= NORMALISED[1])
    x = np.stack([kind.transformed(column) for kind, column in zip(vocabulary, values.T)], axis=1)
    found = [kind if kind.relative else fitted(kind, column) for kind, column in zip(vocabulary, x.T)]
    if relative.any():
        x = x - np.where(relative, level_of(x, np.isfinite(x) & (inner if inner.any() else relative))[:, None], 0.0)
        x = x[:, relative]
        centre = np.nanmedian(x, axis=0)
        for _ in range(ITERATIONS):
            level = level_of(x - centre, np.isfinite(x))[:, None]
            centre = np.nanmedian(x - level, axis=0)
        level = level_of(x - centre, np.isfinite(x))[:, None]
        for k, column in zip(np.flatnonzero(relative), (x - level).T):
            found[k] = fitted(vocabulary[k], column)
    return Vocabulary(found, vocabulary.name)


def samples_of(arrays: Mapping[str, np.ndarray], rows=slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes `(n, 343)`, 1 at 718 nm, and their standard deviations, of stars of the training table's arrays."""
    flux = (arrays["coef_q"][rows] * arrays["coef_scale"]).astype(float) @ arrays["basis"].T.astype(float)
    low, high = (float(v) for v in arrays["err_log10_range"])
    stored = arrays["err_q"][rows].astype(float) / 255 * (high - low) + low
    return flux, 10.0 ** (stored @ _interpolation(arrays["err_index"]))


def _interpolation(index) -> np.ndarray:
    """`(m, 343)`: the matrix of the linear interpolation from the samples `index` to all."""
    index = np.asarray(index, dtype=int)
    return np.stack([np.interp(np.arange(len(xp.WAVELENGTHS)), index, row) for row in np.eye(len(index))])


NEEDED = (
    "source_id", "labels", "label_names", "split", "wave_nm", "basis", "coef_q", "coef_scale", "err_index", "err_q",
    "err_log10_range",
)  # fmt: skip


def _checked(arrays) -> dict[str, np.ndarray]:
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise TokenError(
            f"The training table lacks {', '.join(missing)}. Build it with `emuinfer data stars-xp`, or give the arrays of "
            "its file."
        )
    found = {name: np.asarray(arrays[name]) for name in NEEDED}
    if not np.array_equal(found["wave_nm"], xp.WAVELENGTHS):
        raise TokenError("The training table's spectra are not sampled at 336, 338, …, 1020 nm, GaiaXPy's default.")
    return found
