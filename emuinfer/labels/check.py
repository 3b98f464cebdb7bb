"""Checks of the labels of many spectra: the same names on both sides, a value for each, all inside the domain."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import LabelError
from .space import LabelSpace


def require_same_labels(
    theirs, their_name: str, ours, our_name: str, *, units=False, in_order=False, remedy: str = "", error=LabelError
) -> None:
    """Raise `error`, naming both sides and what they lack of each other, unless they have the same labels.

    `theirs` and `ours` are `LabelSpace`s or sequences of names; `their_name` and `our_name` begin and continue a
    sentence ("spectra.npz", "the domain"). With `units`, which needs two spaces, these must be the same too; with
    `in_order`, their order.
    """
    twice = [name for name, n in collections.Counter(_names(theirs)).items() if n > 1]
    if twice:
        raise error(f"{their_name} has the label {', '.join(map(str, twice))} twice. {remedy}".strip())
    described = _with_units if units else lambda side: dict.fromkeys(_names(side), "")
    they, we = described(theirs), described(ours)
    if they == we and not (in_order and list(they) != list(we)):
        return
    missing, excess = [n for n in we if n not in they], [n for n in they if n not in we]
    parts = [f"{', '.join(missing)} missing" * bool(missing), f"{', '.join(excess)} too many" * bool(excess)]
    parts += [f"{n} in {they[n]} instead of {we[n]}" for n in we if n in they and they[n] != we[n]]
    parts += ["in another order"] * (they == we)
    listed = lambda side: ", ".join(f"{n} ({u})" if u else n for n, u in side.items()) or "none"
    raise error(
        f"{their_name} has the labels {listed(they)}, but {our_name} has {listed(we)} ({'; '.join(filter(None, parts))}). "
        f"{remedy}".strip()
    )


def _names(side):
    return side.names if isinstance(side, LabelSpace) else list(side)


def _with_units(space):
    return dict(zip(space.names, space.units))


def label_rows(
    label_space: LabelSpace, labels, what: str = "the spectra", *, domain: bool = True, error=LabelError
) -> np.ndarray:
    """Labels of many spectra as `(n, n_labels)` float64, checked.

    `labels` is an array `(n, n_labels)` or a mapping of every name to `(n,)` values. **Raises:** `error` on wrong names and
    shapes, and, naming the rows and the first of them, on values that are not finite and, with `domain`, outside it.
    """
    try:
        array = np.asarray(label_space.to_array(labels), float)
    except LabelError as cause:
        raise error(f"The labels of {what} do not fit: {cause}") from cause
    if array.ndim != 2:
        given = "arrays of one length" if isinstance(labels, Mapping) else "an array (n, n_labels)"
        raise error(f"The labels of {what} must be {given}, a row per spectrum; got shape {array.shape}.")
    bad = ~np.isfinite(array).all(axis=1)
    problem = "have labels that are not finite"
    if domain and not bad.any():
        bad, problem = ~label_space.contains(array), "lie outside the label domain"
    if bad.any():
        first = first_problem(label_space, array[bad][0])
        raise error(f"{bad.sum()} of {len(bad)} {what} {problem}: rows {row_list(bad)}. {first}".strip())
    return array


def first_problem(label_space: LabelSpace, row) -> str:
    """What is wrong with the labels `(n_labels,)` of the first bad row, as a sentence; empty if nothing is."""
    try:
        label_space.check(row)
    except LabelError as error:
        return f"The first: {error}"
    return ""


def row_list(bad: Sequence[bool], most: int = 5) -> str:
    """`4, 7, 9, …` for a mask of rows."""
    rows = np.flatnonzero(bad)
    return ", ".join(map(str, rows[:most])) + ", …" * (len(rows) > most)
