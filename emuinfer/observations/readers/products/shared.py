"""What readers of products share: the choice of an arm, and resolving powers that a format does not give. Host only."""

from pathlib import Path

import numpy as np

from ....errors import ObservationError
from ..choices import Choices, number_or_name

INSTRUMENTS = Path(__file__).parents[3] / "data" / "instruments.ecsv"


def chosen_arm(choices: Choices, known, what: str) -> str:
    """`choices.arm` if it is one of `known`, in any case, or the only one there is."""
    if choices.arm is None and len(known) == 1:
        return known[0]
    found = next((a for a in known if str(choices.arm).lower() == a.lower()), None)
    if found is None:
        raise ObservationError(
            f'{what} has the arms {", ".join(known)}: give arm="{known[0]}" (on the command line --arm), or read all with '
            "Observation.read_arms(path)."
        )
    return found


def chosen_hdu(hdus, choices: Choices):
    """The table that `choices.hdu`, a number or a name, names; None where it is not given."""
    if choices.hdu is None:
        return None
    listed = ", ".join(f"{i}: {h.name or 'no name'}" for i, h in enumerate(hdus))
    try:
        hdu = hdus[number_or_name(choices.hdu)]
    except (KeyError, IndexError) as error:
        raise ObservationError(f"There is no HDU {choices.hdu!r}. The HDUs are {listed}.") from error
    if not columns_of(hdu):
        raise ObservationError(f"HDU {choices.hdu!r} is no table. The HDUs are {listed}.")
    return hdu


def published_resolution(instrument: str, wavelength):
    """The resolving power of the table of instruments at `wavelength` (Å), and a note that names its source."""
    from astropy.table import Table

    table = Table.read(INSTRUMENTS, format="ascii.ecsv")
    rows = table[table["name"] == instrument]
    middle = float(np.median(wavelength))
    row = rows[int(np.argmin(np.abs((rows["start"] + rows["end"]) / 2 - middle)))]
    power = float(row["resolution"])
    source = str(row["source"]).split(";")[0]
    return power, f"resolving power {power:,.0f} from the literature, as the file has none ({source})"


def with_published_resolution(fields: dict, instrument: str, wavelength) -> dict:
    """`fields` with the resolving power of the literature where the file gives none."""
    if fields.get("resolution") is not None:
        return fields
    power, note = published_resolution(instrument, wavelength)
    return {**fields, "resolution": power, "notes": (*fields.get("notes", ()), note)}


def flat(hdu, name) -> np.ndarray:
    """A column of a table with one row per pixel or one row of arrays, `(n_pix,)`, in native byte order."""
    names = {n.lower(): n for n in hdu.columns.names}
    values = np.asarray(hdu.data[names[name.lower()]]).reshape(-1)
    return values.astype(values.dtype.newbyteorder("="))


def columns_of(hdu) -> set[str]:
    """Names of a table's columns in lower case; empty for an image."""
    return {n.lower() for n in hdu.columns.names} if hasattr(hdu, "columns") else set()
