"""Spectra that are FITS images: one spectrum, bands of one, orders of one, with or without images beside them. Host only.

Each layout becomes named arrays, `(n,)` or `(rows, n)`, which mean what columns of a table would mean (`columns.py`).
"""

import dataclasses

import numpy as np

from ...errors import ObservationError
from .choices import Choices, checked_row, number_or_name
from .columns import from_table
from .frames import frame_of, in_frame
from .image_names import is_logarithm, labels_of, name_of, role_of_band
from .orders import MERGE, choose_order
from .spectral_axis import has_axis, require_wavelengths, spectral_axis, spectral_number

ROLES = ("wavelength", "flux", "uncertainty", "ivar", "variance", "mask", "good", "blaze")
BY_HAND = ("wavelength", "flux", "uncertainty", "mask")  # roles for which a caller may name an image or a band


@dataclasses.dataclass
class _Layout:
    """The arrays of a spectrum by role, their units, and what was decided."""

    header: dict
    arrays: dict = dataclasses.field(default_factory=dict)
    units: dict = dataclasses.field(default_factory=dict)
    medium: str | None = None
    notes: list = dataclasses.field(default_factory=list)


def read_image(hdus, choices: Choices) -> dict | None:
    """Fields of the spectrum in the images of a file, or `None` if none of its images has wavelengths.

    `choices.hdu` is the image of the flux. Beside it images of the same shape are found by their names (`image_names.py`):
    wavelengths, uncertainties, masks, blaze. `choices.order` and `choices.row` choose among rows.
    """
    index = _flux_index(hdus, choices)
    if index is None:
        return None
    hdu = hdus[index]
    layout = _Layout({**dict(hdus[0].header), **dict(hdu.header)})
    own = hdu.header if has_axis(hdu.header) or not has_axis(hdus[0].header) else hdus[0].header
    number = spectral_number(own, np.shape(hdu.data)) if has_axis(own) else 1
    data = _arranged(hdu.data, number)
    _add_siblings(layout, hdus, index, number, data.shape, choices)
    data = _add_bands(layout, data, own, choices)
    n, rows = data.shape[-1], data.shape[0] if data.ndim == 2 else 1
    if data.ndim > 2:
        raise ObservationError(f"The image has shape {np.shape(hdu.data)}: more than one spectrum per row.")
    if "wavelength" not in layout.arrays:
        axis = spectral_axis(own, n, number, rows, hdus, choices.wavelength_unit)
        layout.arrays["wavelength"] = axis.values[0] if axis.values.shape[0] == rows == 1 else axis.values
        layout.units["wavelength"], layout.medium = axis.unit, axis.medium
        layout.notes += axis.notes
    if data.ndim == 2 and rows in (4, 5) and "COEFF0" in own and len(layout.arrays) == 1:
        data = _add_sdss(layout, data)
    layout.arrays["flux"] = data
    layout.units["flux"] = layout.header.get("BUNIT")
    return _fields(layout, choices)


# Which image


def _flux_index(hdus, choices: Choices) -> int | None:
    images = {i: hdu for i, hdu in enumerate(hdus) if hdu.is_image and np.size(hdu.data) > 2}
    given = number_or_name(choices.hdu if choices.hdu is not None else choices.flux_column)
    if choices.hdu is not None or (
        isinstance(given, str) and given.lower() in {h.name.lower() for h in images.values()}
    ):
        found = [i for i, h in images.items() if given == i or str(given).lower() == h.name.lower()]
        if not found:
            raise ObservationError(f"hdu={given!r} is no image of this file. Its images are {_listed(images)}.")
        return found[0] if _has_wavelengths(hdus, images[found[0]], choices) else None
    names = {i: name_of(hdu) for i, hdu in images.items()}
    for role in ("flux", None):
        found = [i for i, name in names.items() if name.role == role and _has_wavelengths(hdus, images[i], choices)]
        if role == "flux" and choices.arm is not None:
            found = [i for i in found if str(choices.arm).lower() in names[i].rest] or found
        if len(found) > 1 and found[0] != 0 and len({names[i].rest for i in found}) > 1:
            raise ObservationError(
                f"The file holds several spectra: {_listed({i: images[i] for i in found})}. Give hdu= one of them "
                "(on the command line --hdu)."
            )
        if found:
            return found[0]
    return None


