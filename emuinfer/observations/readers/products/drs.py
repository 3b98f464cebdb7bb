"""Products of the HARPS and HARPS-N pipeline (DRS) as it writes them: `s1d` and `e2ds`. Host only.

Format: HARPS DRS User Manual 3.6 (ESO 3P6-MAN-HAR-33110-0016). An s1d is one spectrum, 0.01 Å per pixel, in air and in the
barycentric frame. An e2ds has a row per order, in the frame of the observatory; the coefficients of each order's wavelengths
are in the header. Neither has errors: they come from the header's signal-to-noise ratio of each order.
"""

import numpy as np

from ..choices import Choices
from ..frames import in_frame
from ..header import from_header
from ..orders import choose_order
from ..spectral_axis import spectral_axis
from .shared import published_resolution

MIDDLE = 2048.0  # pixel in the middle of an order
POWER_EGGS = 80_000.0  # HARPS' high-efficiency mode: ESO's HARPS User Manual 2.1, section 2.1


def recognises(hdus) -> bool:
    """Whether the primary image is an s1d or e2ds."""
    header = hdus[0].header
    data = hdus[0].data
    if data is None or _prefix(header) is None:
        return False
    return (data.ndim == 1 and "CRVAL1" in header) or (data.ndim == 2 and _coefficients(header) is not None)


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum; `order`, a number or "merge", of an e2ds."""
    header = hdus[0].header
    fields = _s1d(hdus[0], header) if hdus[0].data.ndim == 1 else _e2ds(hdus[0], header, choices)
    return {**fields, "medium": "air"}


def _prefix(header):
    return next((p for p in ("ESO", "TNG") if f"{p} DRS VERSION" in header), None)


def _coefficients(header):
    """Polynomials of the orders' wavelengths in Å, `(n_orders, degree + 1)`, lowest power first; None without any."""
    stem = f"{_prefix(header)} DRS CAL TH"
    degree = header.get(f"{stem} DEG LL")
    if degree is None or f"{stem} COEFF LL0" not in header:
        return None
    values, i = [], 0
    while f"{stem} COEFF LL{i}" in header:
        values.append(float(header[f"{stem} COEFF LL{i}"]))
        i += 1
    return np.reshape(values[: i // (degree + 1) * (degree + 1)], (-1, degree + 1))


def _order_snr(header, n: int) -> np.ndarray:
    """Signal-to-noise ratio per pixel at the middle of each order, `(n,)`; NaN where the header has none."""
    stem = f"{_prefix(header)} DRS SPE EXT SN"
    return np.array([float(header.get(f"{stem}{k}", np.nan)) for k in range(n)])


def snr_of_orders(header, wavelength, step) -> np.ndarray | None:
    """Signal-to-noise ratio at `wavelength` (Å) per pixel of `step` Å, from those of the orders in the header, if it has them.

    In an order it is per pixel of the detector; the information per Å is kept where a spectrum was resampled.
    """
    if _prefix(header) is None or (coefficients := _coefficients(header)) is None:
        return None
    powers = np.arange(1, coefficients.shape[1])
    centre = coefficients @ MIDDLE ** np.arange(coefficients.shape[1])
    pixel = coefficients[:, 1:] @ (powers * MIDDLE ** (powers - 1))  # Å per pixel of the detector
    ratio = _order_snr(header, len(centre)) * np.sqrt(step / pixel)
    known = np.isfinite(ratio) & (ratio > 0)
    if not known.any():
        return None
    rising = np.argsort(centre[known])
    return np.interp(wavelength, centre[known][rising], ratio[known][rising])


def _base(header, wavelength) -> dict:
    fields = from_header(header)
    if str(header.get("ESO INS MODE", "")).strip().upper() == "EGGS":
        fields["resolution"], note = POWER_EGGS, "resolving power 80,000 of HARPS' EGGS mode (ESO's HARPS User Manual)"
    else:
        fields["resolution"], note = published_resolution("HARPS", wavelength)
    return {**fields, "notes": (note,)}


def _s1d(hdu, header) -> dict:
    import astropy.units as u

    flux = hdu.data.astype(float)
    step = float(header["CDELT1"])
    wavelength = spectral_axis(header, len(flux)).values
    fields = _base(header, wavelength)
    fields.update(wavelength=wavelength * u.AA, flux=flux)
    fields["snr"] = snr_of_orders(header, wavelength, step)
    if fields["snr"] is not None:
        fields["notes"] += (f"signal-to-noise ratio per pixel of {step:g} Å from those of the orders in the header",)
    return in_frame(fields, "barycentric")


def _e2ds(hdu, header, choices: Choices) -> dict:
    flux, coefficients = hdu.data.astype(float), _coefficients(header)
    n = min(len(flux), len(coefficients))
    pixel = np.arange(flux.shape[1], dtype=float)
    wavelength = np.polynomial.polynomial.polyval(pixel, coefficients[:n].T)
    # Photon noise, scaled to the S/N at the middle of the order; at least that of 1 % of the flux there, for the readout.
    ratio = _order_snr(header, n)
    middle = np.median(flux[:n, flux.shape[1] * 3 // 8 : flux.shape[1] * 5 // 8], axis=1)
    level = np.where(middle > 0, middle, np.nan)[:, None]
    error = np.sqrt(np.maximum(flux[:n], 0.01 * level) * level) / np.where(ratio > 0, ratio, np.nan)[:, None]
    known = np.isfinite(error).any()
    fields = _base(header, wavelength)
    chosen = choose_order(wavelength, flux[:n], error if known else None, None, choices)
    notes = (*fields["notes"], *chosen["notes"])
    if known:
        notes += ("errors are photon noise, scaled to the signal-to-noise ratios of the orders in the header",)
    return in_frame({**fields, **chosen, "snr": None, "notes": notes}, "topocentric", header)
