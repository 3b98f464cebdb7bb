"""Fit of `LogitGP`: Gaussian processes for principal components, length scales by marginal likelihood, on the host.

Everything is float64 NumPy and SciPy; the likelihoods and their gradients are in `gp_likelihood`.
"""

import jax.numpy as jnp
import numpy as np

from ...entry import public
from ...labels.features import gp_features
from ...wavelengths.pixels import PixelGrid
from ..base import to_link
from ..baselines.gaussian_process import LogitGP
from .baselines import check_spectra, leading_components, replace_leaves
from .gp_likelihood import fit_difference, fit_lengths, kernel_matrix

# The first six components share length scales, and so do all others: more groups gained nothing on held-out spectra.
GROUPS = (6,)


@public
def fit_logit_gp(
    label_space,
    labels,
    flux,
    wavelength,
    *,
    medium,
    simple=None,
    components=400,
    groups=GROUPS,
    epsilon=0.003,
    noise=1e-5,
    rows_for_lengths=1200,
    iterations=30,
    lengths=None,
    seed=0,
) -> LogitGP:
    """Gaussian processes with Matérn 5/2 kernels for the principal components of x = log(1/f − 1 + ε).

    **Arguments:**

    - `simple`: `(labels, flux)` of many spectra of simpler physics, at any labels and the same wavelengths, or None.
      The processes of the simple spectra and of the difference are then fitted jointly to both sets (Kennedy &
      O'Hagan 2000, Biometrika 87, 1, with ρ = 1).
    - `components`, `groups`: principal components in all, and how many share their length scales; the last
      group takes all that are left.
    - `noise`: the nugget in units of the kernel's amplitude. The spectra have no noise; it keeps the weights small
      enough for float32 (at 1e-6 rounding costs 2 % of the error).
    - `rows_for_lengths`: length scales are found on at most this many spectra of a set, drawn at random with `seed`,
      in at most `iterations` steps.
    - `lengths`: length scales of each group, `(groups, n_inputs)`, to be kept instead of found: those of an earlier fit
      of nearly the same spectra. With `simple`, those of simple physics.

    Raises `TrainingError` as `fit_polynomial` does.
    """
    scaled, flux = check_spectra(label_space, labels, flux, wavelength)
    x, inputs = to_link(flux, epsilon), gp_features(label_space, scaled, np)
    rng, settings = np.random.default_rng(seed), (noise, iterations, lengths)
    if simple is None:
        mean, basis, target = leading_components(x, components)
        sizes = group_sizes(groups, len(basis))
        rows = np.sort(rng.permutation(len(x))[:rows_for_lengths])
        lengths, weights = _fit_groups(inputs, target, sizes, rows, *settings)
        sums = [(inputs, lengths, weights)]
    else:
        simple_labels, simple_flux = simple
        scaled_simple, flux_simple = check_spectra(label_space, simple_labels, simple_flux, wavelength)
        inputs_simple, x_simple = gp_features(label_space, scaled_simple, np), to_link(flux_simple, epsilon)
        mean, basis = _joint_basis(x_simple, x, components, rng)
        sizes = group_sizes(groups, len(basis))
        rows = np.sort(rng.permutation(len(x_simple))[:rows_for_lengths])
        projected = ((x_simple - mean) @ basis.T, (x - mean) @ basis.T)
        sums, offset = _fit_two_groups(inputs_simple, inputs, *projected, sizes, rows, *settings)
        mean = mean + offset @ basis
    emulator = LogitGP(
        label_space, PixelGrid.from_wavelength(wavelength), medium, [len(s[0]) for s in sums], sizes, epsilon
    )
    leaves = [{"inputs": i, "inverse_length": 1.0 / np.array(length), "weights": w} for i, length, w in sums]
    filled = [replace_leaves(s, **_float32(given)) for s, given in zip(emulator.sums, leaves)]
    return replace_leaves(emulator, sums=filled, **_float32({"mean": mean, "basis": basis}))


def _float32(arrays):
    import jax

    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), arrays)


def group_sizes(groups, n):
    """`groups` cut or extended by one more group to `n` components in all."""
    sizes: list[int] = []
    for size in (*groups, n):
        sizes.append(min(size, n - sum(sizes)))
        if sum(sizes) == n:
            break
    return tuple(sizes)


def _slices(sizes):
    ends = np.cumsum(sizes)
    return [slice(end - size, end) for size, end in zip(sizes, ends)]


def _fit_groups(inputs, target, sizes, rows, noise, iterations, known_lengths):
    """Length scales and weights K⁻¹ y of each group."""
    from scipy.linalg import cho_factor, cho_solve

    lengths: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for i, part in enumerate(_slices(sizes)):
        if known_lengths is None:
            start = lengths[-1] if lengths else None
            lengths.append(fit_lengths(inputs[rows], target[rows, part], noise, iterations, start))
        else:
            lengths.append(np.asarray(known_lengths[i], float))
        factor = cho_factor(kernel_matrix(inputs, inputs, lengths[-1], noise), lower=True, overwrite_a=True)
        weights.append(cho_solve(factor, target[:, part]))
    return lengths, weights


def _joint_basis(x_simple, x, components, rng, most: int = 2500):
    """The mean of the simple spectra, and components of both sets about their own means (at most `most` simple ones)."""
    mean = x_simple.mean(0)
    rows = np.sort(rng.permutation(len(x_simple))[:most])
    both = np.concatenate([x_simple[rows] - mean, x - x.mean(0)])
    return mean, leading_components(both, components)[1]


def _fit_two_groups(inputs_simple, inputs, target_simple, target, sizes, rows, noise, iterations, known_lengths):
    """Two kernel sums `(inputs, lengths, weights)`, of simple physics over all spectra and of the difference over
    `inputs`, and the constant part of the difference `(components,)`.

    With L the simple and R the realistic spectra, K the kernel of simple physics and D that of the difference, the
    data have covariance [[K_LL, K_LR], [K_RL, K_RR + D_RR]], which is solved by blocks.
    """
    from scipy.linalg import cholesky, solve_triangular

    first: list[tuple] = []
    second: list[tuple] = []
    offset: list[np.ndarray] = []
    for i, part in enumerate(_slices(sizes)):
        if known_lengths is None:
            start = first[-1][0] if first else None
            length = fit_lengths(inputs_simple[rows], target_simple[rows, part], noise, iterations, start)
        else:
            length = np.asarray(known_lengths[i], float)
        factor = cholesky(
            kernel_matrix(inputs_simple, inputs_simple, length, noise), lower=True, overwrite_a=True, check_finite=False
        )
        white = solve_triangular(factor, target_simple[:, part], lower=True)
        cross = solve_triangular(factor, kernel_matrix(inputs_simple, inputs, length), lower=True)
        amplitude = np.sqrt((white**2).mean(0))
        known = kernel_matrix(inputs, inputs, length) - cross.T @ cross
        residual = (target[:, part] - cross.T @ white) / amplitude
        of_difference, size, solved = fit_difference(inputs, residual, known, amplitude, length, iterations)
        solved = solved * amplitude
        weights_simple = solve_triangular(factor, white - cross @ solved, lower=True, trans="T")
        first.append((length, np.concatenate([weights_simple, solved])))
        second.append((of_difference, size * solved))
        offset.append(size * solved.sum(0))
    everything = np.concatenate([inputs_simple, inputs])
    sums = [
        (everything, [length for length, _ in first], [w for _, w in first]),
        (inputs, [length for length, _ in second], [w for _, w in second]),
    ]
    return sums, np.concatenate(offset)
