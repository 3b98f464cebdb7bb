"""Figures of a fit and of a posterior, as PNG files, without a display and without touching the user's matplotlib."""

import os
import pathlib
import tempfile

import numpy as np

from ..errors import EmuinferError

LABEL_TEXT = {
    "teff": r"$T_\mathrm{eff}$ [K]",
    "logg": r"$\log g$",
    "vmic": r"$v_\mathrm{mic}$ [km/s]",
    "rv": r"$v_\mathrm{rad}$ [km/s]",
    "vsini": r"$v\,\sin i$ [km/s]",
    "vbroad": r"$v_\mathrm{broad}$ [km/s]",
    "vmac": r"$v_\mathrm{mac}$ [km/s]",
    "log_jitter": r"$\ln$ jitter",
}
DATA, MODEL, SHADE = "#333333", "#d1495b", "#d9d9d9"
FILL, LINE = ("#9ecae1", "#3182bd"), "#08519c"
MASS = (0.95, 0.68)


def label_text(name: str) -> str:
    """How a parameter is written on an axis: `"teff"` as T_eff [K], `"fe_h"` as [Fe/H], `"mg_fe"` as [Mg/Fe]."""
    if name in LABEL_TEXT:
        return LABEL_TEXT[name]
    parts = name.split("_")
    if len(parts) == 2 and parts[1] in ("h", "fe") and 1 <= len(parts[0]) <= 2 or name in ("alpha_fe", "alpha_h"):
        over = {"h": "H", "fe": "Fe"}[parts[1]]
        return "[" + {"alpha": r"$\alpha$"}.get(parts[0], parts[0].capitalize()) + f"/{over}]"
    return name.replace("_", " ")


def plot_fit(
    path,
    wavelength,
    flux,
    uncertainty,
    model,
    good=None,
    *,
    model_band=None,
    model_error=None,
    title="",
    panel_width=50.0,
):
    """Data, model and residuals in stacked panels of `panel_width` ångström.

    **Arguments:**

    - `path`: PNG file to write; `None` writes none. The matplotlib `Figure` is returned either way.
    - `wavelength` (ångström), `flux`, `uncertainty`, `model`: shape `(pixels,)`, in the units of the data.
    - `good`: bool `(pixels,)`; the others are shaded as masked and left out of the residuals.
    - `model_band`: `(low, high)` of the posterior's model flux, each `(pixels,)`, shaded around the model.
    - `model_error`: standard deviation of the model's error (lines, emulator), `(pixels,)`, shaded in the residuals.

    Under each stretch of spectrum a strip shows the residuals, data minus model, in the flux's unit with the one-sigma
    band of the data (grey) and of the model (red), and a second one shows them in units of the data's sigma.
    """
    x, y, sigma, m = (np.asarray(a, float).ravel() for a in (wavelength, flux, uncertainty, model))
    if not x.shape == y.shape == sigma.shape == m.shape or len(x) < 2:
        raise EmuinferError(
            "Wavelength, flux, uncertainty and model must have one length of at least 2; got "
            f"{len(x)}, {len(y)}, {len(sigma)}, {len(m)}."
        )
    usable = np.isfinite(y) & np.isfinite(sigma) & (sigma > 0) & np.isfinite(m)
    good = usable & (np.ones(len(x), bool) if good is None else np.asarray(good, bool))
    rows = max(1, int(np.ceil((x[-1] - x[0]) / panel_width - 1e-6)))
    height = 0.7 + 3.3 * rows  # inches
    figure = _figure(16, height)
    margin = 0.45 / height
    outer = figure.add_gridspec(rows, 1, hspace=0.22, left=0.055, right=0.99, top=1 - margin, bottom=margin)
    limits = _limits(y, m, sigma, good)
    edges = np.linspace(x[0], x[-1], rows + 1)
    for row in range(rows):
        inner = outer[row].subgridspec(3, 1, height_ratios=(4, 1.1, 1.1), hspace=0.0)
        panels = [figure.add_subplot(inner[i]) for i in range(3)]
        take = slice(max(0, np.searchsorted(x, edges[row]) - 1), np.searchsorted(x, edges[row + 1]) + 1)
        part = [a[take] for a in (x, y, sigma, m, good)]
        bands = [None if b is None else np.asarray(b, float)[..., take] for b in (model_band, model_error)]
        _fit_row(panels, part, bands, limits, edges[row : row + 2])
        if row == 0:
            handles = panels[0].get_legend_handles_labels()[0] + _legend_patches(good, model_band, model_error)
            panels[0].legend(handles=handles, loc="lower right", ncols=5, fontsize=9, framealpha=0.9)
    panels[-1].set_xlabel("wavelength [Å]")
    figure.suptitle(title, y=1 - 0.12 / height, va="top", fontsize=12)
    _write(figure, path)
    return figure


