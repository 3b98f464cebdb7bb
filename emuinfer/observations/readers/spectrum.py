"""`specutils.Spectrum`, and the files that it reads. Host only."""

import warnings

import numpy as np

from ...errors import ObservationError
from .frames import FITS_NAMES, frame_of, in_frame
from .header import from_header
from .units import standard_deviation

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
    """Keyword arguments for `Observation` from a `specutils.Spectrum` that holds one spectrum."""
    import astropy.units as u

    flux = np.squeeze(np.asarray(spectrum.flux.value, dtype=float))
    if flux.ndim != 1:
        raise ObservationError(
            f"The Spectrum holds an array of shape {spectrum.flux.shape}; pick one spectrum, as spectrum[0]."
        )
    try:
        wavelength = spectrum.spectral_axis.to(u.AA, equivalencies=u.spectral())
    except u.UnitConversionError as error:
        raise ObservationError(
            f"The spectral axis has unit '{spectrum.spectral_axis.unit}', not a wavelength."
        ) from error
    meta = dict(spectrum.meta or {})
    header = meta.get("header", meta)
    fields = from_header(header if hasattr(header, "items") else {})
    unit = str(spectrum.flux.unit)
    fields["meta"] = {
        **{k: v for k, v in meta.items() if k in KEPT},
        **fields["meta"],
        **({"flux_unit": unit} if unit else {}),
    }
    if fields["resolution"] is None and np.shape(meta.get("resolution", ()))[-1:] == np.shape(flux):  # none once sliced
        fields["resolution"] = meta["resolution"]
    fields = in_frame(fields, meta.get("frame") or frame_of(fields["meta"]), fields["meta"])
    fields.update(wavelength=u.Quantity(wavelength), flux=flux)
    if spectrum.uncertainty is not None:
        kind = {"var": "variance", "ivar": "ivar"}.get(spectrum.uncertainty.uncertainty_type, "std")
        fields["uncertainty"] = standard_deviation(np.squeeze(spectrum.uncertainty.array), kind)
    if spectrum.mask is not None:
        fields["mask"] = np.squeeze(np.asarray(spectrum.mask)).astype(bool)
    return fields


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
