"""The No-U-Turn sampler with window adaptation (Hoffman & Gelman 2014; Stan's warm-up), by BlackJAX."""

import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import SamplingError
from ._compile import compile_once
from ._progress import bar, clock
from ._result import SamplerResult
from .optimise import laplace_covariance

SPREAD = (2.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.1, 0.0)   # tried in turn until a start has a finite density


def nuts(
    log_density, initial, data, *, seed, chains=4, warmup=500, draws=1000, target_acceptance=0.8, covariance=None,
    max_tree_depth=8, progress=True, chunk=None,
) -> SamplerResult:
    """Sample `log_density(z, data)` with several chains in one compiled program.

    **Arguments:**

    - `initial`: one position `(dim,)`, best an optimum, around which the chains start twice as widely as `covariance`
      says; or one start per chain, `(chains, dim)`.
    - `covariance`: `(dim, dim)`, a guess of the posterior's covariance, such as `laplace_covariance` gives (the default
      where `initial` is one position). The space is whitened with it, which makes warm-up short and trees shallow.
    - `warmup`, `draws`: steps per chain; warm-up adapts step size and dense mass matrix and is thrown away.
    - `target_acceptance`: of the step size adaptation; raise it towards 0.99 where there are divergences.
    - `max_tree_depth`: no trajectory is longer than `2**max_tree_depth - 1` steps. All chains advance together, so the
      longest trajectory sets the pace.
    - `chunk`: draws between two updates of the progress bar; it does not change the result.

    Raises `SamplingError` on bad shapes or if the log density is finite at no start.
    """
    initial = np.asarray(initial, np.float32)
    chains = _check(initial, chains, warmup, draws, covariance)
    notes = ()
    if initial.ndim == 1 and covariance is None:
        covariance, notes = laplace_covariance(log_density, initial, data)
    affine = _whitening(initial, covariance)
    key = jax.random.key(seed)
    settings = {"chains": chains, "max_tree_depth": int(max_tree_depth)}

    with clock("compiling", progress):
        start, compile_s = compile_once(_starts, log_density, data, affine, initial, key, chains=chains)
        u, finite = start(data, affine, initial, key)
        notes += _check_starts(np.asarray(finite))
        adapt, seconds = compile_once(
            _adapt, log_density, data, affine, u, key, steps=int(warmup), target=float(target_acceptance), **settings
        )
        compile_s += seconds
    with clock(f"warm-up, {warmup} steps", progress):
        begin = time.perf_counter()
        state, parameters, record = jax.block_until_ready(adapt(data, affine, u, key))
        warmup_s = time.perf_counter() - begin

    chunk = min(draws, chunk or -(-draws // 20))
    arguments = (affine, state, parameters, key)
    with clock("compiling", progress):
        run, seconds = compile_once(_draw, log_density, data, *arguments, np.int32(0), steps=int(chunk), **settings)
        compile_s += seconds
    begin = time.perf_counter()
    parts = []
    with bar(draws, "sampling", progress) as shown:
        for first in range(0, draws, chunk):
            state, part = run(data, affine, state, parameters, key, np.int32(first))
            parts.append(jax.tree.map(np.asarray, part))
            shown.update(min(chunk, draws - first))
    # The last chunk may run past the number asked for, so that one compiled program serves all chunks.
    positions, stats = jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, :draws], *parts)

    record = {name: np.asarray(x) for name, x in record.items()}
    step_size = np.asarray(parameters["step_size"])
    stats["step_size"] = np.broadcast_to(step_size[:, None], stats["lp"].shape).copy()
    root = affine[1]
    return SamplerResult(
        positions=positions,
        stats=stats,
        inverse_mass_matrix=root @ np.asarray(parameters["inverse_mass_matrix"]) @ root.T,
        warmup={
            "steps": int(warmup), "step_size": step_size, "gradients": int(record["n_steps"].sum()),
            "divergences": int(record["diverging"].sum()),
        },
        seed=seed,
        timings={"compile_s": compile_s, "warmup_s": warmup_s, "sampling_s": time.perf_counter() - begin},
        gradients=int(record["n_steps"].sum()) + int(stats["n_steps"].sum()),
        notes=notes,
    )


def _check(initial, chains, warmup, draws, covariance):
    if initial.ndim not in (1, 2) or initial.shape[-1] == 0:
        raise SamplingError(f"`initial` must have shape (dim,) or (chains, dim); got {initial.shape}.")
    for name, value in {"chains": chains, "warmup": warmup, "draws": draws}.items():
        if int(value) != value or value < 1:
            raise SamplingError(f"`{name}` must be a whole number of at least 1; got {value}.")
    dim = initial.shape[-1]
    if covariance is not None:
        matrix = np.asarray(covariance)
        if matrix.shape != (dim, dim) or not np.isfinite(matrix).all():
            raise SamplingError(f"`covariance` must be finite and of shape ({dim}, {dim}); got shape {matrix.shape}.")
    return int(chains) if initial.ndim == 1 else initial.shape[0]


