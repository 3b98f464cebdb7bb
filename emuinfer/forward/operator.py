"""From a model spectrum in the star's rest frame to observed pixels: broadening, Doppler shift, instrument.

All but the last step are products in Fourier space on a grid uniform in ln(wavelength), where each is exact: kernels by
their analytic transforms, the shift as a phase. Values at the pixels are those of the cubic spline through the shifted
spectrum, whose prefilter is one more factor in Fourier space (Unser 1999, IEEE Signal Processing Magazine 16(6), 22,
eq. 12).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..constants import SPEED_OF_LIGHT
from ..errors import ObservationError
from ..wavelengths.doppler import shift_factor, shift_wavelength
from ..wavelengths.uniform import VelocityGrid
from .banded import Banded
from .broadening import gaussian_transfer, rotation_table, rotation_transfer
from .lsf import box_weights, lsf_sigma, spline_weights, split_sigma, unit_rows

PAD = 64  # grid points over which the spectrum is joined to itself, so that the periodic continuation has no step
BLOCK = 128  # frequencies whose phases come from one product; any number near sqrt(n_fft) does
CUTOFF = 1e-6  # frequencies that the instrument suppresses below this are left out
SAMPLES_PER_SIGMA = 2.4  # of the line spread function, after it: the spline through them then errs by 3e-5 at most


class SpectrumOperator(eqx.Module):
    """Maps a normalised flux on a velocity grid to observed pixels: linear in the flux, differentiable in all else.

    **Arguments:**

    - `grid_wavelength`: `(n_grid,)` Å, uniform in ln(wavelength), or a `VelocityGrid`. In the same medium as the
      pixels.
    - `observation_wavelength`: `(n_pix,)` Å, increasing, all within the grid as it appears at velocities of `rv_range`.
    - `resolution`: resolving power lambda / FWHM of the Gaussian line spread function, one value or `(n_pix,)`; or a
      resolution matrix `(n_diag, n_pix)` as in `lsf`, which acts on the flux averaged over each pixel. Its rows are
      scaled to a sum of 1.
    - `pixel_kms`: full width in km/s of the box that a pixel integrates over. 0 by default, as resolving powers
      measured on lamp lines already contain it.
    - `limb_darkening`: linear coefficient of the rotation profile.
    - `rv_range`: km/s, the velocities that the star may have.
    - `medium`: of the wavelengths, `"air"` or `"vacuum"`; that of air changes the shift by 1.2e-5 of itself (`wavelengths.doppler`).

    The shifted spectrum is periodic, so that pixels beyond the end of the grid at rest see what has moved there.
    Near the ends of the grid, within the shift and the reach of the kernels, the result is not to be used: see
    `usable_pixels`.
    """

    pixels: Banded
    matrix: Banded | None  # the resolution matrix, of columns that begin n_diag // 2 pixels before the first pixel
    transfer: Complex[Array, " n_frequencies"]
    rotation: Float[Array, "n_table 2"]
    step: float = eqx.field(static=True)
    n_grid: int = eqx.field(static=True)
    n_fft: int = eqx.field(static=True)
    n_smooth: int = eqx.field(static=True)
    before: int = eqx.field(static=True)  # samples of the periodic spectrum in front of the first
    after: int = eqx.field(static=True)  # and beyond the last, that pixels need
    factor: float = eqx.field(static=True)  # of the shift in the medium

    def __init__(
        self,
        grid_wavelength,
        observation_wavelength,
        resolution,
        *,
        pixel_kms=0.0,
        limb_darkening=0.6,
        rv_range=(0.0, 0.0),
        medium="vacuum",
    ):
        from scipy.fft import next_fast_len

        grid = grid_wavelength
        if not isinstance(grid, VelocityGrid):
            grid = VelocityGrid.from_wavelength(grid)
        wavelength = _check_pixels(grid, observation_wavelength, rv_range, medium)
        self.factor = shift_factor(float(np.sqrt(grid.wavelength[0] * grid.wavelength[-1])), medium)
        by_matrix = np.ndim(resolution) == 2
        common, extra = (0.0, None) if by_matrix else split_sigma(lsf_sigma(resolution, len(wavelength)))
        edges = SPEED_OF_LIGHT * np.log(_pixel_edges(wavelength) / grid.wavelength[0]) / grid.step
        self.step, self.n_grid = grid.step, len(grid)
        self.n_fft = next_fast_len(self.n_grid + PAD, real=True)
        self.n_smooth = _smooth_length(self.n_fft, common / grid.step)
        coarse = self.n_fft / self.n_smooth
        position = SPEED_OF_LIGHT * np.log(wavelength / grid.wavelength[0]) / grid.step / coarse
        self.matrix = None
        if by_matrix:
            rows = unit_rows(np.asarray(resolution, dtype=float))
            self.matrix = Banded(np.arange(len(wavelength)), rows, len(wavelength) + len(rows) - 1)
            samples = box_weights(edges[:-1], edges[1:])
        else:
            samples = spline_weights(position, None if extra is None else extra / grid.step / coarse)
        start, weights = samples
        self.before = max(0, -int(start[0]))
        self.after = max(0, int(start[-1]) + len(weights) - self.n_smooth)
        self.pixels = Banded(start + self.before, weights, self.before + self.n_smooth + self.after)
        omega = 2 * np.pi * np.arange(self.n_smooth // 2 + 1) / self.n_fft
        instrument = np.exp(-0.5 * (omega * common / grid.step) ** 2) * np.sinc(
            omega * pixel_kms / grid.step / (2 * np.pi)
        )
        instrument = instrument[: max(2, np.count_nonzero(np.abs(instrument) > CUTOFF))]
        omega = omega[: len(instrument)]
        transfer = instrument * 3.0 / (2.0 + np.cos(omega * coarse)) / coarse
        self.transfer = jnp.asarray(transfer, jnp.complex64)
        self.rotation = jnp.asarray(rotation_table(limb_darkening))

    def __call__(self, flux: Float[Array, " n_grid"], rv, vbroad=0.0, vsini=0.0) -> Float[Array, " n_pix"]:
        """Flux at the observed pixels, `(n_pix,)`, of `flux` `(n_grid,)` in the star's rest frame, near 1 in the
        continuum.

        `rv`: radial velocity in km/s, positive when receding. `vbroad`: standard deviation of a Gaussian
        (macroturbulence and all else that is not rotation) in km/s. `vsini`: projected rotation velocity in km/s. A
        `vbroad` or `vsini` that is the Python number 0 costs nothing.
        """
        n = len(self.transfer)
        spectrum = jnp.fft.rfft(self._pad(1.0 - flux))[:n] * self.transfer * self._shift(rv)
        k = jnp.arange(n, dtype=jnp.float32) * np.float32(2 * np.pi / (self.n_fft * self.step))
        if not _is_zero(vbroad):
            spectrum = spectrum * gaussian_transfer(k, vbroad).astype(spectrum.dtype)
        if not _is_zero(vsini):
            spectrum = spectrum * rotation_transfer(k, vsini, self.rotation).astype(spectrum.dtype)
        depth = self.pixels @ self._periodic(jnp.fft.irfft(spectrum, self.n_smooth))
        if self.matrix is None:
            return 1.0 - depth
        return 1.0 - self.matrix @ jnp.pad(depth, (len(self.matrix.weights) - 1) // 2)

    def _pad(self, depth: Float[Array, " n_grid"]) -> Float[Array, " n_fft"]:
        """Continue the spectrum smoothly from its last value to its first, shape `(n_fft,)`."""
        n = self.n_fft - self.n_grid
        ramp = np.float32(0.5 - 0.5 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)))
        return jnp.concatenate([depth, depth[-1] * (1 - ramp) + depth[0] * ramp])

    def _periodic(self, depth: Float[Array, " n_smooth"]) -> Float[Array, " n_samples"]:
        """With the samples `before` and `after` that repeat it."""
        if not self.before and not self.after:
            return depth
        lead, tail = -(-self.before // self.n_smooth), -(-self.after // self.n_smooth)
        whole = jnp.concatenate([depth] * (lead + 1 + tail))
        first = lead * self.n_smooth - self.before
        return whole[first : first + self.pixels.start_t.shape[0]]

    def _shift(self, rv) -> Complex[Array, " n_frequencies"]:
        """`exp(-i k dv)` at the frequencies of `transfer`.

        The whole steps of the shift turn the phase in integer arithmetic, exactly; otherwise float32 would lose the
        phase of high frequencies at high velocities. Frequency `j = a + BLOCK b` has the phase of `a` times that of
        `BLOCK b`, which saves nearly all sines and cosines.
        """
        shift = np.float32(self.factor * SPEED_OF_LIGHT / self.step) * jnp.log1p(rv / np.float32(SPEED_OF_LIGHT))
        whole = jax.lax.stop_gradient(jnp.round(shift))

        def phase(j):
            steps = (j * whole.astype(jnp.int32) % self.n_fft).astype(jnp.float32)
            turns = (steps + j.astype(jnp.float32) * (shift - whole)) * np.float32(1.0 / self.n_fft)
            return jax.lax.complex(jnp.cos(np.float32(2 * np.pi) * turns), -jnp.sin(np.float32(2 * np.pi) * turns))

        n = len(self.transfer)
        blocks = BLOCK * jnp.arange(-(-n // BLOCK))
        return (phase(blocks)[:, None] * phase(jnp.arange(BLOCK))).reshape(-1)[:n]


def _check_pixels(grid, wavelength, rv_range, medium) -> np.ndarray:
    wavelength = np.asarray(wavelength, dtype=float)
    if wavelength.ndim != 1 or not len(wavelength) or not (np.diff(wavelength) > 0).all():
        raise ObservationError("The observed wavelengths must be one-dimensional and increase.")
    slack = 1e-6  # Å: ends of a grid uniform in ln(wavelength) are rounded
    lo = float(shift_wavelength(grid.wavelength[0], min(rv_range), medium))
    hi = float(shift_wavelength(grid.wavelength[-1], max(rv_range), medium))
    if wavelength[0] < lo - slack or wavelength[-1] > hi + slack:
        moved = (
            f" as it appears at velocities from {min(rv_range):g} to {max(rv_range):g} km/s" if any(rv_range) else ""
        )
        raise ObservationError(
            f"The observed pixels, {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å, must lie within the model's grid, "
            f"{lo:.2f} to {hi:.2f} Å{moved}."
        )
    return wavelength


def _pixel_edges(wavelength) -> np.ndarray:
    """Halfway between the pixels, and as far beyond the first and the last, `(n_pix + 1,)` Å."""
    if len(wavelength) == 1:
        return np.array([wavelength[0], wavelength[0]])
    middle = 0.5 * (wavelength[1:] + wavelength[:-1])
    return np.concatenate([[2 * wavelength[0] - middle[0]], middle, [2 * wavelength[-1] - middle[-1]]])


def _smooth_length(n_fft: int, sigma: float) -> int:
    """Samples that suffice for the spectrum after convolution with a Gaussian of `sigma` grid steps."""
    from scipy.fft import next_fast_len

    fewest = int(np.ceil(n_fft * SAMPLES_PER_SIGMA / max(sigma, 1e-9)))
    if fewest >= n_fft:
        return n_fft
    return min(n_fft, next_fast_len(fewest, real=True))


def _is_zero(value) -> bool:
    return isinstance(value, int | float) and value == 0


def usable_range(grid_wavelength, rv_range, reach_kms: float, medium: str = "vacuum") -> tuple[float, float]:
    """Å between which the grid determines the observed flux for every velocity in `rv_range` (km/s).

    Every choice of pixels is made by this one formula. `reach_kms` is the half-width of all kernels together: about 5
    standard deviations, or v sin i. The second is below the first where nothing is left.
    """
    lo = shift_wavelength(grid_wavelength[0], max(rv_range) + reach_kms, medium)
    hi = shift_wavelength(grid_wavelength[-1], min(rv_range) - reach_kms, medium)
    return float(lo), float(hi)


def usable_pixels(
    grid_wavelength, observation_wavelength, rv_range=(-10.0, 10.0), reach_kms=20.0, medium: str = "vacuum"
) -> np.ndarray:
    """Pixels, `(n_pix,)` bool, whose flux the grid determines for every velocity in `rv_range`; see `usable_range`."""
    wavelength = np.asarray(observation_wavelength, dtype=float)
    lo, hi = usable_range(grid_wavelength, rv_range, reach_kms, medium)
    return (wavelength >= lo) & (wavelength <= hi)
