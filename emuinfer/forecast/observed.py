"""Cramér–Rao bounds of an observation that exists: what a fit of its model could reach at best."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..deprecation import renamed_arguments
from ..emulators import reduce_emulator
from ..entry import public
from ..errors import EmuinferError
from ..forward.operator import SpectrumOperator, usable_range
from ..labels import solar_labels, star_labels
from ..likelihoods import JointModel, Noise, PixelLikelihood, SpectrumModel, StellarModel
from ..observations import Observation
from ..wavelengths.doppler import rest_wavelength
from .bounds import Bounds
from .derivatives import KERNELS, grid_derivatives, pixel_derivatives_jit
from .fisher import covariance_of, information, prior_information, step_sizes
from .instruments import FEWEST, Arm
from .parameters import BROADENING_KMS
from .star import read_star

NO_JITTER = -10.0  # log10


@public
def model_bounds(
    model: SpectrumModel,
    labels,
    *,
    rv=None,
    vbroad=None,
    vsini=None,
    log10_jitter=None,
    continuum=None,
    model_error: bool = False,
    full: bool = False,
) -> Bounds:
    """Cramér–Rao bounds of the observation that `model` describes, for a star with these labels.

    Free are the parameters that the model samples, and the coefficients of its continuum. Parameters with a fixed value in
    the model count as known. A prior adds its curvature −d² log p/dθ² where that is positive: 1/sd² for a Gaussian, nothing
    for a flat one, whose edges the bound does not know; the continuum has its own Gaussian prior. Noise is known: a free
    jitter would not change the bounds, as for Gaussian noise the information of mean and variance do not mix. The arms of a
    `JointModel` add their information, each with its continuum, velocity offset and jitter, and so do spectrophotometry and
    parallax (`XPModel`), always with the errors of their models.

    **Arguments:**

    - `labels`: of the star, as a mapping or array `(n_labels,)`, and its nuisances if known; or the table, the posterior or
      the path of a fit's result (`read_star`). Labels that are left out have the model's fixed value, or the Sun's, with a
      note.
    - `rv`: km/s; by default what `labels` says, or else the model's fixed value or first guess.
    - `vbroad`, `vsini`: km/s; by default what `labels` says, or else the model's fixed value or 3. They matter: near 0 there
      is no information.
    - `log10_jitter`: adds (jitter × continuum)² to the variance, in all arms; by default what `labels` says, or else the
      model's fixed value, or no jitter.
    - `continuum`: Chebyshev coefficients `(n_terms,)` in units of the scaled data, of several arms a sequence of them; by
      default those that fit the data best.
    - `model_error`: add the variance that a fit gives to errors of the lines and of the emulator (`StellarModel`). By
      default the noise is that of the data alone, as usual for such bounds.
    - `full`: derivatives of the full emulator instead of the reduced one.

    **Raises:** `LabelError` on labels outside the emulator's domain, `EmuinferError` if the information is singular, naming
    the combination of parameters that the data do not determine.
    """
    given = {"rv": rv, "vbroad": vbroad, "vsini": vsini, "log10_jitter": log10_jitter}
    known = model_information(model, labels, given, continuum=continuum, model_error=model_error, full=full)
    covariance = covariance_of(known.fisher, known.names, model.label_space)
    values = {n: v for n, v in known.values.items() if not n.startswith("log10_jitter")}
    units = {n: model.units.get(n, "") for n in known.names}
    return Bounds(known.names, values, known.fisher, covariance, units, notes=known.notes)


@dataclasses.dataclass(frozen=True, eq=False)
class Information:
    """What an observation knows of the parameters at one place.

    - `names`: of `fisher` `(n, n)`, the `n_free` free parameters first, then the continua's coefficients; `values`: of all by name.
    - `arms`: of each spectrum, the whitened derivatives by the free parameters `(n_free, n_pix)` and by the coefficients of its
      continuum `(n_terms, n_pix)`, and the prior's standard deviation of these.
    - `beside`: information `(n_free, n_free)` of what has no pixels; `notes`: of the star.
    """

    names: tuple[str, ...]
    n_free: int
    values: dict[str, float]
    arms: list
    beside: np.ndarray
    fisher: np.ndarray
    notes: tuple[str, ...]

    def credit(self, name, widths=None, by_derivative=False) -> tuple[list[np.ndarray], float]:
        """What each pixel, `(n_pix,)` for each spectrum, and what has no pixels tell of one parameter, in 1/unit².

        The estimate weighs each pixel by that part of its derivative which no other parameter can imitate. The square of that is
        the pixel's share of the marginal information, as in `Forecast.information`; or, `by_derivative`, its product with the
        derivative itself, which has the same sum, is nothing where the parameter changes nothing, and below 0 where a blend takes
        information away. `widths`: standard deviations of what is known of the parameters before, so that there is an answer
        where the data say nothing.
        """
        fisher, order = self.fisher.copy(), self.names.index(name)
        for other, sd in (widths or {}).items():
            fisher[(self.names.index(other),) * 2] += sd**-2.0
        scale = 1.0 / np.sqrt(np.diag(fisher))
        row = np.linalg.pinv(fisher * np.outer(scale, scale), rcond=1e-12, hermitian=True)[order] * scale * scale[order]
        weights, start, found = row / row[order], self.n_free, []
        mine = weights[: self.n_free]
        for shared, terms, _ in self.arms:
            score = mine @ shared + weights[start : start + len(terms)] @ terms
            found.append(score * (shared[order] if by_derivative else score))
            start += len(terms)
        return found, float(mine @ self.beside @ (np.eye(self.n_free)[order] if by_derivative else mine))


def model_information(model, labels, given=None, *, continuum=None, model_error=False, full=False) -> Information:
    """The `Information` of the observation that a model describes; the arguments are those of `model_bounds`, `given` its numbers
    by name."""
    star = read_star(labels, model.label_space, model.fixed)
    values = _values(model, star, {n: float(v) for n, v in (given or {}).items() if v is not None})
    likelihood = model.likelihood.with_emulators(model.full_on_grid()) if full else model.likelihood
    return information_at(model, likelihood, values, continuum=continuum, model_error=model_error, notes=star.notes)


def information_at(model, likelihood, values, *, continuum=None, model_error=False, notes=()) -> Information:
    """The `Information` of a `likelihood` of a model's pixels at `values` of all parameters, numbers by name."""
    free = [n for n in model.names if not n.startswith("log10_jitter")]
    if model_error:
        likelihood = _with_model_variance(likelihood, _on_device(values))
    parts, several = likelihood.parts(values), isinstance(model, JointModel)
    coefficients = [None] * len(parts) if continuum is None else list(continuum) if several else [continuum]
    arms: list = []
    found: dict[str, float] = {}
    for k, (spectrum, own) in enumerate(parts, start=1):
        usable = _usable(model.spectra[k - 1], own)
        shared, terms, used = _arm(spectrum, own, free, k, coefficients[k - 1], usable)
        arms.append((shared, terms, np.asarray(spectrum.continuum.sd, float)))
        found |= {f"continuum{f'_{k}' * several}[{i}]": float(c) for i, c in enumerate(used)}
    names = (*free, *found)
    prior = np.array([prior_information(model.all_priors[n], values[n]) for n in free])
    fisher = information(arms, prior)
    beside = _beside(likelihood.others, values, free, model.label_space)
    fisher[: len(free), : len(free)] += beside
    return Information(names, len(free), values | found, arms, beside, fisher, notes)


