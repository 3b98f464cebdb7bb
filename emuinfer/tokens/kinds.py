"""Kinds of tokens: what a number means, its unit, and how a network sees it. Host only."""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np

from ..errors import TokenError, suggestion

TRANSFORMS = ("identity", "log", "arcsinh")
HEADS = ("mixture", "student", "categorical")
SHOWN = 6  # names of a group in a message


@dataclasses.dataclass(frozen=True)
class Kind:
    """One element: a label, a colour, a magnitude, a bin or a coefficient of a spectrum.

    - `unit`: as astropy writes it, "" for none; `group`: the kinds that are asked for together, and hidden together.
    - `transform`: "identity", "log" (natural: x = ln value, error sigma/value) or "arcsinh" (of the value in its unit).
    - `centre`, `scale`: median and 1.4826 MAD of the transformed training values. Those of a relative group are of ln flux
      divided by the mean flux, and of what then departs from the object's level.
    - `wavelength`, `width`: of a band or bin, Å in vacuum.
    - `relative`: only ratios within the group mean something; see `TokenSet.standardised`.
    - `head`: "mixture", "student" or "categorical" (one of `classes`, counted from 0).
    - `lower`, `upper`: 0.1 and 99.9 % of the training values, in the unit; of a relative kind, of the value over the level.
    """

    name: str
    unit: str
    group: str
    transform: str = "identity"
    centre: float = 0.0
    scale: float = 1.0
    wavelength: float | None = None
    width: float | None = None
    relative: bool = False
    head: str = "mixture"
    classes: tuple[str, ...] = ()
    lower: float | None = None
    upper: float | None = None
    description: str = ""

    def __post_init__(self):
        for value, known, what in ((self.transform, TRANSFORMS, "transform"), (self.head, HEADS, "head")):
            if value not in known:
                raise TokenError(
                    f"The kind '{self.name}' has the {what} {value!r};{suggestion(value, known)} it must be one of: "
                    f"{', '.join(known)}."
                )
        if not (np.isfinite(self.centre) and np.isfinite(self.scale) and self.scale > 0):
            raise TokenError(
                f"The kind '{self.name}' has centre {self.centre} and scale {self.scale}; both must be finite and the scale "
                "positive. Were all its training values missing or the same?"
            )
        if self.relative and self.transform != "log":
            raise TokenError(
                f"The kind '{self.name}' is relative: its transform must be 'log', not '{self.transform}'."
            )

    def transformed(self, values):
        """Values on the scale where the network's numbers are linear; NaN where there are none, as of the logarithm of 0."""
        return transformed(self.transform, values)

    def transformed_error(self, values, errors):
        """Standard deviations of `transformed(values)`, to first order."""
        return np.asarray(errors, dtype=float) * slope(self.transform, values)

    def physical(self, transformed):
        """The inverse of `transformed`."""
        x = np.asarray(transformed, dtype=float)
        return np.exp(x) if self.transform == "log" else np.sinh(x) if self.transform == "arcsinh" else x


def transformed(transform: str, values) -> np.ndarray:
    """`Kind.transformed` for values of several kinds with the same transform."""
    values = np.asarray(values, dtype=float)
    if transform == "identity":
        return values
    return np.arcsinh(values) if transform == "arcsinh" else np.log(_positive(values))


def slope(transform: str, values) -> np.ndarray:
    """The derivative of `transformed` at `values`, by which standard deviations are multiplied."""
    values = np.asarray(values, dtype=float)
    if transform == "identity":
        return np.ones_like(values)
    return 1.0 / np.hypot(1.0, values) if transform == "arcsinh" else 1.0 / _positive(values)


def _positive(values):
    with np.errstate(invalid="ignore"):
        return np.where(values > 0, values, np.nan)


