"""Wavelengths of a FITS image from its header. Host only.

FITS: Greisen et al. 2006, A&A 446, 747 (and Greisen & Calabretta 2002, A&A 395, 1061, for CD, PC and CDELT). Beside it the
conventions of IRAF (DC-FLAG, WAT; see `iraf.py`), of SDSS (COEFF0, COEFF1) and common habits (a unit as CTYPE, logarithms).
"""

import re
from typing import NamedTuple

import numpy as np

from ...errors import ObservationError
from .iraf import is_multispec, multispec, wat

SPECTRAL = ("WAVE", "AWAV", "FREQ", "ENER", "WAVN", "LAMB", "ANGS", "LOGL", "LOG-", "MULT", "LINE")
VELOCITIES = ("VELO", "VRAD", "VOPT", "ZOPT", "BETA", "FELO", "REDS")
NOT_SPECTRAL = ("RA--", "DEC-", "GLON", "GLAT", "ELON", "ELAT", "STOK", "TIME", "OFFS")
PIXELS = ("PIX", "INDEX", "COLUMN", "CHANNEL")
STANDARD_UNITS = {"FREQ": "Hz", "ENER": "J", "WAVN": "m-1"}  # what these stand for is a wavelength in vacuum
BY_ASTROPY = r"-(TAB|GRI|GRA|[WFVA]2[WFVA])$"  # algorithms that are left to wcslib
NEEDS = (
    "An image needs wavelengths: CRVAL1 with CDELT1 or CD1_1 in its header, an image of the same shape called WAVE "
    "beside it, or write a table of wavelength and flux."
)


class Axis(NamedTuple):
    """Wavelengths `(n,)`, or `(rows, n)` where each row has its own, with what the header says of them."""

    values: np.ndarray
    unit: str | None
    medium: str | None = None
    notes: tuple[str, ...] = ()


def has_axis(header) -> bool:
    """Whether a header has the keywords of a wavelength axis, or of pixel numbers."""
    keys = [key.format(k) for k in (1, 2, 3) for key in ("CRVAL{0}", "CDELT{0}", "CD{0}_{0}")]
    return "COEFF0" in header or is_multispec(header) or any(key in header for key in keys)


def spectral_number(header, shape) -> int:
    """Which axis, counted from 1 as FITS does, is the spectral one of an image of `shape` (NumPy's sequence)."""
    long = [k for k in range(1, len(shape) + 1) if shape[-k] > 1] or [1]
    named = [k for k in long if str(header.get(f"CTYPE{k}", "")).upper()[:4] in SPECTRAL]
    return (named or long)[0]


def spectral_axis(header, n: int, axis: int = 1, rows: int = 1, hdus=None, unit: str | None = None) -> Axis:
    """The wavelengths of the `n` pixels along an axis (counted from 1) of an image; of `rows` rows in multispec format.

    CDi_i goes before CDELTi, which PCi_i multiplies. A logarithm is undone: to base 10 as IRAF (DC-FLAG = 1) and SDSS
    write it, "-LOG" as Greisen et al. do. `hdus` is the open file, for tables of wavelengths ("-TAB"); `unit` goes before
    the header's.

    Raises `ObservationError` where there is no axis, or where it counts pixels or is one of velocities.
    """
    kind = str(header.get(f"CTYPE{axis}", "")).strip().upper()
    attributes = wat(header, axis)
    unit = unit or _unit(header, axis, kind, attributes)
    _refuse(header, kind, unit, attributes, axis)
    notes: list[str] = []
    if is_multispec(header):
        values = multispec(header, n, rows)
    elif re.search(BY_ASTROPY, kind):
        values, unit = _by_astropy(header, n, axis, hdus)
    else:
        values, unit = _by_keywords(header, n, axis, kind, unit, notes)
    if unit is None:  # what FITS has where there is no CUNIT; few mean metres
        unit = STANDARD_UNITS.get(kind[:4], "m" if kind[:4] in ("WAVE", "AWAV") and np.nanmax(values) < 1e-4 else None)
    require_wavelengths(values, unit)
    medium = "vacuum" if kind[:4] in STANDARD_UNITS else "air" if kind[:4] == "AWAV" else None
    return Axis(values, unit, medium, tuple(notes))


def _unit(header, axis, kind, attributes) -> str | None:
    unit = str(header.get(f"CUNIT{axis}", "")).strip() or attributes.get("units")
    if not unit and re.match(r"(ANGSTROM|NANOMET|NM$|MICRO)", kind):
        unit = kind.lower()  # HARPS and others write the unit here
    return unit or None


def _refuse(header, kind, unit, attributes, axis):
    label = attributes.get("label", "")
    unit_counts = str(unit).lower() in ("pix", "pixel", "pixels", "channel", "channels")
    says_pixels = kind.startswith(PIXELS) and not unit  # with a unit, MIDAS wrote "PIXEL" for wavelengths too
    if says_pixels or "pixel" in label or unit_counts or str(header.get("DC-FLAG")).strip() == "-1":
        raise ObservationError(
            f"Axis {axis} (CTYPE{axis} = '{kind}') counts pixels and is not wavelength. {NEEDS} "
            'If its numbers are wavelengths all the same, say so by wavelength_unit="Angstrom".'
        )
    if kind[:4] in VELOCITIES or "velocity" in label or re.fullmatch(r"k?m\s*(/\s*s|\s*s\s*(\^|\*\*)?-1)", str(unit)):
        raise ObservationError(
            f"Axis {axis} (CTYPE{axis} = '{kind}', unit {unit or 'not given'}) is one of velocities; convert it to wavelengths first."
        )
    if kind[:4] in NOT_SPECTRAL:
        raise ObservationError(f"Axis {axis} is '{kind}' and not wavelength. {NEEDS}")


