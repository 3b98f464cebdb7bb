"""The label space of an emulator: names, units, bounds, and the test whether labels lie in the domain."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import LabelError, suggestion

UNITS = {"teff": "K", "logg": "dex(cm s-2)", "vmic": "km / s"}


@dataclasses.dataclass(frozen=True)
class LabelSpace:
    """Names, units, bounds and linear constraints of stellar labels.

    **Arguments:**

    - `names`: label names such as `("teff", "logg", "fe_h", "vmic", "mg_fe")`.
    - `lower`, `upper`: bounds, one value per name, in the label's unit.
    - `units`: unit strings that astropy understands; `"dex"` for abundances. Guessed from the names if empty.
    - `constraints`: linear inequalities `sum_i c_i label_i <= bound` as `({name: c_i}, bound)` pairs.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    units: tuple[str, ...] = ()
    constraints: tuple = ()

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "lower", tuple(float(x) for x in self.lower))
        object.__setattr__(self, "upper", tuple(float(x) for x in self.upper))
        units = tuple(self.units) or tuple(UNITS.get(n, "dex") for n in self.names)
        object.__setattr__(self, "units", units)
        constraints = tuple((tuple(sorted(dict(c).items())), float(b)) for c, b in self.constraints)
        object.__setattr__(self, "constraints", constraints)
        if not len(self.names) == len(self.lower) == len(self.upper) == len(self.units):
            raise LabelError(
                f"A label space needs one name, lower bound, upper bound and unit per label; got {len(self.names)} names, "
                f"{len(self.lower)} lower bounds, {len(self.upper)} upper bounds and {len(self.units)} units."
            )
        if not self.names or not all(isinstance(name, str) for name in (*self.names, *self.units)):
            raise LabelError(
                f"Names and units of labels must be texts, at least one; got {list(self.names)}, {list(units)}."
            )
        if len(set(self.names)) != len(self.names):
            raise LabelError(f"Label names must differ from each other; got {list(self.names)}.")
        for name, lo, hi in zip(self.names, self.lower, self.upper):
            if not lo < hi or not np.isfinite((lo, hi)).all():
                raise LabelError(
                    f"The lower bound of label '{name}' ({lo}) must be below its upper bound ({hi}), both finite."
                )
        for c, b in constraints:
            self.require_names([n for n, _ in c])
            if not (np.isfinite(b) and np.isfinite([x for _, x in c]).all()):
                raise LabelError(f"The constraint {dict(c)} <= {b} of a label space must have finite numbers.")

    def __len__(self):
        return len(self.names)

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Bounds by label name, in the units of `units`."""
        return {n: (lo, hi) for n, lo, hi in zip(self.names, self.lower, self.upper)}

    @property
    def centre(self) -> np.ndarray:
        return 0.5 * (np.asarray(self.lower) + np.asarray(self.upper))

    @property
    def half_width(self) -> np.ndarray:
        return 0.5 * (np.asarray(self.upper) - np.asarray(self.lower))

    def index(self, name: str) -> int:
        self.require_names([name])
        return self.names.index(name)

    def require_names(self, names: Sequence[str]) -> None:
        """Raise `LabelError` if a name is not one of the labels, suggesting the nearest that is."""
        for name in names:
            if name not in self.names:
                hint = suggestion(name, self.names)
                raise LabelError(f"Unknown label '{name}'.{hint} The labels are: {', '.join(self.names)}.")

    def to_array(self, labels, xp=np):
        """Labels as an array of shape `(..., n_labels)` in the order of `names`.

        `labels` is a mapping of every name to a value or array, or an array whose last axis is the labels.
        `xp` is `numpy` or `jax.numpy`. Raises `LabelError` on missing or unknown names and on a wrong last axis.
        """
        if isinstance(labels, Mapping):
            self.require_names(list(labels))
            missing = [n for n in self.names if n not in labels]
            if missing:
                raise LabelError(f"Missing labels: {', '.join(missing)}. Give all of: {', '.join(self.names)}.")
            return xp.stack(xp.broadcast_arrays(*[xp.asarray(labels[n], dtype=float) for n in self.names]), axis=-1)
        array = xp.asarray(labels)
        if array.ndim == 0 or array.shape[-1] != len(self):
            raise LabelError(
                f"The last axis of the labels must have length {len(self)} ({', '.join(self.names)}); got shape {array.shape}."
            )
        return array

    def to_dict(self, array) -> dict:
        """The inverse of `to_array`: label name to `array[..., i]`."""
        return {n: array[..., i] for i, n in enumerate(self.names)}

    def scale(self, array):
        """Map labels to [-1, 1] over the bounds; shape and array library are kept."""
        return (array - self.centre.astype(np.float32)) / self.half_width.astype(np.float32)

    def unscale(self, scaled):
        """The inverse of `scale`."""
        return scaled * self.half_width.astype(np.float32) + self.centre.astype(np.float32)

    def constraint_matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """`(A, b)` with the domain's linear constraints as `A @ labels <= b`."""
        matrix = np.zeros((len(self.constraints), len(self)))
        for k, (c, _) in enumerate(self.constraints):
            for name, coefficient in c:
                matrix[k, self.names.index(name)] = coefficient
        return matrix, np.array([b for _, b in self.constraints])

    def contains(self, labels, tolerance: float = 1e-6) -> np.ndarray:
        """Whether labels, shape `(..., n_labels)` or a mapping, lie in the domain. Shape `(...)`, bool.

        `tolerance` is relative to each label's half-width.
        """
        x = np.asarray(self.to_array(labels), dtype=float)
        slack = tolerance * self.half_width
        inside = np.all((x >= np.asarray(self.lower) - slack) & (x <= np.asarray(self.upper) + slack), axis=-1)
        matrix, bound = self.constraint_matrix()
        if len(bound):
            inside &= np.all(x @ matrix.T <= bound + np.abs(matrix) @ slack, axis=-1)
        return inside

    def edge_distance(self, labels) -> np.ndarray:
        """Distance of labels `(..., n_labels)` from the nearest bound or constraint of the domain, shape `(...)`.

        In half-widths of the labels: 1 in the middle, 0 at a bound, negative outside.
        """
        x = np.asarray(self.to_array(labels), dtype=float)
        distance = (1 - np.abs((x - self.centre) / self.half_width)).min(-1)
        matrix, bound = self.constraint_matrix()
        if len(bound):
            slack = (bound - x @ matrix.T) / np.linalg.norm(matrix * self.half_width, axis=1)
            distance = np.minimum(distance, slack.min(-1))
        return distance

    def check(self, labels) -> None:
        """Raise `LabelError` that names the first label outside the domain, its value and the allowed range."""
        x = np.atleast_2d(np.asarray(self.to_array(labels), dtype=float)).reshape(-1, len(self))
        for row in x:
            for name, value, lo, hi, unit in zip(self.names, row, self.lower, self.upper, self.units):
                if not np.isfinite(value):
                    raise LabelError(f"{name} = {value} is not a finite number.")
                if not self.contains_value(name, value):
                    raise LabelError(f"{name} = {value:g} is outside the domain [{lo:g}, {hi:g}] {unit}.")
            if not self.contains(row):
                raise LabelError(
                    f"The labels {_describe(self.names, row)} break a constraint of the domain: {self.describe_constraints()}."
                )

    def contains_value(self, name: str, value: float) -> bool:
        i = self.index(name)
        slack = 1e-6 * self.half_width[i]
        return self.lower[i] - slack <= value <= self.upper[i] + slack

    def describe_constraints(self) -> str:
        terms = [" + ".join(f"{v:g} {n}" for n, v in c) + f" <= {b:g}" for c, b in self.constraints]
        return "; ".join(terms) or "none"

    def to_json(self) -> dict:
        """A JSON-able description; `LabelSpace.from_json` reads it back."""
        return {
            "names": list(self.names),
            "units": list(self.units),
            "lower": list(self.lower),
            "upper": list(self.upper),
            "constraints": [[dict(c), b] for c, b in self.constraints],
        }

    @classmethod
    def from_json(cls, data: dict) -> "LabelSpace":
        try:
            return cls(data["names"], data["lower"], data["upper"], data["units"], tuple(data["constraints"]))
        except LabelError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise LabelError(f"Not a description of a label space: {error!r}.") from error


