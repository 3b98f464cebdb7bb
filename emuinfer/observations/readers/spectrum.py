"""`specutils.Spectrum`, and the files that it reads. Host only."""

import warnings

import numpy as np

from ...errors import ObservationError
from .frames import FITS_NAMES, frame_of, in_frame
from .header import from_header
from .units import in_flux_unit, of_nddata

KEPT = (
    "frame",
    "barycentric_correction",
    "v_rad",
    "file",
    "credit",
)  # of the meta of an `Observation`, beside its header


def read_specutils(path, format) -> dict:
    """Fields of a file that specutils identifies, or reads as `format`."""
    from specutils import Spectrum

    try:
        with warnings.catch_warnings(action="ignore"):
            spectrum = Spectrum.read(str(path), format=format)
    except Exception as error:  # loaders raise anything, from KeyError to astropy's own
        raise ObservationError(f"specutils cannot read it: {type(error).__name__}: {str(error)[:200]}") from error
    return from_specutils(spectrum)


def from_specutils(spectrum) -> dict:
    """Keyword arguments for `Observation` from a `specutils.Spectrum` that holds one spectrum.

    The spectral axis may be a wavelength, frequency, energy or wavenumber, or a velocity that knows its rest value.
    Uncertainties of any type are converted to standard deviations in the unit of the flux.
    """
    if not hasattr(spectrum, "spectral_axis") or not hasattr(spectrum, "flux"):
        raise ObservationError(f"A specutils.Spectrum is needed, not a {type(spectrum).__name__}; pick one of a list.")
    flux = np.squeeze(np.asarray(spectrum.flux.value, dtype=float))
    if flux.ndim != 1:
        raise ObservationError(
            f"The Spectrum holds an array of shape {spectrum.flux.shape}; pick one spectrum, as spectrum[0]."
        )
    wavelength = _wavelength(spectrum.spectral_axis)
    meta = dict(spectrum.meta or {})
    header = meta.get("header", meta)
    fields = from_header(header if hasattr(header, "items") else {})
    text = str(spectrum.flux.unit)
    fields["meta"] = {
        **{k: v for k, v in meta.items() if k in KEPT},
        **fields["meta"],
        **({"flux_unit": text} if text else {}),
    }
    if fields["resolution"] is None and np.shape(meta.get("resolution", ()))[-1:] == np.shape(flux):  # none once sliced
        fields["resolution"] = meta["resolution"]
    fields = in_frame(fields, meta.get("frame") or frame_of(fields["meta"]), fields["meta"])
    fields.update(wavelength=wavelength, flux=flux)
    if spectrum.uncertainty is not None:
        sigma, unit = of_nddata(spectrum.uncertainty)
        fields["uncertainty"] = sigma if unit is None else in_flux_unit(sigma, unit, spectrum.flux.unit, wavelength)
    if spectrum.mask is not None:
        fields["mask"] = np.squeeze(np.asarray(spectrum.mask)).astype(bool)
    return {**fields, "notes": (*fields["notes"], *_velocity(spectrum))}


def to_specutils(observation):
    """An `Observation` as `specutils.Spectrum`: `Observation.to_spectrum`."""
    import astropy.units as u
    from astropy.io import fits
    from astropy.nddata import StdDevUncertainty
    from specutils import Spectrum

    try:
        unit = u.Unit(observation.meta.get("flux_unit", ""))
    except ValueError:
        unit = u.dimensionless_unscaled
    cards = {
        "OBJECT": observation.name,
        "MEDIUM": observation.medium,
        "SPECSYS": FITS_NAMES.get(str(observation.meta.get("frame"))),
        "SPEC_RES": observation.resolution if np.ndim(observation.resolution) == 0 else None,
    }
    meta = {**observation.meta, "header": fits.Header([(k, v) for k, v in cards.items() if v not in (None, "")])}
    if observation.resolution is not None:
        meta["resolution"] = observation.resolution
    meta["notes"] = observation.notes
    return Spectrum(
        flux=observation.flux * unit,
        spectral_axis=observation.wavelength * u.AA,
        uncertainty=StdDevUncertainty(np.array(observation.uncertainty), unit=unit),
        mask=~observation.good,
        meta=meta,
    )


def _wavelength(axis):
    import astropy.units as u

    if axis.unit.is_equivalent(u.km / u.s):
        if getattr(axis, "doppler_rest", None) is None or getattr(axis, "doppler_convention", None) is None:
            raise ObservationError(
                f"The spectral axis is a velocity, in '{axis.unit}', without a rest value and a convention: give both to the "
                "SpectralAxis, or wavelengths."
            )
        return u.Quantity(axis.to(u.AA))
    try:
        return u.Quantity(u.Quantity(axis).to(u.AA, equivalencies=u.spectral()))
    except u.UnitConversionError as error:
        raise ObservationError(f"The spectral axis has unit '{axis.unit}', not a wavelength.") from error


def _velocity(spectrum) -> list[str]:
    """A note if the Spectrum knows a velocity: its axis is the observed one all the same, and a fit finds the velocity."""
    import astropy.units as u

    with warnings.catch_warnings(action="ignore"):
        value = getattr(spectrum, "radial_velocity", None)
    value = 0.0 if value is None else float(np.ravel(u.Quantity(value).to_value(u.km / u.s))[0])
    if not np.isfinite(value) or value == 0:
        return []
    return [
        f"the Spectrum says that its velocity is {value:.2f} km/s; its wavelengths are taken as they are, not shifted"
    ]
