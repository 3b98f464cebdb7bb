"""What the images of a FITS file, and the bands of one image, are by their names. Host only."""

import re
from typing import NamedTuple

# Words of EXTNAME, in lower case; the first role of which a name has a word is its role.
_WORDS = {
    "other": "sky background bkg telluric cont continuum model resolution disp dispersion lsf weight snr s2n raw",
    "ivar": "ivar invvar inverse",
    "variance": "var variance",
    "uncertainty": "err errs error errors sigma sig std stdev stddev unc uncertainty noise rms errdata eflux",
    "good": "good goodpix gpm valid",
    "mask": "mask masks quality qual dq flags bpm badpix qualdata",
    "blaze": "blaze blz",
    "wavelength": "wave waves wavelength wavelengths lambda lam wl loglam loglambda wavedata awav",
    "flux": "flux fluxes spec spectrum spectra sci intensity counts signal norm normalized normalised scidata data",
}
ROLES = {role: words.split() for role, words in _WORDS.items()}
MEDIA = {"air": "air", "awav": "air", "vac": "vacuum", "vacuum": "vacuum"}
FILLERS = {"density", "flux", "spectrum", "log", "bary", "primary", "ext"}

# Bands of IRAF's apall (BANDIDn: "sigma - background fit, …") and of others (ARRAYn); the first pattern that fits counts.
BANDS = (
    ("other", r"signal|s/n|snr|sky|background|^raw|lamp|flat(?!-?fielded)|continuum|blaze|^weight|status"),
    ("ivar", r"inverse|ivar"),
    ("variance", r"variance|^var"),
    ("uncertainty", r"sigma|error|uncert|noise|standard dev"),
    ("mask", r"mask|flag|quality"),
    ("wavelength", r"wavelength|lambda"),
    ("flux", r"spectrum|flux|object|intensity|normali"),
)


class Name(NamedTuple):
    """The role of an image (a key of `ROLES`), the medium of its wavelengths, and the words that tell it from its like."""

    role: str | None
    medium: str | None
    rest: tuple[str, ...]


def name_of(hdu) -> Name:
    """What an image is by its EXTNAME and EXTVER."""
    words = re.findall(r"[a-z]+|\d+", hdu.name.lower())
    role = next((role for role, known in ROLES.items() if any(word in known for word in words)), None)
    medium = next((MEDIA[word] for word in words if word in MEDIA), None)
    known = {word for words_ in ROLES.values() for word in words_} | FILLERS | set(MEDIA)
    rest = tuple(word for word in words if word not in known)
    return Name(role, medium, rest + ((f"version {hdu.ver}",) if getattr(hdu, "ver", 1) > 1 else ()))


def is_logarithm(hdu) -> bool:
    """Whether an image of wavelengths holds logarithms to base 10, by its name."""
    return hdu.name.lower().startswith("loglam")


def labels_of(header, n: int) -> list[str]:
    """The texts that a header has for each of `n` bands, as IRAF's BANDIDn; empty if not for all."""
    for key in ("BANDID", "ARRAY", "ROW"):
        labels = [str(header.get(f"{key}{i}", "")).strip() for i in range(1, n + 1)]
        if all(labels):
            return labels
    return []


def role_of_band(label: str) -> str | None:
    """The role (a key of `ROLES`) of a band."""
    text = re.split(r"\s+-\s+", label.lower())[0]
    return next((role for role, pattern in BANDS if re.search(pattern, text)), None)
