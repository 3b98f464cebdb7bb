"""Formal solution of the transfer equation in a plane-parallel atmosphere with S = B."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def angles(n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes mu and weights on (0, 1) for the flux integral 2 pi int I mu dmu."""
    x, w = np.polynomial.legendre.leggauss(n)
    return 0.5 * (x + 1.0), 0.5 * w


def optical_depth(
    ln_tau: Float[Array, " n_depth"], ratio: Float[Array, "*points n_depth"]
) -> Float[Array, "*points n_depth"]:
    """Monochromatic optical depth of each layer from `ratio` = alpha/alpha_5000, shape (..., n_depth).

    Trapezoidal rule in ln tau_5000; above the top layer the integrand is taken to be constant in tau_5000.
    """
    integrand = ratio * jnp.exp(ln_tau)
    steps = 0.5 * (integrand[..., 1:] + integrand[..., :-1]) * jnp.diff(ln_tau)
    first = integrand[..., :1]
    return jnp.concatenate([first, first + jnp.cumsum(steps, axis=-1)], axis=-1)


def emergent_flux(
    tau: Float[Array, "*points n_depth"], source: Float[Array, "*#points n_depth"], n_angles: int = 4
) -> Float[Array, "*points"]:
    """Flux pi F = 2 pi int_0^1 I(mu) mu dmu at the surface; `tau` (..., n_depth) and `source` broadcast.

    By parts, I(mu) = S(0) + int S'(t) exp(-t/mu) dt, exact for a source function that is piecewise linear in tau;
    below the last layer S grows with the last gradient. The source at tau = 0 equals that of the first layer.
    """
    step = jnp.diff(tau, axis=-1)
    rise = jnp.diff(source, axis=-1)

    def add_angle(flux, angle):
        mu, weight = angle
        x = jnp.maximum(step / mu, 1e-6)
        surviving = jnp.exp(-tau / mu)
        mean = surviving[..., :-1] * (-jnp.expm1(-x) / x)
        tail = surviving[..., -1] * rise[..., -1] / x[..., -1]
        intensity = source[..., 0] + jnp.sum(rise * mean, axis=-1) + tail
        return flux + 2.0 * np.pi * mu * weight * intensity, None

    shape = jnp.broadcast_shapes(tau.shape, source.shape)[:-1]
    nodes = tuple(jnp.asarray(x, jnp.float32) for x in angles(n_angles))
    return jax.lax.scan(add_angle, jnp.zeros(shape, jnp.float32), nodes)[0]
