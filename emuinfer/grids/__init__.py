"""Grids of synthetic spectra: generation, one HDF5 format, import of others' grids, checks."""

import importlib

# `generate` is loaded on first use, so that `python -m emuinfer.grids.generate` runs a single copy of it.
_LAZY = {
    "Grid": ".grid",
    "describe": ".grid",
    "generate_grid": ".generate",
    "import_npz": ".import_arrays",
    "import_grid": ".import_spectra",
    "check_grid": ".check",
    "GridReport": ".check",
}

__all__ = list(_LAZY)


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module 'emuinfer.grids' has no attribute '{name}'")


def __dir__():
    return sorted(__all__)