def _beside(others, values, free, space) -> np.ndarray:
    """Information on the parameters `free` of what has no pixels, `(n_free, n_free)`."""
    unit = step_sizes(space, free)
    total = np.zeros((len(free),) * 2)
    for one in others:
        total += np.asarray(_information(one, _on_device(values), tuple(free), jnp.asarray(unit, jnp.float32)), float)
    return total / np.outer(unit, unit)


@eqx.filter_jit
def _information(likelihood, values, free, unit):
    at = lambda z: {**values, **{n: values[n] + unit[i] * z[i] for i, n in enumerate(free)}}
    return likelihood.information(at, jnp.zeros(len(free)))


def _values(model, star, given) -> dict[str, float]:
    """A number for every parameter of the model."""
    said = star.nuisances | given
    jitter = said.pop("log10_jitter", None)
    if unknown := [n for n in said if n not in model.nuisance_priors]:
        name = unknown[0]
        raise EmuinferError(
            f"{name} = {said[name]} was given, but the model has no {name} (broadening='{model.broadening}')."
        )
    values = dict(star.labels)
    for name in model.nuisance_priors:
        if name.startswith("log10_jitter"):
            default = model.fixed.get(name, NO_JITTER) if jitter is None else jitter
        else:
            guess = BROADENING_KMS if name in ("vbroad", "vsini") else model.first_guesses(name)[0]
            default = model.fixed.get(name, guess)
        values[name] = float(said.get(name, default))
    return values


def _usable(arm: StellarModel, values) -> np.ndarray:
    """The pixels of a spectrum that the emulator determines at the velocity of `values`, `(n_pix,)` bool.

    Raises `EmuinferError` where too few are left.
    """
    lo, hi = usable_range(arm.reduced.config.wavelength, (values["rv"],) * 2, arm.reach, arm.full.medium)
    inside = (arm.wavelength >= lo) & (arm.wavelength <= hi)
    if inside.sum() < FEWEST:
        raise EmuinferError(
            f"rv = {values['rv']:g} km/s leaves {inside.sum()} of the {len(inside)} pixels, which were chosen for a star at "
            f"{arm.rv_guess:.0f} km/s. Make the model with rv_range about the star's velocity."
        )
    return inside


