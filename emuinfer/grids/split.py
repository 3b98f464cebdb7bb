"""Which spectra are trained on and which are held out."""

import numpy as np

from ..errors import GridError


def split_rows(n: int, held_out: float = 0.1, seed: int = 0, *, shuffled: bool = False):
    """Sorted `(train, test)` indices of `n` rows; about the fraction `held_out` of them, at least one, are in `test`.

    One row is held out at random of each run of `1 / held_out` rows, so a grid that has been extended keeps the part of
    every old row: what was held out once is never trained on later. With `shuffled`, the rows are held out anywhere, and
    `held_out` may also be their number: for parts of one fit, such as the spectra that stop it.

    Raises `GridError` if a part would be empty.
    """
    if isinstance(held_out, int) and shuffled:
        count = held_out
    elif 0 < held_out <= 0.5:
        count = max(1, round(held_out * n))
    else:
        raise GridError(f"held_out (--held-out) must be above 0 and at most 0.5; got {held_out}.")
    if n < 2 or not 0 < count < n:
        raise GridError(f"A grid of {n} spectra cannot be split into two parts.")
    rng = np.random.default_rng(seed)
    if shuffled:
        order = rng.permutation(n)
        return np.sort(order[count:]), np.sort(order[:count])
    edges = np.ceil(np.arange(int(np.ceil(n * held_out)) + 1) / held_out - 1e-9).astype(int)
    test = edges[:-1] + np.floor(rng.random(len(edges) - 1) * np.diff(edges)).astype(int)
    test = test[test < n] if np.any(test < n) else test[:1] % n
    return np.setdiff1d(np.arange(n), test), test


def flagship_split(n: int):
    """`(train, test)` rows of the flagship grid, a tenth held out: those of every emulator and baseline that ships."""
    return split_rows(n, n // 10, shuffled=True)
