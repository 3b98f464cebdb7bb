"""The parameters of a forecast: their values for one star, which of them are free, and what is known of them already."""

import dataclasses
import numbers
from collections.abc import Mapping

import numpy as np

from ..errors import EmuinferError
from ..labels import LabelSpace
from ..likelihoods.priors import BROADENING
from .derivatives import KERNELS
from .fisher import prior_information
from .star import read_star

UNITS = dict.fromkeys(KERNELS, "km / s")
BROADENING_KMS = 3.0  # where nothing says vbroad or vsini; the information vanishes at 0


@dataclasses.dataclass(frozen=True, eq=False)
class Parameters:
    """Labels, velocity and broadening of one star.

    `values`: of all of them, by name; `kernels`: velocity and broadening that the spectrum has; `shared`: the free ones, of
    which each spectrum knows; `prior` `(n_shared,)`: information of their priors; `fixed`: values of those that are known;
    `prior_sd`: standard deviations of the priors; `broadening`; `notes`: sentences on what was assumed.
    """

    values: dict[str, float]
    kernels: tuple[str, ...]
    shared: tuple[str, ...]
    prior: np.ndarray
    fixed: dict[str, float]
    prior_sd: dict[str, float]
    broadening: str
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, labels, space: LabelSpace, given: Mapping, broadening: str | None, priors: Mapping, prior_sd: Mapping
    ) -> "Parameters":
        """The arguments of `Forecast`; `given`: rv, vbroad and vsini, or None where the star or a default says."""
        fixed = {n: float(p) for n, p in priors.items() if isinstance(p, numbers.Real)}
        star = read_star(labels, space, fixed)
        broadening = broadening or _implied_broadening(star.nuisances, {**priors, **prior_sd})
        if broadening not in BROADENING:
            raise EmuinferError(f"broadening must be vbroad, vsini, both or none; got '{broadening}'.")
        kernels = ("rv", *BROADENING[broadening])
        space.require_names([n for n in {**priors, **prior_sd} if n not in kernels])
        said = {n: float(v) for n, v in given.items() if v is not None}
        known = {"rv": 0.0, "vbroad": BROADENING_KMS, "vsini": BROADENING_KMS} | star.nuisances | said | fixed
        if bad := [n for n in kernels if not np.isfinite(known[n]) or (n != "rv" and known[n] < 0)]:
            raise EmuinferError(f"{bad[0]} = {known[bad[0]]} must be a number{' of at least 0' * (bad[0] != 'rv')}.")
        values = {**star.labels, **{n: known[n] for n in kernels}}
        shared = tuple(n for n in values if n not in fixed)
        sd = _checked_sd(prior_sd, priors)
        prior = np.zeros(len(shared))
        for i, name in enumerate(shared):
            if name in priors:
                prior[i] = prior_information(priors[name], values[name])
            elif name in sd:
                prior[i] = sd[name] ** -2
        sd |= {n: float(getattr(priors[n], "scale", p**-0.5)) for n, p in zip(shared, prior) if n in priors and p > 0}
        notes = (*star.notes, *_left_out(star.nuisances, kernels, broadening))
        return cls(values, kernels, shared, prior, fixed, sd, broadening, notes)


def _implied_broadening(nuisances, priors) -> str:
    """The kind that a star's values imply, or else vbroad, and what priors speak of."""
    of_star = {"vbroad", "vsini"} & set(nuisances) or {"vbroad"}
    found = of_star | {"vbroad", "vsini"} & set(priors)
    return next(kind for kind, names in BROADENING.items() if set(names) == found)


def _checked_sd(prior_sd, priors) -> dict[str, float]:
    for name, sd in prior_sd.items():
        if name in priors or not (np.isfinite(sd) and sd > 0):
            raise EmuinferError(
                f"The prior {name}={sd:g}: give a positive standard deviation, of nothing that has a fixed value or another "
                "prior."
            )
    return {n: float(sd) for n, sd in prior_sd.items()}


def _left_out(nuisances, kernels, broadening) -> list[str]:
    """A sentence on what a star's own fit has beyond a forecast."""
    if not (names := [n for n in nuisances if n not in kernels]):
        return []
    return [
        f"Left out of the star's values: {', '.join(names)}. A forecast has the noise of its S/N, one velocity, and here "
        f"broadening='{broadening}'."
    ]
