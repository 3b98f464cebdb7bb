"""Files of tables as tokens, whole or in chunks: FITS, CSV, ECSV, VOTable, files of DataLink one by one or by the folder. Host only."""

import contextlib
import csv
import io
import itertools
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import TokenError
from ..files import refuse_more_than_memory
from ..observations.readers.astropy_tables import format_of
from ..observations.readers.choices import open_file
from ..observations.readers.votable import is_votable
from . import xp
from .kinds import Vocabulary
from .tables import TableTokens, table_tokens
from .tokenset import TokenSet

ROWS = len(xp.WAVELENGTHS) * 24  # of a chunk: a whole number of spectra where there is one row per sample
SUFFIXES = (".fits", ".fit", ".csv", ".ecsv", ".xml", ".vot", ".votable", ".txt", ".dat", ".gz")
NEEDS = "A table is a FITS table, CSV, ECSV or VOTable, or a folder or ZIP file of such."


def read_tokens(path, vocabulary: Vocabulary, **options) -> TableTokens:
    """All rows of a table's file as tokens; `options` are those of `table_tokens`.

    `path`: of a FITS table, CSV, ECSV or VOTable (also packed with gzip); or of several, a folder or a ZIP file of them, such as
    DataLink's XP_SAMPLED and XP_CONTINUOUS of many stars. **Raises:** `TokenError` that names the file.
    """
    return _joined(list(iterate_tokens(path, vocabulary, rows=None, **options)))


def iterate_tokens(path, vocabulary: Vocabulary, *, rows: int | None = ROWS, **options) -> Iterator[TableTokens]:
    """The rows of a table's file in order, about `rows` at a time, so that large files need little memory.

    FITS tables, CSV and ECSV are read piece by piece; VOTables and what is packed with gzip, if it is FITS, as a whole. Files of
    single stars are put together. **Raises:** `TokenError` that names the file; a first chunk may have been given before.
    """
    with contextlib.ExitStack() as stack:
        waiting: list[TableTokens] = []
        for file in _files(path, stack):
            for part in _of_file(file, vocabulary, rows, options):
                waiting.append(part)
                if rows is not None and sum(len(p.tokens) for p in waiting) >= rows // 2:
                    yield _joined(waiting)
                    waiting = []
        if waiting:
            yield _joined(waiting)


def _of_file(path: Path, vocabulary, rows, options) -> Iterator[TableTokens]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of libraries, on units and the like that are noted
            for table in tables_of(path, rows):
                if len(table.colnames):
                    yield table_tokens(table, vocabulary, **options)
    except TokenError as error:
        raise TokenError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # of damaged files libraries raise anything
        raise TokenError(
            f"{path} cannot be read as a table: {type(error).__name__}: {str(error)[:300]}. {NEEDS}"
        ) from error


def tables_of(path: Path, rows: int | None = ROWS) -> Iterator:
    """The table of a file as astropy tables of `rows` rows at most. `meta["source_id"]` is the star that the file's name says."""
    path = Path(path)
    if not path.is_file():
        raise TokenError(f"There is no such file. {NEEDS}")
    with open_file(path) as file:
        head = file.read(4000)
    if not head.strip():
        raise TokenError(f"The file is empty. {NEEDS}")
    if head.startswith(b"SIMPLE  ="):
        found = _fits(path, rows)
    elif is_votable(head):
        found = _whole(path, "votable", rows)
    elif (kind := format_of(head)) is not None:
        found = _ecsv(path, rows) if kind == "ascii.ecsv" and rows is not None else _whole(path, kind, rows)
    else:
        found = _csv(path, rows)
    star = re.search(r"(?:DR3|source_id)[ _-]*(\d{4,20})|(\d{12,20})", path.name)
    for table in found:
        if star and "source_id" not in table.meta:
            table.meta["source_id"] = star[1] or star[2]
        yield table


def _files(path, stack) -> list[Path]:
    """The files of a path, of several, of a folder or of a ZIP file."""
    if not isinstance(path, str | Path):
        return [file for one in path for file in _files(one, stack)]
    path = Path(path).expanduser()
    if path.is_file() and zipfile.is_zipfile(path) and path.suffix.lower() == ".zip":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emuinfer-")))
        with zipfile.ZipFile(path) as archive:
            refuse_more_than_memory(sum(entry.file_size for entry in archive.infolist()), path, error=TokenError)
            archive.extractall(folder)
        path = folder
    if path.is_dir():
        found = sorted(
            p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
        )
        if not found:
            raise TokenError(f"{path} has no tables. {NEEDS}")
        return found
    return [path]


