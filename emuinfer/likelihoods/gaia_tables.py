"""Tables of Gaia's archive as what `gaia` is given: read, and their rows found for stars by name. Host only."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import LabelError, ObservationError
from ..labels import LabelSpace
from .gaia import RUWE_LIMIT, GaiaStar, read_gaia

NAME_COLUMNS = ("name", "star", "object")


class GaiaStars(NamedTuple):
    """`stars`: of each star its `GaiaStar`, or None without a usable parallax; `problems`: why not, else empty."""

    stars: tuple[GaiaStar | None, ...]
    problems: tuple[str, ...]

    @property
    def missing(self) -> np.ndarray:
        """Whether there is nothing usable, `(n,)`."""
        return np.array([one is None for one in self.stars], bool)

    @property
    def doubtful(self) -> np.ndarray:
        """Whether RUWE is above its limit, `(n,)`."""
        return np.array([one is not None and one.ruwe > RUWE_LIMIT for one in self.stars], bool)


def gaia_of(given, space: LabelSpace | None = None, name: str = "") -> GaiaStar:
    """One star's numbers from whatever `gaia` is given: a mapping, a row, a table or the path of one; see `read_gaia`.

    Of a table with several rows it is the one whose column `name` has the `name`. `space`: labels, which must include Teff and log g.

    **Raises:** `ObservationError` as `read_gaia` and where no row is the star's, `LabelError` on labels without Teff or log g.
    """
    if space is not None and (missing := [n for n in ("teff", "logg") if n not in space.names]):
        raise LabelError(f"A parallax tells of teff and logg together; the emulator has no {', '.join(missing)}.")
    if isinstance(given, GaiaStar):
        return given
    table = table_of(given)
    if table is None:
        return read_gaia(given)
    if len(table) == 1:
        return read_gaia(table[0])
    (row,) = _rows(table, [name])
    if row is None:
        raise ObservationError(
            f"The Gaia table of {len(table)} rows has none with the name '{name}'. Give that star's row alone."
        )
    return read_gaia(table[row], name)


def gaia_of_stars(given, names) -> GaiaStars:
    """The same of many stars: rows with their `names` in a column `name`, or, without one, a row for each in order.

    A star without a row, a parallax or a G magnitude has none of it and harms no other.

    **Raises:** `ObservationError` where the table cannot be read, or has neither names nor the right number of rows.
    """
    table = table_of(given)
    if table is None:
        raise ObservationError(
            f"The Gaia data of many stars are a table or the path of one; got {type(given).__name__}."
        )
    stars: list[GaiaStar | None] = []
    problems: list[str] = []
    for row, name in zip(_rows(table, names), names):
        try:
            if row is None:
                raise ObservationError("There is no such star in the Gaia table.")
            stars.append(read_gaia(table[row], str(name)))
            problems.append("")
        except ObservationError as error:
            stars.append(None)
            problems.append(str(error))
    return GaiaStars(tuple(stars), tuple(problems))


def table_of(given):
    """An astropy table from a table or a path; None for a mapping or a row."""
    if isinstance(given, Mapping) or (hasattr(given, "colnames") and not hasattr(given, "columns")):
        return None
    if hasattr(given, "colnames"):
        return None if np.isscalar(given[given.colnames[0]]) else given
    from astropy.table import Table

    path = Path(given)
    if not path.is_file():
        raise ObservationError(f"There is no file {path} with Gaia data.")
    kinds = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".vot": "votable", ".xml": "votable", ".fits": "fits"}
    try:
        table = Table.read(path, format=kinds.get(path.suffix.lower()))
    except Exception as error:  # astropy raises many kinds on a foreign file
        raise ObservationError(f"{path} cannot be read as a table of Gaia data ({error}).") from error
    if not len(table):
        raise ObservationError(f"{path} has no rows.")
    return table


def _rows(table, names) -> list:
    """The row of each of `names`, or None."""
    column = next((c for c in table.colnames if c.strip().lower() in NAME_COLUMNS), None)
    if column is None:
        if len(table) != len(names):
            raise ObservationError(
                f"The Gaia table has {len(table)} rows for {len(names)} stars, and no column 'name' to tell which is which."
            )
        return list(range(len(names)))
    text = lambda value: (value.decode() if isinstance(value, bytes) else str(value)).strip()
    known = {text(value): row for row, value in enumerate(table[column])}
    return [known.get(text(name)) for name in names]
