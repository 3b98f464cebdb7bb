"""Calibrate strengths and widths of spectral lines on benchmark stars: `python -m emuinfer.recipes.line_calibration STARS OUTPUT`.

Every star gives, linearised about its present model, a Gaussian likelihood of the changes of log gf and of the van der Waals widths
of all lines that matter, its own parameters (labels within the errors of their literature values, broadening, velocity, continuum)
eliminated. A line's change in a star differs from the common one by a star-to-star term (departures from LTE and from one dimension).
Common changes have a heavy-tailed prior, a Student-t distribution with a mean and a scatter per species, which are estimated. The
equations are solved by Gauss–Newton steps, at which synthesis and derivatives are exact.

STARS is a table (ECSV, CSV) with the columns `name`, `file`, `resolution`, `snr` (if the file has no errors), labels such as `teff`
and `teff_sd`, and `medium` if the file does not say.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from ..errors import EmuinferError
from ..files import write_arrays
from ..observations import Observation
from ..synthesis.lines import LineList, load_line_list
from ..synthesis.synthesizer import LTESynthesizer
from ..wavelengths.uniform import log_grid
from .line_stars import FLOOR, CalibrationStar

TAIL = 4.0  # degrees of freedom of the prior of changes
SCATTER = {"strength": 0.12, "width": 0.12}  # dex: prior of the scatter within a species
SCATTER_WEIGHT = 8.0  # lines that the prior of a species' scatter counts as
SPECIES_SD = 0.05  # dex: of the mean change of a species
STAR_TO_STAR = 0.05  # dex: of one line between two stars like the Sun
PER_DEX = 0.067  # dex per dex of [Fe/H] from the Sun's, departures from LTE (`likelihoods.line_errors.PER_DEX` / ln 10)
MATTERS = {"strength": 0.003, "width": 0.003}  # largest change of the flux per unit of ln, in any star
LARGEST_STEP = 0.3  # dex
FIRST_FLOOR = 0.05  # of the normalised flux, halved in each step until it is `FLOOR`
ABSENT = -0.6  # dex: a line that comes out weaker than this is not there
HYPERFINE_APART = 0.4  # Å, components of one transition
HYPERFINE_ENERGY = 2e-3  # eV


def tie_hyperfine(lines: LineList) -> np.ndarray:
    """Index of the parameter that each line belongs to, `(n_lines,)`: components of one transition share one.

    Components of hyperfine structure and isotopes have one lower level and lie close together; only elements of odd atomic number,
    and isotopes that the list tells apart, have them.
    """
    group = np.arange(len(lines))
    order = np.lexsort((lines.wavelength, lines.ion, lines.element))
    split = (lines.element % 2 == 1) | (lines.isotope > 0)
    for a, b in zip(order[:-1], order[1:]):
        same = lines.element[a] == lines.element[b] and lines.ion[a] == lines.ion[b] and split[a] and split[b]
        close = lines.wavelength[b] - lines.wavelength[a] < HYPERFINE_APART
        if same and close and abs(lines.e_low[b] - lines.e_low[a]) < HYPERFINE_ENERGY:
            group[b] = group[a]
    return np.unique(group, return_inverse=True)[1]


class LineParameters:
    """Which parameters there are: changes of log gf first, then of log10 of the width, each for a group of lines.

    `group` `(n_lines,)`; `strong`, `wide`: the groups that have a parameter of strength, of width.
    """

    def __init__(self, lines: LineList, group, strong, wide):
        import scipy.sparse

        self.lines, self.group, self.strong, self.wide = lines, group, strong, wide
        n = group.max() + 1
        gather = scipy.sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))), (n, len(group)))
        self._strength, self._width = gather[strong], gather[wide]
        self.kind = np.repeat(["strength", "width"], [len(strong), len(wide)])
        first = np.unique(group, return_index=True)[1]
        species = lines.element.astype(int) * 10 + lines.ion
        self.species = np.concatenate([species[first[strong]], species[first[wide]]])
        self.wavelength = np.concatenate([lines.wavelength[first[strong]], lines.wavelength[first[wide]]])

    def __len__(self):
        return len(self.kind)

    def expand(self, values):
        """Changes of log gf and of log10 width of every line (dex), two arrays `(n_lines,)`."""
        n = len(self.strong)
        return self._strength.T @ values[:n], self._width.T @ values[n:]

    def gather(self, derivatives):
        """Derivatives by the parameters (per unit of ln), sparse `(n, n_grid)`."""
        import scipy.sparse

        return scipy.sparse.vstack(
            [self._strength @ derivatives.strength, self._width @ derivatives.damping], format="csr"
        )


def line_parameters(stars, lines) -> LineParameters:
    """The parameters of all lines that matter in at least one star."""
    from ..synthesis.line_derivatives import line_derivatives

    group = tie_hyperfine(lines)
    n = group.max() + 1
    largest = np.zeros((2, n))
    for star in stars:
        here = line_derivatives(star.synthesizer, star.labels)
        for k, matrix in enumerate((here.strength, here.damping)):
            np.maximum.at(largest[k], group, abs(matrix).max(axis=1).toarray().ravel())
    return LineParameters(
        lines, group, np.flatnonzero(largest[0] > MATTERS["strength"]), np.flatnonzero(largest[1] > MATTERS["width"])
    )


@dataclasses.dataclass
class Prior:
    """Student-t prior of the changes: `mean` and `scale` per parameter, and the weights that make it a Gaussian one."""

    parameters: LineParameters
    mean: np.ndarray
    scale: np.ndarray
    precision: np.ndarray

    @classmethod
    def start(cls, parameters):
        scale = np.array([SCATTER[k] for k in parameters.kind])
        return cls(parameters, np.zeros(len(scale)), scale, scale**-2.0)

    def update(self, values, variance):
        """One step of expectation–maximisation: weights, and mean and scatter of each species."""
        for kind in SCATTER:
            for species in np.unique(self.parameters.species):
                one = (self.parameters.species == species) & (self.parameters.kind == kind)
                if not one.any():
                    continue
                square = (values[one] - self.mean[one]) ** 2 + variance[one]
                weight = (TAIL + 1) / (TAIL + square / self.scale[one] ** 2)
                found = (weight @ square + SCATTER_WEIGHT * SCATTER[kind] ** 2) / (one.sum() + SCATTER_WEIGHT)
                self.scale[one] = np.sqrt(found)
                self.precision[one] = weight / found
                sure = self.precision[one]
                self.mean[one] = (sure @ values[one]) / (sure.sum() + SPECIES_SD**-2.0)


def solve(equations, distances, prior):
    """Common changes `(n,)` and their covariance `(n, n)` from the stars' equations; `distances`: |Δ[Fe/H]| from the Sun."""
    matrix, vector = np.diag(prior.precision), prior.precision * prior.mean
    for one, distance in zip(equations, distances):
        between = STAR_TO_STAR**2 + (PER_DEX * distance) ** 2
        damped = np.linalg.solve(
            np.eye(len(vector)) + between * one.precision, np.column_stack([one.precision, one.vector])
        )
        matrix = matrix + damped[:, :-1]
        vector = vector + damped[:, -1]
    covariance = np.linalg.inv(0.5 * (matrix + matrix.T))
    return covariance @ vector, covariance


