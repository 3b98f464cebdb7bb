"""Where the examples of each step come from. What step n sees is a function of n alone, so that a resumed run goes on exactly."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import TrainingError


class BatchSource(Protocol):
    """What the training loop takes its examples from."""

    def batch(self, step: int, n: int) -> Any:
        """`n` examples for step `step`: a pytree of arrays `(n, …)`, the same whenever they are asked for."""


class StoredRows:
    """Random rows of a pytree of arrays `(n_rows, …)` in memory; `stream` tells sources of one seed apart."""

    def __init__(self, arrays, seed: int = 0, stream: int = 0):
        self.arrays, self.seed, self.stream = arrays, seed, stream
        lengths = {len(leaf) for leaf in jax.tree.leaves(arrays)}
        if len(lengths) != 1 or not min(lengths):
            raise TrainingError(f"Stored arrays need one and the same number of rows; got {sorted(lengths)}.")
        (self.n_rows,) = lengths

    def batch(self, step: int, n: int):
        rows = np.random.default_rng([self.seed, step, self.stream]).integers(0, self.n_rows, n)
        return jax.tree.map(lambda array: array[rows], self.arrays)


class Replay:
    """Batches that are mostly `new`, and for the fraction `share` `old`: what was learned first is not forgotten."""

    def __init__(self, new: BatchSource, old: BatchSource, share: float):
        self.new, self.old, self.share = new, old, share

    def batch(self, step: int, n: int):
        # Rounded at random, so that a small share of few examples is right on average.
        n_old = int(n * self.share + np.random.default_rng([step, 7]).uniform())
        if not 0 < n_old < n:
            return (self.old if n_old else self.new).batch(step, n)
        pair = self.new.batch(step, n - n_old), self.old.batch(step, n_old)
        return jax.tree.map(lambda *parts: np.concatenate(parts), *pair)


class Ring:
    """Endless examples, made as training goes: a ring in which each new chunk takes the place of the oldest one.

    **Arguments:**

    - `make`: number of a chunk to its examples, a pytree of arrays `(chunk, …)`; a pure function. What it gives as JAX arrays
      stays on the device, NumPy arrays on the host.
    - `size`: examples that are kept, a multiple of `chunk`. A new chunk is made every `renew` steps.
    - `seed`: of the rows that `batch` draws from the ring.

    A resumed run first fills the ring again. Raises `TrainingError` on sizes that do not fit.
    """

    def __init__(self, make: Callable[[int], Any], *, size: int, chunk: int, renew: int, seed: int = 0):
        if size < chunk or size % chunk:
            raise TrainingError(f"The ring ({size} examples) must be a multiple of the chunk ({chunk}).")
        self.make, self.size, self.chunk, self.renew, self.seed = make, size, chunk, renew, seed
        self.made: int | None = None
        self.contents: object = None

    def at(self, step: int):
        """The examples that step `step` may draw from: a pytree of arrays `(size, …)`, which the next call changes."""
        chunks = self.size // self.chunk
        made = chunks + step // self.renew
        first = max(made - chunks, 0 if self.made is None else self.made)
        for number in range(first, made):
            new = self.make(number)
            if self.contents is None:
                self.contents = jax.tree.map(self._empty, new)
            start = (number % chunks) * self.chunk
            self.contents = jax.tree.map(lambda old, part: _put(old, part, start), self.contents, new)
        self.made = made
        return self.contents

    def batch(self, step: int, n: int):
        contents = self.at(step)
        rows = np.random.default_rng([self.seed, 1, step]).integers(0, self.size, n)
        return jax.tree.map(lambda array: array[rows], contents)

    def _empty(self, part):
        xp = np if isinstance(part, np.ndarray) else jnp
        return xp.zeros((self.size, *part.shape[1:]), part.dtype)


def _put(old, part, start):
    if isinstance(old, np.ndarray):
        old[start : start + len(part)] = part
        return old
    return _replace(old, part, start)


@jax.jit(donate_argnums=0)
def _replace(old, part, start):
    return jax.lax.dynamic_update_slice_in_dim(old, part, start, axis=0)
