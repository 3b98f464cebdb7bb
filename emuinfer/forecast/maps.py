"""Bounds over many stars, S/N, resolving powers and windows."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..deprecation import renamed_arguments
from ..entry import public
from ..errors import EmuinferError
from ..forward.continuum import chebyshev_basis, default_terms
from .derivatives import KERNELS, grid_derivatives, pixel_derivatives
from .exposure import Exposure
from .fisher import covariance_of, invert, step_sizes, whiten
from .forecast import Forecast
from .instruments import Instrument

BATCH = 8  # stars whose derivatives are held at once


@dataclasses.dataclass(frozen=True, eq=False)
class BoundsMap:
    """Bounds of many stars: `names` of the shared parameters, `labels` `(n, n_labels)`, `covariance` `(n, n_shared, n_shared)`
    and `conditional` `(n, n_shared)`; NaN where the information is singular."""

    names: tuple[str, ...]
    labels: np.ndarray
    covariance: np.ndarray
    conditional: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def marginal(self) -> np.ndarray:
        """`(n, n_shared)`."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))

    def of(self, name: str) -> np.ndarray:
        """Marginal bounds on one parameter, `(n,)`."""
        if name not in self.names:
            raise EmuinferError(f"'{name}' is not a free parameter; there are {', '.join(self.names)}.")
        return self.marginal[:, self.names.index(name)]


@public
def bounds_map(emulator, labels, exposures, *, batch: int = BATCH, **options) -> BoundsMap:
    """Cramér–Rao bounds of many stars seen by the same exposures, in one compiled program.

    - `labels`: `(n, n_labels)`, all in the emulator's domain.
    - `exposures`, `options`: as for `Forecast`; Gaussian priors have the same curvature for all stars.
    - `batch`: stars whose derivatives are held in memory at once, each (free parameters × pixels) floats several times over.

    On the device the whitened derivatives are reduced to the triangular factor of their QR decomposition: in float32 its
    error grows with the condition number of the derivatives, while that of their product would with its square.
    """
    labels = np.atleast_2d(np.asarray(labels, float))
    space = emulator.label_space
    space.check(labels)
    forecast = Forecast(emulator, labels[0], exposures, **options)
    unit = step_sizes(space, forecast.names)
    spectra = tuple(_device_spectrum(s) for s in forecast.spectra)
    kernels = {n: jnp.float32(forecast.values[n]) for n in forecast.kernels}
    on_device = jnp.asarray(labels, jnp.float32)
    triangles = _triangles(forecast._flux_of, spectra, on_device, kernels, forecast.shared, space, int(batch))
    prior = np.r_[forecast.prior, *(np.full(len(s.basis), s.terms_sd**-2.0) for s in forecast.spectra)] * unit**2
    n = len(forecast.shared)
    covariance, conditional = np.full((len(labels), n, n), np.nan), np.full((len(labels), n), np.nan)
    for i, r in enumerate(np.asarray(triangles, float)):
        fisher = r.T @ r + np.diag(prior)
        try:
            covariance[i] = (invert(fisher, forecast.names) * np.outer(unit, unit))[:n, :n]
        except EmuinferError:
            continue
        conditional[i] = unit[:n] / np.sqrt(np.diag(fisher)[:n])
    return BoundsMap(forecast.shared, labels, covariance, conditional, forecast.notes)


def _device_spectrum(s):
    as32 = lambda a: None if a is None else jnp.asarray(a, jnp.float32)
    return s.operator, as32(s.basis), as32(s.sigma), as32(s.correlation), jnp.asarray(np.flatnonzero(s.keep))


@eqx.filter_jit
def _triangles(flux_of, spectra, labels: Float[Array, "n n_labels"], kernels, shared, space, batch):
    """Upper triangular factors `(n, k, k)` of the whitened derivatives of every star by its k free parameters."""
    order = (*space.names, *(n for n in KERNELS if n in kernels))
    free = np.array([order.index(n) for n in shared])
    total = sum(len(basis) for _, basis, *_ in spectra)

    def one(row):
        flux, by_label = grid_derivatives(flux_of, space.scale(row))
        blocks, before = [], 0
        for operator, basis, sigma, rho, keep in spectra:
            model, rows = pixel_derivatives(operator, flux, by_label, kernels)
            model = model[keep]
            terms = jnp.zeros((total, len(model))).at[before : before + len(basis)].set(basis * model)
            blocks.append(whiten(jnp.concatenate([rows[free][:, keep], terms]), sigma, rho, jnp))
            before += len(basis)
        return jnp.linalg.qr(jnp.concatenate(blocks, axis=1).T, mode="r")

    return jax.lax.map(one, labels, batch_size=batch)


def teff_logg_grid(label_space, teff, logg, **others):
    """Labels `(n_teff, n_logg, n_labels)` over two axes; the rest solar unless given. NaN outside the domain."""
    from ..labels.space import solar_labels

    others = {**solar_labels(label_space), **others}
    label_space.require_names(list(others))
    axes = np.meshgrid(np.asarray(teff, float), np.asarray(logg, float), indexing="ij")
    columns = {**others, "teff": axes[0], "logg": axes[1]}
    grid = label_space.to_array(columns)
    grid[~label_space.contains(grid)] = np.nan
    return grid


@public
def map_teff_logg(emulator, teff, logg, exposures, *, others=None, **kwargs) -> tuple[BoundsMap, np.ndarray]:
    """`bounds_map` over a grid of Teff `(n_teff,)` and log g `(n_logg,)`; and where the grid's nodes are in it.

    `others`: further labels by name, the Sun's by default. Returns the map of the nodes inside the domain and their mask
    `(n_teff, n_logg)`.
    """
    grid = teff_logg_grid(emulator.label_space, teff, logg, **(others or {}))
    inside = np.isfinite(grid).all(-1)
    if not inside.any():
        raise EmuinferError("No node of the grid of Teff and log g lies in the emulator's domain.")
    return bounds_map(emulator, grid[inside], exposures, **kwargs), inside


