"""PypeIt: a coadded spectrum (OneSpec) and the extracted traces of an exposure (SpecObjs). Host only.

Formats: https://pypeit.readthedocs.io, out_onespec and out_spec1D. Vacuum; the mask is 1 (True) where a pixel is *good*.
"""

import numpy as np

from ....errors import ObservationError
from ..choices import Choices, checked_row
from ..frames import frame_of, in_frame
from ..header import from_header
from ..units import standard_deviation
from .shared import columns_of, flat

EXTRACTIONS = ("OPT", "BOX")  # optimal before boxcar
FLUXES = ("FLAM", "COUNTS")  # flux-calibrated before counts


def recognises(hdus) -> bool:
    """Whether the open FITS file is one of these."""
    return _one(hdus) is not None or bool(_traces(hdus))


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum; `row` counts the traces of a SpecObjs file from 0."""
    one = _one(hdus)
    if one is not None:
        return _fields(hdus, one, choices, ("wave", "flux", "ivar", "mask"), "its coadded spectrum")
    traces = _traces(hdus)
    names = [h.name for h in traces]
    if choices.row is None and len(traces) > 1:
        raise ObservationError(
            f"This PypeIt file has {len(traces)} traces: give row=0 to {len(traces) - 1}. They are "
            f"{', '.join(names[:8])}{' …' if len(names) > 8 else ''}."
        )
    trace = traces[checked_row(choices.row or 0, len(traces), "This PypeIt file")]
    how, what = _extraction(trace)
    columns = (f"{how}_WAVE", f"{how}_{what}", f"{how}_{what}_IVAR", f"{how}_MASK")
    return _fields(
        hdus, trace, choices, columns, f"trace {trace.name}, {'optimal' if how == 'OPT' else 'boxcar'} extraction"
    )


def _one(hdus):
    tables = [h for h in hdus[1:] if h.header.get("DMODCLS") == "OneSpec" or h.name == "SPECTRUM"]
    return next((h for h in tables if {"wave", "flux", "ivar", "mask"} <= columns_of(h) and _is_pypeit(hdus, h)), None)


def _is_pypeit(hdus, hdu) -> bool:
    keys = ("DMODCLS", "PYP_SPEC", "VERSPYP")
    return any(k in h.header for h in (hdus[0], hdu) for k in keys)


def _traces(hdus) -> list:
    return [h for h in hdus[1:] if h.header.get("DMODCLS") == "SpecObj" and _extraction(h) is not None]


def _extraction(hdu):
    names = {n.upper() for n in columns_of(hdu)}
    pairs = [(how, what) for how in EXTRACTIONS for what in FLUXES]
    return next(((h, w) for h, w in pairs if {f"{h}_WAVE", f"{h}_{w}", f"{h}_{w}_IVAR"} <= names), None)


def _fields(hdus, hdu, choices: Choices, columns, what: str) -> dict:
    import astropy.units as u

    header = {**dict(hdus[0].header), **dict(hdu.header)}
    wave, flux, ivar, mask = columns
    flux = choices.flux_column or flux
    sigma = choices.uncertainty_column or ivar
    kind = "ivar" if sigma.lower().endswith("ivar") else "std"
    wavelength = flat(hdu, choices.wavelength_column or wave).astype(float)
    inside = np.isfinite(wavelength) & (wavelength > 0)  # 0 where a trace leaves the detector
    bad = flat(hdu, mask)[inside] == 0 if mask.lower() in columns_of(hdu) else None
    fields = from_header({**header, "OBJECT": header.get("TARGET", header.get("OBJECT", ""))})
    fields.update(
        wavelength=wavelength[inside] * u.AA,
        flux=flat(hdu, flux).astype(float)[inside],
        uncertainty=standard_deviation(flat(hdu, sigma).astype(float)[inside], kind),
        mask=bad,
        medium="vacuum",
        notes=(f"{what} of PypeIt, whose mask marks the good pixels with 1",),
    )
    fields["snr"] = None
    return in_frame(fields, frame_of(header) or "heliocentric", header)  # heliocentric is PypeIt's default
