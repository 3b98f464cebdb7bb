"""C3K model atmospheres from the networks of `atmosnet`, read from its installed files.

`atmosnet` 1.0.1 (MIT licence, D. Nidever & Y.-S. Ting, on PyPI) holds neural networks fitted to the C3K grid of ATLAS12
models (Kurucz 1970, 2005; Conroy et al. 2018, ApJ 854, 139). Only its files are used: the package itself takes `exp` of
outputs that are base-10 logarithms, and does not import with current versions of SciPy.
"""

import dataclasses
import functools
import importlib.util
import pickle
from pathlib import Path

import numpy as np

from ..constants import K_BOLTZMANN
from ..errors import EmuinferError

FILE = "atmosnet_c3k_300neurons_cool.pkl"  # models below 8000 K
NAMES = ("TEFF", "LOGG", "FE_H", "ALPHA_FE")
DEEPEST = 50.0  # Rosseland optical depth; of the flux, less than 1e-6 comes from below


@dataclasses.dataclass(frozen=True)
class ModelAtmosphere:
    """Layers from the top down, arrays of shape (n_layers,), float64.

    `column_mass` (g cm^-2), `temperature` (K), `gas_pressure` (dyn cm^-2), `electrons` (cm^-3).
    """

    column_mass: np.ndarray
    temperature: np.ndarray
    gas_pressure: np.ndarray
    electrons: np.ndarray

    @property
    def atoms(self) -> np.ndarray:
        """Particles other than electrons, cm^-3."""
        return self.gas_pressure / (K_BOLTZMANN * self.temperature) - self.electrons


def model_atmosphere(
    teff: float, logg: float, fe_h: float, alpha_fe: float, folder: Path | None = None
) -> ModelAtmosphere:
    """The C3K atmosphere at Teff (K), log g (dex, cgs), [Fe/H] and [alpha/Fe].

    Layers below a Rosseland optical depth of 50 are left out: no light comes from there, and PySME's equation of state does
    not converge in those of cool dwarfs. So is a layer that does not lie below all layers above it, since the networks of
    column mass are not quite monotonic in deep layers of hot giants. `folder` holds the network's file; by default that of
    the installed `atmosnet`.

    Raises `EmuinferError` if the file is missing or foreign, or if the parameters are outside the networks' range.
    """
    columns = _columns(folder or _installed_folder())
    labels = np.array([teff, logg, fe_h, alpha_fe], dtype=float)
    lower, upper = columns[0]["x_min"], np.minimum(columns[0]["x_max"], [8000.0, np.inf, np.inf, np.inf])
    for name, value, low, high in zip(NAMES, labels, lower, upper):
        if not low - 1e-6 <= value <= high + 1e-6:
            raise EmuinferError(f"The C3K atmospheres have no {name} = {value:g}; it must lie in [{low:g}, {high:g}].")
    mass, temperature, pressure, electrons, opacity = (network(column, labels[None])[0] for column in columns)
    deepest_yet = np.maximum.accumulate(mass)
    depth = mass[0] * opacity[0] + np.append(0.0, np.cumsum(0.5 * (opacity[1:] + opacity[:-1]) * np.diff(deepest_yet)))
    kept = np.append(True, mass[1:] > deepest_yet[:-1]) & (depth < DEEPEST)
    return ModelAtmosphere(*(x[kept] for x in (mass, temperature, pressure, electrons)))


def _installed_folder() -> Path:
    found = importlib.util.find_spec("atmosnet")
    if found is None or found.origin is None:
        raise EmuinferError(
            "The C3K model atmospheres need the package atmosnet: pip install --no-deps atmosnet==1.0.1 (its files are read, and "
            'no more), or pip install "emuinfer[pysme]".'
        )
    return Path(found.origin).parent / "data"


@functools.cache
def _columns(folder):
    """The networks of column mass, temperature, gas pressure, electron density and Rosseland opacity."""
    path = Path(folder) / FILE
    try:
        with open(path, "rb") as file:
            columns = ArrayUnpickler(file).load()[:5]
        if [list(c["labels"]) for c in columns] != [list(NAMES)] * 5 or [c["column"] for c in columns] != list(
            range(5)
        ):
            raise ValueError("unexpected labels or columns")
    except FileNotFoundError as error:
        raise EmuinferError(
            f'There is no file {path}. Install atmosnet 1.0.1: pip install "emuinfer[pysme]".'
        ) from error
    except Exception as error:  # unpickling foreign bytes raises errors of many kinds
        raise EmuinferError(f"{path} is not the file of atmosnet 1.0.1 ({error!r}). Reinstall atmosnet.") from error
    return columns


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles (made with dill) of NumPy arrays in built-in containers, and nothing else."""

    def find_class(self, module, name):
        from numpy._core.multiarray import _reconstruct

        allowed = {
            ("dill._dill", "_get_attr"): lambda _, attribute: {"_reconstruct": _reconstruct}[attribute],
            ("dill._dill", "_import_module"): lambda _: None,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"unexpected class {module}.{name}")
        return allowed[module, name]


def network(parameters: dict, labels: np.ndarray) -> np.ndarray:
    """One column of the model atmospheres, shape (n_models, n_layers): two hidden layers, output in log10."""
    relu = lambda z: np.where(z > 0, z, 0.01 * z)
    x = (labels - parameters["x_min"]) / (parameters["x_max"] - parameters["x_min"]) - 0.5
    x = relu(x @ parameters["w_array_0"].T + parameters["b_array_0"])
    x = relu(x @ parameters["w_array_1"].T + parameters["b_array_1"])
    return 10.0 ** (x @ parameters["w_array_2"].T + parameters["b_array_2"])
