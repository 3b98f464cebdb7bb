"""Saving and loading networks: weights as safetensors, vocabulary and all else in a JSON card beside them."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax

from ..entry import public
from ..errors import NetworkError, suggestion
from ..files.weights import AGAIN, fill, hash_of, named_leaves, read_card, read_weights, stem_of, write_weights
from ..labels import data_files
from ..tokens import Vocabulary
from .anytoany import AnyToAny, AnyToAnyConfig
from .network import Network

FORMAT = "emuinfer-network"
VERSION = 1
ZOO = data_files.DATA / "networks"
LARGEST = {"width": 4096, "heads": 256, "latents": 4096, "depth": 256, "decoder_depth": 256, "features": 1024}


def _describe(network: Network) -> dict:
    net = network.net
    return {
        "kind": "any_to_any",
        "config": dataclasses.asdict(net.config),
        "given": list(net.given),
        "vocabulary": network.vocabulary.to_json(),
    }


def save_network(network: Network, path, card: dict | None = None) -> Path:
    """Write `path`.safetensors and `path`.json (the card, which `card` adds to); returns the path of the card."""
    described, arrays = _describe(network), named_leaves(network.net)
    own = {
        "format": FORMAT,
        "format_version": VERSION,
        **described,
        "hash": hash_of(described, arrays),
        "weights_sha256": "",
        "parameters": int(sum(a.size for a in arrays.values())),
    }
    more = {k: v for k, v in {**network.card, **(card or {})}.items() if k not in own}
    return write_weights(stem_of(path), arrays, {**own, **more}, error=NetworkError)


def half_precision(network: Network, smallest: int = 1000) -> Network:
    """The network with the arrays of `smallest` entries or more rounded to float16, which halves its file."""
    arrays, rest = eqx.partition(network.net, eqx.is_array)
    rounded = jax.tree.map(lambda a: a.astype("float16").astype(a.dtype) if a.size >= smallest else a, arrays)
    return dataclasses.replace(network, net=eqx.combine(rounded, rest))


def list_networks() -> list[str]:
    """Names of the networks that ship with the package or lie in a folder of `EMUINFER_WEIGHTS`."""
    found = [c.stem for c in sorted(ZOO.glob("*.json")) if c.with_suffix(".safetensors").exists()]
    for folder in data_files.user_folders():
        for card in sorted(folder.glob("*.json")):
            try:
                read_card(stem_of(card), "network", VERSION, error=NetworkError)
            except NetworkError:
                continue
            found.append(card.stem)
    return list(dict.fromkeys(found))


def find_network(name_or_path) -> Path:
    """The path, without suffix, of a network's files. **Raises:** `NetworkError` that lists the networks there are."""
    stem = stem_of(str(name_or_path))
    for folder in (Path(), ZOO, *data_files.user_folders()):
        if (folder / f"{stem}.json").exists():
            return folder / stem
    known = list_networks()
    raise NetworkError(
        f"No network '{name_or_path}'.{suggestion(str(name_or_path), known)} Shipped networks: {', '.join(known) or 'none'}; or give "
        "the path of a card (NAME.json with NAME.safetensors beside it)."
    )


@public
def load_network(name_or_path="stars-xp") -> Network:
    """A network by name (`list_networks`) or by the path of its files.

    **Raises:** `NetworkError` on unknown names, and on files that are damaged, foreign or do not belong together.
    """
    stem = find_network(name_or_path)
    card = read_card(stem, "network", VERSION, error=NetworkError)
    file = stem.with_name(stem.name + ".safetensors")
    arrays = read_weights(stem, card, error=NetworkError)
    try:
        vocabulary = Vocabulary.from_json(card["vocabulary"])
        config = _checked(card["config"], file)
        given = tuple(int(i) for i in card["given"])
        described = {name: card[name] for name in ("kind", "config", "given", "vocabulary")}
        if hash_of(described, arrays) != card["hash"]:
            raise NetworkError(
                f"The card of {file} was changed: kind, config, vocabulary and weights do not have the hash {card['hash']!r:.40} "
                f"that it gives. {AGAIN}"
            )
        make = lambda: AnyToAny(len(vocabulary), given, config, key=jax.random.key(0))
        net = fill(eqx.filter_eval_shape(make), arrays, file, error=NetworkError)
    except NetworkError:
        raise
    except Exception as error:
        raise NetworkError(f"{file} cannot be read as a network ({type(error).__name__}: {error}). {AGAIN}") from error
    return Network(net, vocabulary, card)


def _checked(config, file) -> AnyToAnyConfig:
    for name, largest in LARGEST.items():
        value = config.get(name) if isinstance(config, dict) else None
        if not isinstance(value, int) or not 1 <= value <= largest:
            raise NetworkError(f"The card of {file} gives {name} = {value!r:.40}; it must be 1 to {largest}. {AGAIN}")
    return AnyToAnyConfig(**config)