class Vocabulary:
    """The kinds that a network knows, in order. `vocabulary[name or number]` is a `Kind`."""

    def __init__(self, kinds: Iterable[Kind], name: str = ""):
        self.kinds, self.name = tuple(kinds), name
        self.names = tuple(kind.name for kind in self.kinds)
        self._index = {kind: i for i, kind in enumerate(self.names)}
        if len(self._index) < len(self.names):
            twice = sorted({n for n in self.names if self.names.count(n) > 1})
            raise TokenError(f"A vocabulary has every kind once; these are there several times: {', '.join(twice)}.")
        self.groups = tuple(dict.fromkeys(kind.group for kind in self.kinds))
        both = set(self.groups) & set(self.names)
        if both:
            raise TokenError(f"These are names of kinds and of groups: {', '.join(sorted(both))}. Rename the groups.")
        if len({kind.group for kind in self.kinds if kind.relative}) > 1:
            raise TokenError("A vocabulary has one relative group at most, as an object has one level.")

    def __len__(self):
        return len(self.kinds)

    def __iter__(self):
        return iter(self.kinds)

    def __contains__(self, name):
        return name in self._index

    def __getitem__(self, which) -> Kind:
        return self.kinds[self.index(which) if isinstance(which, str) else which]

    def __eq__(self, other):
        return isinstance(other, Vocabulary) and self.kinds == other.kinds

    def __hash__(self):
        return hash(self.kinds)

    def __repr__(self):
        return f"<Vocabulary {self.name or 'of'} {len(self)} kinds: {self.describe()}>"

    def index(self, name: str) -> int:
        """The number of a kind. **Raises:** `TokenError` that lists the kinds and suggests one."""
        if name not in self._index:
            raise TokenError(
                f"There is no kind '{name}'.{suggestion(name, (*self.names, *self.groups))} The kinds are: {self.describe()}."
            )
        return self._index[name]

    def group(self, name: str) -> np.ndarray:
        """The numbers of the kinds of a group."""
        if name not in self.groups:
            raise TokenError(
                f"There is no group '{name}'.{suggestion(name, self.groups)} The groups are: {', '.join(self.groups)}."
            )
        return np.flatnonzero([kind.group == name for kind in self.kinds])

    def indices(self, names: str | Iterable[str]) -> np.ndarray:
        """The numbers of kinds given by their names or by those of their groups, in the order given, each once."""
        names = [names] if isinstance(names, str) else list(names)
        found = [i for name in names for i in (self.group(name) if name in self.groups else [self.index(name)])]
        return np.array(list(dict.fromkeys(found)), dtype=int)

    def describe(self) -> str:
        """The names by groups, of long groups the first and the last."""
        parts = []
        for group in self.groups:
            names = [self.names[i] for i in self.group(group)]
            listed = ", ".join(names) if len(names) <= SHOWN else f"{names[0]} to {names[-1]} ({len(names)})"
            parts.append(f"{group}: {listed}")
        return "; ".join(parts)

    @functools.cached_property
    def transforms(self) -> dict[str, np.ndarray]:
        """Each transform that there is, and the numbers of its kinds."""
        return {t: np.flatnonzero([k.transform == t for k in self.kinds]) for t in {k.transform for k in self.kinds}}

    @functools.cached_property
    def relative(self) -> np.ndarray:
        """`(K,)`: whether a kind is relative."""
        return np.array([kind.relative for kind in self.kinds], dtype=bool)

    @functools.cached_property
    def centre(self) -> np.ndarray:
        """`(K,)`: the centres."""
        return np.array([kind.centre for kind in self.kinds])

    @functools.cached_property
    def scale(self) -> np.ndarray:
        """`(K,)`: the scales."""
        return np.array([kind.scale for kind in self.kinds])

    def to_json(self) -> dict:
        """Plain values for a card; what a kind leaves at its default is left out."""
        defaults = {f.name: f.default for f in dataclasses.fields(Kind)}
        plain = lambda kind: {k: v for k, v in dataclasses.asdict(kind).items() if v != defaults[k]}
        return {"name": self.name, "kinds": [plain(kind) for kind in self.kinds]}

    @classmethod
    def from_json(cls, value: dict) -> "Vocabulary":
        """The inverse of `to_json`. **Raises:** `TokenError` where it is none."""
        try:
            kinds = [Kind(**{**kind, "classes": tuple(kind.get("classes", ()))}) for kind in value["kinds"]]
            return cls(kinds, value.get("name", ""))
        except TokenError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TokenError(
                f"This is no vocabulary: {type(error).__name__}: {error}. Take one that to_json has made."
            ) from error


def fitted(kind: Kind, transformed) -> Kind:
    """`kind` with centre, scale and range of the training values, which are given transformed; NaN are left out."""
    x = np.asarray(transformed, dtype=float)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        raise TokenError(f"The kind '{kind.name}' has {len(x)} training values; it needs two or more that differ.")
    centre = float(np.median(x))
    lower, upper = (float(v) for v in kind.physical(np.quantile(x, (0.001, 0.999))))
    return dataclasses.replace(
        kind, centre=centre, scale=float(1.4826 * np.median(np.abs(x - centre))), lower=lower, upper=upper
    )
