"""Where data files are: in the package, in a folder that the user names, in an installed data package, or on the web.

They are looked for in this order:

1. `emuinfer/data`;
2. the folders of the environment variable `EMUINFER_WEIGHTS` (several are separated as those of PATH);
3. data packages: whatever is installed with an entry point of the group `emuinfer.weights`, which names a folder: a module
   whose folder it is, a path, or a function that returns one;
4. the folder `weights` of the cache, into which they are fetched, once, from `EMUINFER_DATA_URL` or else from the URL that
   the registry gives, and compared with their SHA-256.
"""

import functools
import os
import shutil
import sys
import warnings
from pathlib import Path

from ..errors import EmulatorError
from ..files import cache_directory, cache_folders, lock

DATA = Path(__file__).resolve().parents[1] / "data"
SHIPPED = tuple(DATA / folder for folder in ("weights", "lines", "line_errors"))
GROUP = "emuinfer.weights"


def find(name: str, hashes: dict[str, str], url: str, owner: str) -> Path:
    """The path of a data file, fetched if it is nowhere and its SHA-256 is in `hashes`.

    `url`: of the folder to fetch from; `owner`: whose file it is, for the messages. **Raises:** `EmulatorError`, naming the
    file, the URL and how to install it by hand, where it is nowhere and cannot be fetched, or is not the one expected.
    """
    for folder in (*SHIPPED, *user_folders()):
        if (folder / name).is_file():
            return folder / name
    if name not in hashes:
        raise EmulatorError(
            f"The file {name} of {owner} is not in this installation, and nothing is known of where to fetch it. Put it "
            "into a folder and name that folder in EMUINFER_WEIGHTS."
        )
    return _fetched(name, hashes[name], os.environ.get("EMUINFER_DATA_URL") or url, owner)


def fetched_folder() -> Path:
    """Where fetched files are kept."""
    return cache_directory() / "weights"


def user_folders() -> list[Path]:
    """The folders of `EMUINFER_WEIGHTS` and of installed data packages."""
    named = [Path(part).expanduser() for part in os.environ.get("EMUINFER_WEIGHTS", "").split(os.pathsep) if part]
    return [*named, *package_folders()]


@functools.cache
def package_folders() -> tuple[Path, ...]:
    """The folders that installed data packages bring. One that does not load is left out, with a warning."""
    import importlib.metadata

    folders = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            folders.append(_folder_of(entry.load()))
        except Exception as error:  # whatever goes wrong in a package of somebody else's
            warnings.warn(
                f"The data package '{entry.name}' ({entry.value}) cannot be used: {type(error).__name__}: {error}. "
                "Install it again, or remove it.",
                stacklevel=2,
            )
    return tuple(folders)


def _folder_of(found) -> Path:
    if hasattr(found, "__path__"):  # a package
        return Path(next(iter(found.__path__)))
    if callable(found):
        found = found()
    return Path(found)


def _fetched(name, sha256, url, owner) -> Path:
    by_hand = (
        f"To install it by hand, bring it (SHA-256 {sha256}) to this machine under the name {name}, and name its folder in "
        "the environment variable EMUINFER_WEIGHTS."
    )
    import pooch

    for folder in cache_folders():
        path = folder / "weights" / name
        if path.is_file() and pooch.file_hash(path) == sha256:
            return path
    if not url:
        raise EmulatorError(
            f"The file {name} of {owner} is not in this installation, and no URL is known for it. Give that of its folder "
            f"in EMUINFER_DATA_URL. {by_hand}"
        )
    source = f"{url.rstrip('/')}/{name}"
    waiting = f"Another process is fetching weights: waiting for it before {name}."
    downloader = _copy if source.startswith("file:") else pooch.HTTPDownloader(progressbar=sys.stderr.isatty())
    try:
        with lock(fetched_folder(), waiting=waiting, error=EmulatorError):  # a second process waits, and then finds it
            return Path(pooch.retrieve(source, f"sha256:{sha256}", name, path=fetched_folder(), downloader=downloader))
    except EmulatorError:  # of the lock
        raise
    except OSError as error:  # among them all that a connection may raise
        raise EmulatorError(
            f"The file {name} of {owner} could not be fetched from {source} ({error}). {by_hand}"
        ) from error
    except ValueError as error:  # of pooch: another hash
        raise EmulatorError(
            f"{source} is not the file {name} that {owner} needs: its SHA-256 differs ({error}). Nothing was kept. Try "
            f"again; if it stays so, update emuinfer or correct EMUINFER_DATA_URL. {by_hand}"
        ) from error


def _copy(url, output, _):
    """The downloader for `file://`, which pooch has none for."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    shutil.copyfile(url2pathname(urlsplit(url).path), output)