# Scans for one star


@public
@renamed_arguments(uncertainty="emulator_error")
def against_snr(forecast: Forecast, factors, *, emulator_error=None) -> dict[str, np.ndarray]:
    """Bounds by name, `(n,)`, with every S/N of the forecast multiplied by `factors` `(n,)`; with an `emulator_error` (as
    of `Forecast.bounds`) the `limited` ones."""
    bounds = [forecast.bounds(float(f), emulator_error=emulator_error) for f in factors]
    rows = [b.limited or b.marginal for b in bounds]
    return {n: np.array([r[n] for r in rows]) for n in forecast.shared}


@public
@renamed_arguments(uncertainty="emulator_error")
def snr_needed(
    forecast: Forecast, name: str, precision: float = 0.1, *, emulator_error=None, most: float = 1e5
) -> float:
    """The factor on every S/N of the forecast with which the bound on `name` is `precision`; the S/N itself where the
    forecast was made with `snr=1`.

    With an `emulator_error` the emulator's floor counts too. Infinite where no S/N up to `most` times the present suffices;
    0 where the priors alone are as sharp.
    """
    from scipy.optimize import brentq

    if not (np.isfinite(precision) and precision > 0):
        raise EmuinferError(f"precision = {precision} must be a positive number.")

    def excess(log_factor):
        bounds = forecast.bounds(float(np.exp(log_factor)), emulator_error=emulator_error)
        values = bounds.limited or bounds.marginal
        if name not in forecast.shared:
            raise EmuinferError(f"'{name}' is not a free parameter; there are {', '.join(forecast.shared)}.")
        return np.log(values[name] / precision)

    low, high = np.log(1e-3), np.log(most)
    if excess(high) > 0:
        return float("inf")
    if excess(low) < 0:
        return 0.0
    return float(np.exp(brentq(excess, low, high, xtol=1e-4)))


@public
def against_resolution(
    emulator, labels, resolutions, window, snr, *, snr_per="angstrom", pixels_per_fwhm=3.0, **options
):
    """Bounds by name, `(n,)`, at resolving powers `(n,)` over one `window` (lo, hi) in Å of the emulator's medium.

    With the S/N per ångström, every resolving power gets the same photons. `options`: for `Forecast`.
    """
    rows = []
    for resolution in resolutions:
        lo, hi = window
        instrument = Instrument.single(lo, hi, float(resolution), pixels_per_fwhm, medium=emulator.medium)
        forecast = Forecast(emulator, labels, Exposure(instrument, snr, snr_per), **options)
        rows.append(forecast.bounds(emulator_error=None).marginal)
    return {n: np.array([r[n] for r in rows]) for n in forecast.shared}


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Bounds on one parameter from windows of one width: `centre` (Å) and `bound`, both `(n,)`; `best` (lo, hi) in Å."""

    name: str
    width: float
    centre: np.ndarray
    bound: np.ndarray

    @property
    def best(self) -> tuple[float, float]:
        c = float(self.centre[np.nanargmin(self.bound)])
        return c - 0.5 * self.width, c + 0.5 * self.width


@public
def best_window(forecast: Forecast, name: str, width: float, *, n: int = 80) -> Windows:
    """Bounds on `name` if only a window of `width` Å of the forecast's pixels were used, at `n` places.

    Each window has a continuum of its own (one term per 25 Å). NaN where a window alone does not determine all parameters;
    fix some by priors then. `EmuinferError` where the width is not positive or exceeds every spectrum.
    """
    if name not in forecast.shared:
        raise EmuinferError(f"'{name}' is not a free parameter; there are {', '.join(forecast.shared)}.")
    if not (np.isfinite(width) and width > 0):
        raise EmuinferError(f"width = {width} must be a positive number.")
    centres, bounds = [], []
    for s in forecast.spectra:
        lo, hi = s.wavelength[[0, -1]]
        if hi - lo < width:
            continue
        for centre in np.linspace(lo + 0.5 * width, hi - 0.5 * width, n):
            cut = _cut(s, np.abs(s.wavelength - centre) <= 0.5 * width)
            centres.append(centre)
            bounds.append(_bound_from(forecast, cut, name))
    if not centres:
        raise EmuinferError(f"No spectrum of the forecast is as wide as {width:g} Å.")
    return Windows(name, float(width), np.array(centres), np.array(bounds))


def _cut(s, inside):
    wavelength = s.wavelength[inside]
    basis = chebyshev_basis(wavelength, default_terms(wavelength)) if len(s.basis) else np.zeros((0, len(wavelength)))
    first = np.flatnonzero(inside)[0]
    correlation = None if s.correlation is None else s.correlation[first : first + len(wavelength) - 1]
    return dataclasses.replace(
        s,
        wavelength=wavelength,
        flux=s.flux[inside],
        sigma=s.sigma[inside],
        jacobian=s.jacobian[:, inside],
        basis=basis,
        correlation=correlation,
    )


def _bound_from(forecast, spectrum, name):
    names = (*forecast.shared, *(f"continuum[{i}]" for i in range(len(spectrum.terms))))
    try:
        covariance = covariance_of(spectrum.fisher(forecast.prior), names, forecast.space)
    except EmuinferError:
        return np.nan
    i = forecast.shared.index(name)
    return float(np.sqrt(covariance[i, i]))
