"""Checks of a grid against a line list: the medium of its wavelengths, and whether abundances move their own lines."""

import re

import numpy as np

from ..constants import EV_OVER_K, LN_10, LN_SAHA, SPEED_OF_LIGHT
from ..wavelengths.medium import convert_medium
from .check_report import FAIL, OK, SKIPPED, WARN, Check
from .check_response import design, scale, t_values

STEP = 1.0  # km/s, of the axis on which the lines are drawn
REACH = 160  # km/s, largest shift looked for; air and vacuum differ by 83
WIDTHS = (3.0, 8.0, 20.0, 50.0)  # km/s, standard deviations of the lines, of which the best is taken
MIN_CORRELATION = 0.4
SHIFT_OK, SHIFT_WARN = 2.0, 5.0  # km/s
SIGNIFICANT = 5.0  # t value of a response
TEMPERATURE, LN_ELECTRONS = 4800.0, np.log(1e13)  # K, cm^-3: where the lines of a solar-like star are formed
ALPHA = ("Mg", "Si", "Ca", "Ti")
IRON = ("fe_h", "feh", "m_h", "mh", "metallicity", "[fe/h]", "[m/h]")


class Lines:
    """Opacities of elements on an axis of equal velocity steps in air, from a line list, in LTE at one temperature.

    `ln_wavelength` (n,); `combs`: atomic number to the strengths of its lines (n,).
    """

    def __init__(self, lines):
        self.ln_wavelength = np.arange(
            np.log(lines.wavelength.min()), np.log(lines.wavelength.max()), STEP / SPEED_OF_LIGHT
        )
        strength = line_strengths(lines)
        position = (np.log(lines.wavelength) - self.ln_wavelength[0]) / (STEP / SPEED_OF_LIGHT)
        self.combs = {}
        for z in np.unique(lines.element):
            mine = lines.element == z
            self.combs[int(z)] = np.bincount(
                np.round(position[mine]).astype(int), strength[mine], minlength=len(self.ln_wavelength)
            )[: len(self.ln_wavelength)]

    def opacity(self, width: float, element: int | None = None) -> np.ndarray:
        """Opacity (n,) of an element, or of all, with lines of standard deviation `width` in km/s."""
        from scipy.signal import fftconvolve

        v = np.arange(-400, 401) * STEP
        profile = np.exp(-0.5 * (v / width) ** 2) + 0.005 / (
            1 + (v / 3.0) ** 2
        )  # a core, and the wings of strong lines
        comb = sum(self.combs.values()) if element is None else self.combs[element]
        return np.maximum(fftconvolve(comb, profile / profile.sum(), mode="same"), 0.0)


def line_strengths(lines) -> np.ndarray:
    """Opacities at the line centres, relative to each other: log gf, solar abundance, Saha and Boltzmann at one
    temperature and electron density (`TEMPERATURE`, `LN_ELECTRONS`)."""
    from ..synthesis.elements import element_data
    from ..synthesis.lines import ISOTOPE_FRACTION

    data = element_data()
    z, ion = lines.element.astype(int) - 1, lines.ion.astype(int) - 1
    ln_u = np.array(
        [[np.interp(TEMPERATURE, data["temperature"], row) for row in stage] for stage in data["ln_partition_function"]]
    )
    saha = np.log(2.0) + LN_SAHA + 1.5 * np.log(TEMPERATURE) - data["ionisation_energy"] * EV_OVER_K / TEMPERATURE
    steps = saha + np.diff(ln_u, axis=1) - LN_ELECTRONS
    ln_ratio = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
    ln_fraction = ln_ratio - np.log(np.exp(ln_ratio).sum(axis=1, keepdims=True))
    ln_strength = LN_10 * (lines.log_gf.astype(float) + data["abundance"][z] - 12.0)
    ln_strength += ln_fraction[z, ion] - ln_u[z, ion] - lines.e_low * EV_OVER_K / TEMPERATURE
    fraction = [ISOTOPE_FRACTION.get(pair, 1.0) for pair in zip(lines.element.tolist(), lines.isotope.tolist())]
    return np.exp(ln_strength) * np.array(fraction)


