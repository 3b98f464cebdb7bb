"""The likelihood of a star's spectrophotometry: low-resolution spectra, colours and magnitudes through an emulator of them.

The numbers y, in the space in which the emulator predicts them (ln flux, magnitudes), are Gaussian,

    y = μ(labels) + c u + ε,   ε ~ N(0, diag(s(labels)² + σ²) + F Fᵀ + J diag(τ²) Jᵀ),

with the emulator's own scatter s and factors F, the data's errors σ, the derivatives J of μ by the labels, and τ, by how much the
scales of labels of two emulators may differ. u is 1 for the fluxes of a spectrum in unknown units and 0 for all else, and its
factor c is integrated out under a flat prior: only the shape of the spectrum counts. Everything of low rank goes through the
Woodbury identity (Golub & Van Loan 2013, section 2.1.4); the flat prior is the limit of a precision of zero.
"""

import dataclasses
from typing import Any, ClassVar, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..emulators import LocalSpectrum, fit_local
from ..labels import LabelSpace
from .base import LabelLikelihood
from .common_labels import elements_of, label_value
from .priors import domain_penalty


class TokenEmulator(Protocol):
    """What predicts numbers from labels, traceable by JAX in float32.

    `labels` with bounds `lower`, `upper` `(d,)`, and `kinds`, the names of the m numbers in order. `factors` `(m, r)`: covariance of
    low rank beside the variance that `predict` gives. A `vocabulary`, where it has one, says how the kinds are transformed and which
    are relative; without one, kinds `xp_bin_…` are ln flux relative to a common level, and all others are taken as they are.
    """

    labels: tuple[str, ...]
    lower: Any
    upper: Any
    kinds: tuple[str, ...]
    factors: Float[Array, "m r"]

    def predict(self, labels: Float[Array, " d"]) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """Mean and standard deviation `(m,)` of the transformed numbers at labels in their own units."""


class Held(eqx.Module):
    """An emulator that is no pytree: static, and compared by identity."""

    emulator: Any = eqx.field(static=True)

    def predict(self, labels: Float[Array, " d"]):
        """As the emulator does."""
        return self.emulator.predict(labels)


class Moments(eqx.Module):
    """Gaussian of the numbers at some labels; see the module's docstring. Entries of numbers that are not seen say nothing."""

    mean: Float[Array, " m"]
    variance: Float[Array, " m"]
    factors: Float[Array, "m k"]


