"""What public entries are kept from: a JAX of 64 bits, a process forked off a running JAX, a platform that JAX does not have."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .errors import EmuinferError

_forked = False
Function = TypeVar("Function", bound=Callable[..., Any])


def _in_child():
    global _forked
    _forked = _forked or _started()


def _started() -> bool:
    """Whether JAX has begun to compute in this process, without making it begin."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    begun = getattr(bridge, "backends_are_initialized", None)
    return bool(begun()) if begun is not None else False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def public(function: Function) -> Function:
    """A decorator of public functions and methods that compute with JAX.

    emuinfer computes in 32 bits, whatever others have switched on (`jax_enable_x64`, `numpyro.enable_x64()`,
    `JAX_ENABLE_X64=1`): inside, 64 bits are off for this thread, and nothing changes for the caller. Where JAX traces the
    arguments the caller's setting stays. **Raises:** `EmuinferError` in a process that was forked when JAX had started, whose
    threads are lost there so that it would hang, and where JAX cannot start on the platform that it was told.
    """

    @functools.wraps(function)
    def call(*args, **keywords):
        check_process()
        import jax

        if not jax.config.jax_enable_x64 or _traced(jax, args, keywords):  # type: ignore[attr-defined]
            return function(*args, **keywords)
        with jax.enable_x64(False):
            return function(*args, **keywords)

    return cast(Function, call)


def _traced(jax, args, keywords) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, keywords)))


def check_process() -> None:
    """Raise `EmuinferError` where JAX cannot compute in this process: see `public`."""
    if _forked:
        raise EmuinferError(
            "This process was forked from one in which JAX had started. JAX's threads do not survive that, and it would hang. "
            'Start processes anew: multiprocessing.get_context("spawn"), or mp_context= of concurrent.futures, or '
            "loky, as of joblib."
        )
    if not _started():
        _start()


def _start():
    import jax

    try:
        jax.default_backend()
    except RuntimeError as cause:
        asked = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms  # type: ignore[attr-defined]
        told = f" JAX_PLATFORMS is '{asked}': unset it, or set it to one that there is, such as cpu." if asked else ""
        raise EmuinferError(f"JAX cannot start ({' '.join(str(cause).split())[:300]}).{told}") from cause
