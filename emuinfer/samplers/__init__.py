"""Samplers over log densities: BlackJAX methods, all with the same call.

A log density is a function `log_density(z, data)` of a flat position `z`, shape `(dim,)`, on the whole real space, and
a pytree `data` of everything large (weights, observed arrays); it returns a scalar. Nothing here knows of spectra.

Every sampler is called as `sampler(log_density, initial, data, *, seed, chains, warmup, draws, covariance, progress)`,
may have further settings of its own, and returns a `SamplerResult`.
"""

from ..errors import SamplingError, suggestion
from ._importance import in_batches, systematic
from ._result import Evidence, SamplerResult
from ._setup import check_whole
from .hmc import hmc
from .laplace import laplace
from .mclmc import mclmc
from .nested import nested
from .nuts import nuts
from .optimise import OptimiseResult, laplace_covariance, optimise
from .pathfinder import pathfinder
from .smc import smc

SAMPLERS = {f.__name__: f for f in (nuts, hmc, mclmc, smc, nested, pathfinder, laplace)}


def get_sampler(name: str):
    """The sampler function of this name. Raises `SamplingError` that lists the samplers if there is none."""
    if name not in SAMPLERS:
        hint = suggestion(name, SAMPLERS)
        raise SamplingError(f"Unknown sampler '{name}'.{hint} The samplers are: {', '.join(sorted(SAMPLERS))}.")
    return SAMPLERS[name]


__all__ = [
    "SAMPLERS",
    "Evidence",
    "OptimiseResult",
    "SamplerResult",
    "check_whole",
    "get_sampler",
    "hmc",
    "in_batches",
    "laplace",
    "laplace_covariance",
    "mclmc",
    "nested",
    "nuts",
    "optimise",
    "pathfinder",
    "smc",
    "systematic",
]
