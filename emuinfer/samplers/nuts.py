"""The No-U-Turn sampler (Hoffman & Gelman 2014, JMLR 15, 1593) by BlackJAX, with Stan's warm-up for all chains."""

import blackjax
import jax
import numpy as np
from blackjax.adaptation.window_adaptation import build_schedule
from jaxtyping import Array, Key

from ._chains import Adapted, Method, Run, run_chains
from ._progress import clock
from ._result import SamplerResult
from ._setup import check_arguments
from .optimise import laplace_covariance


def nuts(
    log_density,
    initial,
    data,
    *,
    seed,
    chains=4,
    warmup=500,
    draws=1000,
    target_acceptance=0.8,
    covariance=None,
    max_tree_depth=8,
    progress=True,
    chunk=50,
    checkpoint=None,
) -> SamplerResult:
    """Sample `log_density(z, data)` with several chains in one compiled program.

    Use it where little is known of the posterior: it chooses the length of each trajectory itself, and copes with
    curved and moderately heavy-tailed posteriors. Not for several separate modes (`smc`, `nested`).

    Warm-up follows Stan's schedule (a fast window, slow windows of growing length, a fast window), but the chains
    advance together and share one step size and one dense mass matrix, estimated from all of them.

    **Arguments:**

    - `initial`: one position `(dim,)`, best an optimum, around which the chains start twice as widely as `covariance`
      says; or one start per chain, `(chains, dim)`.
    - `covariance`: `(dim, dim)`, a guess of the posterior's covariance, such as `laplace_covariance` gives (the default
      where `initial` is one position). The space is whitened with it, which makes warm-up short and trees shallow.
    - `warmup`, `draws`: steps per chain; warm-up adapts step size and dense mass matrix and is thrown away.
    - `target_acceptance`: of the step size adaptation; raise it towards 0.99 where there are divergences.
    - `max_tree_depth`: no trajectory is longer than `2**max_tree_depth - 1` steps. All chains advance together, so the
      longest trajectory sets the pace.
    - `chunk`: steps between two updates of the progress bar; it does not change the result.
    - `checkpoint`: a file that is renewed after each chunk. A run that was killed goes on from it when called again
      with the same arguments, and gives the same draws; where the run had ended, they are read.

    Raises `SamplingError` on bad shapes, if the log density is finite at no start, or if the checkpoint is of another
    run.
    """
    initial = np.asarray(initial, np.float32)
    counts, notes = check_arguments(initial, chains, warmup, draws, covariance, target_acceptance), ()
    if initial.ndim == 1 and covariance is None:
        with clock("Laplace approximation", progress):
            covariance, notes = laplace_covariance(log_density, initial, data)
    # Where nothing is known of the scales, the mass matrix is drawn towards a small one, as in Stan.
    settle, prior_scale = (75, 1e-3) if covariance is None else (25, 1.0)
    schedule = _schedule(counts.warmup, settle)
    method = Method("nuts", _transition, (int(max_tree_depth),), schedule, prior_scale)
    run = Run(counts, seed, target_acceptance, chunk, progress, checkpoint)
    return run_chains(method, run, log_density, initial, data, covariance, notes)


def _schedule(warmup, settle):
    """Stan's windows. `settle` steps come first without adaptation of the mass matrix: 75, fewer if whitened."""
    schedule = np.array(build_schedule(warmup, initial_buffer_size=settle), np.int32)
    schedule[-1, 1] = 1  # the last window ends with the averaged step size
    return schedule


def _transition(keys: Key[Array, " chains"], states, density, adapted: Adapted, max_tree_depth: int):
    kernel = blackjax.nuts.build_kernel()
    states, info = jax.vmap(lambda k, s: kernel(k, s, density, adapted.step_size, adapted.metric, max_tree_depth))(
        keys, states
    )
    return states, {
        "diverging": info.is_divergent,
        "energy": info.energy,
        "n_steps": info.num_integration_steps,
        "tree_depth": info.num_trajectory_expansions,
        "acceptance_rate": info.acceptance_rate,
    }