def _arm(spectrum: PixelLikelihood, values, free, k, coefficients, usable=None):
    """Of the k-th spectrum, the whitened derivatives by the parameters of `free` `(n_free, n_pix)` and by the coefficients
    of the continuum `(n_terms, n_pix)`, and the coefficients. `usable` `(n_pix,)`: pixels that count, by default all."""
    forward, continuum, noise = spectrum.forward.grid, spectrum.continuum, spectrum.noise
    if usable is not None:  # at another velocity than the model's own the emulator covers other pixels
        noise = noise.with_weight(noise.weight * jnp.asarray(usable, jnp.float32))
    space = forward.label_space
    if coefficients is None:
        coefficients = _coefficients(spectrum, _on_device(values))
    coefficients = np.asarray(coefficients, float)
    scaled = jnp.asarray(space.scale(np.array([values[n] for n in space.names])), jnp.float32)
    on_grid = grid_derivatives(forward.emulator.grid_flux, scaled)
    kernel = _on_device({n: values[n] for n in KERNELS if n in values})
    flux, rows = (np.asarray(a, float) for a in pixel_derivatives_jit(forward.operator, *on_grid, kernel))
    order = (*space.names, *kernel)
    by_name = dict(zip(order, rows / step_sizes(space, order)[:, None]))
    by_name[f"rv_offset_{k}"] = by_name["rv"]
    terms = np.asarray(continuum.basis[: continuum.n_terms], float)
    shared = np.stack([by_name.get(n, np.zeros_like(flux)) for n in free]) * (coefficients @ terms)
    rows = np.asarray(noise.white(jnp.asarray(np.concatenate([shared, terms * flux]), jnp.float32)), float)
    rows = rows / _sigma(noise, values["log10_jitter"])
    return rows[: len(free)], rows[len(free) :], coefficients


def _sigma(noise: Noise, log10_jitter) -> np.ndarray:
    """Total standard deviation at the pixels, infinite where they are not used, `(n_pix,)`."""
    variance = np.asarray(noise.variance, float) + np.asarray(noise.model_variance, float)
    if log10_jitter > NO_JITTER:
        variance = variance + (10.0**log10_jitter * np.asarray(noise.level, float)) ** 2
    weight = np.asarray(noise.weight, float)
    return np.where(weight > 0, np.sqrt(variance / np.maximum(weight, 1e-30)), np.inf)


def _on_device(values: dict) -> dict:
    return {n: jnp.float32(v) for n, v in values.items()}


@eqx.filter_jit
def _coefficients(spectrum, values) -> Float[Array, " n_terms"]:
    """The coefficients of the continuum that fit the spectrum best."""
    return spectrum.marginal(values)[1]


@eqx.filter_jit
def _with_model_variance(likelihood, values):
    return likelihood.with_model_variance(values)


@public
@renamed_arguments(sampling="pixels_per_fwhm")
def instrument_model(
    emulator,
    *,
    wavelength_range: tuple[float, float],
    resolution: float,
    snr: float,
    pixels_per_fwhm: float = 3.0,
    labels=None,
    rv: float = 0.0,
    vbroad: float = BROADENING_KMS,
    vsini: float = BROADENING_KMS,
    **options,
) -> StellarModel:
    """The model of a spectrum that an instrument would take: noise-free flux, with the noise's size known.

    **Arguments:**

    - `wavelength_range`: Å in the emulator's medium, within the emulator's range for a star at `rv` km/s.
    - `resolution`: λ/FWHM of the Gaussian line spread function; `pixels_per_fwhm` pixels to each, uniform in ln λ.
    - `snr`: signal-to-noise ratio per pixel at the continuum; every pixel's noise is 1/`snr`.
    - `labels`: of the star; the Sun's by default (`solar_labels`). `vbroad`, `vsini`: km/s, used as `broadening` says.
    - `options`: for `StellarModel` (`priors`, `broadening`, `continuum_terms`, …).

    Pixels within about 70 km/s of the ends of the emulator's range are left out, as in every fit.

    **Raises:** `EmulatorError` if the range leaves the emulator's, `LabelError` on labels outside its domain.
    """
    if not (np.isfinite(snr) and snr > 0):
        raise EmuinferError(f"snr = {snr} must be a positive number.")
    emulator.check_wavelength(rest_wavelength(wavelength_range, rv, emulator.medium))
    wavelength = Arm(*wavelength_range, resolution, pixels_per_fwhm).pixels()
    space = emulator.label_space
    star = star_labels(space, solar_labels(space) if labels is None else labels)
    reduced = reduce_emulator(emulator, progress=options.get("progress", True))
    broadening = options.get("broadening", "vbroad")
    kernel = {
        "vbroad": vbroad if broadening in ("vbroad", "both") else 0,
        "vsini": vsini if broadening in ("vsini", "both") else 0,
    }
    operator = SpectrumOperator(
        reduced.config.wavelength, wavelength, resolution, rv_range=(rv, rv), medium=emulator.medium
    )
    scaled = jnp.asarray(space.scale(np.array(list(star.values()))), jnp.float32)
    flux = np.asarray(operator(reduced.grid_flux(scaled), rv, **kernel), float)
    observation = Observation(
        wavelength, flux, 1.0 / snr, resolution=resolution, medium=emulator.medium, name="instrument", clip=None
    )
    return StellarModel(emulator, observation, **{"rv_range": (rv - 30.0, rv + 30.0), **options})
