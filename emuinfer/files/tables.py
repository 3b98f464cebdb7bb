"""Tables of results whose columns say what they are: FITS, VOTable, ECSV or CSV, written whole, and piece by piece where they are long.

A column's unit, description and `meta["ucd"]` go into the file, but for CSV, which has no place for them.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..errors import EmuinferError
from .writing import written_whole

FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".csv": "ascii.csv",
    ".ecsv": "ascii.ecsv",
    ".xml": "votable",
    ".vot": "votable",
    ".votable": "votable",
}
BLOCK = 2880  # bytes of FITS


def table_format(path, error=EmuinferError) -> str:
    """The format that a file's ending stands for, as astropy calls it. Raises `error` that lists the endings."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise error(f"{path} ends in '{suffix}'; tables are written as {', '.join(FORMATS)}. Give another ending.")
    return FORMATS[suffix]


def write_pieces(pieces: Callable[[], Iterator], path, error=EmuinferError, *, name="RESULTS", comments=(), **more):
    """Write a long table, whole or not at all; the format is that of the path's ending.

    `pieces()` gives its pieces in order, tables of the same columns, and is called twice: columns of texts get the width of
    the longest. `comments`: lines for the header of FITS. `more`: for `written_whole`.
    """
    rows = 0
    widths: dict[str, int] = {}
    for piece in pieces():
        rows += len(piece)
        for column in piece.colnames:
            if piece[column].dtype.kind in "US":
                wide = piece[column].dtype.itemsize // (4 if piece[column].dtype.kind == "U" else 1)
                widths[column] = max(wide, widths.get(column, 1))
    even = (_widened(piece, widths) for piece in pieces())
    format = table_format(path, error)
    with written_whole(path, error, **more) as temporary, open(temporary, "wb") as file:
        if format == "fits":
            _write_fits(file, even, rows, name, comments)
        else:
            _write_text(file, even, format)


def _widened(piece, widths):
    piece = piece.copy(copy_data=False)
    for column, width in widths.items():
        facts = piece[column].description, piece[column].meta
        piece[column] = piece[column].astype(f"U{width}")
        piece[column].description, piece[column].meta = facts
    return piece


def _write_fits(file, pieces, rows, name, comments):
    from astropy.io import fits

    written = 0
    for i, piece in enumerate(pieces):
        if i == 0:
            header = described_hdu(piece[:1], name, comments).header
            header["NAXIS2"] = rows
            file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
            file.write(header.tostring().encode("ascii"))
        content = _as_in_fits(piece).tobytes()
        written += len(content)
        file.write(content)
    file.write(b"\0" * (-written % BLOCK))


def _as_in_fits(table) -> np.ndarray:
    """The rows as FITS has them: big endian, texts in ASCII."""
    kind = lambda column: (
        f"S{column.dtype.itemsize // 4}" if column.dtype.kind == "U" else column.dtype.newbyteorder(">")
    )
    found = np.empty(len(table), [(n, kind(table[n]), table[n].shape[1:]) for n in table.colnames])
    for n in table.colnames:
        values = np.asarray(table[n])
        found[n] = np.char.encode(values, "ascii", "replace") if values.dtype.kind == "U" else values
    return found


def described_hdu(table, name="RESULTS", comments=()):
    """A table as an HDU, with units (TUNIT), UCDs (TUCD) and descriptions (TCOMM) of the columns."""
    from astropy.io import fits

    plain = table.copy()
    for column in plain.colnames:
        plain[column].description, plain[column].meta = None, {}  # astropy would write them its own way, too
    hdu = fits.table_to_hdu(plain)
    for i, column in enumerate(table.colnames, start=1):
        hdu.header[f"TUCD{i}"] = str(table[column].meta.get("ucd", ""))
        hdu.header[f"TCOMM{i}"] = table[column].description or ""
    for text in comments:
        hdu.header.add_comment(text)
    hdu.name = name
    return hdu


def _write_text(file, pieces, format):
    """Of the first piece all, of the others what comes between head and tail."""
    tail = b""
    for i, piece in enumerate(pieces):
        content = io.BytesIO() if format == "votable" else io.StringIO()
        piece.write(content, format=format)
        value = content.getvalue()
        text = value if isinstance(value, bytes) else value.encode()
        head, body, tail = _parts_of_votable(text) if format == "votable" else _parts_of_lines(text)
        file.write(head + body if i == 0 else body)
    file.write(tail)


def _parts_of_votable(text: bytes) -> tuple[bytes, bytes, bytes]:
    begin, end = b"<TABLEDATA>", b"</TABLEDATA>"
    head, _, rest = text.partition(begin)
    body, _, tail = rest.partition(end)
    return head + begin, body, end + tail


def _parts_of_lines(text: bytes) -> tuple[bytes, bytes, bytes]:
    lines = text.splitlines(keepends=True)
    names = next(i for i, line in enumerate(lines) if not line.startswith(b"#"))
    return b"".join(lines[: names + 1]), b"".join(lines[names + 1 :]), b""
