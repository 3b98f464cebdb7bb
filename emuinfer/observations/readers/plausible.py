"""What a file says that cannot be so counts as not said, with a note. Host only."""

import numpy as np

# Prisms of Gaia's XP spectra have 30 to 100, the lowest resolving powers at which stars are fitted. Below are widths in Å,
# nm or km/s, pixel numbers, and the like; above the other bound, placeholders.
RESOLVING_POWERS = (50.0, 1e7)
SNR_LIMIT = 1e5


def resolving_power_of(value, what: str, notes) -> float | None:
    """A number as a resolving power, or `None` and a note if it can be none."""
    if not RESOLVING_POWERS[0] <= value <= RESOLVING_POWERS[1]:
        notes.append(f"{what} = {value:g} is no resolving power (lambda/FWHM) and is ignored")
        return None
    return float(value)


def plausible(fields: dict) -> dict:
    """The fields of a reader without pixels that are padding, and without uncertainties that are none."""
    notes = list(fields.get("notes", ()))
    fields = _without_padding(fields, notes)
    if fields.get("uncertainty") is not None:
        reason = _no_uncertainties(_floats(fields["uncertainty"]), _floats(fields["flux"]))
        if reason:
            notes.append(f"the uncertainties of the file are {reason}: they count as absent")
            fields = {**fields, "uncertainty": None}
    return {**fields, "notes": tuple(notes)}


def _floats(values) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(getattr(values, "value", values), dtype=float), np.nan)


def _no_uncertainties(sigma, flux) -> str | None:
    if sigma.shape != flux.shape or not sigma.size:
        return None
    if not (np.isfinite(sigma) & (sigma > 0)).any():
        known = sigma[np.isfinite(sigma)]
        return "all zero, negative or not finite" + (f" (the lowest is {known.min():g})" if known.size else "")
    both = np.isfinite(flux) & np.isfinite(sigma) & (flux != 0)
    if both.sum() > 10 and np.ptp(flux[both]) > 0 and np.allclose(sigma[both], flux[both], rtol=1e-6, atol=0):
        return "the fluxes themselves"
    return None


def _without_padding(fields, notes) -> dict:
    """Without pixels that have neither a wavelength (0, negative or not finite) nor a flux."""
    wave, flux = _floats(fields["wavelength"]), _floats(fields["flux"])
    if wave.ndim != 1 or wave.shape != flux.shape:
        return fields
    empty = ~np.isfinite(flux) | (flux == 0)
    sigma = fields.get("uncertainty")
    if sigma is not None and np.shape(sigma) == flux.shape:
        sigma = _floats(sigma)
        empty |= (~np.isfinite(sigma) | (sigma <= 0)) & np.isfinite(sigma[np.isfinite(wave)]).any()
    if fields.get("mask") is not None and np.shape(fields["mask"]) == flux.shape:
        empty |= np.asarray(fields["mask"], dtype=bool)
    keep = ~((~np.isfinite(wave) | (wave <= 0)) & (empty | (flux == wave)))
    if keep.all() or keep.sum() < 3:
        return fields
    notes.append(f"{(~keep).sum()} pixels dropped that have neither a wavelength nor a flux")
    pixels = lambda x: np.ndim(x) > 0 and np.shape(x)[-1] == len(wave)
    columns = {k: fields.get(k) for k in ("wavelength", "flux", "uncertainty", "snr", "mask", "resolution")}
    return {**fields, **{k: x[..., keep] for k, x in columns.items() if x is not None and pixels(x)}}
