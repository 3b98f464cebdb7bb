"""What header keywords of a file mean. Host only."""

import re

import numpy as np

from .plausible import SNR_LIMIT, resolving_power_of

# Header keywords. SPEC_RES and SNR: ESO Science Data Product standard.
RESOLUTION_KEYS, SNR_KEYS = ("SPEC_RES", "RESOLUTION", "RESOLUTN", "RESOLVE", "SPECRES"), ("SNR", "SNR_EST")
STRUCTURE = {"SIMPLE", "XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "TFIELDS", "EXTEND"}
SKIPPED = STRUCTURE | {"COMMENT", "HISTORY", "CHECKSUM", "DATASUM", ""}


def from_header(header) -> dict:
    """Name, medium, resolution, S/N, provenance and notes from a FITS header or a mapping."""
    header = {str(k).upper(): v for k, v in dict(header).items()}
    notes: list[str] = []
    fields: dict = {"name": str(header.get("OBJECT", header.get("NAME", ""))).strip(), "medium": _medium_of(header)}
    powers = [resolving_power_of(v, f"{k} in the header", notes) for k, v in _positive(header, RESOLUTION_KEYS)]
    fields["resolution"] = next((p for p in powers if p is not None), None)
    fields["snr"] = next((v for _, v in _positive(header, SNR_KEYS) if v < SNR_LIMIT), None)
    keep = {k: v for k, v in header.items() if k not in SKIPPED and isinstance(v, (str, int, float, bool, dict, list))}
    fields["meta"] = {
        k.lower(): v for k, v in keep.items() if not re.match(r"(NAXIS|TTYPE|TFORM|TUNIT|TDIM|TUCD|TUTYP)", k)
    }
    fields["notes"] = tuple(notes)
    return fields


def _positive(header, keys) -> list[tuple[str, float]]:
    """Keywords among `keys` whose value is a positive number, or the text of one."""
    found = []
    for key in keys:
        value = header.get(key)
        try:
            number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else 0.0
        except ValueError:
            continue
        if np.isfinite(number) and number > 0:
            found.append((key, number))
    return found


def _medium_of(header) -> str | None:
    for key in ("MEDIUM", "AIRORVAC", "AIR_VAC"):
        text = str(header.get(key, "")).strip().lower()
        if text.startswith("air"):
            return "air"
        if text.startswith("vac"):
            return "vacuum"
    text = str(header.get("VACUUM", "")).strip().lower()  # a truth value, a number, or the text of one
    if text in ("t", "true", "y", "yes", "1", "1.0", "vacuum", "vac"):
        return "vacuum"
    if text in ("f", "false", "n", "no", "0", "0.0", "air"):
        return "air"
    return "air" if str(header.get("CTYPE1", "")).upper().startswith("AWAV") else None
