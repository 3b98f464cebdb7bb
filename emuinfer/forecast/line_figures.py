"""A figure of the lines that tell of labels."""

import numpy as np

from ..errors import EmuinferError
from ..plotting.figure import DATA, bare_text, new_figure, write_figure
from .figures import COLOURS
from .lines import information_of_lines

NAMED = 4  # groups with their names, of each label
LEVELS = 3  # of names, one above the other where they are near
BIN = 0.2  # Å


def plot_lines(path, model, star, names, *, lines=None, title=""):
    """The observed spectrum, and under it which lines tell of each of `names`: shares of the information per 0.2 Å, with the names of
    those that tell most (`lines_of`).

    `path`: PNG file, or None for none. Returns the matplotlib `Figure`.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise EmuinferError("Name at least one parameter to show.")
    found = [information_of_lines(model, star, name, lines=lines) for name in names]
    figure = new_figure(11, 1.6 + 1.25 * len(names))
    ratios = [1.3] + [1] * len(names)
    axes = figure.subplots(len(names) + 1, 1, sharex=True, gridspec_kw={"hspace": 0.08, "height_ratios": ratios})
    for spectrum, (rest, _) in zip(model.spectra, found[0].pixels):
        noise = spectrum.likelihood.noise
        good = np.asarray(noise.weight) > 0
        flux = np.asarray(spectrum.likelihood.flux) / np.asarray(noise.level)
        axes[0].plot(rest, np.where(good, flux, np.nan), color=DATA, lw=0.6)
    axes[0].set_ylabel("flux")
    axes[0].set_title(title, fontsize=11)
    for axis, one, colour in zip(axes[1:], found, COLOURS * 4):
        top = 0.0
        for rest, share in one.pixels:
            edges = np.arange(rest[0], rest[-1] + BIN, BIN)
            height = 100 * np.histogram(rest, edges, weights=share)[0]
            axis.stairs(np.maximum(height, 0.0), edges, color=colour, fill=True)
            top = max(top, float(height.max()))
        top = top if top > 0 else 1.0
        ends = [-np.inf] * LEVELS  # where the names of each level end
        room = 0.075 * np.ptp(np.concatenate([rest for rest, _ in one.pixels]))
        for group in sorted((g for g in one.groups[:NAMED] if np.isfinite(g.wavelength)), key=lambda g: g.wavelength):
            level = int(np.argmax([group.wavelength - end > room for end in ends]))
            ends[level] = group.wavelength
            text = f"{group.species} {group.wavelength:.1f}".strip()
            axis.annotate(text, (group.wavelength, (1.06 + 0.2 * level) * top), fontsize=7, ha="center")
        axis.set_ylim(0, (1.1 + 0.2 * LEVELS) * top)
        axis.set_ylabel(bare_text(one.name), rotation=0, ha="right", va="center", fontsize=11)
        axis.yaxis.tick_right()
        axis.tick_params(labelsize=7)
    axes[-1].set_xlabel(f"wavelength at rest [Å, {model.spectra[0].full.medium}]")
    figure.text(0.985, 0.5, f"% of the information per {BIN:g} Å", rotation=90, va="center", ha="right", fontsize=8)
    tall = figure.get_figheight()
    figure.subplots_adjust(left=0.09, right=0.945, top=1 - 0.32 / tall, bottom=0.5 / tall)
    write_figure(figure, path)
    return figure
