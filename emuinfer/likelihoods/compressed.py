"""A star's likelihood as a quadratic form of a few numbers: exact where the surrogate is, and independent of the pixels.

Around a star the model flux is `mean + a(p) @ basis` (`LocalSpectrum`), and the continuum moves by a fraction of the
noise. With the continuum C and the flux m of the optimum, the residual of the data d is

    r(a, θ) = d − C (mean + a @ basis) − θ @ Z,   Z = [m T_0, m T_1, …; emulator factors × level]

linear in a and in θ, the changes of the continuum's coefficients and the coefficients of the emulator's error, both with
Gaussian priors. So the likelihood with θ integrated out, for diagonal noise W⁻¹, is exp(−½ A Q A) with A = (1, a) and a
small matrix Q (Woodbury identity; Golub & Van Loan 2013, section 2.1.4). Only the jitter changes W: Q is tabulated over
its logarithm and interpolated by a cubic spline. Products of changes of m and of C are left out: they are
second order in the noise, and the verification of a fit, which uses all pixels, contains them.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..labels import LabelSpace
from ..labels.features import quadratic_terms
from .base import Likelihood
from .forward_model import local_parameters

LOWEST, HIGHEST, NODES = -4.5, -0.7, 64  # log10 of the jitter: below it counts as none
BLOCKS = 64  # of pixels of like noise, see `Grams`


class CompressedLikelihood(Likelihood):
    """Log likelihood of one star as a function of local parameters and jitter; see the module's docstring."""

    centre: Float[Array, " n_parameters"]
    whiten: Float[Array, "n_parameters n_free"]
    coefficients: Float[Array, "n_terms components"]
    quadratic: Float[Array, "nodes size size"]  # spline coefficients; size: 1 + components
    noise: Float[Array, " nodes"]  # spline coefficients of the information on log10 of the jitter
    label_space: LabelSpace = eqx.field(static=True)
    beside: tuple = ()  # as of the pixels that it was made from, and not compressed

    def components(self, values: dict) -> Float[Array, " size"]:
        """A = (1, a) at `values`."""
        parameters = local_parameters(self.label_space, values)
        a = quadratic_terms((parameters - self.centre) @ self.whiten) @ self.coefficients
        return jnp.concatenate([jnp.ones(1, a.dtype), a])

    def log_likelihood(self, values: dict) -> Float[Array, ""]:
        """Log likelihood relative to the constant of the pixels that it was made from."""
        a = self.components(values)
        of_pixels = -0.5 * a @ spline(self.quadratic, values["log10_jitter"]) @ a
        return sum((one.log_likelihood(values) for one in self.beside), of_pixels)

    def information(self, values_at, z):
        """Fisher information on `z`; see `Likelihood`."""

        def components(z):
            values = values_at(z)
            return self.components(values), values["log10_jitter"]

        _, log10_jitter = components(z)
        by_z, jitter_by_z = jax.jacfwd(components)(z)
        quadratic, noise = spline(self.quadratic, log10_jitter), spline(self.noise, log10_jitter)
        of_pixels = by_z.T @ quadratic @ by_z + noise * jnp.outer(jitter_by_z, jitter_by_z)
        return sum((one.information(values_at, z) for one in self.beside), of_pixels)

    def declare(self, values: dict, observe: bool = True, site: str = "flux") -> None:
        """Tell NumPyro of the data, of whose pixels nothing is left: a factor."""
        import numpyro

        numpyro.factor(site, self.log_likelihood(values))


def compress(spectrum, coefficients, model_flux) -> CompressedLikelihood:
    """The compressed likelihood of a `PixelLikelihood` with a `LocalModel`, and with variances, weights and factors set.

    `coefficients` `(n_terms,)` of the continuum and `model_flux` `(n_pix,)` at the optimum. Pure JAX.
    """
    local, noise, continuum = spectrum.forward.local, spectrum.noise, spectrum.continuum
    level = continuum(coefficients)
    x = jnp.concatenate([(local.mean * level - spectrum.flux)[None], local.basis * level])
    z = jnp.concatenate([continuum.basis[: continuum.n_terms] * model_flux, noise.factors * noise.level])
    rows = noise.white(jnp.concatenate([x, z]))
    precision = jnp.concatenate([1.0 / continuum.sd**2, jnp.ones(len(noise.factors))])
    shift = jnp.concatenate([continuum.mean - coefficients, jnp.zeros(len(noise.factors))])
    grams = Grams(rows, noise)
    at = lambda log10_jitter: _quadratic(grams(log10_jitter), len(x), precision, shift, noise, log10_jitter)
    quadratic, by_noise = jax.lax.map(at, jnp.asarray(nodes(), jnp.float32))
    inverse = jnp.asarray(_spline_inverse(), jnp.float32)
    return CompressedLikelihood(
        local.centre,
        local.whiten,
        local.coefficients,
        jnp.einsum("ij,jkl->ikl", inverse, quadratic),
        inverse @ by_noise,
        spectrum.forward.label_space,
        spectrum.beside,
    )


