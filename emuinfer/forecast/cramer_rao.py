"""Cramér–Rao bounds: how well one spectrum can determine labels at best.

The Fisher information of data with Gaussian noise of known variance is F = (J/σ)ᵀ (J/σ), J the derivatives of the model
flux with respect to the parameters. No unbiased estimate has a covariance below F⁻¹ (e.g. Ting et al. 2017, ApJ 843, 32;
Sandford, Weisz & Ting 2020, ApJS 249, 24).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..emulators import Emulator, reduce_emulator
from ..errors import EmuinferError
from ..forward.operator import SpectrumOperator
from ..labels.space import solar_labels
from ..likelihoods import StellarModel
from ..observations import Observation
from .bounds import Bounds, invert, prior_information, step_sizes
from .forecast import Exposure, Forecast
from .instruments import Instrument, load_instrument

BROADENING_KMS = 3.0  # where the caller names no vbroad or vsini; the information vanishes at 0


def cramer_rao(model_or_emulator, labels, instrument=None, snr=None, **options) -> Bounds:
    """Cramér–Rao bounds for a star with these labels.

    `cramer_rao(model, labels)` is about the observation that a `StellarModel` describes, see `model_bounds` for the
    options. `cramer_rao(emulator, labels, instrument, snr)` is a forecast for a spectrum not yet taken, see
    `forecast_bounds`.
    """
    if isinstance(model_or_emulator, StellarModel):
        if instrument is not None or snr is not None:
            raise EmuinferError(
                "A StellarModel has its own observation: give no instrument or S/N with it. For a forecast pass the emulator."
            )
        return model_bounds(model_or_emulator, labels, **options)
    if not isinstance(model_or_emulator, Emulator):
        raise EmuinferError(f"cramer_rao needs a StellarModel or an Emulator; got {type(model_or_emulator).__name__}.")
    if instrument is None:
        raise EmuinferError("A forecast needs an instrument: an Instrument, the name of a shipped one, or exposures.")
    return forecast_bounds(model_or_emulator, labels, instrument, snr, **options)


def forecast_bounds(
    emulator,
    labels,
    instrument,
    snr=None,
    *,
    snr_per="pixel",
    mask=(),
    correlation_pixels=0.0,
    continuum_terms=None,
    priors=None,
    rv=0.0,
    vbroad=BROADENING_KMS,
    vsini=BROADENING_KMS,
    broadening="vbroad",
    uncertainty="shipped",
) -> Bounds:
    """Cramér–Rao bounds of spectra not yet taken.

    **Arguments:**

    - `emulator`: any `Emulator`. Its derivatives are used, not those of a reduction, unless a `ReducedEmulator` is given.
    - `labels`: mapping or array `(n_labels,)`; labels that `priors` fix may be left out of a mapping.
    - `instrument`: an `Instrument`, the name of a shipped one (`list_instruments`), or an `Exposure` or several, which then
      bring their own S/N, masks and continua.
    - `snr`: at the continuum: a number, a function of the wavelength, or a pair of arrays (wavelength, S/N).
    - `snr_per`: what it refers to: `"pixel"`, `"resolution_element"` or `"angstrom"`.
    - `mask`, `correlation_pixels`, `continuum_terms`: see `Exposure`.
    - `priors`, `rv`, `vbroad`, `vsini`, `broadening`: see `Forecast`.
    - `uncertainty`: see `Forecast.bounds`.

    **Raises:** `LabelError` on labels outside the emulator's domain, `EmuinferError` on bad numbers, on an instrument that
    the emulator does not cover, and if the information is singular, naming the combination that stays undetermined.
    """
    if isinstance(instrument, str):
        instrument = load_instrument(instrument)
    exposures = instrument
    if isinstance(instrument, Instrument):
        if snr is None:
            raise EmuinferError(
                "A forecast needs a signal-to-noise ratio: give snr, and snr_per if it is not per pixel."
            )
        exposures = Exposure(
            instrument,
            snr,
            snr_per,
            mask=tuple(mask),
            correlation_pixels=correlation_pixels,
            continuum_terms=continuum_terms,
        )
    elif snr is not None:
        raise EmuinferError("Exposures bring their own S/N: give no snr with them.")
    forecast = Forecast(
        emulator, labels, exposures, priors=priors, rv=rv, vbroad=vbroad, vsini=vsini, broadening=broadening
    )
    return forecast.bounds(uncertainty=uncertainty)


def model_bounds(
    model: StellarModel,
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
    jitter would not change the bounds, as for Gaussian noise the information of mean and variance do not mix.

    **Arguments:**

    - `labels`: mapping or array `(n_labels,)`; labels that the model fixes may be left out of a mapping.
    - `rv`: km/s; by default the model's fixed value or first guess.
    - `vbroad`, `vsini`: km/s; by default the model's fixed value or 3. They matter: near 0 there is no information.
    - `log10_jitter`: adds (jitter × continuum)² to the variance; by default the model's fixed value, or no jitter.
    - `continuum`: Chebyshev coefficients `(n_terms,)` in units of the scaled data; by default those that fit the data best.
    - `model_error`: add the variance that a fit gives to errors of the lines and of the emulator (`StellarModel`). By
      default the noise is that of the data alone, as usual for such bounds.
    - `full`: derivatives of the full emulator instead of the reduced one.

    **Raises:** `LabelError` on labels outside the emulator's domain, `EmuinferError` if the information is singular, naming
    the combination of parameters that the data do not determine.
    """
    space = model.label_space
    priors = {**model.priors, **model.nuisance_priors}
    fixed = {n: float(p) for n, p in priors.items() if isinstance(p, float | int)}
    if hasattr(labels, "keys"):
        labels = {**{n: v for n, v in fixed.items() if n in space.names}, **labels}
    space.check(labels)
    values = dict(zip(space.names, np.asarray(space.to_array(labels), float).reshape(len(space)).tolist()))
    defaults = {"rv": model.rv_guess, "vbroad": BROADENING_KMS, "vsini": BROADENING_KMS}
    for name, given in {"rv": rv, "vbroad": vbroad, "vsini": vsini}.items():
        if name in priors:
            values[name] = float(fixed.get(name, defaults[name]) if given is None else given)
        elif given is not None:
            raise EmuinferError(
                f"{name} = {given} was given, but the model has no {name} (broadening='{model.broadening}')."
            )
    free = [n for n in values if n not in fixed]
    jitter = fixed.get("log10_jitter") if log10_jitter is None else log10_jitter

    data = model.likelihood.with_emulators(model.full_on_grid()) if full else model.likelihood
    if model_error:
        data = _with_model_variance(data, {n: jnp.float32(v) for n, v in values.items()})
    flux, columns = _derivatives(model, values, free, data)
    coefficients = _continuum_at(model, values, data, jitter) if continuum is None else np.asarray(continuum, float)
    sigma = _sigma(model, data, jitter)
    terms = np.asarray(data.continuum.basis[: data.continuum.n_terms], float)
    jacobian = np.concatenate([columns * (coefficients @ terms), terms * flux])
    prior = np.array(
        [prior_information(priors[n], values[n]) for n in free] + list(1 / np.asarray(data.continuum.sd, float) ** 2)
    )
    names = tuple(free) + tuple(f"continuum[{i}]" for i in range(len(terms)))
    values |= {f"continuum[{i}]": float(c) for i, c in enumerate(coefficients)}
    unit = step_sizes(space, names)
    whitened = jacobian / sigma * unit[:, None]
    fisher = whitened @ whitened.T + np.diag(prior * unit**2)
    covariance = invert(fisher, names)
    units = {n: model.units.get(n, "") for n in names}
    return Bounds(names, values, fisher / np.outer(unit, unit), covariance * np.outer(unit, unit), units)


