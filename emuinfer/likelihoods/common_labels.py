"""Labels that several models of one star share: how those of one emulator follow from those of another, and where all are valid."""

import numpy as np

from ..errors import LabelError
from ..labels import LabelSpace

# Abundances over iron whose mean, of those that there are, is `alpha_m`. APOGEE's [α/M] is fitted to O, Ne, Mg, Si, S, Ca and Ti
# together (García Pérez et al. 2016, AJ 151, 144); equal weights are a choice, and XPModel's `scale_errors` cover it.
ALPHA = ("o_fe", "mg_fe", "si_fe", "s_fe", "ca_fe", "ti_fe")


def elements_of(name: str, known) -> tuple[str, ...]:
    """The names among `known` that make up the label `name`: itself, or the α elements of `alpha_m`; empty where none do."""
    if name in known:
        return (name,)
    return tuple(n for n in ALPHA if n in known) if name == "alpha_m" else ()


def label_value(name: str, values: dict):
    """The label `name` of a star with `values` by name: its own value, or the mean of the abundances that make it up."""
    parts = elements_of(name, values)
    return sum(values[n] for n in parts) / np.float32(len(parts))


def common_space(first: LabelSpace, second: LabelSpace) -> LabelSpace:
    """The labels of both, within the bounds and constraints of both.

    A label of `second` that `first` has under the names of its parts bounds their mean.

    **Raises:** `LabelError` where two ranges do not overlap.
    """
    bounds = {n: list(b) for n, b in first.bounds.items()}
    units = dict(zip(first.names, first.units))
    constraints = [*first.constraints, *second.constraints]
    for name, (lo, hi) in second.bounds.items():
        parts = elements_of(name, first.names)
        if not parts:
            bounds[name] = [lo, hi]
            units[name] = second.units[second.index(name)]
        elif parts == (name,):
            bounds[name] = [max(lo, bounds[name][0]), min(hi, bounds[name][1])]
            if bounds[name][0] >= bounds[name][1]:
                raise LabelError(
                    f"The emulators share no value of {name}: one knows {first.bounds[name]}, the other {(lo, hi)}. Use "
                    "emulators whose domains overlap."
                )
        else:
            share = 1.0 / len(parts)
            constraints += [(dict.fromkeys(parts, share), hi), (dict.fromkeys(parts, -share), -lo)]
    lower, upper = zip(*bounds.values())
    renamed = [(_in_parts(dict(c), bounds), b) for c, b in constraints]
    return LabelSpace(tuple(bounds), lower, upper, tuple(units[n] for n in bounds), tuple(renamed))


def _in_parts(constraint: dict, known) -> dict:
    """A linear constraint written in the labels that there are."""
    found: dict = {}
    for name, factor in constraint.items():
        parts = elements_of(name, known)
        for part in parts:
            found[part] = found.get(part, 0.0) + factor / len(parts)
    return found
