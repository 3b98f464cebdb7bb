"""Errors that emuinfer raises on bad input. Each message names the value, what was expected and the remedy."""


class EmuinferError(ValueError):
    """Base of every error that emuinfer raises on purpose; the command line prints it without a traceback."""


class LabelError(EmuinferError):
    """Wrong label names, shapes, or values outside the domain of an emulator."""


class ObservationError(EmuinferError):
    """A file or arrays that cannot be used as an observed spectrum."""


class GridError(EmuinferError):
    """A grid file that is damaged, foreign, or does not match what was asked for."""


class EmulatorError(EmuinferError):
    """An unknown emulator, or a weights file that is damaged or foreign."""


class TrainingError(EmuinferError):
    """Training that cannot start or go on (mismatched data, non-finite loss)."""


class SamplingError(EmuinferError):
    """A posterior that cannot be sampled (non-finite density at every start)."""
