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
from ..labels.windows import window
from ..likelihoods.line_factors import PER_DEX, STAR_TO_STAR
from ..observations import Observation
from ..synthesis.derivatives import line_derivatives
from ..synthesis.lines import LineList, load_line_list
from ..synthesis.synthesizer import LTESynthesizer
from ..wavelengths.uniform import log_grid
from .line_factors import largest_of, line_factor_table
from .line_stars import FLOOR, CalibrationStar, with_changed_lines

TAIL = 4.0  # degrees of freedom of the prior of changes
SCATTER = {"strength": 0.12, "width": 0.12}  # dex: prior of the scatter within a species
SCATTER_WEIGHT = 8.0  # lines that the prior of a species' scatter counts as
SPECIES_SD = 0.05  # dex: of the mean change of a species
STEP_KMS = 1.2  # of the synthesis
MATTERS = {"strength": 0.003, "width": 0.003}  # largest change of the flux per unit of ln, in any star
LARGEST_STEP = 0.3  # dex
FIRST_FLOOR = 0.05  # of the normalised flux, halved in each step until it is `FLOOR`
ABSENT = -0.6  # dex: a line that comes out weaker than this is not there
HYPERFINE_APART = 0.4  # Å, components of one transition
HYPERFINE_ENERGY = 5e-3  # eV, to which their lower levels agree


def tie_hyperfine(lines: LineList) -> np.ndarray:
    """Index of the parameter that each line belongs to, `(n_lines,)`: components of one transition share one.

    Components of hyperfine structure and isotopes have one lower level and lie close together; only elements of odd atomic number,
    and isotopes that the list tells apart, have them.
    """
    group = np.arange(len(lines))
    level = np.round(lines.e_low / HYPERFINE_ENERGY)
    order = np.lexsort((lines.wavelength, level, lines.ion, lines.element))
    split = (lines.element % 2 == 1) | (lines.isotope > 0)
    for a, b in zip(order[:-1], order[1:]):
        same = lines.element[a] == lines.element[b] and lines.ion[a] == lines.ion[b] and split[a] and split[b]
        close = lines.wavelength[b] - lines.wavelength[a] < HYPERFINE_APART
        if same and close and level[a] == level[b]:
            group[b] = group[a]
    return np.unique(group, return_inverse=True)[1]


def within(wavelength, lines: LineList) -> np.ndarray:
    """Which lines reach into the range of `wavelength` (Å, air): those that a synthesizer keeps."""
    beyond = np.maximum(np.maximum(wavelength[0] - lines.wavelength, lines.wavelength - wavelength[-1]), 0.0)
    return lines.reach > beyond


class LineParameters:
    """Which parameters there are: changes of log gf first, then of log10 of the width, each for a group of lines.

    `group` `(n_lines,)`; `strong`, `wide`: the groups that have a parameter of strength, of width. `by_group`, sparse
    `(n_groups, n_lines)`, sums over the lines of each; `group_species` `(n_groups,)`: 10 × atomic number + ion.
    """

    def __init__(self, lines: LineList, group, strong, wide):
        import scipy.sparse

        self.lines, self.group, self.strong, self.wide = lines, group, strong, wide
        self.by_group = scipy.sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))))
        self._strength, self._width = self.by_group[strong], self.by_group[wide]
        self.kind = np.repeat(["strength", "width"], [len(strong), len(wide)])
        first = np.unique(group, return_index=True)[1]
        self.group_species = lines.element[first].astype(int) * 10 + lines.ion[first]
        self.species = np.concatenate([self.group_species[strong], self.group_species[wide]])

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
    group = tie_hyperfine(lines)
    n = group.max() + 1
    largest = np.zeros((2, n))
    for star in stars:
        here = line_derivatives(star.synthesizer, star.labels)
        for k, matrix in enumerate((here.strength, here.damping)):
            np.maximum.at(largest[k], group, largest_of(matrix))
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
    """Common changes `(n,)`, their covariance `(n, n)`, and the information of each star on each `(n_stars, n)`.

    `distances`: |Δ[Fe/H]| of the stars from the Sun. A star's own changes differ from the common ones by `STAR_TO_STAR`, and by
    `PER_DEX` of that distance.
    """
    matrix, vector, information = np.diag(prior.precision), prior.precision * prior.mean, []
    for one, distance in zip(equations, distances):
        between = STAR_TO_STAR**2 + (PER_DEX * distance) ** 2
        damped = np.linalg.solve(
            np.eye(len(vector)) + between * one.precision, np.column_stack([one.precision, one.vector])
        )
        matrix, vector = matrix + damped[:, :-1], vector + damped[:, -1]
        information.append(np.diag(damped))
    covariance = np.linalg.inv(0.5 * (matrix + matrix.T))
    return covariance @ vector, covariance, np.array(information)


