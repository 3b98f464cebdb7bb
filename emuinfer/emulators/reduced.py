"""Reduced emulators: surrogates of an expensive emulator, cheap enough for a sampler's inner loop.

On a grid uniform in ln(wavelength), x = log(1/f − 1 + ε) is a mean plus a few principal components whose coefficients a
small network gives from the labels. It finds a star's place in
the domain; around it `local.py` makes a second, finer surrogate.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..errors import EmulatorError
from ..labels.space import LabelSpace
from ..wavelengths.interpolation import four_points
from ..wavelengths.uniform import log_uniform
from .base import Emulator, from_link
from .network import Layers, apply_layers, dense_layers
from .strangers import check_counts


@dataclasses.dataclass(frozen=True)
class ReductionConfig:
    """Sizes and effort of a reduction.

    `n_train` spectra of the full emulator on a Sobol design fit the surrogate, `n_test` further ones measure its error.
    `resolution`: resolving power to which the spectra are convolved before the reduction (None keeps native detail).
    """

    lo: float
    hi: float
    n_wave: int
    n_train: int = 3000
    n_test: int = 128
    components: int = 100
    hidden: int = 256
    steps: int = 3000
    epsilon: float = 0.003
    seed: int = 0

    def __post_init__(self):
        most = 100_000_000
        check_counts(
            "A reduction", self, n_wave=(4, most), n_train=(1, most), n_test=(0, most), components=(1, most), hidden=(1, 65_536),
            steps=(0, most),
        )  # fmt: skip
        if not (0 < self.lo < self.hi < np.inf and 0 <= self.epsilon < 1):
            raise EmulatorError(
                "A reduction: wavelengths must rise from above 0, and epsilon lie between 0 and 1; got "
                f"{self.lo} to {self.hi} Å and {self.epsilon}."
            )

    @property
    def wavelength(self) -> np.ndarray:
        return log_uniform(self.lo, self.hi, self.n_wave)


class ReducedEmulator(Emulator):
    """Principal components in the saturating space, coefficients from a two-layer network; see the module's docstring.

    `error` `(n_wave,)` is the root-mean-square difference from the full emulator on fresh labels, in flux.
    """

    mean: Float[Array, " n_wave"]
    basis: Float[Array, "components n_wave"]
    layers: Layers  # from scaled labels to coefficients
    error: Float[Array, " n_wave"]
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    config: ReductionConfig = eqx.field(static=True)

    kind = "reduced"

    def coefficients(self, scaled_labels: Float[Array, " n_labels"]) -> Float[Array, " components"]:
        return apply_layers(self.layers, scaled_labels)

    def grid_link(self, scaled_labels: Float[Array, " n_labels"]) -> Float[Array, " n_wave"]:
        """x on the grid."""
        return self.mean + self.coefficients(scaled_labels) @ self.basis

    def grid_flux(self, scaled_labels: Float[Array, " n_labels"]) -> Float[Array, " n_wave"]:
        """Normalised flux on the grid `config.wavelength`."""
        return from_link(self.grid_link(scaled_labels), self.config.epsilon)

    def prepare(self, wavelength) -> tuple[Int[Array, "n_query 4"], Float[Array, "n_query 4"]]:
        """Nodes and weights of four-point Lagrange interpolation on the grid, in float64 on the host."""
        c = self.config
        step = np.log(c.hi / c.lo) / (c.n_wave - 1)
        index, weights = four_points(np.log(np.asarray(wavelength, np.float64) / c.lo) / step, c.n_wave)
        return jnp.asarray(index), jnp.asarray(weights)

    def flux(self, scaled_labels: Float[Array, " n_labels"], query) -> Float[Array, " n_query"]:
        index, weights = query
        return jnp.sum(self.grid_flux(scaled_labels)[index] * weights, axis=-1)

    def to_config(self) -> dict:
        return dataclasses.asdict(self.config)

    @classmethod
    def from_config(cls, config, label_space, wavelength_range, medium):
        c = ReductionConfig(**config)
        layers = dense_layers(jax.random.key(0), (len(label_space), c.hidden, c.hidden, c.components))
        zeros = jnp.zeros((c.components, c.n_wave))
        where = {"label_space": label_space, "wavelength_range": tuple(wavelength_range), "medium": medium}
        return cls(mean=zeros[0], basis=zeros, layers=layers, error=zeros[0], config=c, **where)
