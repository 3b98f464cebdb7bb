"""Reading a spectrum from a file of any kind. Host only."""

import re
import warnings
from pathlib import Path

from ...errors import ObservationError
from .astropy_tables import format_of, read_astropy
from .choices import NEEDS, Choices, open_file
from .fits import read_fits
from .frames import frame_of, in_frame
from .orders import OrderError
from .products import read_text_product
from .spectrum import read_specutils
from .text import read_text
from .votable import is_votable, read_votable


def read(path, **choices) -> dict:
    """Read one spectrum; returns keyword arguments for `Observation`: `wavelength` (a quantity, or Å), `flux`, and
    what the file says of `uncertainty`, `snr`, `mask`, `resolution`, `medium`, `name`, `meta`, `notes`. `choices`: see `Choices`.

    Tried in this order: products of archives (`readers.products`: DESI, SDSS, APOGEE, LAMOST, PypeIt, HARPS, ESO Phase 3,
    …), FITS tables (one row per pixel, or one row of arrays), FITS images (one spectrum, bands, orders of an echelle, with
    an axis or images beside them), ECSV, VOTable, CSV and text columns, and what `specutils.Spectrum.read` identifies.
    `arm`, `row`, `hdu` (number or name) and `order` (a number from 0, or "merge") choose among several spectra in a file.
    `meta["frame"]` is the frame of the wavelengths, where the file says it (`readers.frames`). SDSS's spec files are
    tables with `loglam`: vacuum, and resolving powers from `wdisp`.
    `format`, a specutils format name, goes to specutils at once. Columns are found by their names, or given by name.
    Column units are used; without any, wavelengths are in ångström, or in `wavelength_unit`. Inverse variances,
    variances and quality columns (non-zero: do not use) are understood. From headers (or ECSV metadata) come the medium
    (`MEDIUM`, `AIRORVAC`, `VACUUM`, axis type `AWAV`, ESO's `em.wl;obs.atmos`), the resolving power (`SPEC_RES`,
    `RESOLUTION`, `RESOLVE`), the signal-to-noise ratio (`SNR`, `SNR_EST`; only used without uncertainties) and the name
    (`OBJECT`). The axis type `WAVE` should mean vacuum but is often written for air, so that it is not believed.

    Raises `ObservationError` that names the file, what is in it, and what is needed.
    """
    path = Path(path)
    if path.is_dir():
        raise ObservationError(f"{path} is a directory, not a spectrum. {NEEDS}")
    if not path.exists():
        raise ObservationError(f"There is no file {path}.")
    chosen = Choices(**choices)
    try:
        fields = _fields(path, chosen)
    except ObservationError as error:
        raise ObservationError(f"{path}: {error}") from error
    except Exception as error:  # of damaged files astropy raises anything
        raise ObservationError(
            f"{path} cannot be read as a spectrum: {type(error).__name__}: {error}. {NEEDS}"
        ) from error
    fields.setdefault("name", "")
    fields["name"] = fields["name"] or re.sub(r"(\.(fits?|fz|ecsv|csv|txt|dat|gz))+$", "", path.name)
    fields["meta"] = {"file": path.name, **fields.get("meta", {})}
    if "frame" not in fields["meta"]:
        fields = in_frame(fields, frame_of(fields["meta"]), fields["meta"])
    if chosen.medium is None and fields.get("medium") is None:
        raise ObservationError(
            f"{path} does not say whether its wavelengths are in air or in vacuum. "
            'Give medium="air" or medium="vacuum" '
            "(on the command line --medium)."
        )
    return fields


def count_orders(path, **options) -> int | None:
    """How many orders of an echelle spectrograph a file holds; None where it is no such file. `options` as of `read`."""
    try:
        read(path, **{**options, "order": "count"})
    except ObservationError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OrderError):
            cause = cause.__cause__
        return None if cause is None else cause.count
    return None


def _fields(path, choices: Choices) -> dict:
    """What the file says, by the reader of its kind."""
    with warnings.catch_warnings(action="ignore"):  # of libraries, on what is refused in words or noted
        if choices.format is not None:
            return read_specutils(path, choices.format)
        head = _head(path)
        if head.startswith(b"SIMPLE  ="):
            return read_fits(path, choices)
        if is_votable(head):
            return read_votable(path, choices)
        if (kind := format_of(head)) is not None:
            return read_astropy(path, kind, choices)
        return read_text_product(path, choices) or read_text(path, choices)


def _head(path) -> bytes:
    with open_file(path) as file:
        return file.read(1000)
