"""One arm of one exposure: its pixels, their noise, and the derivatives of the flux there."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from ..emulators import ReducedEmulator
from ..errors import EmuinferError
from ..forward.continuum import chebyshev_basis, default_terms
from ..forward.operator import SpectrumOperator, usable_pixels
from ..wavelengths.medium import convert_medium
from ..wavelengths.uniform import log_grid
from .derivatives import pixel_derivatives_jit
from .fisher import information, step_sizes, whiten

STEP_KMS = 1.0  # of the grid on which the emulator is evaluated; below its own detail


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """One arm of one exposure. Arrays over its used pixels are float64, wavelengths in Å in the emulator's medium.

    - `wavelength`, `flux`, `sigma` `(n_pix,)`: normalised flux of the model, and standard deviation of the noise.
    - `jacobian` `(n_shared, n_pix)`: derivatives by the labels, velocity and broadening that are free, in their units.
    - `basis` `(n_terms, n_pix)`: Chebyshev polynomials of the continuum; `terms_sd`: prior of their coefficients.
    - `correlation` `(n_pix - 1,)` with the pixel before, or None. `operator`: from the grid to all pixels, of which `keep`
      `(n_all,)` are used.
    """

    name: str
    wavelength: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    jacobian: np.ndarray
    basis: np.ndarray
    terms_sd: float
    correlation: np.ndarray | None
    resolution: float
    operator: SpectrumOperator
    keep: np.ndarray

    @property
    def terms(self) -> np.ndarray:
        """Derivatives by the continuum's coefficients, `(n_terms, n_pix)`."""
        return self.basis * self.flux

    def whitened(self, snr_factor=1.0):
        """Whitened derivatives by shared parameters and by the continuum, `(n_shared, n_pix)`, `(n_terms, n_pix)`."""
        n = len(self.jacobian)
        rows = whiten(np.concatenate([self.jacobian, self.terms]), self.sigma / snr_factor, self.correlation)
        return rows[:n], rows[n:]

    def fisher(self, prior, snr_factor=1.0) -> np.ndarray:
        """Information of this spectrum alone with the shared parameters' `prior` `(n_shared,)`; see `information`."""
        return information([(*self.whitened(snr_factor), self.terms_sd)], prior)


def grid_flux(emulator, lo, hi):
    """`(wavelength, function)`: a grid uniform in ln λ that holds [lo, hi] Å, within the emulator's range, and the flux
    `(n_grid,)` on it as a function of the scaled labels."""
    if isinstance(emulator, ReducedEmulator):
        grid = emulator.config.wavelength
        first = max(np.searchsorted(grid, lo) - 1, 0)
        last = min(np.searchsorted(grid, hi) + 1, len(grid))
        parts = lambda e: (e.mean, e.basis)
        cut = eqx.tree_at(parts, emulator, (emulator.mean[first:last], emulator.basis[:, first:last]))
        return grid[first:last], cut.grid_flux
    ends = emulator.wavelength_range
    lo, hi = max(lo, ends[0]), min(hi, ends[1])
    if hi - lo > 0.5 * (ends[1] - ends[0]):  # nearly all: then all, for which one compiled program serves
        lo, hi = ends
    grid = np.clip(log_grid(lo, hi, STEP_KMS), lo, hi)
    return grid, emulator.tabulate(emulator.prepare(emulator.check_wavelength(grid))).grid_flux


def make_spectrum(forecast, exposure, name, arm, reach) -> Spectrum | None:
    """The spectrum that `arm` of an exposure takes of the star of `forecast`; None where no pixel is left.

    `reach`: of `reach_kms`; pixels that near to the ends of the grid are left out.
    """
    wavelength = arm.pixels()
    own = convert_medium(wavelength, forecast.emulator.medium, exposure.instrument.medium)
    rv = forecast.values["rv"]
    medium = forecast.emulator.medium
    usable = usable_pixels(forecast.grid, wavelength, (rv, rv), reach, medium)
    wavelength, own = wavelength[usable], own[usable]
    keep = np.ones(len(own), bool)
    for lo, hi in exposure.mask:
        keep &= (own < lo) | (own > hi)
    if not keep.any():
        return None
    snr = exposure.snr_per_pixel(arm, own)
    operator = SpectrumOperator(forecast.grid, wavelength, arm.resolution, rv_range=(rv, rv), medium=medium)
    kernel = {n: jnp.float32(forecast.values[n]) for n in forecast.kernels}
    at_pixels = pixel_derivatives_jit(operator, forecast.grid_flux, forecast.grid_rows, kernel)
    flux, rows = (np.asarray(a, float) for a in at_pixels)
    order = (*forecast.space.names, *forecast.kernels)
    rows = rows / step_sizes(forecast.space, order)[:, None]
    rows = rows[[order.index(n) for n in forecast.shared]]
    flux, jacobian, wavelength, snr = flux[keep], rows[:, keep], wavelength[keep], snr[keep]
    n = exposure.continuum_terms
    n = default_terms(wavelength) if n is None else int(n)
    if n > len(wavelength) // 4:
        raise EmuinferError(f"A continuum of {n} terms for {len(wavelength)} pixels; give 0 to {len(wavelength) // 4}.")
    basis = chebyshev_basis(wavelength, n) if n else np.zeros((0, len(wavelength)))
    correlation = None  # over a masked gap, by its width
    if exposure.correlation_pixels:
        gap = np.diff(np.log(wavelength)) / arm.pixel_step
        correlation = np.exp(-gap / exposure.correlation_pixels)
    return Spectrum(
        f"{name} {wavelength[0]:.0f}–{wavelength[-1]:.0f} Å",
        wavelength,
        flux,
        1 / snr,
        jacobian,
        basis,
        exposure.continuum_sd,
        correlation,
        arm.resolution,
        operator,
        keep,
    )


def reach_kms(resolution: float, values: dict) -> float:
    """Half-width in km/s of all kernels together: of an instrument, and of a star with these values."""
    lsf = SPEED_OF_LIGHT / (FWHM_PER_SIGMA * resolution)
    return 5 * np.hypot(lsf, values.get("vbroad", 0.0)) + values.get("vsini", 0.0)
