"""Figures of forecasts, as PNG files: information spectra, bounds against anything, maps, windows."""

import numpy as np

from ..errors import EmuinferError
from ..plotting.figure import DATA, UNITS, bare_text, label_text, new_figure, write_figure

COLOURS = (
    "#08519c",
    "#d1495b",
    "#2a9d5c",
    "#e08e0b",
    "#7b4fa3",
    "#3aa6b9",
    "#8c564b",
    "#e377c2",
    "#555555",
    "#b5a900",
    "#1f77b4",
    "#98315f",
)


def bound_text(name: str) -> str:
    """How the bound on a parameter is written on an axis, with its unit."""
    return rf"$\sigma$ of {bare_text(name)} [{UNITS.get(name, 'dex')}]"


def plot_information(path, forecast, names, *, width=0.5, title=""):
    """The spectrum, and under it which pixels inform each of `names`: the share of 1/marginal² per `width` Å.

    A pixel counts with the part of its derivative that no other free parameter can imitate (`Forecast.information`).
    `path`: PNG file, or None for none. Returns the matplotlib `Figure`.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise EmuinferError("Name at least one parameter to show.")
    figure = new_figure(11, 1.6 + 1.15 * len(names))
    axes = figure.subplots(
        len(names) + 1, 1, sharex=True, gridspec_kw={"hspace": 0.08, "height_ratios": [1.3] + [1] * len(names)}
    )
    for s in forecast.spectra:
        axes[0].plot(s.wavelength, s.flux, color=DATA, lw=0.7)
    axes[0].set_ylabel("flux")
    axes[0].set_title(title, fontsize=11)
    for axis, name, colour in zip(axes[1:], names, COLOURS * 4):
        parts = forecast.information(name)
        total = sum(p.sum() for p in parts)
        for s, part in zip(forecast.spectra, parts):
            edges = np.arange(s.wavelength[0], s.wavelength[-1] + width, width)
            share = 100 * np.histogram(s.wavelength, edges, weights=part)[0] / total
            axis.stairs(share, edges, color=colour, fill=True)
        axis.set_ylim(0, None)
        axis.set_ylabel(bare_text(name), rotation=0, ha="right", va="center", fontsize=11)
        axis.yaxis.tick_right()
        axis.tick_params(labelsize=7)
    axes[-1].set_xlabel("wavelength [Å]")
    figure.text(0.985, 0.5, f"% of the information per {width:g} Å", rotation=90, va="center", ha="right", fontsize=8)
    figure.subplots_adjust(
        left=0.09, right=0.945, top=1 - 0.32 / figure.get_figheight(), bottom=0.5 / figure.get_figheight()
    )
    write_figure(figure, path)
    return figure


def plot_bounds(path, x, curves, xlabel, *, floors=None, target=0.1, title="", log=True):
    """Bounds `curves` (name to `(n,)`) against `x` `(n,)`: abundances on the left, Teff on the right.

    `floors`: name to the emulator's floor, dotted. `target`: a precision in dex to mark, or None.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    dex = [n for n in curves if n not in ("teff", "vmic", "rv", "vbroad", "vsini")]
    figure = new_figure(10, 4.4)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [2.2, 1]})
    panels = [(left, dex, "bound [dex]"), (right, [n for n in curves if n == "teff"], bound_text("teff"))]
    for axis, names, ylabel in panels:
        for i, (name, colour) in enumerate(zip(names, COLOURS * 4)):
            axis.plot(x, curves[name], color=colour, lw=1.5, ls=("-", "--")[i % 2], label=bare_text(name))
            if floors and name in floors:
                axis.axhline(floors[name], color=colour, lw=0.8, ls=":")
        axis.set(
            xlabel=xlabel, ylabel=ylabel, yscale="log", xscale="log" if log else "linear", xlim=(np.min(x), np.max(x))
        )
        axis.grid(color="0.9", lw=0.6, which="both")
        if log:  # few and plain numbers: those that matplotlib chooses for one decade run into each other
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
    if target:
        left.axhline(target, color="k", lw=0.9)
        left.annotate(f"{target:g} dex", (np.min(x), target), xytext=(4, 3), textcoords="offset points", fontsize=8)
    left.legend(ncols=2, fontsize=8, title="dotted: floor of the emulator" if floors else None, title_fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    write_figure(figure, path)
    return figure


def plot_map(path, teff, logg, values, name, *, contours=(), text=None, title=""):
    """`values` `(n_teff, n_logg)` over the Teff–log g plane, hot stars on the left and giants on top; NaN stays white."""
    values = np.asarray(values, float)
    if values.shape != (len(teff), len(logg)):
        raise EmuinferError(f"The map must have shape ({len(teff)}, {len(logg)}); got {values.shape}.")
    from matplotlib.colors import LogNorm

    shown = np.ma.masked_invalid(np.where(np.isfinite(values) & (values > 0), values, np.nan))
    figure = new_figure(6.4, 4.8)
    axis = figure.add_axes((0.1, 0.11, 0.7, 0.79))
    image = axis.pcolormesh(
        teff, logg, shown.T, cmap="viridis_r", norm=LogNorm(shown.min(), shown.max()), shading="nearest"
    )
    if len(contours):
        lines = axis.contour(
            teff,
            logg,
            np.log10(shown.T),
            levels=np.log10(sorted(contours)),
            colors="k",
            linewidths=0.8,
            linestyles="solid",
        )
        axis.clabel(lines, fmt=lambda v: f"{10**v:g}", fontsize=8)
    axis.set(
        xlabel=label_text("teff"), ylabel=label_text("logg"), xlim=axis.get_xlim()[::-1], ylim=axis.get_ylim()[::-1]
    )
    bar = figure.colorbar(image, cax=figure.add_axes((0.82, 0.11, 0.025, 0.79)))
    ticks = [t for d in range(-6, 6) for m in (1, 2, 3, 5) if shown.min() <= (t := m * 10.0**d) <= shown.max()]
    bar.set_ticks(ticks, labels=[f"{t:g}" for t in ticks])
    bar.minorticks_off()
    bar.set_label(text or bound_text(name))
    axis.set_title(title, fontsize=11)
    write_figure(figure, path)
    return figure


def plot_windows(path, forecast, windows, *, title=""):
    """The spectrum, and under it the bounds from windows of one width against their centre (`best_window`), a curve for
    each of `windows`; the best place is marked."""
    windows = [windows] if not isinstance(windows, list | tuple) else windows
    figure = new_figure(10, 4.8)
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.06, "height_ratios": (1, 1.7)})
    for s in forecast.spectra:
        top.plot(s.wavelength, s.flux, color=DATA, lw=0.7)
    top.set_ylabel("flux")
    top.set_title(title, fontsize=11)
    for w, colour in zip(windows, COLOURS * 4):
        bottom.plot(w.centre, w.bound, color=colour, lw=1.6, label=f"{bare_text(w.name)}, {w.width:g} Å")
        low, high = w.best
        bottom.plot([low, high], [np.nanmin(w.bound)] * 2, color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        top.axvspan(low, high, color=colour, alpha=0.1, lw=0)
    bottom.set(
        xlabel="centre of the window [Å]; bars: the best window", ylabel="bound from this window alone", yscale="log"
    )
    bottom.grid(color="0.9", lw=0.6, which="both")
    bottom.legend(fontsize=8, ncols=3)
    figure.subplots_adjust(left=0.08, right=0.985, top=0.93, bottom=0.11)
    write_figure(figure, path)
    return figure
