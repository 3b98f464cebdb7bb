"""How far synthetic lines are from those of real stars: the error model of a line list and of LTE.

No line list is perfect: oscillator strengths are off, some lines do not exist, molecules are missing. A star whose
parameters are known from elsewhere (interferometry, asteroseismology) shows where. The relative error of the model's line
depth there, wavelength by wavelength, enters the variance of every other star; a fit then listens to the good lines.
"""

import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import EmulatorError
from ..files import write_arrays
from ..labels.windows import window_of
from .line_factors import LineFactors

# Departures from LTE and from one-dimensional atmospheres change line strengths by 0.1 to 0.2 dex at [Fe/H] = -2.5 (Lind,
# Bergemann & Asplund 2012, MNRAS 427, 50; Amarsi et al. 2016, MNRAS 463, 1518): 0.15 ln 10 over the 2.2 dex to the
# calibrating star.
PER_DEX = 0.155


class LineErrors:
    """Relative errors of line depths.

    **Attributes:**

    - `wavelength` `(n,)` Å at rest in `medium`; `relative` `(n,)`: error of the depth 1 − f in units of the depth, from the
      calibrating star.
    - `fe_h`: [Fe/H] of the calibrating star. `per_dex`: relative error to be added in quadrature per dex of distance from it (see
      `PER_DEX`).
    - `meta`: how the table was made, with credit.
    """

    def __init__(self, wavelength, relative, *, fe_h, per_dex, medium, meta):
        self.wavelength, self.relative = wavelength, relative
        self.fe_h, self.per_dex, self.medium, self.meta = float(fe_h), float(per_dex), medium, meta

    def relative_at(self, wavelength) -> np.ndarray:
        """`relative` at rest wavelengths, `(n,)`; outside the table its median."""
        middle = np.median(self.relative)
        return np.interp(wavelength, self.wavelength, self.relative, left=middle, right=middle)

    def at(self, wavelength, fe_h: float) -> np.ndarray:
        """Relative error of the depth at rest wavelengths, `(n,)`, for a star of metallicity `fe_h`."""
        return np.sqrt(self.relative_at(wavelength) ** 2 + (self.per_dex * (fe_h - self.fe_h)) ** 2)

    def on(self, grid_wavelength) -> "DepthErrors":
        """The table at rest wavelengths `(n_grid,)`, on the device."""
        return DepthErrors(self, grid_wavelength)

    def save(self, path):
        """Write the table to an `.npz` file, as a whole."""
        meta = {"fe_h": self.fe_h, "per_dex": self.per_dex, "medium": self.medium, **self.meta}
        arrays = {"wavelength": self.wavelength.astype(np.float32), "relative": self.relative.astype(np.float16)}
        write_arrays(path, {**arrays, "meta": json.dumps(meta)})

    @classmethod
    def load(cls, path) -> "LineErrors":
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            arrays = [file[k].astype(np.float64) for k in ("wavelength", "relative")]
        return cls(*arrays, fe_h=meta.pop("fe_h"), per_dex=meta.pop("per_dex"), medium=meta.pop("medium"), meta=meta)

    @classmethod
    def shipped(cls, emulator) -> "LineErrors | None":
        """The table of the window that the emulator covers, in its medium, or None."""
        window = window_of(emulator)
        if window is None or window.line_errors is None:
            return None
        table = cls.load(window.file(window.line_errors))
        lo, hi = emulator.wavelength_range
        return table if table.wavelength[0] < hi and table.wavelength[-1] > lo else None


class DepthErrors(eqx.Module):
    """`LineErrors` at the pixels of a grid, on the device; the same interface as `LinesOnGrid`, without factors."""

    relative: Float[Array, " n_grid"]
    fe_h: float = eqx.field(static=True)
    per_dex: float = eqx.field(static=True)

    def __init__(self, table: LineErrors, grid):
        self.relative = jnp.asarray(table.relative_at(grid), jnp.float32)
        self.fe_h, self.per_dex = table.fe_h, table.per_dex

    @property
    def rank(self) -> int:
        return 0

    def at(self, atmosphere: Float[Array, " 3"], depth: Float[Array, " n_grid"]):
        """`(error, factors)`: the error of the depth `(n_grid,)`, and no factors `(0, n_grid)`; see `LinesOnGrid.at`."""
        error = depth * jnp.sqrt(self.relative**2 + (self.per_dex * (atmosphere[2] - self.fe_h)) ** 2)
        return error, jnp.zeros((0, len(error)), jnp.float32)


def resolve(line_errors, emulator) -> LineErrors | LineFactors | None:
    """`"shipped"`, None, a `LineErrors` or a `LineFactors`."""
    if line_errors is None or isinstance(line_errors, LineErrors | LineFactors):
        return line_errors
    if isinstance(line_errors, str) and line_errors == "shipped":
        return LineErrors.shipped(emulator)
    raise EmulatorError(
        f"line_errors must be 'shipped', None, a LineErrors or a LineFactors table; got {line_errors!r:.60}."
    )
