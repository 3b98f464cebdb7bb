"""How a spectrum answers to the strength and to the damping of each of its lines: all lines at the cost of a few spectra.

The flux at a wavelength depends on the opacities at that wavelength alone. One reverse pass of the formal solution gives
G = ∂F/∂(opacity ratio) in every layer, and the derivative by ln gf of a line is the sum over layers of G times the line's own
opacity, inside its window; by ln of its van der Waals width, of G times the derivative of that opacity.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import line_windows
from .profile import lorentz_wing, voigt


@dataclasses.dataclass(frozen=True)
class LineDerivatives:
    """**Attributes:** `flux` `(n_wave,)`, normalised; `strength` and `damping`, sparse arrays `(n_lines, n_wave)`: its derivatives by
    ln gf, and by ln of the van der Waals width, of the lines of the synthesizer in their order."""

    flux: np.ndarray
    strength: Any
    damping: Any


def line_derivatives(synthesizer, labels) -> LineDerivatives:
    """Derivatives of the normalised flux of an `LTESynthesizer` by strength and damping of every line, at `labels` `(n_labels,)`.

    Exact to first order, inside the windows that the synthesis gives the lines. float32 inside. The continuum does not change with
    lines.
    """
    import scipy.sparse

    flux, windows = _derivatives(synthesizer, jnp.asarray(synthesizer.labels.to_array(labels), jnp.float32))
    shape = (len(synthesizer.centres), len(synthesizer.offsets))
    rows, columns, values = [], [], ([], [])  # type: tuple[list, list, tuple[list, list]]
    for group, parts in zip(synthesizer.groups, windows):
        start, line = np.asarray(group.start), np.asarray(group.line)
        rows.append(np.repeat(line, group.width))
        columns.append((start[:, None] + np.arange(group.width)).ravel())
        for kept, part in zip(values, parts):
            kept.append(np.asarray(part).ravel())
    row, column = np.concatenate(rows), np.concatenate(columns)
    # Parts of one line in several windows add.
    strength, damping = (scipy.sparse.coo_array((np.concatenate(v), (row, column)), shape).tocsr() for v in values)
    for matrix in (strength, damping):
        matrix.eliminate_zeros()
    return LineDerivatives(np.asarray(flux), strength, damping)


@eqx.filter_jit
def _derivatives(synthesizer, labels):
    """Flux `(n_wave,)`, and for each group of lines two arrays `(n_group, width)`."""
    state = synthesizer.opacities(labels)
    formal = lambda total: synthesizer.emergent(total, state.source, state.scattered)
    flux, back = jax.vjp(formal, state.total)
    (gradient,) = back(1.0 / state.continuum)
    by_width = lambda ln_vdw: synthesizer.line_quantities(labels, state.layers, {"ln_vdw": ln_vdw})
    ln_vdw = synthesizer.constants["ln_vdw"]
    (amplitude, a, inverse), (_, a_vdw, _) = jax.jvp(by_width, (ln_vdw,), (jnp.ones_like(ln_vdw),))
    pixels, centres = synthesizer.remainders or (None, jnp.zeros_like(synthesizer.centres))
    lines = (synthesizer.centres, centres, amplitude, a, inverse, a_vdw)
    windows = [
        _group(g, gradient, synthesizer.offsets, pixels, *(x[g.line] for x in lines)) for g in synthesizer.groups
    ]
    return flux / state.continuum, windows


def _group(
    group: line_windows.Group,
    gradient: Float[Array, "n_wave n_depth"],
    offsets: Float[Array, " n_wave"],
    remainders: Float[Array, " n_wave"] | None,
    centres: Float[Array, " n_group"],
    remainder: Float[Array, " n_group"],
    amplitude: Float[Array, "n_group n_depth"],
    a: Float[Array, "n_group n_depth"],
    inverse_width: Float[Array, "n_group n_depth"],
    a_vdw: Float[Array, "n_group n_depth"],
):
    pixel = jnp.arange(group.width)[:, None]

    def one(line):
        start, skip, centre, rest, strength, damping, inverse, by_vdw = line
        u = line_windows.detuning(group, offsets, remainders, start, centre, rest)[:, None] * inverse
        here = jax.lax.dynamic_slice(gradient, (start, 0), (group.width, gradient.shape[1]))
        if skip is not None:
            wing = (pixel < skip[0]) | (pixel >= skip[1])
            u, here = jnp.where(wing, u, 1e3), jnp.where(wing, here, 0.0)
        profile = lambda x: voigt(x, u) if skip is None else lorentz_wing(x, u)
        value, slope = jax.jvp(profile, (damping,), (by_vdw,))
        weight = here * strength
        return jnp.sum(weight * value, axis=1), jnp.sum(weight * slope, axis=1)

    return jax.lax.map(one, (group.start, group.skip, centres, remainder, amplitude, a, inverse_width, a_vdw))
