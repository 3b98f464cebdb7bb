"""`Observation`: an observed spectrum on the host, checked and immutable."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from ..constants import FWHM_PER_SIGMA
from ..errors import ObservationError
from ..forward.lsf import cut_resolution, resolving_power
from ..wavelengths.medium import check_medium, convert_medium
from . import checks, quality


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Observation:
    """An observed spectrum: wavelengths, fluxes, uncertainties, and which pixels may be used.

    **Arguments:**

    - `wavelength`: `(n_pix,)`, an astropy quantity of length or an array in ångström; increasing or decreasing.
    - `flux`: `(n_pix,)`, in any linear unit (an astropy quantity loses its unit). It need not be normalised.
    - `uncertainty`: standard deviations in the unit of `flux`, `(n_pix,)` or one value for all; a quantity is converted to
      the unit of `flux`. `StdDevUncertainty`, `VarianceUncertainty` and `InverseVariance` of `astropy.nddata` are what
      they say.
    - `snr`: instead of `uncertainty`: signal-to-noise ratio per pixel at the continuum, one value or `(n_pix,)`. Every
      pixel gets the uncertainty continuum / `snr`, with a rough continuum; in the cores of deep lines that is on the
      safe side.
    - `mask`: `(n_pix,)`, True (or a non-zero flag) where a pixel must *not* be used.
    - `resolution`: resolving power lambda / FWHM, one value or `(n_pix,)`, or a resolution matrix: its diagonals
      `(n_diag, n_pix)` as DESI's files have them, or a SciPy sparse matrix `(n_pix, n_pix)`; see
      `emuinfer.forward.lsf`. May be left out here; a fit needs it.
    - `medium`: `"air"` or `"vacuum"`.
    - `name`, `meta`: free text, and a mapping of anything worth keeping (credit, date, literature values). `meta["frame"]`
      is the frame that velocities are relative to: "barycentric", "heliocentric", "geocentric", "topocentric" (the
      observer's) or "rest" (of the star); a fit does not need it.
    - `clip`: spikes this many uncertainties above the continuum, and at most 5 pixels wide, are masked as cosmic rays;
      `None` turns this off. Absorption is never clipped.
    - `notes`: what is to be said of the spectrum beside what the checks find, as a reader does of its file.

    Pixels that cannot be used are masked, and `notes` says how many and why: fluxes that are not finite, runs of three
    or more exact zeros, cosmic rays, and pixels whose uncertainty is zero or not finite (the usual mark of a dead
    pixel). A negative uncertainty on an unmasked pixel is an error, for it means a wrong column or a wrong sign.
    Repeated wavelengths are an error too, unless they are at most 1 % of the pixels (rounding in a text file): then the
    second is dropped.

    **Attributes:** `wavelength` (Å), `flux`, `uncertainty`, `good` (True: use the pixel), `resolution`, `medium`,
    `name`, `meta`, `notes`. Arrays are float64 and read-only; uncertainties of masked pixels may be anything.

    Raises `ObservationError` on anything that is not a usable spectrum.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    uncertainty: np.ndarray
    good: np.ndarray
    resolution: float | np.ndarray | None
    medium: str
    name: str
    meta: dict
    notes: tuple[str, ...]

    def __init__(
        self,
        wavelength,
        flux,
        uncertainty=None,
        *,
        snr=None,
        mask=None,
        resolution=None,
        medium=None,
        name="",
        meta=None,
        clip=8.0,
        notes=(),
    ):
        what = f"The spectrum '{name}'" if name else "The spectrum"
        medium = check_medium(medium, what)
        wavelength = checks.to_angstrom(wavelength)
        flux, unit = checks.to_flux(flux, len(wavelength))
        good = np.isfinite(flux)
        notes = list(notes)
        if mask is not None:
            good &= ~checks.to_mask(mask, len(wavelength), notes)
        uncertainty = checks.to_uncertainty(uncertainty, snr, flux, good, notes, unit, wavelength)
        resolution = checks.to_resolution(resolution, len(wavelength))
        order = checks.increasing_order(wavelength, notes)
        wavelength, flux, uncertainty, good = (x[order] for x in (wavelength, flux, uncertainty, good))
        resolution = checks.reorder_resolution(resolution, order)
        checks.drop_gaps(flux, good, notes)
        if clip is not None:
            spikes = quality.cosmic_rays(flux, uncertainty, good, clip)
            good &= ~spikes
            if spikes.any():
                notes.append(f"{spikes.sum()} pixels masked as cosmic rays (narrow spikes above {clip:g} sigma)")
        checks.require_pixels(flux, good, what)
        self._set(wavelength, flux, uncertainty, good, resolution, medium, str(name), dict(meta or {}), tuple(notes))

    def _set(self, *values):
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            if isinstance(value, np.ndarray):
                value = np.array(value)
                value.flags.writeable = False
            object.__setattr__(self, field.name, value)
        return self

    def _with(self, **changes) -> "Observation":
        """A copy with some attributes changed, not checked again."""
        values = [changes.get(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]
        return object.__new__(type(self))._set(*values)

    # What it is

    def __len__(self):
        return len(self.wavelength)

    @property
    def snr(self) -> float:
        """Median of flux / uncertainty over the usable pixels."""
        return float(np.median(self.flux[self.good] / self.uncertainty[self.good]))

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the data: arrays, medium and resolution."""
        digest = hashlib.sha256(self.medium.encode())
        resolution = np.zeros(0) if self.resolution is None else np.atleast_1d(np.asarray(self.resolution, dtype=float))
        used = np.where(self.good, self.uncertainty, 0.0), np.where(self.good, self.flux, 0.0)
        for array in (self.wavelength, *used, self.good, resolution):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self):
        resolution = resolving_power(self.resolution, self.wavelength)
        if isinstance(resolution, np.ndarray):
            resolution = f"{resolution.min():.0f} to {resolution.max():.0f}"
        elif resolution is not None:
            resolution = f"{resolution:.0f}"
        text = (
            f"<Observation {self.name or 'without a name'}: {len(self)} pixels ({self.good.sum()} usable), "
            f"{self.wavelength[0]:.2f} to {self.wavelength[-1]:.2f} Å in {self.medium}, "
            f"R = {resolution or 'not known'}, median S/N {self.snr:.0f}>"
        )
        return "\n  ".join([text, *self.notes])

    def wavelength_in(self, medium: str) -> np.ndarray:
        """Wavelengths in ångström in `"air"` or `"vacuum"`, `(n_pix,)`."""
        return convert_medium(self.wavelength, self.medium, check_medium(medium))

    # What can be made of it

    def in_medium(self, medium: str) -> "Observation":
        """The same spectrum with its wavelengths in `"air"` or `"vacuum"`."""
        return self._with(wavelength=self.wavelength_in(medium), medium=medium)

    def cut(self, lo: float, hi: float) -> "Observation":
        """The pixels with `lo` <= wavelength <= `hi`, in ångström in the observation's own medium.

        With a resolution matrix, pixels at the cut are masked if part of their light comes from beyond it.
        """
        inside = (self.wavelength >= lo) & (self.wavelength <= hi)
        if not (inside & self.good).any():
            raise ObservationError(
                f"No usable pixel between {lo:g} and {hi:g} Å: the spectrum '{self.name}' covers "
                f"{self.wavelength[0]:.2f} to {self.wavelength[-1]:.2f} Å ({self.medium})."
            )
        keep = np.flatnonzero(inside)
        resolution, whole = cut_resolution(self.resolution, slice(keep[0], keep[-1] + 1))
        return self._with(
            wavelength=self.wavelength[inside],
            flux=self.flux[inside],
            good=self.good[inside] & whole,
            uncertainty=self.uncertainty[inside],
            resolution=resolution,
        )

    def rebin(self, factor: int) -> "Observation":
        """Means over groups of `factor` neighbouring pixels; a group is usable if all its pixels are.

        Uncertainties are combined as if pixels were independent. The wider pixel is put into `resolution` as the
        Gaussian of equal variance, (factor² - 1) / 12 pixels². Pixels at the red end that fill no group are dropped.
        """
        factor = int(factor)
        if not 1 <= factor <= len(self):
            raise ObservationError(f"Cannot rebin {len(self)} pixels by {factor}; give a factor from 1 to {len(self)}.")
        if isinstance(self.resolution, np.ndarray) and self.resolution.ndim == 2 and factor > 1:
            raise ObservationError(f"The spectrum '{self.name}' has a resolution matrix and cannot be rebinned.")
        n = len(self) // factor * factor
        group = lambda x: x[:n].reshape(-1, factor)
        good = group(self.good).all(axis=1)
        safe = np.where(self.good, self.flux, 0.0), np.where(self.good, self.uncertainty, 0.0)
        resolution = self.resolution
        if resolution is not None:
            pixel = np.median(np.diff(self.wavelength) / self.wavelength[:-1])
            fwhm2 = np.asarray(resolution, dtype=float) ** -2 + FWHM_PER_SIGMA**2 * (factor**2 - 1) / 12 * pixel**2
            resolution = fwhm2**-0.5
            resolution = group(resolution).mean(axis=1) if resolution.ndim else float(resolution)
        notes = (*self.notes, f"rebinned by {factor}") if factor > 1 else self.notes
        return self._with(
            wavelength=group(self.wavelength).mean(axis=1),
            flux=group(safe[0]).mean(axis=1),
            good=good,
            uncertainty=np.sqrt((group(safe[1]) ** 2).sum(axis=1)) / factor,
            resolution=resolution,
            notes=notes,
        )

    def with_noise(self, snr: float, seed: int) -> "Observation":
        """A copy with white Gaussian noise of continuum / `snr` added, and its variance added to the uncertainties'."""
        if not (np.isfinite(snr) and snr > 0):
            raise ObservationError(f"snr = {snr} must be a positive number.")
        sigma = quality.rough_continuum(np.where(self.good, self.flux, 0.0), self.good) / snr
        noise = sigma * np.random.default_rng(seed).standard_normal(len(self))
        note = f"noise added: S/N {snr:g} at the continuum, seed {seed}"
        return self._with(
            flux=self.flux + noise, uncertainty=np.hypot(self.uncertainty, sigma), notes=(*self.notes, note)
        )

    def to_spectrum(self):
        """The spectrum as `specutils.Spectrum`: Å in the observation's medium, standard deviations, mask true where not usable.

        `meta` has what this `meta` has, `resolution`, `notes`, and a FITS `header` with name, medium, frame (`SPECSYS`) and
        resolving power. The flux has the unit of `meta["flux_unit"]`, or none. `from_spectrum` is the way back.
        """
        from .readers.spectrum import to_specutils

        return to_specutils(self)

    # Where it comes from

    @classmethod
    def read(
        cls,
        path,
        *,
        resolution=None,
        snr=None,
        medium=None,
        wavelength_column=None,
        flux_column=None,
        uncertainty_column=None,
        mask_column=None,
        wavelength_unit=None,
        format=None,
        hdu=None,
        arm=None,
        row=None,
        order=None,
    ) -> "Observation":
        """Read a spectrum from a file; see `emuinfer.observations.readers.read` for formats and keywords."""
        from .readers import read

        fields = read(
            path,
            medium=medium,
            wavelength_column=wavelength_column,
            flux_column=flux_column,
            uncertainty_column=uncertainty_column,
            mask_column=mask_column,
            wavelength_unit=wavelength_unit,
            format=format,
            hdu=hdu,
            arm=arm,
            row=row,
            order=order,
        )
        return cls._from_fields(fields, resolution=resolution, snr=snr, medium=medium)

    @classmethod
    def read_arms(cls, path, *, row=None, **options) -> list["Observation"]:
        """All arms of a star in a file (DESI, LAMOST MRS, mwmStar, …), for `JointModel.of`; else its one spectrum. See `read`."""
        from .readers import read_arms

        arms: list = read_arms(path) or [None]
        return [cls.read(path, arm=arm, row=row, **options) for arm in arms]

    @classmethod
    def read_orders(cls, path, **options) -> list["Observation"]:
        """Every order of an echelle spectrum, for `JointModel.of`, which fits each with a continuum of its own; of any other
        file, its one spectrum. Orders that cannot be used are left out, if others can. `options` as of `read`.
        """
        from .readers import count_orders

        known = {k: v for k, v in options.items() if k not in ("resolution", "snr")}
        found: list[Observation] = []
        problem: ObservationError | None = None
        for order in range(count_orders(path, **known) or 0):
            try:
                found.append(cls.read(path, order=order, **options))
            except ObservationError as error:
                problem = error
        if problem is not None and not found:
            raise problem
        return found or [cls.read(path, **options)]

    @classmethod
    def from_spectrum(cls, spectrum, *, resolution=None, snr=None, medium=None, name=None) -> "Observation":
        """From a `specutils.Spectrum` with one spectrum in it. Its mask and uncertainty are used if it has them."""
        from .readers import from_specutils

        return cls._from_fields(from_specutils(spectrum), resolution=resolution, snr=snr, medium=medium, name=name)

    @classmethod
    def _from_fields(cls, fields: Mapping, **given) -> "Observation":
        """What the caller gives goes before what the file says; `snr` given replaces the file's uncertainties."""
        from .readers.plausible import plausible

        fields = plausible(dict(fields))
        if given.get("snr") is not None or fields.get("uncertainty") is None:
            if given.get("snr") is None and fields.get("snr") is not None:
                note = f"uncertainties from the signal-to-noise ratio {np.median(fields['snr']):g} that the file gives"
                fields["notes"] = (*fields["notes"], note)
            fields["uncertainty"] = None
        else:
            fields["snr"] = None
        return cls(**{**fields, **{k: v for k, v in given.items() if v is not None}})

    @classmethod
    def example(cls, name: str) -> "Observation":
        """A packaged example spectrum by name; `list_examples()` lists the names."""
        from .examples import example_path

        return cls.read(example_path(name))
