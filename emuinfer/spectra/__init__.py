"""Observed spectra, and the way from a model spectrum to observed pixels: Doppler shift, broadening, continuum."""

from .examples import list_examples as list_examples
from ..wavelengths.medium import convert_medium as convert_medium
from .observation import Observation as Observation
