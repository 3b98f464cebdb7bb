"""What a card says of an emulator, compared with its weights before anything is built: cards come from strangers."""

import math
from typing import Any

import numpy as np

from ..errors import EmulatorError
from ..files.weights import hash_of
from ..wavelengths.medium import MEDIA

DESCRIBED = ("kind", "config", "labels", "wavelength_range", "wavelength_unit", "medium")
LAYERS = ("depth", "branch_layers")  # entries of a config that say how often something is repeated
AGAIN = "Fetch or save the emulator again."


def check_card(card: dict, arrays: dict[str, np.ndarray], file) -> None:
    """Raise `EmulatorError` where a card was edited, or describes an emulator that cannot be or is not that of the arrays."""
    lacks = [k for k in (*DESCRIBED, "hash") if k not in card]
    if lacks:
        raise EmulatorError(f"The card of {file} lacks {', '.join(lacks)}. {AGAIN}")
    check_medium_and_range(card["medium"], card["wavelength_range"], f"The card of {file}")
    config, labels = card["config"], card["labels"]
    if not isinstance(config, dict) or not isinstance(labels, dict):
        raise EmulatorError(f"The card of {file}: config and labels must be mappings. {AGAIN}")
    _check_sizes(config, len(labels.get("names", ())), arrays, file)
    if hash_of({k: card[k] for k in DESCRIBED}, arrays) != card["hash"]:
        raise EmulatorError(
            f"The card of {file} was changed: kind, config, labels, wavelength_range, medium and weights do not have the hash "
            f"{card['hash']!r:.40} that it gives. {AGAIN}"
        )


def check_medium_and_range(medium, wavelengths, what: str) -> None:
    """Raise `EmulatorError` unless wavelengths are two numbers in Å that rise from above 0, in air or vacuum."""
    if medium not in MEDIA:
        raise EmulatorError(f"{what}: the medium must be 'air' or 'vacuum'; got {medium!r:.40}. {AGAIN}")
    numbers = isinstance(wavelengths, list | tuple) and all(_is_number(w) for w in wavelengths)
    if not numbers or len(wavelengths) != 2 or not 0 < wavelengths[0] < wavelengths[1] < math.inf:
        raise EmulatorError(
            f"{what}: wavelength_range must be two numbers in Å that rise from above 0; got {wavelengths!r:.80}. {AGAIN}"
        )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_sizes(config, n_labels, arrays, file):
    """Nothing in a config may repeat more often than there are arrays, or be longer than all of them."""
    total = sum(a.size for a in arrays.values())

    def refuse(name, value, most):
        raise EmulatorError(
            f"The card of {file}: {name} = {value!r:.40} does not go with the weights, which have {len(arrays)} arrays with "
            f"{total:,} numbers (at most {most:,}). {AGAIN}"
        )

    def look(name, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                look(key, inner)
        elif isinstance(value, list | tuple):
            if len(value) > len(arrays):
                refuse(name, f"{len(value)} entries", len(arrays))
            for inner in value:
                look(name, inner)
        elif isinstance(value, float) and not math.isfinite(value):
            refuse(name, value, total)
        elif name in LAYERS and (not isinstance(value, int) or value > len(arrays)):
            refuse(name, value, len(arrays))
        elif name == "degree" and (not isinstance(value, int) or not 0 <= value <= _most_degree(n_labels, total)):
            refuse(name, value, _most_degree(n_labels, total))
        elif name in ("width", "n", "n_wave", "table_nodes") and (not isinstance(value, int) or value > total):
            refuse(name, value, total)

    look("config", config)


def _most_degree(n_labels, total) -> int:
    """The highest degree whose polynomial has no more terms than `total`."""
    degree = 0
    while degree < 60 and math.comb(n_labels + degree + 1, degree + 1) <= total:
        degree += 1
    return degree


def check_counts(what: str, config: Any, **limits) -> None:
    """Raise `EmulatorError` unless the fields of a config are whole numbers within `limits`, name to (lowest, highest)."""
    for name, (lowest, highest) in limits.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not lowest <= value <= highest:
            raise EmulatorError(
                f"{what}: {name} must be a whole number from {lowest:,} to {highest:,}; got {value!r:.40}."
            )
