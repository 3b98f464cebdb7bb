"""Training of wavelength-wise emulators on spectra: their loss and validation, handed to the loop of `emuinfer.training`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...entry import public
from ...errors import TrainingError
from ...training.batches import BatchSource, Replay
from ...training.loop import train_network
from ..base import from_link
from ..storage import save_emulator
from ..wavelength_encoding import WavelengthQuery
from .config import TrainConfig
from .data import StoredSpectra, check_data, describe_spectra
from .rates import transformer_groups

Batch = tuple[Float[Array, "n n_labels"], Int[Array, "n p"], Float[Array, "n p"]]


def pseudo_huber(residual: Float[Array, "*shape"], delta) -> Float[Array, "*shape"]:
    """δ (√(1 + (r/δ)²) − 1): quadratic below `delta`, absolute above (Charbonnier et al. 1994)."""
    return delta * (jnp.sqrt(1.0 + (residual / delta) ** 2) - 1.0)


class FluxLoss(eqx.Module):
    """The mean pseudo-Huber distance of fluxes at chosen pixels, from `start` to `end` while the rate is on its plateau."""

    query: WavelengthQuery  # of all stored pixels
    start: float = eqx.field(static=True)
    end: float = eqx.field(static=True)
    plateau: float = eqx.field(static=True)  # steps

    def __init__(self, query: WavelengthQuery, config: TrainConfig):
        self.query, self.start, self.end = query, config.huber_start, config.huber
        self.plateau = max(1.0, (1.0 - config.decay) * config.steps)

    def __call__(self, emulator, batch: Batch, step: Int[Array, ""]):
        labels, pixels, target = batch
        # Features of all stored pixels once, then each spectrum's own selection.
        features = jax.tree.map(lambda f: f[pixels], emulator.wavelength_features(self.query))
        x = jax.vmap(emulator.link)(labels, features)
        residual = from_link(x, emulator.config.epsilon) - target
        done = jnp.minimum(jnp.asarray(step, jnp.float32) / self.plateau, 1.0)
        delta = self.start * (self.end / self.start) ** done
        return jnp.mean(pseudo_huber(residual, delta)), {"train_mae": jnp.mean(jnp.abs(residual))}


@eqx.filter_jit
def _flux(emulator, scaled, query):
    return emulator.flux(scaled, query)


def validate(emulator, query, scaled, flux, max_spectra: int = 64) -> dict:
    """MAE, RMSE and 95th percentile of |residual| on the first `max_spectra` held-out spectra, native sampling."""
    pairs = zip(scaled[:max_spectra], flux[:max_spectra])
    residual = np.concatenate([np.asarray(_flux(emulator, jnp.asarray(s), query)) - f for s, f in pairs])
    absolute = np.abs(residual)
    return {
        "mae": float(absolute.mean()),
        "rmse": float(np.sqrt((residual**2).mean())),
        "p95": float(np.percentile(absolute, 95)),
    }


@public
def train(
    emulator,
    labels,
    flux,
    wavelength,
    *,
    config: TrainConfig,
    held_out=None,
    replay=None,
    directory=None,
    resume: bool = True,
    progress: bool = True,
):
    """Train `emulator` on stored spectra and return it with averaged weights (with `config.patience`, the best of them).

    **Arguments:**

    - `labels` `(n, n_labels)` in physical units and the emulator's order (`labels_for` gives them for a grid), `flux`
      `(n, n_wave)` normalised, `wavelength` `(n_wave,)` Å.
    - `held_out`: `(labels, flux)` of spectra kept for validation, or None.
    - `replay`: `(labels, flux)` of an earlier stage, which make up the share `config.replay` of each step's spectra.
    - `directory`: where `checkpoint.eqx`, `metrics.jsonl` and `config.json` go; a run that finds a checkpoint there goes
      on from it if `resume`, with the same batches as if it had never stopped.

    **Raises:** `TrainingError` when data do not match the emulator, hold non-finite values, or the directory holds another
    run or cannot be written to, and when the loss or the weights are no longer finite. The last good checkpoint then stays,
    and its averaged weights are saved beside it as the emulator `last_good`.
    """
    source, summary = _stored(emulator, labels, flux, wavelength, config)
    described = {"data": summary}
    if replay is not None:
        old_labels, old_flux = replay
        old, summary = _stored(emulator, old_labels, old_flux, wavelength, config, "replayed", stream=1)
        source, described["replay_data"] = Replay(source, old, config.replay), summary
    return train_on(
        emulator, source, described, wavelength,
        config=config, held_out=held_out, directory=directory, resume=resume, progress=progress,
    )  # fmt: skip


def _stored(emulator, labels, flux, wavelength, config, kind="training", stream=0):
    """Checked spectra as a source of batches, and what describes them."""
    labels, flux = check_data(emulator, labels, flux, wavelength, kind)
    scaled = np.asarray(emulator.label_space.scale(labels), np.float32)
    return StoredSpectra(scaled, flux, config, stream), describe_spectra(emulator, labels, flux, wavelength)


def train_on(
    emulator, source: BatchSource, described: dict, wavelength, *, config: TrainConfig, held_out=None, **options
):
    """`emulator` trained on the batches of `source`: scaled labels, indices of pixels of `wavelength`, and flux.

    `described` says what, besides settings and first weights, makes this run another; the rest is as in `train`.
    """
    query, judge = emulator.prepare(emulator.check_wavelength(wavelength)), None
    if held_out is not None:
        labels, flux = held_out
        labels, flux = check_data(emulator, labels, flux, wavelength, "held-out")
        scaled = np.asarray(emulator.label_space.scale(labels), np.float32)
        judge = lambda trained: validate(trained, query, scaled, flux)
    elif config.patience:
        raise TrainingError(f"patience = {config.patience} needs held-out spectra to judge by: give held_out.")
    return train_network(
        emulator, FluxLoss(query, config), source, config,
        groups=transformer_groups(emulator.config, config), validate=judge, described=described, save=save_emulator, **options,
    )  # fmt: skip
