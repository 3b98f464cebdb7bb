"""Saving and loading emulators: weights as safetensors, everything else in a JSON card beside them."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..entry import public
from ..errors import EmulatorError, suggestion
from ..files import parse_json, refuse_more_than_memory, write_bytes
from ..labels import data_files
from ..labels.space import LabelSpace
from ..labels.windows import WINDOWS, default_window, window_of_emulator
from .base import Emulator
from .strangers import check_card, hash_of

FORMAT = "emuinfer-emulator"
VERSION = 1
ZOO = data_files.DATA / "weights"


# Where the classes of emulators are, by the name that cards give them; a module is loaded when a card names its kind.
KINDS = {
    "transformer": (".transformer", "TransformerPayne"),
    "reduced": (".reduced", "ReducedEmulator"),
    "logit_gp": (".baselines.gaussian_process", "LogitGP"),
    "logit_pca": (".baselines.components", "LogitPCA"),
    "mlp": (".baselines.regression", "PerPixelMLP"),
    "polynomial": (".baselines.regression", "PixelPolynomial"),
}


def class_of(kind: str) -> Any:
    """The class of a kind of `KINDS`."""
    module, name = KINDS[kind]
    return getattr(importlib.import_module(module, __package__), name)


def named_leaves(emulator: Emulator) -> dict[str, np.ndarray]:
    """Array leaves by their path in the module, such as `.blocks[0].expand`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(emulator, eqx.is_array))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@public
def emulator_hash(emulator: Emulator) -> str:
    """SHA-256 over the weights and the description of an emulator; 16 hexadecimal digits."""
    return hash_of(_describe(emulator), named_leaves(emulator))


def _describe(emulator):
    return {
        "kind": emulator.kind,
        "config": emulator.to_config(),
        "labels": emulator.label_space.to_json(),
        "wavelength_range": list(emulator.wavelength_range),
        "wavelength_unit": "Angstrom",
        "medium": emulator.medium,
    }


def save_emulator(emulator: Emulator, path, card: dict | None = None, **writing) -> Path:
    """Write `path`.safetensors and `path`.json; returns the path of the card.

    `card` adds what is worth knowing: title, grid and its hash, recipe, seeds, versions, validation figures, credit.
    Both files are written whole, the card last, so that a card never lacks its weights. `writing` goes to `files.write_bytes`:
    which error is raised where that fails, and the remedy it names.
    """
    from safetensors.numpy import save

    path = _stem(path)
    blob = save({name: np.ascontiguousarray(_smallest(a)) for name, a in named_leaves(emulator).items()})
    described = _describe(emulator)
    description = {
        "format": FORMAT,
        "format_version": VERSION,
        **described,
        "hash": emulator_hash(emulator),
        "weights_sha256": hashlib.sha256(blob).hexdigest(),
        "parameters": int(sum(a.size for a in named_leaves(emulator).values())),
    }
    clash = sorted(set(card or {}) & set(description))
    if clash:
        raise EmulatorError(f"The card may not redefine {', '.join(clash)}; save_emulator writes these itself.")
    for file, content in (
        (path.with_name(path.name + ".safetensors"), blob),
        (path.with_name(path.name + ".json"), json.dumps({**description, **(card or {})}, indent=1).encode()),
    ):
        write_bytes(file, content, **{"error": EmulatorError, **writing})
    return path.with_name(path.name + ".json")


@public
def half_precision(emulator: Emulator, smallest: int = 100_000) -> Emulator:
    """`emulator` with the arrays of `smallest` entries or more rounded to float16, which halves its file.

    The arrays stay float32 in memory. Measure the rounded emulator, not the one before.
    """
    arrays, rest = eqx.partition(emulator, eqx.is_array)
    rounded = jax.tree.map(lambda a: a.astype(np.float16).astype(a.dtype) if a.size >= smallest else a, arrays)
    return eqx.combine(rounded, rest)


def _smallest(array):
    """As float16 where that loses nothing."""
    if array.dtype == np.float32:
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if np.array_equal(half, array):
            return half
    return array


def weight_folders() -> list[Path]:
    """Folders of emulators and, below each in `reductions`, of their reductions.

    The package's, those of `EMUINFER_WEIGHTS` and of data packages, and that of fetched files.
    """
    return [ZOO, *data_files.user_folders(), data_files.fetched_folder()]


def list_emulators() -> list[str]:
    """Names of the emulators that ship with the package, lie in a folder of `EMUINFER_WEIGHTS` or in a data package, or can
    be fetched."""
    names = []
    for folder in (ZOO, *data_files.user_folders()):
        cards = sorted(folder.glob("*.json"))
        names += [card.stem for card in cards if card.with_suffix(".safetensors").exists()]
    names += [w.emulator for w in WINDOWS.values() if w.emulator and f"{w.emulator}.json" in dict(w.files)]
    return list(dict.fromkeys(names))


def _stem(path) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".safetensors", ".json") else path


