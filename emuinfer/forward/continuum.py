"""A smooth multiplicative continuum, integrated out of the likelihood analytically, in JAX and float32.

The data are `d ~ N(m (B c), 1/w)` with model flux `m`, inverse variances `w`, a Chebyshev basis `B` and coefficients
`c ~ N(c0, S)`. Everything is linear in `c`, so that the integral over it is a Gaussian one (e.g. Hogg, Price-Whelan &
Leistedt 2020, arXiv:2005.14199; Luger, Foreman-Mackey & Hogg 2017, RNAAS 1, 7).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..errors import ObservationError

LANES = 128  # partial sums: float32 sums of 20,000 terms keep six digits that way


def default_terms(wavelength, angstrom_per_term: float = 25.0) -> int:
    """Coefficients for a continuum that may bend every `angstrom_per_term`, at least 2."""
    wavelength = np.asarray(wavelength, dtype=float)
    return max(2, 1 + int(np.ceil(np.ptp(wavelength) / angstrom_per_term)))


def chebyshev_basis(wavelength, n_terms: int) -> np.ndarray:
    """Chebyshev polynomials of degrees 0 to `n_terms - 1` over the range of `wavelength`, `(n_terms, n_pix)`."""
    wavelength = np.asarray(wavelength, dtype=float)
    x = 2 * (wavelength - wavelength.min()) / max(np.ptp(wavelength), 1e-300) - 1
    return np.polynomial.chebyshev.chebvander(x, n_terms - 1).T


class Continuum(eqx.Module):
    """The continuum `sum_a c_a T_a(x)`, with `x` the wavelength scaled to [-1, 1], and its prior.

    **Arguments:**

    - `wavelength`: `(n_pix,)` Å.
    - `n_terms`: number of coefficients; default one per 25 Å and one more.
    - `prior_mean`, `prior_sd`: of the coefficients, `(n_terms,)` or one value for all. The default mean is 1, 0, 0, …,
      which fits data scaled to a continuum near 1. Standard deviations are positive.
    """

    basis: Float[
        Array, "n_sums n_pix"
    ]  # 2 n_terms - 1 of them: products of two Chebyshev polynomials are sums of two others
    mean: Float[Array, " n_terms"]
    sd: Float[Array, " n_terms"]

    def __init__(self, wavelength, n_terms: int | None = None, *, prior_mean=None, prior_sd=1.0):
        n_terms = default_terms(wavelength) if n_terms is None else int(n_terms)
        if not 1 <= n_terms <= max(1, len(wavelength) // 4):
            raise ObservationError(
                f"A continuum of {n_terms} terms for {len(wavelength)} pixels; give 1 to {len(wavelength) // 4}."
            )
        sd = np.broadcast_to(np.asarray(prior_sd, dtype=float), (n_terms,))
        if not (np.isfinite(sd) & (sd > 0)).all():
            raise ObservationError(
                f"Prior standard deviations of the continuum must be positive and finite; got {prior_sd}."
            )
        mean = (
            np.eye(n_terms)[0]
            if prior_mean is None
            else np.broadcast_to(np.asarray(prior_mean, dtype=float), (n_terms,))
        )
        self.basis = jnp.asarray(chebyshev_basis(wavelength, 2 * n_terms - 1), jnp.float32)
        self.mean, self.sd = jnp.asarray(mean, jnp.float32), jnp.asarray(sd, jnp.float32)

    @property
    def n_terms(self) -> int:
        return len(self.mean)

    def __call__(self, coefficients: Float[Array, " n_terms"]) -> Float[Array, " n_pix"]:
        """The continuum at the pixels."""
        return _series(coefficients, self.basis)

    def log_likelihood(
        self,
        model: Float[Array, " n_pix"],
        data: Float[Array, " n_pix"],
        ivar: Float[Array, " n_pix"],
        reference_ivar: Float[Array, " n_pix"],
        factors: Float[Array, "rank n_pix"] | None = None,
        white=None,
    ) -> tuple[Float[Array, ""], Float[Array, " n_terms"]]:
        """Log marginal likelihood of `data` and the mean of the coefficients given the data.

        `ivar` are the inverse variances, 0 where a pixel is not
        to be used; they may depend on parameters. The data should be scaled to a median near 1. The log likelihood is
        given relative to that of a perfect fit with `reference_ivar` (constant, for instance the data's own; positive
        where `ivar` is), that is without the constant `0.5 sum log(reference_ivar / 2 pi)` over the used pixels, which
        for 20,000 pixels would cost float32 two digits. See `log_likelihood_constant`.

        `factors`: errors shared by pixels, with unit Gaussian coefficients that are integrated out as the
        continuum's are, so that the noise has the covariance diag(1 / ivar) + factorsᵀ factors.

        `white`: a `Correlation` where the noise of pixels is correlated: `ivar` are then those of its white combinations.

        Returns `(log_likelihood, coefficients)`. The coefficients carry no gradient.
        """
        if white is not None or (factors is not None and factors.shape[0]):
            factors = jnp.zeros((0, len(data))) if factors is None else factors
            rows = jnp.concatenate([self.basis[: self.n_terms] * model, factors])
            if white is not None:
                rows, data = white(rows), white(data)
            return self._with_rows(rows, data, ivar, reference_ivar)
        terms = self.basis, self.mean, self.sd
        return _marginal(*jax.lax.stop_gradient(terms), model, data, ivar, reference_ivar)

    def _with_rows(self, rows, data, ivar, reference_ivar):
        """As `log_likelihood`; the first of `rows` `(n_terms + rank, n_pix)` have the continuum's priors, the others unit ones."""
        solved = self._solve_rows(rows, data, ivar)
        used, w, prior, precision, r = solved.used, solved.weight, solved.prior, solved.precision, solved.residual
        pixels = jnp.where(used, w * r**2 - jnp.log(jnp.where(used, ivar / reference_ivar, 1.0)), 0.0)
        chi2 = _sum(pixels) + jnp.sum((solved.guess - prior) ** 2 * precision) - solved.slope @ solved.step
        log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(solved.factor)) - jnp.log(solved.scale))
        log_det = log_det - jnp.sum(jnp.log(precision))
        return -0.5 * (chi2 + log_det), jax.lax.stop_gradient((solved.guess + solved.step)[: self.n_terms])

    def _solve_rows(self, rows, data, ivar) -> "_Solved":
        """The coefficients of `rows` given `data`, in two steps."""
        used = ivar > 0
        w = jnp.where(used, ivar, 0.0)
        ones = jnp.ones(len(rows) - self.n_terms)
        precision = jnp.concatenate([1.0 / self.sd**2, ones])
        prior = jnp.concatenate([self.mean, 0.0 * ones])
        h = (rows * w) @ rows.T + jnp.diag(precision)
        scale = 1.0 / jnp.sqrt(jnp.diagonal(h))
        h = h * scale[:, None] * scale
        factor = jax.scipy.linalg.cholesky(h + 1e-6 * jnp.eye(len(h)), lower=True)
        solve = lambda b: scale * jax.scipy.linalg.cho_solve((factor, True), scale * b)
        # As without factors: what float32 leaves of the slope at the first solution is removed by a second step.
        slope = lambda c, r: rows @ (w * r) - (c - prior) * precision
        guess = jax.lax.stop_gradient(prior + solve(slope(prior, data - prior @ rows)))
        r = data - guess @ rows
        b = slope(guess, r)
        return _Solved(used, w, precision, prior, scale, factor, guess, r, b, solve(b))

    def leave_one_out(
        self,
        model: Float[Array, " n_pix"],
        data: Float[Array, " n_pix"],
        ivar: Float[Array, " n_pix"],
        factors: Float[Array, "rank n_pix"] | None = None,
        white=None,
    ) -> tuple[Float[Array, " n_pix"], Float[Array, " n_pix"], Float[Array, " n_terms"]]:
        """Mean and variance of each pixel given all others, and the continuum's coefficients.

        Arguments as for `log_likelihood`; continuum and factors are integrated out. With the covariance C of the pixels and
        g = C⁻¹ (data − mean), pixel i has given the others the mean d_i − g_i / C⁻¹_ii and the variance 1 / C⁻¹_ii
        (Bürkner, Gabry & Vehtari 2021, Computational Statistics 36, 1243, eq. 11). Pixels with `ivar` 0 have the variance 0
        here.
        """
        factors = jnp.zeros((0, len(data))) if factors is None else factors
        rows = jnp.concatenate([self.basis[: self.n_terms] * model, factors])
        seen = (lambda x: x) if white is None else white
        rows, whitened = seen(rows), seen(data)
        solved = self._solve_rows(rows, whitened, ivar)
        coefficients = solved.guess + solved.step
        g = solved.weight * (whitened - coefficients @ rows)
        # The small inverse first: a triangular solve of thousands of pixels takes ten times as long.
        inverse = jax.scipy.linalg.solve_triangular(solved.factor, jnp.eye(len(rows)), lower=True)
        y = (inverse * solved.scale) @ (rows * solved.weight)
        diagonal = solved.weight
        if white is not None:
            g, y, diagonal = white.transposed(g), white.transposed(y), white.transposed_diagonal(diagonal)
        diagonal = diagonal - (y**2).sum(0)
        safe = jnp.where(solved.used, diagonal, 1.0)
        variance = jnp.where(solved.used, 1.0 / safe, 0.0)
        return data - g * variance, variance, coefficients[: self.n_terms]


