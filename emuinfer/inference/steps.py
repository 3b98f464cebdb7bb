"""From a model to a likelihood that samplers can take: optimum, local surrogate, compression.

First `Fit`, one star that takes the steps; then the steps themselves in pure JAX, the same for one star and for thousands.
In them, `density` is an `Unconstrained`, `likelihood` a pytree of the star's pixels, `full` the full emulator on the
grid (`full_on_grid`). They decide nothing that depends on the star, so that one program serves all.
"""

import dataclasses
import sys
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..emulators import fit_local
from ..entry import public
from ..errors import LabelError, SamplingError
from ..labels import sobol_design
from ..likelihoods import Likelihood, SpectraLikelihood, SpectrumModel, Unconstrained
from ..likelihoods.forward_model import motion
from ..samplers.optimise import ascend, covariance_and_notes, covariance_of, root_of
from .config import STAR, SamplingConfig

SCREENED = 256  # Sobol points of the domain whose density is looked at to choose the optimiser's starts
STARTS = 4
AT_ONCE = 8  # spectra of the full emulator that are computed together
ROUNDS = 3  # climbs: the first with all weights 1, before each the model's errors, before the later ones the weights
STEPS = 25  # at most in each climb
WIDEN = 1.6  # width of the points behind a local surrogate, in posterior standard deviations