class PhotometricLikelihood(LabelLikelihood):
    """Log likelihood of a star's numbers; `kinds` and all arrays are in the emulator's order. See the module's docstring."""

    emulator: Any  # or `Held`
    factors: Float[Array, "m r"]  # of it
    data: Float[Array, " m"]  # transformed; fluxes about a level; 0 where nothing is seen
    variance: Float[Array, " m"]
    seen: Float[Array, " m"]  # 1 or 0
    level: Float[Array, " m"]  # 1 for a flux whose unit is not known
    scale_errors: Float[Array, " d"]  # τ
    label_space: LabelSpace = eqx.field(static=True)  # of the emulator, all of its labels
    kinds: tuple[str, ...] = eqx.field(static=True)
    shares_labels: bool = eqx.field(static=True, default=False)  # with others, so that `scale_errors` count
    local: LocalSpectrum | None = None  # of mean and log variance

    site: ClassVar[str] = "xp"

    def parameters(self, values: dict) -> Float[Array, " d"]:
        """The emulator's labels at `values`, scaled to [-1, 1]."""
        own = [jnp.asarray(label_value(n, values), jnp.float32) for n in self.label_space.names]
        return self.label_space.scale(jnp.stack(own))

    def predicted(self, scaled: Float[Array, " d"]) -> Float[Array, " 2m"]:
        """Mean, and logarithm of the variance, one behind the other."""
        if self.local is not None:
            return self.local(scaled)
        mean, sd = self.emulator.predict(self.label_space.unscale(scaled))
        return jnp.concatenate([mean, 2.0 * jnp.log(sd)])

    def moments(self, values: dict) -> Moments:
        """Mean and covariance of the numbers at `values`."""
        scaled, m = self.parameters(values), len(self.kinds)
        both = self.predicted(scaled)
        error = 0.0 if self.local is None else self.local.error[:m] ** 2
        factors = self.factors
        if self.shares_labels:
            steps = self.scale_errors / self.label_space.half_width.astype(np.float32)
            moved = jax.vmap(lambda step: jax.jvp(lambda x: self.predicted(x)[:m], (scaled,), (step,))[1])
            factors = jnp.concatenate([factors, moved(jnp.diag(steps)).T], axis=1)
        return Moments(both[:m], jnp.exp(both[m:]) + self.variance + error, factors)

    def log_likelihood(self, values: dict) -> Float[Array, ""]:
        """Log likelihood with the level integrated out, and the soft wall around the emulator's domain."""
        at = self.moments(values)
        chi2, log_det = self._solved(at)
        return -0.5 * (chi2 + log_det) + domain_penalty(self.label_space, self.parameters(values))

    def chi2(self, values: dict):
        """Squared residuals in units of the covariance, of the numbers less the level."""
        free = self.seen.sum() - jnp.minimum((self.seen * self.level).sum(), 1.0)
        return self._solved(self.moments(values))[0], free

    def _weights(self, at: Moments):
        """Inverse variances `(m,)`, the columns of low rank with the level last `(m, k + 1)`, the Cholesky factor of their block
        in scaled columns, and the scale."""
        w = self.seen / at.variance
        columns = jnp.concatenate([at.factors, self.level[:, None]], axis=1)
        # The level's prior is flat; where no flux is seen its column is empty, and any precision serves.
        flat = jnp.where((self.seen * self.level).sum() > 0, 0.0, 1.0)
        precision = jnp.ones(columns.shape[1]).at[-1].set(flat)
        block = (columns.T * w) @ columns + jnp.diag(precision)
        scale = 1.0 / jnp.sqrt(jnp.diagonal(block))
        block = block * scale[:, None] * scale + 1e-6 * jnp.eye(len(block))
        return w, columns, jax.scipy.linalg.cholesky(block, lower=True), scale

    def _solved(self, at: Moments):
        """χ² and the log determinant, up to a constant."""
        w, columns, factor, scale = self._weights(at)
        r = self.seen * (self.data - at.mean)
        r = r - self.level * self._level(r, w)  # the likelihood does not know it, and float32 keeps its digits
        y = jax.scipy.linalg.solve_triangular(factor, scale * (columns.T @ (w * r)), lower=True)
        log_det = jnp.sum(self.seen * jnp.log(at.variance))
        log_det += 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor)) - jnp.log(scale))
        return jnp.sum(w * r**2) - y @ y, log_det

    def _level(self, residual, w):
        of = w * self.level
        return jnp.sum(of * residual) / jnp.maximum(jnp.sum(of), 1e-30)

    def information(self, values_at, z):
        """Fisher information on `z` of mean and variance, with the level integrated out.

        J and F count as constant. Half of the trace of (P ∂C P ∂C), P the inverse covariance with the level projected out.
        """

        def numbers(z):
            at = self.moments(values_at(z))
            return at.mean, jnp.log(at.variance)

        w, columns, factor, scale = self._weights(self.moments(values_at(z)))
        by_mean, by_variance = jax.jacfwd(numbers)(z)
        root = jnp.sqrt(w)[:, None]
        low = jax.scipy.linalg.solve_triangular(factor, scale[:, None] * (columns * root).T, lower=True)
        white = jnp.diag(self.seen) - low.T @ low
        mean, variance = root * by_mean, self.seen[:, None] * by_variance
        return mean.T @ white @ mean + 0.5 * variance.T @ white**2 @ variance

    def surrogate(self, values: dict, moving: set, config, batch_size=None) -> "PhotometricLikelihood":
        """With mean and log variance quadratic in the labels near `values` `(n,)`."""
        full = self.full()
        rows = jax.vmap(full.parameters)(values)
        names = self.label_space.names
        free = np.flatnonzero([bool(moving & set(elements_of(n, (*values,)))) for n in names])
        if not len(free):
            return full
        out = jax.lax.map(full.predicted, rows, batch_size=batch_size or len(rows))
        terms = 1 + len(free) + len(free) * (len(free) + 1) // 2
        local = fit_local(rows, out, free, config.test, min(terms, out.shape[1]))
        return eqx.tree_at(lambda s: s.local, full, local, is_leaf=lambda x: x is None)

    def full(self) -> "PhotometricLikelihood":
        """Through the emulator itself."""
        return eqx.tree_at(lambda s: s.local, self, None, is_leaf=lambda x: x is None)

    def beside_spectra(self) -> "PhotometricLikelihood":
        """With `scale_errors` in the covariance."""
        return dataclasses.replace(self, shares_labels=True)

    def observed(self):
        """The transformed data, of a spectrum about a level."""
        return jnp.where(self.seen > 0, self.data, jnp.nan)

    def simulated(self, values: dict, key):
        """Numbers `(m,)`, those of a spectrum at the level that fits the data best."""
        at = self.moments(values)
        first, second = jax.random.split(key)
        level = self._level(self.seen * (self.data - at.mean), self.seen / at.variance)
        noise = jnp.sqrt(at.variance) * jax.random.normal(first, at.mean.shape)
        shared = at.factors @ jax.random.normal(second, at.factors.shape[1:])
        return at.mean + self.level * level + noise + shared
