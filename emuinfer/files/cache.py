"""The cache folder, locks that processes share, and the cache of compiled programs."""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import platform
import stat
import sys
import tempfile
from pathlib import Path

from ..errors import EmuinferError
from .writing import REMEDY, cannot_write

PATIENCE = 3600.0  # seconds that a process waits for another one's lock


def cache_directory() -> Path:
    """The folder of the cache that can be written to: `$EMUINFER_CACHE`, or the user's cache directory of emuinfer.

    Where that cannot be written to, a temporary folder takes its place, with one note on standard error.
    """
    return cache_folders()[0]


def cache_folders() -> tuple[Path, ...]:
    """Folders to look for what is cached: `cache_directory()`, then the one that the user has named, if it is another."""
    named = _named()
    usable = _usable(named)
    return (usable,) if usable == Path(named) else (usable, Path(named))


def _named() -> str:
    return os.environ.get("EMUINFER_CACHE") or _of_the_user()


@functools.cache
def _of_the_user() -> str:
    """As it was before `shelter_libraries`."""
    import platformdirs

    return platformdirs.user_cache_dir("emuinfer")


@functools.cache
def _usable(named: str) -> Path:
    if can_write(named):
        return Path(named)
    folder = scratch_folder() / "emuinfer"  # where workers find it, too, after `shelter_libraries`
    if multiprocessing.parent_process() is None:  # workers need not say it again
        print(
            f"Note: the cache folder {named} cannot be written to; {folder} takes its place. To keep reduced emulators and "
            "compiled programs, name a folder in the environment variable EMUINFER_CACHE.",
            file=sys.stderr,
            flush=True,
        )
    return folder


def can_write(folder) -> bool:
    """Whether files can be made in a folder; it is made if need be. Tried, as permissions alone do not tell."""
    folder = Path(folder)
    if str(folder).startswith("~"):  # there is no home folder
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@functools.cache
def scratch_folder() -> Path:
    """A folder of the user's in the system's temporary one, which processes of this machine share."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"emuinfer-{user}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):
        found = folder.lstat()
        # Nobody else may have put it there, or put anything into it.
        mine = stat.S_ISDIR(found.st_mode) and (os.name == "nt" or (found.st_uid == user and not found.st_mode & 0o022))
        if mine and can_write(folder):
            return folder
    try:
        return Path(tempfile.mkdtemp(prefix="emuinfer-"))
    except OSError as cause:
        raise EmuinferError(
            f"Neither the cache nor a temporary folder can be written to ({cause}). Name a folder in EMUINFER_CACHE and in TMPDIR."
        ) from cause


def shelter_libraries() -> None:
    """Give libraries that want to write to the home folder as they are imported (ArviZ, matplotlib) one that can be written to.

    For this process and those that it starts; nothing changes where the home folder serves, or the user has named others.
    """
    if sys.platform == "win32":
        return
    cache_directory()  # with its note
    for variable, home, below in (("XDG_CACHE_HOME", "~/.cache", ""), ("MPLCONFIGDIR", "~/.config", "matplotlib")):
        named = os.environ.get(variable)
        if below and named:  # matplotlib makes itself another
            continue
        if not can_write(Path(named or os.path.expanduser(home)) / below):
            folder = scratch_folder() / below
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                os.environ[variable] = str(folder)


@contextlib.contextmanager
def lock(
    path,
    *,
    busy: Exception | None = None,
    waiting: str = "",
    error=EmuinferError,
    remedy=REMEDY,
    patience: float = PATIENCE,
):
    """Hold a lock that processes share; its file is `path` with `.lock` appended, and means nothing when no one holds it.

    Where another process holds it, `busy` is raised at once if it is given; otherwise this one waits, after it has said
    `waiting` to the user, at most `patience` seconds. A process that is killed lets go. On disks that know no locks there is
    none. **Raises:** `error` where the file cannot be made, and where the wait was in vain.
    """
    import filelock

    path = Path(path)
    guard = filelock.FileLock(path.with_name(path.name + ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        guard.acquire(timeout=0)
    except filelock.Timeout as held:
        if busy is not None:
            raise busy from held
        if waiting:
            print(waiting, file=sys.stderr, flush=True)
        try:
            guard.acquire(timeout=patience, poll_interval=0.2)
        except filelock.Timeout as late:
            raise error(
                f"Another process has held {guard.lock_file} for {patience / 60:.3g} minutes. If it hangs, end it; if there is "
                "none, delete the file, and start again."
            ) from late
    except NotImplementedError:  # the disk knows no locks: two processes then may do the same work, each whole
        pass
    except OSError as cause:
        raise cannot_write(guard.lock_file, cause, error, remedy) from cause
    try:
        yield
    finally:
        guard.release()


def use_compilation_cache() -> None:
    """Let JAX keep compiled programs in the user's cache directory, so that a second run starts faster.

    A directory that the user has given JAX already (`JAX_COMPILATION_CACHE_DIR`) stays.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    folder = cache_directory() / "xla" / _processor()
    if not can_write(folder):
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
