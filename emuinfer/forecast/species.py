"""Which lines there are at a wavelength, and how strong they are in a star: enough to name them. NumPy.

A line's strength is that of its lower level in LTE at one temperature and electron pressure of the layers where lines form: log gf +
log N(level). Molecules are not in the list.
"""

import functools

import numpy as np

from ..constants import EV_OVER_K, LN_10, THETA_TEMPERATURE
from ..labels import window_of
from ..synthesis import LineList, load_line_list
from ..synthesis.elements import abundance_matrix, atomic_number, element_data
from ..wavelengths.medium import convert_medium

COOLER = 0.87  # T of the layers over Teff, where τ is about 0.1 in a grey atmosphere (T⁴ = ¾ Teff⁴ (τ + 2/3))
# log10 of the electron pressure (dyn cm⁻²) of the Sun there, and its growth with log g and [Fe/H] (Gray 2005, The Observation and
# Analysis of Stellar Photospheres, chapter 9: about the cube root of both).
LOG_PE, BY_GRAVITY = 0.7, 1.0 / 3.0
LOG_SAHA = -0.1762  # of log(N₁/N₀ Pe) = −θ χ + 2.5 log T + log(U₁/U₀) + this (Gray 2005, equation 1.20, in dyn cm⁻²)
ROMAN = ("", "I", "II", "III")


def lines_at(emulator, lines: LineList | None = None) -> LineList | None:
    """The line list of the window that an emulator lies in, or `lines`; None where there is none."""
    if lines is not None:
        return lines
    window = window_of(emulator.wavelength_range, emulator.medium)
    return None if window is None or window.line_list is None else _list_of(window)


@functools.lru_cache(maxsize=2)
def _list_of(window) -> LineList:
    return load_line_list(window=window)


def strengths(lines: LineList, labels: dict) -> np.ndarray:
    """log10 of the strengths of lines `(n_lines,)` relative to each other in a star with these labels; others are the Sun's."""
    data = element_data()
    teff, logg, fe_h = (float(labels.get(n, solar)) for n, solar in (("teff", 5772.0), ("logg", 4.438), ("fe_h", 0.0)))
    names = _abundances(labels)
    abundance = data["abundance"] + np.array([labels[n] for n in names]) @ abundance_matrix(names)
    temperature = COOLER * teff
    theta = THETA_TEMPERATURE / temperature
    log_pe = LOG_PE + BY_GRAVITY * (logg - 4.438 + fe_h) + 4.0 * (teff - 5772.0) / 5772.0
    at = [[np.interp(temperature, data["temperature"], u) for u in row[:2]] for row in data["ln_partition_function"]]
    log_u = np.array(at) / LN_10
    saha = -theta * data["ionisation_energy"][:, 0] + 2.5 * np.log10(temperature) + LOG_SAHA
    saha = saha + log_u[:, 1] - log_u[:, 0] - log_pe
    ionised = -np.logaddexp(0.0, -saha * LN_10) / LN_10
    neutral = -np.logaddexp(0.0, saha * LN_10) / LN_10
    z, ion = lines.element.astype(int) - 1, lines.ion.astype(int)
    share = np.where(ion == 1, neutral[z] - log_u[z, 0], ionised[z] - log_u[z, 1])
    level = -lines.e_low * EV_OVER_K / temperature / LN_10
    return np.where(ion <= 2, abundance[z] + share + level + lines.log_gf + np.log10(lines.wavelength), -np.inf)


def _abundances(labels) -> list[str]:
    """Those of the labels that are [Fe/H] or the abundance of an element over iron."""
    symbols = element_data()["symbol"]
    return [n for n in labels if n == "fe_h" or (n.endswith("_fe") and n[:-3].capitalize() in symbols)]


def species_names(lines: LineList) -> np.ndarray:
    """`"Y II"` and so on, `(n_lines,)`."""
    symbol = element_data()["symbol"]
    return np.array([f"{symbol[int(z) - 1]} {ROMAN[int(i)]}" for z, i in zip(lines.element, lines.ion)])


def elements_of_label(name: str, labels) -> set[int] | None:
    """Atomic numbers of the elements that a label moves, if it is an abundance over iron; None for all others."""
    if name == "fe_h" or not _abundances([name]):
        return None
    if name not in labels:
        return {atomic_number(name[:-3].capitalize())}
    known = _abundances(labels)
    row = abundance_matrix(known)[known.index(name)]
    return {int(z) + 1 for z in np.flatnonzero(row)}


def wavelengths(lines: LineList, medium: str) -> np.ndarray:
    """Of the lines in `medium`, Å `(n_lines,)`."""
    return convert_medium(lines.wavelength.astype(float), "air", medium)
