"""What a caller chooses of a file, and what all readers of files share. Host only."""

import dataclasses

from ...errors import ObservationError

NEEDS = (
    "A spectrum is a FITS table, ECSV, CSV or text file with a wavelength, a flux and, if possible, an uncertainty "
    "column, a FITS image with a wavelength axis, or a file that specutils can read."
)


@dataclasses.dataclass(frozen=True)
class Choices:
    """The keywords of `read`: which of the spectra, tables and columns of a file, and what it does not say itself."""

    medium: str | None = None
    wavelength_column: str | None = None
    flux_column: str | None = None
    uncertainty_column: str | None = None
    mask_column: str | None = None
    wavelength_unit: str | None = None
    format: str | None = None
    hdu: int | str | None = None
    arm: str | None = None
    row: int | None = None
    order: int | str | None = None


def open_file(path):
    """A file for reading bytes, unpacked if it is packed with gzip."""
    import gzip

    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else open(path, "rb")


def checked_row(row, n: int, what: str) -> int:
    """`row`, if it counts one of `n` spectra from 0."""
    if not 0 <= row < n:
        raise ObservationError(f"{what} has {n} spectra; row={row} is not one of 0 to {n - 1}.")
    return int(row)


def number_or_name(given):
    """`given` as a whole number, if it is one or its text (as from the command line); else as it is."""
    text = str(given).strip()
    return int(text) if text.isdigit() else given
