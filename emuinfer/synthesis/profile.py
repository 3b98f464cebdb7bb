"""The Voigt function H(a, u) in float32, by a rational approximation that is smooth and differentiable."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SQRT_PI = 1.7724538509


@functools.cache
def _weideman_coefficients(n: int) -> tuple[float, np.ndarray]:
    """Scale L and polynomial coefficients, constant first (Weideman 1994, SIAM J. Numer. Anal. 31, 1497)."""
    m = 2 * n
    scale = np.sqrt(n / np.sqrt(2.0))
    theta = np.arange(-m + 1, m) * np.pi / m
    t = scale * np.tan(0.5 * theta)
    f = np.concatenate([[0.0], np.exp(-(t**2)) * (scale**2 + t**2)])
    coefficients = np.real(np.fft.fft(np.fft.fftshift(f))) / (2 * m)
    return scale, coefficients[1 : n + 1]


def voigt(a: Float[Array, "*#n"], u: Float[Array, "*#n"], n: int = 20) -> Float[Array, "*n"]:
    """H(a, u), the real part of w(u + i a), for a > 0; relative error below 1e-4 for a > 1e-4 and any u.

    Weideman's polynomial inside |z|^2 < 60, three terms of the asymptotic series outside. All in real arithmetic, which
    compilers vectorise.
    """
    near = voigt_core(a, u, n)
    far = lorentz_wing(a, u)
    return jnp.where(u * u + a * a < 60.0, near, far)


def voigt_core(a: Float[Array, "*#n"], u: Float[Array, "*#n"], n: int = 16) -> Float[Array, "*n"]:
    """H(a, u) by Weideman's polynomial alone: to 1e-5 of the centre's value, not relatively in the wings."""
    scale, c = _weideman_coefficients(n)
    # Z = (L + iz)/(L - iz) with iz = -a + iu
    dr, di = scale + a, -u
    norm = 1.0 / (dr * dr + di * di)
    nr, ni = scale - a, u
    zr, zi = (nr * dr + ni * di) * norm, (ni * dr - nr * di) * norm
    twice, square = 2.0 * zr, zr * zr + zi * zi
    # Clenshaw-like recurrence for a real polynomial at a complex point
    b1, b2 = jnp.full_like(zr, c[-1]), jnp.zeros_like(zr)
    for k in range(n - 2, 0, -1):
        b1, b2 = c[k] + twice * b1 - square * b2, b1
    pr, pi = c[0] + zr * b1 - square * b2, zi * b1
    # w = 2 p / (L - iz)^2 + 1 / (sqrt(pi) (L - iz)), with 1/(L - iz) = (dr - i di) norm
    ir, ii = dr * norm, -di * norm
    return 2.0 * (pr * (ir * ir - ii * ii) - 2.0 * pi * ir * ii) + ir / SQRT_PI


def lorentz_wing(a: Float[Array, "*#n"], u: Float[Array, "*#n"]) -> Float[Array, "*n"]:
    """H(a, u) far from the core, from w(z) = i/sqrt(pi) (1/z + 1/(2 z^3) + 3/(4 z^5) + ...)."""
    u2, a2 = u * u, a * a
    r = 1.0 / (u2 + a2)
    r2 = r * r
    series = 1.0 + (1.5 * u2 - 0.5 * a2) * r2 + 0.75 * (5.0 * u2 * u2 - 10.0 * u2 * a2 + a2 * a2) * (r2 * r2)
    return a / SQRT_PI * r * series