def _fit_row(panels, part, bands, limits, edges):
    x, y, sigma, m, good = part
    model_band, model_error = bands
    top, middle, bottom = panels
    shown = np.where(good, y, np.nan)
    residual = np.where(good, y - m, np.nan)
    if model_band is not None:
        top.fill_between(x, model_band[0], model_band[1], color=MODEL, alpha=0.3, lw=0, step="mid")
    top.plot(x, y, color="#bbbbbb", lw=0.6, drawstyle="steps-mid")
    top.plot(x, shown, color=DATA, lw=1.5, drawstyle="steps-mid", label="data")
    top.plot(x, m, color=MODEL, lw=0.8, label="model")
    middle.fill_between(x, -sigma, sigma, color="#c8c8c8", lw=0, step="mid")
    if model_error is not None:
        middle.fill_between(x, -model_error, model_error, color=MODEL, alpha=0.3, lw=0, step="mid")
    middle.plot(x, residual, color=DATA, lw=0.6, drawstyle="steps-mid")
    bottom.axhspan(-1, 1, color="#c8c8c8", lw=0)
    bottom.plot(x, residual / np.where(good, sigma, np.nan), color=DATA, lw=0.6, drawstyle="steps-mid")
    for axis, limit, name in zip(panels, limits, ("flux", "resid.", r"resid./$\sigma$")):
        axis.set_xlim(edges)
        axis.set_ylim(limit)
        axis.set_ylabel(name, fontsize=9)
        axis.tick_params(labelsize=8, labelbottom=axis is bottom, direction="in", top=True, right=True)
        axis.yaxis.set_label_coords(-0.035, 0.5)
        for first, last in _stretches(~good):
            axis.axvspan(*_edges(x, first, last), color=SHADE, alpha=0.6, lw=0, zorder=0)
    for axis in (middle, bottom):
        axis.axhline(0, color=MODEL, lw=0.7)
        axis.locator_params(axis="y", nbins=3, prune="both")


def _legend_patches(good, model_band, model_error):
    from matplotlib.patches import Patch

    patches = []
    if model_band is not None or model_error is not None:
        patches.append(Patch(color=MODEL, alpha=0.3, lw=0, label="posterior and error of the model"))
    patches.append(Patch(color="#c8c8c8", lw=0, label="1 sigma of the data"))
    if not good.all():
        patches.append(Patch(color=SHADE, alpha=0.6, lw=0, label="masked"))
    return patches


def _limits(y, m, sigma, good):
    """Common limits of the three kinds of panel over all rows, robust against single bad pixels."""
    if not good.any():
        return (0, 1.1), (-1, 1), (-5, 5)
    low, high = min(np.quantile(y[good], 0.001), m[good].min()), max(np.quantile(y[good], 0.999), m[good].max())
    room = 0.06 * max(high - low, 1e-12)
    residual = np.abs(y - m)[good]
    wide = 1.15 * max(np.quantile(residual, 0.998), np.median(sigma[good]) * 2)
    many = max(1.15 * np.quantile(residual / sigma[good], 0.998), 4)
    return (low - room, high + room), (-wide, wide), (-many, many)


def _stretches(flag):
    """First and last index of every run of true values."""
    change = np.flatnonzero(np.diff(np.concatenate(([0], flag.astype(int), [0]))))
    return [(first, last - 1) for first, last in zip(change[::2], change[1::2])]


def _edges(x, first, last):
    step = np.gradient(x)
    return x[first] - 0.5 * step[first], x[last] + 0.5 * step[last]


