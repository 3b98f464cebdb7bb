"""What the emulator's own error does to labels.

A fit that takes the emulator for the truth finds, where the emulator errs by δf on its grid, labels that are off by
δθ = F⁻¹ Jᵀ C⁻¹ A δf, with A the way from the grid to the pixels (Cutler & Vallisneri 2007, Phys. Rev. D 76, 104018,
for theoretical errors of templates). Over stars δf has the covariance that `EmulatorUncertainty` learned on spectra that
the emulator had not seen, and so δθ has one too. More photons do not make it smaller.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .fisher import unwhiten_transposed


def emulator_covariance(forecast, uncertainty, covariance, snr_factor=1.0) -> np.ndarray:
    """Covariance `(n, n)` of the parameters' shifts by the emulator's error; `covariance` `(n, n)`: F⁻¹, priors included."""
    response = grid_response(forecast, covariance, snr_factor)
    scaled = np.asarray(forecast.space.scale(np.array([forecast.values[n] for n in forecast.space.names])), np.float32)
    lo, hi = uncertainty.grid.range
    wavelength = np.clip(forecast.grid, lo, hi)
    flux = np.asarray(forecast.grid_flux)
    sd, factors = (np.asarray(a, float) for a in uncertainty.at(scaled, wavelength, flux))
    # Of the part with a correlation over wavelength, all pairs of grid points count, by a product in Fourier space.
    lag = np.median(np.diff(forecast.grid)) * np.arange(len(forecast.grid))
    known = uncertainty._step(scaled) * np.arange(len(uncertainty.correlation))
    rho = np.interp(lag, known, np.asarray(uncertainty.correlation, float), right=0.0)
    rows = response * sd
    return rows @ _toeplitz(rows, rho).T + (response @ factors.T) @ (response @ factors.T).T


def grid_response(forecast, covariance, snr_factor=1.0) -> np.ndarray:
    """How far each parameter moves for a unit error of the emulator at each point of its grid, `(n, n_grid)`."""
    n = len(forecast.shared)
    on_grid, start = np.zeros((len(forecast.names), len(forecast.grid))), n
    for s in forecast.spectra:
        shared, terms = s.whitened(snr_factor)
        weighted = unwhiten_transposed(np.concatenate([shared, terms]), s.sigma / snr_factor, s.correlation)
        everywhere = np.zeros((len(weighted), len(s.keep)))
        everywhere[:, s.keep] = weighted
        back = _transposed(s.operator, forecast.device_values(), jnp.zeros(len(forecast.grid)), everywhere)
        on_grid[:n] += back[:n]
        on_grid[start : start + len(terms)] += back[n:]
        start += len(terms)
    return covariance @ on_grid


def _transposed(operator, values, grid, rows):
    """`rows` `(k, n_pix)` brought back to the grid by the transpose of the operator, float64 `(k, n_grid)`."""
    size = np.abs(rows).max(axis=1, keepdims=True) + 1e-300  # float32 holds them in units of their largest
    back = _transposed_jit(operator, values, grid, jnp.asarray(rows / size, jnp.float32))
    return np.asarray(back, float) * size


@eqx.filter_jit
def _transposed_jit(operator, values, grid, rows):
    depth = lambda f: operator(f, values["rv"], values.get("vbroad", 0), values.get("vsini", 0))
    _, back = jax.vjp(depth, grid)
    return jax.lax.map(lambda row: back(row)[0], rows)


def _toeplitz(rows, rho):
    """`rows` `(k, n)` times the matrix ρ(|i − j|), by a circular convolution of twice the length."""
    n = rows.shape[-1]
    kernel = np.concatenate([rho, [0.0], rho[:0:-1]])
    return np.fft.irfft(np.fft.rfft(rows, 2 * n) * np.fft.rfft(kernel), 2 * n)[..., :n]
