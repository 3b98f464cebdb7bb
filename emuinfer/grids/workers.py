"""Backends in this process or in single-threaded worker processes, behind one call: `submit(labels) -> Future`."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import pickle
from collections.abc import Callable

import numpy as np

from ..errors import GridError
from ..labels.space import LabelSpace
from ..processes import ONE_THREAD, ONE_THREAD_OF_XLA, compilation_cache, cores, environment, obey_parent, spawning

# Several spectra at once are faster than several threads on one spectrum. NPROC sizes XLA's own thread pool on the CPU.
SINGLE_THREAD = ONE_THREAD | {"XLA_FLAGS": ONE_THREAD_OF_XLA, "NPROC": "1"}


@dataclasses.dataclass(frozen=True)
class BackendInfo:
    """What a backend says of itself."""

    labels: LabelSpace
    wavelength: np.ndarray
    medium: str
    provenance: dict


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """Where spectra are computed: `submit(labels (b, n_labels))` gives a future of `(flux, continuum, errors)`.

    `errors` has one string per spectrum, empty if it was computed. `in_flight` is how many submissions keep it busy.
    """

    info: BackendInfo
    submit: Callable
    in_flight: int


@contextlib.contextmanager
def start(backend, workers: int | None):
    """A `Synthesis` for a backend, a factory of backends or `(name, options)`; see `generate_grid`."""
    if hasattr(backend, "wavelength") and hasattr(backend, "labels"):
        yield _in_process(backend)
    elif workers == 0:
        yield _in_process(_build(backend))
    else:
        with _pool(backend, workers or len(cores())) as synthesis:
            yield synthesis


def _build(source):
    if callable(source):
        return source()
    from ..synthesis import make_backend

    try:
        name, options = source
    except (TypeError, ValueError) as error:
        raise GridError(
            f"A backend is given as (name, options), a function without arguments or a backend object; got {source!r}."
        ) from error
    return make_backend(name, **dict(options))


def _info(backend):
    return BackendInfo(backend.labels, np.asarray(backend.wavelength, float), backend.medium, dict(backend.provenance))


def _synthesise(backend, labels):
    """Spectra of a batch; if it raises an error, each spectrum by itself, so that one bad model spoils no other."""
    try:
        flux, continuum = backend(labels)
        return np.array(flux, np.float32), np.array(continuum, np.float32), [""] * len(labels)
    except Exception as error:
        if len(labels) == 1:
            nothing = np.full((1, len(backend.wavelength)), np.nan, np.float32)
            return nothing, nothing, [f"{type(error).__name__}: {error}"]
        rows = [_synthesise(backend, labels[i : i + 1]) for i in range(len(labels))]
        return np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows]), [r[2][0] for r in rows]


def _in_process(backend):
    def submit(labels):
        future: concurrent.futures.Future = concurrent.futures.Future()
        future.set_result(_synthesise(backend, labels))
        return future

    return Synthesis(_info(backend), submit, in_flight=1)


@contextlib.contextmanager
def _pool(source, workers):
    _require_importable(source)
    with environment(SINGLE_THREAD | compilation_cache()):
        executor = concurrent.futures.ProcessPoolExecutor(workers, spawning(), _start_worker, (source,))
        try:
            yield Synthesis(
                executor.submit(_describe_worker).result(),
                lambda labels: executor.submit(_synthesise_worker, labels),
                in_flight=2 * workers,
            )
        except concurrent.futures.process.BrokenProcessPool as error:
            raise GridError(
                "A worker process died: out of memory, killed, or unable to start (then its error is printed above; a "
                "script needs `if __name__ == '__main__':`). The finished chunks are kept: start the same command "
                "again, with fewer workers or a smaller batch if memory is short."
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _require_importable(source):
    try:
        pickle.dumps(source)
    except Exception as error:  # pickle raises errors of many kinds
        raise GridError(
            f"Worker processes cannot import the backend {source!r} ({error}). Give (name, options) or a function "
            f"defined at the top of a module, or use workers=0."
        ) from error


_worker: dict = {}  # the state of a worker process: its backend, or why it could not be built


def _start_worker(source):
    obey_parent()
    try:
        _worker["backend"] = _build(source)
    except Exception as error:  # handed to the parent by the first task; an error here would only break the pool
        _worker["error"] = error


def _describe_worker():
    return _info(_backend())


def _synthesise_worker(labels):
    return _synthesise(_backend(), labels)


def _backend():
    if "error" in _worker:
        raise _worker["error"]
    return _worker["backend"]
