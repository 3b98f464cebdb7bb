"""Objects that are alike, by the cosine between what a network makes of each."""

from typing import NamedTuple

import numpy as np

from ..errors import TokenError
from ..tokens import TokenSet

CHUNK = 512  # objects that are compared at a time


class Similar(NamedTuple):
    """For each of n objects the k nearest: their `rows` among those searched `(n, k)`, their `keys`, and the `cosine`, nearest first."""

    rows: np.ndarray
    keys: np.ndarray
    cosine: np.ndarray


def similar(network, tokens: TokenSet, reference: TokenSet, k: int = 10, latents: np.ndarray | None = None) -> Similar:
    """The `k` objects of `reference` that are most like each of `tokens`, itself included if it is there.

    `latents`: `network.latent(reference)`, where it has been computed before. Compare like with like: the network sees an object with
    colours alone and one with a spectrum differently.
    """
    if not 1 <= k <= len(reference):
        raise TokenError(f"k = {k} must be 1 to {len(reference)}, the number of objects that are searched.")
    own, others = network.latent(tokens), network.latent(reference) if latents is None else np.asarray(latents)
    if others.shape != (len(reference), own.shape[1]):
        raise TokenError(
            f"latents have the shape {others.shape}; they must be network.latent of the {len(reference)} objects."
        )
    rows, cosine = np.zeros((len(own), k), int), np.zeros((len(own), k))
    for i in range(0, len(own), CHUNK):
        near = own[i : i + CHUNK] @ others.T
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]
        value = np.take_along_axis(near, best, 1)
        order = np.argsort(-value, axis=1, kind="stable")
        rows[i : i + CHUNK], cosine[i : i + CHUNK] = (np.take_along_axis(a, order, 1) for a in (best, value))
    return Similar(rows, reference.keys[rows], cosine)
