"""Spectra for training: checks, and where the batches of each step come from."""

from typing import NamedTuple

import numpy as np

from ...errors import TrainingError
from ...grids.grid import Grid
from ...labels.check import label_rows, require_same_labels, row_list
from ..base import Emulator
from .config import TrainConfig


class StoredSpectra:
    """Batches of stored spectra: random rows and, from each, random pixels, never interpolated.

    **Arguments:** `scaled` labels `(n, n_labels)`, `flux` `(n, n_wave)`, and the run's `TrainConfig`, whose `pixels` and `seed`
    are used; `stream` tells two sources of a run apart.
    """

    def __init__(self, scaled, flux, config: TrainConfig, stream: int = 0):
        self.scaled, self.flux, self.config, self.stream = scaled, flux, config, stream

    def batch(self, step: int, n: int):
        """Scaled labels `(n, n_labels)`, pixel indices `(n, p)` and flux `(n, p)`."""
        rng = np.random.default_rng([self.config.seed, step, self.stream])
        rows = rng.integers(0, len(self.scaled), n)
        pixels = rng.integers(0, self.flux.shape[1], (n, self.config.pixels))
        return self.scaled[rows], pixels, self.flux[rows[:, None], pixels]


def describe_spectra(emulator, labels, flux, wavelength) -> str:
    """The data of a run in a few figures, so coarse that another machine's rounding does not change them."""
    means = ", ".join(f"{n} {m:.5g}" for n, m in zip(emulator.labels, labels.mean(0)))
    return (
        f"{flux.shape[0]} spectra of {flux.shape[1]} pixels, {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å, "
        f"mean flux {flux.mean(dtype=np.float64):.5g}, mean {means}"
    )


class Trained(NamedTuple):
    """A trained emulator and the card that `save_emulator` writes beside it."""

    emulator: Emulator
    card: dict


def opened(grid, lazy: bool = False):
    """`(grid, what messages call it)` for a `Grid` or its file."""
    if grid is None or isinstance(grid, Grid):
        return grid, "the grid"
    return Grid.load(grid, lazy=lazy), str(grid)


def require_pixels(theirs, their_name: str, ours, our_name: str) -> None:
    """Raise `TrainingError`, naming both sides, unless the wavelengths `theirs` and `ours` (Å) are the same."""
    if np.shape(ours) != np.shape(theirs) or np.abs(ours - theirs).max() > 1e-3:
        raise TrainingError(
            f"{their_name} must have the pixels of {our_name}: it has {len(theirs)} from {theirs[0]:.3f} to {theirs[-1]:.3f} Å, "
            f"{our_name} {len(ours)} from {ours[0]:.3f} to {ours[-1]:.3f} Å. Make one of them on the other's wavelengths."
        )


def labels_for(emulator, grid, emulator_name="the emulator", grid_name="the grid") -> np.ndarray:
    """Labels `(n, n_labels)` of a `Grid` in the emulator's order, which may differ from the grid's.

    Raises `TrainingError`, naming both sides, unless the grid has the emulator's labels (names and units), wavelength medium
    and range. The range may fall short by 1 %: training on less would spoil the rest unseen.
    """
    remedy = "Bring the grid to the emulator's labels, or train a new emulator on it."
    sides = grid.label_space, grid_name, emulator.label_space, emulator_name
    require_same_labels(*sides, units=True, remedy=remedy, error=TrainingError)
    if emulator.medium != grid.medium:
        raise TrainingError(
            f"The wavelengths of {emulator_name} are in {emulator.medium}, those of {grid_name} in {grid.medium}. "
            "Convert the grid's, or train a new emulator on it."
        )
    (lo, hi), first, last = emulator.wavelength_range, grid.wavelength[0], grid.wavelength[-1]
    slack = 0.01 * (hi - lo)
    if first < lo - 1e-6 or last > hi + 1e-6 or first > lo + slack or last < hi - slack:
        raise TrainingError(
            f"The wavelength ranges differ: {emulator_name} covers {lo:.2f} to {hi:.2f} Å, {grid_name} {first:.2f} to {last:.2f} Å. "
            "Cut or extend the grid to the emulator's range, or train a new emulator on the grid's."
        )
    return emulator.label_space.to_array(grid.label_space.to_dict(grid.labels))


def check_data(emulator, labels, flux, wavelength, kind="training"):
    labels = label_rows(emulator.label_space, labels, f"{kind} spectra", error=TrainingError)
    flux = np.asarray(flux, np.float32)
    if flux.shape != (len(labels), len(wavelength)):
        raise TrainingError(
            f"The {kind} flux must have shape ({len(labels)}, {len(wavelength)}), labels × wavelengths; got {flux.shape}."
        )
    if not len(labels):
        raise TrainingError(f"There are no {kind} spectra.")
    bad = ~np.isfinite(flux).all(axis=1)
    if bad.any():
        raise TrainingError(
            f"{bad.sum()} of {len(bad)} {kind} spectra hold fluxes that are not finite: rows {row_list(bad)}. Remove them."
        )
    return labels, flux
