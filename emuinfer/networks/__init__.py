"""Networks that answer at once: any kind of number from any others, as draws, as a guide of a likelihood, as an emulator.

`load_network("stars-xp").ask(tokens, want=["teff", "logg"])`; see `Network`.
"""

import importlib

_WHERE = {
    "Answer": ".answer",
    "Asked": ".ask",
    "FLAGS": ".flags",
    "AnyToAny": ".anytoany",
    "AnyToAnyConfig": ".anytoany",
    "Calibration": ".calibration",
    "Masking": ".masking",
    "Network": ".network",
    "NetworkEmulator": ".emulator",
    "NetworkGuide": ".guide",
    "Recipe": ".train",
    "View": ".masking",
    "Outliers": ".outliers",
    "ask_table": ".ask",
    "extinction_curve": ".extinction",
    "finish_network": ".finish",
    "list_networks": ".storage",
    "measure_correlation": ".correlation",
    "load_network": ".storage",
    "population_shift": ".population",
    "reweight": ".population",
    "save_network": ".storage",
    "similar": ".neighbours",
    "stars_xp": ".train",
    "train_any_to_any": ".train",
}

__all__ = sorted(_WHERE)


def __getattr__(name):
    if name not in _WHERE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name], __name__), name)
