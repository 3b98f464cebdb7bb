"""What was observed: spectra, readers by format, stacks of spectra, cross-correlation."""

from .examples import list_examples
from .fitted import fitted_spectra, write_spectrum
from .observation import Observation
from .stack import SpectrumStack

__all__ = [
    "Observation",
    "SpectrumStack",
    "VelocityPeaks",
    "fitted_spectra",
    "list_examples",
    "velocity_peaks",
    "write_spectrum",
]


def __getattr__(name):
    # On first use: readers of files do without JAX, which the broadening of templates needs.
    if name in ("VelocityPeaks", "velocity_peaks"):
        from . import peaks

        return getattr(peaks, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