def _fits(path, rows) -> Iterator:
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path, memmap=True) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            raise TokenError(f"The FITS file has no table. {NEEDS}")
        hdu = max(tables, key=lambda table: len(table.columns) > 0 and table.header["NAXIS2"])
        for part in _slices(len(hdu.data), rows):
            piece = hdu if part == slice(0, len(hdu.data)) else type(hdu)(hdu.data[part], header=hdu.header)
            yield Table.read(piece)


def _whole(path, format, rows) -> Iterator:
    from astropy.table import Table

    with open_file(path) as file:
        raw = file.read()
    refuse_more_than_memory(
        5.0 * len(raw), path, "Give it as a FITS table or as CSV, which are read in pieces.", TokenError
    )
    table = Table.read(io.BytesIO(raw) if format == "votable" else raw.decode("utf-8-sig"), format=format)
    for part in _slices(len(table), rows):
        yield table[part]


def _slices(count: int, rows: int | None) -> list[slice]:
    rows = rows or max(count, 1)
    return [slice(start, min(start + rows, count)) for start in range(0, count, rows)] or [slice(0, 0)]


def _lines(path) -> Iterator[str]:
    with open_file(path) as file:
        yield from io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")


def _ecsv(path, rows) -> Iterator:
    """Pieces of an ECSV file: its header and some of its lines each."""
    from astropy.table import Table

    lines, header = _lines(path), []
    for line in lines:
        header.append(line)
        if line.strip() and not line.startswith("#"):
            break  # the line of names
    empty = True
    while piece := list(itertools.islice(lines, rows)):
        empty = False
        yield Table.read("".join([*header, *piece]), format="ascii.ecsv")
    if empty:
        yield Table.read("".join(header), format="ascii.ecsv")


def _csv(path, rows) -> Iterator:
    """Pieces of a table of text with a line of names. Columns stay texts, which `columns.numbers` reads, but for whole numbers."""
    from astropy.table import Table

    lines = (line for line in _lines(path) if not line.startswith("#"))
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t|", key=first.count)
    if not first.count(delimiter):
        delimiter = " "
    csv.field_size_limit(2**27)
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))]
    if len(set(names)) < len(names) or any(
        re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?", name, re.IGNORECASE) for name in names
    ):
        raise TokenError(f"Its first line, '{first.strip()[:60]}', is no line of names, each once. {NEEDS}")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    count = 0
    while (rest := list(itertools.islice(reader, rows))) or not count:
        piece = [row for row in rest if row]
        wrong = next((i for i, row in enumerate(piece) if len(row) != len(names)), None)
        if wrong is not None:
            raise TokenError(
                f"Row {count + wrong} has {len(piece[wrong])} entries; the line of names has {len(names)}."
            )
        columns = zip(*piece) if piece else [()] * len(names)
        yield Table({name: _column(column) for name, column in zip(names, columns)})
        if not rest:
            return  # a table without rows
        count += len(piece) or 1


def _column(texts) -> np.ndarray:
    """Whole numbers, as identifiers are, keep all their digits; other numbers are floats; else the texts."""
    try:
        if all(re.fullmatch(r"\s*-?\d{1,19}\s*", text) for text in texts):
            return np.array([int(text) for text in texts], dtype=np.int64)
        return np.array([float(text) if text.strip() else np.nan for text in texts], dtype=float)
    except (ValueError, OverflowError):
        return np.array(texts, dtype=object)


def _joined(parts: Iterable[TableTokens]) -> TableTokens:
    """Several parts of a table as one; of columns aside, those that all have."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    tokens = TokenSet.concatenate([part.tokens for part in parts])
    common = [name for name in parts[0].aside if all(name in part.aside for part in parts)]
    aside = {}
    for name in common:
        arrays = [np.ma.asarray(part.aside[name]) for part in parts]
        if len({array.shape[1:] for array in arrays}) == 1:
            aside[name] = np.ma.concatenate(arrays) if any(map(np.ma.is_masked, arrays)) else np.concatenate(arrays)
    return TableTokens(tokens, aside)
