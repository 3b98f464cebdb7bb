"""The folder of a training run: settings, metrics and checkpoint, so written that a killed job or a full disk costs nothing.

Files are written under a temporary name and renamed: the last good one stays until the next one is complete.
"""

import io
import json
import os
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from .. import files
from ..errors import TrainingError
from ..files import cannot_write, write_bytes

GO_ON = "Free some space or allow writing there, and start the same run again: it goes on from its last checkpoint."


def save_checkpoint(path, state) -> None:
    """Write a pytree of arrays. Raises `TrainingError` if that fails; the checkpoint before it then stays."""
    # Through memory: equinox would hide an error of the disk in one of its own.
    content = io.BytesIO()
    eqx.tree_serialise_leaves(content, state)
    write_bytes(path, content.getbuffer(), TrainingError, remedy=GO_ON)


def load_checkpoint(path, like):
    """The state saved at `path`; `like` gives its structure. Raises `TrainingError` if they do not match."""
    try:
        return eqx.tree_deserialise_leaves(path, like)
    except Exception as error:
        raise TrainingError(
            f"The checkpoint {path} cannot be resumed ({error}). It is damaged or of a network of other sizes: "
            "train into another directory, or delete it to start anew."
        ) from error


def save_weights(model, path) -> Path:
    """Write the arrays of a model to `path`.eqx; returns that path. `load_checkpoint` reads them."""
    path = Path(path).with_suffix(".eqx")
    save_checkpoint(path, eqx.filter(model, eqx.is_array))
    return path


def describe_weights(model) -> str:
    """Weights in two figures, so coarse that another machine's rounding does not change them."""
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]
    size = sum(a.size for a in leaves)
    return f"{size} weights, root mean square {np.sqrt(sum((a**2).sum() for a in leaves) / size):.5g}"


class RunFolder(files.RunFolder):
    """`config.json`, `metrics.jsonl` and `checkpoint.eqx` of one run; with `path` None nothing is kept.

    `described` is what makes the run what it is. A folder that holds a checkpoint is gone on with if `resume`, and only by a
    run that is described in the same way. Raises `TrainingError` otherwise, and when the folder cannot be written to.
    """

    PLAN, ERROR, GO_ON, ALONE, ONLY_KNOWN = "config.json", TrainingError, GO_ON, False, True
    ELSE = "Use them, or another directory."

    def __init__(self, path, described: dict, resume: bool = True):
        self.path: Path | None = None if path is None else Path(path)  # type: ignore[assignment]
        if self.path is None:
            return
        self.checkpoint, self.metrics = self.path / "checkpoint.eqx", self.path / "metrics.jsonl"
        if self.checkpoint.exists() and not resume:
            raise TrainingError(f"{self.path} already holds a run. Give another directory, or resume it.")
        super().__init__(path, described, overwrite=not self.checkpoint.exists())  # without one, nothing is lost

    @property
    def has_checkpoint(self) -> bool:
        return self.path is not None and self.checkpoint.exists()

    def save(self, state) -> None:
        if self.path is not None:
            save_checkpoint(self.checkpoint, state)

    def load(self, like):
        """The state of the checkpoint, or `like` if there is none."""
        return load_checkpoint(self.checkpoint, like) if self.has_checkpoint else like

    def record(self, values: dict) -> None:
        """Add a line to the metrics; one that does not fit on the disk is taken back."""
        if self.path is None:
            return
        size = self.metrics.stat().st_size if self.metrics.exists() else 0
        try:
            with open(self.metrics, "a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            if self.metrics.exists():
                os.truncate(self.metrics, size)
            raise cannot_write(self.metrics, error, TrainingError, GO_ON) from error

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps after the checkpoint, which will be made again, and a line cut short by a kill."""
        if self.path is None or not self.metrics.exists():
            return
        lines = self.metrics.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            write_bytes(self.metrics, "".join(kept).encode(), TrainingError, remedy=GO_ON)