def plot_corner(path, samples, *, truths=None, bins=40, max_draws=20000, title=""):
    """Marginal posteriors of every parameter and every pair, with 68 and 95 % regions.

    - `samples`: parameter name to draws of any shape; flattened. Names are written by `label_text`.
    - `truths`: name to a value, or a `(value, sigma)` pair from the literature, marked in red.

    Writes the PNG file `path` (`None` writes none) and returns the matplotlib `Figure`.
    """
    names = list(samples)
    draws = {k: np.asarray(v, float).ravel() for k, v in samples.items()}
    if not names or len({len(v) for v in draws.values()}) > 1:
        lengths = {k: len(v) for k, v in draws.items()}
        raise EmuinferError(f"A corner plot needs equally many draws of every parameter; got {lengths}.")
    if bad := [k for k, v in draws.items() if not np.isfinite(v).all() or np.ptp(v) == 0]:
        raise EmuinferError(f"A corner plot needs draws that are finite and vary; those of {bad} do not.")
    thin = max(1, -(-len(draws[names[0]]) // max_draws))
    draws = {k: v[::thin] for k, v in draws.items()}
    n = len(names)
    size = max(1.15 * n + 0.9, 5)
    figure = _figure(size, size)
    grid = figure.add_gridspec(
        n,
        n,
        left=0.9 / size,
        right=1 - 0.25 / size,
        bottom=0.85 / size,
        top=1 - 0.55 / size,
        wspace=0.08,
        hspace=0.2,
    )
    ranges = {k: _range(v) for k, v in draws.items()}
    for i, below in enumerate(names):
        for j, across in enumerate(names[: i + 1]):
            axis = figure.add_subplot(grid[i, j])
            if i == j:
                _marginal(axis, draws[below], ranges[below], bins)
            else:
                _pair(axis, draws[across], draws[below], ranges[across], ranges[below], bins)
                axis.set_ylim(ranges[below])
            axis.set_xlim(ranges[across])
            _mark(axis, (truths or {}).get(across), None if i == j else (truths or {}).get(below))
            _ticks(axis, label_text(across) if i == n - 1 else "", label_text(below) if j == 0 < i else "")
    figure.suptitle(title, fontsize=13)
    _write(figure, path)
    return figure


def _range(x):
    low, high = np.quantile(x, [0.002, 0.998])
    return low - 0.08 * (high - low), high + 0.08 * (high - low)


def _marginal(axis, x, limits, bins):
    axis.hist(x, bins=bins, range=limits, histtype="stepfilled", color=FILL[0], edgecolor=LINE, lw=0.8)
    q16, q50, q84 = np.quantile(x, [0.16, 0.5, 0.84])
    for q, style in ((q16, ":"), (q50, "-"), (q84, ":")):
        axis.axvline(q, color=LINE, lw=0.8, ls=style)
    axis.set_title(_value(q50, q84 - q50, q50 - q16), fontsize=9.5, pad=3)


def _value(value, up, down):
    """`5713 +25 -24` with as many decimals as two digits of the smaller error need."""
    smallest = max(min(up, down), 1e-12)
    decimals = int(np.clip(1 - np.floor(np.log10(smallest)), 0, 6))
    return rf"${value:.{decimals}f}^{{+{up:.{decimals}f}}}_{{-{down:.{decimals}f}}}$"


def _pair(axis, x, y, x_limits, y_limits, bins):
    """Filled regions that hold 68 and 95 % of the draws, from a smoothed histogram."""
    from scipy.ndimage import gaussian_filter

    counts, x_edges, y_edges = np.histogram2d(x, y, bins=bins, range=(x_limits, y_limits))
    counts = gaussian_filter(counts, 1.2)
    order = np.sort(counts.ravel())[::-1]
    inside = np.cumsum(order) / order.sum()
    levels = [order[np.searchsorted(inside, mass)] for mass in MASS]
    centres = [0.5 * (e[1:] + e[:-1]) for e in (x_edges, y_edges)]
    if 0 < levels[0] < levels[1] < order[0]:
        axis.contourf(*centres, counts.T, levels=[*levels, order[0]], colors=FILL)
        axis.contour(*centres, counts.T, levels=levels, colors=LINE, linewidths=0.6)
    else:  # too few draws for regions
        axis.plot(x, y, ".", ms=2, color=LINE)


def _mark(axis, across, below):
    for truth, line, span in ((across, axis.axvline, axis.axvspan), (below, axis.axhline, axis.axhspan)):
        if truth is None:
            continue
        value, sigma = truth if np.ndim(truth) else (truth, None)
        line(value, color=MODEL, lw=0.9)
        if sigma:
            span(value - sigma, value + sigma, color=MODEL, alpha=0.12, lw=0)


def _ticks(axis, x_text, y_text):
    """Ticks and names on the outer edge only: some hundred axes with ticks would be slow and hard to read."""
    from matplotlib.ticker import MaxNLocator

    for side, text, rotation in ((axis.xaxis, x_text, 40), (axis.yaxis, y_text, 0)):
        if not text:
            side.set_ticks([])
            continue
        side.set_major_locator(MaxNLocator(3, prune="both"))
        side.set_label_text(text, fontsize=11)
        side.get_major_formatter().set_useOffset(False)
        side.set_tick_params(labelsize=8, direction="in", labelrotation=rotation)
    axis.xaxis.set_label_coords(0.5, -0.5)
    axis.yaxis.set_label_coords(-0.55, 0.5)


def _figure(width, height):
    """A figure that knows nothing of pyplot, so that no display is needed and the user's backend stays as it is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def _write(figure, path):
    """Write under a temporary name and rename, so that no half-written file is left."""
    if path is None:
        return
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise EmuinferError(f"Cannot write {path}: there is no folder {path.parent}. Make it first.")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        figure.savefig(temporary, format="png")
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)
