"""Spectrographs as a forecast sees them: wavelength coverage, resolving power, sampling.

A small table of real ones ships with the package (`list_instruments`, `load_instrument`), each row with its source; any
other is `Instrument.single(lo, hi, resolution)` or an `Instrument` of several `Arm`s.
"""

import dataclasses
from pathlib import Path

import numpy as np

from ..errors import EmuinferError, suggestion
from ..wavelengths.doppler import shift_wavelength
from ..wavelengths.medium import check_medium, convert_medium
from ..wavelengths.uniform import count_log_pixels, log_pixels

TABLE = Path(__file__).parents[1] / "data" / "instruments.ecsv"
FEWEST = 8  # pixels; fewer are no spectrum
MOST = 2_000_000


@dataclasses.dataclass(frozen=True)
class Arm:
    """One stretch of spectrum.

    - `lo`, `hi`: Å in the instrument's medium.
    - `resolution`: λ / FWHM of the Gaussian line spread function.
    - `pixels_per_fwhm`: sampling; pixels are uniform in ln λ.

    Raises `EmuinferError` where a number is not positive and finite, or `hi` is not above `lo`.
    """

    lo: float
    hi: float
    resolution: float
    pixels_per_fwhm: float = 3.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (np.ndim(value) == 0 and np.isfinite(value) and value > 0):
                raise EmuinferError(f"{field.name} = {value} must be a positive number.")
            object.__setattr__(self, field.name, float(value))
        if not self.hi > self.lo:
            raise EmuinferError(f"The range of an instrument must rise; got {self.lo:g} to {self.hi:g} Å.")

    @property
    def pixel_step(self) -> float:
        """Width of a pixel in ln λ."""
        return 1.0 / (self.resolution * self.pixels_per_fwhm)

    def pixels(self) -> np.ndarray:
        """Wavelengths of the pixels in Å, uniform in ln λ from `lo`, `(n_pix,)`."""
        count = count_log_pixels(self.lo, self.hi, self.pixel_step)
        if not FEWEST <= count <= MOST:
            raise EmuinferError(
                f"{self.lo:g}–{self.hi:g} Å at R = {self.resolution:g} with {self.pixels_per_fwhm:g} pixels per FWHM is "
                f"{'only ' if count < FEWEST else ''}{count} pixels; {FEWEST} to {MOST} are possible."
            )
        return log_pixels(self.lo, self.hi, self.pixel_step)


@dataclasses.dataclass(frozen=True)
class Instrument:
    """A spectrograph: a name, one or more `Arm`s, the medium of their wavelengths ("air" or "vacuum"), and the source."""

    name: str
    arms: tuple[Arm, ...]
    medium: str = "air"
    source: str = ""

    def __post_init__(self):
        check_medium(self.medium, f"Instrument '{self.name}'")
        object.__setattr__(self, "arms", tuple(self.arms))
        if not self.arms or not all(isinstance(a, Arm) for a in self.arms):
            raise EmuinferError(
                f"Instrument '{self.name}' needs one Arm(lo, hi, resolution) or more; got {self.arms!r}."
            )

    @classmethod
    def single(cls, lo, hi, resolution, pixels_per_fwhm=3.0, *, name="custom", medium="air", source="") -> "Instrument":
        """An instrument of one arm; see `Arm` for the numbers."""
        return cls(name, (Arm(lo, hi, resolution, pixels_per_fwhm),), medium, source)

    def within(self, emulator, rv: float = 0.0) -> tuple["Instrument", tuple[str, ...]]:
        """The part that an emulator covers for a star at `rv` km/s, in the emulator's medium, and sentences on what is left out.

        Raises `EmuinferError` if nothing is left.
        """
        lo, hi = (float(w) for w in shift_wavelength(emulator.wavelength_range, rv, emulator.medium))
        moved = f" for a star at {rv:g} km/s" if rv else ""
        arms, notes = [], []
        for arm in self.arms:
            ends = convert_medium(np.array([arm.lo, arm.hi]), self.medium, emulator.medium)
            a, b = max(ends[0], lo), min(ends[1], hi)
            if b > a and np.log(b / a) / arm.pixel_step >= FEWEST:
                arms.append(Arm(a, b, arm.resolution, arm.pixels_per_fwhm))
            if a > ends[0] + 1e-6 or b < ends[1] - 1e-6:
                kept = f"only {a:.1f}–{b:.1f} Å count" if b > a else "nothing of it counts"
                notes.append(
                    f"{self.name} covers {ends[0]:.1f}–{ends[1]:.1f} Å ({emulator.medium}), the emulator "
                    f"{lo:.1f}–{hi:.1f} Å{moved}: {kept}, and what the rest would add is not known."
                )
        if not arms:
            covers = ", ".join(f"{a.lo:g}–{a.hi:g}" for a in self.arms)
            raise EmuinferError(
                f"{self.name} covers {covers} Å ({self.medium}), the emulator {lo:.3f}–{hi:.3f} Å ({emulator.medium}){moved}: "
                "they have nothing in common. Choose another instrument, or an emulator of that range."
            )
        return Instrument(self.name, tuple(arms), emulator.medium, self.source), tuple(notes)


def instrument_table():
    """The shipped instruments as an `astropy.table.Table`: name, start, end, resolution, pixels_per_fwhm, medium, source."""
    from astropy.table import Table

    return Table.read(TABLE, format="ascii.ecsv")


def list_instruments() -> list[str]:
    """Names of the shipped instruments."""
    return list(dict.fromkeys(str(n) for n in instrument_table()["name"]))


def load_instrument(name: str) -> Instrument:
    """A shipped instrument by name. Raises `EmuinferError` that lists the names if there is none."""
    table = instrument_table()
    rows = [r for r in table if r["name"].lower() == str(name).lower()]
    if not rows:
        names = list(dict.fromkeys(str(n) for n in table["name"]))
        raise EmuinferError(
            f"Unknown instrument '{name}'.{suggestion(name, names)} The shipped ones are: {', '.join(names)}. "
            "Others: Instrument.single(lo, hi, R)."
        )
    arms = tuple(Arm(r["start"], r["end"], r["resolution"], r["pixels_per_fwhm"]) for r in rows)
    return Instrument(str(rows[0]["name"]), arms, str(rows[0]["medium"]), str(rows[0]["source"]))
