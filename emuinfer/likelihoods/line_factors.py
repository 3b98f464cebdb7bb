"""How far synthetic lines are from those of real stars: the error model of a line list and of LTE.

No line list is perfect: oscillator strengths and damping constants are off, and departures from LTE and from one-dimensional
atmospheres change lines from star to star. Each error belongs to a line and changes all of its pixels together. Calibrated on benchmark
stars, line by line (`emuinfer.recipes.line_calibration`), what is left enters the likelihood of every other star:

- strong lines, whose wings cover many pixels: one Gaussian factor for the strength of each, and one for its damping;
- species: one factor for what moves all lines of an ion together;
- all other lines: a variance that counts once per line.

What a line does to a spectrum depends on the star. It is tabulated at some atmospheres, relative to the depth 1 − f, and interpolated.
"""

import dataclasses
import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..errors import EmulatorError
from ..files import write_arrays

# dex: the change of one line in the Sun and that in Procyon and HD 41248 scatter by 0.044 to 0.05 about each other.
STAR_TO_STAR = 0.05
PER_DEX = (
    0.067  # dex per dex of [Fe/H], the `PER_DEX` of `line_errors` / ln 10: departures from LTE and from one dimension
)
WIDTH_SCATTER = 0.03  # dex of a line's van der Waals width from star to star
LEAST_DEPTH = 0.01  # added to depths that changes are relative to
NEAR = np.array([500.0, 1.2, 0.8])  # K, dex, dex: distances of atmospheres in Teff, log g, [Fe/H] that count alike
ATMOSPHERE = ("teff", "logg", "fe_h")


@dataclasses.dataclass(frozen=True)
class LineFactors:
    """Errors of line strengths and widths, tabulated at `n_ref` atmospheres.

    **Attributes:**

    - `wavelength` `(n,)` Å at rest in `medium`, rising.
    - `reference` `(n_ref, 3)`: Teff (K), log g, [Fe/H] of the atmospheres.
    - `own` `(n_ref, n)`: error of the depth relative to depth + `LEAST_DEPTH`, of all lines that are no factors, by the errors of the
      calibration; `unit` `(n_ref, n)`: relative change of the depth by independent changes of these lines of 1 dex each.
    - `start` `(m,)`, `shape` `(m, n_ref, width)`, `sd` `(m,)` (dex): factors of strong lines, from pixel `start` on: the relative change
      of the depth per dex of strength (`kind` 0), of van der Waals width (1). Their sd by the errors of the calibration.
    - `species` `(k, n_ref, n)`, `species_sd` `(k,)` (dex): the same of all lines of an ion together.
    - `known_fe_h`: [Fe/H] of the calibrating stars. `star_to_star`, `per_dex` (dex per dex of distance from the nearest of these): added
      in quadrature to the errors of strengths.
    - `meta`: how the table was made, with names and credit.
    """

    wavelength: np.ndarray
    reference: np.ndarray
    own: np.ndarray
    unit: np.ndarray
    start: np.ndarray
    shape: np.ndarray
    sd: np.ndarray
    kind: np.ndarray
    species: np.ndarray
    species_sd: np.ndarray
    known_fe_h: tuple[float, ...]
    medium: str
    star_to_star: float = STAR_TO_STAR
    per_dex: float = PER_DEX
    meta: dict = dataclasses.field(default_factory=dict)

    def on(self, grid_wavelength) -> "LinesOnGrid":
        """The table at rest wavelengths `(n_grid,)`, Å in its medium; outside it the errors are its medians, without factors."""
        return LinesOnGrid(self, np.asarray(grid_wavelength, float))

    def save(self, path) -> None:
        """Write the table to an `.npz` file, as a whole."""
        meta = {k: getattr(self, k) for k in ("medium", "star_to_star", "per_dex", "meta")}
        half = {k: getattr(self, k).astype(np.float16) for k in ("own", "unit", "shape", "species")}
        whole = {k: getattr(self, k) for k in ("reference", "start", "sd", "kind", "species_sd", "known_fe_h")}
        arrays = {"wavelength": self.wavelength, **half, **whole, "meta": json.dumps(meta)}
        write_arrays(path, {k: np.asarray(v) for k, v in arrays.items()})

    @classmethod
    def load(cls, path) -> "LineFactors":
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                names = [f.name for f in dataclasses.fields(cls) if f.name in file.files and f.name != "meta"]
                arrays = {k: file[k].astype(np.float64) if file[k].dtype.kind == "f" else file[k] for k in names}
            arrays["known_fe_h"] = tuple(arrays["known_fe_h"].tolist())
            return cls(**arrays, **meta)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise EmulatorError(
                f"{path} is not a table of line errors ({error}); make one with python -m emuinfer.recipes.line_calibration."
            ) from error


