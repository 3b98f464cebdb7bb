"""A benchmark star in the calibration of lines: its spectrum as a linear function of line strengths, widths and its own parameters."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..constants import FWHM_PER_SIGMA, LN_10, SPEED_OF_LIGHT
from ..errors import ObservationError
from ..forward.continuum import chebyshev_basis, default_terms
from ..forward.operator import SpectrumOperator
from ..observations.cross_correlation import cross_correlation_rv
from ..observations.quality import rough_continuum
from ..synthesis.derivatives import line_derivatives

FLOOR = 0.003  # of the normalised flux: what no line of the list explains, added to the errors of the data
TAIL = 4.0  # degrees of freedom of the residuals, a Student-t distribution
MARGIN_KMS = 60.0  # pixels nearer to the ends of the synthesis are left out
CONTINUUM_SD = 0.02  # prior of the continuum's coefficients but the first
BROADENING_KMS = (3.0, 3.0)  # start and prior of the Gaussian that macroturbulence and rotation are
BLOCK = 128  # rows that are convolved at once


@dataclasses.dataclass
class Equations:
    """The normal equations of one star for the line parameters, its own parameters eliminated.

    `precision` `(n, n)`, and `vector` `(n,)`: precision times the star's best values. `fits`: statistics of the residuals.
    """

    precision: np.ndarray
    vector: np.ndarray
    fits: dict


class CalibrationStar:
    """One star.

    **Arguments:**

    - `name`; `observation`: with a resolving power and errors, normalised or not.
    - `labels`: mapping of every label of the synthesizer to `(value, standard deviation)`, a Gaussian prior; 0 fixes it.
    - `synthesizer`: `LTESynthesizer` on wavelengths uniform in ln(wavelength).
    - `wavelength`: these, `(n_grid,)` Å, in `medium`.

    **Attributes:** `parameters`: its own, label values and `vbroad` (km/s), `rv` (km/s); `continuum` `(n_terms,)`.
    """

    def __init__(self, name, observation, labels, synthesizer, wavelength, medium="air"):
        self.name, self.synthesizer = name, synthesizer
        space = synthesizer.labels
        prior = np.array([labels[n] for n in space.names], float)
        self.prior, self.sd = prior[:, 0], prior[:, 1]
        self.free = np.flatnonzero(self.sd > 0)
        self.labels, self.vbroad = self.prior.copy(), BROADENING_KMS[0]
        observation = observation.in_medium(medium)
        first = np.asarray(_flux(synthesizer, jnp.asarray(self.labels, jnp.float32)))
        self.rv = cross_correlation_rv(observation, wavelength, first)
        edge = 1.0 + (MARGIN_KMS + abs(self.rv)) / SPEED_OF_LIGHT
        inside = (observation.wavelength > wavelength[0] * edge) & (observation.wavelength < wavelength[-1] / edge)
        good = observation.good & inside
        if good.sum() < 100:
            raise ObservationError(
                f"{name}: only {good.sum()} good pixels between {wavelength[0]:.1f} and {wavelength[-1]:.1f} Å."
            )
        scale = rough_continuum(observation.flux, good)
        self.wavelength = observation.wavelength[good]
        self.flux = (observation.flux / scale)[good]
        self.sigma = (observation.uncertainty / scale)[good]
        resolution = observation.resolution
        resolution = resolution if np.ndim(resolution) == 0 else np.asarray(resolution)[good]
        self.operator = SpectrumOperator(
            wavelength, self.wavelength, resolution, rv_range=(self.rv - 20.0, self.rv + 20.0), medium=medium
        )
        self.instrument_kms = SPEED_OF_LIGHT / float(np.median(resolution)) / FWHM_PER_SIGMA
        self.pixel_kms = SPEED_OF_LIGHT * float(np.median(np.diff(self.wavelength) / self.wavelength[1:]))
        terms = default_terms(self.wavelength)
        self.basis = chebyshev_basis(self.wavelength, terms)
        self.continuum = np.eye(terms)[0]
        self.weight = np.ones(len(self.wavelength))
        self._pending = np.zeros((0, 0)), np.zeros(0)

    def equations(self, lines, values: np.ndarray, floor: float = FLOOR) -> Equations:
        """Linearise at the line parameters `values` `(n,)` (dex) and eliminate the star's own parameters.

        `lines` maps line parameters to lines (`LineParameters`). Outlying pixels weigh as by a Student-t distribution of residuals
        whose scale is the error of the data and `floor`.
        """
        synthesizer = with_changed_lines(self.synthesizer, *lines.expand(values))
        here = line_derivatives(synthesizer, self.labels)
        level = self.continuum @ self.basis
        at = lambda flux, rv=self.rv, vbroad=self.vbroad: np.asarray(_observed(self.operator, flux, rv, vbroad))
        seen = at(jnp.asarray(here.flux))
        by_lines = self._convolved(lines.gather(here)) * (LN_10 * level)
        labels = jnp.asarray(self.labels, jnp.float32)
        slopes = [1.0 - at(1.0 - _slope(synthesizer, labels, jnp.asarray(i))) for i in self.free]
        step = 0.05
        slopes.append((at(jnp.asarray(here.flux), vbroad=self.vbroad + step) - seen) / step)
        slopes.append((at(jnp.asarray(here.flux), rv=self.rv + step) - seen) / step)
        own = np.concatenate([np.array(slopes) * level, self.basis * seen])
        residual = self.flux - level * seen
        return self._eliminated(by_lines, own, residual, values, floor)

    def _eliminated(self, by_lines, own, residual, values, floor):
        width = np.sqrt(2 * np.pi) * np.hypot(np.hypot(self.instrument_kms, self.vbroad), 1.5)
        coherent = max(1.0, width / self.pixel_kms)  # pixels that share one error of the model
        variance = self.sigma**2 + coherent * floor**2
        z2 = residual**2 / (self.sigma**2 + floor**2)
        self.weight = (TAIL + 1) / (TAIL + z2)
        w = self.weight / variance
        present = np.concatenate([self.labels[self.free], [self.vbroad, self.rv], self.continuum])
        centre = np.concatenate([self.prior[self.free], [BROADENING_KMS[0], self.rv], np.eye(len(self.continuum))[0]])
        sd = np.concatenate([self.sd[self.free], [BROADENING_KMS[1], 10.0], np.full(len(self.continuum), CONTINUUM_SD)])
        sd[len(self.free) + 2] = 1.0
        own_precision = (own * w) @ own.T + np.diag(sd**-2.0)
        cross = (by_lines * w) @ own.T
        slope = own @ (w * residual) + (centre - present) / sd**2
        solved = np.linalg.solve(own_precision, np.column_stack([cross.T, slope]))
        precision = (by_lines * w) @ by_lines.T - cross @ solved[:, :-1]
        vector = by_lines @ (w * residual) - cross @ solved[:, -1] + precision @ values
        self._pending = solved, values.copy()
        fits = {
            "median_residual": float(np.median(np.abs(residual))),
            "p90_residual": float(np.quantile(np.abs(residual), 0.9)),
            "rms": float(np.sqrt(np.mean(residual**2))),
            "pixels": len(residual),
        }
        return Equations(0.5 * (precision + precision.T), vector, fits)

    def follow(self, values: np.ndarray) -> None:
        """Move the star's own parameters to their best values at the line parameters `values`."""
        solved, before = self._pending
        step = solved[:, -1] - solved[:, :-1] @ (values - before)
        n = len(self.free)
        limit = np.where(np.arange(n) == list(self.synthesizer.labels.names).index("teff"), 150.0, 0.2)
        self.labels[self.free] += np.clip(step[:n], -limit, limit)
        low, high = (np.asarray(x) for x in (self.synthesizer.labels.lower, self.synthesizer.labels.upper))
        self.labels = np.clip(self.labels, low, high)
        self.vbroad = max(0.3, self.vbroad + np.clip(step[n], -1.0, 1.0))
        self.rv += np.clip(step[n + 1], -1.0, 1.0)
        self.continuum = self.continuum + step[n + 2 :]

    def _convolved(self, rows) -> np.ndarray:
        """Sparse rows `(n, n_grid)` on the pixels, `(n, n_pix)`."""
        found = np.empty((rows.shape[0], len(self.wavelength)), np.float32)
        for start in range(0, len(found), BLOCK):
            block = rows[start : start + BLOCK].toarray().astype(np.float32)
            filled = np.concatenate([block, np.zeros((BLOCK - len(block), block.shape[1]), np.float32)])
            here = _rows(self.operator, jnp.asarray(filled), self.rv, self.vbroad)
            found[start : start + len(block)] = np.asarray(here)[: len(block)]
        return found

    @property
    def parameters(self) -> dict[str, float]:
        values = dict(zip(self.synthesizer.labels.names, self.labels.tolist()))
        return {**values, "vbroad": float(self.vbroad), "rv": float(self.rv)}


