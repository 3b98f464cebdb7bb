"""Emulators: flux as a function of labels and wavelength."""

from .base import Emulator, depth_from_flux, flux_from_depth
from .controls import LogitGP, LogitPCA, PerPixelMLP, PixelPolynomial
from .local import LocalEmulator, localise
from .reduced import ReducedEmulator
from .reduction import reduce_emulator
from .storage import emulator_hash, list_emulators, load_card, load_emulator, save_emulator
from .transformer import TransformerConfig, TransformerPayne

__all__ = [
    "Emulator",
    "LocalEmulator",
    "LogitGP",
    "LogitPCA",
    "PerPixelMLP",
    "PixelPolynomial",
    "ReducedEmulator",
    "TransformerConfig",
    "TransformerPayne",
    "depth_from_flux",
    "emulator_hash",
    "flux_from_depth",
    "list_emulators",
    "load_card",
    "load_emulator",
    "localise",
    "reduce_emulator",
    "save_emulator",
]
