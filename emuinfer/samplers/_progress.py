"""Signs of life on long steps."""

import contextlib
import sys
import threading


@contextlib.contextmanager
def clock(what, show):
    """Show `what` with the elapsed time, renewed each second, while a step runs that cannot report its progress."""
    if not show:
        yield
        return
    if not sys.stderr.isatty():
        # A log or a notebook would get a line per second.
        print(f"{what} …", file=sys.stderr, flush=True)
        yield
        return
    from tqdm import tqdm

    done = threading.Event()
    with tqdm(total=1, desc=what, bar_format="{desc}: {elapsed}{postfix}", leave=False) as bar:

        def renew():
            while not done.wait(1.0):
                bar.refresh()

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def bar(total, what, show):
    """A progress bar over `total` steps that does nothing if `show` is false."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=what, disable=not show, unit="step")
