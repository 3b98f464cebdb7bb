"""What every sampler returns."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class SamplerResult:
    """Draws of a sampler with their statistics; everything is NumPy, on the host.

    **Attributes:**

    - `positions`: draws after warm-up, shape `(chains, draws, dim)`, float32, in the space of the log density.
    - `stats`: arrays of shape `(chains, draws)` under ArviZ's names: `lp`, `diverging`, `energy`, `n_steps`,
      `tree_depth`, `acceptance_rate`, `step_size`.
    - `inverse_mass_matrix`: the adapted one in the space of the log density, shape `(dim, dim)` where the chains share
      it, else `(chains, dim, dim)`.
    - `warmup`: facts about the warm-up, such as `steps`, `step_size`, `gradients` and `divergences`.
    - `seed`: the seed that reproduces the draws.
    - `timings`: seconds as `compile_s`, `warmup_s`, `sampling_s`; compilation is zero when it was done before.
    - `gradients`: gradient evaluations that were needed, warm-up included, summed over chains.
    - `notes`: plain sentences about what was repaired on the way; empty if nothing was.
    """

    positions: np.ndarray
    stats: dict
    inverse_mass_matrix: np.ndarray
    warmup: dict
    seed: int
    timings: dict
    gradients: int
    notes: tuple = ()
