"""NumPyro models of observed spectra, and the likelihoods that they are made of."""

from ..deprecation import renamed_names
from .base import LabelLikelihood as LabelLikelihood
from .base import Likelihood as Likelihood
from .base import SpectraLikelihood as SpectraLikelihood
from .base import SpectrumModel as SpectrumModel
from .compressed import CompressedLikelihood as CompressedLikelihood
from .density import Unconstrained as Unconstrained
from .density import log_posterior as log_posterior
from .forward_model import GridModel as GridModel
from .forward_model import LocalModel as LocalModel
from .joint import JointLikelihood as JointLikelihood
from .joint import JointModel as JointModel
from .line_errors import LineErrors as LineErrors
from .line_factors import LineFactors as LineFactors
from .luminosity import LuminosityLikelihood as LuminosityLikelihood
from .noise import Noise as Noise
from .photometry import PhotometricLikelihood as PhotometricLikelihood
from .photometry import TokenEmulator as TokenEmulator
from .pixels import PixelLikelihood as PixelLikelihood
from .stellar import StellarModel as StellarModel
from .xp import ParallaxModel as ParallaxModel
from .xp import XPModel as XPModel

__getattr__ = renamed_names(__name__, {"StellarSpectrum": StellarModel, "JointSpectrum": JointModel})
