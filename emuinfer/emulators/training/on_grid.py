"""Training on a grid, from the split of its spectra to the card: what `emuinfer train` does, as one call."""

import dataclasses
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ... import __version__
from ...constants import FWHM_PER_SIGMA
from ...entry import public
from ...grids.grid import Grid
from ...grids.split import split_rows
from ..base import Emulator
from .config import TrainConfig
from .data import Trained, labels_for, opened, require_pixels
from .evaluate import error_table
from .start import starting_emulator
from .train import train


@public
def train_on_grid(
    grid: Grid | str | Path,
    init: Emulator | str | Path | None = None,
    config: TrainConfig | None = None,
    *,
    sizes: dict | None = None,
    held_out: float = 0.1,
    replay: Grid | str | Path | None = None,
    title: str = "",
    directory=None,
    resume: bool = True,
    progress: bool = True,
) -> Trained:
    """A transformer trained on a grid, and measured on spectra of it that the training has not seen.

    ```python
    emulator, card = train_on_grid("mine.h5", config=TrainConfig(steps=5000), directory="mine.run")
    save_emulator(emulator, "mine", card)
    ```

    **Arguments:**

    - `grid`: a `Grid` or its file.
    - `init`: where it starts. None: a new transformer, from principal components of the training spectra if their wavelengths are
      equally spaced. A `TransformerPayne`: its weights, to fine-tune them. A `LogitGP`: a new transformer that has learned from it,
      at any labels. Either may be given by the name of a shipped emulator or the path of a card.
    - `config`: a `TrainConfig`; with its `patience`, a tenth of the training spectra is set apart to choose the weights.
    - `sizes`: of a new transformer, fields of `TransformerConfig`; its tables and periods follow from the grid's wavelengths.
    - `held_out`: the fraction of the spectra kept for the errors of the card, by `Grid.split`, the same for every seed.
    - `replay`: a grid of an earlier stage at the same wavelengths, for the share `config.replay` of each step's spectra.
    - `directory`: of the run, its checkpoint, metrics and first weights; an interrupted run goes on there if `resume`.

    **Returns:** `(emulator, card)`. The card has the grid's hash, the recipe, versions and `error_table` of the held-out spectra, at
    native sampling and, where wavelengths allow it, at R = 40,000.

    **Raises:** `TrainingError` as `train`, and when grid, `init` and `replay` do not fit together; `GridError` on grids that cannot
    be read or divided.
    """
    config = config or TrainConfig()
    (data, name), (before, before_name) = opened(grid), opened(replay)
    if before is not None:
        require_pixels(before.wavelength, before_name, data.wavelength, name)
    rows, test = data.split(held_out)
    emulator, parent = starting_emulator(init, data, rows, sizes or {}, config.seed, directory, progress)
    known = f"'{parent['name']}'" if parent and "name" in parent else "the emulator"
    labels = labels_for(emulator, data, known, name)
    fit, judges = rows, test
    if config.patience:  # what chooses the weights may not measure their error
        fit, judges = (rows[part] for part in split_rows(len(rows)))
    trained = train(
        emulator,
        labels[fit],
        data.flux[fit],
        data.wavelength,
        config=config,
        held_out=(labels[judges], data.flux[judges]),
        replay=before and (labels_for(emulator, before, "the emulator", before_name), before.flux),
        directory=directory,
        resume=resume,
        progress=progress,
    )
    errors = error_table(trained, labels[test], data.flux[test], data.wavelength, resolutions=_resolutions(data))
    replayed = before and {**_file(replay), "hash": before.hash}
    return Trained(
        trained,
        {
            **({"title": title} if title else {}),
            "grid": {**_file(grid), "hash": data.hash, "spectra": len(data), "provenance": data.provenance},
            "recipe": {**dataclasses.asdict(config), "held_out": held_out, "init": parent, "replayed": replayed},
            "versions": {"emuinfer": __version__, **{p: version(p) for p in ("jax", "equinox", "optax", "numpy")}},
            "validation": errors,
        },
    )


def _file(grid) -> dict:
    return {} if isinstance(grid, Grid) else {"file": Path(grid).name}


def _resolutions(grid):
    step = np.diff(grid.wavelength)
    reach = 10 * grid.wavelength[-1] / 40_000 / FWHM_PER_SIGMA  # the line spread function, to 5 sigma on both sides
    uniform = np.ptp(step) < 2e-3 * step.mean()
    return (None, 40_000) if uniform and grid.wavelength[-1] - grid.wavelength[0] > 2 * reach else (None,)
