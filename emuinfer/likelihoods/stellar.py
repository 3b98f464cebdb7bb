"""`StellarSpectrum`: a NumPyro model of one observed spectrum around an emulator."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from ..emulators import LocalSpectrum, ReducedEmulator, reduce_emulator
from ..emulators.uncertainty import EmulatorUncertainty, shipped_uncertainty
from ..errors import LabelError, ObservationError
from ..forward.continuum import Continuum, log_likelihood_constant
from ..forward.lsf import cut_resolution, resolving_power
from ..forward.noise_correlation import Correlation, WhiteTerms
from ..forward.operator import SpectrumOperator, usable_pixels
from ..observations.quality import scaled_to_continuum
from .compressed import CompressedStar
from .line_errors import resolve
from .model_errors import ModelErrors
from .priors import BROADENING, checked_prior, default_nuisance_priors, domain_penalty, label_priors

NUISANCE_UNITS = {"rv": "km / s", "vbroad": "km / s", "vsini": "km / s", "log10_jitter": ""}


class StarData(eqx.Module):
    """What the likelihood of one star needs on the device; an argument of every jitted function, never closed over."""

    emulator: Any  # anything with grid_flux(scaled_labels) on the operator's grid, or a LocalSpectrum of this star
    operator: SpectrumOperator
    continuum: Continuum
    flux: jax.Array  # (n_pix,), scaled to a continuum near 1
    variance: jax.Array  # (n_pix,), of the data, in units of the scaled flux squared
    model_variance: jax.Array  # (n_pix,), of the model: errors of its lines and of the emulator
    factors: jax.Array  # (rank, n_pix), errors of the emulator that many pixels share, relative to the continuum
    errors: ModelErrors
    whole: ReducedEmulator  # of the whole domain; where `emulator` is a LocalSpectrum, the errors are those of its flux
    frame: jax.Array  # km/s from which `rv` is counted: 0, or a first guess where one model serves many stars
    level: jax.Array  # (n_pix,), a rough continuum of the scaled flux: the jitter is a fraction of it
    weight: jax.Array  # (n_pix,), 0 for pixels not to be used, below 1 for outliers
    reference_ivar: jax.Array  # (n_pix,)
    share: jax.Array | None = (
        None  # (n_pix,): the model's variance is this times larger, as other arms see the same lines
    )
    correlation: Correlation | None = (
        None  # of the noise: variances and weights are then those of its white combinations
    )


class StellarSpectrum:
    """A NumPyro model: labels, radial velocity, broadening, continuum and noise of one star.

    The model flux is the emulator's, convolved with the line spread function, with rotation and Gaussian macroturbulence,
    Doppler-shifted, and multiplied by a Chebyshev continuum that is integrated out analytically. The variance of a pixel is
    the data's, plus the emulator's error, plus (`jitter` × continuum)². Outlying pixels (missing or wrong lines, tellurics,
    cosmic rays) are down-weighted as by a Student-t likelihood of `degrees_of_freedom`; the weights are found by iteration
    at the optimum and then kept (see `reweight`).

    **Arguments:**

    - `emulator`: any `Emulator`, which is reduced first (`reduce_emulator`, cached on disk), or a `ReducedEmulator`.
    - `observation`: an `Observation` with a resolution.
    - `priors`: label or nuisance name to a NumPyro distribution, or to a number that fixes it. Defaults: labels flat in the
      emulator's domain, `rv` flat within 20 km/s of the cross-correlation's, `vbroad` and `vsini` half-normal,
      the jitter half-normal with 0.02 of the continuum.
    - `broadening`: `"vbroad"` (Gaussian standard deviation, km/s), `"vsini"` (rotation, km/s), `"both"` or `"none"`.
    - `resolution`: resolving power, one value or `(n_pix,)`, or resolution matrix, if the observation does not say.
    - `rv_range`: km/s, searched for the star's velocity.
    - `continuum_terms`: Chebyshev terms; one per 25 Å by default.
    - `line_errors`: `"shipped"`, a `LineErrors` table, or None: how wrong the lines of the model are, in the variance.
    - `emulator_error`: the emulator's own error as a covariance, diagonal and low rank: True for the one that ships with the
      emulator (if there is one) and the surrogate's error, an `EmulatorUncertainty`, or False to see what it does.
    - `robust`: down-weight outliers, the more the fewer `degrees_of_freedom`.
    - `correlation`: pixels over which the correlation of the noise falls to 1/e, as of resampled spectra; None: independent
      pixels. The jitter has the same correlation. The model's errors, which are common to a whole line, keep their size.

    The object is a plain NumPyro model: call it, or hand it to `numpyro.infer.MCMC`, `Predictive` or handlers. Calling it
    returns the values of all parameters, for whatever else is known of the star. A photometric temperature is a prior,
    `priors={"teff": dist.Normal(5700, 80)}`; a parallax, which tells of several labels at once, is a factor:

        class WithParallax(StellarSpectrum):
            def __call__(self, data=None):
                values = super().__call__(data)
                # log g = log g☉ + log M + 4 log(Teff / 5772 K) + 0.4 (M_bol − 4.74): here M = 1 M☉, M_bol = 4.9
                expected = 4.438 + 4 * jnp.log10(values["teff"] / 5772) + 0.4 * (4.9 - 4.74)
                numpyro.factor("parallax", dist.Normal(expected, 0.05).log_prob(values["logg"]))
                return values

    Its objects go to `sample` as any other; a plain function that calls a `StellarSpectrum` and adds the factor goes to
    NumPyro's samplers. The constants are the IAU's nominal ones (Prša et al. 2016, AJ 152, 41).

    **Raises:** `ObservationError` without a resolution or without overlap with the emulator (naming both ranges), and
    `LabelError` on priors that do not fit the labels.
    """

    def __init__(
        self,
        emulator,
        observation,
        *,
        priors=None,
        broadening="vbroad",
        resolution=None,
        rv_range=(-500.0, 500.0),
        continuum_terms=None,
        line_errors="shipped",
        emulator_error=True,
        robust=True,
        degrees_of_freedom=4.0,
        correlation=None,
        progress=True,
    ):
        if broadening not in BROADENING:
            raise LabelError(f"broadening must be one of {', '.join(BROADENING)}; got '{broadening}'.")
        resolution = observation.resolution if resolution is None else resolution
        if resolution is None:
            raise ObservationError(
                f"The resolving power of '{observation.name or 'the spectrum'}' is not known. Give resolution=R, the FWHM of "
                "the line spread function as wavelength / R."
            )
        _check_overlap(emulator, observation)
        self.full = emulator
        self.reduced = (
            emulator if isinstance(emulator, ReducedEmulator) else reduce_emulator(emulator, progress=progress)
        )
        self.label_space = emulator.label_space
        self.broadening = broadening
        self.robust, self.degrees_of_freedom = robust, float(degrees_of_freedom)
        self.line_errors, self.emulator_error = resolve(line_errors, emulator), bool(emulator_error)
        given = isinstance(emulator_error, EmulatorUncertainty)
        self.uncertainty = emulator_error if given else shipped_uncertainty(emulator) if emulator_error else None
        self.observation, self.correlation = observation, correlation
        self._split_priors(dict(priors or {}))
        self.rv_guess = self._find_velocity(rv_range)
        self._set_nuisance_priors(rv_range)
        self._set_data(resolution, continuum_terms)

    # What it is made of

    def _split_priors(self, priors):
        nuisance = {k: checked_prior(k, priors.pop(k)) for k in list(priors) if k in NUISANCE_UNITS}
        self.priors = label_priors(self.label_space, priors)
        self.nuisance_priors = nuisance

    def _set_nuisance_priors(self, rv_range):
        import numpyro.distributions as dist

        guess = round(self.rv_guess)  # a whole number, so that programs compiled for one star serve others
        lo, hi = max(guess - 20, min(rv_range)), min(guess + 20, max(rv_range))
        defaults = {"rv": dist.Uniform(lo, hi), **default_nuisance_priors(self.broadening)}
        if unused := sorted(set(self.nuisance_priors) - set(defaults)):
            raise LabelError(
                f"A prior of {', '.join(unused)} was given, which broadening='{self.broadening}' does not have."
            )
        self.nuisance_priors = {k: self.nuisance_priors.get(k, v) for k, v in defaults.items()}

    def _find_velocity(self, rv_range):
        """A first radial velocity, by cross-correlation."""
        from ..observations.cross_correlation import cross_correlation_rv

        fixed = self.nuisance_priors.get("rv")
        if isinstance(fixed, int | float):
            return float(fixed)
        return cross_correlation_rv(*self.correlation_pair(), rv_range=rv_range)

    def correlation_pair(self):
        """The observation, and wavelengths and flux of a spectrum from the middle of the domain, in the same medium."""
        return self._in_medium(), self.reduced.config.wavelength, self.template()

    def template(self) -> np.ndarray:
        """Normalised flux on the reduced emulator's grid of a spectrum with strong and weak lines, for cross-correlations."""
        scaled = jnp.asarray(self.label_space.scale(_template_labels(self.label_space)), jnp.float32)
        return np.asarray(_grid_flux(self.reduced, scaled), float)

    def _in_medium(self):
        """The observation with wavelengths in the emulator's medium."""
        return self.observation.in_medium(self.full.medium)

    def _set_data(self, resolution, continuum_terms):
        observation = self._in_medium()
        grid = self.reduced.config.wavelength
        velocities = self.rv_guess - 25, self.rv_guess + 25
        self.reach = self._reach(resolution)
        usable = usable_pixels(grid, observation.wavelength, velocities, self.reach)
        if not (usable & observation.good).any():
            raise ObservationError(_no_overlap(self.full, observation))
        keep = np.flatnonzero(usable)
        keep = slice(keep[0], keep[-1] + 1)
        self.wavelength = observation.wavelength[keep]
        self.pixels = keep
        self.resolution, whole = cut_resolution(resolution, keep)
        good = observation.good[keep] & whole
        self.scale, flux, sigma, level = scaled_to_continuum(
            observation.flux[keep], observation.uncertainty[keep], good
        )
        variance = sigma**2
        self.constant = log_likelihood_constant(np.where(good, 1 / variance, 0.0))
        white = None if self.correlation is None else Correlation(self.correlation, sigma, good)
        self.constant += 0.0 if white is None else white.log_determinant
        as32 = lambda a: jnp.asarray(a, jnp.float32)
        self.data = StarData(
            emulator=self.reduced,
            operator=SpectrumOperator(grid, self.wavelength, self.resolution),
            continuum=Continuum(self.wavelength, continuum_terms),
            flux=as32(flux),
            variance=as32(variance),
            model_variance=jnp.zeros(len(variance)),
            factors=jnp.zeros((0, len(variance))),
            errors=ModelErrors(
                grid,
                self.wavelength,
                resolving_power(self.resolution, self.wavelength),
                lines=self.line_errors,
                uncertainty=self.uncertainty,
                reduction=self.reduced.error if self.emulator_error else None,
            ),
            whole=self.reduced,
            frame=jnp.float32(0.0),
            level=as32(level),
            weight=as32(good),
            reference_ivar=as32(1 / variance),
            correlation=white,
        )

    def _reach(self, resolution) -> float:
        """Half-width in km/s of all kernels together: the line spread function's, and v sin i as far as its prior goes."""
        power = resolving_power(resolution, self.observation.wavelength)
        instrument = 5.0 * SPEED_OF_LIGHT / FWHM_PER_SIGMA / float(np.min(power))
        rotation = _upper_end(self.nuisance_priors["vsini"]) if "vsini" in self.nuisance_priors else 0.0
        return max(40.0, instrument + 15.0) + rotation

    @property
    def names(self) -> tuple[str, ...]:
        """Sampled parameters, labels first."""
        priors = {**self.priors, **self.nuisance_priors}
        return tuple(n for n, p in priors.items() if not isinstance(p, float | int))

    @property
    def units(self) -> dict[str, str]:
        return {**dict(zip(self.label_space.names, self.label_space.units)), **NUISANCE_UNITS}

    # The model

    def __call__(self, data: StarData | None = None):
        """Declare the model to NumPyro and return the values of all parameters. `data` defaults to this star's."""
        import numpyro

        data = self.data if data is None else data
        values = {}
        for name, prior in {**self.priors, **self.nuisance_priors}.items():
            values[name] = jnp.float32(prior) if isinstance(prior, float | int) else numpyro.sample(name, prior)
        for name, factor in self.factors(values, data).items():
            numpyro.factor(name, factor)
        return values

    def factors(self, values: dict, data) -> dict:
        """What the log density adds to that of the priors, by name: the soft wall of the domain, the log likelihood."""
        wall = domain_penalty(self.label_space, self.scaled_labels(values))
        return {"domain": wall, "spectrum": self.log_likelihood(values, data)[0]}

    def log_likelihood(self, values: dict, data: StarData):
        """Log likelihood relative to `constant`, and continuum coefficients, at one value per parameter (physical units).

        For a `CompressedStar` in place of `data` the coefficients are None.
        """
        if isinstance(data, CompressedStar):
            return data.log_likelihood(self.local_parameters(values), values["log10_jitter"]), None
        model = self.normalised_flux(values, data)
        ivar = self._ivar(values, data)
        factors = data.factors * data.level
        return data.continuum.log_likelihood(model, data.flux, ivar, data.reference_ivar, factors, data.correlation)

    def normalised_flux(self, values: dict, data: StarData) -> jax.Array:
        """Model flux at the pixels before the continuum, `(n_pix,)`."""
        if isinstance(data.emulator, LocalSpectrum):
            return data.emulator(self.local_parameters(values))
        flux = data.emulator.grid_flux(self.scaled_labels(values))
        return self._operate(values, data)(flux)

    def _operate(self, values, data):
        rv = values["rv"] + data.frame
        return lambda flux: data.operator(flux, rv, values.get("vbroad", 0), values.get("vsini", 0))

    def local_parameters(self, values: dict) -> jax.Array:
        """What the flux at the pixels depends on, as one vector: scaled labels, velocity and broadening."""
        nuisance = [jnp.asarray(values[n], jnp.float32) for n in ("rv", "vbroad", "vsini") if n in values]
        return jnp.concatenate([self.scaled_labels(values), jnp.stack(nuisance)])

    def variance(self, values: dict, data: StarData) -> jax.Array:
        """Variance of the pixels `(n_pix,)`: of the data, of the model's lines and of the jitter."""
        jitter = 10.0 ** values["log10_jitter"]
        return data.variance + data.model_variance + (jitter * data.level) ** 2

    def _ivar(self, values, data):
        return data.weight / self.variance(values, data)

    def compressible(self, values: dict, data: StarData):
        """`(local surrogate, data, coefficients, flux)` for `compress` at `values`: white where the noise is correlated."""
        coefficients, flux = self.log_likelihood(values, data)[1], self.normalised_flux(values, data)
        if data.correlation is None:
            return data.emulator, data, coefficients, flux
        white, continuum = data.correlation, data.continuum(coefficients)
        terms = white(data.continuum.basis[: data.continuum.n_terms] * flux)
        terms = WhiteTerms(terms, data.continuum.mean, data.continuum.sd)
        factors = white(data.factors * data.level) / data.level
        mean, basis = white(data.emulator.mean * continuum), white(data.emulator.basis * continuum)
        local = eqx.tree_at(lambda e: (e.mean, e.basis), data.emulator, (mean, basis))
        made_white = eqx.tree_at(lambda d: (d.flux, d.factors, d.continuum), data, (white(data.flux), factors, terms))
        return local, made_white, coefficients, jnp.ones_like(flux)

    # What fits and checks need of it

    def first_guesses(self, name: str) -> tuple[float, ...]:
        """Values of a nuisance parameter that a search may start from; 1, 2 or 4 of them."""
        return {"rv": (self.rv_guess,), "vbroad": (3.0,), "vsini": (3.0, 12.0, 35.0, 80.0), "log10_jitter": (-1.7,)}[
            name
        ]

    def parts(self, data) -> list:
        """`(spectrum, values_of, data)` for each spectrum of the star, here one: see `JointSpectrum.parts`."""
        return [(self, lambda values: values, data)]

    def joined(self, parts):
        """The opposite of `parts`: the data of the star from those of its spectra."""
        return parts[0]

    def with_emulator(self, grid_emulator) -> StarData:
        """The star's data with another emulator (a `LocalSpectrum`, or a full emulator on the grid)."""
        return eqx.tree_at(lambda d: d.emulator, self.data, grid_emulator, is_leaf=lambda x: x is self.data.emulator)

    def full_on_grid(self):
        """The full emulator, to be evaluated on the reduced one's grid."""
        if isinstance(self.full, ReducedEmulator):
            return self.full
        return self.full.tabulate(self.full.prepare(self.full.check_wavelength(self.reduced.config.wavelength)))

    def complete(self, values: dict) -> dict:
        """`values` of the sampled parameters with the fixed ones added."""
        fixed = {n: p for n, p in {**self.priors, **self.nuisance_priors}.items() if isinstance(p, float | int)}
        return {**{k: jnp.float32(v) for k, v in fixed.items()}, **values}

    def model_errors(self, values: dict, data: StarData):
        """`(variance, factors, error)` of `ModelErrors.at` at `values`: `(n_pix,)`, `(rank, n_pix)`, `(n_pix,)`. Pure JAX.

        In units of the scaled flux; `error` is that of single pixels, for figures.
        """
        local = isinstance(data.emulator, LocalSpectrum)
        scaled = self.scaled_labels(values)
        flux = (data.whole if local else data.emulator).grid_flux(scaled)
        own = (data.emulator.error if self.emulator_error else jnp.zeros_like(data.flux)) if local else None
        broadening = jnp.float32(values.get("vbroad", 0.0)) + 0.5 * jnp.float32(values.get("vsini", 0.0))
        fe_h = jnp.float32(values.get("fe_h", 0.0))
        variance, factors, error = data.errors.at(scaled, fe_h, flux, self._operate(values, data), broadening, own)
        share = 1.0 if data.share is None else data.share
        # Errors of lines reach over several pixels; factors go through the transform themselves.
        kept = 1.0 if data.correlation is None else data.correlation.smooth
        return variance * data.level**2 * share * kept, factors * jnp.sqrt(share), error * data.level

    def with_model_errors(self, values: dict, data: StarData) -> StarData:
        """`data` with the variance and the factors of the model's errors at `values`."""
        variance, factors, _ = _model_errors(self.model_errors, self._float32(values), data)
        return eqx.tree_at(lambda d: (d.model_variance, d.factors), data, (variance, factors))

    def model_variance(self, values: dict, data: StarData) -> jax.Array:
        """Variance `(n_pix,)` of the model's errors, in units of the scaled flux: the diagonal part of `model_errors`."""
        return _model_errors(self.model_errors, self._float32(values), data)[0]

    def model_error(self, values: dict, data: StarData) -> np.ndarray:
        """Standard deviation `(n_pix,)` of the model's errors at single pixels, in units of the scaled flux."""
        return np.asarray(_model_errors(self.model_errors, self._float32(values), data)[2], float)

    def _float32(self, values):
        return {k: jnp.float32(v) for k, v in self.complete(values).items()}

    def scaled_labels(self, values: dict) -> jax.Array:
        """Labels of `values` scaled to [-1, 1], `(n_labels,)`."""
        labels = jnp.stack([jnp.asarray(values[n], jnp.float32) for n in self.label_space.names])
        return self.label_space.scale(labels)

    def residual_and_depth(self, values: dict, data: StarData):
        """Data minus model, over the continuum, and the model's depth 1 − f; NumPy, both `(n_pix,)`."""
        values = self._float32(values)
        residual, _ = _residuals(self, values, data)
        flux, continuum = _flux_and_continuum(self.log_likelihood, self.normalised_flux, values, data)
        return np.asarray(residual / continuum, float), 1.0 - np.asarray(flux, float)

    def reweight(self, values: dict, data: StarData) -> jax.Array:
        """Weights of a Student-t likelihood with ν degrees of freedom, (ν + 1) / (ν + r²), at `values`.

        r is the residual in units of the total standard deviation. Divided by the weights' mean for Gaussian residuals and
        cut at 1, so that good data keep nearly all of theirs; pixels that are not to be used keep 0.
        """
        residual, sigma = _residuals(self, self._float32(values), data)
        if data.correlation is not None:
            residual = data.correlation(residual)
        return jnp.where(data.weight > 0, t_weights(residual / sigma, self.degrees_of_freedom), 0.0)


