"""Which pixels each line contributes to, and the sum of the lines' opacities over them.

A line has a core window, where the whole Voigt function is evaluated, and, if its wings reach further, a wing window,
where the cheap asymptotic series is. Lines with windows of one size are added in one `lax.scan`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .profile import lorentz_wing, voigt

CORE_HALF_WIDTHS = (0.24, 0.64)  # Å; at 0.64 Å the series holds for every line of the window
WING_HALF_WIDTHS = (1.3, 2.6, 5.2, 10.4, 20.8, 41.6, np.inf)  # Å


class Group(eqx.Module):
    """Lines that share a window size: `line` index, first pixel `start`, and the core's pixels `skip` to leave out."""

    line: Int[Array, " n_group"]
    start: Int[Array, " n_group"]
    skip: Int[Array, "n_group 2"] | None
    width: int = eqx.field(static=True)


def plan(wavelength: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> tuple[Group, ...]:
    """Groups of windows for lines at `centres` with half-widths `reach` (Å) on the pixels `wavelength` (Å, rising)."""
    n, step = len(wavelength), np.median(np.diff(wavelength))
    pixel = np.searchsorted(wavelength, centres)

    def window(half_width):
        width = n if not np.isfinite(half_width) else min(n, 2 * int(np.ceil(half_width / step)))
        return width, np.clip(pixel - width // 2, 0, n - width)

    groups, cores = [], np.zeros((len(centres), 2), int)
    small, large = CORE_HALF_WIDTHS
    for half_width, chosen in ((small, reach <= small), (large, reach > small)):
        width, start = window(half_width)
        cores[chosen] = np.stack([start, start + width], axis=-1)[chosen]
        groups.append(_group(np.flatnonzero(chosen), start, None, width))
    inner = large
    for half_width in WING_HALF_WIDTHS:
        width, start = window(half_width)
        chosen = (reach > inner) & (reach <= half_width)
        groups.append(_group(np.flatnonzero(chosen), start, cores, width))
        inner = half_width
    return tuple(g for g in groups if len(g.line))


def _group(index, start, cores, width):
    skip = None if cores is None else jnp.asarray(cores[index] - start[index, None], jnp.int32)
    return Group(jnp.asarray(index, jnp.int32), jnp.asarray(start[index], jnp.int32), skip, width)


def add_lines(
    groups: tuple[Group, ...],
    offsets: Float[Array, " n_wave"],
    centres: Float[Array, " n_lines"],
    amplitude: Float[Array, "n_lines n_depth"],
    a: Float[Array, "n_lines n_depth"],
    inverse_width: Float[Array, "n_lines n_depth"],
) -> Float[Array, "n_wave n_depth"]:
    """Sum of the lines' opacities, shape (n_wave, n_depth).

    `offsets` (n_wave,) and `centres` (n_lines,) are wavelengths relative to a common origin, in Å; `amplitude`, `a` and
    `inverse_width` (n_lines, n_depth) come from `lines.line_opacity`.
    """
    total = jnp.zeros((offsets.shape[0], amplitude.shape[1]), jnp.float32)
    for group in groups:

        @jax.checkpoint
        def block(line, group=group):
            start, skip, centre, strength, damping, inverse = line
            u = (jax.lax.dynamic_slice(offsets, (start,), (group.width,)) - centre)[:, None] * inverse
            if skip is None:
                return strength * voigt(damping, u)
            pixel = jnp.arange(group.width)[:, None]
            wing = (pixel < skip[0]) | (pixel >= skip[1])
            return jnp.where(wing, strength * lorentz_wing(damping, jnp.where(wing, u, 1e3)), 0.0)

        def add(total, line, group=group, block=block):
            corner = (line[0], 0)
            here = jax.lax.dynamic_slice(total, corner, (group.width, total.shape[1]))
            return jax.lax.dynamic_update_slice(total, here + block(line), corner), None

        pick = group.line
        lines = (group.start, group.skip, centres[pick], amplitude[pick], a[pick], inverse_width[pick])
        total, _ = jax.lax.scan(add, total, lines)
    return total
