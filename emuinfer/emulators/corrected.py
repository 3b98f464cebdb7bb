"""An emulator with a correction learned from pairs of spectra: what a change of physics, such as calibrated lines, does to the flux."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import EmulatorError
from ..labels.features import gp_features, monomial_values, monomials
from ..labels.space import LabelSpace
from ..wavelengths.pixels import PixelGrid, PixelQuery
from .base import Emulator, from_link, to_link
from .transformer import TransformerPayne

ATMOSPHERE = ("teff", "logg", "fe_h", "vmic")  # labels whose products of three count, too
RIDGE = 0.1  # of coefficients, where the features lie in [-1, 1]


class CorrectedEmulator(Emulator):
    """x = log(1/f − 1 + ε) of `base` plus `mean` + (terms of labels @ `coefficients`) @ `basis`.

    The correction is that of x between two spectra of one star that differ by one change of physics, and so carries over to an emulator
    whose spectra lack the same change. Terms: all products of up to two labels (θ = 5040 K / Teff for Teff), and of three of `ATMOSPHERE`.
    """

    base: TransformerPayne
    mean: Float[Array, " n"]
    basis: Float[Array, "components n"]
    coefficients: Float[Array, "n_terms components"]
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    grid: PixelGrid = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    kind = "corrected"

    def __init__(self, base, grid, mean, basis, coefficients, epsilon=0.003):
        self.base, self.grid, self.epsilon = base, grid, epsilon
        self.label_space, self.wavelength_range, self.medium = base.label_space, base.wavelength_range, base.medium
        self.mean, self.basis, self.coefficients = (jnp.asarray(a, jnp.float32) for a in (mean, basis, coefficients))

    def prepare(self, wavelength) -> tuple[Any, PixelQuery]:
        return self.base.prepare(wavelength), self.grid.query(wavelength)

    def flux(self, scaled_labels, query):
        inner, pixels = query
        x = to_link(self.base.flux(scaled_labels, inner), self.epsilon)
        shift = self.mean + (terms(self.label_space, scaled_labels) @ self.coefficients) @ self.basis
        return from_link(x + jnp.sum(shift[pixels.index] * pixels.weight, axis=-1), self.epsilon)

    def to_config(self) -> dict:
        shape = {"components": len(self.basis), "grid": dataclasses.asdict(self.grid), "epsilon": self.epsilon}
        return {"base": {"kind": self.base.kind, "config": self.base.to_config()}, **shape}

    @classmethod
    def from_config(cls, config, label_space, wavelength_range, medium):
        inner, grid, k = config["base"], PixelGrid(**config["grid"]), config["components"]
        if inner["kind"] != TransformerPayne.kind:
            raise EmulatorError(
                f"A corrected emulator of the kind '{inner['kind']}' cannot be read; only of '{TransformerPayne.kind}'."
            )
        base = TransformerPayne.from_config(inner["config"], label_space, wavelength_range, medium)
        n_terms = len(_table(label_space)[0]) + len(_table(label_space)[1])
        return cls(
            base, grid, np.zeros(grid.n), np.zeros((k, grid.n)), np.zeros((n_terms, k)), epsilon=config["epsilon"]
        )


def _table(space: LabelSpace):
    """The terms of degree two and less, and those of degree three, as tuples of label indices."""
    three = [space.index(n) for n in ATMOSPHERE if n in space.names]
    cubic = [tuple(three[i] for i in m) for m in monomials(len(three), 3) if len(m) == 3]
    return monomials(len(space), 2), cubic


def terms(space: LabelSpace, scaled_labels, xp=jnp):
    """Terms `(…, n_terms)` of scaled labels `(…, n_labels)`."""
    x = gp_features(space, scaled_labels, xp)
    cubic = np.array(_table(space)[1]).reshape(-1, 3)
    third = x[..., cubic[:, 0]] * x[..., cubic[:, 1]] * x[..., cubic[:, 2]]
    return xp.concatenate([monomial_values(x, 2, xp), third], axis=-1)


def fit_correction(
    base: TransformerPayne, labels, before, after, wavelength, *, components=60, epsilon=0.003
) -> CorrectedEmulator:
    """`base` corrected by the change from `before` to `after`, normalised fluxes `(n, n_wave)` at `labels` `(n, n_labels)`.

    `wavelength` `(n_wave,)`, Å in the medium of `base`, in equal steps. Ridge regression of the principal components of the change of x.
    **Raises:** `EmulatorError` with too few pairs, on shapes that differ, and on wavelengths that do not cover those of `base`.
    """
    labels, before, after = (np.asarray(a, np.float64) for a in (labels, before, after))
    grid = PixelGrid.from_wavelength(wavelength)
    features = terms(base.label_space, base.label_space.scale(base.label_space.to_array(labels)), np)
    if before.shape != after.shape or before.shape != (len(labels), grid.n):
        raise EmulatorError(
            f"A correction needs fluxes of one shape (n, n_wave); got {before.shape} and {after.shape} for {len(labels)} "
            f"labels and {grid.n} wavelengths."
        )
    if len(labels) < 1.5 * features.shape[1]:
        raise EmulatorError(
            f"A correction has {features.shape[1]} terms of the labels and needs at least {int(1.5 * features.shape[1]) + 1} "
            f"pairs of spectra; got {len(labels)}."
        )
    (lo, hi), (low, high) = grid.range, base.wavelength_range
    if lo > low + 1e-6 or hi < high - 1e-6:
        raise EmulatorError(f"The spectra cover {lo:g} to {hi:g} Å, the emulator {low:g} to {high:g} Å.")
    change = to_link(after, epsilon) - to_link(before, epsilon)
    mean = change.mean(0)
    left, size, basis = np.linalg.svd(change - mean, full_matrices=False)
    k = min(components, len(size))
    square = features.T @ features + RIDGE * np.eye(features.shape[1])
    coefficients = np.linalg.solve(square, features.T @ (left[:, :k] * size[:k]))
    return CorrectedEmulator(base, grid, mean, basis[:k], coefficients, epsilon)
