"""Columns in a wrong unit, told by their distance from the training values. Host only."""

import dataclasses

import numpy as np

from . import xp
from .kinds import Kind, Vocabulary
from .tokenset import TokenSet

MOST = 0.5  # of the values must lie outside before a column is doubted, and
BACK = 0.9  # of them inside after a change that is proposed
FACTORS = (1e-1, 10.0, 1e-2, 100.0, 1e-3, 1e3, 1e-4, 1e4, 1e-6, 1e6)
FAR = 5.0  # standard deviations, of the median: nearer values may be those of odd objects
MANY = 5  # values whose spread says something
ERRORS_ABOVE = 20.0  # times the scale of the training values
GAIN = 0.2  # of chi-square per bin, by which spectra must be likelier after a change than as they are
SPECTRA_CHANGED = {
    -2.0: "per frequency (Jy); convert them to fluxes per wavelength, or state the unit",
    2.0: "per wavelength that were converted to such once more; give them as they were",
    -1.0: "counts of photons per wavelength; convert them to energies, or state the unit",
}


@dataclasses.dataclass(frozen=True)
class Doubt:
    """A kind whose values lie outside of those of the training: `distance` in robust standard deviations (median), the share
    `outside`, and the `factor` that would bring them back (None if there is none). `str` of it is a sentence."""

    name: str
    distance: float
    outside: float
    factor: float | None
    text: str

    def __str__(self):
        return self.text


def check_plausible(tokens: TokenSet, vocabulary: Vocabulary | None = None) -> list[Doubt]:
    """Which kinds of a set of objects lie so far from the training values that a wrong unit is likelier than odd objects.

    Of each kind, the share of values outside of the range of the training, and what power of ten (or logarithm) would bring
    nine in ten back; errors far larger than the scale of the values; XP spectra that would be far likelier as fluxes per
    wavelength after another power of the wavelength. A column is doubted if most of its values are.
    """
    vocabulary = vocabulary or tokens.vocabulary
    doubts = []
    for k, kind in enumerate(vocabulary):
        seen = tokens.seen[:, k] if kind.transform == "log" else np.isfinite(tokens.values[:, k])
        values, errors = tokens.values[seen, k], tokens.errors[seen, k]
        if len(values) and not kind.relative and kind.group != "xp_coefficients":
            doubts += [d for d in (_doubt_of(kind, values), _doubt_of_errors(kind, values, errors)) if d is not None]
    return doubts + _doubts_of_spectra(tokens, vocabulary)


def _inside(kind: Kind, values) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.mean((values >= kind.lower) & (values <= kind.upper)))


def _distance(kind: Kind, values) -> float:
    return float(np.nanmedian(np.abs(kind.transformed(values) - kind.centre)) / kind.scale)


def _doubt_of(kind, values) -> Doubt | None:
    if kind.lower is None or kind.upper is None or _inside(kind, values) > 1 - MOST:
        return None
    outside, distance = 1 - _inside(kind, values), _distance(kind, values)
    if distance < FAR:
        return None  # odd objects
    change = _change(kind, values)
    factor = change if isinstance(change, float) else None
    remedy = (
        f"Times {factor:g} they would lie inside: are they in another unit?"
        if factor
        else "They would lie inside if they were logarithms (base 10): give the values themselves."
        if change
        else "No power of ten brings them back: is it the right column, or are the objects of another sort?"
    )
    unit = f" {kind.unit}" if kind.unit else ""
    text = (
        f"{kind.name}: {100 * outside:.0f} % of {len(values)} values lie outside of {kind.lower:.4g} to {kind.upper:.4g}{unit}, "
        f"where those of the training lie; their median is {np.median(values):.4g}, {distance:.0f} standard deviations away. {remedy}"
    )
    return Doubt(kind.name, distance, outside, factor, text)


def _change(kind, values) -> float | str | None:
    """The power of ten, or "logarithm", that brings values back to those of the training; the one that makes them most alike."""
    found: dict[float | str, float] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        changed: dict[float | str, np.ndarray] = {f: values * f for f in FACTORS}
        changed["logarithm"] = 10.0 ** np.clip(values, -300, 300)
    for change, candidates in changed.items():
        if _inside(kind, candidates) >= BACK:
            z = (kind.transformed(candidates) - kind.centre) / kind.scale
            middle = float(np.nanmedian(z))
            spread = 1.4826 * float(np.nanmedian(np.abs(z - middle))) if len(values) >= MANY else 1.0
            found[change] = abs(middle) + abs(np.log(max(spread, 1e-3)))
    return min(found, key=lambda change: found[change]) if found else None


def _doubt_of_errors(kind, values, errors) -> Doubt | None:
    with np.errstate(invalid="ignore"):
        known = np.isfinite(errors) & (errors > 0)
    if not known.any():
        return None
    distance = float(np.nanmedian(kind.transformed_error(values[known], errors[known]))) / kind.scale
    if not distance > ERRORS_ABOVE:
        return None
    text = (
        f"{kind.name}: half of its errors are larger than {distance:.0f} standard deviations of the training values (median "
        f"{np.median(errors[known]):.4g} {kind.unit}). Are they in another unit?"
    )
    return Doubt(f"e_{kind.name}", distance, 1.0, None, text.replace(" )", ")"))


def _doubts_of_spectra(tokens, vocabulary) -> list[Doubt]:
    logarithms = _logarithms(tokens, vocabulary)
    if not len(logarithms):
        return []
    wavelength = np.log(xp.BINS / 700.0)
    as_they_are = chi2_of_shapes(logarithms)
    gains = {p: as_they_are - chi2_of_shapes(logarithms + p * wavelength) for p in SPECTRA_CHANGED}
    power = max(gains, key=lambda p: float(np.median(gains[p])))
    better = float(np.mean(gains[power] > GAIN))
    if better <= MOST:
        return []
    text = (
        f"XP fluxes: {100 * better:.0f} % of {len(logarithms)} spectra would be far likelier times the wavelength to the power "
        f"{power:g} (chi-square per bin {np.median(as_they_are):.2f} as they are, {np.median(as_they_are - gains[power]):.2f} then): "
        f"these may be fluxes {SPECTRA_CHANGED[power]}."
    )
    return [Doubt("flux", float(np.sqrt(np.median(as_they_are))), better, None, text)]


def _logarithms(tokens, vocabulary) -> np.ndarray:
    """ln flux in the 68 bins, of those objects that have them all or all coefficients."""
    found = []
    for group in ("xp_bins", "xp_coefficients"):
        if group in vocabulary.groups:
            values = tokens.values[:, vocabulary.group(group)]
            if group == "xp_coefficients":
                values = xp.in_bins(xp.samples_from(values[np.isfinite(values).all(axis=1)]))
            with np.errstate(invalid="ignore"):
                found.append(np.log(values[np.isfinite(values).all(axis=1) & (values > 0).all(axis=1)]))
    return next((one for one in found if len(one)), np.empty((0, 0)))


def chi2_of_shapes(logarithms) -> np.ndarray:
    """Chi-square per bin of ln fluxes `(n, 68)` under the Gaussian of the shapes of real stars' spectra; any level."""
    known = xp.reference()
    departures = logarithms - logarithms.mean(axis=1, keepdims=True) - known["shape_mean"]
    solved = np.linalg.solve(known["shape_covariance"].astype(float), departures.T)
    return np.einsum("ni,in->n", departures, solved) / departures.shape[1]
