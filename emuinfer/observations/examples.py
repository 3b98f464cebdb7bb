"""The example spectra in the package."""

from pathlib import Path

from ..errors import ObservationError, suggestion

FOLDER = Path(__file__).parents[1] / "data" / "examples"


def list_examples() -> list[str]:
    """Names of the packaged example spectra, for `Observation.example(name)`."""
    return sorted(path.name.split(".")[0] for path in FOLDER.glob("*.fits*"))


def example_path(name: str) -> Path:
    """The file of a packaged example; `ObservationError` lists the names that exist."""
    found = [path for path in FOLDER.glob("*.fits*") if path.name.split(".")[0] == name]
    if not found:
        known = list_examples()
        raise ObservationError(
            f"There is no example '{name}'.{suggestion(name, known)} The examples are: {', '.join(known)}."
        )
    return found[0]


def example_credit(name: str) -> str:
    """Whom to credit for an example, from its header's comments."""
    from astropy.io import fits

    # FITS breaks the text into cards of 72 characters.
    return " ".join("".join(f"{line:<72s}" for line in fits.getheader(example_path(name), 1)["COMMENT"]).split())