class LinesOnGrid(eqx.Module):
    """`LineFactors` at the pixels of a grid, on the device."""

    reference: Float[Array, "n_ref 3"]
    own: Float[Array, "n_ref n_grid"]
    unit: Float[Array, "n_ref n_grid"]
    start: Int[Array, " m"]
    shape: Float[Array, "m n_ref width"]
    sd: Float[Array, " m"]
    of_strength: Float[Array, " m"]  # 1 for a strength, 0 for a width
    species: Float[Array, "k n_ref n_grid"]
    species_sd: Float[Array, " k"]
    known_fe_h: Float[Array, " n_known"]
    star_to_star: float = eqx.field(static=True)
    per_dex: float = eqx.field(static=True)

    def __init__(self, table: LineFactors, grid: np.ndarray):
        as32 = lambda a: jnp.asarray(a, jnp.float32)
        self.reference, self.sd, self.species_sd = as32(table.reference), as32(table.sd), as32(table.species_sd)
        self.of_strength = as32(table.kind == 0)
        self.known_fe_h = as32(table.known_fe_h)
        self.star_to_star, self.per_dex = float(table.star_to_star), float(table.per_dex)
        spread = lambda rows, fill: np.array(
            [np.interp(grid, table.wavelength, r, left=fill(r), right=fill(r)) for r in rows]
        ).reshape(len(rows), len(grid))
        self.own, self.unit = (as32(spread(rows, np.median)) for rows in (table.own, table.unit))
        flat = table.species.reshape(-1, len(table.wavelength))
        self.species = as32(spread(flat, lambda r: 0.0).reshape(*table.species.shape[:2], len(grid)))
        self.start, self.shape = self._windows(table, grid)

    @staticmethod
    def _windows(table, grid):
        """The strong lines' windows on the grid's pixels, all of one width."""
        m, n_ref, n = table.shape.shape
        ends = table.wavelength[table.start], table.wavelength[np.minimum(table.start + n, len(table.wavelength)) - 1]
        first = np.searchsorted(grid, ends[0]) if m else np.zeros(0, int)
        last = np.searchsorted(grid, ends[1]) if m else np.zeros(0, int)
        width = min(len(grid), int((last - first).max())) if m else 1
        start = np.clip(first, 0, len(grid) - width)
        shape = np.zeros((m, n_ref, width))
        for i in range(m):
            here, known = grid[start[i] : start[i] + width], table.wavelength[table.start[i] : table.start[i] + n]
            for r in range(n_ref):
                shape[i, r] = np.interp(here, known, table.shape[i, r, : len(known)], left=0.0, right=0.0)
        return jnp.asarray(start, jnp.int32), jnp.asarray(shape, jnp.float32)

    @property
    def rank(self) -> int:
        """Number of factors."""
        return len(self.sd) + len(self.species_sd)

    def at(self, atmosphere: Float[Array, " 3"], depth: Float[Array, " n_grid"]):
        """`(error, factors)`: the error of the depth `(n_grid,)` by lines that are no factors, and its changes `(rank, n_grid)` by one
        standard deviation of each factor, for a star with this Teff (K), log g and [Fe/H], and `depth` 1 − f at rest."""
        near = self._nearness(atmosphere)
        added = self.star_to_star**2 + (self.per_dex * jnp.min(jnp.abs(self.known_fe_h - atmosphere[2]))) ** 2
        relative = jnp.sqrt(near @ self.own**2 + added * (near @ self.unit**2))
        n = self.own.shape[1]
        sd = jnp.sqrt(self.sd**2 + jnp.where(self.of_strength > 0, added, np.float32(WIDTH_SCATTER**2)))
        windows = jnp.einsum("mrw,r->mw", self.shape, near) * sd[:, None]
        pixel = self.start[:, None] + jnp.arange(self.shape.shape[2])
        rows = jnp.arange(len(self.sd))[:, None]
        strong = jnp.zeros((len(self.sd), n), jnp.float32).at[rows, pixel].set(windows)
        species = jnp.einsum("krn,r->kn", self.species, near) * self.species_sd[:, None]
        depth = jnp.maximum(depth, 0.0) + np.float32(LEAST_DEPTH)
        return relative * depth, jnp.concatenate([strong, species]) * depth

    def _nearness(self, atmosphere):
        """Weights of the atmospheres, `(n_ref,)`, of sum 1: the inverse fourth power of the distance (Shepard 1968)."""
        square = jnp.sum(((self.reference - atmosphere) / jnp.asarray(NEAR, jnp.float32)) ** 2, axis=1)
        weight = 1.0 / (square + np.float32(0.02)) ** 2
        return weight / weight.sum()
