"""A transformer that starts from principal components: its trunk and branch do at once what is bilinear in x.

The coefficients that the branch learns come from spectra, or from the Gaussian processes of a `LogitGP` at any number of
labels, which is multi-fidelity learning when those were fitted to simple and realistic spectra jointly.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...errors import TrainingError
from ...labels.design import sobol_design
from ...labels.features import gp_features
from ..base import to_link
from ..baselines.gaussian_process import LogitGP, matern52
from ..components import fit_coefficients, principal_components
from ..transformer import TransformerPayne


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
    mean, basis, coefficients = principal_components(to_link(np.asarray(flux, np.float32), c.epsilon), c.rank)
    inputs = np.asarray(emulator.branch_inputs(scaled))
    layers = fit_coefficients(
        inputs, coefficients, c.label_hidden, steps, seed, progress=progress, depth=c.branch_layers
    )
    return _with_components(emulator, mean, basis, layers)


def start_from_teacher(emulator: TransformerPayne, teacher: LogitGP, *, n=65536, steps=8000, seed=0, progress=True):
    """As `start_from_components`, with components and their coefficients from `teacher` at `n` labels that fill the domain.

    Coefficients cost microseconds where spectra cost milliseconds. The leading `rank` components of the teacher are taken.
    """
    c = emulator.config
    if c.epsilon != teacher.epsilon or c.table_nodes != teacher.grid.n or c.rank > len(teacher.basis):
        raise TrainingError(
            f"The teacher has epsilon {teacher.epsilon}, {teacher.grid.n} pixels and {len(teacher.basis)} components; the "
            f"transformer epsilon {c.epsilon}, {c.table_nodes} nodes and rank {c.rank}. They must match, and rank must not exceed."
        )
    space = emulator.label_space
    scaled = np.asarray(space.scale(sobol_design(space, n, seed=seed + 5)), np.float32)
    coefficients = teacher_coefficients(teacher, scaled)[:, : c.rank]
    basis, middle = np.asarray(teacher.basis, float), coefficients.mean(0)
    layers = fit_coefficients(
        np.asarray(emulator.branch_inputs(scaled)),
        coefficients - middle,
        c.label_hidden,
        steps,
        seed,
        batch=1024,
        progress=progress,
        depth=c.branch_layers,
        rate=2e-3,
    )
    return _with_components(
        emulator, np.asarray(teacher.mean, float) + middle @ basis[: c.rank], basis[: c.rank], layers
    )


def teacher_coefficients(teacher: LogitGP, scaled, chunk: int = 1024) -> np.ndarray:
    """Component coefficients `(n, components)` of a `LogitGP` at scaled labels `(n, n_labels)`."""
    features = np.asarray(gp_features(teacher.label_space, np.asarray(scaled), np), np.float32)
    parts = [
        np.asarray(_kernel_sums(teacher.sums, jnp.asarray(features[i : i + chunk])))
        for i in range(0, len(features), chunk)
    ]
    return np.concatenate(parts).astype(np.float64)


@jax.jit
def _kernel_sums(sums, features):
    """As `LogitGP.coefficients` for many labels at once: distances by matrix products."""
    total = 0.0
    for one in sums:
        parts = []
        for inverse_length, weights in zip(one.inverse_length, one.weights):
            a, b = features * inverse_length, one.inputs * inverse_length
            squared = jnp.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * a @ b.T, 0.0)
            parts.append(matern52(squared) @ weights)
        total = total + jnp.concatenate(parts, axis=1)
    return total


def _with_components(emulator, mean, basis, layers):
    c = emulator.config
    unit = np.sqrt(c.table_nodes)  # entries of order one in the trunk
    weight, bias = layers[-1]
    branch = [*layers[:-1], (weight / unit, bias / unit)]
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    emulator = eqx.tree_at(
        lambda e: (e.trunk_mean, e.trunk, e.branch, e.head_bias),
        emulator,
        (as32(mean), as32(basis.T * unit), jax.tree.map(as32, branch), jnp.zeros(1)),
    )
    return eqx.tree_at(lambda e: e.head, emulator, jnp.zeros_like(emulator.head)) if emulator.blocks else emulator
