"""Fisher information on the host: whitening, inversion, what a degenerate combination is called, and `Bounds`.

Everything here is float64 NumPy. For Gaussian noise of covariance C the information is F = Jᵀ C⁻¹ J, the product of the
whitened derivatives with themselves; no unbiased estimate has a covariance below F⁻¹ (e.g. Ting et al. 2017, ApJ 843, 32;
Sandford, Weisz & Ting 2020, ApJS 249, 24).
"""

import dataclasses

import numpy as np

from ..errors import EmuinferError

# Derivatives in float32 carry a noise of 1e-7 of the flux for one parameter, and 1e-5 where those of several cancel; less
# information than such noise would hold is none.
SILENT, SINGULAR = 1e-14, 1e-10


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bounds:
    """Cramér–Rao bounds of the free parameters of a model at one set of labels.

    - `names`: parameters in the order of the matrices: labels, velocities, then `continuum[0]`, `continuum[1]`, …
      (`continuum[arm:k]` where there are several arms).
    - `labels`: the value of every parameter, by name, including those that are fixed.
    - `fisher`: `(n, n)` information of data and Gaussian priors, in the parameters' units to the power −1.
    - `covariance`: `(n, n)`, its inverse. `units`: unit strings by name.
    - `emulator_covariance`: `(n, n)`, of the labels' shifts that the emulator's error makes, or None where not known.
    - `notes`: sentences on what was left out of the forecast.
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
        and `limited` where the emulator's error is known.

        `continuum`: with rows for the coefficients of the continuum.
        """
        from astropy.table import Table

        columns: dict = {"marginal": self.marginal, "conditional": self.conditional}
        if self.emulator_covariance is not None:
            columns |= {"emulator": self.floor, "limited": self.limited}
        shown = [n for n in self.names if continuum or not n.startswith("continuum[")]
        rows = [(n, self.units[n], self.labels[n], *(c[n] for c in columns.values())) for n in shown]
        names = ("label", "unit", "value", *columns)
        return Table(rows=rows, names=names, dtype=(str, str, *[float] * (len(columns) + 1)))

    def _named(self, variance) -> dict[str, float]:
        return dict(zip(self.names, np.sqrt(variance).tolist()))

    def __repr__(self):
        table = self.table()
        for column in table.colnames[2:]:
            table[column].format = ".4g"
        text = ["Cramér–Rao bounds (standard deviations)", *table.pformat(max_lines=-1, max_width=-1)]
        return "\n".join([*text, *(f"Note: {n}" for n in self.notes)])


def whiten(rows, sigma, correlation=None):
    """`rows` `(k, n)` times the inverse square root of the noise's covariance, `(k, n)`.

    `sigma` `(n,)`. `correlation` `(n - 1,)`: of each pixel with the one before, for noise whose correlations are products of
    these (an Ornstein–Uhlenbeck process, AR(1) on equal steps): its inverse Cholesky factor has two diagonals.
    """
    scaled = rows / sigma
    if correlation is None:
        return scaled
    out = np.array(scaled)
    out[..., 1:] = (scaled[..., 1:] - correlation * scaled[..., :-1]) / np.sqrt(1 - correlation**2)
    return out


def unwhiten_transposed(rows, sigma, correlation=None):
    """The transpose of `whiten` applied to `rows` `(k, n)`: `unwhiten_transposed(whiten(x))` is x C⁻¹."""
    out = np.array(rows, float)
    if correlation is not None:
        part = rows[..., 1:] / np.sqrt(1 - correlation**2)
        out[..., 1:] = part
        out[..., :-1] -= correlation * part
    return out / sigma


def check_information(fisher, names):
    """Raise `EmuinferError` that names the parameters without information, if there are any."""
    diagonal = np.diag(fisher)
    silent = [n for n, d in zip(names, diagonal) if not d > SILENT * np.nanmax(diagonal)]
    if silent:
        raise EmuinferError(
            f"The spectrum holds no information on {', '.join(silent)} at these values. Fix it in the model's priors, give it "
            "a Gaussian prior, or evaluate elsewhere (vbroad and vsini above 0)."
        )


def invert(fisher, names):
    """The inverse of the information `(n, n)`; an error that names the combination without information if there is one."""
    check_information(fisher, names)
    scale = 1 / np.sqrt(np.diag(fisher))
    values, vectors = np.linalg.eigh(fisher * np.outer(scale, scale))
    if values[0] < SINGULAR * values[-1]:
        weakest = vectors[:, 0]
        leading = [i for i in np.argsort(-np.abs(weakest)) if abs(weakest[i]) > 0.2][:5]
        combination = " ".join(f"{weakest[i]:+.2f} {names[i]}" for i in leading)
        raise EmuinferError(
            f"The information matrix is singular (smallest relative eigenvalue {values[0] / values[-1]:.1g}): the spectrum "
            f"does not determine the combination {combination} (each in units of its conditional bound). Fix one of them in "
            "the model's priors, or give one a Gaussian prior."
        )
    return np.outer(scale, scale) * ((vectors / values) @ vectors.T)


def step_sizes(space, names):
    """Half the range of a label, 1 for everything else: in these units the information is well conditioned."""
    half = dict(zip(space.names, space.half_width))
    return np.array([half.get(n, 1.0) for n in names])


def prior_information(prior, value) -> float:
    """−d² log p/dθ² of a NumPyro distribution at `value` where that is positive, else 0: 1/sd² of a Gaussian one."""
    import jax
    import jax.numpy as jnp

    second = float(jax.grad(jax.grad(lambda x: prior.log_prob(x)))(jnp.float32(value)))
    return max(-second, 0.0) if np.isfinite(second) else 0.0
