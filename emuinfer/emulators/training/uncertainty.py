"""Learn the covariance of an emulator's error from spectra that it has not seen.

`python -m emuinfer.recipes.emulator_uncertainty` does so for the shipped emulator; `coverage` tests what it covers.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from ...constants import FWHM_PER_SIGMA
from ...entry import public
from ...errors import TrainingError
from ...files import read_arrays, write_arrays
from ...labels.features import label_terms
from ...wavelengths.pixels import PixelGrid
from ..components import principal_components
from ..uncertainty import EmulatorUncertainty, correlation_integral, sensitivity
from .coverage import LEVELS, check_residuals, whitened_distance, whitened_projection
from .evaluate import predict

LAGS = 200  # stored pixels over which the correlation of the errors is kept
REFERENCE = 40_000  # resolving power at which the dependence of the correlation on the labels is learned
RIDGES = 10.0 ** np.arange(-1.0, 3.1, 0.5)
NU_RANGE = (2.5, 200.0)  # degrees of freedom that a fit may end with
NU = 7.0  # degrees of freedom with which the size of the errors of a spectrum is found; the fit ends near it


# Residuals


def cross_validated_flux(fit, labels, flux, wavelength, *, folds=8, seed=5, path=None, progress=False) -> np.ndarray:
    """Flux `(n, p)` at each spectrum's labels from an emulator that has not seen it, float32.

    `fit(labels, flux)` returns an emulator. With `path` (.npz) the residuals are kept after each fold, as float16, and
    a later call with the same spectra goes on from them.
    """
    labels, flux = np.asarray(labels, np.float64), np.asarray(flux, np.float32)
    fold = np.random.default_rng(seed).permutation(len(labels)) % folds
    residual, done = np.zeros(flux.shape, np.float16), 0
    if path is not None and Path(path).exists():
        kept = read_arrays(path, TrainingError)
        if not (np.array_equal(kept["fold"], fold) and np.allclose(kept["labels"], labels)):
            raise TrainingError(f"{path} has residuals of other spectra or folds. Delete it or give another path.")
        residual, done = kept["residuals"], int(kept["done"])
    for k in range(done, folds):
        out = fold == k
        residual[out] = predict(fit(labels[~out], flux[~out]), labels[out], wavelength) - flux[out]
        if progress:
            mean = np.abs(residual[out].astype(np.float32)).mean()
            print(f"fold {k + 1} of {folds}: mean |residual| {mean:.5f}", flush=True)
        if path is not None:
            kept = dict(residuals=residual, fold=fold, labels=labels, wavelength=wavelength, done=k + 1)
            write_arrays(path, kept, TrainingError, compressed=False)
    return flux + residual.astype(np.float32)


# Fit


@public
def fit_uncertainty(
    label_space, labels, residuals, flux, wavelength, *, rank=20, medium="air", epsilon=0.003, folds=4, seed=0
) -> EmulatorUncertainty:
    """The covariance of residuals `(n, p)`, emulated − true flux, of spectra out of the emulator's sample.

    **Arguments:**

    - `labels` `(n, n_labels)`, emulated `flux` `(n, p)`, `wavelength` `(p,)` Å in `medium`, uniform.
    - `rank`: factors of the low-rank part, cut to half the spectra of a fold.
    - `epsilon`: of the link 1 / (1 − ε + eˣ), the emulator's own if it has one.
    - `folds`: sizes and degrees of freedom are found by cross-validation: covariances of the other folds are held
      against each fold's residuals.

    **Raises:** `TrainingError` on shapes that disagree, numbers that are not finite, or fewer than 8 spectra.
    """
    labels, residuals, flux = check_residuals(label_space, labels, residuals, flux, wavelength)
    grid = PixelGrid.from_wavelength(wavelength)
    slope = np.maximum(sensitivity(flux, epsilon, np), 1e-6)
    x = residuals / slope
    terms = label_terms(label_space, np.asarray(label_space.scale(labels), np.float64), np)
    folds = min(folds, len(x) // 2)
    fold = np.random.default_rng(seed).permutation(len(x)) % folds
    rank = min(rank, len(x) * (folds - 1) // folds // 2)
    shapes = [_shape(x, slope, terms, fold != k, rank) for k in range(folds)]
    # One spectrum after another, as often as needed: the factors of all at once would fill the memory.
    errors = lambda row: shapes[fold[row]].errors(terms[row], slope[row])
    sigma = np.mean(wavelength) / REFERENCE / FWHM_PER_SIGMA
    correlation = _correlation(residuals, errors, grid.step, sigma)
    level, stretch = _levels_and_stretch(residuals, errors, correlation, terms, grid.step, sigma)
    coherence = np.maximum(np.exp(terms @ stretch) * (2.0 * correlation.sum() - 1.0), 1.0)
    leveled = lambda row: (np.exp(terms[row] @ level) * e for e in errors(row))
    size, nu, factor_size, factor_nu = _sizes(residuals, leveled, coherence)
    shape = _shape(x, slope, terms, np.ones(len(x), bool), rank)
    shape = _Shape(shape.scale + level, shape.factor_scale + level, size * shape.diagonal, factor_size * shape.factors)
    arrays = {**vars(shape), "correlation": correlation, "stretch": stretch}
    return EmulatorUncertainty(
        **{k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()},
        label_space=label_space,
        grid=grid,
        medium=medium,
        epsilon=float(epsilon),
        degrees_of_freedom=nu,
        factor_degrees_of_freedom=factor_nu,
    )


@dataclasses.dataclass
class _Shape:
    scale: np.ndarray
    factor_scale: np.ndarray
    diagonal: np.ndarray
    factors: np.ndarray

    def errors(self, terms, slope):
        """`(sd (p,), factors (rank, p))` of the flux of one spectrum."""
        return (
            np.exp(terms @ self.scale) * self.diagonal * slope,
            np.exp(terms @ self.factor_scale) * self.factors * slope,
        )


def _shape(x, slope, terms, rows, rank) -> _Shape:
    """Amplitudes, diagonal and factors of errors `x` in the saturating space, up to the final sizes."""
    x, slope, terms = x[rows], slope[rows], terms[rows]
    sd = _rms(x)
    for _ in range(3):
        scale = _regression(terms, np.log(_typical(x / sd)))
        unit = x / np.exp(terms @ scale)[:, None]
        sd = _rms(unit)
    # Halfway between equal weights of all pixels and weights by the error in flux: the factors explain most of both.
    weight = np.sqrt(sd * (slope * np.exp(terms @ scale)[:, None]).mean(0)) / sd
    coefficients, basis, variance = _components(unit * weight, rank)
    rest = unit - coefficients @ basis / weight
    strength = (coefficients**2 / (coefficients**2).mean(0)).mean(1)
    power = _regression(terms, 0.5 * np.log(strength))
    variance = variance * (strength / np.exp(2.0 * terms @ power)).mean()
    left = _rms(rest)
    more = _regression(terms, np.log(_typical(rest / left)))
    left = _rms(rest / np.exp(terms @ more)[:, None])
    return _Shape(scale + more, scale + power, left, np.sqrt(variance)[:, None] * basis / weight)


def _rms(rows):
    """Root mean square of each column, at least a thousandth of that of all: one without any error is no infinity."""
    square = (rows**2).mean(0)
    return np.sqrt(np.maximum(square, 1e-6 * square.mean()))


def _typical(rows, nu=NU):
    """The scale of each row's values if they follow Student's t, by iterated weights: a few large ones do not rule."""
    square = (rows**2).mean(1)
    for _ in range(5):
        square = ((nu + 1.0) / (nu + rows**2 / square[:, None]) * rows**2).mean(1)
    return np.sqrt(square)


def _components(rows, rank):
    """Coefficients `(n, rank)`, orthonormal basis `(rank, p)`, variances `(rank,)` of the largest components of rows.

    Sampled eigenvalues are too large by the noise of all other directions over the number of rows (Paul 2007,
    Statistica Sinica 17, 1617), which is taken off.
    """
    n, rows = len(rows), rows.astype(np.float64)
    _, basis, coefficients = principal_components(rows, rank, centre=False)
    power = (coefficients**2).sum(0)
    noise = ((rows**2).sum() - power.sum()) / (n - rank)
    return coefficients, basis, np.maximum(power - noise, 0.1 * power) / n


def _regression(terms, target):
    """Coefficients of a ridge regression on `terms`, whose first is 1; the ridge by leave-one-out (Allen's PRESS)."""
    best, lowest = np.zeros(terms.shape[1]), np.inf
    for ridge in RIDGES:
        penalty = ridge * np.eye(terms.shape[1])
        penalty[0, 0] = 1e-9
        solve = np.linalg.solve(terms.T @ terms + penalty, terms.T)
        coefficients, leverage = solve @ target, np.einsum("ij,ji->i", terms, solve)
        error = (((target - terms @ coefficients) / (1.0 - leverage)) ** 2).mean()
        if error < lowest:
            best, lowest = coefficients, error
    return best


def _correlation(residuals, errors, step, sigma):
    """Mean correlation of what the factors leave, `(lags,)` from lag 0 up.

    Products of errors at two pixels are taken relative to the variance that a Gaussian of `sigma` (Å) around them sees,
    so that all parts of the spectrum count alike, and the result acts on the local mean of sd² as `damping` needs it.
    """
    from scipy.fft import irfft, next_fast_len, rfft
    from scipy.ndimage import gaussian_filter1d

    p = residuals.shape[1]
    lags = min(LAGS, p // 4) + 1
    length = next_fast_len(p + lags)
    rho = np.zeros(lags)
    for row, residual in enumerate(residuals):
        sd, factors = errors(row)
        scaled = factors / sd**2
        rest = residual - np.linalg.solve(scaled @ factors.T + np.eye(len(factors)), scaled @ residual) @ factors
        seen = rest / np.sqrt(gaussian_filter1d(sd**2, sigma / step))
        power = irfft(np.abs(rfft(seen, length)) ** 2, length)[:lags] / p
        rho += power / (NU / (NU - 2.0) * _typical(rest[None] / sd)[0] ** 2)
    rho = np.maximum(rho / len(residuals), 0.0)
    rho[0] = 1.0
    return rho


def _levels_and_stretch(residuals, errors, correlation, terms, step, sigma):
    """Coefficients of the logarithms of two corrections: of all errors, and of the lags of the correlation.

    The first is what residuals are of their predicted errors; the second makes the same of what is seen of both through
    a Gaussian of `sigma` (Å).
    """
    from scipy.ndimage import gaussian_filter1d

    damping = correlation_integral(correlation, step, sigma)
    levels, wanted = [], []
    for row, residual in enumerate(residuals):
        sd, factors = errors(row)
        seen = gaussian_filter1d(np.stack([residual, sd**2, *factors]), sigma / step)
        diagonal, low_rank = damping * seen[1], (seen[2:] ** 2).sum(0)
        native = residual / np.sqrt(sd**2 + (factors**2).sum(0))
        level = _typical(np.stack([native, seen[0] / np.sqrt(diagonal + low_rank)]))
        levels.append(level)
        share = np.median(diagonal / (diagonal + low_rank))
        wanted.append(damping * (1.0 + ((level[1] / level[0]) ** 2 - 1.0) / share))
    stretches = np.linspace(-2.0, 2.0, 41)
    table = [correlation_integral(correlation, step * np.exp(s), sigma) for s in stretches]
    stretch = _regression(terms, np.interp(wanted, table, stretches))
    level = np.log(np.array(levels)[:, 0])
    return _regression(terms, level), stretch


def _sizes(residuals, errors, coherence):
    """`(size, nu, factor_size, factor_nu)`: factors of the diagonal and the low-rank part, and degrees of freedom."""
    some = np.linspace(0, residuals.shape[1] - 1, min(residuals.shape[1], 250)).astype(int)
    projections, diagonals, low_ranks = [], [], []
    for row, residual in enumerate(residuals):
        sd, factors = errors(row)
        projections.append(whitened_projection(residual, sd**2 * coherence[row], factors))
        diagonals.append(sd[some] ** 2)
        low_ranks.append((factors[:, some] ** 2).sum(0))
    diagonal, low_rank = np.array(diagonals), np.array(low_ranks)
    size = factor_size = 1.0
    for _ in range(4):  # each depends a little on the other
        by = factor_size / size**2
        statistic = [whitened_distance(by * t, by * factor_size * g) for t, g in projections]
        more, factor_nu = _fit_f(np.array(statistic), len(projections[0][0]))
        factor_size *= more
        size, nu = _fit_t(residuals[:, some], diagonal, factor_size**2 * low_rank)
    return size, nu, factor_size, factor_nu


def _fit_f(statistic, rank):
    """Standard deviation s of the coefficients of the factors and ν from their mean squares, which follow
    s² (ν − 2) / ν F(rank, ν): those for which the quantiles of `LEVELS` are right."""
    from scipy import stats

    low, high = np.quantile(statistic, LEVELS)
    nus = np.geomspace(*NU_RANGE, 60)
    ratio = stats.f.ppf(LEVELS[1], rank, nus) / stats.f.ppf(LEVELS[0], rank, nus)  # falls with ν
    nu = float(np.exp(np.interp(-high / low, -ratio, np.log(nus))))
    return float(np.sqrt(low / stats.f.ppf(LEVELS[0], rank, nu) * nu / (nu - 2.0))), nu


def _fit_t(value, diagonal, low_rank):
    """Factor of the diagonal part and ν for which value / standard deviation follows Student's t, by likelihood."""
    from scipy import optimize, stats

    def loss(p):
        nu = np.exp(p[1])
        scale = np.sqrt((np.exp(2.0 * p[0]) * diagonal + low_rank) * (nu - 2.0) / nu)
        return -(stats.t.logpdf(value / scale, nu) - np.log(scale)).mean()

    found = optimize.minimize(loss, [0.0, 1.9], method="L-BFGS-B", bounds=[(-3, 3), tuple(np.log(NU_RANGE))])
    return float(np.exp(found.x[0])), float(np.exp(found.x[1]))
