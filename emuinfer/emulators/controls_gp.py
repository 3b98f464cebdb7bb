"""Principal components of spectra in a saturating space, with Gaussian processes for their coefficients."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import EmulatorError
from ..labels import LabelSpace
from .base import flux_from_depth
from .controls_pca import LogitPCA
from .controls_pixels import PixelEmulator, PixelGrid


def gp_features(label_space: LabelSpace, scaled_labels, xp=jnp):
    """The inputs of the kernels, `(..., n_labels)`: scaled labels with θ = 5040 K / Teff, scaled to [-1, 1], for Teff.

    θ is the temperature in the Boltzmann and Saha factors, in which x is nearer to linear than in Teff itself.
    """
    if "teff" not in label_space.names:
        return scaled_labels
    i = label_space.index("teff")
    teff = scaled_labels[..., i] * np.float32(label_space.half_width[i]) + np.float32(label_space.centre[i])
    hot, cool = 5040.0 / label_space.upper[i], 5040.0 / label_space.lower[i]
    theta = (5040.0 / teff - 0.5 * (hot + cool)) / (0.5 * (cool - hot))
    return xp.concatenate([scaled_labels[..., :i], theta[..., None], scaled_labels[..., i + 1 :]], axis=-1)


def matern52(squared_distance, xp=jnp):
    """The Matérn 5/2 kernel (Rasmussen & Williams 2006, eq. 4.17) of squared distances in units of the length scales."""
    # The tiny offset keeps the gradient of the root finite at a training point.
    r = xp.sqrt(5.0 * squared_distance + 1e-20)
    return (1.0 + r + r * r / 3.0) * xp.exp(-r)


class LogitGP(PixelEmulator):
    """x = log(1/f − 1 + ε) as `mean` + coefficients(labels) @ `basis`, the coefficients from Gaussian processes.

    Components are grouped; all components of a group share one kernel (length scales), so that a prediction costs one
    row of kernel values per group. With `base`, another emulator in x, the processes predict what is to be added to
    the base's x: simple physics from many spectra plus the difference learned from few realistic ones.
    """

    mean: jax.Array  # (n,)
    basis: jax.Array  # (components, n)
    inputs: jax.Array  # (n_train, n_labels), features of the training labels
    inverse_length: jax.Array  # (n_groups, n_labels)
    weights: list  # per group, (n_train, components of the group): K⁻¹ y
    base: PixelEmulator | None
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    grid: PixelGrid = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    kind = "logit_gp"

    def __init__(self, label_space, grid, medium, n_train, groups, epsilon=0.003, base=None):
        self.mean, self.basis = jnp.zeros(grid.n), jnp.zeros((sum(groups), grid.n))
        self.inputs = jnp.zeros((n_train, len(label_space)))
        self.inverse_length = jnp.ones((len(groups), len(label_space)))
        self.weights = [jnp.zeros((n_train, size)) for size in groups]
        if base is not None and (base.grid != grid or base.label_space != label_space or base.medium != medium):
            raise EmulatorError("The base of a LogitGP must have the same labels, pixels and medium.")
        self.base = base
        self.label_space, self.medium, self.grid = label_space, medium, grid
        self.wavelength_range = grid.range
        self.epsilon = epsilon

    def coefficients(self, scaled_labels) -> jax.Array:
        """Component coefficients `(components,)`."""
        difference = gp_features(self.label_space, scaled_labels) - self.inputs
        squared = jnp.einsum("ij,gj->gi", difference**2, self.inverse_length**2)
        kernel = matern52(squared)
        return jnp.concatenate([k @ w for k, w in zip(kernel, self.weights)])

    def depth(self, scaled_labels) -> jax.Array:
        """x at the stored pixels, `(grid.n,)`."""
        x = self.mean + self.coefficients(scaled_labels) @ self.basis
        return x if self.base is None else x + self.base.depth(scaled_labels)

    def pixels(self, scaled_labels):
        return flux_from_depth(self.depth(scaled_labels), self.epsilon)

    def to_config(self) -> dict:
        base = None if self.base is None else {"kind": self.base.kind, "config": self.base.to_config()}
        return {
            "grid": dataclasses.asdict(self.grid),
            "n_train": self.inputs.shape[0],
            "groups": [w.shape[1] for w in self.weights],
            "epsilon": self.epsilon,
            "base": base,
        }

    @classmethod
    def from_config(cls, config, label_space, wavelength_range, medium):
        settings = dict(config, grid=PixelGrid(**config["grid"]))
        if settings.get("base") is not None:
            kinds = {LogitPCA.kind: LogitPCA, cls.kind: cls}
            base = kinds[settings["base"]["kind"]]
            settings["base"] = base.from_config(settings["base"]["config"], label_space, wavelength_range, medium)
        return cls(label_space, settings.pop("grid"), medium, **settings)
