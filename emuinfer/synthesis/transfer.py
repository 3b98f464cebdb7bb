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
        before, after = surviving[..., :-1], surviving[..., 1:]
        # (1 - exp(-x)) / x: the difference of what survives is at hand, and cancels in thin layers only
        mean = jnp.where(x > 0.02, (before - after) / x, before * (1.0 - x * (0.5 - x / 6.0)))
        tail = surviving[..., -1] * rise[..., -1] / x[..., -1]
        intensity = source[..., 0] + jnp.sum(rise * mean, axis=-1) + tail
        return flux + 2.0 * np.pi * mu * weight * intensity, None

    shape = jnp.broadcast_shapes(tau.shape, source.shape)[:-1]
    nodes = tuple(jnp.asarray(x, jnp.float32) for x in angles(n_angles))
    return jax.lax.scan(add_angle, jnp.zeros(shape, jnp.float32), nodes)[0]


def scattered_source(
    tau: Float[Array, "*points n_depth"],
    planck: Float[Array, "*#points n_depth"],
    scattered: Float[Array, "*points n_depth"],
) -> Float[Array, "*points n_depth"]:
    """Source function where a share of the opacity, `scattered`, is coherent isotropic scattering: (1 - share) B + share J.

    J is the mean intensity in the Eddington approximation, d^2 J / d tau^2 = 3 (1 - share) (J - B), with J' = sqrt(3) J at the surface
    and J = B below; solved by the elimination of Rybicki & Hummer (1991, A&A 245, 171, appendix A), which small steps do not spoil.
    """
    planck = jnp.broadcast_to(planck, tau.shape)
    layers = lambda x: jnp.moveaxis(x, -1, 0)
    thermal, b, step = layers(1.0 - scattered), layers(planck), layers(jnp.maximum(jnp.diff(tau, axis=-1), 1e-12))
    ratio = step[1:] / step[:-1]
    inside = 1.5 * thermal[1:-1] * (step[1:] + step[:-1]) * step[1:]
    top = 1.5 * thermal[0] * step[0] * step[0]
    f = np.float32(np.sqrt(3.0)) * step[0] + top
    start = (f, top * b[0] / (1.0 + f))

    def down(carry, layer):
        f, z = carry
        ratio, inside, b = layer
        f = inside + ratio * f / (1.0 + f)
        z = (inside * b + ratio * z) / (1.0 + f)
        return (f, z), (f, z)

    _, (f, z) = jax.lax.scan(down, start, (ratio, inside, b[1:-1]))
    f, z = (jnp.concatenate([first[None], rest]) for first, rest in zip(start, (f, z)))

    def up(j, layer):
        f, z = layer
        j = j / (1.0 + f) + z
        return j, j

    _, j = jax.lax.scan(up, b[-1], (f, z), reverse=True)
    j = jnp.concatenate([j, b[-1:]])
    return planck + scattered * (jnp.moveaxis(j, 0, -1) - planck)


def in_blocks(function, arrays, size: int = 1024) -> Float[Array, " n_points"]:
    """`function` of arrays `(n_points, n_depth)`, one number a point, for blocks of `size` points in turn.

    On a processor blocks that fit into its cache are faster than all at once by a third; elsewhere nothing is divided.
    """
    n = len(arrays[0])
    if n <= 2 * size or jax.default_backend() != "cpu":
        return function(*arrays)
    rest = -n % size
    blocks = [jnp.pad(x, ((0, rest), (0, 0)), mode="edge").reshape(-1, size, x.shape[1]) for x in arrays]
    return jax.lax.map(lambda block: function(*block), blocks).reshape(-1)[:n]