def _describe(names, row):
    return ", ".join(f"{n} = {v:g}" for n, v in zip(names, row))


SUN = {"teff": 5777.0, "logg": 4.44, "fe_h": 0.0, "vmic": 1.0}  # Teff, log g: Heiter et al. 2015, A&A 582, A49, rounded


def solar_labels(label_space) -> dict[str, float]:
    """The Sun's labels in a label space: abundances 0, and the middle of the range of a label that cannot be solar."""
    labels = {n: SUN.get(n, 0.0) for n in label_space.names}
    centre = dict(zip(label_space.names, label_space.centre.tolist()))
    return {n: v if label_space.contains_value(n, v) else centre[n] for n, v in labels.items()}


def complete_labels(label_space: LabelSpace, values) -> tuple[dict[str, float], str]:
    """All labels of one star from `values`, a mapping of some of them or an array `(n_labels,)`; and what was filled in.

    Missing labels are the Sun's (`solar_labels`). The second part is a sentence that names them with their values, to be
    shown to the user; empty where nothing was missing. **Raises:** `LabelError` on unknown names, on values that are no
    single finite numbers, and outside the domain.
    """
    if not isinstance(values, Mapping):
        return star_labels(label_space, values), ""
    label_space.require_names(list(values))
    filled = {n: v for n, v in solar_labels(label_space).items() if n not in values}
    labels = star_labels(label_space, {**filled, **values})
    solar = {n: v for n, v in filled.items() if v == SUN.get(n, 0.0)}
    middle = {n: v for n, v in filled.items() if n not in solar}
    parts = []
    if solar:
        parts.append(f"solar values are used for {_describe(solar, solar.values())}")
    if middle:
        parts.append(f"the middle of the domain is used for {_describe(middle, middle.values())}")
    note = " and ".join(parts)
    return labels, f"{note[0].upper()}{note[1:]}, which were not given." if note else ""


def star_labels(label_space: LabelSpace, labels) -> dict[str, float]:
    """The labels of one star, a mapping of all of them or an array `(n_labels,)`, as numbers by name in the space's order.

    **Raises:** `LabelError` on wrong names, on more than one star, on values that are not finite or outside the domain.
    """
    array = np.asarray(label_space.to_array(labels), float)
    if array.size != len(label_space):
        raise LabelError(f"The labels of one star are needed, one number each; got an array of shape {array.shape}.")
    label_space.check(array)
    return dict(zip(label_space.names, array.reshape(-1).tolist()))