@dataclasses.dataclass
class Calibration:
    """`values` `(n,)` dex and `covariance` `(n, n)` of `parameters`.

    `information` `(n_stars, n)`: of each star on each parameter (dex⁻²), in the order of `used`, their names; `stars`: what the fit says
    of each.
    """

    parameters: LineParameters
    values: np.ndarray
    covariance: np.ndarray
    information: np.ndarray
    prior: Prior
    used: tuple[str, ...]
    stars: dict

    def apply(self, synthesizer):
        """`synthesizer`, which has the lines of the calibration in their order, with calibrated lines."""
        return with_changed_lines(synthesizer, *self.parameters.expand(self.values))

    def save(self, path) -> None:
        """Write the changes line by line to an `.npz` file: what `load_calibrated` adds to the line list."""
        p = self.parameters
        columns = {}
        for k, values in (("change", self.values), ("error", np.sqrt(np.diag(self.covariance)))):
            columns[f"log_gf_{k}"], columns[f"log_width_{k}"] = (x.astype(np.float32) for x in p.expand(values))
        shares = np.array([p.expand(row)[0] for row in self.information / np.maximum(self.information.sum(0), 1e-9)])
        columns["absent"] = columns["log_gf_change"] < ABSENT
        meta = {"used": self.used, "stars": self.stars, "source": p.lines.source, "lines": p.lines.hash()}
        species = {name: getattr(p.lines, name) for name in ("wavelength", "element", "ion", "isotope", "e_low")}
        write_arrays(path, {**species, **columns, "share": shares.astype(np.float16), "meta": json.dumps(meta)})


def calibrate(stars, lines, iterations: int = 12, parameters=None, report=None) -> Calibration:
    """Calibrate the lines of the stars' synthesizer, `lines` in its order, on all `stars` (`CalibrationStar`) at once.

    `parameters`: which lines (`line_parameters` by default). `report(iteration, stars, equations, step)` is called after each step.
    """
    parameters = parameters or line_parameters(stars, lines)
    prior, values = Prior.start(parameters), np.zeros(len(parameters))
    distances = [abs(star.prior[star.synthesizer.labels.index("fe_h")]) for star in stars]
    for iteration in range(iterations):
        floor = max(FLOOR, FIRST_FLOOR * 0.5**iteration)  # lines that are far off are not outliers in the beginning
        equations = [star.equations(parameters, values, floor) for star in stars]
        target, covariance, information = solve(equations, distances, prior)
        step = np.clip(target - values, -LARGEST_STEP, LARGEST_STEP)
        values = values + step
        for star in stars:
            star.follow(values)
        prior.update(values, np.diag(covariance))
        if report:
            report(iteration, stars, equations, step)
    found = {s.name: {**e.fits, **s.parameters} for s, e in zip(stars, equations)}
    return Calibration(parameters, values, covariance, information, prior, tuple(s.name for s in stars), found)


def read_stars(path, synthesizer, wavelength, without=()) -> list[CalibrationStar]:
    """The stars of a table; see the module. **Raises:** `EmuinferError`, naming table, row and column, where something is missing."""
    from astropy.table import Table

    table, folder, stars = Table.read(path), Path(path).parent, []
    for needed in ("name", "file", "teff", "logg", "fe_h", "vmic"):
        if needed not in table.colnames:
            raise EmuinferError(f"{path} has no column '{needed}'; it has {', '.join(table.colnames)}.")
    for row in table:
        if row["name"] in without:
            continue
        of = lambda key, default: float(row[key]) if key in table.colnames and np.isfinite(row[key]) else default
        known = {k: of(k, None) for k in ("resolution", "snr")}
        options = {k: v for k, v in known.items() if v is not None}
        if "medium" in table.colnames:
            options["medium"] = str(row["medium"])
        observation = Observation.read(folder / str(row["file"]), **options)
        labels = {n: (of(n, 0.0), of(f"{n}_sd", of("abundance_sd", 0.1))) for n in synthesizer.labels.names}
        stars.append(CalibrationStar(str(row["name"]), observation, labels, synthesizer, wavelength))
    if not stars:
        raise EmuinferError(f"{path} leaves no star to calibrate on.")
    return stars


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stars", type=Path)
    parser.add_argument("output", type=Path, help="calibration to write (.npz)")
    parser.add_argument("--factors", type=Path, help="table of `LineFactors` to write (.npz)")
    parser.add_argument("--without", nargs="*", default=(), help="names of stars to leave out")
    parser.add_argument("--window", help="whose lines; the first by default")
    parser.add_argument("--iterations", type=int, default=12)
    args = parser.parse_args(argv)
    entry = window(args.window)
    wavelength = log_grid(*entry.wavelength_range, STEP_KMS)
    lines = load_line_list(window=entry)
    lines = lines[within(wavelength, lines)]
    synthesizer = LTESynthesizer(entry.label_space, wavelength, line_list=lines, window=entry)
    stars = read_stars(args.stars, synthesizer, wavelength, args.without)

    def report(iteration, stars, equations, step):
        print(f"{iteration + 1}/{args.iterations}: last step {np.sqrt(np.mean(step**2)):.4f} dex", flush=True)
        for star, one in zip(stars, equations):
            print(
                f"  {star.name}: median residual {one.fits['median_residual']:.4f}, 90 % {one.fits['p90_residual']:.4f}"
            )

    found = calibrate(stars, lines, args.iterations, report=report)
    found.save(args.output)
    print(f"wrote {args.output}")
    if args.factors:
        known = [s.prior[synthesizer.labels.index("fe_h")] for s in stars]
        table = line_factor_table(
            found, found.apply(synthesizer), wavelength, entry.medium, known, {"used": found.used}
        )
        table.save(args.factors)
        print(f"wrote {args.factors}: {len(table.sd)} factors of strong lines, {len(table.species_sd)} of species")


if __name__ == "__main__":
    main()
