"""Settings of the training of an emulator."""

import dataclasses
from typing import ClassVar

from ...errors import TrainingError
from ...training.config import LoopSettings


@dataclasses.dataclass(frozen=True)
class TrainConfig(LoopSettings):
    """How an emulator is trained on spectra: the settings of `emuinfer.training.LoopSettings` (steps, rates, optimiser,
    precision, devices, averaging, seed, validation, patience), and

    - `spectra`, `pixels`: each step takes this many spectra and, from each, this many of its stored pixels at random.
    - `base_width`, `base_depth`: the sizes at which `learning_rate` was found; models of other sizes then use it scaled (muP,
      see `rates.rate_factor`). 0: the same rate for all sizes.
    - `table_rate`: factor on the learning rate of the wavelength table and of the encodings.
    - `replay`: share of each step's spectra taken from `replay` spectra, where `train` is given some.
    - `huber`: residual (in flux) where the loss passes from quadratic to absolute. It starts at `huber_start` and falls
      to `huber` while the rate is on its plateau: the median of the flux at a wavelength, which absolute errors ask for first, has
      no lines, and from random weights they are then learned late.

    `optimiser="muon"` is for the matrices of the blocks; `precision="bfloat16"` computes their products in it, while norms,
    softmax, bilinear part and head stay in float32. `frozen` are names of the emulator's fields, such as trunk, trunk_mean and
    branch. `patience` goes by the mean absolute error of the held-out spectra.
    """

    counts: ClassVar[str] = "spectra"

    spectra: int = 16
    pixels: int = 1024
    table_rate: float = 1.0
    base_width: int = 0
    base_depth: int = 0
    replay: float = 0.5
    huber: float = 0.005
    huber_start: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.replay < 1:
            raise TrainingError(f"replay must be at least 0 and below 1; got {self.replay:g}.")
