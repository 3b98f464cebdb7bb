"""Forecasts: what exposures with given instruments can tell about a star.

A `Forecast` holds the derivatives of the flux at every pixel of every exposure; bounds, information spectra and bounds at
any other S/N follow from them without new derivatives.
"""

import dataclasses
import numbers

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from ..emulators import Emulator, ReducedEmulator
from ..errors import EmuinferError
from ..forward.continuum import chebyshev_basis, default_terms
from ..forward.operator import SpectrumOperator, usable_pixels
from ..wavelengths.medium import convert_medium
from ..wavelengths.uniform import log_grid
from .bounds import Bounds, invert, prior_information, step_sizes, whiten
from .exposure import Exposure

KERNELS = ("rv", "vbroad", "vsini")
UNITS = dict.fromkeys(KERNELS, "km / s")
STEP_KMS = 1.0  # of the grid on which the emulator is evaluated; below its own detail


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """One arm of one exposure. Arrays over its used pixels are float64, wavelengths in Å in the emulator's medium.

    - `wavelength`, `flux`, `sigma` `(n_pix,)`: normalised flux of the model, and standard deviation of the noise.
    - `jacobian` `(n_shared, n_pix)`: derivatives by the labels, velocity and broadening that are free, in their units.
    - `basis` `(n_terms, n_pix)`: Chebyshev polynomials of the continuum; `terms_sd`: prior of their coefficients.
    - `correlation` `(n_pix - 1,)` with the pixel before, or None. `operator`: from the grid to all pixels, of which `keep`
      `(n_all,)` are used.
    """

    name: str
    wavelength: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    jacobian: np.ndarray
    basis: np.ndarray
    terms_sd: float
    correlation: np.ndarray | None
    resolution: float
    operator: SpectrumOperator
    keep: np.ndarray

    @property
    def terms(self) -> np.ndarray:
        """Derivatives by the continuum's coefficients, `(n_terms, n_pix)`."""
        return self.basis * self.flux

    def whitened(self, snr_factor=1.0):
        """Whitened derivatives by shared parameters and by the continuum, `(n_shared, n_pix)`, `(n_terms, n_pix)`."""
        n = len(self.jacobian)
        rows = whiten(np.concatenate([self.jacobian, self.terms]), self.sigma / snr_factor, self.correlation)
        return rows[:n], rows[n:]


class GridFlux(eqx.Module):
    """An emulator on one grid of wavelengths."""

    emulator: Emulator
    query: object

    def __call__(self, scaled):
        return self.emulator.flux(scaled, self.query)


class ReducedGridFlux(eqx.Module):
    """A stretch of a reduced emulator's own grid."""

    emulator: ReducedEmulator

    def __call__(self, scaled):
        return self.emulator.grid_flux(scaled)


def grid_flux(emulator, lo, hi):
    """`(wavelength, function)`: a grid uniform in ln λ that holds [lo, hi] Å, within the emulator's range, and the flux
    `(n_grid,)` on it as a function of the scaled labels."""
    if isinstance(emulator, ReducedEmulator):
        grid = emulator.config.wavelength
        first = max(np.searchsorted(grid, lo) - 1, 0)
        last = min(np.searchsorted(grid, hi) + 1, len(grid))
        parts = lambda e: (e.mean, e.basis)
        cut = eqx.tree_at(parts, emulator, (emulator.mean[first:last], emulator.basis[:, first:last]))
        return grid[first:last], ReducedGridFlux(cut)
    ends = emulator.wavelength_range
    lo, hi = max(lo, ends[0]), min(hi, ends[1])
    if hi - lo > 0.5 * (ends[1] - ends[0]):  # nearly all: then all, for which one compiled program serves
        lo, hi = ends
    grid = np.clip(log_grid(lo, hi, STEP_KMS), lo, hi)
    return grid, GridFlux(emulator, emulator.prepare(emulator.check_wavelength(grid)))


