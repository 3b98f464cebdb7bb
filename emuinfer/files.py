"""Files written whole or not at all, the cache folder, locks, and the cache of compiled programs."""

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from .errors import EmuinferError

REMEDY = "Free some space or allow writing there, and try again."


def _temporary(path, folder=None) -> Path:
    """A hidden name beside `path`, or in `folder`, that no other process of this or another machine uses.

    It ends as that of `path`, from which writers guess the format.
    """
    machine = re.sub(r"[^\w-]", "", platform.node())[:40]
    return Path(folder or path.parent) / f".{machine}-{os.getpid()}.tmp.{path.name}"


@contextlib.contextmanager
def written_whole(path, error=EmuinferError, remedy=REMEDY, *, folder=None, failures=OSError):
    """The temporary path to write to; it replaces `path` if the block succeeds, and is removed if it does not.

    The temporary file lies in the same folder, which is made if need be, or in `folder` on the same disk. Its name has
    the machine and the process in it, so that two processes may write the same file: the later one stays. `failures`
    are the exceptions that a writer raises where the disk is full.

    **Raises:** `error`, with `remedy`, where the disk is full or the file cannot be written; `path` is then as it was.
    """
    path = Path(path)
    temporary = _temporary(path, folder)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except failures as cause:
        raise cannot_write(path, cause, error, remedy) from cause
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def written_hdf5(path, error=EmuinferError, **more):
    """An open `h5py.File` to write to, which gets the name `path` if the block succeeds; see `written_whole`."""
    import h5py

    with written_whole(path, error, **more) as temporary, _Patient(temporary, "w+") as written:
        with h5py.File(written, "w") as file:
            yield file
        if written.failure is not None:
            raise written.failure
        os.fsync(written.fileno())


