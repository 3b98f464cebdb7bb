"""Values, errors and holes of many objects: `TokenSet`. Host only."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import TokenError
from .kinds import Vocabulary, slope, transformed

NORMALISED = (4000.0, 9500.0)  # Å: without a bin that is seen, the level is that of the mean over these


class Standardised(NamedTuple):
    """What a network sees of n objects: `x` and `e` `(n, K)` float32, `seen` `(n, K)`, `level` `(n,)`; see `standardised`."""

    x: np.ndarray
    e: np.ndarray
    seen: np.ndarray
    level: np.ndarray


@dataclasses.dataclass(frozen=True)
class TokenSet:
    """What is known of n objects, in the kinds of a vocabulary.

    - `values` `(n, K)`, in the units of the kinds; NaN: missing. Infinite values, and logarithms of what is not positive, are missing.
    - `errors` `(n, K)`, standard deviations; NaN or negative: not known; 0: exact; infinite: the value is missing.
    - `keys` `(n,)`: what identifies the objects in the input, as `key_name` says; the numbers of the rows if nothing is given.
    - `notes`: what was left out or converted on the way in, for the user.
    """

    vocabulary: Vocabulary
    values: np.ndarray
    errors: np.ndarray = None  # type: ignore[assignment]  # filled in below
    keys: np.ndarray = None  # type: ignore[assignment]
    key_name: str = "row"
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        values = np.asarray(self.values, dtype=np.float64)
        errors = np.full(values.shape, np.nan) if self.errors is None else np.asarray(self.errors, dtype=np.float64)
        k = len(self.vocabulary)
        if values.ndim != 2 or values.shape[1] != k or errors.shape != values.shape:
            raise TokenError(
                f"Values have the shape {values.shape} and errors {errors.shape}; the vocabulary has {k} kinds, so both must "
                f"be (objects, {k})."
            )
        keys = np.arange(len(values)) if self.keys is None else np.asarray(self.keys)
        if len(keys) != len(values):
            raise TokenError(f"There are {len(keys)} keys for {len(values)} objects; give one for each.")
        for name, array in (("values", values), ("errors", errors), ("keys", keys)):
            object.__setattr__(self, name, array)

    @classmethod
    def concatenate(cls, sets: Sequence["TokenSet"]) -> "TokenSet":
        """Several sets of one vocabulary as one, in order. Rows without keys of their own are counted anew."""
        first = sets[0]
        if any(other.vocabulary.names != first.vocabulary.names for other in sets):
            raise TokenError("Sets of tokens of different vocabularies cannot be put together.")
        values, errors = (np.concatenate([getattr(one, name) for one in sets]) for name in ("values", "errors"))
        same = {one.key_name for one in sets} == {first.key_name} and first.key_name != "row"
        keys = np.concatenate([one.keys for one in sets]) if same else np.arange(len(values))
        notes = tuple(dict.fromkeys(note for one in sets for note in one.notes))
        return cls(first.vocabulary, values, errors, keys, first.key_name if same else "row", notes)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows) -> "TokenSet":
        """Some of the objects: a slice, numbers, or a mask; one number gives a set of one."""
        rows = [rows] if isinstance(rows, int | np.integer) else rows
        return dataclasses.replace(self, values=self.values[rows], errors=self.errors[rows], keys=self.keys[rows])

    @property
    def seen(self) -> np.ndarray:
        """`(n, K)`: whether there is a value that can be used."""
        seen = np.isfinite(self.values) & ~np.isinf(self.errors)
        if (columns := self.vocabulary.transforms.get("log")) is not None:
            with np.errstate(invalid="ignore"):
                seen[:, columns] &= self.values[:, columns] > 0
        return seen

    @property
    def known(self) -> np.ndarray:
        """`(n, K)`: whether there is a value whose error is known."""
        with np.errstate(invalid="ignore"):
            return self.seen & (self.errors >= 0)

    def only(self, kinds) -> "TokenSet":
        """With these kinds or groups alone; the others are missing."""
        return self._with(np.isin(np.arange(len(self.vocabulary)), self.vocabulary.indices(kinds)))

    def without(self, kinds) -> "TokenSet":
        """Without these kinds or groups: they are missing."""
        return self._with(~np.isin(np.arange(len(self.vocabulary)), self.vocabulary.indices(kinds)))

    def _with(self, kept) -> "TokenSet":
        return dataclasses.replace(
            self, values=np.where(kept, self.values, np.nan), errors=np.where(kept, self.errors, np.nan)
        )

    def standardised(self) -> Standardised:
        """`(value - centre) / scale` of the transformed values; 0 where nothing is seen.

        Relative kinds are `(ln f - centre - level) / scale`, where the object's `level` is the mean of `ln f - centre` over
        the kinds seen, 0 where none is: fluxes may be in any unit, and none tells anything of those that are hidden.
        `e` are the errors on the same scale; it is 0 where an error is not known (`TokenSet.known` tells) or exact.
        """
        seen, vocabulary = self.seen, self.vocabulary
        with np.errstate(invalid="ignore"):
            x, e = np.where(seen, self.values, np.nan), np.where(seen & (self.errors >= 0), self.errors, 0.0)
        for transform, columns in vocabulary.transforms.items():
            if transform != "identity":
                e[:, columns] *= np.where(seen[:, columns], slope(transform, x[:, columns]), 0.0)
                x[:, columns] = transformed(transform, x[:, columns])
        x = np.where(seen, x - vocabulary.centre, 0.0)
        level = level_of(x, seen & vocabulary.relative)
        x -= np.where(seen & vocabulary.relative, level[:, None], 0.0)
        x, e = (np.asarray(array / vocabulary.scale, dtype=np.float32) for array in (x, e))
        return Standardised(x, e, seen, level)

    def outside(self) -> np.ndarray:
        """`(n, K)`: values seen that lie outside the range of the training values, `lower` to `upper` of their kinds."""
        values = self.values / np.exp(self.standardised().level)[:, None] ** self.vocabulary.relative
        bound = lambda which, default: np.array(
            [default if getattr(kind, which) is None else getattr(kind, which) for kind in self.vocabulary]
        )
        with np.errstate(invalid="ignore"):
            return self.seen & ((values < bound("lower", -np.inf)) | (values > bound("upper", np.inf)))


def level_of(residuals, seen) -> np.ndarray:
    """`(n,)`: the mean of residuals `(n, K)` over what is seen; 0 where nothing is."""
    count = seen.sum(axis=1)
    return np.where(seen, residuals, 0.0).sum(axis=1) / np.maximum(count, 1)
