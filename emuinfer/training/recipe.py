"""A transformer that starts from principal components: its trunk and branch do at once what is bilinear in x."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..emulators.base import depth_from_flux
from ..emulators.components import fit_coefficients, principal_components
from ..emulators.transformer import TransformerPayne
from ..errors import TrainingError


def start_from_components(emulator: TransformerPayne, labels, flux, wavelength, *, steps=4000, seed=0, progress=True):
    """Set the bilinear part of `emulator` from principal components of spectra, and silence its blocks' head.

    `labels` `(n, n_labels)`, `flux` `(n, n_wave)` and `wavelength` `(n_wave,)`, which must be the nodes of the emulator's
    tables. The blocks keep their random weights and learn in training what the bilinear part cannot say.
    """
    c = emulator.config
    nodes = np.linspace(*emulator.wavelength_range, c.table_nodes)
    if len(wavelength) != c.table_nodes or np.max(np.abs(nodes - wavelength)) > 1e-3:
        raise TrainingError(
            f"The spectra have {len(wavelength)} wavelengths, {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å; the emulator's tables "
            f"have {c.table_nodes} nodes, {nodes[0]:.2f} to {nodes[-1]:.2f} Å. They must be the same: set table_nodes."
        )
    scaled = np.asarray(emulator.label_space.scale(labels), np.float32)
    mean, basis, coefficients = principal_components(depth_from_flux(np.asarray(flux, np.float32), c.epsilon), c.rank)
    layers = fit_coefficients(scaled, coefficients, c.label_hidden, steps, seed, progress=progress)
    unit = np.sqrt(len(wavelength))  # entries of order one in the trunk
    weight, bias = layers[-1]
    branch = [*layers[:-1], (weight / unit, bias / unit)]
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    return eqx.tree_at(
        lambda e: (e.trunk_mean, e.trunk, e.branch, e.head, e.head_bias),
        emulator,
        (as32(mean), as32(basis.T * unit), jax.tree.map(as32, branch), jnp.zeros_like(emulator.head), jnp.zeros(1)),
    )
