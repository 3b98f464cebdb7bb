"""Saving and loading emulators: weights as safetensors, everything else in a JSON card beside them."""

import importlib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..entry import public
from ..errors import EmulatorError, suggestion
from ..files.weights import fill, hash_of, named_leaves, read_card, read_weights, stem_of, write_weights
from ..labels import data_files
from ..labels.space import LabelSpace
from ..labels.windows import WINDOWS, default_window, window_of_emulator
from .base import Emulator
from .strangers import check_card

FORMAT = "emuinfer-emulator"
VERSION = 1
ZOO = data_files.DATA / "weights"


# Where the classes of emulators are, by the name that cards give them; a module is loaded when a card names its kind.
KINDS = {
    "transformer": (".transformer", "TransformerPayne"),
    "reduced": (".reduced", "ReducedEmulator"),
    "corrected": (".corrected", "CorrectedEmulator"),
    "logit_gp": (".baselines.gaussian_process", "LogitGP"),
    "logit_pca": (".baselines.components", "LogitPCA"),
    "mlp": (".baselines.regression", "PerPixelMLP"),
    "polynomial": (".baselines.regression", "PixelPolynomial"),
}


def class_of(kind: str) -> Any:
    """The class of a kind of `KINDS`."""
    module, name = KINDS[kind]
    return getattr(importlib.import_module(module, __package__), name)


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

    arrays = named_leaves(emulator)
    description = {
        "format": FORMAT,
        "format_version": VERSION,
        **_describe(emulator),
        "hash": emulator_hash(emulator),
        "weights_sha256": "",
        "parameters": int(sum(a.size for a in arrays.values())),
    }
    clash = sorted(set(card or {}) & set(description))
    if clash:
        raise EmulatorError(f"The card may not redefine {', '.join(clash)}; save_emulator writes these itself.")
    return write_weights(stem_of(path), arrays, {**description, **(card or {})}, **{"error": EmulatorError, **writing})


@public
def half_precision(emulator: Emulator, smallest: int = 100_000) -> Emulator:
    """`emulator` with the arrays of `smallest` entries or more rounded to float16, which halves its file.

    The arrays stay float32 in memory. Measure the rounded emulator, not the one before.
    """
    arrays, rest = eqx.partition(emulator, eqx.is_array)
    rounded = jax.tree.map(lambda a: a.astype(np.float16).astype(a.dtype) if a.size >= smallest else a, arrays)
    return eqx.combine(rounded, rest)


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


def find_stem(name_or_path=None, *, card_only: bool = False) -> Path:
    """The path, without suffix, of the files of an emulator: of a file, or of a name of `list_emulators`.

    The default window's emulator where nothing is given. What is not on this machine is fetched: all of the window's files,
    or with `card_only` no more than the card. **Raises:** `EmulatorError` on unknown names, and where that fails.
    """
    name = str(default_window().emulator if name_or_path is None else name_or_path)
    stem = stem_of(name)
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
    return stem_of(card)


def load_card(name_or_path=None) -> dict:
    """The JSON card of an emulator, by name or path as in `load_emulator`, as a dict."""
    return read_card(find_stem(name_or_path, card_only=True), "emulator", VERSION, error=EmulatorError)


@public
def load_emulator(name_or_path=None) -> Emulator:
    """An emulator by a name of `list_emulators`, or one saved by `save_emulator` by path; without either, the first window's.

    The weights of windows that do not ship with the package are fetched when they are first loaded. Raises
    `EmulatorError` on unknown names (listing those that exist), on damaged, foreign or mismatched files, and where weights
    cannot be fetched.
    """
    stem = find_stem(name_or_path)
    card = load_card(stem)
    file = stem.with_name(stem.name + ".safetensors")
    arrays = read_weights(stem, card, error=EmulatorError)
    kind = card.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise EmulatorError(f"{stem.name}.json names the unknown kind of emulator '{kind}'; known: {', '.join(KINDS)}.")
    try:
        check_card(card, arrays, file)
        space = LabelSpace.from_json(card["labels"])
        make = lambda: class_of(kind).from_config(
            card["config"], space, tuple(card["wavelength_range"]), card["medium"]
        )
        return fill(eqx.filter_eval_shape(make), arrays, file, error=EmulatorError)
    except EmulatorError:
        raise
    except Exception as error:
        raise EmulatorError(
            f"{file} cannot be read as a '{kind}' emulator ({type(error).__name__}: {error})."
        ) from error
