"""Checks that turn what a caller gives into the arrays of an `Observation`, or say what is wrong. Host only."""

import numpy as np

from ..errors import ObservationError
from ..forward.lsf import matrix_from_sparse, matrix_rows
from . import quality
from .readers.units import in_flux_unit, of_nddata, parse_unit, refuse_pixel_numbers, with_unit


def to_angstrom(wavelength) -> np.ndarray:
    import astropy.units as u

    if isinstance(wavelength, u.Quantity):
        try:
            with np.errstate(over="ignore", divide="ignore"):  # what becomes infinite is refused below
                wavelength = wavelength.to_value(u.AA, equivalencies=u.spectral())
        except u.UnitConversionError as error:
            raise ObservationError(f"The wavelengths have unit '{wavelength.unit}', which is not a length.") from error
    elif getattr(wavelength, "unit", None) is not None:  # a column of a table
        values: np.ndarray = np.ma.filled(np.ma.asarray(wavelength, dtype=float), np.nan)
        return to_angstrom(with_unit(values, wavelength.unit))
    wavelength = np.array(np.ma.filled(np.ma.asarray(wavelength, dtype=float), np.nan))
    if wavelength.ndim != 1 or len(wavelength) < 3:
        raise ObservationError(
            f"The wavelengths must be a one-dimensional array of 3 or more; got shape {wavelength.shape}."
        )
    refuse_pixel_numbers(wavelength)
    if not (np.isfinite(wavelength) & (wavelength > 0)).all():
        i = int(np.flatnonzero(~(np.isfinite(wavelength) & (wavelength > 0)))[0])
        raise ObservationError(f"Wavelengths must be finite and positive; number {i} is {wavelength[i]}.")
    return wavelength


def _unit_of(values):
    """The astropy unit of a quantity, or of a table's column in the spelling of its file; `None` if there is none."""
    unit = getattr(values, "unit", None)
    return unit if unit is None or hasattr(values, "to_value") else parse_unit(unit)


def to_flux(flux, n_pix: int):
    """The flux `(n_pix,)`, and its astropy unit; `None` if it has none."""
    import astropy.units as u

    unit = _unit_of(flux)
    if isinstance(unit, u.function.FunctionUnitBase) or unit in (u.mag, u.dex, u.dB):
        raise ObservationError(f"The flux has the unit '{unit}', a logarithm; give it in a linear unit.")
    return to_column(getattr(flux, "value", flux), "flux", n_pix), unit


def to_column(values, what: str, n_pix: int) -> np.ndarray:
    try:
        values = np.array(np.ma.filled(np.ma.asarray(values, dtype=float), np.nan), dtype=float)
    except (TypeError, ValueError) as error:
        raise ObservationError(f"The {what} is not numeric: {error}.") from error
    if values.shape != (n_pix,):
        raise ObservationError(f"The {what} must have the shape of the wavelengths, ({n_pix},); got {values.shape}.")
    return values


def to_mask(mask, n_pix: int, notes) -> np.ndarray:
    mask = np.ma.filled(np.ma.asarray(mask), True)
    if mask.shape != (n_pix,):
        raise ObservationError(f"The mask must have the shape of the wavelengths, ({n_pix},); got {mask.shape}.")
    mask = mask.astype(bool)
    if n_pix / 2 < mask.sum() < n_pix:
        notes.append(
            f"the mask leaves out {mask.sum()} of {n_pix} pixels; if it marks good pixels, turn it round: "
            'mask_column="!NAME" of a file\'s column, or mask=~mask'
        )
    return mask


def increasing_order(wavelength, notes) -> np.ndarray:
    """Indices that make the wavelengths increase: the given order or its reverse, less a few repeated wavelengths."""
    order = np.arange(len(wavelength)) if wavelength[-1] >= wavelength[0] else np.arange(len(wavelength))[::-1]
    steps = np.diff(wavelength[order])
    repeated = int((steps == 0).sum())
    if (steps < 0).any() or repeated > 0.01 * len(wavelength):
        i = int(np.flatnonzero(steps < 0 if (steps < 0).any() else steps == 0)[0])
        before, after = wavelength[order[i]], wavelength[order[i + 1]]
        raise ObservationError(
            f"Wavelengths must increase (or decrease) throughout, but {after:.4f} Å follows {before:.4f} Å "
            f"({(steps < 0).sum()} steps back, {repeated} repeated wavelengths). Merge or cut overlapping orders first."
        )
    if repeated:
        notes.append(f"{repeated} pixels dropped because their wavelength repeats that of the pixel before")
    return order[np.concatenate([[True], steps > 0])]


def _deviations(uncertainty, flux_unit, wavelength):
    """Standard deviations in the unit of the flux, of an array, a quantity, or an uncertainty of `astropy.nddata`."""
    import astropy.units as u

    if hasattr(uncertainty, "uncertainty_type"):
        values, unit = of_nddata(uncertainty)
    else:
        values, unit = getattr(uncertainty, "value", uncertainty), _unit_of(uncertainty)
    if not isinstance(unit, u.UnitBase):
        return values
    if flux_unit is None and unit != u.dimensionless_unscaled:
        raise ObservationError(
            f"The uncertainty has the unit '{unit}' and the flux has none: give both, or neither, with units."
        )
    return in_flux_unit(values, unit, flux_unit or u.dimensionless_unscaled, wavelength * u.AA)