def _has_wavelengths(hdus, hdu, choices: Choices) -> bool:
    """Whether there is anything to tell the wavelengths of an image: keywords, an image beside it, a row of it."""
    has_keywords = has_axis(hdu.header) or has_axis(hdus[0].header)
    named = str(choices.wavelength_column).lower()
    is_wave = lambda h: name_of(h).role == "wavelength" or h.name.lower() == named
    waves = (h for h in hdus if h is not hdu and h.is_image and h.data is not None and is_wave(h))
    return has_keywords or any(_fits(wave, hdu) for wave in waves) or _has_wavelength_row(hdu)


def _listed(images) -> str:
    return ", ".join(f"{i} '{hdu.name}' {np.shape(hdu.data)}" for i, hdu in images.items())


def _fits(wave, hdu) -> bool:
    """Whether an image of wavelengths belongs to an image of fluxes by its shape."""
    return np.squeeze(wave.data).shape in (np.squeeze(hdu.data).shape, np.shape(hdu.data)[-1:])


def _arranged(data, number: int) -> np.ndarray:
    """The array with its spectral axis, `number` in FITS, last, and without axes of length 1."""
    data = np.asarray(data)
    data = np.moveaxis(data, data.ndim - number, -1)
    return data.reshape([size for size in data.shape[:-1] if size > 1] + [data.shape[-1]])


# What is beside it, and in it


def _add_siblings(layout: _Layout, hdus, index: int, number: int, shape, choices: Choices):
    """Images that belong to the one at `index` by their names and shapes, or that the caller names."""
    rest = name_of(hdus[index]).rest
    found: set[str] = set()
    given = {str(getattr(choices, f"{role}_column")).strip("! ").lower(): role for role in BY_HAND}
    for i, hdu in enumerate(hdus):
        name = name_of(hdu)
        role = given.get(hdu.name.lower(), name.role)
        if i == index or not hdu.is_image or np.size(hdu.data) < 3 or role not in ROLES or role == "flux":
            continue
        array = _arranged(hdu.data, number if np.ndim(hdu.data) > 1 else 1)
        is_common = role in ("wavelength", "blaze") and array.shape == shape[-1:]
        is_chosen = hdu.name.lower() in given
        belongs = (is_chosen or name.rest in (rest, ())) and (array.shape == shape or is_common)
        if not belongs or (role in found and not is_chosen) or _other_medium(hdus, name, choices.medium):
            continue
        found.add(role)
        layout.arrays[role] = 10.0**array if is_logarithm(hdu) else array
        unit = hdu.header.get("BUNIT", hdu.header.get("CUNIT1") if role == "wavelength" else None)
        if role == "uncertainty" or unit != hdus[index].header.get("BUNIT"):
            layout.units[role] = unit
        if role == "wavelength":
            require_wavelengths(np.atleast_2d(layout.arrays[role])[0], unit)
            layout.medium = name.medium


def _other_medium(hdus, name, medium) -> bool:
    """Whether the same image is there in the medium that was asked for, which this one is not in."""
    other = name.medium is not None and medium is not None and name.medium != medium
    return other and any(name_of(hdu) == name._replace(medium=medium) for hdu in hdus)


def _add_bands(layout: _Layout, data, header, choices: Choices) -> np.ndarray:
    """Puts the bands of an image into the layout; returns the flux."""
    if data.ndim == 1:
        return data
    labels, has_iraf = labels_of(header, len(data)), "WAT0_001" in header
    chosen = {role: getattr(choices, f"{role}_column") for role in BY_HAND}
    bands = {role: _band(name, labels, len(data)) for role, name in chosen.items() if name is not None}
    by_hand = {role: i for role, i in bands.items() if i is not None}
    roles: list[str | None]
    if labels:
        roles = [role_of_band(label) for label in labels]
    elif data.ndim == 3 and len(data) == 4 and has_iraf:  # as apall writes them
        roles = ["flux", "other", "other", "uncertainty"]
    elif data.ndim == 3 and has_iraf:
        roles = ["flux", *["other"] * (len(data) - 1)]
    elif not has_axis(header) and "wavelength" not in layout.arrays and len(data) <= 3 and _rises(data[0]):
        roles = list(("wavelength", "flux", "uncertainty")[: len(data)])
        layout.notes.append("rows of the image taken to be " + ", ".join(map(str, roles)))
    else:
        roles = []
    if not roles and "flux" not in by_hand:
        return data
    found = {role: roles.index(role) for role in ROLES if role in roles} | by_hand
    if "flux" not in found:
        raise ObservationError(f"No band of the image is known to be the flux. Give flux_column= one of {labels}.")
    layout.arrays.update({role: data[i] for role, i in found.items() if role != "flux"})
    if labels:
        layout.notes.append("bands of the image: " + ", ".join(f"{role} is '{labels[i]}'" for role, i in found.items()))
    return data[found["flux"]]


