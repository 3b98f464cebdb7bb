"""Spectra from physics: LTE, plane-parallel, in JAX. See `LTESynthesizer`; grids are made through `make_backend`."""

from .backend import LTEBackend, make_backend

__all__ = [
    "LTEBackend",
    "LTESynthesizer",
    "LineDerivatives",
    "LineList",
    "line_derivatives",
    "load_line_list",
    "make_backend",
]


def __getattr__(name):
    # JAX is imported only when a synthesizer is asked for.
    if name == "LTESynthesizer":
        from .synthesizer import LTESynthesizer

        return LTESynthesizer
    if name in ("LineDerivatives", "line_derivatives"):
        from . import derivatives

        return getattr(derivatives, name)
    if name in ("LineList", "load_line_list"):
        from . import lines

        return getattr(lines, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
