"""The table of line errors of a window, from a calibration: what each line does to spectra of many kinds, and how well it is known."""

import numpy as np

from ..constants import LN_10
from ..likelihoods.line_factors import LEAST_DEPTH, LineFactors
from ..synthesis.derivatives import line_derivatives

# Teff (K), log g, vmic (km/s) of the atmospheres of the table, each at all of `METALS`.
ATMOSPHERES = (
    (4300, 1.4, 1.6),
    (4300, 4.6, 0.9),
    (5000, 2.6, 1.5),
    (5000, 4.6, 0.9),
    (5770, 4.3, 1.0),
    (6600, 4.1, 1.7),
)
METALS = (0.0, -1.2, -2.5)
WIDE = 0.45  # Å: a line whose effect is spread over more is a factor of its own
DEEP = 0.05  # and that changes the flux by more than this per dex, somewhere
BROAD = 0.03  # of the flux, per dex of the van der Waals width
ALIKE = 5  # lines of a species that matters at least
SPECIES_SD = {
    1: 0.03,
    2: 0.05,
}  # dex, of neutral atoms and of ions: how far a species moves as a whole from star to star
UNKNOWN = 1.5  # times the scatter of its species: the error of a line that no star has measured
UNKNOWN_WIDTH = 0.15  # dex, of a van der Waals width that no star has measured
REACH = 5.0  # Å on each side of a strong line


def reference_labels(space) -> np.ndarray:
    """Labels `(n_ref, n_labels)` of the atmospheres, of solar abundances but for the α elements of metal-poor stars."""
    rows = []
    for teff, logg, vmic in ATMOSPHERES:
        for fe_h in METALS:
            known = {"teff": teff, "logg": logg, "fe_h": fe_h, "vmic": vmic}
            alpha = {f"{x}_fe": min(0.4, -0.4 * fe_h) * 0.75 for x in ("o", "mg", "si", "ca", "ti")}
            rows.append([{**alpha, **known}.get(name, 0.0) for name in space.names])
    return np.clip(np.array(rows, float), space.lower, space.upper)


def _extent(rows, step):
    """Å over which the rows `(n, n_wave)` (sparse) are spread: (Σ|x|)² / Σx² steps."""
    total, square = abs(rows).sum(axis=1), rows.multiply(rows).sum(axis=1)
    return np.asarray(total**2 / np.maximum(square, 1e-30)).ravel() * step


def largest_of(rows) -> np.ndarray:
    """Largest absolute value in each of the sparse `rows`."""
    return abs(rows).max(axis=1).toarray().ravel()


class _Star:
    """What all groups of lines do to one spectrum: relative changes of the depth per dex, sparse `(n_groups, n_wave)`."""

    def __init__(self, synthesizer, labels, gather):
        found = line_derivatives(synthesizer, labels)
        scale = -LN_10 / (np.maximum(1.0 - found.flux, 0.0) + LEAST_DEPTH)
        self.flux = found.flux
        self.absolute = [(gather @ m).tocsr() * LN_10 for m in (found.strength, found.damping)]
        self.relative = [(gather @ m).tocsr().multiply(scale[None]).tocsr() for m in (found.strength, found.damping)]


