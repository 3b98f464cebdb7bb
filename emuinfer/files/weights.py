"""Weights of a network as safetensors, with a JSON card beside them: read with care, since cards come from strangers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..errors import EmuinferError
from .reading import parse_json, refuse_more_than_memory
from .writing import write_bytes

AGAIN = "Fetch or save it again."


def named_leaves(model) -> dict[str, np.ndarray]:
    """Array leaves by their path in the module, such as `.blocks[0].expand`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(model, eqx.is_array))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def hash_of(description: dict, arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over a description and arrays by name; 16 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def stem_of(path) -> Path:
    """A path without the suffix of weights or card."""
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".safetensors", ".json") else path


def write_weights(
    stem: Path, arrays: dict[str, np.ndarray], card: dict, *, error: type[EmuinferError], **writing
) -> Path:
    """`stem`.safetensors and then `stem`.json, each whole; the card gets the SHA-256 of the weights. Returns its path."""
    from safetensors.numpy import save

    blob = save({name: np.ascontiguousarray(_smallest(a)) for name, a in arrays.items()})
    card = {**card, "weights_sha256": hashlib.sha256(blob).hexdigest()}
    for file, content in (
        (stem.with_name(stem.name + ".safetensors"), blob),
        (stem.with_name(stem.name + ".json"), json.dumps(card, indent=1).encode()),
    ):
        write_bytes(file, content, error=error, **writing)
    return stem.with_name(stem.name + ".json")


def read_card(stem: Path, what: str, version: int, *, error: type[EmuinferError]) -> dict:
    """The card of `stem`, of the format `emuinfer-WHAT` and a known version."""
    file = stem.with_name(stem.name + ".json")
    try:
        card = parse_json(file.read_bytes())
    except (OSError, ValueError) as failed:
        raise error(f"{file} is not a readable {what} card ({failed}). {AGAIN}") from failed
    if not isinstance(card, dict) or card.get("format") != f"emuinfer-{what}":
        raise error(f"{file} is not an emuinfer {what} card (its format is not 'emuinfer-{what}').")
    if not isinstance(card.get("format_version"), int) or card["format_version"] > version:
        raise error(
            f"{file} has card version {card.get('format_version')}; this emuinfer reads up to {version}. Update emuinfer."
        )
    return card


def read_weights(stem: Path, card: dict, *, error: type[EmuinferError]) -> dict[str, np.ndarray]:
    """The arrays of `stem`, in single precision, with the SHA-256 that the card gives; finite numbers all of them."""
    from safetensors.numpy import load

    file = stem.with_name(stem.name + ".safetensors")
    if not file.exists():
        raise error(f"The weights {file} are missing beside their card. {AGAIN}")
    refuse_more_than_memory(3 * file.stat().st_size, file, error=error)
    blob = file.read_bytes()
    if hashlib.sha256(blob).hexdigest() != card.get("weights_sha256"):
        raise error(
            f"{file} is damaged or belongs to another card: its SHA-256 is not the one in {stem.name}.json. {AGAIN}"
        )
    try:
        arrays = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in load(blob).items()}
    except Exception as failed:
        raise error(f"{file} cannot be read as safetensors ({type(failed).__name__}: {failed}). {AGAIN}") from failed
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise error(f"{file}: {name} has the type {array.dtype}; expected numbers. {AGAIN}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise error(f"{file}: {name} holds values that are not finite (NaN or infinite). {AGAIN}")
    return arrays


def fill(skeleton, arrays: dict[str, np.ndarray], file, *, error: type[EmuinferError]) -> Any:
    """A module whose arrays are shapes (`equinox.filter_eval_shape`), with `arrays` in their places; all of them are used."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(
        skeleton, is_leaf=lambda x: isinstance(x, jax.ShapeDtypeStruct)
    )
    left, filled = dict(arrays), []
    for path, leaf in leaves:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            filled.append(leaf)
            continue
        name = jax.tree_util.keystr(path)
        if name not in left:
            raise error(f"{file} lacks the array {name}. It belongs to another card or version.")
        array = left.pop(name)
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise error(
                f"{file}: {name} has shape {array.shape} and type {array.dtype}, expected {leaf.shape}, {leaf.dtype}."
            )
        filled.append(jax.numpy.asarray(array))
    if left:
        raise error(f"{file} holds arrays that its card does not describe: {', '.join(sorted(left))}.")
    return jax.tree_util.tree_unflatten(structure, filled)


def _smallest(array):
    """As float16 where that loses nothing."""
    if array.dtype == np.float32:
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if np.array_equal(half, array):
            return half
    return array