class Forecast:
    """The derivatives of a star's spectrum at the pixels of all its exposures.

    **Arguments:**

    - `emulator`: any `Emulator`; `reduce_emulator(emulator)` is faster where the emulator is a large transformer.
    - `labels`: mapping or array `(n_labels,)` of the star. Labels that `priors` fix may be left out of a mapping.
    - `exposures`: one `Exposure` or several. They share labels, velocity and broadening; each arm has its own continuum.
    - `priors`: name of a label, `rv`, `vbroad` or `vsini` to a NumPyro distribution, whose curvature is added, or to a
      number, which is then known. By default all are free and have no prior.
    - `rv`, `vbroad`, `vsini`: of the star, km/s. `broadening`: which of the latter two are free: `"vbroad"`, `"vsini"`,
      `"both"` or `"none"`.

    **Attributes:** `shared`: names of the free labels, velocity and broadening; `values`: all values by name; `spectra`: a
    `Spectrum` per arm; `prior`: information of the priors `(n_shared,)`; `notes`: what was left out; `grid` `(n_grid,)`: Å, rest frame;
    `grid_flux` `(n_grid,)` and `grid_rows` `(n_labels, n_grid)`: flux and its derivatives by the scaled labels there.

    **Raises:** `LabelError` on labels outside the domain, `EmuinferError` on bad arguments and where nothing is covered.
    """

    def __init__(self, emulator, labels, exposures, *, priors=None, rv=0.0, vbroad=3.0, vsini=3.0, broadening="vbroad"):
        self.emulator, self.space = emulator, emulator.label_space
        self.exposures = (exposures,) if isinstance(exposures, Exposure) else tuple(exposures)
        if not self.exposures or not all(isinstance(e, Exposure) for e in self.exposures):
            raise EmuinferError("A forecast needs one Exposure(instrument, snr) or more.")
        self._set_values(labels, dict(priors or {}), {"rv": rv, "vbroad": vbroad, "vsini": vsini}, broadening)
        arms, notes = [], []
        for exposure in self.exposures:
            part, said = exposure.instrument.within(emulator)
            arms += [(exposure, part.name, arm) for arm in part.arms]
            notes += said
        self.notes = tuple(dict.fromkeys(notes))
        reach = [_reach(arm, self.values) for _, _, arm in arms]
        lo = min(a.lo * (1 - 2 * r / SPEED_OF_LIGHT) for (_, _, a), r in zip(arms, reach))
        hi = max(a.hi * (1 + 2 * r / SPEED_OF_LIGHT) for (_, _, a), r in zip(arms, reach))
        self.grid, self._flux_of = grid_flux(emulator, lo, hi)
        scaled = self.space.scale(np.array([self.values[n] for n in self.space.names]))
        self.grid_flux, self.grid_rows = grid_derivatives(self._flux_of, jnp.asarray(scaled, jnp.float32))
        self.spectra = tuple(s for (e, n, a), r in zip(arms, reach) if (s := self._spectrum(e, n, a, r)) is not None)
        if not self.spectra:
            raise EmuinferError("No pixel is left after masks and the ends of the emulator's range. Widen the range.")

    def _set_values(self, labels, priors, kernel, broadening):
        if broadening not in ("vbroad", "vsini", "both", "none"):
            raise EmuinferError(f"broadening must be vbroad, vsini, both or none; got '{broadening}'.")
        self.kernels = tuple(n for n in KERNELS if n == "rv" or broadening in (n, "both"))
        self.space.require_names([n for n in priors if n not in self.kernels])
        fixed = {n: float(p) for n, p in priors.items() if isinstance(p, numbers.Real)}
        if hasattr(labels, "keys"):
            labels = {**{n: v for n, v in fixed.items() if n in self.space.names}, **labels}
        self.space.check(labels)
        values = dict(
            zip(self.space.names, np.asarray(self.space.to_array(labels), float).reshape(len(self.space)).tolist())
        )
        values |= {n: float(fixed.get(n, kernel[n])) for n in self.kernels}
        if bad := [n for n in self.kernels if not np.isfinite(values[n]) or n != "rv" and values[n] < 0]:
            raise EmuinferError(f"{bad[0]} = {values[bad[0]]} must be a number{' of at least 0' * (bad[0] != 'rv')}.")
        self.values = values
        self.shared = tuple(n for n in values if n not in fixed)
        self.prior = np.array([prior_information(priors[n], values[n]) if n in priors else 0.0 for n in self.shared])

    def _spectrum(self, exposure, name, arm, reach) -> Spectrum | None:
        wavelength = arm.pixels()
        own = convert_medium(wavelength, self.emulator.medium, exposure.instrument.medium)
        rv = self.values["rv"]
        usable = usable_pixels(self.grid, wavelength, (rv, rv), reach)
        wavelength, own = wavelength[usable], own[usable]
        keep = np.ones(len(own), bool)
        for lo, hi in exposure.mask:
            keep &= (own < lo) | (own > hi)
        if not keep.any():
            return None
        snr = exposure.snr_per_pixel(arm, own)
        operator = SpectrumOperator(self.grid, wavelength, arm.resolution)
        kernel = {n: jnp.float32(self.values[n]) for n in self.kernels}
        flux, rows = (np.asarray(a, float) for a in pixel_derivatives(operator, self.grid_flux, self.grid_rows, kernel))
        order = (*self.space.names, *self.kernels)
        rows = rows / step_sizes(self.space, order)[:, None]
        rows = rows[[order.index(n) for n in self.shared]]
        flux, jacobian, wavelength, snr = flux[keep], rows[:, keep], wavelength[keep], snr[keep]
        n = exposure.continuum_terms
        n = default_terms(wavelength) if n is None else int(n)
        if n > len(wavelength) // 4:
            raise EmuinferError(
                f"A continuum of {n} terms for {len(wavelength)} pixels; give 0 to {len(wavelength) // 4}."
            )
        basis = chebyshev_basis(wavelength, n) if n else np.zeros((0, len(wavelength)))
        correlation = None  # over a masked gap, by its width
        if exposure.correlation_pixels:
            gap = np.diff(np.log(wavelength)) / arm.pixel_step
            correlation = np.exp(-gap / exposure.correlation_pixels)
        return Spectrum(
            f"{name} {wavelength[0]:.0f}–{wavelength[-1]:.0f} Å",
            wavelength,
            flux,
            1 / snr,
            jacobian,
            basis,
            exposure.continuum_sd,
            correlation,
            arm.resolution,
            operator,
            keep,
        )

    def _device_values(self):
        return {n: jnp.float32(v) for n, v in self.values.items()}

    # What follows from the derivatives

    @property
    def n_pix(self) -> int:
        return sum(len(s.wavelength) for s in self.spectra)

    @property
    def names(self) -> tuple[str, ...]:
        """Free parameters in the order of `fisher`."""
        several = len(self.spectra) > 1
        terms = [
            f"continuum[{i}:{k}]" if several else f"continuum[{k}]"
            for i, s in enumerate(self.spectra)
            for k in range(len(s.terms))
        ]
        return (*self.shared, *terms)

    def fisher(self, snr_factor: float = 1.0) -> np.ndarray:
        """Information of data and priors, `(n, n)`, with every S/N multiplied by `snr_factor`."""
        n = len(self.shared)
        fisher = np.zeros((len(self.names),) * 2)
        fisher[:n, :n] = np.diag(self.prior)
        start = n
        for s in self.spectra:
            shared, terms = s.whitened(snr_factor)
            own = slice(start, start + len(terms))
            fisher[:n, :n] += shared @ shared.T
            fisher[:n, own] = shared @ terms.T
            fisher[own, :n] = fisher[:n, own].T
            fisher[own, own] = terms @ terms.T + np.eye(len(terms)) / s.terms_sd**2
            start += len(terms)
        return fisher

    def bounds(self, snr_factor: float = 1.0, *, uncertainty="shipped") -> Bounds:
        """Cramér–Rao bounds, with every S/N multiplied by `snr_factor`.

        `uncertainty`: an `EmulatorUncertainty`, `"shipped"` for that of a shipped emulator, or None; with it the result
        has the `floor` that the emulator's own error puts under the bound.
        """
        unit = step_sizes(self.space, self.names)
        fisher = self.fisher(snr_factor)
        covariance = invert(fisher * np.outer(unit, unit), self.names) * np.outer(unit, unit)
        emulator_covariance, notes = None, self.notes
        if uncertainty is not None:
            from .emulator_floor import emulator_covariance as covariance_of
            from .emulator_floor import find_uncertainty

            found = find_uncertainty(self.emulator, uncertainty)
            if found is None:
                notes = (*notes, "The error of this emulator is not known: the bounds hold for a perfect emulator.")
            else:
                emulator_covariance = covariance_of(self, found, covariance, snr_factor)
        units = dict(zip(self.space.names, self.space.units)) | UNITS
        values = self.values | {n: float(n.endswith(("[0]", ":0]"))) for n in self.names if n not in self.values}
        units = {n: units.get(n, "") for n in self.names}
        return Bounds(self.names, values, fisher, covariance, units, emulator_covariance, notes)

    def information(self, name: str, *, marginal: bool = True) -> list[np.ndarray]:
        """How much each pixel tells about one parameter: one array `(n_pix,)` per spectrum, in 1/unit².

        `marginal`: of the part of its derivative that no combination of the other parameters, continuum included, can
        imitate; the sum over all pixels is then 1/marginal² (less the priors' share). Else of the derivative itself, whose
        sum is 1/conditional². With correlated noise a pixel is credited with what it adds to those before it.
        """
        if name not in self.shared:
            raise EmuinferError(f"'{name}' is not a free parameter; there are {', '.join(self.shared)}.")
        i, unit = self.shared.index(name), step_sizes(self.space, self.names)
        weights = np.eye(len(self.names))[i]
        if marginal:
            covariance = invert(self.fisher() * np.outer(unit, unit), self.names) * np.outer(unit, unit)
            weights = covariance[i] / covariance[i, i]
        out, start, n = [], len(self.shared), len(self.shared)
        for s in self.spectra:
            shared, terms = s.whitened()
            out.append((weights[:n] @ shared + weights[start : start + len(terms)] @ terms) ** 2)
            start += len(terms)
        return out


