"""What a synthesis of one window works with: labels, wavelengths and lines, its own or those that the caller gives."""

from typing import NamedTuple

import numpy as np

from ..errors import EmuinferError
from ..labels.space import LabelSpace
from ..labels.windows import WHOLE_OPTICAL
from ..labels.windows import window as window_by_name
from ..wavelengths.medium import convert_medium
from .lines import LineList, covers_range, load_line_list


class Setting(NamedTuple):
    """`wavelength` `(n_wave,)` Å in `medium`; `air` `(n_wave,)` the same in air, in which the lines are; float64."""

    labels: LabelSpace
    wavelength: np.ndarray
    medium: str
    air: np.ndarray
    lines: LineList


def setting(window=None, labels=None, wavelength=None, medium=None, line_list=None) -> Setting:
    """The setting of a window (a `Window`, a name, or None for the default one), with what else is not None in its place.

    `line_list` is a `LineList`, or the path of its file. `labels` may be the name of a window, or `"whole-optical"`. Lines of wavelengths
    outside the window's list are those of the whole optical (`load_line_list`).

    **Raises:** `EmulatorError` on an unknown window, `LabelError` without the labels of an atmosphere, `EmuinferError` on
    wavelengths that do not rise or that the line list does not cover.
    """
    entry = window_by_name(window)
    labels = entry.label_space if labels is None else labels
    if isinstance(labels, str):
        labels = WHOLE_OPTICAL if labels == "whole-optical" else window_by_name(labels).label_space
    labels.require_names(["teff", "logg", "fe_h", "vmic"])
    wavelength = np.array(entry.native_wavelength if wavelength is None else wavelength, dtype=np.float64)
    if wavelength.ndim != 1 or len(wavelength) < 2 or not np.all(np.diff(wavelength) > 0):
        raise EmuinferError(
            "The wavelengths of a synthesis must be a rising one-dimensional array of at least 2 values."
        )
    medium = medium or entry.medium
    air = convert_medium(wavelength, medium, "air")
    lines = line_list
    if not isinstance(lines, LineList):
        lines = load_line_list(line_list, window=entry, wavelength_range=(air[0], air[-1]))
    if lines.covers is not None and not covers_range(lines.covers, (air[0], air[-1])):
        raise EmuinferError(
            "The wavelengths [{:g}, {:g}] Å reach outside the line list's {:g} to {:g} Å (air). Stay inside 4200 to 9200 Å, "
            "or give a line list.".format(air[0], air[-1], *lines.covers)
        )
    return Setting(labels, wavelength, medium, air, lines)
