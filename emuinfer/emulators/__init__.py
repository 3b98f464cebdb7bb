"""Emulators: flux as a function of labels and wavelength."""

from ..deprecation import renamed_names
from .base import Emulator, from_link, to_link
from .corrected import CorrectedEmulator, fit_correction
from .local import LocalSpectrum, fit_local
from .reduced import ReducedEmulator
from .reduction import reduce_emulator
from .storage import emulator_hash, list_emulators, load_card, load_emulator, save_emulator
from .transformer import TransformerConfig, TransformerPayne
from .uncertainty import EmulatorUncertainty, load_uncertainty, shipped_uncertainty

__all__ = [
    "CorrectedEmulator",
    "Emulator",
    "EmulatorUncertainty",
    "LocalSpectrum",
    "ReducedEmulator",
    "TransformerConfig",
    "TransformerPayne",
    "emulator_hash",
    "fit_correction",
    "fit_local",
    "from_link",
    "list_emulators",
    "load_card",
    "load_emulator",
    "load_uncertainty",
    "reduce_emulator",
    "save_emulator",
    "shipped_uncertainty",
    "to_link",
]

__getattr__ = renamed_names(__name__, {"depth_from_flux": to_link, "flux_from_depth": from_link})