def _derivatives(model, values, free, data):
    """Model flux before the continuum `(n_pix,)` and its derivatives by the free parameters `(n_free, n_pix)`, float64."""
    unit = step_sizes(model.label_space, free)
    start = {n: jnp.float32(v) for n, v in values.items()}
    flux, columns = _derivatives_jit(tuple(free), jnp.asarray(unit, jnp.float32), start, data)
    return np.asarray(flux, float), np.asarray(columns, float) / unit[:, None]


@eqx.filter_jit
def _derivatives_jit(free, unit, start, data):
    def flux(step):
        return data.normalised_flux({**start, **{n: start[n] + unit[i] * step[i] for i, n in enumerate(free)}})

    zero = jnp.zeros(len(free), jnp.float32)
    # One direction after another: all at once would hold a transformer's activations once per label.
    return flux(zero), jax.lax.map(lambda v: jax.jvp(flux, (zero,), (v,))[1], jnp.eye(len(free), dtype=jnp.float32))


def _sigma(model, data, jitter):
    """Total standard deviation at the pixels, infinite where they are not used, `(n_pix,)`."""
    noise = data.noise
    variance = np.asarray(noise.variance, float) + np.asarray(noise.model_variance, float)
    if jitter is not None:
        variance = variance + (10.0**jitter * np.asarray(noise.level, float)) ** 2
    weight = np.asarray(noise.weight, float)
    return np.where(weight > 0, np.sqrt(variance / np.maximum(weight, 1e-30)), np.inf)