def _upper_end(prior) -> float:
    """The 99.9 % quantile of a prior, from draws; of a fixed value, the value."""
    if isinstance(prior, float | int):
        return float(prior)
    return float(np.quantile(np.asarray(prior.sample(jax.random.key(0), (4000,))), 0.999))


def t_weights(r, nu: float):
    """Weights (ν + 1) / (ν + r²) over their mean for unit Gaussian `r`, at most 1."""
    nodes, share = np.polynomial.hermite_e.hermegauss(40)
    mean = np.sum(share * (nu + 1) / (nu + nodes**2)) / share.sum()
    return jnp.minimum((nu + 1) / (nu + r**2) / np.float32(mean), 1.0)


@eqx.filter_jit
def _model_errors(errors_of, values, data):
    return errors_of(values, data)


@eqx.filter_jit
def _residuals_jit(log_likelihood, flux_of, ivar_of, values, data):
    _, coefficients = log_likelihood(values, data)
    model = flux_of(values, data) * data.continuum(coefficients)
    unweighted = eqx.tree_at(lambda d: d.weight, data, jnp.ones_like(data.weight))
    return data.flux - model, 1 / jnp.sqrt(ivar_of(values, unweighted))


def _residuals(model, values, data):
    """Data minus model and the total standard deviation, both `(n_pix,)`, without the outlier weights."""
    return _residuals_jit(model.log_likelihood, model.normalised_flux, model._ivar, values, data)


