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
from .limits import Limit

# arviz.summary fails on dimensions of these names (0.23 and 1.x alike).
FORBIDDEN_DIMS = ("label", "summary", "variable")


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
    group_dims=None,
    thinned=None,
    attrs=None,
):
    """An ArviZ object (`InferenceData` or `DataTree`) from plain arrays.

    **Arguments:**

    - `positions`: parameter name to draws, shape `(chain, draw, ...)`.
    - `sample_stats`: ArviZ's names (`lp`, `diverging`, `energy`, ...) to arrays of shape `(chain, draw)`.
    - `observed_data`, `constant_data`: name to array without chain and draw axes (flux; wavelength).
    - `posterior_predictive`, `log_likelihood`: name to array `(chain, draw, ...)`.
    - `dims`: variable name to the names of its axes beyond chain and draw; `coords`: axis name to values. `group_dims`: the
      same for the variables of one group, by its name, where they differ.
    - `thinned`: group name to the indices of the draws that it holds, where it does not hold all.
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
        group: _dataset(
            group,
            arrays,
            sampled,
            coords or {},
            {**(dims or {}), **(group_dims or {}).get(group, {})},
            (thinned or {}).get(group),
        )
        for group, (arrays, sampled) in groups.items()
        if arrays
    }
    if "posterior" not in datasets:
        raise EmuinferError("A posterior needs the draws of at least one parameter; got none.")
    facts = {"created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **(attrs or {})}
    return _container(datasets, plain_attrs(facts))


def _dataset(group, arrays, sampled, coords, dims, draws=None):
    import xarray as xr

    variables: dict[str, tuple] = {}
    used: set[str] = set()
    shape: tuple[int, ...] = ()
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
        own.update(chain=np.arange(shape[0]), draw=np.arange(shape[1]) if draws is None else np.asarray(draws))
    return xr.Dataset(variables, coords=own)


def _is_datatree_world():
    return int(import_arviz().__version__.split(".")[0]) >= 1


def _container(datasets, attrs):
    if _is_datatree_world():
        import xarray as xr

        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **datasets})
    return import_arviz().InferenceData(**datasets, attrs=attrs)


def plain_attrs(attrs) -> dict:
    """`attrs` as netCDF can keep them: see `build_posterior`."""
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
    return _container({g: xr.load_dataset(path, group=g, engine="netcdf4") for g in groups}, plain_attrs(attrs))


def draws_of(posterior, name) -> np.ndarray:
    """Draws of one parameter, shape `(chain, draw, ...)`, float64."""
    group = posterior["posterior"]
    if name not in group:
        raise EmuinferError(f"The posterior has no parameter '{name}'. It has: {', '.join(map(str, group.data_vars))}.")
    return np.asarray(group[name].values, dtype=float)


def summary_table(posterior, names=None, units=None):
    """A table with one row per scalar parameter (`astropy.table.Table`).

    Columns: `label, unit, mean, sd, q16, median, q84, r_hat, ess_bulk`, with the rank-normalised split R-hat and bulk
    effective sample size of Vehtari et al. (2021) as ArviZ computes them; both are NaN where a parameter is constant. A posterior of
    `sample` has `verdict` and `limit` beside: whether the data measure a parameter, or the 95 % limit that they give (see `limits_of`).

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
    table = Table(rows=rows, names=columns, dtype=(str, str) + (float,) * 7)
    if known := stored_limits(posterior):
        found = [known.get(name, Limit("")) for name in table["label"].tolist()]
        table["verdict"], table["limit"] = [one.verdict for one in found], [one.value for one in found]
    return table


def stored_limits(posterior) -> dict[str, Limit]:
    """The verdicts that `sample` has put into a posterior, by parameter; empty where there are none."""
    told = json.loads(posterior.attrs.get("limits", "{}"))
    number = lambda v: np.nan if v is None else float(v)
    return {n: Limit(str(one[0]), number(one[1]), number(one[2])) for n, one in told.items()}


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
