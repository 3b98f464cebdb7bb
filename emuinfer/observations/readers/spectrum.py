"""`specutils.Spectrum`, and the files that it reads. Host only."""

import warnings

import numpy as np

from ...errors import ObservationError
from .header import from_header
from .units import standard_deviation


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
    fields.update(wavelength=u.Quantity(wavelength), flux=flux)
    if spectrum.uncertainty is not None:
        kind = {"var": "variance", "ivar": "ivar"}.get(spectrum.uncertainty.uncertainty_type, "std")
        fields["uncertainty"] = standard_deviation(np.squeeze(spectrum.uncertainty.array), kind)
    if spectrum.mask is not None:
        fields["mask"] = np.squeeze(np.asarray(spectrum.mask)).astype(bool)
    return fields