def check_medium(grid, sample, line_list):
    """`(Check, shift)`: where the lines are, against the line list; `shift` (km/s) and line width for `check_elements`.

    The mean absorption is correlated with that of the line list at shifts of up to `REACH` km/s, in the medium that the
    grid states. Wavelengths in vacuum that are called air appear shifted by +83 km/s (1.4 Angstrom at 5200 Angstrom).
    """
    covered = _covered(grid, sample, line_list)
    if covered is None:
        return _no_lines("medium", grid), None
    lines, inside, ln_air = covered
    depth = 1 - sample.flux[:, inside].mean(axis=0, dtype=float)
    first, last = np.searchsorted(lines.ln_wavelength, ln_air[[0, -1]])
    depth = np.interp(lines.ln_wavelength[first:last], ln_air, depth)
    shifts = np.arange(-REACH, REACH + 1)  # steps of the axis, hence km/s
    peak = -np.inf
    for trial in WIDTHS:
        drawn = _as_deep_as(lines.opacity(trial), depth.mean())
        trials = np.array([np.corrcoef(depth, drawn[first - s : last - s])[0, 1] for s in shifts])
        if trials.max() > peak:
            peak, width, correlation = trials.max(), trial, trials
    k = int(np.clip(correlation.argmax(), 1, len(shifts) - 2))
    a, b, c = correlation[k - 1 : k + 2]
    shift = shifts[k] + 0.5 * (a - c) / min(a - 2 * b + c, -1e-9)
    air_to_vacuum = SPEED_OF_LIGHT * np.log(
        convert_medium(grid.wavelength.mean(), "air", "vacuum") / grid.wavelength.mean()
    )
    expected, other = (air_to_vacuum, "vacuum") if grid.medium == "air" else (-air_to_vacuum, "air")
    details = {"shift_km_s": float(shift), "correlation": float(peak), "if_other_medium_km_s": float(expected)}
    if peak < MIN_CORRELATION:
        found = f"the absorption does not follow the line list (correlation {peak:.2f}), so its medium cannot be told"
        return Check("medium", SKIPPED, found, details=details), None
    found = f"the lines lie {shift:+.1f} km/s from those of the line list in {grid.medium} (correlation {peak:.2f})"
    if abs(shift - expected) < SHIFT_WARN + 0.2 * width:
        remedy = f"The wavelengths are most likely in {other}: import the grid again with medium '{other}'."
        check = Check("medium", FAIL, f"{found}; {other} wavelengths would be at {expected:+.0f}", remedy, details)
    elif abs(shift) > SHIFT_OK + 0.05 * width:
        remedy = "Spectra must be at rest: look for a radial velocity, or an error of the wavelength scale."
        check = Check("medium", FAIL if abs(shift) > SHIFT_WARN + 0.1 * width else WARN, found, remedy, details)
    else:
        check = Check("medium", OK, f"{found}; {other} wavelengths would be at {expected:+.0f}", details=details)
    return check, (shift, width)


def check_elements(grid, sample, line_list, measured) -> Check:
    """Abundance labels must deepen the lines of their own element, and no other element's lines more.

    An element's lines are the pixels that it dominates, by the line list; their mean log opacity is regressed on all
    labels to second order. `measured` are shift and width of the lines from `check_medium`.
    """
    elements = {i: found for i, name in enumerate(grid.label_space.names) if (found := elements_of(name))}
    covered = _covered(grid, sample, line_list)
    if covered is None:
        return _no_lines("elements", grid)
    if measured is None or not elements:
        reason = "the lines could not be matched to the line list" if elements else "no label is an abundance"
        return Check("elements", SKIPPED, reason)
    indices = _line_indices(sample, covered, measured, sorted({z for found in elements.values() for z in found}))
    columns = design(scale(sample.labels))
    values = np.stack(list(indices.values()), axis=1) if indices else np.zeros((len(columns), 0))
    t = dict(zip(indices, t_values(columns, values)[1][1 : 1 + sample.labels.shape[1]].T))
    wrong: list[str] = []
    fine: list[str] = []
    untested: list[str] = []
    details: dict[str, dict] = {}
    for i, wanted in elements.items():
        name, own = grid.label_space.names[i], [z for z in wanted if z in t]
        others = {z: t[z][i] for z in t if z not in wanted}
        best = max((t[z][i] for z in own), default=0.0)
        worst = min((t[z][i] for z in own), default=0.0)
        thief = max(others, key=others.__getitem__, default=None)
        details[name] = {"t_own": float(best), "t_others": {_symbol(z): float(v) for z, v in others.items()}}
        if worst < -SIGNIFICANT:
            wrong.append(f"raising {name} weakens the lines of {_symbols(own)} (t = {worst:.0f})")
        elif (
            own
            and thief is not None
            and others[thief] > 2 * SIGNIFICANT
            and best < 0.25 * others[thief]
            and not _is_iron(name)
        ):
            wrong.append(
                f"{name} deepens lines of {_symbol(thief)} (t = {others[thief]:.0f}), not those of {_symbols(own)} "
                f"(t = {best:.0f})"
            )
        else:
            (fine if best > SIGNIFICANT else untested).append(name)
    rest = f"; no clear response of own lines: {', '.join(untested)}" if untested else ""
    if not wrong:
        return Check(
            "elements", OK, f"lines deepen with their own element: {', '.join(fine) or 'none'}{rest}", details=details
        )
    remedy = "Look for a sign, or for columns of labels in the wrong order."
    return Check("elements", FAIL, "; ".join(wrong) + rest, remedy, details)


