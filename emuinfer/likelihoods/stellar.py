"""`StellarModel`: a NumPyro model of one observed spectrum around an emulator."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..constants import FWHM_PER_SIGMA, RV_RANGE, SPEED_OF_LIGHT
from ..deprecation import warn_old
from ..emulators import EmulatorUncertainty, ReducedEmulator, reduce_emulator, shipped_uncertainty
from ..entry import public
from ..errors import EmulatorError, LabelError, ObservationError
from ..forward.continuum import Continuum, log_likelihood_constant
from ..forward.lsf import cut_resolution, resolving_power
from ..forward.noise_correlation import Correlation
from ..forward.operator import SpectrumOperator, usable_range
from ..observations.peaks import VelocityPeaks, velocity_peaks
from ..observations.quality import scaled_to_continuum
from ..wavelengths.doppler import shift_wavelength
from .base import SpectrumModel
from .forward_model import GridModel
from .gaia import A_K_MOST, beside_of, extinction_guess
from .gaia_tables import gaia_of
from .line_errors import resolve
from .model_errors import ModelErrors
from .noise import Noise
from .pixels import PixelLikelihood
from .priors import (
    BROADENING,
    NUISANCE_UNITS,
    RESOLUTION_SD,
    RV_HALF_WIDTH,
    RV_ROOM,
    checked_prior,
    default_nuisance_priors,
    label_priors,
    upper_end,
)

SHARPER = 3.0  # times the stated resolving power, the highest that a fit of it can find
GUESSES = {"vbroad": (3.0,), "vsini": (3.0, 12.0, 35.0, 80.0), "log10_jitter": (-1.7,)}


class StellarModel(SpectrumModel):
    """A NumPyro model: labels, radial velocity, broadening, continuum and noise of one star.

    The model flux is the emulator's, convolved with the line spread function, with rotation and Gaussian macroturbulence,
    Doppler-shifted, and multiplied by a Chebyshev continuum that is integrated out analytically. The variance of a pixel is
    the data's, plus the emulator's error, plus (`jitter` × continuum)². Outlying pixels (missing or wrong lines, tellurics,
    cosmic rays) are down-weighted as by a Student-t likelihood of `degrees_of_freedom`; the weights are found by iteration
    at the optimum and then kept (see `Noise`).

    **Arguments:**

    - `emulator`: any `Emulator`, which is reduced first (`reduce_emulator`, cached on disk), or a `ReducedEmulator`.
    - `observation`: an `Observation` with a resolution.
    - `priors`: label or nuisance name to a NumPyro distribution, or to a number that fixes it. Defaults: labels flat in the
      emulator's domain, `rv` flat within 20 km/s of the cross-correlation's (over all of `rv_range` where noise explains its
      peak), `vbroad` and `vsini` half-normal, the jitter half-normal with 0.02 of the continuum.
    - `broadening`: `"vbroad"` (Gaussian standard deviation, km/s), `"vsini"` (rotation, km/s), `"both"` or `"none"`.
    - `resolution`: resolving power, one value or `(n_pix,)`, or resolution matrix, if the observation does not say. `"fit"`: a
      parameter `log10_resolution`, by default normal about the observation's with a standard deviation of 0.15; where it
      changes with wavelength, its median is fitted. Data tell it from `vbroad` by the priors alone.
    - `rv_range`: km/s, searched for the star's velocity.
    - `continuum_terms`: Chebyshev terms; one per 25 Å by default.
    - `line_errors`: `"shipped"`, a `LineErrors` table, or None: how wrong the lines of the model are, in the variance.
    - `emulator_error`: the emulator's own error as a covariance, diagonal and low rank: `"shipped"` for the one that ships
      with the emulator (if there is one) and the surrogate's error, an `EmulatorUncertainty`, or None to see what it does.
    - `robust`: down-weight outliers, the more the fewer `degrees_of_freedom`.
    - `correlation`: pixels over which the correlation of the noise falls to 1/e, as of resampled spectra; None: independent
      pixels. The jitter has the same correlation. The model's errors, which are common to a whole line, keep their size.
    - `gaia`: what Gaia knows of the star, for gravity from outside: a mapping or table row with the archive's columns (`read_gaia`).
      Adds the parameter `a_k` (A_Ks, mag), flat from 0 to 1.5 beside what is said of it.

    **Attributes:** `peaks`: what the cross-correlation says of the velocity (`VelocityPeaks`), None where `priors` fix it.

    The object is a plain NumPyro model with an observed site `flux`: call it, or hand it to `numpyro.infer.MCMC`,
    `Predictive` (with `observe=False`), `log_likelihood` (which is per pixel) or handlers. Calling it returns the values of
    all parameters. A photometric temperature is a prior, `priors={"teff": dist.Normal(5700, 80)}`; what tells of several labels
    at once is a factor, `numpyro.factor`, in the `__call__` of a subclass (`docs/how-to/priors.md`), whose objects go to `sample`.

    **Raises:** `ObservationError` without a resolution or without overlap with the emulator (naming both ranges), and
    `LabelError` on priors that do not fit the labels.
    """

    likelihood: PixelLikelihood

    @public
    def __init__(
        self,
        emulator,
        observation,
        *,
        priors=None,
        broadening="vbroad",
        resolution=None,
        rv_range=RV_RANGE,
        continuum_terms=None,
        line_errors="shipped",
        emulator_error="shipped",
        robust=True,
        degrees_of_freedom=4.0,
        correlation=None,
        gaia=None,
        progress=True,
    ):
        if broadening not in BROADENING:
            raise LabelError(f"broadening must be one of {', '.join(BROADENING)}; got '{broadening}'.")
        self.fits_resolution = isinstance(resolution, str)
        if self.fits_resolution and resolution != "fit":
            raise ObservationError(f"resolution may be a resolving power, a matrix or 'fit'; got '{resolution}'.")
        resolution = observation.resolution if resolution is None or self.fits_resolution else resolution
        if resolution is None:
            raise ObservationError(
                f"The resolving power of '{observation.name or 'the spectrum'}' is not known. Give resolution=R, the FWHM of "
                "the line spread function as wavelength / R."
            )
        _check_overlap(emulator, observation, self._possible(rv_range))
        self.full = emulator
        self.reduced = (
            emulator if isinstance(emulator, ReducedEmulator) else reduce_emulator(emulator, progress=progress)
        )
        self.label_space = emulator.label_space
        self.broadening, self.observation, self.correlation = broadening, observation, correlation
        self.degrees_of_freedom = float(degrees_of_freedom) if robust else None
        self.line_errors = resolve(line_errors, emulator)
        self.uncertainty, self.counts_surrogate = emulator_errors(emulator_error, emulator)
        if self.fits_resolution and np.ndim(resolution) == 2:
            raise ObservationError("resolution='fit' needs a resolving power to start from, and not a matrix.")
        self.stated = float(np.median(resolving_power(resolution, observation.wavelength)))
        self.gaia = None if gaia is None else gaia_of(gaia, self.label_space, observation.name)
        self.notes = () if self.gaia is None else self.gaia.notes
        self._set_priors(dict(priors or {}), rv_range)
        self.likelihood = self._make_likelihood(resolution, continuum_terms)
        self.spectra = (self,)

    # What it is made of

    def _set_priors(self, given, rv_range):
        import numpyro.distributions as dist

        own = {k: checked_prior(k, given.pop(k)) for k in list(given) if k in NUISANCE_UNITS}
        self.priors = label_priors(self.label_space, given)
        self.peaks = self._find_velocity(rv_range, own.get("rv"))
        self.rv_guess = float(own["rv"]) if self.peaks is None else self.peaks.best
        guess = round(self.rv_guess)  # a whole number, so that programs compiled for one star serve others
        near = max(guess - RV_HALF_WIDTH, min(rv_range)), min(guess + RV_HALF_WIDTH, max(rv_range))
        if self.peaks is not None and not self.peaks.significant:
            near = self._anywhere(rv_range)
        defaults = {"rv": dist.Uniform(*near), **default_nuisance_priors(self.broadening)}
        if self.gaia is not None:
            defaults["a_k"] = dist.Uniform(0.0, A_K_MOST)
        if self.fits_resolution:
            defaults["log10_resolution"] = dist.Normal(np.log10(self.stated), RESOLUTION_SD)
        if unused := sorted(set(own) - set(defaults)):
            raise LabelError(
                f"A prior of {', '.join(unused)} was given, which broadening='{self.broadening}' with "
                f"{'a fitted' if self.fits_resolution else 'a given'} resolving power and "
                f"{'no Gaia data' if self.gaia is None else 'Gaia data'} does not have."
            )
        self.nuisance_priors = {**defaults, **own}
        self.beside = () if self.gaia is None else (beside_of(self.gaia, "a_k" in own),)
        ends = [self.rv_guess] if "rv" in own else near
        # km/s, at all of which the pixels must be determined
        self.velocities = min(self.rv_guess - RV_ROOM, *ends), max(self.rv_guess + RV_ROOM, *ends)

    def _possible(self, rv_range):
        """km/s that a star of these pixels may have."""
        return rv_range

    def _anywhere(self, rv_range) -> tuple[float, float]:
        """All of the searched range, as far as two thirds of the emulator's wavelengths stay on the pixels throughout."""
        grid = self.reduced.config.wavelength
        most = SPEED_OF_LIGHT * np.log(grid[-1] / grid[0]) / 6
        if max(rv_range) - min(rv_range) <= 2 * most:
            return min(rv_range), max(rv_range)
        return max(min(rv_range), self.rv_guess - most), min(max(rv_range), self.rv_guess + most)

    def _find_velocity(self, rv_range, prior) -> VelocityPeaks | None:
        """A first radial velocity, by cross-correlation, unless `prior` fixes it."""
        if isinstance(prior, int | float):
            return None
        observation, wavelength, flux = self.correlation_pair()
        return velocity_peaks(observation, wavelength, flux, rv_range)

    def correlation_pair(self):
        """The observation, and wavelengths `(n,)` and fluxes `(n_templates, n)` to correlate it with, in the same medium."""
        return self._in_medium(), self.reduced.config.wavelength, self.templates()

    @public
    def templates(self) -> np.ndarray:
        """Normalised fluxes `(n_templates, n_grid)` on the reduced emulator's grid, for cross-correlations: one with strong and
        weak lines, and one in which only the strongest are left, as in hot and metal-poor stars."""
        rows = [self.label_space.scale(row) for row in _template_labels(self.label_space)]
        return np.array([_grid_flux(self.reduced, jnp.asarray(row, jnp.float32)) for row in rows], float)

    def _in_medium(self):
        """The observation with wavelengths in the emulator's medium."""
        return self.observation.in_medium(self.full.medium)

    def _make_likelihood(self, resolution, continuum_terms) -> PixelLikelihood:
        observation = self._in_medium()
        grid = self.reduced.config.wavelength
        self.reach = self._reach(resolution)
        lo, hi = self._usable_range(grid)
        usable = (observation.wavelength >= lo) & (observation.wavelength <= hi)
        if not (usable & observation.good).any():
            raise ObservationError(_no_overlap(self.full, observation, self.velocities))
        inside = np.flatnonzero(usable)
        self.pixels = keep = slice(int(inside[0]), int(inside[-1]) + 1)
        self.wavelength = observation.wavelength[keep]
        self.resolution, whole = cut_resolution(resolution, keep)
        good = observation.good[keep] & whole
        self.scale, flux, sigma, level = scaled_to_continuum(
            observation.flux[keep], observation.uncertainty[keep], good
        )
        white = None if self.correlation is None else Correlation(self.correlation, sigma, good)
        self.constant = log_likelihood_constant(np.where(good, sigma**-2.0, 0.0))
        self.constant += 0.0 if white is None else white.log_determinant
        power, sharpest = self.resolution, None
        if self.fits_resolution:
            power = SHARPER * np.asarray(self.resolution, float)
            sharpest = jnp.float32(SPEED_OF_LIGHT / FWHM_PER_SIGMA / SHARPER / self.stated)
        return PixelLikelihood(
            flux=jnp.asarray(flux, jnp.float32),
            forward=GridModel(
                self.reduced,
                SpectrumOperator(grid, self.wavelength, power, rv_range=self.velocities, medium=self.full.medium),
                jnp.float32(0.0),
                self.label_space,
                sharpest,
            ),
            continuum=Continuum(self.wavelength, continuum_terms),
            noise=self._make_noise(grid, sigma, level, good, white),
            scale=jnp.float32(self.scale),
            constant=jnp.float32(self.constant - good.sum() * np.log(self.scale)),
            beside=self.beside,
        )

    def _usable_range(self, grid) -> tuple[float, float]:
        """Å between which lie the pixels to be used."""
        return usable_range(grid, self.velocities, self.reach, self.full.medium)

    def _make_noise(self, grid, sigma, level, good, white) -> Noise:
        as32 = lambda a: jnp.asarray(a, jnp.float32)
        return Noise(
            variance=as32(sigma**2),
            level=as32(level),
            weight=as32(good),
            reference_ivar=as32(1 / sigma**2),
            model_variance=jnp.zeros(len(sigma)),
            factors=jnp.zeros((0, len(sigma))),
            errors=ModelErrors(
                grid,
                self.wavelength,
                resolving_power(self.resolution, self.wavelength),
                lines=self.line_errors,
                uncertainty=self.uncertainty,
                reduction=self.reduced.error if self.counts_surrogate else None,
            ),
            correlation=white,
            surrogate_error=self.counts_surrogate,
            degrees_of_freedom=self.degrees_of_freedom,
        )

    def _reach(self, resolution) -> float:
        """Half-width in km/s of all kernels together: the line spread function's, and v sin i as far as its prior goes."""
        power = resolving_power(resolution, self.observation.wavelength)
        instrument = 5.0 * SPEED_OF_LIGHT / FWHM_PER_SIGMA / float(np.min(power))
        rotation = upper_end(self.nuisance_priors["vsini"]) if "vsini" in self.nuisance_priors else 0.0
        return max(40.0, instrument + 15.0) + rotation

    # What fits and checks need of it

    @property
    def units(self) -> dict[str, str]:
        """Units of all parameters."""
        return {**dict(zip(self.label_space.names, self.label_space.units)), **NUISANCE_UNITS}

    def first_guesses(self, name: str) -> tuple[float, ...]:
        """Values of a nuisance parameter that a search may start from; 1, 2 or 4 of them."""
        own = {"rv": (self.rv_guess,), "log10_resolution": (float(np.log10(self.stated)),)}
        if name == "a_k" and self.gaia is not None:
            return extinction_guess(self.nuisance_priors[name], self.gaia)
        return {**GUESSES, **own}[name]

    @public
    def full_on_grid(self) -> tuple:
        """The full emulator, to be evaluated on the reduced one's grid; a tuple of one."""
        if isinstance(self.full, ReducedEmulator):
            return (self.full,)
        return (self.full.tabulate(self.full.prepare(self.full.check_wavelength(self.reduced.config.wavelength))),)


