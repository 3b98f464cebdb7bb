"""Products of ESPRESSO's pipeline (espdr), which also reduces HARPS, HARPS-N and NIRPS: `S1D` and `S2D`. Host only.

Format: ESPRESSO Pipeline User Manual (VLT-MAN-ESO-13520-5936), products. An S1D is a table with wavelengths in vacuum
(`wavelength`) and in air (`wavelength_air`); an S2D has images of flux, error, quality and wavelengths, a row per order. Both
are in the barycentric frame. Quality: zero is good.
"""

import numpy as np

from ..choices import Choices
from ..frames import in_frame
from ..header import from_header
from ..orders import choose_order
from .shared import columns_of, flat, published_resolution

S1D = {"wavelength", "wavelength_air", "flux", "error"}
S2D = {"SCIDATA", "ERRDATA", "QUALDATA", "WAVEDATA_VAC_BARY"}
# Pepe et al. 2021, A&A 645, A96, table 1: modes of ESPRESSO other than HR.
MODES = {"SINGLEUHR": 190_000.0, "MULTIMR": 70_000.0}


def recognises(hdus) -> bool:
    """Whether the open FITS file is one of these."""
    return _table(hdus) is not None or {h.name.upper() for h in hdus} >= S2D


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum, in vacuum unless `medium` is "air"; `order` chooses of an S2D."""
    import astropy.units as u

    hdu = _table(hdus)
    medium = "air" if choices.medium == "air" or choices.wavelength_column == "wavelength_air" else "vacuum"
    if hdu is None:
        return in_frame(_orders(hdus, choices, medium), "barycentric")
    fields = from_header({**dict(hdu.header), **dict(hdus[0].header)})
    wave = flat(hdu, "wavelength_air" if medium == "air" else "wavelength").astype(float)
    fields.update(
        wavelength=wave * u.AA,
        flux=flat(hdu, choices.flux_column or "flux").astype(float),
        uncertainty=flat(hdu, choices.uncertainty_column or "error").astype(float),
        mask=flat(hdu, "quality") != 0 if "quality" in columns_of(hdu) else None,
        medium=medium,
        snr=None,
    )
    return in_frame(_with_power(fields, hdus[0].header, wave), "barycentric")


def _table(hdus):
    return next((h for h in hdus[1:] if columns_of(h) >= S1D), None)


def _orders(hdus, choices: Choices, medium: str) -> dict:
    names = {h.name.upper() for h in hdus}
    if medium == "air" and "WAVEDATA_AIR_BARY" not in names:
        medium = "vacuum"
    data = lambda name: np.asarray(hdus[name].data, dtype=float)
    wave = data(f"WAVEDATA_{'AIR' if medium == 'air' else 'VAC'}_BARY")
    fields = _with_power(from_header(hdus[0].header), hdus[0].header, wave)
    chosen = choose_order(wave, data("SCIDATA"), data("ERRDATA"), data("QUALDATA") != 0, choices)
    notes = (*fields.get("notes", ()), *chosen["notes"])
    return {**fields, **chosen, "medium": medium, "snr": None, "notes": notes}


def _with_power(fields, header, wave) -> dict:
    instrument = str(header.get("INSTRUME", "")).strip().upper().replace("HARPN", "HARPS")
    mode = str(header.get("ESO INS MODE", "")).strip().upper()
    if fields["resolution"] is not None or instrument not in ("ESPRESSO", "HARPS"):
        return fields
    power, note = published_resolution(instrument, wave)
    if mode in MODES:
        power = MODES[mode]
        note = f"resolving power {power:,.0f} of ESPRESSO's mode {mode} from the literature (Pepe et al. 2021, A&A 645, A96)"
    return {**fields, "resolution": power, "notes": (*fields.get("notes", ()), note)}