def _line_indices(sample, covered, measured, elements):
    """Atomic number to mean log opacity (n,) of up to 40 pixels that the element dominates."""
    lines, inside, ln_air = covered
    shift, width = measured
    at = lambda values: np.interp(ln_air - shift / SPEED_OF_LIGHT, lines.ln_wavelength, values)
    total = at(lines.opacity(width))
    depth = 1 - sample.flux[:, inside].mean(axis=0, dtype=float)
    values = sample.opacity()[:, inside]
    out = {}
    for z in elements:
        if z not in lines.combs:
            continue
        share = at(lines.opacity(width, z)) / np.maximum(total, 1e-300)
        merit = np.where((share > 0.6) & (depth > 0.01), share * np.minimum(depth, 0.5), 0.0)
        chosen = np.argsort(-merit)[:40]
        chosen = chosen[merit[chosen] > 0]
        if len(chosen):
            out[z] = values[:, chosen].mean(axis=1, dtype=float)
    return out


def elements_of(name: str) -> list[int]:
    """Atomic numbers whose lines an abundance label moves: `mg_fe`, `[Mg/Fe]`, `mg_h`, `fe_h`, `m_h`, `alpha_fe`."""
    from ..synthesis.elements import atomic_number, element_data

    if _is_iron(name):
        return [26]
    match = re.fullmatch(r"\[?([a-z]+)[_/](fe|h|m)\]?", name.strip().lower())
    if match is None:
        return []
    if match[1] in ("alpha", "a"):
        return [atomic_number(symbol) for symbol in ALPHA]
    symbol = match[1].capitalize()
    return [atomic_number(symbol)] if symbol in element_data()["symbol"] else []


def _is_iron(name):
    return name.strip().lower() in IRON


def _symbol(z):
    from ..synthesis.elements import element_data

    return str(element_data()["symbol"][z - 1])


def _symbols(elements):
    return ", ".join(map(_symbol, elements))


def _covered(grid, sample, lines):
    """`(Lines, pixels inside the line list, ln of their wavelengths in air)`, or None where there are too few."""
    air = convert_medium(sample.wavelength, grid.medium, "air")
    margin = 1 + REACH / SPEED_OF_LIGHT
    inside = (air > lines.wavelength.min() * margin) & (air < lines.wavelength.max() / margin)
    if inside.sum() < 50 or np.ptp(air[inside]) < 5.0:
        return None
    return Lines(lines), inside, np.log(air[inside])


def _no_lines(name, grid):
    found = f"the line list has no lines between {grid.wavelength[0]:.0f} and {grid.wavelength[-1]:.0f} Angstrom"
    return Check(name, SKIPPED, found)


def _as_deep_as(opacity, mean_depth):
    """Absorption x / (1 + x) for x proportional to `opacity`, scaled so that its mean is `mean_depth`."""
    from scipy.optimize import brentq

    mean_depth = float(np.clip(mean_depth, 1e-3, 0.9))
    opacity = opacity / opacity.max()
    excess = lambda ln_x: (1 - 1 / (1 + np.exp(ln_x) * opacity)).mean() - mean_depth
    return 1 - 1 / (1 + np.exp(brentq(excess, -20.0, 40.0)) * opacity)
