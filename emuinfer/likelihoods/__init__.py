"""NumPyro models of observed spectra."""

from .joint import JointSpectrum as JointSpectrum
from .stellar import StarData as StarData
from .stellar import StellarSpectrum as StellarSpectrum