def emulator_errors(emulator_error, emulator) -> tuple[EmulatorUncertainty | None, bool]:
    """The `EmulatorUncertainty` that `emulator_error` names (see `StellarModel`), and whether surrogates' errors count.

    Raises `EmulatorError` on anything but `"shipped"`, None and an `EmulatorUncertainty`.
    """
    if isinstance(emulator_error, bool):
        named = '"shipped"' if emulator_error else "None"
        warn_old(f"emulator_error={emulator_error}", f"emulator_error={named}", stacklevel=3)
        emulator_error = "shipped" if emulator_error else None
    if emulator_error is None:
        return None, False
    if isinstance(emulator_error, EmulatorUncertainty):
        return emulator_error, True
    if isinstance(emulator_error, str) and emulator_error == "shipped":
        return shipped_uncertainty(emulator), True
    raise EmulatorError(
        f"emulator_error must be 'shipped', None or an EmulatorUncertainty; got {type(emulator_error).__name__} "
        f"{emulator_error!r:.60}."
    )


@eqx.filter_jit
def _grid_flux(emulator, scaled):
    return emulator.grid_flux(scaled)


def _template_labels(space):
    """Labels of the spectra of `StellarModel.templates`."""
    centre = dict(zip(space.names, space.centre))
    templates = (
        {"teff": 5300.0, "logg": 3.5, "fe_h": -0.5, "vmic": 1.5},
        {"teff": 6500.0, "logg": 4.0, "fe_h": -2.0, "vmic": 1.5},
    )
    rows = [space.to_array({**centre, **{k: v for k, v in t.items() if k in centre}}) for t in templates]
    return [row for row in rows if space.contains(row)] or [space.centre]


def _check_overlap(emulator, observation, rv_range):
    wavelength = observation.wavelength_in(emulator.medium)
    (lo, hi) = (
        float(shift_wavelength(w, v, emulator.medium)) for w, v in zip(emulator.wavelength_range, sorted(rv_range))
    )
    if not ((wavelength > lo) & (wavelength < hi) & observation.good).any():
        raise ObservationError(_no_overlap(emulator, observation, rv_range))


def _no_overlap(emulator, observation, velocities):
    wavelength = observation.wavelength_in(emulator.medium)[observation.good]
    lo, hi = emulator.wavelength_range
    return (
        f"The usable pixels of '{observation.name or 'the spectrum'}' cover {wavelength.min():.1f}–{wavelength.max():.1f} Å "
        f"({emulator.medium}), the emulator {lo:.1f}–{hi:.1f} Å: they do not overlap once shifted by the star's velocity "
        f"({min(velocities):.0f} to {max(velocities):.0f} km/s)."
    )
