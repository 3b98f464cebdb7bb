"""Principal components of spectra in a saturating space, with Gaussian processes for their coefficients."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp

from ...labels.features import gp_features
from ...labels.space import LabelSpace
from ...wavelengths.pixels import PixelGrid
from ..base import from_link
from .pixels import PixelEmulator


def matern52(squared_distance, xp=jnp):
    """The Matérn 5/2 kernel (Rasmussen & Williams 2006, eq. 4.17) of distances² in units of the length scales."""
    # The tiny offset keeps the gradient of the root finite at a training point.
    r = xp.sqrt(5.0 * squared_distance + 1e-20)
    return (1.0 + r + r * r / 3.0) * xp.exp(-r)


class KernelSum(eqx.Module):
    """Σ_i w_i k(labels, labels_i) for groups of components; the components of a group share their length scales."""

    inputs: jax.Array  # (n_train, n_labels), features of the training labels
    inverse_length: jax.Array  # (n_groups, n_labels)
    weights: list  # per group, (n_train, components of the group)

    def __init__(self, n_train: int, n_labels: int, groups):
        self.inputs = jnp.zeros((n_train, n_labels))
        self.inverse_length = jnp.ones((len(groups), n_labels))
        self.weights = [jnp.zeros((n_train, size)) for size in groups]

    def __call__(self, features) -> jax.Array:
        """`(components,)` at features `(n_labels,)`."""
        squared = jnp.einsum("ij,gj->gi", (features - self.inputs) ** 2, self.inverse_length**2)
        return jnp.concatenate([k @ w for k, w in zip(matern52(squared), self.weights)])


class LogitGP(PixelEmulator):
    """x = log(1/f − 1 + ε) as `mean` + coefficients(labels) @ `basis`, the coefficients from Gaussian processes.

    The coefficients are the sum of one or two kernel sums. With two, the first has the length scales of simple physics
    and runs over many simple and few realistic spectra, the second is the difference between them (Kennedy & O'Hagan
    2000, Biometrika 87, 1).
    """

    mean: jax.Array  # (n,)
    basis: jax.Array  # (components, n)
    sums: list[KernelSum]
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    grid: PixelGrid = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    kind = "logit_gp"

    def __init__(self, label_space, grid, medium, n_train, groups, epsilon=0.003):
        """`n_train`: spectra in each kernel sum; `groups`: components in each group."""
        self.mean, self.basis = jnp.zeros(grid.n), jnp.zeros((sum(groups), grid.n))
        self.sums = [KernelSum(n, len(label_space), groups) for n in n_train]
        self.label_space, self.medium, self.grid = label_space, medium, grid
        self.wavelength_range = grid.range
        self.epsilon = epsilon

    def coefficients(self, scaled_labels) -> jax.Array:
        """Component coefficients `(components,)`."""
        features = gp_features(self.label_space, scaled_labels)
        first, *others = (kernel_sum(features) for kernel_sum in self.sums)
        return sum(others, first)

    def link(self, scaled_labels) -> jax.Array:
        """x at the stored pixels, `(grid.n,)`."""
        return self.mean + self.coefficients(scaled_labels) @ self.basis

    def pixels(self, scaled_labels):
        return from_link(self.link(scaled_labels), self.epsilon)

    def to_config(self) -> dict:
        return {
            "grid": dataclasses.asdict(self.grid),
            "n_train": [s.inputs.shape[0] for s in self.sums],
            "groups": [w.shape[1] for w in self.sums[0].weights],
            "epsilon": self.epsilon,
        }

    @classmethod
    def from_config(cls, config, label_space, wavelength_range, medium):
        grid = PixelGrid(**config["grid"])
        return cls(label_space, grid, medium, config["n_train"], config["groups"], config["epsilon"])
