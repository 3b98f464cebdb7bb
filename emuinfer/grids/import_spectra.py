"""Grids in other people's files: one call for `.npz`, HDF5, FITS and directories of spectra, brought to one `Grid`."""

import re
from pathlib import Path

import numpy as np

from ..errors import GridError, ObservationError
from ..labels.check import require_same_labels
from ..labels.space import LabelSpace
from .grid import Grid
from .import_arrays import read_npz, spanned_space
from .import_fields import ROLES, Raw, in_angstrom, label_columns
from .resample import to_common

SPELLINGS = {
    "t_eff": "teff", "temperature": "teff", "effective_temperature": "teff", "log_g": "logg", "feh": "fe_h",
    "mh": "m_h", "v_mic": "vmic", "xi": "vmic", "vturb": "vmic", "microturbulence": "vmic",
}  # fmt: skip


def import_grid(
    path,
    medium: str | None = None,
    *,
    label_space: LabelSpace | None = None,
    provenance: dict | None = None,
    names: dict | None = None,
    labels: dict | None = None,
    label_table=None,
    wavelength_unit: str | None = None,
    step: float | None = None,
    wavelength_range: tuple[float, float] | None = None,
    lose_resolution: bool = False,
    validate: bool = True,
) -> Grid:
    """Read a grid from an `.npz` file, an HDF5 file of any layout, a FITS file, or a directory of spectra.

    - `path`: the file, or the directory of a `label_table`.
    - `medium`: `"air"` or `"vacuum"`; must be given, and must not contradict the file.
    - `label_space`: the domain; by default the box that the labels span.
    - `names`: what the file calls `"wavelength"`, `"flux"`, `"continuum"`, `"continuum_wavelength"`, `"labels"`,
        `"label_names"` and `"file"`, where the usual names (`KNOWN`) are not used. In HDF5, paths of datasets.
    - `labels`: label name to the file's column name. By default all columns of numbers are labels, and the usual
        spellings are understood: `Teff`, `log g`, `[Mg/Fe]`, … become `teff`, `logg`, `mg_fe`.
    - `label_table`: for directories: CSV, ECSV or FITS table with a column of file names, relative to `path`.
    - `wavelength_unit`: where the file does not state one; ångström otherwise.
    - `step`, `wavelength_range`, `lose_resolution`: the common wavelengths, see `resample.to_common`. By default
        spectra with equal wavelengths are taken as they are, others brought to the pixels of the most finely sampled.
    - `validate`: see `Grid`.

    Layouts. HDF5: `flux (n, n_wave)`; `labels (n, k)` with `label_names`, or with an attribute of names, or one dataset
    per label, or a compound dataset. FITS: a table with a vector column of flux and label columns, with the
    wavelengths in a vector column or an extension of their own; or an image (n, n_wave) and a table of labels.
    Directories: whatever `emuinfer.Observation` reads, one spectrum per file.

    Raises `GridError` that names the file, what is in it, and what to do.
    """
    path = Path(path)
    if medium not in ("air", "vacuum"):
        raise GridError(
            f"{path}: say whether its wavelengths are in air or vacuum (medium='air' or medium='vacuum', on the "
            f"command line --medium); got {medium!r}."
        )
    names = _check_roles(names)
    try:
        raw = _read(path, medium, names, label_table, wavelength_unit)
        columns, chosen = _choose_labels(raw.labels, labels)
        wavelength, flux, done = _on_common_wavelengths(raw, step, wavelength_range, lose_resolution)
        space = (
            spanned_space(path, list(columns), np.stack(list(columns.values()), axis=1))
            if label_space is None
            else label_space
        )
        remedy = (
            "Give another domain, or say which column is which label (labels={'teff': 'T'}, on the command line "
            "--label teff=T)."
        )
        require_same_labels(columns, "it", space, "the domain", remedy=remedy, error=GridError)
        about = {"imported_from": path.name, "label_columns": chosen, **done, **(provenance or {})}
        return Grid(
            columns,
            wavelength,
            flux,
            raw.continuum,
            label_space=space,
            medium=medium,
            provenance=about,
            continuum_wavelength=raw.continuum_wavelength,
            validate=validate,
        )
    except (GridError, ObservationError) as error:
        text = str(error)
        raise GridError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def _check_roles(names):
    names = dict(names or {})
    for role in names:
        if role not in ROLES:
            raise GridError(f"Names can be given to {', '.join(ROLES)}; got '{role}'.")
    return names


