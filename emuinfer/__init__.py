"""Bayesian inference of stellar spectra with neural emulators."""

import importlib
import sys

from .deprecation import OldModules, warn_old

__version__ = "0.2.0.dev0"

# Public name -> module that defines it; imported on first use so that `import emuinfer` stays light.
_LAZY = {
    "Observation": ".observations",
    "LabelSpace": ".labels",
    "OPTICAL_FGK": ".labels",
    "Grid": ".grids",
    "TransformerPayne": ".emulators",
    "load_emulator": ".emulators",
    "save_emulator": ".emulators",
    "list_emulators": ".emulators",
    "reduce_emulator": ".emulators",
    "train_on_grid": ".emulators.training",
    "load_network": ".networks",
    "list_networks": ".networks",
    "StellarModel": ".likelihoods",
    "JointModel": ".likelihoods",
    "XPModel": ".likelihoods",
    "ParallaxModel": ".likelihoods",
    "SamplingConfig": ".inference",
    "sample": ".inference",
    "refine": ".inference",
    "fit_many": ".survey",
    "check_coverage": ".calibration",
    "cramer_rao": ".forecast",
    "Exposure": ".forecast",
    "Forecast": ".forecast",
    "Instrument": ".forecast",
    "list_instruments": ".forecast",
    "load_instrument": ".forecast",
    "limits": ".forecast",
    "lines_of": ".forecast",
    "EmuinferError": ".errors",
}

# Names of the release before -> names of today.
_OLD = {"StellarSpectrum": "StellarModel", "JointSpectrum": "JointModel", "calibrate": "check_coverage"}

__all__ = ["__version__", *_LAZY]

if not any(type(finder).__name__ == "OldModules" for finder in sys.meta_path):
    sys.meta_path.append(OldModules())


def __getattr__(name):
    if name in _OLD:
        warn_old(f"emuinfer.{name}", f"emuinfer.{_OLD[name]}")
        return __getattr__(_OLD[name])
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module 'emuinfer' has no attribute '{name}'")


def __dir__():
    return sorted(__all__)
