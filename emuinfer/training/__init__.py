"""How any network is trained: loop, batches, optimiser, checkpoints. A room that knows no spectrum and no emulator.

```python
from emuinfer.training import LoopConfig, StoredRows, train_network

def loss(network, batch):
    x, y = batch
    return jnp.mean((jax.vmap(network)(x) - y) ** 2)

network = train_network(eqx.nn.MLP(2, 1, 32, 2, key=key), loss, StoredRows((x, y)), LoopConfig(steps=1000), directory="run")
```
"""

import importlib

from ..deprecation import warn_old
from .batches import BatchSource, Replay, Ring, StoredRows
from .config import LoopConfig, LoopSettings
from .loop import train_network
from .optimiser import Group, groups_by_name

__all__ = [
    "BatchSource",
    "Group",
    "LoopConfig",
    "LoopSettings",
    "Replay",
    "Ring",
    "StoredRows",
    "groups_by_name",
    "train_network",
]

# What this room held when it was that of emulators; the new place by name, as this room knows no emulator.
_OF_EMULATORS = {
    "TrainConfig",
    "coverage",
    "error_table",
    "fit_logit_gp",
    "fit_logit_pca",
    "fit_mlp",
    "fit_polynomial",
    "fit_uncertainty",
    "labels_for",
    "load_statistics",
    "predict",
    "pretrain",
    "residual_statistics",
    "save_statistics",
    "train",
}


def __getattr__(name):
    if name not in _OF_EMULATORS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    warn_old(f"{__name__}.{name}", f"emuinfer.emulators.training.{name}")
    return getattr(importlib.import_module("..emulators.training", __name__), name)
