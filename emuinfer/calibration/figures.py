"""Figures of a calibration: coverage, rank histograms, and empirical distribution functions of the ranks."""

import numpy as np

from ..plotting.figure import bare_text, new_figure, write_figure
from .statistics import DRAWS, bins_for, ecdf_band, histogram_band

ON, OFF = "#08519c", "#d1495b"
COLOURS = ("#2a9d5c", "#e08e0b", "#7b4fa3", "#3aa6b9", "#8c564b", "#555555")


def plot_coverage(path, summary, *, goal=0.02, stars="all"):
    """Coverage of the central 68 % and 95 % intervals by parameter and S/N: filled with the emulator's error, open without.

    `summary`: of `summarise`. The grey band is `goal` about the nominal value. Returns the matplotlib `Figure`.
    """
    part = summary[(summary["stars"] == stars) & np.isfinite(summary["snr"])]
    names, snr = list(dict.fromkeys(part["parameter"])), sorted(set(part["snr"]))
    switches = sorted(set(part["emulator_error"]), reverse=True)
    count = len(switches) * len(snr)
    figure = new_figure(max(8, 0.9 * len(names) + 2), 7)
    axes = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.08})
    place = {n: i for i, n in enumerate(names)}
    for axis, level in zip(axes, (68, 95)):
        axis.axhspan(level - 100 * goal, level + 100 * goal, color="0.85", lw=0)
        axis.axhline(level, color="0.4", lw=0.8)
        for k, on in enumerate(switches):
            for j, (s, colour) in enumerate(zip(snr, COLOURS)):
                some = part[(part["emulator_error"] == on) & (part["snr"] == s)]
                slot = len(snr) * k + j - 0.5 * (count - 1)
                x = [place[n] + 0.8 / count * slot for n in some["parameter"]]
                axis.errorbar(
                    x,
                    100 * some[f"coverage_{level}"],
                    100 * some[f"coverage_{level}_error"],
                    fmt="o" if on else "D",
                    color=colour,
                    mfc=colour if on else "w",
                    ms=5 if on else 4,
                    lw=1,
                    label=f"S/N {s:g}, emulator error {'on' if on else 'off'}",
                )
        axis.set_ylabel(f"truths inside the {level} % interval [%]")
        axis.set_ylim(max(0, axis.get_ylim()[0]), 101.5)
        for between in range(len(names) - 1):
            axis.axvline(between + 0.5, color="0.93", lw=0.7, zorder=0)
    axes[1].set_xticks(range(len(names)), [bare_text(n) for n in names])
    axes[1].set_xlim(-0.5, len(names) - 0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=len(snr), loc="upper center", fontsize=9, frameon=False)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.92, bottom=0.05)
    write_figure(figure, path)
    return figure


def _panels(results):
    known = results[np.asarray(results["rank"]) >= 0]
    names = list(dict.fromkeys(known["parameter"]))
    return known, names, sorted(set(known["snr"])), sorted(set(known["emulator_error"]), reverse=True)


