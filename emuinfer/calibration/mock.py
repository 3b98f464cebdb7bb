"""Mock observations for `check_coverage`: spectra of another code than the emulator, seen through an instrument."""

import dataclasses
from pathlib import Path

import numpy as np

from ..constants import RV_RANGE
from ..errors import GridError, LabelError, SamplingError
from ..files import written_hdf5
from ..forward.operator import SpectrumOperator, usable_range
from ..labels.check import require_same_labels
from ..labels.windows import window_of
from ..wavelengths.uniform import VelocityGrid, log_pixels, log_uniform

REACH = 45.0  # km/s of source spectrum beyond each pixel that its kernels may need
TILT = 0.1  # standard deviation of the first Chebyshev coefficient of a continuum; the k-th has TILT / k
LTE_STEP = 0.02  # Å
LTE_SEED = 1_000_003  # added to the seed of the design, so that no spectrum is one that an emulator was trained on
KS_ALARM = 0.01
NAMED_ROWS = ("held-out", "flagship")


@dataclasses.dataclass(frozen=True)
class Mock:
    """What is observed: `resolution` λ / FWHM, `pixels_per_fwhm`, `snr` per pixel in the continuum, `broadening` as of
    `StellarModel`, `rv_range` km/s from which the velocities are drawn, `seed` of all of it.

    **Raises:** `GridError` on numbers that are out of range.
    """

    resolution: float
    pixels_per_fwhm: float
    snr: tuple[float, ...]
    broadening: str = "vbroad"
    rv_range: tuple[float, float] = (-100.0, 100.0)
    seed: int = 0

    def __post_init__(self):
        lo, hi = self.rv_range
        if not self.resolution > 0 or not self.pixels_per_fwhm >= 1.5:
            raise GridError(
                "resolution must be positive and pixels_per_fwhm at least 1.5; got "
                f"{self.resolution:g} and {self.pixels_per_fwhm:g}."
            )
        if not len(self.snr) or not all(np.isfinite(s) and s > 0 for s in self.snr):
            raise GridError(f"snr must be one or more positive numbers; got {list(self.snr)}.")
        if len(set(self.snr)) < len(self.snr):
            raise GridError(f"Each S/N is to be given once; got {list(self.snr)}.")
        if not RV_RANGE[0] <= lo < hi <= RV_RANGE[1]:
            raise GridError(
                f"rv_range must be two increasing velocities within ±{RV_RANGE[1]:,.0f} km/s; got {lo:g} and {hi:g}."
            )

    @classmethod
    def of(cls, resolution, pixels_per_fwhm, snr, broadening, rv_range, seed) -> "Mock":
        """From numbers of any kind; `snr`: one or several."""
        several = tuple(float(s) for s in np.atleast_1d(snr))
        lo, hi = (float(v) for v in rv_range)
        return cls(float(resolution), float(pixels_per_fwhm), several, broadening, (lo, hi), int(seed))


def load_source(source, emulator, folder: Path, *, n, medium, seed, workers=0, progress=True):
    """The spectra as a `Grid`: a `Grid`, the path of one (`.h5`, `.npz`), `"lte"`, or a backend of `generate_grid`.

    The last two compute `n` spectra, into `spectra.h5` of `folder`.
    """
    from ..grids import Grid, generate_grid, import_npz

    if isinstance(source, Grid):
        return source
    if isinstance(source, str) and source == "lte":
        from ..synthesis import make_backend

        lo, hi = emulator.wavelength_range
        wavelength = np.round(np.arange(np.ceil(lo / LTE_STEP), np.floor(hi / LTE_STEP) + 1) * LTE_STEP, 4)
        chosen = {"labels": emulator.label_space, "wavelength": wavelength, "medium": emulator.medium}
        source = make_backend("lte", window=window_of(emulator), **chosen)
    if callable(source):
        if not n:
            raise GridError("How many spectra are to be computed? Give n.")
        path = folder / "spectra.h5"
        generate_grid(path, source, n, seed=LTE_SEED + seed, workers=workers, progress=progress)
        return Grid.load(path)
    path = Path(source)
    if not path.is_file():
        raise GridError(f"There is no grid file {path}; a source is a .h5 or .npz file, or 'lte'.")
    if path.suffix == ".npz":
        return import_npz(path, label_space=emulator.label_space, medium=medium or emulator.medium)
    return Grid.load(path)


