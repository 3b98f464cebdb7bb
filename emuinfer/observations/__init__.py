"""What was observed: spectra, readers by format, stacks of spectra, cross-correlation."""

from .examples import list_examples as list_examples
from .fitted import fitted_spectra as fitted_spectra
from .fitted import write_spectrum as write_spectrum
from .observation import Observation as Observation
from .stack import SpectrumStack as SpectrumStack