def to_uncertainty(uncertainty, snr, flux, good, notes, flux_unit=None, wavelength=None) -> np.ndarray:
    """Standard deviations `(n_pix,)`; marks pixels without a valid one as not good."""
    if (uncertainty is None) == (snr is None):
        missing = "There are no uncertainties" if snr is None else "Both uncertainty and snr are given"
        missing += f" ({'; '.join(notes)})" if notes else ""
        raise ObservationError(f"{missing}: give either uncertainty= (standard deviations) or snr= (per pixel).")
    if snr is not None:
        snr = np.asarray(snr, dtype=float)
        if snr.shape not in ((), flux.shape):
            raise ObservationError(f"snr must be one value or have shape {flux.shape}; got {snr.shape}.")
        if not (np.isfinite(snr) & (snr > 0)).all():
            raise ObservationError(f"snr must be positive and finite; the lowest value is {snr.min()}.")
        if not good.any():
            return np.zeros_like(flux)
        return np.abs(quality.rough_continuum(flux, good & ~quality.zero_runs(flux) if flux.any() else good)) / snr
    uncertainty = _deviations(uncertainty, flux_unit, wavelength)
    if np.ndim(uncertainty) == 0:
        uncertainty = np.full(flux.shape, uncertainty, dtype=float)
    uncertainty = to_column(uncertainty, "uncertainty", len(flux))
    if (uncertainty[good] < 0).any():
        i = int(np.flatnonzero(good & (uncertainty < 0))[0])
        raise ObservationError(
            f"Uncertainties must be positive, but pixel {i} has {uncertainty[i]:g}. They are standard deviations, "
            "in the unit of the flux; mask the pixels that have none (mask=, or an uncertainty of NaN)."
        )
    bad = good & ~(np.isfinite(uncertainty) & (uncertainty > 0))
    if good.any() and bad.sum() == good.sum():
        raise ObservationError("All uncertainties are zero or not finite. Give valid ones, or snr= instead.")
    if bad.any():
        notes.append(f"{bad.sum()} pixels masked because their uncertainty is zero or not finite")
        good &= ~bad
    return uncertainty


def to_resolution(resolution, n_pix: int):
    if resolution is None:
        return None
    if hasattr(resolution, "tocoo"):
        resolution = matrix_from_sparse(resolution)
    resolution = np.array(getattr(resolution, "value", resolution), dtype=float)
    if resolution.ndim == 2:
        return _check_matrix(resolution, n_pix)
    if resolution.shape not in ((), (n_pix,)):
        raise ObservationError(
            f"The resolution must be one resolving power or have shape ({n_pix},); got {resolution.shape}."
        )
    if not (np.isfinite(resolution) & (resolution > 1)).all():
        raise ObservationError(
            f"The resolving power lambda/FWHM must be above 1; the lowest value is {resolution.min()}."
        )
    return resolution if resolution.ndim else float(resolution)


def _check_matrix(matrix, n_pix):
    if matrix.shape[1] != n_pix or len(matrix) % 2 == 0 or len(matrix) > n_pix:
        raise ObservationError(
            f"A resolution matrix has the shape (n_diag, {n_pix}) with an odd number of diagonals, the outermost above the "
            f"main one first, or is a sparse matrix ({n_pix}, {n_pix}); got {matrix.shape}."
        )
    if not np.isfinite(matrix).all() or not (matrix_rows(matrix).sum(axis=0) > 0).any():
        raise ObservationError("The resolution matrix has values that are not finite, or no row with a positive sum.")
    return matrix


def reorder_resolution(resolution, order):
    """The resolution of the pixels `order`; a matrix can only be kept or turned round."""
    if not isinstance(resolution, np.ndarray):
        return resolution
    if resolution.ndim == 1:
        return resolution[order]
    n = resolution.shape[1]
    if np.array_equal(order, np.arange(n)):
        return resolution
    if np.array_equal(order, np.arange(n)[::-1]):
        return resolution[::-1, ::-1]
    raise ObservationError("With a resolution matrix, wavelengths must increase or decrease, and none may be repeated.")


def drop_gaps(flux, good, notes) -> None:
    gaps = good & quality.zero_runs(flux)
    if gaps.any():
        notes.append(f"{gaps.sum()} pixels masked as gaps (runs of zero flux)")
        good &= ~gaps


def require_pixels(flux, good, what) -> None:
    if not good.any():
        raise ObservationError(
            f"{what} has no usable pixel: all {len(good)} are masked, not finite, or filled with zeros. In a mask, "
            "True marks the pixels to leave out."
        )
    if np.median(flux[good]) <= 0:
        raise ObservationError(
            f"{what} has a median flux of {np.median(flux[good]):g}; a stellar spectrum must be positive."
        )
