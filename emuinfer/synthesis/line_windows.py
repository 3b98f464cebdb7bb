"""Which pixels each line contributes to, and the sum of the lines' opacities over them.

A line has a core window, where the whole Voigt function is evaluated, and, if its wings reach further, a wing window,
where the cheap asymptotic series is. Lines with windows of one size are added in one `lax.scan`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .profile import lorentz_wing, voigt, voigt_core

CORE_HALF_WIDTHS = (0.24, 0.64)  # Å; at 0.64 Å the series holds for every line of the window
WING_HALF_WIDTHS = (1.3, 2.6, 5.2, 10.4, 20.8, 41.6, np.inf)  # Å
# Closer to what each line reaches: a third less to compute, and more to compile.
FINE_CORES = (0.12, 0.24, 0.4, 0.64)
FINE_WINGS = (0.9, 1.5, 2.6, 4.8, 9.0, 18.0, 36.0, 83.0, np.inf)
WEAK = 0.24  # Å; lines that reach no farther have no wings to speak of
WIDE = 400.0  # Å; over longer ranges a float32 does not hold a wavelength to 1e-5 Å


class Group(eqx.Module):
    """Lines that share a window size: `line` index, first pixel `start`, and the core's pixels `skip` to leave out.

    `weak`: lines without wings, so weak that the Voigt function need not be accurate far from their centres.
    """

    line: Int[Array, " n_group"]
    start: Int[Array, " n_group"]
    skip: Int[Array, "n_group 2"] | None
    width: int = eqx.field(static=True)
    weak: bool = eqx.field(static=True, default=False)


def plan(wavelength: np.ndarray, centres: np.ndarray, reach: np.ndarray, fine: bool = False) -> tuple[Group, ...]:
    """Groups of windows for lines at `centres` with half-widths `reach` (Å) on the pixels `wavelength` (Å, rising).

    `fine`: in more groups, of windows closer to what the lines need.
    """
    n, step = len(wavelength), np.median(np.diff(wavelength))
    pixel = np.searchsorted(wavelength, centres)

    def window(half_width):
        width = n if not np.isfinite(half_width) else min(n, 2 * int(np.ceil(half_width / step)))
        return width, np.clip(pixel - width // 2, 0, n - width)

    groups, cores = [], np.zeros((len(centres), 2), int)
    inner = 0.0
    for half_width in FINE_CORES if fine else CORE_HALF_WIDTHS:
        chosen = (reach > inner) & (reach <= half_width)
        if half_width == CORE_HALF_WIDTHS[-1]:
            chosen = reach > inner
        width, start = window(half_width)
        cores[chosen] = np.stack([start, start + width], axis=-1)[chosen]
        groups.append(_group(np.flatnonzero(chosen), start, None, width, weak=fine and half_width <= WEAK))
        inner = half_width
    for half_width in FINE_WINGS if fine else WING_HALF_WIDTHS:
        width, start = window(half_width)
        chosen = (reach > inner) & (reach <= half_width)
        groups.append(_group(np.flatnonzero(chosen), start, cores, width))
        inner = half_width
    return tuple(g for g in groups if len(g.line))


def remainders(wavelength: np.ndarray, centres: np.ndarray, origin: float) -> tuple[Array, Array] | None:
    """What float32 leaves of pixels and lines relative to `origin`, for `add_lines`; None over ranges where it holds them well."""
    if wavelength[-1] - wavelength[0] <= WIDE:
        return None
    rest = lambda x: jnp.asarray((x - origin) - (x - origin).astype(np.float32).astype(np.float64), jnp.float32)
    return rest(wavelength), rest(centres)


def _group(index, start, cores, width, weak=False):
    skip = None if cores is None else jnp.asarray(cores[index] - start[index, None], jnp.int32)
    return Group(jnp.asarray(index, jnp.int32), jnp.asarray(start[index], jnp.int32), skip, width, weak)


def detuning(group: Group, offsets, remainders, start, centre, rest) -> Float[Array, " width"]:
    """Å from a line's centre to the pixels of its window; `remainders` of the pixels `(n_wave,)` and `rest` of the line, or None."""
    window = lambda a: jax.lax.dynamic_slice(a, (start,), (group.width,))
    away = window(offsets) - centre
    return away if remainders is None else away + (window(remainders) - rest)


def add_lines(
    groups: tuple[Group, ...],
    offsets: Float[Array, " n_wave"],
    centres: Float[Array, " n_lines"],
    amplitude: Float[Array, "n_lines n_depth"],
    a: Float[Array, "n_lines n_depth"],
    inverse_width: Float[Array, "n_lines n_depth"],
    remainders: tuple | None = None,
) -> Float[Array, "n_wave n_depth"]:
    """Sum of the lines' opacities, shape (n_wave, n_depth).

    `offsets` (n_wave,) and `centres` (n_lines,) are wavelengths relative to a common origin, in Å; `amplitude`, `a` and
    `inverse_width` (n_lines, n_depth) come from `lines.line_opacity`. `remainders`: of `remainders`, over long ranges.
    """
    total = jnp.zeros((offsets.shape[0], amplitude.shape[1]), jnp.float32)
    for group in groups:

        @jax.checkpoint
        def block(line, group=group):
            start, skip, centre, strength, damping, inverse, rest = line
            u = detuning(group, offsets, remainders and remainders[0], start, centre, rest)[:, None] * inverse
            if skip is None:
                return strength * (voigt_core(damping, u) if group.weak else voigt(damping, u))
            pixel = jnp.arange(group.width)[:, None]
            wing = (pixel < skip[0]) | (pixel >= skip[1])
            return jnp.where(wing, strength * lorentz_wing(damping, jnp.where(wing, u, 1e3)), 0.0)

        def add(total, line, group=group, block=block):
            corner = (line[0], 0)
            here = jax.lax.dynamic_slice(total, corner, (group.width, total.shape[1]))
            return jax.lax.dynamic_update_slice(total, here + block(line), corner), None

        pick = group.line
        rest = None if remainders is None else remainders[1][pick]
        lines = (group.start, group.skip, centres[pick], amplitude[pick], a[pick], inverse_width[pick], rest)
        total, _ = jax.lax.scan(add, total, lines)
    return total
