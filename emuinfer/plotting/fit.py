"""The figure of a fit: data, model and residuals."""

import numpy as np

from ..errors import EmuinferError
from .figure import DATA, MODEL, SHADE, new_figure, write_figure


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
    figure = new_figure(16, height)
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
    write_figure(figure, path)
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