def find_stem(name_or_path=None, *, card_only: bool = False) -> Path:
    """The path, without suffix, of the files of an emulator: of a file, or of a name of `list_emulators`.

    The default window's emulator where nothing is given. What is not on this machine is fetched: all of the window's files,
    or with `card_only` no more than the card. **Raises:** `EmulatorError` on unknown names, and where that fails.
    """
    name = str(default_window().emulator if name_or_path is None else name_or_path)
    stem = _stem(name)
    if stem.with_name(stem.name + ".json").exists():
        return stem
    for folder in (ZOO, *data_files.user_folders()):
        if (folder / f"{name}.json").exists() and (folder / f"{name}.safetensors").exists():
            return folder / name
    known = list_emulators()
    if name in known:
        return _fetch(window_of_emulator(name), card_only)
    raise EmulatorError(
        f"No emulator '{name}'.{suggestion(name, known)} Shipped emulators: {', '.join(known) or 'none'}; or give the path "
        "of a card (NAME.json with NAME.safetensors beside it)."
    )


def is_here(name: str) -> bool:
    """Whether an emulator of `list_emulators` is on this machine; if not, it is fetched when it is first loaded."""
    return any((folder / f"{name}.safetensors").exists() for folder in weight_folders())


def _fetch(window, card_only) -> Path:
    card = window.file(f"{window.emulator}.json")
    if not card_only:
        for name, _ in window.files:
            if name not in (window.line_list, window.line_errors):
                window.file(name)
    return _stem(card)


def load_card(name_or_path=None) -> dict:
    """The JSON card of an emulator, by name or path as in `load_emulator`, as a dict."""
    file = find_stem(name_or_path, card_only=True)
    file = file.with_name(file.name + ".json")
    try:
        card = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise EmulatorError(
            f"{file} is not a readable emulator card ({error}). Fetch or save the emulator again."
        ) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise EmulatorError(f"{file} is not an emuinfer emulator card (its format is not '{FORMAT}').")
    if not isinstance(card.get("format_version"), int) or card["format_version"] > VERSION:
        raise EmulatorError(
            f"{file} has card version {card.get('format_version')}; this emuinfer reads up to {VERSION}. Update emuinfer."
        )
    return card


@public
def load_emulator(name_or_path=None) -> Emulator:
    """An emulator by a name of `list_emulators`, or one saved by `save_emulator` by path; without either, the first window's.

    The weights of windows that do not ship with the package are fetched when they are first loaded. Raises
    `EmulatorError` on unknown names (listing those that exist), on damaged, foreign or mismatched files, and where weights
    cannot be fetched.
    """
    from safetensors.numpy import load

    stem = find_stem(name_or_path)
    card = load_card(stem)
    file = stem.with_name(stem.name + ".safetensors")
    if not file.exists():
        raise EmulatorError(f"The weights {file} are missing beside their card. Fetch or save the emulator again.")
    refuse_more_than_memory(3 * file.stat().st_size, file, error=EmulatorError)
    blob = file.read_bytes()
    if hashlib.sha256(blob).hexdigest() != card.get("weights_sha256"):
        raise EmulatorError(
            f"{file} is damaged or belongs to another card: its SHA-256 is not the one in {stem.name}.json. "
            "Fetch or save the emulator again."
        )
    kind = card.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise EmulatorError(f"{stem.name}.json names the unknown kind of emulator '{kind}'; known: {', '.join(KINDS)}.")
    try:
        arrays = {name: _single(array) for name, array in load(blob).items()}
        check_card(card, arrays, file)
        space = LabelSpace.from_json(card["labels"])
        make = lambda: class_of(kind).from_config(
            card["config"], space, tuple(card["wavelength_range"]), card["medium"]
        )
        return _fill(eqx.filter_eval_shape(make), arrays, file)
    except EmulatorError:
        raise
    except Exception as error:
        raise EmulatorError(
            f"{file} cannot be read as a '{kind}' emulator ({type(error).__name__}: {error})."
        ) from error


def _single(array):
    """In single precision, if it was stored in half."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _fill(skeleton, tensors, file):
    leaves, structure = jax.tree_util.tree_flatten_with_path(
        skeleton, is_leaf=lambda x: isinstance(x, jax.ShapeDtypeStruct)
    )
    filled = []
    for path, leaf in leaves:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            filled.append(leaf)
            continue
        name = jax.tree_util.keystr(path)
        if name not in tensors:
            raise EmulatorError(f"{file} lacks the array {name}. It belongs to another card or version.")
        array = tensors.pop(name)
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise EmulatorError(
                f"{file}: {name} has shape {array.shape} and type {array.dtype}, expected {leaf.shape}, {leaf.dtype}."
            )
        filled.append(jax.numpy.asarray(array))
    if tensors:
        raise EmulatorError(f"{file} holds arrays that its card does not describe: {', '.join(sorted(tensors))}.")
    return jax.tree_util.tree_unflatten(structure, filled)
