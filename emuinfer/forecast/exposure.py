"""A spectrum to be taken: instrument, signal-to-noise ratio, masks, correlated pixels, continuum."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ..errors import EmuinferError
from .instruments import Instrument, load_instrument

PER = ("pixel", "resolution_element", "angstrom")


@dataclasses.dataclass(frozen=True)
class Exposure:
    """A spectrum to be taken.

    - `instrument`: an `Instrument`, or the name of a shipped one.
    - `snr`: signal-to-noise ratio at the continuum: a number, a function of the wavelength (Å, `(n,)` to `(n,)`), or a pair
      of arrays (wavelength, S/N) to be interpolated, all in the instrument's medium. The noise is the same in the lines.
    - `per`: what `snr` refers to: `"pixel"`, `"resolution_element"` (one FWHM of the line spread function), or `"angstrom"`.
    - `count`: equal exposures added up.
    - `mask`: `(lo, hi)` pairs, Å in the instrument's medium, that do not count.
    - `correlation_pixels`: length in pixels over which the correlation of the noise falls to 1/e; 0 for independent pixels.
      The S/N stays that of a single pixel.
    - `continuum_terms`: Chebyshev coefficients of each arm's continuum that are free; None for one per 25 Å, 0 if known.
    - `continuum_sd`: standard deviation of their Gaussian prior, relative to the continuum.
    """

    instrument: Instrument | str
    snr: float | tuple | Callable
    per: str = "pixel"
    count: float = 1.0
    mask: tuple = ()
    correlation_pixels: float = 0.0
    continuum_terms: int | None = None
    continuum_sd: float = 1.0

    def __post_init__(self):
        if isinstance(self.instrument, str):
            object.__setattr__(self, "instrument", load_instrument(self.instrument))
        if not isinstance(self.instrument, Instrument):
            raise EmuinferError(
                f"instrument must be an Instrument or the name of a shipped one; got {self.instrument!r}."
            )
        if self.per not in PER:
            raise EmuinferError(f"S/N can be per {', '.join(PER)}; got '{self.per}'.")
        positive = {"count": self.count, "continuum_sd": self.continuum_sd}
        if isinstance(self.snr, float | int | np.number):
            positive["snr"] = self.snr
        for name, value in positive.items():
            if not (np.isfinite(value) and value > 0):
                raise EmuinferError(f"{name} = {value} must be a positive number.")
        if not (np.isfinite(self.correlation_pixels) and self.correlation_pixels >= 0):
            raise EmuinferError(f"correlation_pixels = {self.correlation_pixels} must be 0 or a positive number.")
        if self.continuum_terms is not None and self.continuum_terms < 0:
            raise EmuinferError(f"continuum_terms = {self.continuum_terms} must be None, 0 or a positive number.")

    def snr_per_pixel(self, arm, wavelength) -> np.ndarray:
        """S/N of all exposures together in each pixel of `arm`, `(n_pix,)`; Å in the instrument's medium."""
        if callable(self.snr):
            snr = np.asarray(self.snr(wavelength), float)
        elif isinstance(self.snr, float | int | np.number):
            snr = np.asarray(self.snr, float)
        else:
            known, value = (np.asarray(a, float) for a in self.snr)
            if wavelength[0] < known[0] - 1e-6 or wavelength[-1] > known[-1] + 1e-6:
                raise EmuinferError(
                    f"The S/N curve covers {known[0]:.1f}–{known[-1]:.1f} Å, the pixels {wavelength[0]:.1f}–"
                    f"{wavelength[-1]:.1f} Å. Give it over all of them."
                )
            snr = np.interp(wavelength, known, value)
        snr = np.broadcast_to(snr, wavelength.shape)
        if not (np.isfinite(snr) & (snr > 0)).all():
            worst = snr[~(np.isfinite(snr) & (snr > 0))][0]
            raise EmuinferError(f"snr = {worst} must be a positive number everywhere; mask pixels without signal.")
        factor = {"pixel": 1.0, "resolution_element": 1 / arm.pixels_per_fwhm, "angstrom": wavelength * arm.pixel_step}
        return snr * np.sqrt(self.count * factor[self.per])

    def describe(self) -> dict:
        """Plain values, for tables; a signal-to-noise ratio that varies as its kind."""
        instrument: Instrument = self.instrument  # type: ignore[assignment]  # a name is looked up when it is made
        arms = instrument.arms
        alike = lambda values: values[0] if len(set(values)) == 1 else list(values)
        snr = (
            "function"
            if callable(self.snr)
            else float(self.snr)
            if isinstance(self.snr, float | int | np.number)
            else "curve"
        )
        return {
            "instrument": instrument.name,
            "resolution": alike([arm.resolution for arm in arms]),
            "pixels_per_fwhm": alike([arm.pixels_per_fwhm for arm in arms]),
            "snr": snr,
            "snr_per": self.per,
            "exposures": float(self.count),
            "mask": [[float(lo), float(hi)] for lo, hi in self.mask],
            "correlation_pixels": float(self.correlation_pixels),
        }