def choose_rows(grid, rows, n, seed) -> np.ndarray:
    """Indices into the grid: `rows`, of which `n` at random if there are more.

    `rows`: indices, a mask, a slice, None for all, `"held-out"` (the tenth that `emuinfer train` holds out) or `"flagship"`
    (the tenth that `training.flagship` holds out). Raises `GridError` where there are no such rows.
    """
    if isinstance(rows, str):
        if rows not in NAMED_ROWS:
            raise GridError(f"rows may be indices, a mask, a slice, or one of {', '.join(NAMED_ROWS)}; got '{rows}'.")
        from ..grids.split import flagship_split

        rows = grid.split()[1] if rows == "held-out" else flagship_split(len(grid))[1]
    rows = np.arange(len(grid))[slice(None) if rows is None else rows if isinstance(rows, slice) else np.asarray(rows)]
    if n is not None and n < 1:
        raise GridError(f"n must be at least 1; got {n}.")
    if n is not None and n > len(rows):
        raise GridError(f"{n} spectra were asked for, but only {len(rows)} of the source are chosen.")
    if not len(rows):
        raise GridError("No spectrum of the source is chosen.")
    if n is not None and n < len(rows):
        rows = np.sort(np.random.default_rng([seed, 31]).choice(rows, n, replace=False))
    return rows


def labels_of(grid, rows, label_space) -> np.ndarray:
    """Labels of `rows` of the grid in the order of `label_space`, `(n, n_labels)`."""
    return label_space.to_array(grid.label_space.to_dict(grid.labels[rows]))


def check_source(grid, emulator, mock: Mock) -> None:
    """Raise `GridError` where labels, medium, range or sampling of the source do not fit."""
    remedy = "They must be the same."
    require_same_labels(
        grid.label_space, "The source", emulator.label_space, "the emulator", remedy=remedy, error=GridError
    )
    if grid.medium != emulator.medium:
        raise GridError(f"The source's wavelengths are in {grid.medium}, the emulator's in {emulator.medium}.")
    fwhm, step = grid.wavelength.mean() / mock.resolution, np.diff(grid.wavelength).max()
    if step > fwhm / 3:
        raise GridError(
            f"The source has pixels of {step:.3g} Å, too wide for R = {mock.resolution:g} (FWHM {fwhm:.3g} Å): at least 3 per "
            "FWHM are needed."
        )
    lo, hi = pixel_range(grid, emulator, mock)
    if not hi - lo > 40 * fwhm:
        raise GridError(
            f"Source ({grid.wavelength[0]:.1f}–{grid.wavelength[-1]:.1f} Å) and emulator ({emulator.wavelength_range[0]:.1f}–"
            f"{emulator.wavelength_range[1]:.1f} Å) have too little in common once shifted by up to {mock.rv_range} km/s."
        )


def pixel_range(grid, emulator, mock) -> tuple[float, float]:
    """Å that both source and emulator determine at every velocity."""
    ends = [
        max(grid.wavelength[0], emulator.wavelength_range[0]),
        min(grid.wavelength[-1], emulator.wavelength_range[1]),
    ]
    return usable_range(ends, mock.rv_range, REACH, grid.medium)


def prior_check(label_space, labels) -> tuple[dict, int]:
    """p-values of labels `(n, n_labels)` being drawn from the flat prior, by label, and how many lie outside the domain.

    Two-sample Kolmogorov–Smirnov tests against 8,192 points that fill the domain.
    """
    from scipy.stats import ks_2samp

    from ..labels import sobol_design

    prior = sobol_design(label_space, 8192, seed=7)
    p = {n: float(ks_2samp(labels[:, i], prior[:, i]).pvalue) for i, n in enumerate(label_space.names)}
    return p, int((~label_space.contains(labels, tolerance=1e-3)).sum())


def nuisance_draws(mock: Mock, priors: dict, n: int) -> dict:
    """True velocities and broadening of `n` stars: `rv` uniform in its range, the others from the priors of the fit."""
    import jax

    from ..likelihoods.priors import BROADENING, default_nuisance_priors

    draws = {"rv": np.random.default_rng([mock.seed, 32]).uniform(*mock.rv_range, n)}
    of_fit = {**default_nuisance_priors(mock.broadening), **priors}
    for i, name in enumerate(BROADENING[mock.broadening]):
        prior = of_fit[name]
        fixed = isinstance(prior, int | float)
        key = jax.random.fold_in(jax.random.key(mock.seed), i)
        draws[name] = np.full(n, float(prior)) if fixed else np.asarray(prior.sample(key, (n,)), float)
    return draws


