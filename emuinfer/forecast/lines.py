"""Which lines tell of a label, and limits with the lines that decided them."""

from typing import NamedTuple

import numpy as np

from ..constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from ..entry import public
from ..errors import EmuinferError
from ..forward.lsf import resolving_power
from ..likelihoods import SpectrumModel
from ..likelihoods.priors import prior_facts
from ..posteriors import Limit, draws_of, limits_of
from ..wavelengths.doppler import rest_wavelength
from .observed import Information, model_information
from .species import elements_of_label, lines_at, species_names, strengths, wavelengths
from .star import merged_star

NEAR = 1.0  # FWHM of an observed line, within which lines go together under the name of the strongest
FAINT = 2.5  # dex below the strongest of a group, beneath which a line of another element is no part of the blend
DOPPLER = 2.0  # km/s: thermal motion and microturbulence of a metal
DAMPING = 0.02  # of the wings of a line relative to its core: a / √π of a Voigt function, as of strong neutral lines in dwarfs
SEEDS = 300  # groups of one spectrum that have a name; the others are too weak
RANGE = 4.0  # dex below an element's strongest line, beneath which a line is too weak to tell
SHOWN = 0.01  # share of the information, below which a group is left out


class Group(NamedTuple):
    """Lines that the spectrum does not tell apart. `wavelength` of the strongest in Å at rest in the emulator's medium, `species` as
    `Y II`, `blend`: the others that matter, `share` of the information, `response`: the largest change of a pixel per unit of the
    parameter in standard deviations of the pixel, `arm` from 1."""

    wavelength: float
    species: str
    blend: str
    share: float
    response: float
    arm: int


class Lines(NamedTuple):
    """Of one parameter: the groups, the one that tells most first; `sd`: the bound on it, with what is known before; `value`: at which
    all this holds; `pixels`: of each spectrum, wavelengths at rest and shares of the information, both `(n_pix,)`."""

    name: str
    groups: list[Group]
    sd: float
    value: float
    pixels: list[tuple[np.ndarray, np.ndarray]]

    def text(self, most: int = 3) -> str:
        """`Y II 5200.41, Y II 5205.72`: those that tell most."""
        return ", ".join(f"{g.species} {g.wavelength:.2f}".strip() for g in self.groups[:most])


@public
def lines_of(model: SpectrumModel, star, name: str, *, value=None, lines=None, least: float = SHOWN):
    """Which lines tell of a parameter, as an `astropy.table.Table` with a row per group of lines.

    The columns: `wavelength` (Å at rest, in the emulator's medium), `species`, `blend` (what else is there), `share` of the information,
    `response` (the largest change of a pixel per unit, in its standard deviations) and `arm`. The information is that of
    `Information.credit`: marginal over all other parameters, with the errors of the data, of the lines and of the emulator. What has
    no pixels (`gaia`) has a row without a wavelength.

    **Arguments:**

    - `model`: a `StellarModel` or `JointModel`. `star`: its posterior, or whatever else `cramer_rao` takes for a star.
    - `name`: of a label, velocity or broadening that the model samples.
    - `value`: of the parameter, at which derivatives are taken. By default the star's, and where the posterior gives a limit, the limit:
      the lines that would be seen if the abundance were higher.
    - `lines`: a `LineList`, by default that of the emulator's window. Without one there are wavelengths, but no species.
    - `least`: share of the information, below which a row is left out.

    **Raises:** `EmuinferError` on a name that is not free.
    """
    from astropy.table import Table

    found = information_of_lines(model, star, name, value=value, lines=lines, least=least)
    dtype = (float, str, str, float, float, int)
    table = Table(rows=[tuple(g) for g in found.groups] or None, names=Group._fields, dtype=dtype)
    table["wavelength"].unit = "Angstrom"
    table.meta = {"label": name, "value": found.value, "sd": found.sd, "medium": model.spectra[0].full.medium}
    return table


