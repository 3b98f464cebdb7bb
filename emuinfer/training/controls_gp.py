"""Fit of `LogitGP`: Gaussian processes for principal components, length scales by marginal likelihood, on the host."""

import jax.numpy as jnp
import numpy as np

from ..emulators.base import depth_from_flux
from ..emulators.controls_gp import LogitGP, gp_features, matern52
from ..emulators.controls_pixels import PixelGrid
from .controls import _replace, check_spectra, principal_components

# Components 1, 2, 3, … share length scales within these groups; the last takes all that are left.
GROUPS = (1, 1, 1, 1, 2, 4, 10, 20, 60)


def fit_logit_gp(
    label_space,
    labels,
    flux,
    wavelength,
    *,
    medium,
    components=300,
    groups=GROUPS,
    epsilon=0.003,
    noise=1e-6,
    base=None,
    rows_for_lengths=1200,
    iterations=30,
    seed=0,
) -> LogitGP:
    """Gaussian processes with Matérn 5/2 kernels, one length scale per label and group of components.

    The length scales maximise the marginal likelihood with each component's amplitude profiled out (Rasmussen &
    Williams 2006, eq. 5.8), summed over the group weighted by the components' standard deviations, on at most
    `rows_for_lengths` spectra. `noise` is the nugget in units of the kernel's amplitude: the spectra have no noise, and
    it only keeps the matrices invertible. With `base`, an emulator in x (`LogitPCA`, `LogitGP`), what is learned is the
    difference of the spectra from it. Raises `TrainingError` as `fit_polynomial` does.
    """
    scaled, flux = check_spectra(label_space, labels, flux, wavelength)
    x = depth_from_flux(flux, epsilon)
    if base is not None:
        x = x - base_depths(base, scaled)
    mean, basis, coefficients = principal_components(x, components)
    inputs = gp_features(label_space, scaled, np)
    sizes = _group_sizes(groups, basis.shape[0])
    rows = np.sort(np.random.default_rng(seed).permutation(len(inputs))[:rows_for_lengths])
    lengths, weights, first = [], [], 0
    for size in sizes:
        target = coefficients[:, first : first + size]
        length = fit_lengths(inputs[rows], target[rows], noise, iterations, lengths[-1] if lengths else None)
        lengths.append(length)
        weights.append(solve(inputs, target, length, noise))
        first += size
    emulator = LogitGP(
        label_space, PixelGrid.from_wavelength(wavelength), medium, len(inputs), sizes, epsilon, base
    )
    arrays = {"mean": mean, "basis": basis, "inputs": inputs, "inverse_length": 1.0 / np.array(lengths)}
    emulator = _replace(emulator, **{k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()})
    return _replace(emulator, weights=[jnp.asarray(w, jnp.float32) for w in weights])


def base_depths(base, scaled) -> np.ndarray:
    """x of `base` at all stored pixels for scaled labels `(n, n_labels)`."""
    import equinox as eqx

    depth = eqx.filter_jit(lambda e, s: e.depth(s))
    return np.stack([np.asarray(depth(base, jnp.asarray(s, jnp.float32))) for s in scaled]).astype(np.float64)


def _group_sizes(groups, n):
    """`groups` cut or extended by one more group to `n` components in all."""
    sizes = []
    for size in (*groups, n):
        sizes.append(min(size, n - sum(sizes)))
        if sum(sizes) == n:
            return tuple(sizes)


def solve(inputs, target, length, noise) -> np.ndarray:
    """Weights (K + noise)⁻¹ `target` in float64."""
    from scipy.linalg import cho_factor, cho_solve

    kernel = matern52(squared_distances(inputs / length), np)
    kernel[np.diag_indices(len(kernel))] += noise
    return cho_solve(cho_factor(kernel, lower=True, overwrite_a=True), target)


def squared_distances(a) -> np.ndarray:
    norm = (a * a).sum(1)
    return np.maximum(norm[:, None] + norm[None] - 2.0 * a @ a.T, 0.0)


def fit_lengths(inputs, target, noise, iterations=30, start=None) -> np.ndarray:
    """Length scales `(n_labels,)` that maximise the marginal likelihood of coefficients `target` `(n, k)`."""
    from scipy.optimize import minimize

    start = np.full(inputs.shape[1], 5.0) if start is None else start
    weights = target.std(0) / target.std(0).sum()
    found = minimize(
        _negative_log_likelihood,
        np.log(start),
        args=(inputs, target, weights, noise),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-2.0, 5.0)] * inputs.shape[1],
        options={"maxiter": iterations},
    )
    return np.exp(found.x)


def _negative_log_likelihood(log_length, inputs, target, weights, noise):
    """Per spectrum, and its gradient in the logarithms of the length scales."""
    from scipy.linalg import lapack

    n, scaled = len(inputs), inputs / np.exp(log_length)
    r = np.sqrt(5.0 * squared_distances(scaled))
    decay = np.exp(-r)
    matrix = (1.0 + r + r * r / 3.0) * decay
    matrix[np.diag_indices(n)] += noise
    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:  # not positive definite in float64: as unlikely as can be, so that the line search turns back
        return 1e10, np.zeros(len(log_length))
    inverse = lapack.dpotri(factor, lower=1)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    solved = inverse @ target
    quadratic = (target * solved).sum(0)
    value = np.log(np.diag(factor)).sum() + 0.5 * n * (weights * np.log(quadratic / n)).sum()
    # d value = ½ Σ g_ij dK_ij, and dK/d(d²) = −5/6 (1 + r) e^−r for the Matérn 5/2 kernel.
    slope = 0.5 * (inverse - n * (solved * (weights / quadratic)) @ solved.T) * (-5.0 / 6.0) * (1.0 + r) * decay
    gradient = -4.0 * (slope.sum(1) @ scaled**2 - ((slope @ scaled) * scaled).sum(0))
    return value / n, gradient / n
