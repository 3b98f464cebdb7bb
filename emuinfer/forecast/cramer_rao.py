"""`cramer_rao`: how well a spectrum can determine labels at best, one that exists or one yet to be taken.

The Fisher information of data with Gaussian noise of known variance is F = (J/σ)ᵀ (J/σ), J the derivatives of the model
flux with respect to the parameters. No unbiased estimate has a covariance below F⁻¹ (e.g. Ting et al. 2017, ApJ 843, 32;
Sandford, Weisz & Ting 2020, ApJS 249, 24).
"""

import dataclasses

import numpy as np

from ..deprecation import renamed_arguments
from ..emulators import Emulator, emulator_hash, reduce_emulator, shipped_uncertainty
from ..entry import public
from ..errors import EmuinferError
from ..likelihoods import SpectrumModel
from .bounds import Bounds
from .exposure import Exposure
from .forecast import Forecast
from .instruments import Instrument, load_instrument
from .observed import instrument_model, model_bounds


@public
def cramer_rao(model_or_emulator, labels, instrument=None, snr=None, **options) -> Bounds:
    """Cramér–Rao bounds for a star with these labels.

    `cramer_rao(model, labels)` is about the observation that a `StellarModel` or a `JointModel` describes, see
    `model_bounds` for the options. `cramer_rao(emulator, labels, instrument, snr)` is a forecast for a spectrum not yet
    taken, see `forecast_bounds`.

    `labels`: a mapping, of which missing labels are solar, with a note, and which may hold `rv`, `vbroad`, `log10_jitter`, …
    too; an array of all labels; the summary table or the posterior of a fit; or the path of one (`read_star`).
    """
    if isinstance(model_or_emulator, SpectrumModel):
        if instrument is not None or snr is not None:
            raise EmuinferError(
                f"A {type(model_or_emulator).__name__} has its own observation: give no instrument or S/N with it. For a "
                "forecast pass the emulator."
            )
        return model_bounds(model_or_emulator, labels, **options)
    if not isinstance(model_or_emulator, Emulator):
        raise EmuinferError(
            f"cramer_rao needs a StellarModel, a JointModel or an Emulator; got {type(model_or_emulator).__name__}."
        )
    if instrument is None:
        raise EmuinferError("A forecast needs an instrument: an Instrument, the name of a shipped one, or exposures.")
    return forecast_bounds(model_or_emulator, labels, instrument, snr, **options)


@public
@renamed_arguments(uncertainty="emulator_error")
def forecast_bounds(
    emulator,
    labels,
    instrument,
    snr=None,
    *,
    snr_per="pixel",
    count=1.0,
    mask=(),
    correlation_pixels=0.0,
    continuum_terms=None,
    priors=None,
    prior_sd=None,
    rv=None,
    vbroad=None,
    vsini=None,
    broadening=None,
    emulator_error="shipped",
    reduced=False,
    model_error=False,
    progress=True,
) -> Bounds:
    """Cramér–Rao bounds of spectra not yet taken.

    **Arguments:**

    - `emulator`: any `Emulator`. Its derivatives are used, not those of a reduction, unless a `ReducedEmulator` is given or
      `reduced` is set.
    - `labels`: what is known of the star, see `cramer_rao`; labels that `priors` fix may be left out.
    - `instrument`: an `Instrument`, the name of a shipped one (`list_instruments`), or an `Exposure` or several, which then
      bring their own S/N, masks and continua.
    - `snr`: at the continuum: a number, a function of the wavelength, or a pair of arrays (wavelength, S/N).
    - `snr_per`: what it refers to: `"pixel"`, `"resolution_element"` or `"angstrom"`.
    - `count`, `mask`, `correlation_pixels`, `continuum_terms`: see `Exposure`.
    - `priors`, `prior_sd`, `rv`, `vbroad`, `vsini`, `broadening`: see `Forecast`.
    - `emulator_error`: see `Forecast.bounds`.
    - `model_error`: add the noise that a fit gives to errors of the lines and of the emulator. For one arm with an S/N per
      pixel, one exposure and no mask or correlation.
    - `progress`: show that of a reduction.

    **Raises:** `LabelError` on labels outside the emulator's domain, `EmuinferError` on bad numbers, on an instrument that
    the emulator does not cover, and if the information is singular, naming the combination that stays undetermined.
    """
    exposure = {"per": snr_per, "count": count, "mask": tuple(mask), "correlation_pixels": correlation_pixels}
    exposures = _exposures(instrument, snr, continuum_terms=continuum_terms, **exposure)
    if reduced:
        full, emulator = emulator, reduce_emulator(emulator, progress=progress)
        if isinstance(emulator_error, str) and emulator_error == "shipped":  # also where its fast copy is used
            emulator_error = shipped_uncertainty(full)
    star = {"prior_sd": prior_sd, "rv": rv, "vbroad": vbroad, "vsini": vsini, "broadening": broadening}
    forecast = Forecast(emulator, labels, exposures, priors=priors, **star)
    if model_error:
        bounds = _with_model_error(forecast, priors or {}, reduced, progress)
    else:
        bounds = forecast.bounds(emulator_error=emulator_error)
    meta = {"emulator_hash": emulator_hash(full if reduced else emulator), **forecast.describe(), **bounds.meta}
    return dataclasses.replace(bounds, meta={**meta, "model_error": model_error})


def _exposures(instrument, snr, **options):
    """The exposures, however they were given."""
    if isinstance(instrument, str):
        instrument = load_instrument(instrument)
    if not isinstance(instrument, Instrument):
        if snr is not None:
            raise EmuinferError("Exposures bring their own S/N: give no snr with them.")
        return instrument
    if snr is None:
        raise EmuinferError("A forecast needs a signal-to-noise ratio: give snr, and snr_per if it is not per pixel.")
    return Exposure(instrument, snr, **options)


def _with_model_error(forecast, priors, reduced, progress) -> Bounds:
    """The bounds of the model of such an observation, with the variance of its errors."""
    import numpyro.distributions as dist

    (exposure, *more), known = forecast.exposures, forecast.parameters
    arms = exposure.instrument.arms
    simple = exposure.per == "pixel" and exposure.count == 1 and not exposure.mask and not exposure.correlation_pixels
    if more or len(arms) > 1 or not simple or np.ndim(exposure.snr) or callable(exposure.snr) or reduced:
        raise EmuinferError(
            "model_error goes with one arm and an S/N per pixel, without mask, correlation, several exposures or the reduced "
            "emulator."
        )
    gaussian = {n: dist.Normal(known.values[n], sd) for n, sd in known.prior_sd.items() if n not in priors}
    rv = known.values["rv"]
    arm = exposure.instrument.within(forecast.emulator, rv)[0].arms[0]
    kernel = {n: v for n, v in known.values.items() if n in ("vbroad", "vsini")}
    labels = {n: known.values[n] for n in forecast.space.names}
    model = instrument_model(
        forecast.emulator,
        wavelength_range=(arm.lo, arm.hi),
        resolution=arm.resolution,
        pixels_per_fwhm=arm.pixels_per_fwhm,
        snr=exposure.snr,
        labels=labels,
        broadening=known.broadening,
        priors={**priors, **gaussian},
        continuum_terms=exposure.continuum_terms,
        rv=rv,
        progress=progress,
        **kernel,
    )
    bounds = model_bounds(model, {**labels, "rv": rv, **kernel}, model_error=True)
    seen = {"wavelength_range": [float(w) for w in model.wavelength[[0, -1]]], "pixels": len(model.wavelength)}
    return dataclasses.replace(bounds, notes=(*forecast.notes, *bounds.notes), meta=seen)
