"""Checkpoints: written to a temporary file and renamed, so that a killed job leaves the last good one."""

import os
from pathlib import Path

import equinox as eqx

from ..errors import TrainingError


def save_checkpoint(path, state) -> None:
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        eqx.tree_serialise_leaves(file, state)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path, like):
    """The state saved at `path`; `like` gives its structure. Raises `TrainingError` if they do not match."""
    try:
        return eqx.tree_deserialise_leaves(path, like)
    except Exception as error:
        raise TrainingError(
            f"The checkpoint {path} cannot be resumed ({error}). It is damaged or of an emulator of other sizes: "
            "train into another directory, or delete it to start anew."
        ) from error
