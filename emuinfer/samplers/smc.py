"""Sequential Monte Carlo from prior to posterior (Del Moral, Doucet & Jasra 2006, JRSS B 68, 411), moved by HMC."""

import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..errors import SamplingError
from ._compile import compile_once
from ._importance import in_batches, systematic
from ._progress import bar, clock
from ._result import Evidence, SamplerResult
from ._setup import check_arguments, check_whole
from ._split import Target
from .hmc import JITTER

QUARTER = 1.6  # length of a trajectory, a quarter of a Gaussian's period, as in `hmc`
LOW = 0.5  # acceptance below which a temperature's moves are repeated with a smaller step,
REPEATS = 5  # at most so often
MOST = 500  # temperatures


def smc(
    log_density,
    initial,
    data,
    *,
    seed,
    chains=4,
    warmup=1,
    draws=1000,
    target_acceptance=0.8,
    covariance=None,
    split=None,
    target_ess=0.6,
    moves=6,
    max_steps=16,
    batch=64,
    progress=True,
) -> SamplerResult:
    """Populations of particles that are led from the prior to the posterior by raising the power of the likelihood.

    Use it for posteriors with several modes and for evidences. Not for a single mode where only the draws are wanted:
    `nuts` and `hmc` need far fewer gradients. A mode that no prior draw comes near is missed: let `draws` be large.

    **Arguments:**

    - `split`: `(log_prior, log_likelihood, draw_prior)`, functions `log_prior(z, data)` (normalised, or else the
      evidence is not), `log_likelihood(z, data)` and `draw_prior(key, data) -> z`. It takes the place of `log_density`,
      and `initial` only gives the number of dimensions. Without it, the reference is a Gaussian around `initial`, three
      times as wide as `covariance`, and the evidence is the integral of exp(log_density); modes beyond this Gaussian
      are missed.
    - `chains`: independent populations of `draws` particles each. R-hat between them, and the scatter of their
      evidences, are honest; particles of one population are not quite independent.
    - `target_ess`: the next power is chosen such that the weights keep this fraction of effective particles.
    - `moves`: Hamiltonian trajectories per power; `target_acceptance` of these; at most `max_steps` leapfrog steps
      each.
    - `batch`: particles moved at once (memory).
    - `warmup`: not used; there, as all samplers are called alike.

    The result's `evidence` has log Z, the mean of Z over populations, and its error: from their scatter or from the
    scatter of the weights, whichever is larger, because a scatter among four is itself uncertain. Raises
    `SamplingError` on bad shapes or a bad split, or if the density is finite at no draw of the prior.
    """
    initial = np.asarray(initial, np.float32)
    check_arguments(initial, chains, 1, draws, covariance, target_acceptance)
    for name, value, least in (("draws", draws, 20), ("moves", moves, 1), ("max_steps", max_steps, 1)):
        check_whole(name, value, least)
    if not 0 < target_ess < 1:
        raise SamplingError(f"`target_ess` must lie between 0 and 1, usually 0.5 to 0.9; got {target_ess}.")
    target = Target(log_density, initial, data, split, covariance, progress, "smc")
    chains, draws, seconds = int(chains), int(draws), 0.0
    with clock("compiling", progress):
        u = target.draw(draws, [seed, 0])
        both, more = compile_once(_both, target.pair, target.all_data, u, batch=int(batch))
        seconds += more
        move, more = compile_once(
            _move, target.pair, target.all_data, u, *_neutral(u), jax.random.key(0), moves=int(moves), batch=int(batch)
        )
        seconds += more
    begin, runs = time.perf_counter(), []
    with bar(chains, "populations", progress) as shown:
        for chain in range(chains):
            shown.set_description(f"population {chain + 1}")
            settings = draws, target_ess, target_acceptance, int(max_steps), int(moves)
            runs.append(_population(target, both, move, [seed, 1 + chain], *settings))
            shown.update(1)
    timings = {"compile_s": seconds, "warmup_s": 0.0, "sampling_s": time.perf_counter() - begin}
    return _result(runs, target, seed, timings)


def _result(runs, target, seed, timings):
    positions = np.stack([target.to_z(r["u"]) for r in runs])
    log_z = np.array([r["log_z"] for r in runs])
    z = np.exp(log_z - log_z.max())
    scatter = z.var(ddof=1) / z.mean() ** 2 if len(runs) > 1 else 0.0
    variance = max(scatter, np.mean([r["variance"] for r in runs])) / len(runs)
    evidence = Evidence(float(log_z.max() + np.log(z.mean())), float(np.sqrt(variance)))
    notes = target.notes
    if len(runs) > 1 and log_z.std(ddof=1) > 0.5:
        notes += (
            f"The evidences of the {len(runs)} populations scatter by {log_z.std(ddof=1):.1f} in log Z: there are too "
            "few particles or moves. Raise `draws` or `moves`.",
        )
    if min(r["stats"]["acceptance_rate"].mean() for r in runs) < 0.3:
        notes += ("Few of the particles' moves were accepted; draws repeat. Raise `moves` or `target_acceptance`.",)
    stats = {k: np.stack([r["stats"][k] for r in runs]) for k in runs[0]["stats"]}
    flat = positions.reshape(-1, positions.shape[-1]).astype(float)
    gradients = sum(r["gradients"] for r in runs)
    return SamplerResult(
        positions=positions,
        stats=stats,
        inverse_mass_matrix=np.atleast_2d(np.cov(flat.T)),
        warmup={
            "steps": 0,
            "gradients": gradients,
            "temperatures": [r["temperatures"] for r in runs],
            "log_evidences": log_z.tolist(),
        },
        seed=seed,
        timings=timings,
        gradients=gradients,
        notes=notes,
        evidence=evidence,
    )


