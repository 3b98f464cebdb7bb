"""`Bounds`: Cramér–Rao bounds by name, their table and how they are printed."""

import dataclasses
import re

import numpy as np

from ..errors import EmuinferError

CONTINUUM = re.compile(r"continuum(_\d+)?\[")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bounds:
    """Cramér–Rao bounds of the free parameters of a model at one set of labels.

    - `names`: parameters in the order of the matrices: labels, velocities, then `continuum[0]`, `continuum[1]`, …
      (`continuum[arm:k]` for the arms of a forecast, from 0, and `continuum_1[k]`, `continuum_2[k]`, … for those of a
      `JointModel`, from 1).
    - `labels`: the value of every parameter, by name, including those that are fixed.
    - `fisher`: `(n, n)` information of data and Gaussian priors, in the parameters' units to the power −1.
    - `covariance`: `(n, n)`, its inverse. `units`: unit strings by name.
    - `emulator_covariance`: `(n, n)`, of the labels' shifts that the emulator's error makes, or None where not known.
    - `notes`: sentences on what was left out of the forecast, and on what was assumed.
    - `meta`: what the bounds are of, for the table.
    - `marginal`: bound on the standard deviation by name, with all other free parameters unknown: √(F⁻¹)ᵢᵢ.
    - `conditional`: the same with all other parameters known: 1/√Fᵢᵢ. Never above `marginal`.
    - `floor`: standard deviation of the shifts by the emulator's error; no S/N helps against it. None where not known.
    - `limited`: √(marginal² + floor²), what a measurement with this emulator can expect. None where not known.
    """

    names: tuple[str, ...]
    labels: dict[str, float]
    fisher: np.ndarray
    covariance: np.ndarray
    units: dict[str, str]
    emulator_covariance: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    meta: dict = dataclasses.field(default_factory=dict)

    @property
    def marginal(self) -> dict[str, float]:
        return self._named(np.diag(self.covariance))

    @property
    def conditional(self) -> dict[str, float]:
        return self._named(1 / np.diag(self.fisher))

    @property
    def floor(self) -> dict[str, float] | None:
        return None if self.emulator_covariance is None else self._named(np.diag(self.emulator_covariance))

    @property
    def limited(self) -> dict[str, float] | None:
        if self.emulator_covariance is None:
            return None
        return self._named(np.diag(self.covariance) + np.diag(self.emulator_covariance))

    @property
    def correlation(self) -> np.ndarray:
        """Correlations of the parameters at the bound, `(n, n)`."""
        sd = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(sd, sd)

    def combination(self, weights: dict[str, float]) -> float:
        """Bound on Σ weight × parameter, e.g. `{"mg_fe": 1, "fe_h": 1}` for [Mg/H]. `EmuinferError` on unknown names."""
        if unknown := [n for n in weights if n not in self.names]:
            raise EmuinferError(f"No free parameter is called {', '.join(unknown)}; there are {', '.join(self.names)}.")
        row = np.array([weights.get(n, 0.0) for n in self.names])
        return float(np.sqrt(row @ self.covariance @ row))

    def table(self, continuum: bool = False):
        """An `astropy.table.Table` with the columns `label, unit, value, marginal, conditional`, and `emulator` (the floor)
        and `limited` where the emulator's error is known. Its `meta` are those of the bounds, and the notes.

        `continuum`: with rows for the coefficients of the continuum.
        """
        from astropy.table import Table

        columns: dict = {"marginal": self.marginal, "conditional": self.conditional}
        if self.emulator_covariance is not None:
            columns |= {"emulator": self.floor, "limited": self.limited}
        shown = [n for n in self.names if continuum or not CONTINUUM.match(n)]
        rows = [(n, self.units[n], self.labels[n], *(c[n] for c in columns.values())) for n in shown]
        names = ("label", "unit", "value", *columns)
        meta = {**self.meta, "notes": list(self.notes)}
        return Table(rows=rows, names=names, dtype=(str, str, *[float] * (len(columns) + 1)), meta=meta)

    def _named(self, variance) -> dict[str, float]:
        return dict(zip(self.names, np.sqrt(variance).tolist()))

    def __repr__(self):
        table = self.table()
        for column in table.colnames[2:]:
            table[column].format = ".4g"
        text = ["Cramér–Rao bounds (standard deviations)", *table.pformat(max_lines=-1, max_width=-1)]
        return "\n".join([*text, *(f"Note: {n}" for n in self.notes)])
