"""Spectra in FITS files: products of archives that are known, tables, images, what specutils knows. Host only."""

import contextlib
import re
import warnings

from ...errors import ObservationError
from .choices import NEEDS, Choices, number_or_name, open_file
from .images import read_image
from .products import PRODUCTS, arms_of
from .spectral_axis import require_wavelengths
from .spectrum import read_specutils
from .tables import read_tables


def read_arms(path) -> list[str]:
    """The arms that `read` knows in a file; empty if it is no file of several arms, or none that can be read."""
    try:
        with warnings.catch_warnings(action="ignore"), _opened(path) as hdus:
            return arms_of(hdus)
    except Exception:  # no FITS file, or a damaged one: `read` says so
        return []


def read_fits(path, choices: Choices) -> dict:
    """Fields of the spectrum in a FITS file; the first of `PRODUCTS` that recognises the file reads it."""
    with _opened(path) as hdus:
        for product in PRODUCTS:
            if product.recognises(hdus):
                return product.read(hdus, choices)
        if choices.hdu is not None:
            _require_hdu(hdus, choices.hdu)
        fields, reasons = read_tables(hdus, choices)
        if fields is None and (choices.hdu is None or not reasons):
            fields = read_image(hdus, choices)
        if fields is not None:
            return fields
        listed = "; ".join(f"{i}: {h.name or 'no name'} {type(h).__name__} {_shape(h)}" for i, h in enumerate(hdus))
    if choices.hdu is None:
        with contextlib.suppress(ObservationError):
            fields = read_specutils(path, None)
            require_wavelengths(fields["wavelength"].value, str(fields["wavelength"].unit))  # which it may take for Å
            return fields
    if reasons:
        raise ObservationError(" ".join(reasons))
    which = "This FITS file" if choices.hdu is None else f"HDU {choices.hdu} of this FITS file"
    raise ObservationError(f"{which} holds no spectrum that can be recognised; the file holds {listed}. {NEEDS}")


@contextlib.contextmanager
def _opened(path):
    """The open file, without cards and extensions that cannot be parsed: the spectrum may be in the others."""
    from astropy.io import fits

    with open_file(path) as file:
        axes = re.search(rb"NAXIS   = *(\d+)", file.read(2880))
    if axes and int(axes[1]) > 999:  # the most that FITS knows; astropy would count them all
        raise ObservationError(f"This FITS file is damaged: NAXIS = {int(axes[1])}.")
    with fits.open(path, memmap=False) as hdus:
        try:
            len(hdus)  # reads the headers of all
        except Exception as error:  # of damaged headers, anything
            raise ObservationError(f"This FITS file is damaged: {type(error).__name__}: {error}") from error
        for i in reversed(range(len(hdus))):
            if not (hasattr(hdus[i], "data") and hasattr(hdus[i], "is_image")):
                if i == 0:
                    raise ObservationError("This FITS file is damaged: its first header is none.")
                del hdus[i]
                continue
            header = hdus[i].header
            for k in reversed(range(len(header.cards))):
                try:
                    _ = header.cards[k].value
                except fits.VerifyError:
                    del header[k]
        yield hdus


def _require_hdu(hdus, hdu):
    """Refuse a number or name that is not in the file."""
    try:
        hdus[number_or_name(hdu)]
    except (KeyError, IndexError) as error:
        listed = ", ".join(f"{i} '{h.name}'" for i, h in enumerate(hdus))
        raise ObservationError(f"The file has no HDU {hdu!r}; it has {listed}.") from error


def _shape(hdu) -> str:
    return "without data" if hdu.data is None else str(hdu.data.shape)