@dataclasses.dataclass
class Calibration:
    """`values` `(n,)` dex and `covariance`, of `parameters`; `used`: names of the stars; `stars`: what the fit says of each."""

    parameters: LineParameters
    values: np.ndarray
    covariance: np.ndarray
    prior: Prior
    used: tuple[str, ...]
    stars: dict

    def save(self, path):
        p = self.parameters
        strength, width = p.expand(self.values)
        error = np.sqrt(np.diag(self.covariance))
        errors = p.expand(error)
        meta = {"used": self.used, "stars": self.stars, "source": p.lines.source}
        write_arrays(path, {
            "wavelength": p.lines.wavelength, "element": p.lines.element, "ion": p.lines.ion,
            "strength": strength.astype(np.float32), "strength_error": errors[0].astype(np.float32),
            "width": width.astype(np.float32), "width_error": errors[1].astype(np.float32),
            "group": p.group.astype(np.int32), "meta": json.dumps(meta),
        })  # fmt: skip


def calibrate(stars, lines, iterations: int = 8, parameters=None, report=None) -> Calibration:
    """Gauss–Newton for all stars at once."""
    parameters = parameters or line_parameters(stars, lines)
    prior, values = Prior.start(parameters), np.zeros(len(parameters))
    solar = lambda star: abs(star.labels[list(star.synthesizer.labels.names).index("fe_h")])
    for iteration in range(iterations):
        floor = max(FLOOR, FIRST_FLOOR * 0.5**iteration)  # lines that are far off are not outliers in the beginning
        equations = [star.equations(parameters, values, floor) for star in stars]
        target, covariance = solve(equations, [solar(s) for s in stars], prior)
        step = np.clip(target - values, -LARGEST_STEP, LARGEST_STEP)
        values = values + step
        for star in stars:
            star.follow(values)
        prior.update(values, np.diag(covariance))
        if report:
            report(iteration, stars, equations, step)
    found = {s.name: {**e.fits, **s.parameters} for s, e in zip(stars, equations)}
    return Calibration(parameters, values, covariance, prior, tuple(s.name for s in stars), found)
