"""Emulators that the transformer is measured against; Gaussian processes also teach it."""

from .components import LogitPCA as LogitPCA
from .gaussian_process import LogitGP as LogitGP
from .regression import PerPixelMLP as PerPixelMLP
from .regression import PixelPolynomial as PixelPolynomial