def _check_starts(finite):
    if not finite.any():
        raise SamplingError(
            f"The log density is not finite at any of the {len(finite)} starts. Give starts inside the priors, such as the "
            "end of `optimise`, and check that the used pixels hold no NaN and no zero uncertainties."
        )
    bad = int((~finite).sum())
    return (f"{bad} of {len(finite)} starts had no finite log density; these chains start where others do.",) * (bad > 0)


def _whitening(initial, covariance):
    """`(centre, root)` such that `z = centre + root @ u` makes the posterior about standard normal in `u`."""
    centre = initial if initial.ndim == 1 else initial.mean(0, dtype=float).astype(np.float32)
    if covariance is None:
        return centre, np.eye(initial.shape[-1], dtype=np.float32)
    try:
        return centre, np.linalg.cholesky(np.asarray(covariance, float)).astype(np.float32)
    except np.linalg.LinAlgError as error:
        raise SamplingError(
            "`covariance` is not positive definite. Use `laplace_covariance`, which repairs that, or leave it out."
        ) from error


def _whitened(density, affine):
    centre, root = affine
    return lambda u: density(centre + root @ u)


def _starts(density, affine, initial, key, *, chains):
    """Starts in the whitened space, `(chains, dim)`, and whether each has a finite density."""
    inner = _whitened(density, affine)
    dim = initial.shape[-1]
    if initial.ndim == 2:
        u = jax.scipy.linalg.solve_triangular(affine[1], (initial - affine[0]).T, lower=True).T
    else:
        keys = jax.random.split(jax.random.fold_in(key, 0), chains)

        def one(key):
            tries = jnp.asarray(SPREAD)[:, None] * jax.random.normal(key, (len(SPREAD), dim))
            return tries[jnp.argmax(jnp.isfinite(jax.vmap(inner)(tries)))]

        u = jax.vmap(one)(keys)
    finite = jnp.isfinite(jax.vmap(inner)(u))
    donors = jnp.nonzero(finite, size=chains, fill_value=0)[0]
    donor = donors[jnp.arange(chains) % jnp.maximum(finite.sum(), 1)]
    return jnp.where(finite[:, None], u, u[donor]), finite


def _adapt(density, affine, u, key, *, chains, steps, target, max_tree_depth):
    """Stan's window adaptation of each chain; returns states, parameters and a record of the steps."""
    inner = _whitened(density, affine)
    adaptation = blackjax.window_adaptation(
        blackjax.nuts, inner, is_mass_matrix_diagonal=False, target_acceptance_rate=target, initial_step_size=0.5,
        adaptation_info_fn=lambda state, info, _: {"n_steps": info.num_integration_steps, "diverging": info.is_divergent},
        max_num_doublings=max_tree_depth,
    )

    def one(key, position):
        (state, parameters), record = adaptation.run(key, position, num_steps=steps)
        return state, {k: parameters[k] for k in ("step_size", "inverse_mass_matrix")}, record

    return jax.vmap(one)(jax.random.split(jax.random.fold_in(key, 1), chains), u)


def _draw(density, affine, state, parameters, key, first, *, chains, steps, max_tree_depth):
    """`steps` draws of every chain, from absolute step `first` on; returns the states, and (positions, statistics)."""
    inner = _whitened(density, affine)
    kernel = blackjax.nuts.build_kernel()
    chain_keys = jax.random.split(jax.random.fold_in(key, 2), chains)

    def step(carry, i):
        # The key depends on the absolute step only, so that the size of the chunks does not change the draws.
        keys = jax.vmap(lambda k: jax.random.fold_in(k, i))(chain_keys)
        carry, info = jax.vmap(
            lambda k, s, p: kernel(k, s, inner, p["step_size"], p["inverse_mass_matrix"], max_tree_depth)
        )(keys, carry, parameters)
        stats = {
            "lp": carry.logdensity, "diverging": info.is_divergent, "energy": info.energy,
            "n_steps": info.num_integration_steps, "tree_depth": info.num_trajectory_expansions,
            "acceptance_rate": info.acceptance_rate,
        }
        return carry, (affine[0] + carry.position @ affine[1].T, stats)

    state, record = jax.lax.scan(step, state, first + jnp.arange(steps))
    return state, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), record)
