"""Checks of a grid's numbers and labels, in one pass over all its spectra."""

import dataclasses
import hashlib

import numpy as np

from .check_report import FAIL, OK, WARN, Check
from .grid import count_reasons

# LTE spectra of stars without a chromosphere cannot exceed the continuum. Interpolating the continuum between tabulated
# wavelengths costs up to 1e-3; an excess of 1 % is several times the error that an emulator should reach.
EXCESS_WARN, EXCESS_FAIL = 1e-3, 1e-2
DUPLICATES_FAIL = 0.01  # share of rows; fewer repeated spectra flatter the held-out error by too little to matter
FAILED_WARN = 0.05  # share of spectra that the code could not compute


def parts(rows, size) -> list:
    """`rows` in pieces of `size`."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@dataclasses.dataclass
class Totals:
    """Per spectrum: `finite`, `lowest`, `highest` flux, `pixel` of the highest, `above` (number of pixels above the
    continuum), `digest` of the flux. Per pixel: `excess`, the highest flux minus 1; `below`, the lowest flux."""

    finite: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    median: np.ndarray
    above: np.ndarray
    digest: list
    excess: np.ndarray
    below: np.ndarray


def scan(grid) -> Totals:
    """Read all spectra once, a few at a time."""
    blocks, digests = [], []
    excess, below = np.full((2, len(grid.wavelength)), -np.inf)
    for rows in parts(np.arange(len(grid)), 128):
        flux = np.asarray(grid.flux[rows], np.float32)
        finite = np.isfinite(flux)
        low, high = np.where(finite, flux, np.inf), np.where(finite, flux, -np.inf)
        blocks.append(
            np.stack(
                [
                    finite.all(axis=1),
                    low.min(axis=1),
                    high.max(axis=1),
                    np.median(np.where(finite, flux, 0.0), axis=1),
                    (high > 1 + EXCESS_WARN).sum(axis=1),
                ]
            )
        )
        excess = np.maximum(excess, high.max(axis=0) - 1)
        below = np.maximum(below, -low.min(axis=0))
        digests += [hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in flux]
    finite, lowest, highest, median, above = np.concatenate(blocks, axis=1)
    return Totals(finite.astype(bool), lowest, highest, median, above.astype(int), digests, excess, -below)


def check_all(grid, totals) -> list[Check]:
    """The checks `finite`, `negative`, `continuum`, `duplicates`, `domain` and `failures`."""
    return [
        _finite(grid, totals),
        _negative(totals),
        _continuum(grid, totals),
        _duplicates(grid, totals),
        _domain(grid),
        _failures(grid),
    ]


def _finite(grid, totals):
    labels = ~np.isfinite(grid.labels).all(axis=1)
    bad = ~totals.finite | labels
    details = {"rows": int(bad.sum()), "first_rows": np.flatnonzero(bad)[:10].tolist()}
    if not bad.any():
        return Check("finite", OK, "all labels and fluxes are finite", details=details)
    found = (
        f"NaN or infinite values in {describe_rows(bad)} ({(~totals.finite).sum()} in flux, {labels.sum()} in labels)"
    )
    return Check("finite", FAIL, found, "Remove these spectra, or compute them again.", details)


def _negative(totals):
    bad = totals.lowest < 0
    lowest = float(totals.lowest.min())
    details = {"rows": int(bad.sum()), "first_rows": np.flatnonzero(bad)[:10].tolist(), "lowest": _number(lowest)}
    if not bad.any():
        return Check("negative", OK, f"no negative flux; the lowest is {lowest:.4g}", details=details)
    found = f"flux below zero, down to {lowest:.4g}, in {describe_rows(bad)}"
    return Check(
        "negative", FAIL, found, "Remove these spectra; look for a failed synthesis or interpolation.", details
    )


def _continuum(grid, totals):
    high = totals.highest - 1
    worst, pixel = float(high.max()), int(np.argmax(totals.excess))
    bad = high > EXCESS_WARN
    touched = totals.above.sum() / (len(high) * len(grid.wavelength))
    details = {"rows": int(bad.sum()), "highest": _number(1 + worst), "share_of_pixels": float(touched)}
    details |= {"wavelength": float(grid.wavelength[pixel]), "first_rows": np.flatnonzero(bad)[:10].tolist()}
    if not bad.any():
        return Check("continuum", OK, f"no flux above the continuum; the highest is {1 + worst:.6g}", details=details)
    found = (
        f"flux up to {1 + worst:.4g} of the continuum (worst near {grid.wavelength[pixel]:.2f} Angstrom) in "
        f"{describe_rows(bad)}, {100 * touched:.2g} % of all pixels{_where(grid, bad)}"
    )
    remedy = (
        "Absorption spectra cannot exceed their continuum: compute flux and continuum with the same opacities and at "
        "the same wavelengths."
    )
    return Check("continuum", FAIL if worst > EXCESS_FAIL else WARN, found, remedy, details)


def _duplicates(grid, totals):
    """Equal labels with equal spectra, equal labels with different spectra, equal spectra at different labels."""
    labels = [np.ascontiguousarray(row).tobytes() for row in np.round(grid.labels, 9) + 0.0]
    by_labels, by_flux = _groups(labels), _groups(totals.digest)
    repeated = sum(len(g) - 1 for g in by_labels)
    contradicting = [g for g in by_labels if len({totals.digest[i] for i in g}) > 1]
    same_flux = [g for g in by_flux if len({labels[i] for i in g}) > 1]
    details = {
        "repeated_rows": repeated,
        "contradicting": [g[:10] for g in contradicting[:10]],
        "same_flux": [g[:10] for g in same_flux[:10]],
    }
    found = []
    if repeated:
        found.append(f"{repeated} of {len(labels)} rows repeat the labels of another, first rows {by_labels[0][:5]}")
    if contradicting:
        found.append(
            f"{len(contradicting)} of these groups have spectra that differ, first rows {contradicting[0][:5]}"
        )
    if same_flux:
        found.append(f"{len(same_flux)} groups share one spectrum at different labels, first rows {same_flux[0][:5]}")
    if not found:
        return Check("duplicates", OK, "all labels differ, and so do the spectra", details=details)
    limit = DUPLICATES_FAIL * len(labels)
    bad = bool(contradicting) or repeated > limit or sum(len(g) - 1 for g in same_flux) > limit
    remedy = "Keep one row of each group: a repeated spectrum that is both learned and held out flatters the error."
    return Check("duplicates", FAIL if bad else WARN, "; ".join(found), remedy, details)


def _groups(keys):
    """Rows with equal keys, as lists of two or more rows, in order of the first."""
    groups: dict = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [g for g in groups.values() if len(g) > 1]


def _domain(grid):
    finite = np.isfinite(grid.labels).all(axis=1)
    outside = finite & ~grid.label_space.contains(grid.labels)
    details = {"rows": int(outside.sum()), "first_rows": np.flatnonzero(outside)[:10].tolist()}
    if not outside.any():
        return Check("domain", OK, "all labels lie in the grid's domain", details=details)
    try:
        grid.label_space.check(grid.labels[outside][:1])
        first = ""
    except ValueError as error:
        first = f"; the first: {error}"
    remedy = "Correct the labels (units? order of the columns?), widen the domain, or remove these spectra."
    return Check("domain", FAIL, f"labels outside the domain in {describe_rows(outside)}{first}", remedy, details)


def _failures(grid):
    n, total = len(grid.failed), len(grid.failed) + len(grid)
    details = {"failed": n, "total": total}
    if not n:
        return Check("failures", OK, "no spectrum is recorded as failed", details=details)
    reason, count = count_reasons(reason for _, reason in grid.failed)[0]
    labels = np.array([row for row, _ in grid.failed])
    centre = ", ".join(f"{name} {value:.4g}" for name, value in zip(grid.label_space.names, np.median(labels, axis=0)))
    found = f"{n} of {total} spectra could not be computed, {count} of them: {reason} (median labels: {centre})"
    if n <= FAILED_WARN * total:
        return Check("failures", OK, found, details=details)
    remedy = "An emulator extrapolates where spectra are missing: narrow the domain, or repair the synthesis there."
    return Check("failures", WARN, found, remedy, details)


def describe_rows(bad) -> str:
    """`3 of 100 spectra (rows 4, 7, 9)` for a mask of rows."""
    rows = np.flatnonzero(bad)
    listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    return f"{len(rows)} of {len(bad)} spectra (rows {listed})"


def _where(grid, bad) -> str:
    """In which part of the domain the bad rows lie: the labels whose median there is far from that of the others."""
    if bad.all() or bad.sum() < 5:
        return ""
    space, parts = grid.label_space, []
    for i, (name, width) in enumerate(zip(space.names, space.half_width)):
        inside, others = np.nanmedian(grid.labels[bad, i]), np.nanmedian(grid.labels[~bad, i])
        if abs(inside - others) > 0.4 * width:
            parts.append(f"{'high' if inside > others else 'low'} {name} (median {inside:.4g}, others {others:.4g})")
    return f", mostly at {' and '.join(parts)}" if parts else ""


def _number(value):
    return float(value) if np.isfinite(value) else None