class _Patient(io.FileIO):
    """A file that keeps an error of the disk for later, and in memory what is written from then on.

    HDF5 brings the process down where it cannot write, or does not read what it has written.
    """

    PAGE = 4096

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.failure, self._pages = None, {}

    def write(self, content):
        content, start, done = memoryview(content), self.tell(), 0
        try:
            while self.failure is None and done < len(content):
                done += super().write(content[done:])
        except OSError as error:
            self.failure = error
        for at, part in self._parts(start + done, content[done:]):
            self._page(at // self.PAGE)[at % self.PAGE :][: len(part)] = part
        return len(content)

    def readinto(self, buffer):
        start = self.tell()
        read = super().readinto(buffer)
        if self.failure is None:
            return read
        for at, part in self._parts(start, memoryview(buffer)):
            part[:] = self._page(at // self.PAGE)[at % self.PAGE :][: len(part)]
        return len(buffer)

    def _parts(self, at, content):
        """Pieces of `content`, each within a page, and where they begin."""
        while len(content):
            part, content = content[: self.PAGE - at % self.PAGE], content[self.PAGE - at % self.PAGE :]
            yield at, part
            at += len(part)

    def _page(self, number):
        if number not in self._pages:
            self.seek(number * self.PAGE)
            self._pages[number] = memoryview(bytearray(super().read(self.PAGE).ljust(self.PAGE, b"\0")))
        return self._pages[number]

    def truncate(self, size=None):
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size


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
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise cannot_write(folder, cause, error, remedy) from cause
    try:
        yield staging
        for name in names:
            if (staging / name).exists():
                os.replace(staging / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):  # not empty: it holds the results
                folder.rmdir()


def cannot_write(path, cause, error=EmuinferError, remedy=REMEDY):
    """The exception `error` that says that `path` could not be written, and what became of the file before it."""
    kept = "The one written before it is untouched. " if Path(path).is_file() else ""
    return error(f"{path} could not be written ({cause}). {kept}{remedy}")


def require_folder_of(path, error=EmuinferError) -> Path:
    """`path`; raises `error` where the folder that it is to lie in does not exist."""
    path = Path(path)
    if not path.parent.is_dir():
        raise error(f"Cannot write {path}: there is no folder {path.parent}. Make it first.")
    return path


def write_bytes(path, content: bytes | memoryview, error=EmuinferError, **more) -> None:
    """Write a file as a whole, and have the disk keep it before it gets its name."""
    with written_whole(path, error, **more) as temporary, open(temporary, "wb") as file:
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


def read_arrays(path, error=EmuinferError, remedy="Delete it, or give another path.") -> dict:
    """All arrays of an `.npz` file; objects of Python are refused.

    **Raises:** `error`, with `remedy`, where the file is missing, damaged or something else. NumPy has six kinds of errors for
    that, and leaves the file open.
    """
    import numpy as np

    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as cause:
        raise error(f"{path} is damaged or no file of plain arrays; it cannot be read ({cause}). {remedy}") from cause


def read_json(path, error=EmuinferError, remedy="Delete it, or give another path."):
    """The value in a JSON file. Raises `error`, with `remedy`, where it is missing, damaged or something else."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as cause:
        raise error(f"{path} is damaged or no JSON file; it cannot be read ({cause}). {remedy}") from cause


def write_table(table, path, error=EmuinferError, *, format="ascii.ecsv", **more) -> None:
    """Write an astropy table as a whole, as ECSV unless another `format` is given."""
    with written_whole(path, error, **more) as temporary:
        table.write(temporary, format=format, overwrite=True)


class Difference(NamedTuple):
    """A setting whose values differ, as short texts."""

    name: str
    there: str
    now: str


def differences(found: dict, wanted: dict, *, ignored=(), only_known=False) -> list[Difference]:
    """The settings in which two runs differ, those that one of them lacks included unless `only_known`, in alphabetical order.

    `found` comes from a JSON file; `wanted` is compared as it would come from one, with lists for tuples.
    """
    wanted = json.loads(json.dumps(wanted))
    names = {*found} & {*wanted} if only_known else {*found, *wanted}
    differ = sorted(name for name in names - {*ignored} if found.get(name) != wanted.get(name))
    return [Difference(name, _short(found.get(name)), _short(wanted.get(name))) for name in differ]


def _short(value, most=200):
    text = str(value)
    return text if len(text) < most else f"{text[: most - 3]}..."


class RunFolder:
    """The folder of one run, with a JSON file, `PLAN`, of what makes the run what it is: only the same run goes on in it.

    With `overwrite`, another run is thrown away (`discard`). **Raises:** `ERROR` where the folder holds another run, naming
    all that differs, or a damaged plan, or (`ALONE`) files but no plan; where it is a file; and where it cannot be written.
    """

    PLAN = "plan.json"
    KIND = "run"
    ERROR: type[Exception] = EmuinferError
    GO_ON = REMEDY
    IGNORED: tuple[str, ...] = ("versions",)
    ALONE, ONLY_KNOWN = True, False
    RENEWED = False  # whether the plan of the same run is written again, with what is `IGNORED`, when it goes on
    ELSE = "Give another folder, or overwrite=True to throw that {kind} away."

    def __init__(self, path, plan: dict, overwrite: bool = False):
        self.path, self.plan = Path(path), json.loads(json.dumps(plan))
        if self.path.exists() and not self.path.is_dir():
            raise self.ERROR(f"The output {self.path} is a file; results go to a folder. Give another.")
        known = self.path / self.PLAN
        if known.exists():
            same = self._same(known, overwrite)
            if not same:
                self.discard()
            if same and not self.RENEWED:
                return
        elif self.ALONE and self.path.exists() and any(not p.name.startswith(".") for p in self.path.iterdir()):
            raise self.ERROR(f"{self.path} is not empty and holds no {self.KIND}. Give another folder.")
        write_json(known, self.plan, self.ERROR, remedy=self.GO_ON)

    def _same(self, known, overwrite):
        try:
            found = self.found(read_json(known, self.ERROR, f"Delete {self.path} and start again."))
        except self.ERROR:
            if overwrite:
                return False
            raise
        different = differences(found, self.plan, ignored=self.IGNORED, only_known=self.ONLY_KNOWN)
        if different and not overwrite:
            listed = "; ".join(f"{d.name}: {d.there} there, {d.now} now" for d in different)
            remedy = self.ELSE.format(kind=self.KIND)
            raise self.ERROR(f"{self.path} holds a {self.KIND} with other settings ({listed}). {remedy}")
        return not different

    def found(self, plan: dict) -> dict:
        """A plan from the disk, in today's terms."""
        return plan

    def discard(self) -> None:
        """Delete the results of another run."""


def cache_directory() -> Path:
    """`$EMUINFER_CACHE`, or the user's cache directory of emuinfer."""
    import platformdirs

    return Path(os.environ.get("EMUINFER_CACHE") or platformdirs.user_cache_dir("emuinfer"))


@contextlib.contextmanager
def lock(path, *, busy: Exception | None = None, waiting: str = "", error=EmuinferError, remedy=REMEDY):
    """Hold a lock that processes share; its file is `path` with `.lock` appended, and means nothing when no one holds it.

    Where another process holds it, `busy` is raised at once if it is given; otherwise this one waits, after it has said
    `waiting` to the user. A process that is killed lets go. **Raises:** `error` where the file cannot be made.
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
        guard.acquire()
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