def plot_ranks(path, results):
    """Histograms of the truth's rank among the draws: a row per parameter, a column per S/N.

    Grey: the band that holds all bars of a calibrated panel with a probability of 95 %. Returns the matplotlib `Figure`.
    """
    known, names, snr, switches = _panels(results)
    figure = new_figure(3.1 * len(snr) + 0.8, 1.05 * len(names) + 1.0)
    axes = figure.subplots(
        len(names), len(snr), sharex=True, squeeze=False, gridspec_kw={"hspace": 0.08, "wspace": 0.12}
    )
    for row, name in zip(axes, names):
        for axis, s in zip(row, snr):
            part = known[(known["parameter"] == name) & (known["snr"] == s)]
            top = 0.0
            for on in switches:
                ranks = np.asarray(part["rank"][part["emulator_error"] == on])
                n, bins = len(ranks), bins_for(len(ranks))
                if not n:
                    continue
                edges = np.linspace(0, DRAWS + 1, bins + 1)
                counts = np.histogram(ranks, edges)[0] / (n / bins)
                low, high = (v / (n / bins) for v in histogram_band(n, bins))
                if on == switches[0]:
                    axis.axhspan(low, high, color="0.88", lw=0)
                axis.stairs(
                    counts, edges / (DRAWS + 1), color=ON if on else OFF, lw=1.3 if on else 1.0, ls="-" if on else "--"
                )
                top = max(top, high, counts.max())
            axis.axhline(1, color="0.5", lw=0.6)
            axis.set_ylim(0, min(1.08 * top, 5))
            axis.tick_params(labelsize=7)
            axis.set_xlim(0, 1)
        row[0].set_ylabel(bare_text(name), rotation=0, ha="right", va="center", fontsize=10, labelpad=12)
    for axis, s in zip(axes[0], snr):
        axis.set_title(f"S/N {s:g}", fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("rank of the truth, 0 to 1", fontsize=9)
    lines = _legend(figure, switches)
    height = figure.get_figheight()
    top = 1 - (0.42 + 0.2 * lines) / height
    figure.subplots_adjust(left=1.0 / figure.get_figwidth(), right=0.985, top=top, bottom=0.48 / height)
    write_figure(figure, path)
    return figure


def _legend(figure, switches) -> int:
    """Draw it; returns its lines, several where the figure is too narrow for one."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines = [
        Line2D([], [], color=ON if on else OFF, ls="-" if on else "--", label=f"emulator error {'on' if on else 'off'}")
        for on in switches
    ]
    handles = [*lines, Patch(color="0.88", label="95 % of calibrated panels")]
    columns = 3 if figure.get_figwidth() > 6 else 1
    figure.legend(handles=handles, loc="upper center", ncols=columns, fontsize=9, frameon=False)
    return 1 if columns == 3 else len(handles)


def plot_ecdf(path, results, *, columns=4):
    """Empirical distribution function of the ranks minus that of uniform ones: a panel per parameter, a colour per S/N.

    Full lines with the emulator's error, dashed without; grey: the simultaneous 95 % band (`ecdf_band`). Above zero on
    the left and below on the right: posteriors are too narrow. All above: truths lie too low, that is the fits are too high.
    """
    known, names, snr, switches = _panels(results)
    rows = -(-len(names) // columns)
    figure = new_figure(3.2 * columns, 2.3 * rows + 0.6)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False, gridspec_kw={"hspace": 0.12, "wspace": 0.22})
    for axis, name in zip(axes.flat, names):
        for s, colour in zip(snr, COLOURS):
            for on in switches:
                take = (known["parameter"] == name) & (known["snr"] == s) & (known["emulator_error"] == on)
                ranks = np.asarray(known["rank"][take])
                if not len(ranks):
                    continue
                z, low, high = ecdf_band(len(ranks))
                if s == snr[0] and on == switches[0]:
                    axis.fill_between(z, low - z, high - z, color="0.88", lw=0)
                below = np.searchsorted(np.sort(ranks), np.arange(1, DRAWS + 1)) / len(ranks)
                style = {"ls": "-" if on else "--", "lw": 1.4 if on else 0.9}
                axis.plot(z, below - z, color=colour, label=f"S/N {s:g}, {'on' if on else 'off'}", **style)
        axis.text(0.97, 0.95, bare_text(name), transform=axis.transAxes, ha="right", va="top", fontsize=11)
        axis.set_xlim(0, 1)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for i in range(len(names) - columns, len(names)):
        if i >= 0:
            axes.flat[i].tick_params(labelbottom=True)
            axes.flat[i].set_xlabel("rank of the truth, 0 to 1", fontsize=8)
    axes[0, 0].set_ylabel("ECDF − uniform", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncols=6, fontsize=9, frameon=False)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.055, right=0.99, top=1 - 0.4 / height, bottom=0.45 / height)
    write_figure(figure, path)
    return figure
