"""Which window, resolving power and exposure reach a target precision soonest: found by gradients.

A detector of a given number of pixels sees a window whose width is what the resolving power leaves: wide at low, narrow at
high. Lines are blurred at low resolving power; at high, read noise counts in more pixels per ångström. Window and
resolving power enter the Fisher information smoothly, so that the exposure time that reaches the target has a gradient.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from ..entry import public
from ..errors import EmuinferError
from ..forward.continuum import default_terms
from ..forward.operator import SpectrumOperator
from .bounds import Bounds
from .derivatives import pixel_derivatives
from .exposure import Exposure
from .fisher import step_sizes
from .forecast import Forecast
from .instruments import Instrument
from .spectrum import reach_kms

FINE = 1.5  # pixels per FWHM at the highest resolving power, on which everything is computed
EDGE = 0.02  # softness of the window's ends, in widths
ROUNDS = 7  # of the iteration for the exposure time


@dataclasses.dataclass(frozen=True)
class Camera:
    """What the light falls on.

    - `pixels`: of the detector along the dispersion. `pixels_per_fwhm`: sampling.
    - `rate`: electrons per second and ångström at the star's continuum, of all spectrum rows together.
    - `read_noise`: electrons per pixel along the dispersion, of all rows together (√rows × that of one).
    """

    pixels: int
    rate: float
    read_noise: float = 0.0
    pixels_per_fwhm: float = 3.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and (value > 0 or (field.name == "read_noise" and value == 0))):
                raise EmuinferError(f"{field.name} = {value} must be a positive number.")

    def snr_per_pixel(self, wavelength, resolution, seconds):
        """S/N of a pixel at the continuum, `(n,)` for wavelengths `(n,)` in Å."""
        signal = self.rate * seconds * wavelength / (resolution * self.pixels_per_fwhm)
        return signal / np.sqrt(signal + self.read_noise**2)


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """The best design found: `window` (lo, hi) in Å, `resolution`, exposure time `seconds`; `bounds` there, computed anew by
    `Forecast`; `instrument` and `exposure` to go on with; `history` `(steps, 3)`: centre (Å), resolving power, seconds of the
    run that won; `starts`: seconds that each start ended at; `notes`."""

    window: tuple[float, float]
    resolution: float
    seconds: float
    bounds: Bounds
    exposure: Exposure
    history: np.ndarray
    starts: np.ndarray
    notes: tuple[str, ...] = ()


@public
def optimal_design(
    emulator,
    labels,
    targets: dict[str, float],
    camera: Camera,
    *,
    resolution_range=(5_000.0, 80_000.0),
    steps: int = 40,
    rate: float = 0.15,
    priors=None,
    vbroad: float = 3.0,
) -> Design:
    """The window and resolving power with which `camera` reaches all `targets` in the shortest exposure.

    **Arguments:**

    - `labels`: of the star. `targets`: label to the marginal standard deviation wanted.
    - `resolution_range`: allowed resolving powers.
    - `steps`, `rate`: of Adam on the logarithm of the resolving power and the window's place, from four starts.
    - `priors`, `vbroad`: as for `Forecast`; velocity and broadening are free, and so is a continuum.

    **Raises:** `EmuinferError` on targets that are not free labels or not positive, and where the highest allowed resolving
    power leaves a window of too few pixels.
    """
    space = emulator.label_space
    space.require_names(list(targets))
    if not targets or not all(np.isfinite(v) and v > 0 for v in targets.values()):
        raise EmuinferError(f"targets must be positive precisions by label; got {targets}.")
    low, high = (float(r) for r in resolution_range)
    if not 0 < low < high < np.inf:
        raise EmuinferError(f"resolution_range = {resolution_range} must rise from above 0.")
    problem = _Problem.build(emulator, labels, targets, camera, (low, high), priors, vbroad)
    begin = [(-0.7, 0.0), (0.0, -1.0), (0.0, 1.0), (0.7, 0.0)]
    path = np.asarray(_descend(problem, jnp.asarray(begin, jnp.float32), steps, rate))  # (starts, steps, 3)
    ends = np.nanmin(path[:, :, 2], axis=1)
    best = int(np.nanargmin(ends))
    centre, log_resolution, log_seconds = path[best, np.nanargmin(path[best, :, 2])]
    return _finish(
        emulator, labels, camera, problem, priors, vbroad, (centre, log_resolution, log_seconds), path[best], ends
    )


class _Problem(eqx.Module):
    """Everything fixed: spectra and derivatives on the star's grid, the operator to fine pixels, noise, targets."""

    flux: Float[Array, " n_grid"]
    rows: Float[Array, "n_labels n_grid"]  # by free labels in units of half their range
    operator: SpectrumOperator
    log_wavelength: Float[Array, " n_pix"]  # from the middle of the range
    target: Float[Array, " n_targets"]  # in the same units
    chosen: Int[Array, " n_targets"]  # rows of the targets
    prior: Float[Array, " n_labels"]
    half: Float[Array, ""]  # half the usable range in ln λ
    camera: Camera = eqx.field(static=True)
    resolutions: tuple = eqx.field(static=True)
    middle: float = eqx.field(static=True)
    vbroad: float = eqx.field(static=True)
    terms: int = eqx.field(static=True)

    @classmethod
    def build(cls, emulator, labels, targets, camera, resolutions, priors, vbroad):
        lo, hi = emulator.wavelength_range
        instrument = Instrument.single(lo, hi, resolutions[1], FINE, medium=emulator.medium)
        # At the lowest resolving power the kernels reach farthest: what they cannot fill is no part of a window.
        reach = reach_kms(resolutions[0], {"vbroad": vbroad}) / SPEED_OF_LIGHT
        instrument = Instrument.single(lo * (1 + reach), hi * (1 - reach), resolutions[1], FINE, medium=emulator.medium)
        forecast = Forecast(
            emulator, labels, Exposure(instrument, 1.0, continuum_terms=0), priors=priors, vbroad=vbroad
        )
        names = [n for n in forecast.shared if n in forecast.space.names]
        if missing := [n for n in targets if n not in names]:
            raise EmuinferError(f"{', '.join(missing)} is fixed by the priors and cannot be a target.")
        unit = step_sizes(forecast.space, names)
        spectrum = forecast.spectra[0]
        rows = forecast.grid_rows[jnp.asarray([forecast.space.index(n) for n in names])]
        log_wavelength = np.log(spectrum.wavelength)
        middle, half = 0.5 * (log_wavelength[0] + log_wavelength[-1]), 0.5 * np.ptp(log_wavelength)
        width = np.exp(middle) * camera.pixels / (np.sqrt(resolutions[0] * resolutions[1]) * camera.pixels_per_fwhm)
        as32 = lambda a: jnp.asarray(a, jnp.float32)
        return cls(
            forecast.grid_flux,
            rows,
            spectrum.operator,
            as32(log_wavelength - middle),
            as32([v / unit[names.index(n)] for n, v in targets.items()]),
            jnp.asarray([names.index(n) for n in targets], jnp.int32),
            as32(forecast.prior[: len(names)] * unit**2),
            as32(half),
            camera,
            resolutions,
            float(middle),
            float(vbroad),
            min(default_terms([0.0, width]), 10),
        )

    def place(self, free):
        """Centre (ln λ from the middle), half width and ln R of unbounded `free` (2,)."""
        low, high = np.log(self.resolutions)
        log_resolution = low + (high - low) * jax.nn.sigmoid(free[1])
        half = 0.5 * self.camera.pixels / self.camera.pixels_per_fwhm * jnp.exp(-log_resolution)
        half = jnp.minimum(half, self.half)
        return (self.half - half) * jnp.tanh(free[0]), half, log_resolution

    def log_seconds(self, free):
        """ln of the exposure time that reaches all targets (smooth maximum), with centre and ln R."""
        centre, half, log_resolution = self.place(free)
        resolution = jnp.exp(log_resolution)
        blur = (SPEED_OF_LIGHT / FWHM_PER_SIGMA) ** 2 * (1 / resolution**2 - 1 / self.resolutions[1] ** 2)
        see = lambda flux, rv, vbroad, _: self.operator(flux, rv, jnp.sqrt(vbroad**2 + blur))
        kernel = {"rv": jnp.float32(0.0), "vbroad": jnp.float32(self.vbroad)}
        flux, rows = pixel_derivatives(see, self.flux, self.rows, kernel, each=lambda f, rows: jax.vmap(f)(rows))
        x = (self.log_wavelength - centre) / half
        inside = jax.nn.sigmoid((1 - x) / EDGE) * jax.nn.sigmoid((1 + x) / EDGE)
        degree = jnp.arange(self.terms, dtype=jnp.float32)[:, None]
        terms = jnp.cos(degree * jnp.arccos(jnp.clip(x, -0.999, 0.999))) * flux
        rows = jnp.concatenate([rows, terms]) * jnp.sqrt(inside)
        prior = jnp.concatenate([self.prior, jnp.zeros(2), jnp.ones(self.terms)])
        step = jnp.exp(self.middle + self.log_wavelength) / (FINE * self.resolutions[1])
        per_pixel = FINE * self.resolutions[1] / (resolution * self.camera.pixels_per_fwhm)

        def log_excess(log_time):
            signal = self.camera.rate * jnp.exp(log_time) * step
            ivar = signal**2 / (signal + self.camera.read_noise**2 / per_pixel)
            white = rows * jnp.sqrt(ivar)
            fisher = white @ white.T + jnp.diag(prior)
            scale = jax.lax.rsqrt(jnp.diag(fisher))
            # float32 leaves three digits of the inverse: enough to find the way; the end is computed anew.
            root = jnp.linalg.cholesky(fisher * scale[:, None] * scale + 1e-6 * jnp.eye(len(fisher)))
            inverse = jax.scipy.linalg.solve_triangular(root, jnp.diag(scale), lower=True)
            sd = jnp.sqrt(jnp.sum(inverse**2, axis=0))[self.chosen]
            return jax.nn.logsumexp(12.0 * jnp.log(sd / self.target)) / 12.0

        # σ falls as time^(−1/2), or as 1/time where read noise reigns: steps of 1.4 converge for both.
        log_time = jnp.float32(np.log(1e4 / self.camera.rate))
        log_time = jax.lax.scan(lambda t, _: (t + 1.4 * log_excess(t), None), log_time, None, length=ROUNDS)[0]
        return log_time, (centre, log_resolution)