def line_factor_table(calibration, synthesizer, wavelength, medium, known_fe_h, meta=None) -> LineFactors:
    """The `LineFactors` of `calibration` (`recipes.line_calibration.Calibration`).

    `synthesizer`: with the calibrated lines, in the order of the calibration's list, on `wavelength` `(n,)` Å in `medium`, in nearly equal
    steps. `known_fe_h`: [Fe/H] of the stars that were used.
    """
    p = calibration.parameters
    n_groups, step = len(p.group_species), float(np.median(np.diff(wavelength)))
    labels = reference_labels(synthesizer.labels)
    stars = [_Star(synthesizer, row, p.by_group) for row in labels]
    wide, broad = np.zeros(n_groups, bool), np.zeros(n_groups, bool)
    for star in stars:
        wide |= (_extent(star.absolute[0], step) > WIDE) & (largest_of(star.absolute[0]) > DEEP)
        broad |= largest_of(star.absolute[1]) > BROAD
    broad &= wide
    matters = np.max([largest_of(s.absolute[0]) for s in stars[:: len(METALS)]], axis=0) > DEEP
    names = [s for s in np.unique(p.group_species) if np.sum(matters & (p.group_species == s)) >= ALIKE]
    sd_strength, sd_width, covariance = _errors(calibration)
    weak = np.flatnonzero(~wide)
    own, unit = _weak(stars, weak, sd_strength, covariance, calibration)
    start, shape, sd, kind = _strong(stars, p, wide, broad, (sd_strength, sd_width), len(wavelength), step, wavelength)
    at = [labels[:, synthesizer.labels.index(n)] for n in ("teff", "logg", "fe_h")]
    species = np.array([[s.relative[0][p.group_species == k].sum(axis=0) for s in stars] for k in names])
    return LineFactors(
        np.asarray(wavelength, float), np.stack(at, 1), own, unit, start, shape, sd, kind,
        species.reshape(len(names), len(stars), -1), np.array([SPECIES_SD[k % 10] for k in names]),
        tuple(float(x) for x in known_fe_h), medium, meta={**(meta or {}), "species": [int(k) for k in names]},
    )  # fmt: skip


def _errors(calibration):
    """Errors of strength and width of each group (dex), and the covariance of the calibrated strengths."""
    p, prior = calibration.parameters, calibration.prior
    n, error = len(p.strong), np.sqrt(np.diag(calibration.covariance))
    scale = {s: prior.scale[:n][p.species[:n] == s].mean() for s in np.unique(p.species[:n])}
    strength = UNKNOWN * np.array([scale.get(s, float(np.mean(list(scale.values())))) for s in p.group_species])
    strength[p.strong] = error[:n]
    width = np.full(len(strength), UNKNOWN_WIDTH)
    width[p.wide] = error[n:]
    return strength, width, calibration.covariance[:n, :n]


def _weak(stars, weak, sd, covariance, calibration):
    """Relative errors of the depth `(n_ref, n_wave)` by the lines `weak`, and their changes by 1 dex of each."""
    strong = calibration.parameters.strong
    known = np.isin(weak, strong)
    row = np.searchsorted(strong, weak[known])
    block = covariance[np.ix_(row, row)]
    own, unit = [], []
    for star in stars:
        rows = star.relative[0][weak]
        measured = rows[np.flatnonzero(known)].toarray()
        variance = np.einsum("ij,ij->j", measured, block @ measured)
        others = rows[np.flatnonzero(~known)]
        variance = variance + (sd[weak[~known]] ** 2) @ others.multiply(others)
        own.append(np.sqrt(np.maximum(variance, 0.0)))
        unit.append(np.sqrt(rows.multiply(rows).sum(axis=0)))
    return np.array(own), np.array(unit)


def _strong(stars, p, wide, broad, errors, n, step, wavelength):
    """Windows of the factors of strong lines: `(start, shape, sd, kind)` of `LineFactors`."""
    width = min(n, 2 * int(REACH / step))
    centre = np.zeros(len(wide))
    centre[p.group] = p.lines.wavelength
    which = [(g, 0) for g in np.flatnonzero(wide)] + [(g, 1) for g in np.flatnonzero(broad)]
    start = np.array(
        [np.clip(np.searchsorted(wavelength, centre[g]) - width // 2, 0, n - width) for g, _ in which], int
    )
    shape = np.zeros((len(which), len(stars), width))
    for i, (g, k) in enumerate(which):
        for r, star in enumerate(stars):
            shape[i, r] = star.relative[k][[g]].toarray()[0, start[i] : start[i] + width]
    sd = np.array([errors[k][g] for g, k in which])
    return start, shape, sd, np.array([k for _, k in which], int)
