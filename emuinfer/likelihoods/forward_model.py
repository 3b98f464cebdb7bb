"""The forward model: from labels and nuisances to normalised flux at a star's pixels; deterministic, in JAX.

Two forms with the same call: an emulator on a grid at rest with the operator that brings it to the pixels (`GridModel`), and
one star's surrogate of both (`LocalModel`).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from ..emulators import LocalSpectrum
from ..forward.operator import SpectrumOperator
from ..labels import LabelSpace

MOTION = (
    "rv",
    "vbroad",
    "vsini",
    "log10_resolution",
)  # nuisances that change the flux, in the order of `local_parameters`


def scaled_labels(label_space: LabelSpace, values: dict) -> Float[Array, " n_labels"]:
    """Labels of `values` scaled to [-1, 1]."""
    return label_space.scale(jnp.stack([jnp.asarray(values[n], jnp.float32) for n in label_space.names]))


def local_parameters(label_space: LabelSpace, values: dict) -> Float[Array, " n_parameters"]:
    """What the flux at the pixels depends on, as one vector: scaled labels, velocity and broadening."""
    nuisance = [jnp.asarray(v, jnp.float32) for v in motion(values).values()]
    return jnp.concatenate([scaled_labels(label_space, values), jnp.stack(nuisance)])


def motion(values: dict) -> dict:
    """Those of `MOTION` that there are. A fitted resolving power is part of `vbroad`: the flux depends on both together."""
    fitted = "log10_resolution" in values
    found = {n: values.get(n, np.float32(0.0)) for n in MOTION if n in values or (fitted and n == "vbroad")}
    if fitted:
        found["vbroad"] = jnp.sqrt(found["vbroad"] ** 2 + instrument_sigma(values) ** 2)
    return found


def instrument_sigma(values: dict):
    """Standard deviation in km/s of the line spread function of a fitted resolving power."""
    return np.float32(SPEED_OF_LIGHT / FWHM_PER_SIGMA) * 10.0 ** -values["log10_resolution"]


class GridModel(eqx.Module):
    """An emulator on a grid of wavelengths at rest, seen through the instrument and the star's motion."""

    emulator: Any  # anything with grid_flux(scaled_labels) on the operator's grid
    operator: SpectrumOperator
    frame: Float[Array, ""]  # km/s from which `rv` is counted: 0, or a first guess where one model serves many stars
    label_space: LabelSpace = eqx.field(static=True)
    # Width in km/s of the operator's line spread function where `log10_resolution` is fitted: no wider than any that is possible.
    sharpest: Float[Array, ""] | None = None

    def __call__(self, values: dict) -> Float[Array, " n_pix"]:
        """Normalised flux at the pixels."""
        return self.see(values)(self.rest_flux(values))

    def rest_flux(self, values: dict) -> Float[Array, " n_grid"]:
        """Normalised flux of the star at rest."""
        return self.emulator.grid_flux(scaled_labels(self.label_space, values))

    def see(self, values: dict):
        """The function that turns flux at rest `(n_grid,)` into flux at the pixels `(n_pix,)`."""
        vbroad, vsini = values.get("vbroad", 0), values.get("vsini", 0)
        return lambda flux: self.broadened(flux, values, vbroad, vsini)

    def broadened(self, flux: Float[Array, " n_grid"], values: dict, vbroad, vsini) -> Float[Array, " n_pix"]:
        """As `see`, with other broadening."""
        if self.sharpest is not None:
            beyond = jnp.maximum(instrument_sigma(values) ** 2 - self.sharpest**2, 0.0)
            vbroad = jnp.sqrt(beyond + vbroad**2 + np.float32(1e-6))
        return self.operator(flux, values["rv"] + self.frame, vbroad, vsini)

    @property
    def grid(self) -> "GridModel":
        """Itself; see `LocalModel.grid`."""
        return self

    @property
    def local_error(self) -> None:
        """There is no local surrogate, so no error of one."""
        return None

    def with_emulator(self, emulator) -> "GridModel":
        """The same with another emulator on the grid."""
        return GridModel(emulator, self.operator, self.frame, self.label_space, self.sharpest)


class LocalModel(eqx.Module):
    """A `LocalSpectrum` of one star, and the model of the whole domain that tells what lines lie at the pixels."""

    local: LocalSpectrum
    grid: GridModel

    def __call__(self, values: dict) -> Float[Array, " n_pix"]:
        """Normalised flux at the pixels."""
        return self.local(local_parameters(self.label_space, values))

    def rest_flux(self, values: dict) -> Float[Array, " n_grid"]:
        """Normalised flux of the star at rest, from the emulator of the whole domain."""
        return self.grid.rest_flux(values)

    def see(self, values: dict):
        """The function that turns flux at rest `(n_grid,)` into flux at the pixels `(n_pix,)`."""
        return self.grid.see(values)

    @property
    def label_space(self) -> LabelSpace:
        """The labels of the emulator."""
        return self.grid.label_space

    @property
    def local_error(self) -> Float[Array, " n_pix"]:
        """Root-mean-square error of the local surrogate at the pixels."""
        return self.local.error

    def with_emulator(self, emulator) -> GridModel:
        """An emulator on the grid in place of the surrogate."""
        return self.grid.with_emulator(emulator)