class _Solved(NamedTuple):
    """What `_solve_rows` knows of the coefficients: `guess + step`, and the residual and the slope at `guess`."""

    used: Bool[Array, " n_pix"]
    weight: Float[Array, " n_pix"]
    precision: Float[Array, " n_rows"]
    prior: Float[Array, " n_rows"]
    scale: Float[Array, " n_rows"]
    factor: Float[Array, "n_rows n_rows"]
    guess: Float[Array, " n_rows"]
    residual: Float[Array, " n_pix"]
    slope: Float[Array, " n_rows"]
    step: Float[Array, " n_rows"]


def _gram(moments: Float[Array, " n_sums"], sd: Float[Array, " n_terms"]) -> Float[Array, "n_terms n_terms"]:
    """`1 + S^(1/2) B^T diag(weight) B S^(1/2)` from `moments`, the sums `sum T_a weight`.

    `T_a T_b = (T_(a+b) + T_|a-b|) / 2` (Abramowitz & Stegun 1964, eq. 22.7.24): 2 n - 1 sums over pixels instead of n².
    """
    plus, minus = _products(len(sd))
    gram = 0.5 * (moments[plus] + moments[minus]) * sd[:, None] * sd
    # Where data leave a combination of terms open, rounding could make the matrix indefinite: keep it above
    # float32's noise.
    return gram + (1.0 + 1e-6 * jnp.trace(gram) / len(sd)) * jnp.eye(len(sd), dtype=gram.dtype)


