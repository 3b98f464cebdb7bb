"""From a model spectrum at rest to observed pixels: Doppler shift, broadening, line spread function, continuum, noise."""

__all__ = ["SpectrumOperator", "usable_pixels"]


def __getattr__(name):
    # On first use: readers of files need the line spread function, which does without JAX.
    if name in __all__:
        from . import operator

        return getattr(operator, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
