"""Posteriors as ArviZ objects: building, saving, summaries, warnings, importance weights.

ArviZ 0.23 (Python 3.11) speaks `InferenceData`, ArviZ 1.x (Python 3.12 and later) `xarray.DataTree`; here the groups
are made as xarray datasets and put into whichever the installed ArviZ speaks. `arviz.summary`, `arviz.plot_...` and the
attribute access `posterior.posterior["teff"]` work on both.
"""

import datetime
import json
import pathlib

import numpy as np

from ..errors import EmuinferError
from ..files import require_folder_of, written_whole
from .library import import_arviz
from .pareto import pareto_smoothed_weights  # noqa: F401  (used with verify_flag)

# arviz.summary fails on dimensions of these names (0.23 and 1.x alike).
FORBIDDEN_DIMS = ("label", "summary", "variable")
R_HAT_LIMIT = 1.01  # Vehtari et al. 2021, Bayesian Analysis 16, 667
ESS_LIMIT = 400  # the same
BFMI_LIMIT = 0.3  # Betancourt 2016, arXiv:1604.00695; the limit of Stan's diagnose


def build_posterior(
    positions,
    sample_stats,
    *,
    observed_data,
    posterior_predictive=None,
    log_likelihood=None,
    constant_data=None,
    coords=None,
    dims=None,
    attrs=None,
):
    """An ArviZ object (`InferenceData` or `DataTree`) from plain arrays.

    **Arguments:**

    - `positions`: parameter name to draws, shape `(chain, draw, ...)`.
    - `sample_stats`: ArviZ's names (`lp`, `diverging`, `energy`, ...) to arrays of shape `(chain, draw)`.
    - `observed_data`, `constant_data`: name to array without chain and draw axes (flux; wavelength).
    - `posterior_predictive`, `log_likelihood`: name to array `(chain, draw, ...)`.
    - `dims`: variable name to the names of its axes beyond chain and draw; `coords`: axis name to values.
    - `attrs`: facts about the run. Booleans become 0 or 1, mappings and sequences JSON text, `None` is left out: netCDF
      knows strings and numbers only. `created_at` is added.

    Raises `EmuinferError` on wrong shapes and on the axis names that break `arviz.summary`.
    """
    groups = {
        "posterior": (positions, True),
        "posterior_predictive": (posterior_predictive, True),
        "log_likelihood": (log_likelihood, True),
        "sample_stats": (sample_stats, True),
        "observed_data": (observed_data, False),
        "constant_data": (constant_data, False),
    }
    datasets = {
        group: _dataset(group, arrays, sampled, coords or {}, dims or {})
        for group, (arrays, sampled) in groups.items()
        if arrays
    }
    if "posterior" not in datasets:
        raise EmuinferError("A posterior needs the draws of at least one parameter; got none.")
    facts = {"created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **(attrs or {})}
    return _container(datasets, _plain_attrs(facts))


def _dataset(group, arrays, sampled, coords, dims):
    import xarray as xr

    variables, used, shape = {}, set(), None
    for name, value in arrays.items():
        value = np.asarray(value)
        if sampled:
            shape = shape or value.shape[:2]
            if value.ndim < 2 or value.shape[:2] != shape:
                raise EmuinferError(
                    f"'{name}' in {group} must have shape (chain, draw, ...) with {shape} first; got {value.shape}."
                )
        lead = ("chain", "draw") if sampled else ()
        extra = tuple(dims.get(name, ())) or tuple(f"{name}_dim_{i}" for i in range(value.ndim - len(lead)))
        if len(lead + extra) != value.ndim:
            raise EmuinferError(f"'{name}' in {group} has the shape {value.shape}, but the axis names {lead + extra}.")
        if bad := set(extra) & set(FORBIDDEN_DIMS):
            raise EmuinferError(f"The axis of '{name}' must not be called {sorted(bad)}: arviz.summary fails on it.")
        variables[name] = (lead + extra, value)
        used |= set(extra)
    own = {k: np.asarray(v) for k, v in coords.items() if k in used}
    if sampled:
        own.update(chain=np.arange(shape[0]), draw=np.arange(shape[1]))
    return xr.Dataset(variables, coords=own)


def _is_datatree_world():
    return int(import_arviz().__version__.split(".")[0]) >= 1


def _container(datasets, attrs):
    if _is_datatree_world():
        import xarray as xr

        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **datasets})
    return import_arviz().InferenceData(**datasets, attrs=attrs)