def _products(n):
    a = np.arange(n)
    return a[:, None] + a, np.abs(a[:, None] - a)


def _series(coefficients: Float[Array, " n"], basis: Float[Array, "n_sums n_pix"]) -> Float[Array, " n_pix"]:
    """`coefficients @ basis[: len(coefficients)]` by Clenshaw's recurrence: one pass over the pixels."""
    if len(coefficients) == 1:
        return jnp.broadcast_to(coefficients[0], basis.shape[1:])
    x = basis[1]
    last, before = jnp.zeros_like(x), jnp.zeros_like(x)
    for k in range(len(coefficients) - 1, 0, -1):
        last, before = coefficients[k] + 2.0 * x * last - before, last
    return coefficients[0] + x * last - before


def _solve(basis, mean, sd, model, data, ivar, reference_ivar):
    """`(log_likelihood, coefficients)`, and for the derivatives the residual and the inverse of the coefficients' information."""
    used = ivar > 0
    ivar = jnp.where(used, ivar, 0.0)
    terms = basis[: len(mean)]
    factor = jax.scipy.linalg.cholesky(_gram(basis @ (ivar * model**2), sd), lower=True)
    inverse = sd[:, None] * jax.scipy.linalg.cho_solve((factor, True), jnp.eye(len(sd), dtype=factor.dtype)) * sd

    def slope(c, r):
        """Half the gradient of chi² with respect to the coefficients, with opposite sign."""
        return terms @ (ivar * model * r) - (c - mean) / sd**2

    # A first solution; what float32 leaves of the slope there is removed by the second step.
    guess = mean + inverse @ slope(mean, data - model * _series(mean, basis))
    r = data - model * _series(guess, basis)
    b = slope(guess, r)
    step = inverse @ b
    pixels = jnp.where(used, ivar * r**2 - jnp.log(jnp.where(used, ivar / reference_ivar, 1.0)), 0.0)
    chi2 = _sum(pixels) + jnp.sum(((guess - mean) / sd) ** 2) - b @ step
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    return -0.5 * (chi2 + log_det), guess + step, inverse


