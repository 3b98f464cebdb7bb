"""Windows: stretches of wavelength with their line list, label space and emulator. One entry of `WINDOWS` for each.

Whatever belongs to one window is read from its entry. A new window is an entry here and its data files, which either ship
in `emuinfer/data` or are named in the entry's `files`, to be fetched when they are first needed (`data_files`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import EmulatorError, suggestion
from . import data_files
from .space import LabelSpace

# log g >= 0.2 + (Teff - 4500)/1000 keeps hot, very extended models out.
OPTICAL_FGK = LabelSpace(
    names=("teff", "logg", "fe_h", "vmic", "mg_fe", "ca_fe", "ti_fe", "cr_fe", "mn_fe", "co_fe", "ni_fe", "y_fe"),
    lower=(4000, 0.5, -3.0, 0.5, -0.2, -0.2, -0.2, -0.4, -0.5, -0.4, -0.3, -0.6),
    upper=(7000, 5.0, 0.5, 2.5, 0.6, 0.5, 0.5, 0.3, 0.4, 0.4, 0.3, 0.6),
    constraints=(({"teff": 1e-3, "logg": -1.0}, 4.3),),
)

# All 28 labels that a spectrum of the whole optical depends on: a number for each element with lines or molecules that matter.
WHOLE_OPTICAL = LabelSpace(
    names=(*OPTICAL_FGK.names[:4], "c_fe", "n_fe", "o_fe", "na_fe", "mg_fe", "al_fe", "si_fe", "ca_fe", "sc_fe", "ti_fe", "v_fe",
           "cr_fe", "mn_fe", "co_fe", "ni_fe", "cu_fe", "zn_fe", "y_fe", "zr_fe", "ba_fe", "la_fe", "ce_fe", "nd_fe", "eu_fe"),
    lower=(*OPTICAL_FGK.lower[:4], -0.6, -0.3, -0.2, -0.4, -0.2, -0.3, -0.2, -0.2, -0.3, -0.2, -0.4,
           -0.4, -0.6, -0.4, -0.3, -0.8, -0.3, -0.6, -0.5, -0.7, -0.5, -0.5, -0.5, -0.4),
    upper=(*OPTICAL_FGK.upper[:4], 0.4, 0.8, 0.7, 0.5, 0.6, 0.6, 0.5, 0.5, 0.4, 0.5, 0.4,
           0.3, 0.4, 0.4, 0.3, 0.4, 0.4, 0.6, 0.6, 0.9, 0.6, 0.6, 0.7, 0.8),
    constraints=OPTICAL_FGK.constraints,
)  # fmt: skip

# Lines of the whole optical, for wavelengths where no window has a list of its own: the file, and where it is complete (Å, air).
OPTICAL_LINES, OPTICAL_LINES_RANGE = "ges_4200_9200.npz", (4200.0, 9200.0)


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of wavelength and what the package has for it.

    **Arguments:**

    - `name`: by which the command line and `window` know it.
    - `wavelength_range`: (lowest, highest) Å of its synthetic spectra, in `medium`, "air" or "vacuum".
    - `label_space`: the domain of its grids and of its emulator.
    - `step`: Å between the pixels of its synthetic spectra (`native_wavelength`).
    - `line_list`: name of its line list, an `.npz` file of `emuinfer.synthesis`; `line_list_range`: (lowest, highest) Å
      in air for which the list is complete, somewhat wider than the window. None: nothing can be synthesised.
    - `emulator`: name of its emulator. None: there is none yet.
    - `line_errors`: name of its table of line errors, if there is one.
    - `files`: file name to SHA-256 (hexadecimal), for all of its files that do not ship in the package: line list, table of
      line errors, and the emulator's, `NAME.json`, `NAME.safetensors`, `NAME-uncertainty.card.json`,
      `NAME-uncertainty.safetensors`, `reductions/reduced-KEY.json`, `reductions/reduced-KEY.safetensors`.
    - `url`: the folder, on the web or on a disk (`file://`), that they are fetched from.
    """

    name: str
    wavelength_range: tuple[float, float]
    medium: str
    label_space: LabelSpace
    step: float = 0.02
    line_list: str | None = None
    line_list_range: tuple[float, float] | None = None
    emulator: str | None = None
    line_errors: str | None = None
    files: Mapping[str, str] | tuple = ()
    url: str = ""

    def __post_init__(self):
        lo, hi = (float(x) for x in self.wavelength_range)
        if not (0 < lo < hi and self.step > 0 and self.medium in ("air", "vacuum")):
            raise EmulatorError(
                f"Window '{self.name}': the wavelengths must rise from above 0, the step be positive and the medium air or "
                f"vacuum; got {lo:g} to {hi:g} Å, {self.step:g} Å and {self.medium!r}."
            )
        object.__setattr__(self, "wavelength_range", (lo, hi))
        object.__setattr__(self, "files", tuple(sorted(dict(self.files).items())))

    @property
    def native_wavelength(self) -> np.ndarray:
        """The pixels of its synthetic spectra, Å in `medium`, float64 `(n_wave,)`."""
        lo, hi = self.wavelength_range
        # Rounded, so that 5100.02 is the number that other codes write as 5100.02.
        return np.round(np.arange(round((hi - lo) / self.step) + 1) * self.step + lo, 6)

    def file(self, name: str) -> Path:
        """Where one of its files is; it is fetched if need be. **Raises:** `EmulatorError` as `data_files.find`."""
        return data_files.find(name, dict(self.files), self.url, f"window '{self.name}'")

    def describe(self) -> str:
        """`5100 to 5300 Å (air)`."""
        lo, hi = self.wavelength_range
        return f"{lo:g} to {hi:g} Å ({self.medium})"


