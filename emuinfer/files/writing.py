"""Files that are written whole or not at all."""

import contextlib
import errno
import io
import json
import os
import platform
import re
import shutil
import time
from pathlib import Path

from ..errors import EmuinferError
from .reading import size_text

REMEDY = "Free some space or allow writing there, and try again."
AN_HOUR = 3600.0
OWNER = "owner.lock"  # in the folder of results that are being written


def _temporary(path, folder=None) -> Path:
    """A hidden name beside `path`, or in `folder`, that no other process of this or another machine uses.

    It ends as that of `path`, from which writers guess the format.
    """
    return Path(folder or path.parent) / f".{_machine()}-{os.getpid()}.tmp.{path.name}"


def _machine() -> str:
    return re.sub(r"[^\w-]", "", platform.node())[:40]


def sweep(path) -> None:
    """Remove what killed processes of this machine have left beside `path` of attempts to write it."""
    path = Path(path)
    for left in path.parent.glob(".partial-*"):  # of version 0.1, which has not told whose they were
        if left.is_dir() and time.time() - left.stat().st_mtime > AN_HOUR:
            shutil.rmtree(left, ignore_errors=True)
    for left in path.parent.glob(f".{_machine()}-*.tmp.{path.name}"):
        number = left.name.removeprefix(f".{_machine()}-").partition(".")[0]
        if not number.isdecimal() or _lives(int(number)) or _held(left / OWNER):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                left.unlink()


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's
        return True
    return True


def _held(path) -> bool:
    """Whether a process holds the lock `path`; one of another container on this machine has a number that says nothing here."""
    import filelock

    if not path.exists():
        return False
    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except (filelock.Timeout, OSError, NotImplementedError):
        return True


@contextlib.contextmanager
def written_whole(path, error=EmuinferError, remedy=REMEDY, *, folder=None, failures=OSError, size=0):
    """The temporary path to write to; it replaces `path` if the block succeeds, and is removed if it does not.

    The temporary file lies in the same folder, which is made if need be, or in `folder` on the same disk. Its name has
    the machine and the process in it, so that two processes may write the same file: the later one stays. `failures`
    are the exceptions that a writer raises where the disk is full, `size` what it needs at least, bytes.

    **Raises:** `error`, with `remedy`, where the disk is full or the file cannot be written; `path` is then as it was.
    """
    path = Path(path)
    temporary = _temporary(path, folder)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except failures as cause:
        with contextlib.suppress(OSError):
            size = max(size, temporary.stat().st_size)
        raise cannot_write(path, cause, error, remedy, size) from cause
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def written_together(folder, names, error=EmuinferError, remedy=REMEDY):
    """A hidden folder to write files to; those of `names` get into `folder` together, once the block succeeds.

    Those of `names` that the block has not made are removed from `folder`: they would not belong to the others. If the
    block fails, everything is as it was; a `folder` that did not exist does not exist then. **Raises:** `error`, before
    the block is entered, where `folder` cannot be written to.
    """
    folder = Path(folder)
    made = not folder.exists()
    staging = _temporary(folder / "results")
    sweep(folder / "results")
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise cannot_write(folder, cause, error, remedy) from cause
    try:
        with _owning(staging / OWNER):
            yield staging
        for name in names:
            if (staging / name).exists():
                os.replace(staging / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    except EmuinferError as cause:
        if str(staging) not in str(cause):
            raise
        raise type(cause)(str(cause).replace(str(staging), str(folder))) from cause
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):  # not empty: it holds the results
                folder.rmdir()


@contextlib.contextmanager
def _owning(path):
    """Hold a lock that says that this process lives; without where the disk knows none."""
    import filelock

    guard = filelock.FileLock(path)
    with contextlib.suppress(filelock.Timeout, OSError, NotImplementedError):
        guard.acquire(timeout=0)
    try:
        yield
    finally:
        guard.release()


def cannot_write(path, cause, error=EmuinferError, remedy=REMEDY, size=0):
    """The exception `error` that says that `path` could not be written, and what became of the file before it.

    Where the disk or the quota is full also how much is free, and that more than `size` bytes are needed.
    """
    kept = "The one written before it is untouched. " if Path(path).is_file() else ""
    space = ""
    if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        needed = f"It needs {size_text(size)} or more. " if size else ""
        with contextlib.suppress(OSError):
            space = f"{needed}The disk has {size_text(shutil.disk_usage(_existing(path)).free)} free. "
    return error(f"{path} could not be written ({cause}). {space}{kept}{remedy}")


def _existing(path) -> Path:
    """The nearest folder above `path` that there is."""
    return next(p for p in Path(path).absolute().parents if p.exists())


def require_folder_of(path, error=EmuinferError) -> Path:
    """`path`; raises `error` where the folder that it is to lie in does not exist."""
    path = Path(path)
    if not path.parent.is_dir():
        raise error(f"Cannot write {path}: there is no folder {path.parent}. Make it first.")
    return path


def write_bytes(path, content: bytes | memoryview, error=EmuinferError, **more) -> None:
    """Write a file as a whole, and have the disk keep it before it gets its name."""
    with (
        written_whole(path, error, size=memoryview(content).nbytes, **more) as temporary,
        open(temporary, "wb") as file,
    ):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path, value, error=EmuinferError, **more) -> None:
    """Write a value as an indented JSON file, as a whole."""
    write_bytes(path, json.dumps(value, indent=1).encode(), error, **more)


def write_arrays(path, arrays: dict, error=EmuinferError, *, compressed=True, **more) -> None:
    """Write arrays as an `.npz` file, as a whole. Through memory: on a full disk NumPy leaves an archive open."""
    import numpy as np

    content = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(content, **arrays)
    write_bytes(path, content.getbuffer(), error, **more)


def write_table(table, path, error=EmuinferError, *, format="ascii.ecsv", **more) -> None:
    """Write an astropy table as a whole, as ECSV unless another `format` is given."""
    with written_whole(path, error, **more) as temporary:
        table.write(temporary, format=format, overwrite=True)