def _plain_attrs(attrs):
    plain = {}
    for name, value in attrs.items():
        if isinstance(value, np.generic):
            value = value.item()
        if value is None:
            continue
        if isinstance(value, bool):
            value = int(value)
        elif not isinstance(value, (str, int, float)):
            value = json.dumps(value, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))
        plain[name] = value
    return plain


def save_posterior(posterior, path) -> pathlib.Path:
    """Write a posterior to a netCDF file, under a temporary name first, so that no half-written file is left."""
    path = require_folder_of(path)
    with written_whole(path, failures=(OSError, RuntimeError)) as temporary:  # netCDF raises either on a full disk
        posterior.to_netcdf(str(temporary), engine="netcdf4")
    return path


def load_posterior(path):
    """Read a netCDF file of `save_posterior` wholly into memory, as `InferenceData` or `DataTree`.

    Raises `EmuinferError` if the file is missing, is not netCDF, or holds no posterior.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise EmuinferError(f"There is no posterior file {path}.")
    try:
        posterior = _read(path)
    except Exception as error:  # netCDF4, h5py and xarray raise many kinds on a damaged file
        raise EmuinferError(f"{path} cannot be read as a netCDF file; it may be damaged or foreign: {error}") from error
    if not hasattr(posterior, "posterior"):
        raise EmuinferError(f"{path} is a netCDF file, but holds no group 'posterior'.")
    return posterior


def _read(path):
    import xarray as xr

    if _is_datatree_world():
        with xr.open_datatree(path, engine="netcdf4") as tree:
            return tree.load()
    import netCDF4

    with netCDF4.Dataset(path) as file:
        groups = list(file.groups)
        attrs = {name: file.getncattr(name) for name in file.ncattrs()}
    # Read group by group: arviz.from_netcdf keeps the file open and reads it lazily.
    return _container({g: xr.load_dataset(path, group=g, engine="netcdf4") for g in groups}, _plain_attrs(attrs))


def draws_of(posterior, name) -> np.ndarray:
    """Draws of one parameter, shape `(chain, draw, ...)`, float64."""
    group = posterior["posterior"]
    if name not in group:
        raise EmuinferError(f"The posterior has no parameter '{name}'. It has: {', '.join(map(str, group.data_vars))}.")
    return np.asarray(group[name].values, dtype=float)


def summary_table(posterior, names=None, units=None):
    """A table with one row per scalar parameter (`astropy.table.Table`).

    Columns: `label, unit, mean, sd, q16, median, q84, r_hat, ess_bulk`, with the rank-normalised split R-hat and bulk
    effective sample size of Vehtari et al. (2021) as ArviZ computes them; both are NaN where a parameter is constant.

    - `names`: parameters, in the order of the rows; all of them by default. The elements of an array `a` become
      rows `a[0]`, `a[1]`, ...
    - `units`: parameter name to unit string.
    """
    from astropy.table import Table

    rows = []
    for label, name, x in _scalars(posterior, names):
        q16, median, q84 = np.quantile(x, [0.16, 0.5, 0.84])
        r_hat, ess = _convergence(x)
        rows.append((label, str((units or {}).get(name, "")), x.mean(), x.std(ddof=1), q16, median, q84, r_hat, ess))
    columns = ("label", "unit", "mean", "sd", "q16", "median", "q84", "r_hat", "ess_bulk")
    return Table(rows=rows, names=columns, dtype=(str, str) + (float,) * 7)


def _scalars(posterior, names):
    """`(label, name, draws)` of every scalar among the parameters; draws have shape `(chain, draw)`."""
    for name in names if names is not None else list(posterior["posterior"].data_vars):
        x = draws_of(posterior, name)
        for index in np.ndindex(x.shape[2:]):
            yield name + (f"[{', '.join(map(str, index))}]" if index else ""), name, x[(..., *index)]


def _convergence(x):
    arviz = import_arviz()
    if np.ptp(x) == 0 or not np.isfinite(x).all():
        return np.nan, np.nan
    r_hat = float(arviz.rhat(x)) if x.shape[0] > 1 else np.nan
    return r_hat, float(arviz.ess(x))


def diagnose(posterior, *, names=None, bounds=None) -> list[str]:
    """What is wrong with a posterior, in plain words with the remedy; an empty list if nothing was found.

    Looks at R-hat, bulk ESS, divergences, the energy's Bayesian fraction of missing information, and, if `bounds`
    (parameter name to `(lower, upper)` of its prior) is given, at posteriors that lean on a bound.
    """
    found, r_hats, sizes = [], {}, {}
    for label, name, x in _scalars(posterior, names):
        r_hats[label], sizes[label] = _convergence(x)
        if name in (bounds or {}):
            found += _leaning(label, x, *bounds[name])
    return _sampling_warnings(posterior, r_hats, sizes) + found


def _sampling_warnings(posterior, r_hats, sizes):
    found = []
    if posterior["posterior"].sizes["chain"] < 2:
        found.append("There is only one chain, so R-hat cannot tell whether it has converged. Run 4.")
    high = {k: v for k, v in r_hats.items() if v >= R_HAT_LIMIT}
    if high:
        worst = max(high, key=high.get)
        found.append(
            f"The chains have not mixed: R-hat is {R_HAT_LIMIT} or more for {_listed(high)} (worst: {worst}, "
            f"{high[worst]:.3f}). Run longer; if it stays, the posterior may have several modes: "
            "look at its traces."
        )
    few = {k: v for k, v in sizes.items() if v < ESS_LIMIT}
    if few:
        worst = min(few, key=few.get)
        found.append(
            f"Few independent draws: the bulk effective sample size is below {ESS_LIMIT} for {_listed(few)} (worst: "
            f"{worst}, {few[worst]:.0f}). Take more draws; quantiles are uncertain until then."
        )
    frozen = [k for k, v in sizes.items() if np.isnan(v)]
    if frozen:
        found.append(
            f"The draws of {_listed(frozen)} are constant or not finite: the sampler did not move. Try another start."
        )
    return found + _energy_warnings(getattr(posterior, "sample_stats", None))


def _energy_warnings(stats):
    found = []
    if stats is not None and "diverging" in stats:
        count, total = int(stats["diverging"].values.sum()), stats["diverging"].size
        if count:
            found.append(
                f"{count} of {total} transitions diverged: the sampler missed regions of strong curvature, and the "
                "posterior may be biased. Raise the target acceptance (0.95, 0.99) or reparametrise."
            )
    if stats is not None and "energy" in stats:
        energy = np.asarray(stats["energy"].values, float)
        # Betancourt (2016), eq. 5: squared steps of the energy over its variance.
        bfmi = np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.maximum(energy.var(axis=1), 1e-300)
        if bfmi.min() < BFMI_LIMIT:
            found.append(
                f"The energy mixes slowly (E-BFMI {bfmi.min():.2f} < {BFMI_LIMIT} in chain {int(bfmi.argmin())}), a "
                "sign of heavy tails. Run longer, or reparametrise."
            )
    return found


def _leaning(label, x, lower, upper):
    """A sentence per prior bound at which the posterior piles up.

    More than 5 % of the draws within a quarter standard deviation of the bound: a Gaussian whose mean is 1.2 standard
    deviations or less from the bound has that, and so has a posterior as flat as its prior.
    """
    near = 0.25 * x.std()
    sides = [side for side, part in (("lower", x < lower + near), ("upper", x > upper - near)) if part.mean() > 0.05]
    if not sides:
        return []
    if len(sides) == 2:
        return [
            f"The posterior of {label} fills its whole prior range [{lower:g}, {upper:g}]: the data say little about "
            "it. Report it as a limit or not at all."
        ]
    bound = lower if sides[0] == "lower" else upper
    return [
        f"The posterior of {label} piles up at the {sides[0]} bound of its prior, {bound:g}: take it as a limit. "
        "Widen the prior if the emulator's domain allows, or use an emulator that reaches farther."
    ]


def _listed(names, most=6):
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def verify_flag(k_hat, ess, n) -> tuple[str, str]:
    """A verdict on importance weights of `n` draws: `("ok" | "warn" | "fail", message)`.

    The limits are those of Vehtari et al. (2024): k-hat up to 0.5 is good, up to min(1 - 1/log10(n), 0.7) usable,
    beyond that the reweighted posterior cannot be trusted. Where the weights hardly vary (effective draws above 99 % of `n`,
    a standard deviation below 10 %), the shape of their tail is that of rounding errors and decides nothing.
    """
    limit = min(1 - 1 / np.log10(max(n, 11)), 0.7)
    figures = f"Pareto k-hat {k_hat:.2f}, effective draws {ess:.0f} of {n}"
    alike = np.isfinite(k_hat) and ess > 0.99 * n
    if (not k_hat <= limit or ess < 10) and not alike:
        return "fail", (
            f"The posterior does not hold against the full emulator ({figures}; k-hat must be below {limit:.2f}). "
            "Build the reduced emulator anew around this star, or with a smaller error, and do not use these values."
        )
    if (k_hat > 0.5 or ess < 0.3 * n) and not alike:
        return "warn", (
            f"The reduced and the full emulator differ visibly ({figures}). Use the reweighted values, and take small "
            "differences with care."
        )
    return "ok", f"The posterior holds against the full emulator ({figures})."