@dataclasses.dataclass(frozen=True)
class Fit:
    """A star at one place of its posterior; each step gives a new one.

    **Attributes:**

    - `model`, `density`: the model, and it as an `Unconstrained` log density.
    - `likelihood`: of the pixels, with outlier weights, model errors and, once localised, the star's own surrogate.
    - `z`: position `(dim,)`.
    - `compressed`: the same likelihood compressed around `z`, which is what samplers take; None before `localised`.
    - `covariance`, `notes`: of the Laplace approximation at `z`, `(dim, dim)`, and sentences about repairs of it.
    """

    model: SpectrumModel
    density: Unconstrained
    likelihood: SpectraLikelihood
    z: np.ndarray
    config: SamplingConfig = STAR
    compressed: Likelihood | None = None
    covariance: np.ndarray | None = None
    notes: tuple = ()

    @property
    def values(self) -> dict[str, float]:
        """The sampled parameters at `z` in their own units."""
        return {k: float(v) for k, v in _constrain(self.density, jnp.asarray(self.z, jnp.float32)).items()}

    @property
    def full(self) -> SpectraLikelihood:
        """The likelihood of the pixels through the full emulator."""
        return self.likelihood.with_emulators(self.model.full_on_grid())

    @classmethod
    @public
    def screened(cls, model, *, seed=0, config=STAR, guesses: dict | None = None) -> tuple["Fit", np.ndarray]:
        """The likeliest of points that fill the domain, and the `STARTS` best of them `(STARTS, dim)`.

        `guesses`: name to `(n,)` of some parameters, such as draws of a guide, which take the place of as many points.
        """
        density = Unconstrained(model)
        labels = model.label_space.to_dict(sobol_design(model.label_space, SCREENED, seed=seed))
        # Guesses in blocks: each block of a Sobol sequence fills the domain, every fourth point of it does not.
        guess = lambda name: np.repeat(model.first_guesses(name), SCREENED // len(model.first_guesses(name)))
        values = {n: np.array(labels[n] if n in labels else guess(n), float) for n in density.names}
        for name, some in (guesses or {}).items():
            values[name][: len(some)] = some
        z = density.unconstrain(values).astype(np.float32)
        lp = np.asarray(_densities(density, jnp.asarray(z), model.likelihood))
        if not np.isfinite(lp).any():
            raise SamplingError(
                "The posterior density is not finite anywhere in the emulator's domain. Check the priors, and that the "
                "observation's fluxes and uncertainties are sensible."
            )
        best = z[np.argsort(-np.where(np.isfinite(lp), lp, -np.inf))[:STARTS]]
        return cls(model, density, model.likelihood, best[0], config), best

    @classmethod
    @public
    def given(cls, model, start: dict, *, config=STAR) -> "Fit":
        """At `start`, which must name every sampled parameter, with the model's errors and outlier weights there."""
        density = Unconstrained(model)
        if missing := [n for n in density.names if n not in start]:
            raise LabelError(f"start has no value for {', '.join(missing)}. Sampled are: {', '.join(density.names)}.")
        values = {n: np.array([float(start[n])]) for n in density.names}
        if bad := [n for n, v in values.items() if not np.isfinite(v).all()]:
            raise LabelError(f"start has values that are not finite, for {', '.join(bad)}.")
        z = density.unconstrain(values)[0].astype(np.float32)
        return cls(model, density, _settled(density, model.likelihood, z), z, config)

    @public
    def optimised(self, starts) -> "Fit":
        """At the optimum from `starts` `(n, dim)`, the likeliest first."""
        z, likelihood = _optimum(self.density, self.likelihood, jnp.asarray(starts))
        return dataclasses.replace(self, z=np.asarray(z), likelihood=likelihood)

    @public
    def localised(self, seed=0) -> "Fit":
        """With a surrogate of the full emulator from draws of the Laplace approximation, compressed, at its optimum."""
        normals = np.random.default_rng([seed, 3]).standard_normal((self.config.local, self.density.dim))
        points = _spread(self.density, self.likelihood, jnp.asarray(self.z), jnp.asarray(normals, jnp.float32))
        return self._around(self.z, points)

    @public
    def localised_again(self, positions, seed=0) -> "Fit":
        """With a surrogate from draws `(chains, draws, dim)` of the posterior itself, which the Laplace approximation may
        miss; the covariance is that of the draws."""
        flat = positions.reshape(-1, positions.shape[-1])
        rows = np.random.default_rng([seed, 9]).choice(len(flat), self.config.local)
        centre = flat.mean(0)
        points = centre + WIDEN * (flat[rows] - centre)
        again = self._around(centre, jnp.asarray(points, jnp.float32))
        covariance = np.cov(flat.T)
        # Too few draws, or chains that stood still, do not tell their covariance.
        if len(flat) < 10 * flat.shape[1] or not _is_positive(covariance):
            return again
        return dataclasses.replace(again, covariance=covariance, notes=())

    def _around(self, z, points):
        star = self.density, self.likelihood, self.model.full_on_grid()
        found = _around(*star, jnp.asarray(z, jnp.float32), points, self.config, batch_size=AT_ONCE)
        covariance, notes = covariance_and_notes(found.information)
        return dataclasses.replace(
            self,
            z=np.asarray(found.z),
            likelihood=found.likelihood,
            compressed=found.compressed,
            covariance=covariance,
            notes=notes,
        )

    @public
    def constrained(self, positions) -> dict[str, np.ndarray]:
        """Parameters at `positions` `(…, dim)`, each `(n,)` float64 with the leading axes as one."""
        flat = jnp.asarray(positions.reshape(-1, positions.shape[-1]), jnp.float32)
        return {k: np.asarray(v, np.float64) for k, v in _constrain_rows(self.density, flat).items()}


def _is_positive(covariance) -> bool:
    """Whether a matrix is a covariance that float32 can tell from a singular one."""
    sd = np.sqrt(np.diag(covariance))
    return bool((sd > 0).all()) and np.linalg.eigvalsh(covariance / np.outer(sd, sd))[0] > 1e-6


@public
def find_optimum(
    model: SpectrumModel,
    *,
    start: dict | None = None,
    seed: int = 0,
    config: SamplingConfig = STAR,
    progress: bool = True,
) -> Fit:
    """The highest posterior density, by screening the domain, damped Newton steps, outlier weights and a local
    surrogate of the full emulator. `start` (parameter name to value) replaces the search over the domain.

    **Raises:** `LabelError` where `start` lacks a sampled parameter or is not finite, `SamplingError` where the density is
    finite nowhere.
    """
    if start is None:
        fit, starts = Fit.screened(model, seed=seed, config=config)
        say(progress, f"optimising from {len(starts)} starts")
        fit = fit.optimised(starts)
    else:
        fit = Fit.given(model, start, config=config)
    say(progress, f"fitting a local surrogate to {config.local} spectra of the full emulator around the optimum")
    return fit.localised(seed)


def say(progress: bool, text: str) -> None:
    """A line about what is going on, on standard error."""
    if progress:
        print(text, file=sys.stderr, flush=True)


class Localised(NamedTuple):
    """A star whose likelihood is compressed: where it is highest, and what it was made from."""

    z: jax.Array  # (dim,)
    information: jax.Array  # (dim, dim), the Fisher information there
    compressed: Likelihood
    likelihood: Any  # of the pixels: weights, model errors, local surrogate


def settled(likelihood, values):
    """With the model's errors, then the outlier weights, at `values`."""
    return likelihood.with_model_variance(values).with_weights(values)


def climb(density, likelihood, starts, steps=STEPS):
    """The highest of the optima from `starts` `(n, dim)`: `(dim,)`."""
    z, lp, _, _ = ascend(
        lambda x: density.log_density(x, likelihood),
        starts,
        likelihood,
        metric=density.information,
        max_steps=steps,
        tolerance=1e-3,
        max_move=3.0,
    )
    return z[jnp.nanargmax(jnp.where(jnp.isfinite(lp), lp, -jnp.inf))]


def optimum(density, likelihood, starts):
    """The optimum from `starts` `(n, dim)`, the likeliest first: `(z, likelihood)` with outlier weights and model errors."""
    if not likelihood.arms:  # no pixels, and so neither
        return climb(density, likelihood, starts), likelihood
    variances = lambda whole: [part.noise.model_variance for part in whole.arms]
    weights = lambda whole: [part.noise.weight for part in whole.arms]
    noises = lambda whole: variances(whole) + weights(whole)

    def one(carry, count):
        z, state = carry
        values = density.values_at(z[0])
        found = eqx.tree_at(noises, likelihood, state).with_model_variance(values)
        # What a first guess takes for outliers are its own errors.
        weight = [
            jnp.where(count > 0, after, before)
            for after, before in zip(weights(found.with_weights(values)), weights(found))
        ]
        state = variances(found) + weight
        best = climb(density, eqx.tree_at(noises, likelihood, state), z)
        return (jnp.broadcast_to(best, z.shape), state), None

    # A loop, so that the climb is compiled once; later rounds start from as many copies of the best.
    (z, state), _ = jax.lax.scan(one, (starts, noises(likelihood)), jnp.arange(ROUNDS))
    return z[0], eqx.tree_at(noises, likelihood, state)


def spread(density, likelihood, z, normals, widen=WIDEN):
    """Points `(n, dim)` around `z`: `normals` `(n, dim)` in the Laplace approximation, widened to cover the tails."""
    return z + widen * normals @ root_of(covariance_of(density.information(z, likelihood))).T


def around(density, likelihood, full, z, points, config, batch_size=None) -> Localised:
    """The star with a local surrogate from spectra of the full emulator at `points` `(n, dim)` around `z`, compressed.

    `batch_size`: spectra that are computed together; all by default.
    """
    likelihood = likelihood.localised(surrogates(density, likelihood, full, points, config, batch_size))
    values = density.values_at(z)
    likelihood = settled(likelihood, values).with_model_errors(values)
    compressed = likelihood.compressed(values)
    z = climb(density, compressed, z[None])
    return Localised(z, density.information(z, compressed), compressed, likelihood)


def surrogates(density, likelihood, full, points, config, batch_size=None):
    """A `LocalSpectrum` for each of the star's spectra, from the full emulator at `points` `(n, dim)`, and behind them the
    likelihoods of what else is known of the star with surrogates of their own."""
    values = jax.vmap(density.values_at)(points)
    found, full = [], likelihood.with_emulators(full)
    for part, own in full.parts(values):
        parameters, flux = spectra(part, own, batch_size)
        free = _free(density, own, part.label_space)
        found.append(fit_local(parameters, flux, free, config.test, config.components))
    moving = set(density.names)
    return (*found, *(one.surrogate(values, moving, config, batch_size) for one in full.others))


def spectra(part, values, batch_size=None) -> tuple[jax.Array, jax.Array]:
    """Local parameters `(n, n_parameters)` and normalised flux `(n, n_pix)` of one spectrum at `values`, each `(n,)` or a scalar."""
    n = max(jnp.size(v) for v in values.values())
    rows = jax.tree.map(lambda v: jnp.broadcast_to(v, (n,)), values)
    flux = jax.lax.map(part.normalised_flux, rows, batch_size=batch_size or n)
    return jax.vmap(part.local_parameters)(rows), flux


def _free(density, values, label_space):
    """Indices of the local parameters that vary over the draws."""
    moving = set(density.names) | ({"rv"} if any(n.startswith("rv_offset") for n in density.names) else set())
    moving |= {"vbroad"} if "log10_resolution" in moving else set()
    names = (*label_space.names, *motion(values))
    return np.flatnonzero([n in moving for n in names])


@eqx.filter_jit
def _constrain(density, z):
    return density.constrain(z)


@eqx.filter_jit
def _constrain_rows(density, rows):
    return jax.vmap(density.constrain)(rows)


@eqx.filter_jit
def _densities(density, z, likelihood):
    return jax.lax.map(lambda one: density.log_density(one, likelihood), z)


@eqx.filter_jit
def _settled(density, likelihood, z):
    return settled(likelihood, density.values_at(z))


_optimum, _spread, _around = (eqx.filter_jit(step) for step in (optimum, spread, around))
