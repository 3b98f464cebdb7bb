"""Settings of a training run."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from ..errors import TrainingError


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """What every training run is told; a subclass names the examples of a batch, and `counts` is that field.

    **Arguments:**

    - `steps`: optimiser steps; `warmup` of them ramp the learning rate up and the last `decay` fraction ramps it to
      zero (warm-up–stable–decay).
    - `learning_rate`, `weight_decay`, `clip`: AdamW peak rate, decoupled decay, global gradient norm.
    - `optimiser`: `"adamw"`, or `"muon"` for matrices (Jordan et al. 2024) and AdamW for the rest.
    - `precision`: `"bfloat16"` hands matrices to the network in it, for accelerators; the weights themselves, the loss and the
      optimiser stay in float32.
    - `devices`: spread each step's examples over this many devices (data parallel); their number must be a multiple of it.
    - `frozen`: names of weights that stay as they are: `"encoder"` is all of it, `"encoder.0"` the first of its parts.
    - `average`: decay per step of the averaged weights that are validated and returned.
    - `seed`: of the batches, and of the loss's keys (the weights' own seed is given where they are made).
    - `validate_every`, `checkpoint_every`: steps between validations, and between checkpoints.
    - `patience`: stop when the first figure of the validation has not fallen for this many validations, and
      keep the averaged weights that were best; 0 trains to the end and keeps the last. The schedule's decay usually
      brings the largest gain, so let `patience * validate_every` be longer than the plateau. Examples that have
      chosen the weights no longer measure the error: keep others for that.

    Raises `TrainingError` on values that cannot be.
    """

    counts: ClassVar[str]

    steps: int = 20_000
    warmup: int = 500
    decay: float = 0.4
    learning_rate: float = 3e-3
    frozen: tuple[str, ...] = ()
    weight_decay: float = 1e-3
    clip: float = 1.0
    optimiser: str = "adamw"
    precision: str = "float32"
    devices: int = 1
    average: float = 0.998
    seed: int = 0
    validate_every: int = 500
    checkpoint_every: int = 500
    patience: int = 0

    def __post_init__(self):
        for name, known in (("optimiser", ("adamw", "muon")), ("precision", ("float32", "bfloat16"))):
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} must be {' or '.join(map(repr, known))}; got {getattr(self, name)!r}.")
        if self.devices < 1 or self.batch_size % self.devices:
            raise TrainingError(f"{self.counts} ({self.batch_size}) must be a multiple of devices ({self.devices}).")

    @property
    def batch_size(self) -> int:
        """How many examples a step takes."""
        return getattr(self, self.counts)

    def schedule(self):
        """The learning rate as a function of the step."""
        import optax

        decay_steps = max(1, int(self.decay * self.steps))
        warmup = min(self.warmup, max(1, self.steps - decay_steps))
        return optax.join_schedules(
            [
                optax.linear_schedule(0.0, self.learning_rate, warmup),
                optax.constant_schedule(self.learning_rate),
                optax.cosine_decay_schedule(self.learning_rate, decay_steps),
            ],
            [warmup, self.steps - decay_steps],
        )


@dataclasses.dataclass(frozen=True)
class LoopConfig(LoopSettings):
    """How a network of any kind is trained: the settings of `LoopSettings`, and

    - `batch`: examples of each step;
    - `rates`: factors on the learning rate by the names of weights, as in `frozen`; the longest name that fits counts.
    """

    counts: ClassVar[str] = "batch"

    batch: int = 32
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