@eqx.filter_jit
def grid_derivatives(flux_of, scaled):
    """Flux `(n_grid,)` and its derivatives by the scaled labels, `(n_labels, n_grid)`, in forward mode.

    One direction after another: all at once would hold a transformer's activations once per label.
    """
    rows = jax.lax.map(lambda v: jax.jvp(flux_of, (scaled,), (v,))[1], jnp.eye(len(scaled), dtype=scaled.dtype))
    return flux_of(scaled), rows


@eqx.filter_jit
def pixel_derivatives(operator, flux, rows, kernel):
    """What `operator` makes of flux and derivatives on the grid: `(n_pix,)`, and `(n_labels + len(kernel), n_pix)`, the
    derivatives by the values of `kernel` (rv, vbroad, vsini in this order) last."""
    names = [n for n in KERNELS if n in kernel]

    def see(flux, at):
        return operator(flux, at["rv"], at.get("vbroad", 0), at.get("vsini", 0))

    # The operator is linear in 1 − flux.
    by_label = jax.lax.map(lambda row: 1.0 - see(1.0 - row, kernel), rows)
    own = [
        jax.jvp(lambda v, n=n: see(flux, {**kernel, n: v}), (kernel[n],), (jnp.ones_like(kernel[n]),))[1] for n in names
    ]
    return see(flux, kernel), jnp.concatenate([by_label, jnp.stack(own)])


def pixel_flux(flux_of, operator, values, space):
    """Normalised flux at the pixels, `(n_pix,)`: emulator, broadening, Doppler shift, line spread function."""
    scaled = space.scale(jnp.stack([values[n] for n in space.names]))
    return operator(flux_of(scaled), values["rv"], values.get("vbroad", 0), values.get("vsini", 0))


def _reach(arm, values) -> float:
    """Half-width in km/s of all kernels together."""
    lsf = SPEED_OF_LIGHT / (FWHM_PER_SIGMA * arm.resolution)
    return 5 * np.hypot(lsf, values.get("vbroad", 0.0)) + values.get("vsini", 0.0) + abs(values["rv"])