WINDOWS: dict[str, Window] = {
    entry.name: entry
    for entry in (
        Window(
            name="optical-fgk",
            wavelength_range=(5100.0, 5300.0),
            medium="air",
            label_space=OPTICAL_FGK,
            line_list="ges_5090_5310.npz",
            line_list_range=(5090.0, 5310.0),
            emulator="optical-fgk",
            line_errors="air_5100_5300.npz",
        ),
    )
}


def default_window() -> Window:
    """The window that is meant where none is named: the first of `WINDOWS`."""
    return next(iter(WINDOWS.values()))


def window(name: "str | Window | None" = None) -> Window:
    """The window of that name; the default one for None. `EmulatorError` on unknown names, with those that there are."""
    if isinstance(name, Window):
        return name
    if name is None:
        return default_window()
    if name in WINDOWS:
        return WINDOWS[name]
    raise EmulatorError(f"Unknown window '{name}'.{suggestion(name, WINDOWS)} The windows are: {', '.join(WINDOWS)}.")


def window_of(what, medium: str | None = None) -> Window | None:
    """The window that shares most of a range of wavelengths; None where none shares any of it.

    `what` is an emulator or a grid, of which a window must have the medium, or a pair (lowest, highest) in Å, for which
    `medium` may be given. Of several windows that share as much, one with the same label names comes first, then the
    narrowest.
    """
    if hasattr(what, "medium"):
        medium = what.medium
    names = what.label_space.names if hasattr(what, "label_space") else None
    lo, hi = _range_of(what)

    def merit(entry):
        low, high = entry.wavelength_range
        return min(hi, high) - max(lo, low), entry.label_space.names == names, low - high

    candidates = [w for w in WINDOWS.values() if medium in (None, w.medium)]
    best = max(candidates, key=merit, default=None)
    return best if best is not None and merit(best)[0] > 0 else None


def _range_of(what):
    if hasattr(what, "wavelength_range"):
        return what.wavelength_range
    wavelength = getattr(what, "wavelength", what)
    return float(wavelength[0]), float(wavelength[-1])


def window_of_emulator(name: str) -> Window | None:
    """The window whose entry names that emulator, or None."""
    return next((w for w in WINDOWS.values() if w.emulator == name), None)