def _by_keywords(header, n, axis, kind, unit, notes):
    """Linear and logarithmic axes."""
    value, step = header.get(f"CRVAL{axis}"), _step(header, axis, notes)
    start, coefficient = (_number(header.get(key)) for key in ("COEFF0", "COEFF1"))
    value = _number(value)
    if value is None and start is not None and coefficient is not None:
        return 10 ** (start + coefficient * np.arange(n)), unit
    if value is None:
        raise ObservationError(f"The image has no CRVAL{axis}: its wavelengths are not known. {NEEDS}")
    if step is None:
        raise ObservationError(
            f"The header has CRVAL{axis} but neither CDELT{axis} nor CD{axis}_{axis}: the wavelength step is missing."
        )
    if step == 0:
        raise ObservationError(f"The wavelength step (CDELT{axis} or CD{axis}_{axis}) is 0.")
    reference = _number(header.get(f"CRPIX{axis}"))
    if reference is None:
        reference = 1.0
        notes.append(f"no CRPIX{axis} in the header: CRVAL{axis} is taken to be the first pixel")
    offset = np.arange(1, n + 1) - reference
    linear = value + step * offset
    base = re.match(r"\W*(log10|log|ln)(?![a-z])\W*(.*?)\W*$", str(unit or ""), re.IGNORECASE)
    unit = (base[2] or None) if base else unit
    is_log = str(header.get("DC-FLAG", 0)).strip() in ("1", "True", "T") or (
        start is not None and abs(value - start) < 1e-3
    )
    is_standard = re.fullmatch(r"....-LOG", kind)
    if is_log or base or ("LOG" in kind and not is_standard):
        return _without_logarithm(linear, unit, "ln" if base and base[1].lower() == "ln" else None), unit
    if is_standard:  # Greisen et al. 2006, equation 5; in words, "-LOG" is also put before log10
        looks_log = value < 15 and (unit is None or unit.lower().startswith(("a", "å")))
        return (_without_logarithm(linear, unit) if looks_log else value * np.exp(step * offset / value)), unit
    return linear, unit


def _number(value) -> float | None:
    try:
        number = None if value is None or isinstance(value, bool) else float(value)
    except ValueError:
        return None
    return number if number is not None and np.isfinite(number) else None


def _step(header, axis, notes) -> float | None:
    """CDi_i, if it is there; else CDELTi times PCi_i (1 by default)."""
    cd, cdelt = (_number(header.get(key)) for key in (f"CD{axis}_{axis}", f"CDELT{axis}"))
    if cd:
        if cdelt is not None and abs(cdelt - cd) > 1e-6 * abs(cd):
            notes.append(
                f"CD{axis}_{axis} = {cd:g} is the wavelength step, as FITS has it, and not CDELT{axis} = {cdelt:g}"
            )
        return cd
    pc = _number(header.get(f"PC{axis}_{axis}", header.get(f"PC{axis:03d}{axis:03d}")))
    return cdelt if cdelt is None or pc is None else cdelt * pc


def _without_logarithm(values, unit, kind=None):
    """10 to the values, or e, if that alone gives wavelengths of light (ångström where there is no unit)."""
    if np.abs(values).max() < 30:
        scale = {"n": 10.0, "u": 1e4, "m": 1e10}.get(str(unit or "a").lower()[0], 1.0)
        if str(unit or "").lower().startswith("mic"):
            scale = 1e4
        for name, power in (("log10", 10.0**values), ("ln", np.exp(values))):
            if kind in (None, name) and power.min() * scale > 500 and power.max() * scale < 1e6:
                return power
    raise ObservationError(
        f"The header says that the axis is a logarithm of wavelength, but it runs from {values[0]:g} to {values[-1]:g}, "
        f"which is none in {unit or 'ångström'}. Correct the header, or write a table of wavelength and flux."
    )


def _by_astropy(header, n, axis, hdus):
    from astropy.wcs import WCS

    try:
        wcs = WCS(header, fobj=hdus)
        pixels = np.tile(wcs.wcs.crpix, (n, 1))
        pixels[:, axis - 1] = np.arange(1, n + 1)
        return wcs.wcs_pix2world(pixels, 1)[:, axis - 1], str(wcs.wcs.cunit[axis - 1])
    except Exception as error:  # wcslib's errors have no common class
        kind = header[f"CTYPE{axis}"]
        raise ObservationError(f"The axis '{kind}' cannot be computed: {type(error).__name__}: {error}") from error


def require_wavelengths(values, unit):
    """Raise `ObservationError` for axes that none has: from zero or below, over a factor of 100, or in steps of 1 from a small number."""
    known = values[np.isfinite(values)]
    known = known[known != 0] if np.count_nonzero(known == 0) > 1 else known  # zeros where there is nothing
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    counts = low % 1 == 0 and low < (1000 if unit is None else 2) and np.allclose(np.abs(np.diff(known)), 1)
    if low <= 0 or high > 100 * low or counts:
        raise ObservationError(
            f"The axis runs from {low:g} to {high:g}{f' {unit}' if unit else ' without a unit'}: such are pixel numbers and "
            f"no wavelengths. {NEEDS}"
        )
