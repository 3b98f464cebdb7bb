"""`refine`: from a guide's guess of a posterior to the posterior of a model, with a word on how far the guess was right."""

import json
import time
from collections.abc import Callable

import jax
import numpy as np

from ..entry import public
from ..errors import SamplingError
from ..files import use_compilation_cache
from ..likelihoods import SpectrumModel, Unconstrained
from ..posteriors import build_posterior, diagnose, import_arviz, plain_attrs
from ..samplers import SamplerResult
from .answers import Effort, answered
from .config import STAR
from .pool import Guided
from .problems import Problem, numpyro_problem, spectrum_problem, values_at
from .proposals import Guide, single
from .record import posterior_of
from .steps import SCREENED, Fit
from .verify import importance_check


@public
def refine(
    guide: Guide,
    model: SpectrumModel | Callable,
    data=None,
    *,
    seed: int = 0,
    rename: dict | None = None,
    proposals: int = 1024,
    rounds: int = 5,
    search: bool = False,
    mcmc: bool = True,
    chains: int = 4,
    draws: int = 250,
):
    """The posterior of `model`, proposed by `guide`.

    1. Draws of the guide, and one in ten of the prior, are weighted by likelihood × prior over the density of this mixture.
       Pareto-smoothed weights with k-hat < 0.7 and more than 200 effective draws are the answer: `method="importance"`.
    2. If not, the likeliest draws climb to the optima near them, a mixture of Student-t distributions is fitted to optima and weighted
       draws, and draws of that join the pool, `rounds` times at most: `method="adaptive importance"`.
    3. If that does not suffice either, NUTS starts in each mode, and bridge sampling gives the modes their masses: `method="nuts"`.

    **Arguments:**

    - `guide`: a `Guide`: `names`, `sample(key, n)`, `log_prob(values)`. It may know some of the model's parameters only; the others
      (velocity, broadening, continuum) are proposed from their Laplace approximation given the guide's.
    - `model`: a `StellarModel`, `JointModel` or the like, or any NumPyro model. `data`: the arguments of the latter, a tuple or a mapping.
      Arrays among them are arguments of compiled programs: the second star of the same shapes compiles nothing.
    - `rename`: names in the guide to names in the model.
    - `proposals`: draws of each round, each of which costs one likelihood; `rounds`: of adaptation. `mcmc`: False never starts NUTS.
    - `search`: look for modes that the guide does not know, by climbing from the likeliest draws of the prior, even where the weights
      suffice: they cannot see what no draw has met. Costs about as much as two rounds.
    - `chains`, `draws`: shape of the result; the draws of weights are resampled, and independent but for repetitions.

    **Returns:** the ArviZ object of `sample`, with attributes `method`, `k_hat` and `ess` (of the weights of all proposals),
    `guide_k_hat` and `guide_ess` (of the first round: is the guide this model's posterior?), `flag` (ok, warn, fail), `message`,
    `likelihoods` (how many were weighted), `warnings`; for spectra also those of `sample`, with `verification_k_hat` in place of its
    `k_hat`. Otherwise all proposals with their weights are in `constant_data` (`proposal`, `log_weight`).

    **Raises:** `LabelError` on names that do not fit the model, `SamplingError` where no draw has a finite likelihood.
    """
    import_arviz()  # what cannot be imported fails before the fit, not after
    use_compilation_cache()
    effort = Effort(seed, rename, proposals, rounds, search, mcmc, chains, draws)
    if isinstance(model, SpectrumModel) and data is not None:
        raise SamplingError(f"A {type(model).__name__} has its data already; `data` is for NumPyro models of your own.")
    if isinstance(model, SpectrumModel) and model.spectra:
        return refine_spectra(guide, model, effort)
    clock = time.perf_counter()
    pool, answer = answered(guide, problem_of(model, data), effort)
    return posterior_of_draws(pool, answer, {"timings": {"total_s": time.perf_counter() - clock}})


def problem_of(model, data) -> Problem:
    """The `Problem` of one of our models, or of any NumPyro model."""
    if isinstance(model, SpectrumModel):
        return spectrum_problem(model, Unconstrained(model), model.likelihood)
    if not callable(model):
        raise SamplingError(f"refine takes a model of emuinfer or a NumPyro model; got {type(model).__name__}.")
    if isinstance(data, dict):
        return numpyro_problem(model, (), data)
    arguments = data if isinstance(data, tuple) else () if data is None else (data,)
    return numpyro_problem(model, arguments, {})


def posterior_of_draws(pool, answer, facts):
    """The ArviZ object of a model that has no spectrum's pixels."""
    posterior = build_posterior(
        values_at(pool.problem, answer.z),
        answer.stats,
        observed_data=None,
        constant_data={"proposal": pool.rows.x, "log_weight": pool.log_weights},
        dims={"proposal": ["proposal_draw", "parameter"], "log_weight": ["proposal_draw"]},
        coords={"parameter": list(pool.problem.names)},
        attrs=facts,
    )
    return with_facts(posterior, answer.facts, [*answer.warnings, *diagnose(posterior)])


def refine_spectra(guide, model, effort):
    """`refine` of a model that has pixels: the guide replaces the search of `sample`, and weights its chains.

    As there, a surrogate of the star's spectrum is made around the optimum and compressed; it is what the draws are weighted with,
    and the full emulator verifies it.
    """
    clock, config = time.perf_counter(), STAR.with_given(chains=effort.chains, draws=effort.draws)
    guided = Guided(guide, spectrum_problem(model, Unconstrained(model), model.likelihood), effort.rename)
    guesses = guided.draw_values(jax.random.key(effort.seed), SCREENED * 3 // 4)
    fit, starts = Fit.screened(model, seed=effort.seed, config=config, guesses=guesses)
    fit = fit.optimised(starts).localised(effort.seed)
    for attempt in range(2):
        assert fit.compressed is not None and fit.covariance is not None
        problem = spectrum_problem(model, fit.density, fit.compressed)
        _, answer = answered(guide, problem, effort, single(fit.z, fit.covariance))
        values = fit.constrained(answer.z)
        complete = {k: np.asarray(v) for k, v in model.complete(values).items()}
        check = importance_check(fit.full, fit.compressed, complete, n=config.verify, seed=effort.seed, progress=False)
        if attempt or check.flag != "fail":
            break
        fit = fit.localised_again(answer.z, effort.seed)
    result = SamplerResult(
        positions=answer.z.astype(np.float32),
        stats=answer.stats,
        inverse_mass_matrix=np.asarray(fit.covariance),
        warmup={},
        seed=effort.seed,
        timings={},
        gradients=answer.facts.get("gradients", 0),
    )
    posterior = posterior_of(fit, result, check, values, {"total_s": time.perf_counter() - clock})
    facts = answer.facts | {"verification_k_hat": check.k_hat}
    if check.flag == "fail":
        facts |= {"flag": "fail", "message": f"{facts['message']} {check.message}"}
    return with_facts(posterior, facts, [*answer.warnings, *json.loads(posterior.attrs["warnings"])])


def with_facts(posterior, facts, warnings):
    """The posterior with the attributes of `refine`, and `warnings` in place of those that it has."""
    posterior.attrs.update(plain_attrs(facts | {"warnings": warnings}))
    return posterior
