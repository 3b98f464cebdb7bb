"""NumPyro models of observed spectra."""

from .stellar import StarData as StarData
from .stellar import StellarSpectrum as StellarSpectrum