def with_changed_lines(synthesizer, log_gf, log_width):
    """`synthesizer` with log gf and log10 of the van der Waals widths of its lines changed by these (dex), `(n_lines,)`."""
    constants = synthesizer.constants
    changed = {
        **constants,
        "ln_strength": constants["ln_strength"] + jnp.asarray(LN_10 * np.asarray(log_gf), jnp.float32),
        "ln_vdw": constants["ln_vdw"] + jnp.asarray(LN_10 * np.asarray(log_width), jnp.float32),
    }
    return eqx.tree_at(lambda s: s.constants, synthesizer, changed)


@eqx.filter_jit
def _flux(synthesizer, labels):
    return synthesizer(labels)[0]


@eqx.filter_jit
def _slope(synthesizer, labels, i):
    """∂F/∂label_i `(n_grid,)`."""
    direction = jnp.zeros_like(labels).at[i].set(1.0)
    return jax.jvp(lambda x: synthesizer(x)[0], (labels,), (direction,))[1]


@eqx.filter_jit
def _observed(operator, flux, rv, vbroad):
    return operator(flux, rv, vbroad)


@eqx.filter_jit
def _rows(operator, rows, rv, vbroad):
    return jax.vmap(lambda row: 1.0 - operator(1.0 - row, rv, vbroad))(rows)
