"""What an import needs of a grid in another's file: the fields and their usual names, one spectrum set as it was read."""

import dataclasses

import numpy as np

from ..errors import GridError, suggestion
from ..observations.readers.columns import FLUX, WAVELENGTH
from ..observations.readers.header import from_header
from ..observations.readers.units import with_unit

ROLES = ("wavelength", "flux", "continuum", "continuum_wavelength", "labels", "label_names", "file")

# Names by which each role is known, in lower case.
KNOWN = {
    "wavelength": WAVELENGTH,
    "flux": (*FLUX, "fluxes", "spectra", "spectrum", "spec", "normalized_fluxes", "normalised_fluxes"),
    "continuum": ("continuum", "continua", "cont"),
    "continuum_wavelength": ("continuum_wavelength", "wavelength_continuum"),
    "labels": ("labels", "parameters", "params", "label"),
    "label_names": ("label_names", "labels_names", "parameter_names", "param_names"),
    "file": ("file", "filename", "file_name", "path", "spectrum_file"),
}


@dataclasses.dataclass
class Raw:
    """What a reader found. `wavelength`: (n_wave,) or a list of arrays, one per spectrum, or (n, n_wave); ångström.
    `flux`: (n, n_wave) or a list. `labels`: the file's column name to (n,). `where`: what to call each spectrum."""

    wavelength: object
    flux: object
    labels: dict
    where: list
    continuum: np.ndarray | None = None
    continuum_wavelength: np.ndarray | None = None


def label_columns(labels, names) -> np.ndarray:
    """`labels` (n, k) as (k, n), checked against its k names."""
    labels, names = np.asarray(labels), np.ravel(names)
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise GridError(
            f"labels of shape {labels.shape} do not fit {len(names)} label names ({', '.join(map(str, names))})."
        )
    return labels.T


def pick(role: str, available, names: dict, required=True):
    """The one of the `available` names that plays a role: the given one, or the one with a usual name."""
    available = list(available)
    if role in names:
        if names[role] in available:
            return names[role]
        hint = suggestion(names[role], available)
        raise GridError(f"there is no '{names[role]}'; there are: {', '.join(available) or 'none'}.{hint}")
    found = [name for name in available if name.rsplit("/", 1)[-1].lower() in KNOWN[role]]
    if len(found) == 1 or (not found and not required):
        return found[0] if found else None
    problem = f"{', '.join(found)} could all be the {role}" if found else f"nothing is known to be the {role}"
    raise GridError(
        f"{problem}; there are: {', '.join(available) or 'none'}. Say which (names={{'{role}': …}}, on the command "
        f"line --name {role}=NAME)."
    )


def check_same_medium(header, medium):
    """Raise `GridError` if a header or attributes state another medium than the caller."""
    stated = from_header(header)["medium"]
    if stated is not None and stated != medium:
        raise GridError(
            f"the file says that its wavelengths are in {stated}, but {medium} was given. Find out which is true."
        )


def in_angstrom(wavelength, unit) -> np.ndarray:
    """Wavelengths in ångström, from `unit` or, without one, as they are."""
    import astropy.units as u

    wavelength = np.asarray(wavelength, float)
    if unit is None and not np.nanmedian(wavelength) < 1000:
        return wavelength
    return u.Quantity(with_unit(wavelength, unit)).to_value(u.AA, equivalencies=u.spectral())
