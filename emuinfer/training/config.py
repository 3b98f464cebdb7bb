"""Settings of a training run."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How an emulator is trained on stored spectra.

    **Arguments:**

    - `steps`: optimiser steps; `warmup` of them ramp the learning rate up and the last `decay` fraction ramps it to
      zero (warm-up–stable–decay).
    - `spectra`, `pixels`: each step takes this many spectra and, from each, this many of its stored pixels at random.
    - `learning_rate`, `weight_decay`, `clip`: AdamW peak rate, decoupled decay, global gradient norm.
    - `table_rate`: factor on the learning rate of the wavelength table and of the encodings.
    - `frozen`: names of the emulator's fields that stay as they are, such as trunk, trunk_mean and branch.
    - `huber`: residual (in flux) where the loss passes from quadratic to absolute.
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
    huber: float = 0.005
    average: float = 0.998
    seed: int = 0
    validate_every: int = 500
    checkpoint_every: int = 500
    patience: int = 0

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