def information_of_lines(model, star, name, *, value=None, lines=None, least=SHOWN) -> Lines:
    """The same as a `Lines`."""
    if not model.spectra:
        raise EmuinferError("A model without spectra has no lines.")
    facts = prior_facts(model)
    if value is None and hasattr(star, "posterior") and name in facts:
        limit = limits_of({name: draws_of(star, name)}, {name: facts[name]})[name]
        value = limit.value if np.isfinite(limit.value) else None
    known = model_information(
        model, _inside(model, merged_star(star, {} if value is None else {name: value})), model_error=True
    )
    if name not in known.names[: known.n_free]:
        raise EmuinferError(f"'{name}' is not a free parameter; there are {', '.join(known.names[: known.n_free])}.")
    return lines_in(model, known, name, {n: f.sd for n, f in facts.items() if np.isfinite(f.sd)}, lines, least)


def _inside(model, star: dict) -> dict:
    """Labels kept within the domain, as means of draws beside its soft wall are not."""
    bounds = model.label_space.bounds
    return {n: float(np.clip(v, *bounds[n])) if n in bounds else v for n, v in star.items()}


def lines_in(model, known: Information, name, widths, lines=None, least=SHOWN, velocity=None) -> Lines:
    """From the `Information` of a model; `velocity`: of the star in km/s, by default that of `known`."""
    own = (
        elements_of_label(name, known.values) is not None
    )  # an abundance acts on its own lines, all else on all of them
    credit, elsewhere = known.credit(name, widths, by_derivative=own)
    total = sum(part.sum() for part in credit) + elsewhere
    total = total if total > 0 else 1.0
    groups, pixels, row = [], [], known.names.index(name)
    for k, (part, arm) in enumerate(zip(credit, model.spectra), start=1):
        rv = known.values["rv"] if velocity is None else velocity
        rest = rest_wavelength(arm.wavelength, rv + known.values.get(f"rv_offset_{k}", 0.0), arm.full.medium)
        pixels.append((rest, part / total))
        shared = known.arms[k - 1][0][row]
        groups += _groups(arm, known, name, rest, part / total, np.abs(shared), k, lines, least)
    groups = sorted(groups, key=lambda g: -g.share)
    if abs(elsewhere) / total >= least:
        sites = " and ".join(one.site for one in model.likelihood.others)
        groups = sorted([*groups, Group(np.nan, sites, "", elsewhere / total, np.nan, 0)], key=lambda g: -g.share)
    return Lines(name, groups, float(total**-0.5), float(known.values[name]), pixels)


def _groups(arm, known, name, rest, share, signal, k, lines, least) -> list[Group]:
    """The groups of one spectrum: seeds are the strongest lines that the parameter can act on, and a pixel belongs to that which
    absorbs most there."""
    fwhm = _fwhm(arm, known.values, rest)
    there = _there(arm, known, name, rest, lines)
    if there is None:
        seeds = _peaks(rest, share, fwhm)
        strength = np.zeros(len(seeds))
    else:
        index = _apart(there.wavelength, np.where(there.own, there.strength, -np.inf), fwhm)
        seeds, strength = there.wavelength[index], there.strength[index]
    if not len(seeds):
        return []
    owner, most = np.zeros(len(rest), int), np.full(len(rest), -np.inf)
    for i, (w, dex) in enumerate(zip(seeds, strength)):
        x = np.square(rest - w)
        wing = DAMPING * (DOPPLER / SPEED_OF_LIGHT * w) ** 2 / (x + 1e-9)
        absorbs = dex + np.log10(np.exp(-0.5 * x * (FWHM_PER_SIGMA / fwhm) ** 2) + wing)
        owner, most = np.where(absorbs > most, i, owner), np.maximum(absorbs, most)
    total, largest = np.bincount(owner, share, len(seeds)), np.zeros(len(seeds))
    np.maximum.at(largest, owner, signal)
    named = lambda i: ("", "") if there is None else (str(there.species[index[i]]), _blend(index[i], there, fwhm))
    shown = np.flatnonzero(total >= least)
    return [Group(float(seeds[i]), *named(i), float(total[i]), float(largest[i]), k) for i in shown]


