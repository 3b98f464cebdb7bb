"""Fourier transforms of line-broadening kernels in velocity. `k` is the angular frequency in rad / (km/s).

All kernels have unit area, so that all transforms are 1 at `k = 0`, and are even, so that all transforms are real.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TABLE_STEP, TABLE_END = 0.1, 1000.0  # in x = k v sin i; at the end the transform is below 1e-4


def gaussian_transfer(k: Float[Array, " n"], sigma) -> Float[Array, " n"]:
    """Transform of a Gaussian with standard deviation `sigma` in km/s."""
    return jnp.exp(-0.5 * (k * sigma) ** 2)


def rotation_transform(x, limb_darkening=0.6):
    """Transform of the profile of a rotating star with linear limb darkening at `x = k v sin i`, in float64 on the
    host.

    Gray (2005, The Observation and Analysis of Stellar Photospheres, 3rd ed., eq. 18.14) gives the profile
    `G(v) = [2 (1-e) sqrt(1-y²) + pi/2 e (1-y²)] / [pi v_L (1-e/3)]` for `y = v / v_L`, `|y| < 1`. Its cosine transform
    is `[2 (1-e) J1(x)/x + 2 e (sin x - x cos x)/x³] / (1-e/3)`; the second term is also `2 e j1(x)/x`, j1 spherical.
    """
    from scipy.special import j1, spherical_jn

    x = np.abs(np.asarray(x, dtype=float))
    y = np.maximum(x, 1e-8)  # both quotients are flat there: 1/2 and 1/3
    return (
        2.0 * ((1.0 - limb_darkening) * j1(y) + limb_darkening * spherical_jn(1, y)) / y / (1.0 - limb_darkening / 3.0)
    )


def rotation_table(limb_darkening=0.6) -> np.ndarray:
    """Values and slopes (times the step) of `rotation_transform` every `TABLE_STEP`, `(n, 2)`."""
    x = np.arange(0.0, TABLE_END + 2 * TABLE_STEP, TABLE_STEP)
    h = 1e-3
    slope = (rotation_transform(x + h, limb_darkening) - rotation_transform(x - h, limb_darkening)) / (2 * h)
    return np.stack([rotation_transform(x, limb_darkening), slope * TABLE_STEP], axis=1).astype(np.float32)


def rotation_transfer(k: Float[Array, " n"], vsini, table: Float[Array, "n_table 2"]) -> Float[Array, " n"]:
    """Transform of the rotation profile for `vsini` in km/s (its sign does not matter), by cubic Hermite interpolation.

    `table` is that of `rotation_table`. The error is below 1e-6; beyond the table the transform counts as zero.
    """
    u = jnp.abs(k * vsini) * np.float32(1.0 / TABLE_STEP)
    i = jnp.minimum(u.astype(jnp.int32), len(table) - 2)
    t = jnp.minimum(u - i.astype(jnp.float32), 1.0)
    left, right = table[i], table[i + 1]
    jump = right[:, 0] - left[:, 0]
    # Hermite's cubic through both values with both slopes, in powers of t.
    cubic, square = left[:, 1] + right[:, 1] - 2 * jump, 3 * jump - 2 * left[:, 1] - right[:, 1]
    value = left[:, 0] + t * (left[:, 1] + t * (square + t * cubic))
    return jnp.where(u < np.float32(TABLE_END / TABLE_STEP), value, 0.0)
