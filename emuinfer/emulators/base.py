"""The protocol that every emulator of stellar spectra follows."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..entry import public
from ..errors import EmulatorError
from ..labels.space import LabelSpace


class Emulator(eqx.Module):
    """Normalised flux as a function of stellar labels and wavelength.

    A subclass gives `prepare`, the host-side part in float64 that depends on the wavelengths alone, and `flux`, the
    device-side part in float32 that a sampler may differentiate. `emulator(labels, wavelength)` is both in one call.
    """

    label_space: eqx.AbstractVar[LabelSpace]
    wavelength_range: eqx.AbstractVar[tuple[float, float]]
    medium: eqx.AbstractVar[str]

    @abc.abstractmethod
    def prepare(self, wavelength: np.ndarray) -> Any:
        """What `flux` needs to know of the wavelengths, shape `(n_wave,)` in Å in the emulator's medium. A pytree."""

    @abc.abstractmethod
    def flux(self, scaled_labels: Float[Array, " n_labels"], query: Any) -> Float[Array, " n_wave"]:
        """Normalised flux at labels scaled to [-1, 1]. Pure, float32."""

    def tabulate(self, query) -> "AtWavelengths":
        """The emulator at the wavelengths of `query` alone, with `grid_flux(scaled_labels)`; a subclass may compute in advance
        what does not depend on labels."""
        return OnGrid(self, query)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.label_space.names

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        return self.label_space.bounds

    def contains(self, labels) -> np.ndarray:
        """The domain test: whether labels (array `(..., n_labels)` or mapping) lie where the emulator was trained."""
        return self.label_space.contains(labels)

    def check_wavelength(self, wavelength) -> np.ndarray:
        """`wavelength` as float64; raises `EmulatorError` where it leaves the emulator's range."""
        if isinstance(wavelength, jax.core.Tracer):
            raise EmulatorError(
                "The wavelengths of an emulator must be known when it is traced (its phases need float64 on the host): "
                "pass a NumPy array, or call emulator.prepare(wavelength) outside jit and emulator.flux inside."
            )
        wavelength = np.atleast_1d(np.asarray(wavelength, dtype=np.float64))
        lo, hi = self.wavelength_range
        slack = 1e-6
        if not np.all(np.isfinite(wavelength)):
            raise EmulatorError("The wavelengths hold values that are not finite.")
        if wavelength.size == 0 or wavelength.min() < lo - slack or wavelength.max() > hi + slack:
            found = f"{wavelength.min():.3f}–{wavelength.max():.3f} Å" if wavelength.size else "no wavelengths"
            raise EmulatorError(f"The emulator covers {lo:.3f}–{hi:.3f} Å ({self.medium}); asked for {found}.")
        return wavelength

    @public
    def __call__(self, labels, wavelength, *, extrapolate: bool = False) -> Float[Array, "*batch n_wave"]:
        """Continuum-normalised flux.

        **Arguments:**

        - `labels`: mapping of every label name to a value (or broadcastable arrays), or an array `(..., n_labels)`.
          May be traced by JAX.
        - `wavelength`: `(n_wave,)` in Å, in the emulator's medium; a NumPy array or list, not traced.
        - `extrapolate`: allow labels outside the domain. Traced labels cannot be tested and are the caller's care.

        **Returns:** flux of shape `(..., n_wave)`, float32.

        **Raises:** `LabelError` on wrong names or labels outside the domain, `EmulatorError` on wavelengths out of range.
        """
        query = self.prepare(self.check_wavelength(wavelength))
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree_util.tree_leaves(labels))
        if not traced and not extrapolate:
            self.label_space.check(labels)
        array = self.label_space.to_array(labels, jnp if traced else np)
        scaled = jnp.asarray(self.label_space.scale(array), jnp.float32)
        flat = scaled.reshape(-1, len(self.label_space))
        flux = _flux_one(self, flat[0], query)[None] if flat.shape[0] == 1 else _flux_map(self, flat, query)
        return flux.reshape(*scaled.shape[:-1], -1)


class AtWavelengths(eqx.Module):
    """An emulator at fixed wavelengths."""

    @abc.abstractmethod
    def grid_flux(self, scaled_labels: Float[Array, " n_labels"]) -> Float[Array, " n_wave"]:
        """Normalised flux there, at labels scaled to [-1, 1]."""


class OnGrid(AtWavelengths):
    """Any emulator with the query of its wavelengths."""

    emulator: Emulator
    query: Any

    def grid_flux(self, scaled_labels: Float[Array, " n_labels"]) -> Float[Array, " n_wave"]:
        return self.emulator.flux(scaled_labels, self.query)


@eqx.filter_jit
def _flux_one(emulator, scaled, query):
    return emulator.flux(scaled, query)


@eqx.filter_jit
def _flux_map(emulator, scaled, query):
    # One spectrum after another: a transformer's activations for many spectra at once would not fit in memory.
    return jax.lax.map(lambda s: emulator.flux(s, query), scaled)


def to_link(flux, epsilon: float):
    """x = log(1/f − 1 + ε) for normalised flux; fluxes outside [1e-4, 1/(1-ε/2)] are clipped. NumPy or JAX, any shape.

    eˣ behaves like an opacity: it grows with the absorber's abundance where the flux saturates, so x varies more
    smoothly with the labels than the flux does.
    """
    xp = jnp if isinstance(flux, jax.Array) else np
    flux = xp.clip(flux, 1e-4, 1.0 / (1.0 - 0.5 * epsilon))
    return xp.log(1.0 / flux - 1.0 + epsilon)


def from_link(x: Float[Array | np.ndarray, "*shape"], epsilon: float) -> Float[Array, "*shape"]:
    """Normalised flux f = 1 / (1 − ε + eˣ), the saturating link; the inverse of `to_link`."""
    return 1.0 / (1.0 - epsilon + jnp.exp(jnp.minimum(x, 30.0)))
