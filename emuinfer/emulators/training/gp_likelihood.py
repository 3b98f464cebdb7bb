"""Marginal likelihoods of Gaussian processes with Matérn 5/2 kernels, and their maxima; float64 NumPy and SciPy."""

import numpy as np

from ..baselines.gaussian_process import matern52

LENGTH_BOUNDS = (-2.0, 5.0)  # of the natural logarithm; the labels span 2


def kernel_matrix(a, b, length, noise=0.0) -> np.ndarray:
    """The kernel between rows of `a` and `b`, with `noise` on the diagonal."""
    matrix = matern52(_squared_distances(a / length, b / length), np)
    if noise:
        matrix[np.diag_indices(len(matrix))] += noise
    return matrix


def _squared_distances(a, b):
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * a @ b.T, 0.0)


def fit_lengths(inputs, target, noise, iterations=30, start=None) -> np.ndarray:
    """Length scales `(n_labels,)` that maximise the marginal likelihood of coefficients `target` `(n, k)`.

    Each coefficient's amplitude is profiled out (Rasmussen & Williams 2006, eq. 5.8); the logarithms of the likelihoods
    are summed, weighted by the coefficients' standard deviations.
    """
    from scipy.optimize import minimize

    start = np.full(inputs.shape[1], 5.0) if start is None else start
    weights = target.std(0) / target.std(0).sum()
    found = minimize(
        negative_log_likelihood,
        np.log(start),
        args=(inputs, target, weights, noise),
        jac=True,
        method="L-BFGS-B",
        bounds=[LENGTH_BOUNDS] * inputs.shape[1],
        options={"maxiter": iterations},
    )
    return np.exp(found.x)


def negative_log_likelihood(log_length, inputs, target, weights, noise):
    """Per spectrum, and its gradient in the logarithms of the length scales."""
    n, scaled = len(inputs), inputs / np.exp(log_length)
    matrix, slope = _kernel_and_slope(scaled)
    matrix[np.diag_indices(n)] += noise
    inverse, half_log_determinant = _inverse(matrix)
    if inverse is None:
        return 1e10, np.zeros(len(log_length))
    solved = inverse @ target
    quadratic = (target * solved).sum(0)
    value = half_log_determinant + 0.5 * n * (weights * np.log(quadratic / n)).sum()
    by_matrix = 0.5 * (inverse - n * (solved * (weights / quadratic)) @ solved.T)
    return value / n, _length_gradient(by_matrix * slope, scaled) / n


def fit_difference(inputs, residual, known, amplitude, start, iterations=30):
    """The process of a difference: `(lengths, size, weights)`.

    `residual` `(n, k)`, in units of `amplitude` `(k,)`, is of covariance `known` + size (M + 1) + nugget,
    M being the Matérn kernel and the one a constant offset. Length scales, size and nugget maximise the likelihood,
    weighted by `amplitude`; `weights` are the inverse covariance times `residual`.
    """
    from scipy.optimize import minimize

    n_labels = inputs.shape[1]
    # The mean square is dominated by the offset and by what the simple physics gets wrong; it is a fair first guess.
    guess = np.log(np.clip((residual**2).mean(), 1e-8, 1.0))
    found = minimize(
        difference_likelihood,
        np.concatenate([np.log(start), [guess, np.log(1e-5)]]),
        args=(inputs, residual, known, amplitude / amplitude.sum()),
        jac=True,
        method="L-BFGS-B",
        bounds=[LENGTH_BOUNDS] * n_labels + [(-20.0, 3.0), (-16.0, 2.0)],
        options={"maxiter": iterations},
    )
    length, size, nugget = np.exp(found.x[:n_labels]), np.exp(found.x[-2]), np.exp(found.x[-1])
    matrix = known + size * (kernel_matrix(inputs, inputs, length) + 1.0)
    matrix[np.diag_indices(len(matrix))] += nugget
    return length, size, np.linalg.solve(matrix, residual)


def difference_likelihood(parameters, inputs, residual, known, weights):
    """Negative log likelihood per spectrum, less a constant, and its gradient in the logarithms of the parameters."""
    n, n_labels = inputs.shape
    size, nugget = np.exp(parameters[n_labels:])
    scaled = inputs / np.exp(parameters[:n_labels])
    matern, slope = _kernel_and_slope(scaled)
    matrix = known + size * (matern + 1.0)
    matrix[np.diag_indices(n)] += nugget
    inverse, half_log_determinant = _inverse(matrix)
    if inverse is None:
        return 1e10, np.zeros(len(parameters))
    solved = inverse @ residual
    value = half_log_determinant + 0.5 * (weights * (residual * solved).sum(0)).sum()
    by_matrix = 0.5 * (inverse - (solved * weights) @ solved.T)
    lengths = _length_gradient(by_matrix * slope * size, scaled)
    others = [size * (by_matrix * (matern + 1.0)).sum(), nugget * np.trace(by_matrix)]
    return value / n, np.concatenate([lengths, others]) / n


def _kernel_and_slope(scaled):
    """The Matérn 5/2 kernel of the rows of `scaled` and its derivative −5/6 (1 + r) e^−r in the squared distance."""
    r = np.sqrt(5.0 * _squared_distances(scaled, scaled))
    decay = np.exp(-r)
    return (1.0 + r + r * r / 3.0) * decay, (-5.0 / 6.0) * (1.0 + r) * decay


def _inverse(matrix):
    """The inverse and half the log determinant, or (None, None) if the matrix is not positive definite.

    A line search that has stepped too far then turns back.
    """
    from scipy.linalg import lapack

    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:
        return None, None
    inverse = lapack.dpotri(factor, lower=1)[0]
    return np.tril(inverse) + np.tril(inverse, -1).T, np.log(np.diag(factor)).sum()


def _length_gradient(by_squared_distance, scaled):
    """Σ_ij g_ij d(d²_ij)/d ln(length), with d²_ij = |scaled_i − scaled_j|² and g symmetric."""
    g = by_squared_distance
    return -4.0 * (g.sum(1) @ scaled**2 - ((g @ scaled) * scaled).sum(0))
