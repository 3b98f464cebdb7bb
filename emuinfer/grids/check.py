"""Is a grid fit to be learned from? Checks of its numbers, its labels and its physics, as one report."""

import numpy as np

from ..errors import GridError
from ..labels.windows import window_of
from ..synthesis.lines import load_line_list
from . import check_numbers
from .check_lines import check_elements, check_medium
from .check_report import FAIL, SKIPPED, Check, GridReport, Sample
from .check_response import check_dead, check_steps

MAX_ROWS, MAX_PIXELS = 1200, 16_000  # of the sample in which responses are measured: 80 MB per copy in float32
MIN_USABLE = 20


def check_grid(grid, line_list=None) -> GridReport:
    """Examine a `Grid` (lazy ones stay on disk) and say what would spoil an emulator trained on it.

    Checks: `finite`, `negative`, `continuum` (flux above it), `duplicates`, `domain`, `failures` (of the code that made
    the spectra), `dead labels`, `elements` (raising [X/Fe] deepens the lines of X), `steps` (at nodes of the model
    atmospheres), `medium` (of the wavelengths). Numbers are checked in all spectra, responses in at most 1,200 of them.

    - `line_list`: a `LineList` that covers the grid's wavelengths; by default that of the window that they share most of.
        The checks `elements` and `medium` are skipped where there are no lines.

    Grids read with `validate=False` may hold values that `Grid` refuses. Raises `GridError` if the grid is empty.
    """
    if not len(grid):
        raise GridError("The grid holds no finished spectra, so there is nothing to check.")
    totals = check_numbers.scan(grid)
    checks = check_numbers.check_all(grid, totals)
    usable = np.flatnonzero(totals.finite & np.isfinite(grid.labels).all(axis=1))
    needed = max(MIN_USABLE, 2 * len(grid.label_space) + 8)
    few = f"only {len(usable)} usable spectra for {len(grid.label_space)} labels; {needed} are needed"
    problem = few if len(usable) < needed else _unusable(grid, totals, usable)
    if problem:
        dead = Check("dead labels", SKIPPED if problem is few else FAIL, problem)
        rest = (Check(name, SKIPPED, problem) for name in ("elements", "steps", "medium"))
        return GridReport(repr(grid), (*checks, dead, *rest))
    lines = _lines_for(grid) if line_list is None else line_list
    sample = take_sample(grid, usable, lines)
    medium, shift = check_medium(grid, sample, lines)
    checks += [
        check_dead(grid, sample),
        check_elements(grid, sample, lines, shift),
        check_steps(grid, sample),
        medium,
    ]
    return GridReport(repr(grid), tuple(checks))


def _lines_for(grid):
    # Whatever the medium that the grid states: that is to be checked.
    return load_line_list(window=window_of((grid.wavelength[0], grid.wavelength[-1])))


def take_sample(grid, usable, lines) -> Sample:
    """At most `MAX_ROWS` of the `usable` rows, evenly spread in their order, and about `MAX_PIXELS` pixels: all that
    `lines` covers, if these are not too many, and some of the others."""
    rows = usable[np.unique(np.linspace(0, len(usable) - 1, min(len(usable), MAX_ROWS)).round().astype(int))]
    wave = grid.wavelength
    chosen = np.arange(len(wave)) % -(-len(wave) // MAX_PIXELS) == 0
    covered = (wave > lines.wavelength.min()) & (wave < lines.wavelength.max())
    if covered.sum() <= MAX_PIXELS:
        chosen |= covered
    flux = [np.asarray(grid.flux[part], np.float32)[:, chosen] for part in check_numbers.parts(rows, 64)]
    return Sample(rows, grid.labels[rows], wave[chosen], np.concatenate(flux))


def _unusable(grid, totals, usable) -> str:
    """Why responses cannot be measured, or nothing."""
    if len(set(totals.digest)) == 1 or not np.ptp(grid.labels[usable], axis=0).any():
        return "all spectra, or all their labels, are the same"
    if np.median((totals.highest - totals.lowest)[usable]) < 1e-3:
        return "the spectra have no lines"
    typical = float(np.median(totals.median[usable]))
    if not 0.05 < typical < 1.5:
        return f"the median flux is {typical:.3g}: not divided by the continuum"
    return ""