@eqx.filter_jit
def _descend(problem, starts, steps, rate):
    import optax

    optimiser = optax.adam(rate)

    def one(free):
        def step(carry, _):
            free, state = carry
            (value, (centre, log_resolution)), slope = jax.value_and_grad(problem.log_seconds, has_aux=True)(free)
            updates, state = optimiser.update(slope, state)
            return (free + updates, state), jnp.stack([centre, log_resolution, value])

        return jax.lax.scan(step, (free, optimiser.init(free)), None, length=steps)[1]

    return jax.lax.map(one, starts)


def _finish(emulator, labels, camera, problem, priors, vbroad, found, path, ends):
    centre, log_resolution, log_seconds = (float(x) for x in found)
    resolution, seconds = np.exp(log_resolution), np.exp(log_seconds)
    full = 0.5 * camera.pixels / (camera.pixels_per_fwhm * resolution)
    half = min(full, float(problem.half))
    lo, hi = (float(np.exp(problem.middle + centre + s * half)) for s in (-1, 1))
    instrument = Instrument.single(lo, hi, resolution, camera.pixels_per_fwhm, name="design", medium=emulator.medium)
    exposure = Exposure(instrument, lambda w: camera.snr_per_pixel(w, resolution, seconds))
    bounds = Forecast(emulator, labels, exposure, priors=priors, vbroad=vbroad).bounds()
    notes = list(bounds.notes)
    if full > half * 1.001:
        notes.append(
            "The detector would see more than the emulator's range; what lies outside would help and is not counted, so that a "
            "lower resolving power may be better than it looks."
        )
    history = np.c_[np.exp(problem.middle + path[:, 0]), np.exp(path[:, 1:])]
    return Design((lo, hi), float(resolution), float(seconds), bounds, exposure, history, np.exp(ends), tuple(notes))
