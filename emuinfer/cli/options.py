"""What the commands share: printing, files written as a whole, options that are pairs, the compilation cache."""

import contextlib
import enum
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from ..errors import EmuinferError
from ..labels.windows import default_window


class Medium(enum.StrEnum):
    """Media of wavelengths, as choices of an option."""

    air = "air"
    vacuum = "vacuum"


class Broadening(enum.StrEnum):
    """Broadening parameters of a model, as choices of an option."""

    vbroad = "vbroad"
    vsini = "vsini"
    both = "both"
    none = "none"


# Options that several commands have
DEFAULT_EMULATOR = str(default_window().emulator)
EmulatorName = Annotated[str, typer.Option("--emulator", help="Name of a shipped emulator, or path of a card.")]
WindowName = Annotated[
    str | None, typer.Option("--window", help="Window of wavelengths, labels and lines; the first by default.")
]
FileMedium = Annotated[
    Medium | None, typer.Option("--medium", help="Medium of the wavelengths, if the file does not say.")
]
FitBroadening = Annotated[
    Broadening, typer.Option("--broadening", help="Gaussian (vbroad), rotational (vsini), both or none.")
]
SearchedVelocities = Annotated[
    tuple[float, float], typer.Option("--rv-range", metavar="A B", help="Radial velocities to search, km/s.")
]
Fixed = Annotated[
    list[str] | None,
    typer.Option("--fix", metavar="NAME=NUMBER", help="Hold a label or nuisance at a value; may be repeated."),
]
Priors = Annotated[
    list[str] | None,
    typer.Option(
        "--prior",
        metavar="NAME=PRIOR",
        help="Prior of a label or nuisance, such as teff=5700:80 (mean and standard deviation) or 'vsini=uniform(0,60)'; may be repeated.",
    ),
]
ContinuumTerms = Annotated[
    int | None,
    typer.Option("--continuum-terms", min=1, help="Chebyshev terms of the continuum; one per 25 Å by default."),
]
LineErrors = Annotated[
    bool,
    typer.Option("--line-errors/--no-line-errors", help="Allow for errors of the line list; not for mock spectra."),
]
EmulatorError = Annotated[
    bool,
    typer.Option(
        "--emulator-error/--no-emulator-error", help="Allow for the emulator's own error, or see what it does."
    ),
]
Robust = Annotated[bool, typer.Option("--robust/--not-robust", help="Down-weight outlying pixels, or not.")]
DegreesOfFreedom = Annotated[
    float, typer.Option("--degrees-of-freedom", min=1, help="Of that down-weighting: the fewer, the stronger.")
]
Gaia = Annotated[
    str | None,
    typer.Option(
        "--gaia",
        metavar="FILE|NAME=NUMBER,…",
        help="Parallax and photometry of Gaia, for gravity from outside: a table with the archive's columns, whose column 'name' tells "
        "several stars apart, or parallax=3.1,parallax_error=0.03,phot_g_mean_mag=5.87,….",
    ),
]
StarChains = Annotated[int, typer.Option("--chains", min=2, help="Chains per star.")]
StarWarmup = Annotated[int, typer.Option("--warmup", min=50, help="Warm-up steps per chain.")]
StarDraws = Annotated[int, typer.Option("--draws", min=50, help="Draws per chain.")]
StarBatch = Annotated[
    int | None, typer.Option("--batch", min=1, help="Stars per compiled call; by the memory by default.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes; one per core is best.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
OverwriteRun = Annotated[bool, typer.Option("--overwrite", help="Throw away a run with other settings.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def console():
    """Where results are printed; wide enough for its tables when the output is a file or a pipe."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(highlight=False, markup=False, soft_wrap=True, width=None if terminal else 120)


def result_table(columns, title):
    """A table for the terminal, narrow enough for 80 columns; numbers, from the third column on, to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < 2 else "right", no_wrap=True)
    return table


class Terminated(SystemExit):
    """The end of a command by SIGTERM, with the status that shells give it."""

    def __init__(self):
        super().__init__(128 + signal.SIGTERM)


@contextlib.contextmanager
def ending_in_order():
    """Let SIGTERM raise `Terminated` inside, so that what was begun is cleared away and what is finished stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the second one ends it at once
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


PLAIN = str.maketrans(
    {"å": "a", "–": "-", "—": "-", "−": "-", "×": "x", "²": "2", "³": "3", "±": "+/-", "≥": ">=", "≤": "<=", "…": "...", "µ": "u",
     "χ": "chi", "σ": "sigma", "ε": "epsilon", "Δ": "Delta", "λ": "lambda", "·": "*", "’": "'", "─": "-", "━": "-", "│": "|", "é": "e"}
)  # fmt: skip


def print_what_can_be() -> None:
    """Where the output takes no Å or ², as with PYTHONIOENCODING=ascii or in a POSIX locale, let A and 2 stand for them."""
    import codecs
    import unicodedata

    def replace(error):
        if not isinstance(error, UnicodeEncodeError):
            raise error
        text = error.object[error.start : error.end].translate(PLAIN)
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        return plain or "?" * (error.end - error.start), error.end

    codecs.register_error("emuinfer-plain", replace)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # streams of tests and notebooks
            stream.reconfigure(errors="emuinfer-plain")  # type: ignore[union-attr]


@contextlib.contextmanager
def telling(hint):
    """When the user or a queue ends what is inside, say so and, with the text `hint` or what it returns, how to go on."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as end:
        what = "Terminated (as by the time limit of a queue)" if isinstance(end, Terminated) else "Interrupted"
        print(f"\n{what}. {hint() if callable(hint) else hint}", file=sys.stderr, flush=True)
        raise


def print_error(message: str) -> None:
    """One message on standard error."""
    print(f"Error: {message}", file=sys.stderr, flush=True)


def assignments(texts, option: str) -> dict[str, float]:
    """`["teff=5777", …]` as a mapping. Raises `EmuinferError` on anything that is not NAME=NUMBER, and on repeats."""
    values = {}
    for text in texts or ():
        name, separator, number = text.partition("=")
        name = name.strip()
        try:
            value = float(number)
        except ValueError:
            separator = ""
        if not separator or not name:
            raise EmuinferError(f"{option} takes NAME=NUMBER, for example {option} teff=5777; got '{text}'.")
        if name in values:
            raise EmuinferError(f"{option} gives '{name}' twice.")
        values[name] = value
    return values


def gaia_given(text: str | None):
    """What `--gaia` says: None, the path of a table, or a mapping. Raises `EmuinferError` on anything else."""
    if text is None or Path(text).is_file():
        return None if text is None else Path(text)
    if "=" not in text:
        raise EmuinferError(
            f"--gaia: there is no file {text}. Give a table, or parallax=3.1,parallax_error=0.03,phot_g_mean_mag=5.87."
        )
    return assignments([part for part in text.split(",") if part.strip()], "--gaia")


def priors_of(fix, prior) -> dict:
    """`--fix NAME=NUMBER` and `--prior NAME=PRIOR` as one mapping for a model.

    Raises `EmuinferError` on texts that are neither, and on a name in both.
    """
    from ..likelihoods.priors import parse_prior

    values = assignments(fix, "--fix")
    for text in prior or ():
        name, separator, written = text.partition("=")
        name = name.strip()
        if not (separator and name and written):
            raise EmuinferError(f"--prior takes NAME=PRIOR, for example --prior teff=5700:80; got '{text}'.")
        if name in values:
            raise EmuinferError(f"--fix and --prior give '{name}' twice.")
        values[name] = parse_prior(written)
    return values


def model_options(
    broadening, fix, prior, continuum_terms, line_errors, emulator_error, robust, degrees_of_freedom
) -> dict:
    """The options of `StellarModel` that all fits have on the command line."""
    return {
        "broadening": broadening.value,
        "priors": priors_of(fix, prior),
        "continuum_terms": continuum_terms,
        "line_errors": "shipped" if line_errors else None,
        "emulator_error": "shipped" if emulator_error else None,
        "robust": robust,
        "degrees_of_freedom": degrees_of_freedom,
    }


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise `EmuinferError` if `path` exists and may not be replaced."""
    if Path(path).exists() and not overwrite:
        raise EmuinferError(f"{path} exists. Give another --output, or --overwrite to replace it.")
