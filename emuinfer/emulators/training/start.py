"""Where the training of a transformer starts: from an earlier one, from random weights, or from principal components.

With components, trunk and branch do at once what is bilinear in x. The coefficients that the branch learns come
from spectra, or from the Gaussian processes of a `LogitGP` at any number of labels, which is multi-fidelity learning when those
were fitted to simple and realistic spectra jointly.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...entry import public
from ...errors import TrainingError
from ...labels.design import sobol_design
from ...labels.features import gp_features
from ...training.checkpoint import GO_ON
from ..base import Emulator, to_link
from ..baselines.gaussian_process import LogitGP, matern52
from ..components import fit_coefficients, principal_components
from ..storage import emulator_hash, load_card, load_emulator, save_emulator
from ..transformer import TransformerConfig, TransformerPayne


def known_emulator(init, *kinds: type[Emulator]) -> tuple[Any, dict]:
    """The emulator `init`, which may be a name or the path of a card, and what the card of its successor says of it.

    Raises `TrainingError` if it is of none of these `kinds`.
    """
    emulator: Any
    if isinstance(init, Emulator):
        emulator, described = init, {"hash": emulator_hash(init)}
    else:
        emulator, described = load_emulator(init), {"name": str(init), "hash": load_card(init)["hash"]}
    if not isinstance(emulator, kinds):
        teachers = ", and only Gaussian processes (logit_gp) can teach one" if LogitGP in kinds else ""
        raise TrainingError(
            f"'{described.get('name', 'init')}' is a '{emulator.kind}' emulator; only transformers can be trained "
            f"further{teachers}."
        )
    return emulator, described


def new_transformer(label_space, wavelength, medium: str, sizes: dict, seed: int) -> TransformerPayne:
    """A transformer with random weights and tables on the pixels `wavelength` `(n_wave,)`; `sizes`: of `TransformerConfig`."""
    # Periods below about two pixels would leave the emulator undetermined between them.
    shortest = 2.4 * float(np.diff(np.log10(wavelength)).max())
    longest = 2.0 * float(np.log10(wavelength[-1] / wavelength[0]))  # longer ones would all but be constants
    fitting = {"shortest_period": shortest, "longest_period": longest, "table_nodes": len(wavelength)}
    width, heads = (sizes.get(name, getattr(TransformerConfig, name)) for name in ("width", "heads"))
    if heads < 1 or width % heads:
        raise TrainingError(f"width (--width) must be a multiple of heads (--heads); got {width} and {heads}.")
    config = TransformerConfig(**{**fitting, **sizes})
    return TransformerPayne(label_space, (wavelength[0], wavelength[-1]), medium, config, key=jax.random.key(seed))


def starting_emulator(init, grid, rows, sizes: dict, seed: int, directory=None, progress=True):
    """`(transformer, what its card says of init)` that training on `rows` of `grid` starts from; arguments as `train_on_grid`.

    A new one has tables on the grid's pixels, and its bilinear part is set from a teacher, if that is `init`, or else from the
    principal components of the rows, if the pixels are equally spaced, as the tables' nodes are. It is kept in `directory`,
    so that a resumed run finds it.
    """
    space, wavelength, medium, limit, teacher, parent = (
        grid.label_space,
        grid.wavelength,
        grid.medium,
        len(rows) - 1,
        None,
        None,
    )
    if init is not None:
        teacher, parent = known_emulator(init, TransformerPayne, LogitGP)
        if isinstance(teacher, TransformerPayne):
            return teacher, parent
        space, wavelength, medium, limit = (
            teacher.label_space,
            teacher.grid.wavelength,
            teacher.medium,
            len(teacher.basis),
        )
        sizes = {**sizes, "epsilon": teacher.epsilon}
    rank = min(sizes.get("rank", TransformerConfig.rank), limit, len(wavelength))
    emulator = new_transformer(space, wavelength, medium, {**sizes, "rank": rank}, seed)
    nodes = np.linspace(*emulator.wavelength_range, len(wavelength))
    if not rank or np.abs(nodes - wavelength).max() > 1e-3:
        return emulator, parent
    # Another seed, size or grid would be another start: the name tells them apart.
    what = [grid.hash, rows.tolist(), dataclasses.asdict(emulator.config), seed, *([parent["hash"]] if parent else [])]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    path = None if directory is None else Path(directory) / f"start-{digest[:12]}"
    if path is not None and path.with_suffix(".json").exists():
        return load_emulator(path), parent
    if teacher is not None:
        emulator = start_from_teacher(emulator, teacher, seed=seed, progress=progress)
    else:
        labels, flux = space.to_array(grid.labels)[rows], grid.flux[rows]
        emulator = start_from_components(emulator, labels, flux, wavelength, seed=seed, progress=progress)
    if path is not None:
        made_from = "principal components" if teacher is None else "Gaussian processes"
        save_emulator(emulator, path, {"title": f"First weights, from {made_from}"}, error=TrainingError, remedy=GO_ON)
    return emulator, parent


@public
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
    inputs = np.asarray(emulator.branch_inputs(jnp.asarray(scaled)))
    layers = fit_coefficients(
        inputs, coefficients, c.label_hidden, steps, seed, progress=progress, depth=c.branch_layers
    )
    return _with_components(emulator, mean, basis, layers)


@public
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
        np.asarray(emulator.branch_inputs(jnp.asarray(scaled))),
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
def _kernel_sums(sums, features: Float[Array, "n n_labels"]) -> Float[Array, "n components"]:
    """As `LogitGP.coefficients` for many labels at once: distances by matrix products."""
    totals = []
    for one in sums:
        parts = []
        for inverse_length, weights in zip(one.inverse_length, one.weights):
            a, b = features * inverse_length, one.inputs * inverse_length
            squared = jnp.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * a @ b.T, 0.0)
            parts.append(matern52(squared) @ weights)
        totals.append(jnp.concatenate(parts, axis=1))
    return sum(totals[1:], totals[0])


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