@eqx.filter_jit
def _flux_and_continuum(log_likelihood, flux_of, values, data):
    return flux_of(values, data), data.continuum(log_likelihood(values, data)[1])


@eqx.filter_jit
def _grid_flux(emulator, scaled):
    return emulator.grid_flux(scaled)


def _template_labels(space):
    """Labels with strong and weak lines at once: a good template for stars of all kinds."""
    centre = dict(zip(space.names, space.centre))
    template = {"teff": 5300.0, "logg": 3.5, "fe_h": -0.5, "vmic": 1.5}
    return space.to_array({**centre, **{k: v for k, v in template.items() if k in centre}})


def _check_overlap(emulator, observation):
    wavelength = observation.wavelength_in(emulator.medium)
    lo, hi = emulator.wavelength_range
    if not ((wavelength > lo) & (wavelength < hi) & observation.good).any():
        raise ObservationError(_no_overlap(emulator, observation))


def _no_overlap(emulator, observation):
    wavelength = observation.wavelength_in(emulator.medium)[observation.good]
    lo, hi = emulator.wavelength_range
    return (
        f"The usable pixels of '{observation.name or 'the spectrum'}' cover {wavelength.min():.1f}–{wavelength.max():.1f} Å "
        f"({emulator.medium}), the emulator {lo:.1f}–{hi:.1f} Å: they do not overlap once shifted by the star's velocity."
    )