def _continuum_at(model, values, data, jitter):
    """The continuum's coefficients that fit the model's own observation best, `(n_terms,)`."""
    at = {**values, "log10_jitter": -10.0 if jitter is None else jitter}
    at = {n: jnp.float32(v) for n, v in at.items()}
    return np.asarray(_coefficients_jit(at, data), float)


@eqx.filter_jit
def _coefficients_jit(values, data):
    return data.marginal(values)[1]


@eqx.filter_jit
def _with_model_variance(data, values):
    return data.with_model_variance(values)


def instrument_model(
    emulator,
    *,
    wavelength_range: tuple[float, float],
    resolution: float,
    snr: float,
    pixels_per_fwhm: float = 3.0,
    labels=None,
    vbroad: float = BROADENING_KMS,
    vsini: float = BROADENING_KMS,
    **options,
) -> StellarModel:
    """The model of a spectrum that an instrument would take: noise-free flux at velocity 0, with the noise's size known.

    **Arguments:**

    - `wavelength_range`: Å in the emulator's medium, within the emulator's range.
    - `resolution`: λ/FWHM of the Gaussian line spread function; `pixels_per_fwhm` pixels to each, uniform in ln λ.
    - `snr`: signal-to-noise ratio per pixel at the continuum; every pixel's noise is 1/`snr`.
    - `labels`: of the star; the Sun's by default (`solar_labels`). `vbroad`, `vsini`: km/s, used as `broadening` says.
    - `options`: for `StellarModel` (`priors`, `broadening`, `continuum_terms`, …).

    Pixels within about 70 km/s of the ends of the emulator's range are left out, as in every fit.

    **Raises:** `EmulatorError` if the range leaves the emulator's, `LabelError` on labels outside its domain.
    """
    for name, value in {"resolution": resolution, "snr": snr, "pixels_per_fwhm": pixels_per_fwhm}.items():
        if not (np.isfinite(value) and value > 0):
            raise EmuinferError(f"{name} = {value} must be a positive number.")
    lo, hi = wavelength_range
    emulator.check_wavelength([lo, hi])
    space = emulator.label_space
    labels = solar_labels(space) if labels is None else labels
    space.check(labels)
    reduced = reduce_emulator(emulator, progress=options.get("progress", True))
    count = int(np.floor(np.log(hi / lo) * resolution * pixels_per_fwhm)) + 1
    if count < 8:
        raise EmuinferError(f"{lo:g}–{hi:g} Å at R = {resolution:g} is only {count} pixels; give a wider range.")
    wavelength = lo * np.exp(np.arange(count) / (resolution * pixels_per_fwhm))
    broadening = options.get("broadening", "vbroad")
    kernel = {
        "vbroad": vbroad if broadening in ("vbroad", "both") else 0,
        "vsini": vsini if broadening in ("vsini", "both") else 0,
    }
    operator = SpectrumOperator(reduced.config.wavelength, wavelength, resolution)
    scaled = jnp.asarray(space.scale(np.asarray(space.to_array(labels), float)), jnp.float32)
    flux = np.asarray(operator(reduced.grid_flux(scaled), 0.0, **kernel), float)
    observation = Observation(
        wavelength, flux, 1.0 / snr, resolution=resolution, medium=emulator.medium, name="instrument", clip=None
    )
    return StellarModel(emulator, observation, **{"rv_range": (-30.0, 30.0), **options})
