"""Pretraining on spectra of simple physics that are made on the device as training goes, and never read from disk."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...entry import public
from ...errors import TrainingError
from ...labels.check import require_same_labels
from ...labels.design import sobol_design
from ...labels.windows import window as window_by_name
from ...training.batches import Ring
from ..transformer import TransformerPayne
from .config import TrainConfig
from .data import Trained, labels_for, opened, require_pixels
from .start import known_emulator, new_transformer
from .train import train_on


class EndlessSpectra:
    """Batches from a ring of spectra, in which the oldest are replaced by new ones as the steps go by.

    **Arguments:**

    - `synthesizer`: labels `(n_labels,)` to normalised flux and continuum `(n_wave,)`, to be vmapped and jitted, such as
      `LTESynthesizer`; its `labels` is the label space.
    - `ring`: spectra kept on the device (4 bytes a pixel); `chunk` new ones are made every `renew` steps, at once.
    - `seed`: of labels, rows and pixels. What a step sees is a function of the step, so that a resumed run, which first fills the
      ring again, goes on exactly.

    Each chunk's labels are a scrambled Sobol design of the domain. A spectrum that comes out not finite is replaced by its neighbour
    in the chunk; `replaced` counts them. Raises `TrainingError` when a whole chunk is not finite.
    """

    def __init__(self, synthesizer, space, n_wave: int, pixels: int, *, ring=2048, renew=4, chunk=16, seed=0):
        self.synthesizer, self.space, self.n_wave, self.pixels, self.seed = synthesizer, space, n_wave, pixels, seed
        self.ring = Ring(self._make, size=ring, chunk=chunk, renew=renew)
        self.replaced = 0

    def batch(self, step: int, n: int):
        """Scaled labels `(n, n_labels)`, pixel indices `(n, p)` and flux `(n, p)`."""
        labels, flux = self.ring.at(step)
        rng = np.random.default_rng([self.seed, 1, step])
        rows = rng.integers(0, len(labels), n)
        pixels = rng.integers(0, self.n_wave, (n, self.pixels))
        return labels[rows], pixels, _gather(flux, rows, pixels)

    def _make(self, number: int):
        """Scaled labels `(chunk, n_labels)`, on the host, and flux `(chunk, n_wave)` of chunk `number`."""
        labels = sobol_design(self.space, self.ring.chunk, seed=[self.seed, 0, number])
        flux, finite = _synthesize(self.synthesizer, jnp.asarray(labels, jnp.float32))
        finite = np.asarray(finite)
        if not finite.any():
            raise TrainingError(
                f"No spectrum of chunk {number} is finite; its first labels are {self.space.to_dict(labels[0])}."
            )
        # The neighbour is the nearest finite one before it, or else the first.
        source = np.maximum.accumulate(np.where(finite, np.arange(len(finite)), np.flatnonzero(finite)[0]))
        self.replaced += int((~finite).sum())
        return np.asarray(self.space.scale(labels[source]), np.float32), flux[source]


@eqx.filter_jit
def _synthesize(synthesizer, labels: Float[Array, "chunk n_labels"]):
    flux, _ = jax.vmap(synthesizer)(labels)
    finite = jnp.all(jnp.isfinite(flux), axis=-1)
    return jnp.where(finite[:, None], flux, 0.0), finite


@jax.jit
def _gather(flux: Float[Array, "ring n_wave"], rows: Int[Array, " n"], pixels: Int[Array, "n p"]):
    return flux[rows[:, None], pixels]


@public
def pretrain(emulator, synthesizer, wavelength, *, config, ring=2048, renew=4, chunk=16, held_out=None, directory=None,
             resume=True, progress=True):  # fmt: skip
    """Train `emulator` on endless spectra of `synthesizer`, and return it with averaged weights.

    `wavelength` `(n_wave,)` Å are the synthesizer's; `ring`, `renew` and `chunk` are those of `EndlessSpectra`, the rest is as
    in `train`. A synthesizer slower than `chunk` spectra in `renew` steps sets the pace: raise `renew` on a CPU.

    **Raises:** `TrainingError` as `train` does, and when synthesizer and emulator have other labels.
    """
    sides = synthesizer.labels, "the synthesizer", emulator.labels, "the emulator"
    require_same_labels(*sides, in_order=True, error=TrainingError)
    sizes = {"ring": ring, "renew": renew, "chunk": chunk}
    source = EndlessSpectra(
        synthesizer, emulator.label_space, len(wavelength), config.pixels, seed=config.seed, **sizes
    )
    described = {"endless": sizes, "data": f"{len(wavelength)} pixels, {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å"}
    return train_on(
        emulator, source, described, wavelength,
        config=config, held_out=held_out, directory=directory, resume=resume, progress=progress,
    )  # fmt: skip


@public
def pretrain_on_window(
    window=None,
    init=None,
    config: TrainConfig | None = None,
    *,
    sizes: dict | None = None,
    ring: int = 2048,
    renew: int = 4,
    chunk: int = 16,
    validation=None,
    directory=None,
    resume: bool = True,
    progress: bool = True,
) -> Trained:
    """A transformer trained on endless LTE spectra of a window: what `emuinfer pretrain` does, as one call.

    **Arguments:**

    - `window`: a `Window` or its name; the default one for None.
    - `init`: a `TransformerPayne`, its name or the path of its card, to go on with; or None for a new one of `sizes` (fields of
      `TransformerConfig`), without a bilinear part.
    - `validation`: a grid (or its file) on the window's pixels, whose first 64 spectra measure the error.
    - the rest is as in `pretrain`.

    **Returns:** `(emulator, card)`, for `save_emulator`. **Raises:** `TrainingError` as `pretrain`, and when what is given does
    not fit the window.
    """
    from ...synthesis import LTESynthesizer

    config, entry = config or TrainConfig(), window_by_name(window)
    synthesizer, wavelength = LTESynthesizer(window=entry), entry.native_wavelength
    if init is None:
        parent, sizes = None, {**(sizes or {}), "rank": 0}
        emulator = new_transformer(synthesizer.labels, wavelength, entry.medium, sizes, config.seed)
    else:
        emulator, parent = known_emulator(init, TransformerPayne)
    held_out = None
    if validation is not None:
        grid, name = opened(validation, lazy=True)
        require_pixels(grid.wavelength, name, wavelength, "the synthesis")
        held_out = labels_for(emulator, grid, "the emulator", name)[:64], np.asarray(grid.flux[:64])
    made = {"ring": ring, "renew": renew, "chunk": chunk}
    trained = pretrain(
        emulator, synthesizer, wavelength,
        config=config, **made, held_out=held_out, directory=directory, resume=resume, progress=progress,
    )  # fmt: skip
    recipe = {**dataclasses.asdict(config), **made, "init": parent}
    return Trained(trained, {"title": "Transformer of LTE spectra", "recipe": recipe, "synthesis": "LTE, emuinfer"})