def _band(name, labels, n: int) -> int | None:
    """The band that a caller names: by its number from 0, or the beginning of its label."""
    name = number_or_name(str(name).strip("! "))
    if isinstance(name, int):
        return checked_row(name, n, "The image")
    return next((i for i, label in enumerate(labels) if label.lower().startswith(str(name).lower())), None)


def _rises(row) -> bool:
    steps = np.diff(np.asarray(row, dtype=float))
    return bool((steps > 0).all() or (steps < 0).all()) and bool(np.min(row) > 0) and not np.allclose(np.abs(steps), 1)


def _has_wavelength_row(hdu) -> bool:
    return np.ndim(hdu.data) == 2 and len(hdu.data) in (2, 3) and np.shape(hdu.data)[1] > 3 and _rises(hdu.data[0])


def _add_sdss(layout: _Layout, data) -> np.ndarray:
    """Rows as in spSpec of SDSS or in LAMOST's DR1 to DR7, whose third row repeats the wavelengths; vacuum."""
    layout.medium = "vacuum"
    layout.arrays["mask"] = data[3] != 0
    if np.allclose(data[2], layout.arrays["wavelength"], rtol=1e-4):
        layout.arrays["ivar"] = data[1]
    else:  # the second row of an spSpec is the flux less the continuum
        layout.arrays["uncertainty"] = data[2] if (data[2] > 0).any() else data[1]
    return data[0]


# From arrays to fields


def _fields(layout: _Layout, choices: Choices) -> dict:
    flux, wave = layout.arrays["flux"], layout.arrays["wavelength"]
    if flux.ndim == 1:
        for name in ("order", "row"):
            if str(getattr(choices, name) or 0).strip().lower() not in ("0", *MERGE):
                raise ObservationError(f"The image holds one spectrum; leave {name}={getattr(choices, name)!r} out.")
        orders = [0]
    elif wave.ndim == 2 and _is_echelle(wave):
        orders = list(range(len(flux)))
    else:
        orders = [_chosen_row(choices, len(flux))]
    of = lambda array, k: array[k] if array.ndim == 2 else array
    is_good = str(choices.mask_column or "").startswith("!") and "mask" in layout.arrays
    bare = dataclasses.replace(choices, **{f"{role}_column": None for role in BY_HAND})
    bare = dataclasses.replace(bare, mask_column="!mask" if is_good else None)
    blaze = layout.arrays.pop("blaze", None)
    tables = [{role: of(array, k) for role, array in layout.arrays.items()} for k in orders]
    units = {role: unit for role, unit in layout.units.items() if unit}
    first = from_table(tables[0], units, layout.header, bare)
    every = [first, *(from_table(table, units, {}, bare) for table in tables[1:])]
    notes = [*layout.notes, *first.get("notes", ())]
    if len(orders) > 1 or blaze is not None:
        columns = {key: None if first.get(key) is None else [f[key] for f in every] for key in ("uncertainty", "mask")}
        waves, fluxes = ([f[key] for f in every] for key in ("wavelength", "flux"))
        blazes = None if blaze is None else [of(np.asarray(blaze, dtype=float), k) for k in orders]
        merged = choose_order(waves, fluxes, columns["uncertainty"], columns["mask"], choices, blazes)
        first.update(merged)
        notes += merged["notes"]
    if layout.medium is not None:
        first["medium"] = layout.medium
    return in_frame({**first, "notes": tuple(notes)}, frame_of(layout.header), layout.header)


def _is_echelle(wave, overlap: float = 0.8) -> bool:
    """Whether rows have ranges of their own, and are not spectra of several stars over about the same range."""
    wave = np.where(np.isfinite(wave) & (wave > 0), wave, np.nan)  # pixels without light have no wavelength
    wave = wave[np.isfinite(wave).any(axis=1)]
    if len(wave) < 2:
        return False
    lo, hi = np.nanmin(wave, axis=1), np.nanmax(wave, axis=1)
    common = np.nanmin(hi) - np.nanmax(lo)
    return bool(not common > overlap * np.nanmedian(hi - lo))


def _chosen_row(choices: Choices, rows: int) -> int:
    row = choices.row if choices.row is not None else number_or_name(choices.order)
    if row is None or str(row).lower() in MERGE:
        raise ObservationError(
            f"The image holds {rows} rows of the same wavelengths: give row= the number of one, from 0 to {rows - 1} "
            "(on the command line --row). If they are flux and uncertainty of one spectrum, give their numbers: "
            'flux_column="0", uncertainty_column="1".'
        )
    return checked_row(row, rows, "The image")
