"""Grids from arrays that another code left in an `.npz` file."""

from pathlib import Path

import numpy as np

from ..errors import GridError
from ..files import read_arrays
from ..labels.check import require_same_labels
from ..labels.space import LabelSpace
from .grid import Grid


def import_npz(
    path,
    label_space: LabelSpace | None = None,
    medium: str | None = None,
    provenance: dict | None = None,
    validate: bool = True,
) -> Grid:
    """Read a grid from an `.npz` file.

    The file holds `wavelength (n_wave,)` in ångström, `flux (n, n_wave)` over continuum, `labels (n, n_labels)`,
    `label_names (n_labels,)` and optionally `continuum (n, m)`, with `continuum_wavelength (m,)` or evenly spread over
    the pixels, both ends included.

    - `label_space`: the domain; its names may be in another order than the file's. Without it, the domain is the box
        that the labels span.
    - `medium`: `"air"` or `"vacuum"`; must be given.
    - `validate`: see `Grid`.

    Raises `GridError` if the file cannot be read, lacks arrays, or holds arrays that do not fit together, values that
    are not finite, or labels outside `label_space` (the message lists the rows).
    """
    path = Path(path)
    if medium is None:
        raise GridError(f"{path}: say whether its wavelengths are in air or vacuum (medium='air' or medium='vacuum').")
    arrays = read_npz(path)
    names, labels = [str(n) for n in arrays["label_names"].ravel()], arrays["labels"]
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise GridError(
            f"{path}: labels of shape {labels.shape} do not fit {len(names)} label names ({', '.join(names)})."
        )
    if label_space is None:
        label_space = spanned_space(path, names, labels)
    else:
        remedy = "Give a label space with the file's labels."
        require_same_labels(names, str(path), label_space, "the label space", remedy=remedy, error=GridError)
    labels = labels[:, [names.index(name) for name in label_space.names]]
    try:
        return Grid(
            labels,
            arrays["wavelength"],
            arrays["flux"],
            arrays.get("continuum"),
            label_space=label_space,
            medium=medium,
            provenance={"imported_from": path.name, **(provenance or {})},
            continuum_wavelength=arrays.get("continuum_wavelength"),
            validate=validate,
        )
    except GridError as error:
        raise GridError(f"{path}: {error}") from error


def read_npz(path, names: dict | None = None) -> dict:
    """The arrays of an `.npz` file by role (`wavelength`, `flux`, …), checked to be there and to be numbers.

    `names` gives the file's names of roles that it calls otherwise. `continuum_wavelength` is filled in if missing.
    """
    if not path.is_file():
        raise GridError(f"There is no file {path}. Check the path.")
    arrays = read_arrays(path, GridError, "Write it anew with numpy.savez and plain arrays of numbers.")
    for role, name in (names or {}).items():
        if name not in arrays:
            raise GridError(f"{path} has no array '{name}'; it has {', '.join(arrays) or 'none'}.")
        arrays[role] = arrays[name]
    missing = [name for name in ("wavelength", "flux", "labels", "label_names") if name not in arrays]
    if missing:
        raise GridError(f"{path} lacks the arrays {', '.join(missing)}; it has {', '.join(arrays) or 'none'}.")
    for name in ("wavelength", "flux", "labels", "continuum"):
        if name in arrays and arrays[name].dtype.kind not in "fiu":
            raise GridError(f"{path}: array '{name}' must hold numbers; it has type {arrays[name].dtype}.")
    if "continuum" in arrays:
        arrays["continuum_wavelength"] = _continuum_wavelength(path, arrays)
    return arrays


def spanned_space(path, names, labels) -> LabelSpace:
    """The box that labels (n, k) span, as their domain; values that are not finite are left out."""
    finite = labels[np.isfinite(labels).all(axis=1)]
    lower, upper = (finite.min(axis=0), finite.max(axis=0)) if len(finite) else np.zeros((2, len(names)))
    constant = [n for n, lo, hi in zip(names, lower, upper) if not lo < hi]
    if constant:
        raise GridError(
            f"{path}: no domain can be drawn around the labels, as {', '.join(constant)} is constant or not finite. "
            f"Give label_space."
        )
    return LabelSpace(names, tuple(lower), tuple(upper))


def _continuum_wavelength(path, arrays):
    """Where the continuum is given: the file's own wavelengths, all pixels, or every k-th pixel."""
    if "continuum_wavelength" in arrays:
        return arrays["continuum_wavelength"]
    wavelength, m = arrays["wavelength"], arrays["continuum"].shape[-1]
    if wavelength.ndim != 1:
        raise GridError(f"{path}: a continuum needs one wavelength axis, or the array continuum_wavelength.")
    if m == len(wavelength):
        return wavelength
    if m < 2 or (len(wavelength) - 1) % (m - 1):
        raise GridError(
            f"{path}: {m} continuum values per spectrum do not spread evenly over {len(wavelength)} pixels. "
            f"Add the array continuum_wavelength."
        )
    return wavelength[:: (len(wavelength) - 1) // (m - 1)]