def _fwhm(arm, values, rest) -> float:
    """Of an observed line in Å in the middle of the spectrum."""
    lsf = SPEED_OF_LIGHT / (FWHM_PER_SIGMA * float(np.median(resolving_power(arm.resolution, arm.wavelength))))
    sigma = np.hypot(np.hypot(lsf, values.get("vbroad", 0.0)), 0.5 * values.get("vsini", 0.0))
    return float(FWHM_PER_SIGMA * np.hypot(sigma, DOPPLER) / SPEED_OF_LIGHT * np.median(rest))


class There(NamedTuple):
    """Lines within a spectrum, `(n,)`: `wavelength` in the emulator's medium, `strength` in dex, `species`, and whether the parameter
    acts on them."""

    wavelength: np.ndarray
    strength: np.ndarray
    species: np.ndarray
    own: np.ndarray


def _there(arm, known, name, rest, lines) -> There | None:
    """The lines of the list between the ends of `rest`; None where there is no list."""
    found = lines_at(arm.full, lines)
    if found is None:
        return None
    where = wavelengths(found, arm.full.medium)
    inside = (where > rest[0]) & (where < rest[-1]) & (found.reach > 0)
    found, where = found[inside], where[inside]
    labels = {n: known.values[n] for n in arm.label_space.names}
    elements = elements_of_label(name, labels)
    own, strength = np.ones(len(found), bool), strengths(found, labels)
    if elements is not None:
        own = np.isin(found.element, list(elements))
        own &= strength > np.max(strength[own], initial=-np.inf) - RANGE
    return There(where, strength, species_names(found), own)


def _apart(where, height, fwhm) -> np.ndarray:
    """Indices of the highest, no two of them nearer than a line's width; at most `SEEDS`."""
    free, chosen = np.isfinite(height), []
    for i in np.argsort(-height):
        if free[i]:
            chosen.append(int(i))
            free &= np.abs(where - where[i]) > NEAR * fwhm
        if len(chosen) == SEEDS or not free.any():
            break
    return np.array(chosen, int)


def _blend(i, there: There, fwhm) -> str:
    """The other species whose lines fall together with line `i`, the strongest first."""
    near = np.abs(there.wavelength - there.wavelength[i]) < NEAR * fwhm
    near &= (there.strength > there.strength[i] - FAINT) & (there.species != there.species[i])
    said: dict[str, str] = {}
    for j in np.flatnonzero(near)[np.argsort(-there.strength[near])]:
        said.setdefault(str(there.species[j]), f"{there.species[j]} {there.wavelength[j]:.2f}")
    return ", ".join(list(said.values())[:3])


def _peaks(rest, share, fwhm) -> np.ndarray:
    """Where the share has its maxima, a line's width apart."""
    return rest[_apart(rest, np.where(share > 0, share, -np.inf), fwhm)]


@public
def limits(model: SpectrumModel, posterior, *, lines=None):
    """What a posterior measures and what not, as an `astropy.table.Table` with a row for each label, broadening and extinction.

    The columns: `label`, `unit`, `verdict` (measured, upper limit, lower limit, unconstrained), `limit` (the 95 % quantile of the
    posterior, which depends on the prior), `likelihood_limit` (where the likelihood, integrated over all others, has fallen by 1.35 in
    its logarithm from its highest; for flat priors), and `lines`, those that decided a limit (`lines_of` at the limit).
    """
    from astropy.table import Table

    facts = prior_facts(model)
    found = limits_of({n: draws_of(posterior, n) for n in facts}, facts)
    told = lines_of_limits(model, posterior, found, lines=lines)
    rows = [(n, model.units[n], one.verdict, one.value, one.likelihood, told.get(n, "")) for n, one in found.items()]
    names = ("label", "unit", "verdict", "limit", "likelihood_limit", "lines")
    return Table(rows=rows, names=names, dtype=(str, str, str, float, float, str))


def lines_of_limits(model, posterior, found: dict[str, Limit], lines=None) -> dict[str, str]:
    """The lines that decided each limit on a label, as text, by name."""
    if not model.spectra:
        return {}
    names = [n for n, one in found.items() if np.isfinite(one.value) and n in model.label_space.names]
    return {n: information_of_lines(model, posterior, n, value=found[n].value, lines=lines).text() for n in names}