def _population(target, both, move, seed, draws, target_ess, acceptance, max_steps, moves):
    """One population from prior to posterior, with powers, weights and scales worked out on the host in float64."""
    rng, u = np.random.default_rng([*seed, 0]), target.draw(draws, [*seed, 1])
    prior, likelihood = (np.asarray(x, float) for x in both(target.all_data, u))
    if not (np.isfinite(prior) & np.isfinite(likelihood)).any():
        raise SamplingError(
            f"The log density is finite at none of {draws} draws of the prior. Check the split, that the data hold no "
            "NaN and no zero uncertainties, and that prior and likelihood agree on units."
        )
    power, log_z, variance, step_size, gradients, temperatures = 0.0, 0.0, 0.0, 0.5, 0, 0
    while power < 1:
        temperatures += 1
        if temperatures > MOST:
            raise SamplingError(
                f"The likelihood still has the power {power:.3g} after {MOST} temperatures: its ridge is too narrow "
                "for the particles. Raise `draws` or `moves`, or lower `target_ess`."
            )
        new = _next_power(likelihood, power, target_ess)
        log_w = (new - power) * likelihood
        log_z += np.logaddexp.reduce(log_w) - np.log(draws)
        weights = np.exp(log_w - np.logaddexp.reduce(log_w))
        variance += np.sum(weights**2) - 1 / draws  # of the mean weight, relative, for independent particles
        centre, root = _scale(u, weights)
        u, power = u[systematic(rng, weights, draws)], new
        for _ in range(REPEATS):
            steps = int(np.clip(np.ceil(QUARTER / step_size), 1, max_steps))
            key = jax.random.key(int(rng.integers(2**31)))
            u, prior, likelihood, stats = (
                jax.tree.map(np.asarray, x)
                for x in move(
                    target.all_data, u, centre, root, np.float32(power), np.float32(step_size), np.int32(steps), key
                )
            )
            prior, likelihood = prior.astype(float), likelihood.astype(float)
            gradients += draws * (1 + moves * steps)
            accepted = float(stats["acceptance_rate"].mean())
            step_size = float(np.clip(step_size * np.exp(1.5 * (accepted - acceptance)), 1e-3, 1.5))
            if accepted > LOW:
                break
    stats = {**stats, "lp": (prior + likelihood).astype(np.float32)}
    return dict(u=u, log_z=log_z, variance=variance, stats=stats, gradients=gradients, temperatures=temperatures)


def _next_power(likelihood, power, target_ess):
    """The power, up to 1, at which the weights have `target_ess` of the particles effective; by bisection."""

    def effective(new):
        log_w = (new - power) * likelihood
        return np.exp(2 * np.logaddexp.reduce(log_w) - np.logaddexp.reduce(2 * log_w)) / len(log_w)

    alive = np.isfinite(likelihood).mean()  # the best that any power can have
    if effective(1.0) >= target_ess * alive:
        return 1.0
    low, high = power, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= target_ess * alive else (low, middle)
    return max(low, power + 1e-12)


def _scale(u, weights):
    """Centre and root, float32, of the weighted particles' covariance, with a thousandth of its diagonal added."""
    centre = weights @ u.astype(float)
    covariance = np.atleast_2d(np.cov(u.astype(float).T, aweights=np.maximum(weights, 1e-300)))
    covariance += np.diag(1e-3 * np.diag(covariance) + 1e-12)
    return centre.astype(np.float32), np.linalg.cholesky(covariance).astype(np.float32)


def _neutral(u):
    dim = u.shape[1]
    return np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), np.float32(1), np.float32(0.5), np.int32(1)


def _both(pair, u: Float[Array, "draws dim"], *, batch: int) -> tuple[Float[Array, " draws"], Float[Array, " draws"]]:
    return in_batches(pair, u, batch)


def _move(
    pair,
    u: Float[Array, "draws dim"],
    centre: Float[Array, " dim"],
    root: Float[Array, "dim dim"],
    power: Float[Array, ""],
    step_size: Float[Array, ""],
    steps: Int[Array, ""],
    key: Key[Array, ""],
    *,
    moves: int,
    batch: int,
):
    """`moves` trajectories of every particle at this power; positions, log prior, log likelihood, statistics."""
    kernel, identity = blackjax.hmc.build_kernel(), jnp.ones(u.shape[1])

    def density(v):
        prior, likelihood = pair(centre + root @ v)
        return prior + power * likelihood

    def step(state, key):
        jitter_key, key = jax.random.split(key)
        jittered = step_size * jax.random.uniform(jitter_key, minval=1 - JITTER, maxval=1 + JITTER)
        state, info = kernel(key, state, density, jittered, identity, steps)
        return state, (info.acceptance_rate, info.is_divergent)

    def one(x):
        v, key = x
        state, (acceptance, diverging) = jax.lax.scan(step, blackjax.hmc.init(v, density), jax.random.split(key, moves))
        end = centre + root @ state.position
        stats = {"acceptance_rate": acceptance.mean(), "diverging": diverging[-1], "n_steps": moves * steps}
        return end, *pair(end), stats

    v = jax.scipy.linalg.solve_triangular(root, (u - centre).T, lower=True).T
    return in_batches(one, (v, jax.random.split(key, len(u))), batch)
