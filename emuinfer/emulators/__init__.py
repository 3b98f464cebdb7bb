"""Emulators: flux as a function of labels and wavelength."""

from .base import Emulator, depth_from_flux, flux_from_depth
from .local import LocalSpectrum, fit_local
from .reduced import ReducedEmulator
from .reduction import reduce_emulator
from .storage import emulator_hash, list_emulators, load_card, load_emulator, save_emulator
from .transformer import TransformerConfig, TransformerPayne
from .uncertainty import EmulatorUncertainty, load_uncertainty, shipped_uncertainty

__all__ = [
    "Emulator",
    "EmulatorUncertainty",
    "LocalSpectrum",
    "ReducedEmulator",
    "TransformerConfig",
    "TransformerPayne",
    "depth_from_flux",
    "emulator_hash",
    "fit_local",
    "flux_from_depth",
    "list_emulators",
    "load_card",
    "load_emulator",
    "load_uncertainty",
    "reduce_emulator",
    "save_emulator",
    "shipped_uncertainty",
]
