"""Functions of labels that several emulators are linear in."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import THETA_TEMPERATURE
from .space import LabelSpace


def gp_features(
    label_space: LabelSpace, scaled_labels: Float[Array | np.ndarray, "*batch n_labels"], xp=jnp
) -> Float[Array | np.ndarray, "*batch n_labels"]:
    """The inputs of the kernels: scaled labels with θ = 5040 K / Teff, scaled to [-1, 1], for Teff.

    θ is the temperature in the Boltzmann and Saha factors, in which x is nearer to linear than in Teff itself.
    """
    if "teff" not in label_space.names:
        return scaled_labels
    i = label_space.index("teff")
    teff = scaled_labels[..., i] * np.float32(label_space.half_width[i]) + np.float32(label_space.centre[i])
    hot, cool = THETA_TEMPERATURE / label_space.upper[i], THETA_TEMPERATURE / label_space.lower[i]
    theta = (THETA_TEMPERATURE / teff - 0.5 * (hot + cool)) / (0.5 * (cool - hot))
    return xp.concatenate([scaled_labels[..., :i], theta[..., None], scaled_labels[..., i + 1 :]], axis=-1)


def monomials(n_labels: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """The factors of every monomial of total degree ≤ `degree`, as tuples of label indices: (), (0,), …, (0, 0), …"""
    return tuple(
        itertools.chain.from_iterable(
            itertools.combinations_with_replacement(range(n_labels), d) for d in range(degree + 1)
        )
    )


def monomial_values(
    scaled_labels: Float[Array | np.ndarray, "*batch n_labels"], degree: int, xp=jnp
) -> Float[Array | np.ndarray, "*batch n_terms"]:
    """Values of all monomials of labels, in the order of `monomials`."""
    n = scaled_labels.shape[-1]
    padded = xp.concatenate([scaled_labels, xp.ones_like(scaled_labels[..., :1])], axis=-1)
    # A monomial of lower degree is filled up with ones, so that all terms are products of `degree` columns.
    table = np.array([term + (n,) * (degree - len(term)) for term in monomials(n, degree)]).reshape(-1, degree)
    value = padded[..., table[:, 0]]
    for column in range(1, degree):
        value = value * padded[..., table[:, column]]
    return value


def quadratic_terms(u: Float[Array | np.ndarray, "*batch n"]) -> Float[Array | np.ndarray, "*batch n_terms"]:
    """`[1, u_i, u_i u_j (i ≤ j)]` along the last axis, of 1 + n + n (n + 1) / 2 terms. JAX or NumPy."""
    xp = jnp if isinstance(u, jax.Array) else np
    i, j = np.triu_indices(u.shape[-1])
    return xp.concatenate([xp.ones_like(u[..., :1]), u, u[..., i] * u[..., j]], axis=-1)


def label_terms(
    label_space: LabelSpace, scaled_labels: Float[Array | np.ndarray, "*batch n_labels"], xp=jnp
) -> Float[Array | np.ndarray, "*batch n_terms"]:
    """1, the features of `gp_features`, their products in pairs and their cubes: 1 + 2 n + n (n + 1) / 2 terms."""
    x = gp_features(label_space, scaled_labels, xp)
    i, j = np.triu_indices(x.shape[-1])
    return xp.concatenate([xp.ones_like(x[..., :1]), x, x[..., i] * x[..., j], x**3], axis=-1)
