"""What every sampler returns."""

import dataclasses
from typing import NamedTuple

import numpy as np


class Evidence(NamedTuple):
    """Natural logarithm of the evidence and its standard error."""

    log_evidence: float
    error: float


@dataclasses.dataclass(frozen=True)
class SamplerResult:
    """Draws of a sampler with their statistics; everything is NumPy, on the host.

    **Attributes:**

    - `positions`: draws after warm-up, shape `(chains, draws, dim)`, float32, in the space of the log density.
    - `stats`: arrays of shape `(chains, draws)` under ArviZ's names: always `lp`; of `diverging`, `energy`, `n_steps`,
      `tree_depth`, `acceptance_rate`, `step_size` those that the method has.
    - `inverse_mass_matrix`: the adapted one in the space of the log density, shape `(dim, dim)`; for methods that know
      none, the covariance matrix that they have of the posterior.
    - `warmup`: facts about what came before the draws, such as `steps`, `step_size`, `gradients` and `divergences`.
    - `seed`: the seed that reproduces the draws.
    - `timings`: seconds as `compile_s`, `warmup_s`, `sampling_s`; compilation is zero when it was done before.
    - `gradients`: gradient evaluations that were needed, warm-up included, summed over chains.
    - `evidence`: log of the integral of exp(log density) and its standard error, from methods that give one, else
      `None`.
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
    evidence: Evidence | None = None
