"""Derivatives of a star's flux: on the emulator's grid by the labels, then at the pixels by everything. JAX, float32.

The way from the grid to the pixels is linear in the depth 1 − f, so that one set of derivatives on the grid serves all
spectra of a star, and the emulator, the costly part, is evaluated once.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

KERNELS = ("rv", "vbroad", "vsini")


@eqx.filter_jit
def grid_derivatives(
    flux_of, scaled: Float[Array, " n_labels"]
) -> tuple[Float[Array, " n_grid"], Float[Array, "n_labels n_grid"]]:
    """Flux on the grid and its derivatives by the scaled labels, in forward mode.

    One direction after another: all at once would hold a transformer's activations once per label.
    """
    rows = jax.lax.map(lambda v: jax.jvp(flux_of, (scaled,), (v,))[1], jnp.eye(len(scaled), dtype=scaled.dtype))
    return flux_of(scaled), rows


def pixel_derivatives(
    see, flux: Float[Array, " n_grid"], rows: Float[Array, "n_labels n_grid"], kernel: dict, each=jax.lax.map
) -> tuple[Float[Array, " n_pix"], Float[Array, "n_labels_and_kernel n_pix"]]:
    """Flux at the pixels and its derivatives, those by the values of `kernel` (rv, vbroad, vsini in this order) last.

    - `see`: from flux on the grid, rv, vbroad and vsini to the pixels, as a `SpectrumOperator`.
    - `flux`, `rows`: of `grid_derivatives`. `kernel`: the values by name; what it lacks is 0.
    - `each`: how a function is applied to each of `rows`: one after another, or `jax.vmap`ped.
    """

    def at(flux, kernel):
        return see(flux, kernel["rv"], kernel.get("vbroad", 0), kernel.get("vsini", 0))

    by_label = each(lambda row: 1.0 - at(1.0 - row, kernel), rows)  # the operator is linear in 1 − flux
    own = [
        jax.jvp(lambda v, n=n: at(flux, {**kernel, n: v}), (kernel[n],), (jnp.ones_like(kernel[n]),))[1]
        for n in KERNELS
        if n in kernel
    ]
    return at(flux, kernel), jnp.concatenate([by_label, jnp.stack(own)])


pixel_derivatives_jit = eqx.filter_jit(pixel_derivatives)


def pixel_flux(flux_of, operator, values: dict, space) -> Float[Array, " n_pix"]:
    """Normalised flux at the pixels: emulator, broadening, Doppler shift, line spread function."""
    scaled = space.scale(jnp.stack([values[n] for n in space.names]))
    return operator(flux_of(scaled), values["rv"], values.get("vbroad", 0), values.get("vsini", 0))