class Grams(eqx.Module):
    """rows W rowsᵀ for any jitter j, at the cost of two such products in all.

    W = weight / (v + j² l²) with the level l and the variance v without the jitter. The pixels are sorted by u = l² / v and divided into
    blocks, in which 1 / (1 + j² u) is taken to be linear in u: exact where u is the same, wrong by less than (Δu / u)² / 7 of a pixel's
    weight.
    """

    zeroth: Float[Array, "blocks n_rows n_rows"]
    first: Float[Array, "blocks n_rows n_rows"]
    middle: Float[Array, " blocks"]

    def __init__(self, rows: Float[Array, "n_rows n_pix"], noise):
        variance = noise.variance + noise.model_variance
        u = jnp.where(noise.weight > 0, noise.level**2 / variance, 0.0)
        n, blocks = rows.shape[1], min(BLOCKS, rows.shape[1])
        order = jnp.argsort(u)
        width = -(-n // blocks)
        split = lambda a: jnp.pad(a[..., order], [(0, 0)] * (a.ndim - 1) + [(0, blocks * width - n)]).reshape(
            *a.shape[:-1], blocks, width
        )
        w, u, rows = split(noise.weight / variance), split(u), split(rows)
        self.middle = jnp.sum(w * u, 1) / jnp.maximum(jnp.sum(w, 1), np.float32(1e-30))
        weighted = rows * w
        self.zeroth = jnp.einsum("ibp,jbp->bij", weighted, rows)
        self.first = jnp.einsum("ibp,jbp->bij", weighted * (u - self.middle[:, None]), rows)

    def __call__(self, log10_jitter) -> Float[Array, "n_rows n_rows"]:
        square = 10.0 ** (2.0 * log10_jitter)
        left = 1.0 / (1.0 + square * self.middle)
        return jnp.tensordot(left, self.zeroth, 1) - jnp.tensordot(square * left**2, self.first, 1)


def _quadratic(gram, k, precision, shift, noise, log10_jitter):
    """Q and the information on the jitter's logarithm for one jitter; the first `k` rows of `gram` are x, the others Z."""
    variance = noise.total({"log10_jitter": log10_jitter})
    used = noise.weight > 0
    w = noise.weight / variance
    h = gram[k:, k:] + jnp.diag(precision)
    scale = 1.0 / jnp.sqrt(jnp.diagonal(h))
    factor = jax.scipy.linalg.cholesky(h * scale[:, None] * scale + 1e-6 * jnp.eye(len(h)), lower=True)
    y = (gram[k:, :k] - jnp.zeros((len(h), k)).at[:, 0].set(precision * shift)) * scale[:, None]
    y = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor)) - jnp.log(scale)) - jnp.sum(jnp.log(precision))
    log_noise = jnp.sum(jnp.where(used, jnp.log(jnp.where(used, w / noise.reference_ivar, 1.0)), 0.0))
    constant = jnp.sum(precision * shift**2) + log_det - log_noise
    slope = 2.0 * np.log(10.0) * (10.0**log10_jitter * noise.level) ** 2 / variance
    return (gram[:k, :k] - y.T @ y).at[0, 0].add(constant), 0.5 * jnp.sum(used.astype(slope.dtype) * slope**2)


def nodes() -> np.ndarray:
    return np.linspace(LOWEST, HIGHEST, NODES)


def _spline_inverse() -> np.ndarray:
    """From values at the nodes to coefficients of uniform cubic B-splines, with zero slope at both ends."""
    matrix = np.zeros((NODES, NODES))
    for i in range(NODES):
        for j, w in ((i - 1, 1 / 6), (i, 4 / 6), (i + 1, 1 / 6)):
            matrix[i, abs(j) if j < NODES else 2 * (NODES - 1) - j] += w
    return np.linalg.inv(matrix)


def spline(coefficients, x):
    """The spline of `_spline_inverse` at `x`, constant beyond its ends; `coefficients` `(NODES, …)`."""
    position = jnp.clip((x - LOWEST) * ((NODES - 1) / (HIGHEST - LOWEST)), 0.0, NODES - 1.0)
    first = jnp.clip(jnp.floor(position), 0, NODES - 2).astype(jnp.int32)
    t = position - first.astype(position.dtype)
    weights = jnp.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6.0
    index = jnp.abs(first + jnp.arange(-1, 3))
    index = jnp.where(index > NODES - 1, 2 * (NODES - 1) - index, index)
    return jnp.tensordot(weights, coefficients[index], axes=1)
