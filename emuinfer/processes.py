"""What the worker processes of grids and surveys have in common."""

import contextlib
import multiprocessing
import os
import signal
import threading


@contextlib.contextmanager
def environment(variables):
    """Set environment variables that are not set yet, for the processes started inside the block."""
    added = {key: value for key, value in variables.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def obey_parent():
    """In a worker: leave Ctrl-C to the parent, and end when the parent has ended, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not multiprocessing.parent_process().is_alive():  # killed while this worker was starting
        os._exit(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
