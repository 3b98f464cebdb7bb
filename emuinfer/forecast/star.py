"""What is known of a star, in whatever form it comes: numbers by name, an array, the summary of a fit, a posterior."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import EmuinferError
from ..labels import LabelSpace, complete_labels

NUISANCE = re.compile(r"rv|a_k|vbroad|vsini|log10_resolution|log10_jitter(_\d+)?|rv_offset_\d+")
VALUES = ("median", "value", "mean")  # columns of a table that give a star's value, the first of them that there is


@dataclasses.dataclass(frozen=True)
class Star:
    """`labels`: all of a label space, in its order; `nuisances`: those that were given (`rv`, `vbroad`, `log10_jitter`, …);
    `notes`: sentences on labels that were filled in."""

    labels: dict[str, float]
    nuisances: dict[str, float]
    notes: tuple[str, ...] = ()


def read_star(star, label_space: LabelSpace, fixed: Mapping | None = None) -> Star:
    """Labels and nuisances of one star, checked.

    **Arguments:**

    - `star`: a mapping of labels, and nuisances if known, to numbers; an array of all labels `(n_labels,)`; the table that a
      fit writes as `summary.ecsv`, of which the medians are taken; a posterior (an ArviZ object), the same; or the path
      of either.
    - `fixed`: values of labels that `star` may leave out. Others that it leaves out are the Sun's, with a note.

    **Raises:** `LabelError` on unknown names and on labels outside the domain, `EmuinferError` on anything else that cannot
    be read.
    """
    values = _by_name(_opened(Path(star)) if isinstance(star, str | Path) else star)
    if values is None:
        return Star(complete_labels(label_space, np.asarray(star, float).reshape(-1))[0], {})
    nuisances = {n: float(v) for n, v in values.items() if NUISANCE.fullmatch(n)}
    known = {n: v for n, v in (fixed or {}).items() if n in label_space.names}
    said = {**known, **{n: v for n, v in values.items() if n not in nuisances}}
    labels, note = complete_labels(label_space, said)
    if not said and note.startswith("Solar") and "middle" not in note:
        note = "No label was given: the star is the Sun."
    return Star(labels, nuisances, (note,) if note else ())


def merged_star(star, *more: Mapping) -> dict:
    """Numbers by name of a star in any form with names (None: nothing is known), and `more`, of which the last counts."""
    values: dict = {}
    for part in ({} if star is None else star, *more):
        part = _by_name(_opened(Path(part)) if isinstance(part, str | Path) else part)
        if part is None:
            raise EmuinferError("An array of labels has no names to merge others with: give a mapping.")
        values |= part
    return values


def _opened(path: Path):
    """The posterior or the table in a file."""
    if not path.is_file():
        raise EmuinferError(f"There is no file {path}. Give the summary.ecsv or posterior.nc of a fit.")
    if path.suffix == ".nc":
        from ..posteriors import load_posterior

        return load_posterior(path)
    from astropy.table import Table

    try:
        return Table.read(path, format="ascii.ecsv")
    except Exception as error:  # astropy and yaml raise many kinds on a foreign file
        raise EmuinferError(
            f"{path} is no summary of a fit ({error}). Give its summary.ecsv or posterior.nc."
        ) from error


def _by_name(star) -> dict | None:
    """Numbers by name of a mapping, a table or a posterior; None for an array."""
    if hasattr(star, "posterior"):
        from ..posteriors import draws_of

        draws = {str(n): draws_of(star, n) for n in star["posterior"].data_vars}
        return {n: float(np.median(x)) for n, x in draws.items() if x.ndim == 2}
    if hasattr(star, "colnames"):
        column = next((c for c in VALUES if c in star.colnames), None)
        if column is None or "label" not in star.colnames:
            raise EmuinferError(
                f"A table of a star needs the column label and one of {', '.join(VALUES)}, as the summary.ecsv of a fit; "
                f"got {', '.join(star.colnames)}."
            )
        return {**star.meta.get("fixed", {}), **{str(row["label"]): float(row[column]) for row in star}}
    if isinstance(star, Mapping):
        return dict(star)
    try:
        np.asarray(star, float)
    except (TypeError, ValueError):
        raise EmuinferError(
            "A star is a mapping of labels to numbers, an array of them, the summary table or the posterior of a fit, or "
            f"the path of one; got {type(star).__name__}."
        ) from None
    return None
