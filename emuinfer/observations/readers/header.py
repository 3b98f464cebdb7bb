"""What header keywords of a file mean. Host only."""

import re

# Header keywords. SPEC_RES and SNR: ESO Science Data Product standard.
RESOLUTION_KEYS, SNR_KEYS = ("SPEC_RES", "RESOLUTION", "RESOLUTN", "RESOLVE", "SPECRES"), ("SNR", "SNR_EST")


def from_header(header) -> dict:
    """Name, medium, resolution, S/N and a few words of provenance from a FITS header or a mapping."""
    header = {str(k).upper(): v for k, v in dict(header).items()}
    fields: dict = {"name": str(header.get("OBJECT", header.get("NAME", ""))).strip(), "medium": _medium_of(header)}
    for field, keys in (("resolution", RESOLUTION_KEYS), ("snr", SNR_KEYS)):
        values = [header[k] for k in keys if isinstance(header.get(k), (int, float)) and header[k] > 0]
        fields[field] = float(values[0]) if values else None
    skip = {
        "SIMPLE",
        "XTENSION",
        "BITPIX",
        "PCOUNT",
        "GCOUNT",
        "TFIELDS",
        "EXTEND",
        "COMMENT",
        "HISTORY",
        "CHECKSUM",
        "DATASUM",
        "",
    }
    keep = {k: v for k, v in header.items() if k not in skip and isinstance(v, (str, int, float, bool, dict, list))}
    fields["meta"] = {
        k.lower(): v for k, v in keep.items() if not re.match(r"(NAXIS|TTYPE|TFORM|TUNIT|TDIM|TUCD|TUTYP)", k)
    }
    return fields


def _medium_of(header) -> str | None:
    for key in ("MEDIUM", "AIRORVAC", "AIR_VAC"):
        text = str(header.get(key, "")).strip().lower()
        if text.startswith("air"):
            return "air"
        if text.startswith("vac"):
            return "vacuum"
    if isinstance(header.get("VACUUM"), (bool, int)):
        return "vacuum" if header["VACUUM"] else "air"
    return "air" if str(header.get("CTYPE1", "")).upper().startswith("AWAV") else None
