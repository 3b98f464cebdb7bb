"""Wavelengths as IRAF's spectral packages write them: WAT attributes and the multispec format. Host only.

Formats: `help specwcs` of IRAF's noao.onedspec (Valdes 1993, ASP Conf. Ser. 52, 467).
"""

import re

import numpy as np

from ...errors import ObservationError

NONE, LINEAR, LOG_LINEAR, NONLINEAR = -1, 0, 1, 2  # dispersion types
CHEBYSHEV, LEGENDRE, CUBIC_SPLINE, LINEAR_SPLINE = 1, 2, 3, 4
OTHERS = {5: "pixel array", 6: "sampled coordinate array"}


def wat_text(header, axis: int) -> str:
    """The cards WATi_001, WATi_002, … joined. FITS loses the blanks at which a full card ends; they are put back."""
    keys = sorted(key for key in header if re.fullmatch(rf"WAT{axis}_\d+", str(key)))
    parts = [str(header[key]) for key in keys]
    width = max((len(part) for part in parts[:-1]), default=0)
    width = 68 if width == 67 else width
    return "".join([part.ljust(width) for part in parts[:-1]] + parts[-1:])


def wat(header, axis: int) -> dict[str, str]:
    """The attributes of one axis, such as `label` and `units`, in lower case; the `specN` are left out."""
    pairs = re.findall(r'(\w+)\s*=\s*(?:"([^"]*)"|(\S+))', wat_text(header, axis))
    return {k.lower(): (quoted or plain).lower() for k, quoted, plain in pairs if not re.fullmatch(r"spec\d+", k)}


def is_multispec(header) -> bool:
    """Whether each row of the image has wavelengths of its own, in WAT2_nnn."""
    return str(header.get("CTYPE1", "")).upper().startswith("MULTISPE") or "spec1" in wat_text(header, 2)


def multispec(header, n: int, rows: int) -> np.ndarray:
    """Wavelengths `(rows, n)` of an image in the multispec format, in the unit of WAT1; NaN where there are none."""
    specs = {int(k): text for k, text in re.findall(r'spec(\d+)\s*=\s*"([^"]*)"', wat_text(header, 2))}
    missing = [k for k in range(1, rows + 1) if k not in specs]
    if missing:
        raise ObservationError(
            f"The image has {rows} rows, but WAT2_nnn describes only {rows - len(missing)} (spec{missing[0]} is missing): "
            "the header was cut or edited."
        )
    first, scale = float(header.get("LTV1", 0.0)), float(header.get("LTM1_1", 1.0))
    physical = (np.arange(1, n + 1) - first) / scale
    result = np.array([_wavelengths(k, specs[k], physical) for k in range(1, rows + 1)])
    if np.isnan(result).all():
        raise ObservationError(
            "The image is in IRAF's multispec format with dispersion type -1: it has pixel numbers and no wavelengths. "
            "Apply a dispersion solution first (refspectra and dispcor in IRAF)."
        )
    return result


def _wavelengths(k: int, text: str, p) -> np.ndarray:
    """Wavelengths at the physical pixels `p` by "ap beam dtype w1 dw nw z aplow aphigh [functions]"."""
    words = [np.nan if word == "INDEF" else float(word) for word in text.split()]
    if len(words) < 6:
        raise ObservationError(f"spec{k} of WAT2_nnn is '{text}': fewer than 6 numbers.")
    kind, w1, dw, nw = int(words[2]), words[3], words[4], words[5]
    z = words[6] if len(words) > 6 and np.isfinite(words[6]) else 0.0
    if kind == NONE:
        return np.full(len(p), np.nan)
    if kind in (LINEAR, LOG_LINEAR):
        axis = w1 + dw * (p - 1)
        axis = 10**axis if kind == LOG_LINEAR else axis
    elif kind == NONLINEAR:
        axis = _functions(k, words[9:], p)
    else:
        raise ObservationError(f"spec{k} of WAT2_nnn has dispersion type {kind}; IRAF knows -1, 0, 1 and 2.")
    return np.where(np.arange(1, len(p) + 1) <= nw, axis, np.nan) / (1 + z)


def _functions(k: int, words, p):
    """The weighted sum of the functions of a non-linear dispersion: "weight zero type parameters …" each."""
    total = np.zeros(len(p))
    while words:
        weight, zero, kind, *words = words
        if kind not in (CHEBYSHEV, LEGENDRE, CUBIC_SPLINE, LINEAR_SPLINE):
            name = OTHERS.get(int(kind), "not known")
            raise ObservationError(
                f"spec{k} of WAT2_nnn has a dispersion function of type {kind:g} ({name}), which is not read. "
                "Make the wavelengths linear first (dispcor in IRAF), or write a table of wavelength and flux."
            )
        count, low, high, *words = words
        if not (count >= 1 and high > low):
            raise ObservationError(
                f"spec{k} of WAT2_nnn has a dispersion function of {count:g} terms from {low:g} to {high:g}."
            )
        used = int(count) + {CUBIC_SPLINE: 3, LINEAR_SPLINE: 1}.get(int(kind), 0)
        coefficients, words = np.array(words[:used]), words[used:]
        if len(coefficients) < used:
            raise ObservationError(f"spec{k} of WAT2_nnn ends after {len(coefficients)} of {used} coefficients.")
        total += weight * (zero + _function(int(kind), coefficients, p, low, high))
    return total


def _function(kind, coefficients, p, low, high):
    if kind in (CHEBYSHEV, LEGENDRE):
        x = (2 * p - (high + low)) / (high - low)
        series = np.polynomial.chebyshev.chebval if kind == CHEBYSHEV else np.polynomial.legendre.legval
        return series(x, coefficients)
    pieces = len(coefficients) - (3 if kind == CUBIC_SPLINE else 1)
    s = (p - low) / (high - low) * pieces
    j = np.clip(np.floor(s).astype(int), 0, pieces - 1)
    a, b = j + 1 - s, s - j
    basis = [a, b] if kind == LINEAR_SPLINE else [a**3, 1 + 3 * a * (1 + a * b), 1 + 3 * b * (1 + a * b), b**3]
    return sum(z * coefficients[j + i] for i, z in enumerate(basis))
