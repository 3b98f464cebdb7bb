"""The figure of a posterior: every parameter and every pair of them."""

import numpy as np

from ..errors import EmuinferError
from .figure import MODEL, label_text, new_figure, write_figure

FILL, LINE = ("#9ecae1", "#3182bd"), "#08519c"
MASS = (0.95, 0.68)


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
    texts = {k: _wrapped(label_text(k)) for k in names}
    more = 0.16 * max(text.count("\n") for text in texts.values())  # inches for further lines
    size = max(1.15 * n + 0.9, 5) + more
    figure = new_figure(size, size)
    grid = figure.add_gridspec(
        n,
        n,
        left=(0.9 + more) / size,
        right=1 - 0.25 / size,
        bottom=(0.85 + more) / size,
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
            _ticks(axis, texts[across] if i == n - 1 else "", texts[below] if j == 0 < i else "")
    figure.suptitle(title, fontsize=13)
    write_figure(figure, path)
    return figure


def _wrapped(text):
    """`text` on several lines where it is longer than a panel."""
    return text if len(text.replace("$", "")) < 25 else text.replace(", ", ",\n").replace(" [", "\n[")


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
        side.set_label_text(text, fontsize=9 if "\n" in text else 11)
        side.get_major_formatter().set_useOffset(False)
        side.set_tick_params(labelsize=8, direction="in", labelrotation=rotation)
    axis.xaxis.set_label_coords(0.5, -0.5)
    axis.yaxis.set_label_coords(-0.55, 0.5)
