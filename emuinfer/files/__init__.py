"""Files written whole or not at all, files read with care, the cache folder, locks, and the cache of compiled programs."""

from .cache import PATIENCE, cache_directory, cache_folders, lock, shelter_libraries, use_compilation_cache
from .hdf5 import check_dataset, written_hdf5
from .reading import file_hash, parse_json, read_arrays, read_json, refuse_more_than_memory, size_text
from .runs import Difference, RunFolder, differences
from .tables import described_hdu, table_format, write_pieces
from .writing import (
    cannot_write,
    require_folder_of,
    sweep,
    write_arrays,
    write_bytes,
    write_json,
    write_table,
    written_together,
    written_whole,
)

__all__ = [
    "PATIENCE",
    "Difference",
    "RunFolder",
    "cache_directory",
    "cache_folders",
    "cannot_write",
    "check_dataset",
    "described_hdu",
    "differences",
    "file_hash",
    "lock",
    "parse_json",
    "read_arrays",
    "read_json",
    "refuse_more_than_memory",
    "require_folder_of",
    "shelter_libraries",
    "size_text",
    "sweep",
    "table_format",
    "use_compilation_cache",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_pieces",
    "write_table",
    "written_hdf5",
    "written_together",
    "written_whole",
]