@jax.custom_jvp
def _marginal(basis, mean, sd, model, data, ivar, reference_ivar):
    return _solve(basis, mean, sd, model, data, ivar, reference_ivar)[:2]


@_marginal.defjvp
def _marginal_slope(primals, tangents):
    """The derivatives in closed form, at a fraction of the passes over the pixels that automatic ones take.

    At the coefficients ĉ that minimise chi² these do not count (envelope theorem), so that with residual r, continuum C and
    q_i = T_i^T (B^T diag(w m²) B + S⁻¹)⁻¹ T_i, a sum of 2 n - 1 Chebyshev polynomials:
    d/dm = w r C - w m q, d/dd = -w r, d/dw = -(r² + m² q - 1/w) / 2.
    """
    basis, _mean, sd, model, data, ivar, reference_ivar = primals
    _, _, _, by_model, by_data, by_ivar, by_reference = tangents
    value, coefficients, inverse = _solve(*primals)
    used = ivar > 0
    plus, minus = _products(len(sd))
    of_q = jnp.zeros(len(basis)).at[plus].add(0.5 * inverse).at[minus].add(0.5 * inverse)
    q, level = _series(of_q, basis), _series(coefficients, basis)
    w, r = jnp.where(used, ivar, 0.0), data - model * level
    safe = jnp.where(used, ivar, 1.0)
    slope = jnp.where(used, r * r + model * model * q - 1.0 / safe, 0.0)
    change = (
        _sum(w * (r * level - model * q) * by_model)
        - _sum(w * r * by_data)
        - 0.5 * _sum(slope * by_ivar)
        - 0.5 * _sum(jnp.where(used, by_reference / reference_ivar, 0.0))
    )
    return (value, coefficients), (change, jnp.zeros_like(coefficients))


def log_likelihood_constant(reference_ivar) -> float:
    """What `log_likelihood` leaves out, in float64: `0.5 sum log(reference_ivar / 2 pi)` where positive."""
    ivar = np.asarray(reference_ivar, dtype=float)
    return float(0.5 * np.log(ivar[ivar > 0] / (2 * np.pi)).sum())


def _sum(x):
    """The sum of a vector, by `LANES` partial sums."""
    n = -(-x.shape[0] // LANES) * LANES
    return jnp.pad(x, (0, n - x.shape[0])).reshape(-1, LANES).sum(axis=0).sum()
