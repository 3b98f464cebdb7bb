"""ArviZ, imported quietly and only when it is needed."""

import os
import sys
import tempfile
import warnings

from ..files import shelter_libraries


def import_arviz():
    """The module `arviz`.

    ArviZ 0.23 announces its successor at the first import of a day, in the middle of whatever the user was doing. Both work here, so
    the notice says nothing that a reader of a fit could act on. It keeps the day in the user's cache, where jobs that start at once
    take each other's file away; then it is imported with a cache of its own.
    """
    if "arviz" in sys.modules:
        return sys.modules["arviz"]
    shelter_libraries()
    try:
        return _import()
    except OSError:
        before = os.environ.get("XDG_CACHE_HOME")
        with tempfile.TemporaryDirectory(prefix="emuinfer-") as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            try:
                return _import()
            finally:
                if before is None:
                    os.environ.pop("XDG_CACHE_HOME", None)
                else:
                    os.environ["XDG_CACHE_HOME"] = before


def _import():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing a major refactor", FutureWarning)
        import arviz
    return arviz
