"""Reading what others have written: JSON and arrays. Nothing is believed of a file's sizes before they are compared with it."""

import hashlib
import json
import math
import os
import zipfile
from pathlib import Path

from ..errors import EmuinferError

REMEDY = "Delete it, or give another path."
DEFLATED = 1100  # a byte of a ZIP file holds no more than 1032


def file_hash(path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def parse_json(content: bytes | str):
    """The value of a JSON text. Raises `ValueError`, also where it is nested too deeply to be read."""
    try:
        return json.loads(content)
    except RecursionError as cause:
        raise ValueError("it is nested too deeply") from cause


def read_json(path, error=EmuinferError, remedy=REMEDY):
    """The value in a JSON file. Raises `error`, with `remedy`, where it is missing, damaged or something else."""
    try:
        return parse_json(Path(path).read_bytes())
    except (OSError, ValueError) as cause:
        raise error(f"{path} is damaged or no JSON file; it cannot be read ({cause}). {remedy}") from cause


def read_arrays(path, error=EmuinferError, remedy=REMEDY) -> dict:
    """All arrays of an `.npz` file; objects of Python are refused.

    **Raises:** `error`, with `remedy`, where the file is missing, damaged or something else, or says that it holds more than it
    can hold or than the memory has room for. NumPy has six kinds of errors for that, and leaves the file open.
    """
    import numpy as np

    try:
        with open(path, "rb") as file:
            _check_sizes(path, file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
    except Exception as cause:
        raise error(f"{path} is damaged or no file of plain arrays; it cannot be read ({cause}). {remedy}") from cause


def _check_sizes(path, file):
    """Raise `ValueError` where an array is larger than what is stored of it: NumPy would ask for the memory first."""
    from numpy.lib import format

    if not zipfile.is_zipfile(file):
        return  # NumPy says what it is
    total = 0
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as member:
                version = format.read_magic(member)
                read = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
                shape, _, kind = read(member)
                claimed, stored = math.prod(shape) * kind.itemsize, entry.file_size - member.tell()
            if claimed > stored or entry.file_size > DEFLATED * (entry.compress_size + 1):
                raise ValueError(f"{entry.filename} claims {size_text(claimed)}, of which the file has less")
            total += claimed
    refuse_more_than_memory(total, path)


def refuse_more_than_memory(needed: float, path, remedy: str = "", error: type[Exception] = ValueError) -> None:
    """Raise `error` where `needed` bytes of `path` do not fit into the memory that is free now."""
    free = free_memory()
    if needed > free:
        raise error(
            f"{path} needs {size_text(needed)} of memory, of which {size_text(free)} are free. {remedy}".strip()
        )


def free_memory() -> float:
    """Bytes that a process may still take; infinite where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError, AttributeError):
        return math.inf


def size_text(count: float) -> str:
    """`3.2 GB` for a number of bytes."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 1000 else f"{count:,.0f} GB"
