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


class TokenError(EmuinferError):
    """Columns, units or kinds of data that no network of the toolkit can take as tokens."""


class NetworkError(EmuinferError):
    """Networks that are not there, damaged, or asked for what they cannot answer."""


class TrainingError(EmuinferError):
    """Training that cannot start or go on (mismatched data, non-finite loss)."""


class SamplingError(EmuinferError):
    """A posterior that cannot be sampled (non-finite density at every start)."""


def suggestion(name, known) -> str:
    """ " Did you mean 'x'?" with a space before it, x being the nearest of the names `known`; empty where none is near.

    Upper and lower case count as the same. To be put behind the sentence that says that `name` is unknown.
    """
    import difflib

    spelt = {str(k).lower(): str(k) for k in known}
    close = difflib.get_close_matches(str(name).lower(), spelt, n=1)
    return f" Did you mean '{spelt[close[0]]}'?" if close else ""