def check_priors(priors) -> dict:
    """`priors` of nuisance parameters; `LabelError` for labels, whose truth is what the source says."""
    priors = dict(priors or {})
    if wrong := sorted(set(priors) - {"vbroad", "vsini", "log10_jitter"}):
        raise LabelError(
            f"A prior of {', '.join(wrong)} cannot be given: stars are drawn from the flat prior of the labels and from rv_range. "
            "Those of vbroad, vsini and log10_jitter can."
        )
    return priors


def observe(grid, rows, emulator, mock: Mock, priors: dict, path: Path) -> dict:
    """Write the mock spectra to `path` for `SpectrumStack`, each of `rows` once per S/N; returns the true values.

    The S/N are those of a pixel in the continuum, with the same noise in all pixels. The spectra at different S/N are those
    of the same stars with noise of their own. Star i at the j-th S/N is row j × len(rows) + i.
    """

    lo, hi = pixel_range(grid, emulator, mock)
    wavelength = log_pixels(lo, hi, 1 / (mock.resolution * mock.pixels_per_fwhm))
    labels = emulator.label_space.to_dict(labels_of(grid, rows, emulator.label_space))
    truth = {**labels, **nuisance_draws(mock, priors, len(rows))}
    clean = _through_instrument(grid, rows, wavelength, mock, truth)
    rng = np.random.default_rng([mock.seed, 33])
    continuum = _continua(rng, wavelength, len(rows))
    shape = (len(mock.snr), *clean.shape)
    sigma = np.broadcast_to(continuum / np.asarray(mock.snr)[:, None, None], shape)
    flux = clean * continuum + sigma * rng.standard_normal(shape)
    with written_hdf5(path, SamplingError) as file:
        file["wavelength"] = wavelength
        file["flux"], file["uncertainty"] = (a.reshape(-1, len(wavelength)).astype(np.float32) for a in (flux, sigma))
        file["name"] = [f"{row} at S/N {s:g}" for s in mock.snr for row in rows]
        file["truth"] = np.stack(list(truth.values()), -1)
        file.attrs.update(medium=grid.medium, resolution=float(mock.resolution), parameters=list(truth))
    return truth


def _through_instrument(grid, rows, wavelength, mock, truth):
    """Normalised flux at the pixels, `(n, n_pix)`, from cubic splines through the source's pixels."""
    import equinox as eqx
    import jax.numpy as jnp
    from scipy.interpolate import CubicSpline

    a, b = grid.wavelength[[0, -1]]
    count = int(1.5 * np.log(b / a) / np.min(np.diff(np.log(grid.wavelength)))) + 2
    fine = VelocityGrid.from_wavelength(log_uniform(a, b, count))
    operator = SpectrumOperator(fine, wavelength, mock.resolution, rv_range=mock.rv_range, medium=grid.medium)
    see = eqx.filter_jit(lambda op, f, rv, vbroad, vsini: op(f, rv, vbroad, vsini))
    at = np.clip(fine.wavelength, a, b)
    out = np.empty((len(rows), len(wavelength)))
    for i, row in enumerate(rows):
        flux = CubicSpline(grid.wavelength, np.asarray(grid.flux[row], float))(at)
        kernels = [jnp.float32(truth[k][i]) if k in truth else 0 for k in ("rv", "vbroad", "vsini")]
        out[i] = see(operator, jnp.asarray(flux, jnp.float32), *kernels)
    return out


def _continua(rng, wavelength, n):
    """Random smooth continua in arbitrary units, `(n, n_pix)`: within what the continuum of a fit can follow."""
    from ..forward.continuum import chebyshev_basis, default_terms

    terms = max(2, default_terms(wavelength) - 1)
    coefficients = rng.standard_normal((n, terms)) * TILT / np.arange(1, terms + 1) ** 1.5
    coefficients[:, 0] = 1.0
    shape = np.maximum(coefficients @ chebyshev_basis(wavelength, terms), 0.3)
    return 1000 * np.exp(0.5 * rng.standard_normal((n, 1))) * shape