def _read(path, medium, names, label_table, wavelength_unit) -> Raw:
    from . import import_readers as foreign_files

    if path.is_dir():
        return foreign_files.read_directory(path, medium, names, label_table, wavelength_unit)
    if not path.is_file():
        raise GridError(f"There is no file {path}. Check the path.")
    if label_table is not None:
        raise GridError("A label table goes with a directory of spectra, not with a file. Leave it out.")
    with open(path, "rb") as file:
        head = file.read(9)
    if head.startswith(b"\x89HDF"):
        return foreign_files.read_hdf5(path, medium, names, wavelength_unit)
    if head.startswith((b"SIMPLE  =", b"\x1f\x8b")):
        return foreign_files.read_fits(path, medium, names, wavelength_unit)
    if head.startswith(b"PK"):
        return _raw_npz(path, names, wavelength_unit)
    raise GridError("this is no .npz, HDF5 or FITS file, and no directory of spectra. Convert it to one of these.")


def _raw_npz(path, names, wavelength_unit):
    arrays = read_npz(path, names)
    table = dict(zip(map(str, arrays["label_names"].ravel()), label_columns(arrays["labels"], arrays["label_names"])))
    return Raw(
        in_angstrom(arrays["wavelength"], wavelength_unit),
        arrays["flux"],
        table,
        [f"row {i}" for i in range(len(arrays["flux"]))],
        arrays.get("continuum"),
        arrays.get("continuum_wavelength"),
    )


def label_name(text: str) -> str:
    """A label's name as emuinfer writes it: `[Mg/Fe]` is `mg_fe`, `log g` is `logg`."""
    name = re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")
    return SPELLINGS.get(name, name)


def _choose_labels(table, labels):
    """Label name to float64 column, and label name to the file's name for it."""
    if labels:
        missing = [column for column in labels.values() if column not in table]
        if missing:
            raise GridError(f"there is no label column {', '.join(missing)}; there are: {', '.join(table) or 'none'}.")
        chosen = dict(labels)
    else:
        chosen = {label_name(column): column for column in table}
        if len(chosen) < len(table):
            raise GridError(
                f"several of the columns {', '.join(table)} are the same label. Say which to use (--label)."
            )
    if not chosen:
        raise GridError("no labels were found. Say which columns they are (labels=…, on the command line --label).")
    return {name: np.asarray(table[column], float) for name, column in chosen.items()}, chosen


def _on_common_wavelengths(raw, step, limits, lose_resolution):
    one = not isinstance(raw.wavelength, list) and np.ndim(raw.wavelength) == 1
    if one and step is None and limits is None:
        return raw.wavelength, raw.flux, {}
    n = len(raw.flux)
    wavelengths = [np.asarray(raw.wavelength, float)] * n if one else [np.asarray(w, float) for w in raw.wavelength]
    if len(wavelengths) != n:
        raise GridError(f"there are {n} spectra but wavelengths for {len(wavelengths)}.")
    fluxes = []
    for i, (wavelength, flux) in enumerate(zip(wavelengths, raw.flux)):
        flux = np.asarray(flux, np.float32)
        if wavelength.shape != flux.shape or len(wavelength) < 4 or not (np.diff(wavelength) > 0).all():
            raise GridError(
                f"{raw.where[i]}: wavelengths {wavelength.shape} and flux {flux.shape} must be of one length, 4 or "
                f"more, and the wavelengths must increase."
            )
        if not np.isfinite(flux).all():
            raise GridError(
                f"{raw.where[i]}: {(~np.isfinite(flux)).sum()} fluxes are NaN or infinite. Remove this spectrum."
            )
        fluxes.append(flux)
    if raw.continuum is not None and raw.continuum_wavelength is None:
        raise GridError(
            "a continuum cannot be brought to other wavelengths. Remove it from the file, or give continuum_wavelength."
        )
    return to_common(wavelengths, fluxes, raw.where, step, limits, lose_resolution)
