"""Settings of a training run."""

import dataclasses

from ..errors import TrainingError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How an emulator is trained on stored spectra.

    **Arguments:**

    - `steps`: optimiser steps; `warmup` of them ramp the learning rate up and the last `decay` fraction ramps it to
      zero (warm-up–stable–decay).
    - `spectra`, `pixels`: each step takes this many spectra and, from each, this many of its stored pixels at random.
    - `learning_rate`, `weight_decay`, `clip`: AdamW peak rate, decoupled decay, global gradient norm.
    - `optimiser`: `"adamw"`, or `"muon"` for the matrices of the blocks (Jordan et al. 2024) and AdamW for the rest.
    - `base_width`, `base_depth`: the sizes at which `learning_rate` was found; models of other sizes then use it scaled (muP,
      see `optimiser.rate_factor`). 0: the same rate for all sizes.
    - `precision`: `"bfloat16"` computes the blocks' matrix products in it, for accelerators; norms, softmax, bilinear part,
      head, loss and the optimiser stay in float32.
    - `devices`: spread each step's spectra over this many devices (data parallel); `spectra` must be a multiple of it.
    - `replay`: share of each step's spectra taken from `replay` spectra, where `train` is given some.
    - `table_rate`: factor on the learning rate of the wavelength table and of the encodings.
    - `frozen`: names of the emulator's fields that stay as they are, such as trunk, trunk_mean and branch.
    - `huber`: residual (in flux) where the loss passes from quadratic to absolute. It starts at `huber_start` and falls
      to `huber` while the rate is on its plateau: the median of the flux at a wavelength, which absolute errors ask for first, has
      no lines, and from random weights they are then learned late.
    - `average`: decay per step of the averaged weights that are validated and saved.
    - `seed`: of the batches (the weights' own seed is given where they are made).
    - `validate_every`, `checkpoint_every`: steps between validations, and between checkpoints.
    - `patience`: stop when the mean absolute error of the held-out spectra has not fallen for this many validations, and
      keep the averaged weights that were best; 0 trains to the end and keeps the last. The schedule's decay usually
      brings the largest gain, so let `patience * validate_every` be longer than the plateau. Held-out spectra that have
      chosen the weights no longer measure the error: keep others for that.
    """

    steps: int = 20_000
    warmup: int = 500
    decay: float = 0.4
    spectra: int = 16
    pixels: int = 1024
    learning_rate: float = 3e-3
    table_rate: float = 1.0
    frozen: tuple[str, ...] = ()
    weight_decay: float = 1e-3
    clip: float = 1.0
    optimiser: str = "adamw"
    base_width: int = 0
    base_depth: int = 0
    precision: str = "float32"
    devices: int = 1
    replay: float = 0.5
    huber: float = 0.005
    huber_start: float = 0.1
    average: float = 0.998
    seed: int = 0
    validate_every: int = 500
    checkpoint_every: int = 500
    patience: int = 0

    def __post_init__(self):
        for name, known in (("optimiser", ("adamw", "muon")), ("precision", ("float32", "bfloat16"))):
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} must be {' or '.join(map(repr, known))}; got {getattr(self, name)!r}.")
        if self.devices < 1 or self.spectra % self.devices:
            raise TrainingError(f"spectra ({self.spectra}) must be a multiple of devices ({self.devices}).")
        if not 0 <= self.replay < 1:
            raise TrainingError(f"replay must be at least 0 and below 1; got {self.replay:g}.")

    def schedule(self):
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
