"""Files written whole or not at all, the cache folder, locks, and the cache of compiled programs."""

import contextlib
import hashlib
import io
import os
import platform
from pathlib import Path

from .errors import EmuinferError


@contextlib.contextmanager
def written_whole(path, error=EmuinferError, remedy="Free some space or allow writing there, and try again."):
    """The temporary path to write to; it replaces `path` if the block succeeds, and is removed if it does not.

    The temporary file lies in the same folder, which is made if need be, and has the process's number in its name, so that
    two processes may write the same file: the later one stays. Its name ends as that of `path`, from which writers guess
    the format. **Raises:** `error` where the disk is full or the file cannot be written; `path` is then as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as cause:
        raise cannot_write(path, cause, error, remedy) from cause
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_write(path, cause, error=EmuinferError, remedy="Free some space or allow writing there, and try again."):
    """The exception `error` that says that `path` could not be written, and what became of the file before it."""
    kept = "The one written before it is untouched. " if Path(path).exists() else ""
    return error(f"{path} could not be written ({cause}). {kept}{remedy}")


def write_bytes(path, content: bytes, error=EmuinferError, **more) -> None:
    """Write a file as a whole, and have the disk keep it before it gets its name."""
    with written_whole(path, error, **more) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_arrays(path, arrays: dict, error=EmuinferError, **more) -> None:
    """Write a compressed `.npz` file as a whole."""
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(path, content.getbuffer(), error, **more)


def write_table(table, path, format="ascii.ecsv") -> None:
    """Write an astropy table as a whole, as ECSV unless another `format` is given."""
    with written_whole(path) as temporary:
        table.write(temporary, format=format)


def cache_directory() -> Path:
    """`$EMUINFER_CACHE`, or the user's cache directory of emuinfer."""
    import platformdirs

    return Path(os.environ.get("EMUINFER_CACHE") or platformdirs.user_cache_dir("emuinfer"))


def lock(path, timeout: float = -1):
    """A lock that processes of one machine share, to be held `with`; its file is `path` with `.lock` appended."""
    import filelock

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path.with_name(path.name + ".lock"), timeout=timeout)


def use_compilation_cache() -> None:
    """Let JAX keep compiled programs in the user's cache directory, so that a second run starts faster.

    A directory that the user has given JAX already (`JAX_COMPILATION_CACHE_DIR`) stays.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:
        return
    folder = cache_directory() / "xla" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # no place to keep them: everything is compiled anew
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _processor() -> str:
    """A name for the kind of processor: programs compiled for one may not run on another with the same home folder."""
    described = platform.machine() + platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        described += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(described.encode()).hexdigest()[:12]
