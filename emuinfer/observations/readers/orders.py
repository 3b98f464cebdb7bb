"""The orders of an echelle spectrograph: one of them, or all merged without resampling. Host only."""

import numpy as np

from ...errors import ObservationError
from ..quality import rough_continuum
from .choices import Choices, number_or_name

MERGE = ("merge", "all")
WAVE, FLUX, ERROR, BAD = range(4)  # rows of an order


class OrderError(ObservationError):
    """A file holds several orders, `count`, and none of them was chosen."""

    def __init__(self, text: str, count: int):
        super().__init__(text)
        self.count = count


def choose_order(wavelength, flux, error, mask, choices: Choices, blaze=None) -> dict:
    """`wavelength`, `flux`, `uncertainty`, `mask` and `notes` of the order that `choices.order` names, or of all merged.

    All are `(n_orders, n)`, or one array per order; `wavelength` a quantity or in Å, in any sequence of orders; `error`
    (standard deviations), `mask` (True: do not use) and `blaze` may be `None`. Pixels without a wavelength (not finite,
    not positive) are left out. `blaze` divides flux and error.

    Merged orders are cut and joined, never resampled, so that noise stays independent: two neighbours are cut where the
    sum of S/N² over what is kept is largest, which is where their blazes cross; without errors in the middle of their
    overlap. Slices, orders of the same range, keep all their pixels. Where fluxes of neighbours disagree as uncorrected
    blazes do and none is given, the blaze is estimated (`_without_blaze`); where their levels do, they are scaled. Notes
    say so.

    Raises `ObservationError` where there are several orders and no choice, or not the one that is chosen.
    """
    orders = _orders(wavelength, flux, error, mask, blaze)
    order, notes = number_or_name(choices.order), []
    if order is None and len(orders) == 1:
        chosen = orders[0]
    elif str(order).strip().lower() in MERGE:
        chosen, notes = _merged(orders, blaze is not None)
    elif isinstance(order, int) and 0 <= order < len(orders):
        chosen = orders[order]
        if not chosen.shape[1]:
            raise ObservationError(f"Order {order} has no wavelengths. {_remedy(orders)}")
        notes = [f"order {order} of {len(orders)} (counted from 0), {_range(chosen)} Å"]
    else:
        problem = f"The file holds {len(orders)} orders" + (
            "" if order is None else f"; order={order!r} is none of them"
        )
        raise OrderError(f"{problem}. {_remedy(orders)}", len(orders))
    return {
        "wavelength": chosen[WAVE],
        "flux": chosen[FLUX],
        "uncertainty": None if error is None else chosen[ERROR],
        "mask": chosen[BAD].astype(bool),
        "notes": tuple(notes),
    }


def _orders(wavelength, flux, error, mask, blaze) -> list[np.ndarray]:
    """Each order as `(4, n)`, by rising wavelength: wavelength in Å, flux, error, and 1 where a pixel is bad."""
    import astropy.units as u

    def as_float(x) -> np.ndarray:
        return np.ma.filled(np.ma.asarray(x, dtype=float), np.nan)

    result = []
    for k, wave in enumerate(wavelength):
        wave = as_float(wave.to_value(u.AA, equivalencies=u.spectral()) if isinstance(wave, u.Quantity) else wave)
        order = np.stack(
            [
                wave,
                as_float(flux[k]),
                np.full(wave.shape, np.nan) if error is None else as_float(error[k]),
                np.zeros(wave.shape) if mask is None else np.ma.filled(np.ma.asarray(mask[k]), 1).astype(bool),
            ]
        )
        if blaze is not None:
            given = as_float(blaze[k])
            usable = np.isfinite(given) & (given > 0)
            order[[FLUX, ERROR]] /= np.where(usable, given, np.nan)
            order[BAD] = np.maximum(order[BAD], ~usable)
        order = order[:, np.isfinite(wave) & (wave > 0)]
        result.append(order[:, np.argsort(order[WAVE], kind="stable")])
    return result


def _range(order) -> str:
    return f"{order[WAVE, 0]:.0f} to {order[WAVE, -1]:.0f}" if order.shape[1] else "no wavelengths"


def _remedy(orders, shown: int = 10) -> str:
    which = np.unique(np.linspace(0, len(orders) - 1, shown).round().astype(int))
    ranges = ", ".join(f"{k}: {_range(orders[k])}" for k in which)
    return (
        f'Give order="merge" for one spectrum of all of them, or order= a number from 0 to {len(orders) - 1} '
        f"(on the command line --order). Ranges in Å: {ranges}{', …' if len(which) < len(orders) else ''}."
    )


def _merged(orders, corrected: bool):
    """One order of all, and notes. `corrected`: the blaze was divided out."""
    orders = sorted((order for order in orders if order.shape[1] > 2), key=lambda order: np.median(order[WAVE]))
    if not orders:
        raise ObservationError("No order has wavelengths.")
    notes = [f"{len(orders)} orders merged, cut where their S/N cross and not resampled"]
    count = len(orders)
    orders = _slices_together(orders)
    if len(orders) < count:
        notes.append(f"of orders with the same range (slices) the pixels are combined: {len(orders)} ranges are left")
    if not corrected and _blaze_remains(orders):
        orders = _without_blaze(orders)
        notes.append("the blaze of the orders was estimated from their continua and divided out")
    orders, matched = _same_level(orders)
    if matched:
        notes.append(f"fluxes of the orders scaled to agree in {matched} of their overlaps")
    cuts = np.maximum.accumulate([_cut(a, b) for a, b in zip(orders, orders[1:])]) if len(orders) > 1 else np.zeros(0)
    edges = [-np.inf, *cuts, np.inf]
    kept = [o[:, (o[WAVE] >= lo) & (o[WAVE] < hi)] for o, lo, hi in zip(orders, edges, edges[1:])]
    return np.concatenate(kept, axis=1), notes


def _good(order):
    return (order[BAD] == 0) & np.isfinite(order[FLUX])


def _cut(a, b) -> float:
    """Where order `a` ends and `b`, the redder one, begins, Å: what both keep has the largest sum of (S/N)²."""
    lo, hi = b[WAVE, 0], a[WAVE, -1]
    middle = 0.5 * (lo + hi)
    if hi <= lo:
        return middle
    grid = np.unique([lo, middle, hi, *a[WAVE, a[WAVE] >= lo], *b[WAVE, b[WAVE] <= hi]])
    gain = _information_below(a, grid) - _information_below(b, grid)
    gain -= gain[0]
    return float(grid[np.argmax(gain)]) if np.any(gain) else middle


def _information_below(order, grid):
    """The sum of (S/N)² of the pixels below each of the wavelengths `grid`; nothing where one is bad or has no error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = (order[FLUX] / order[ERROR]) ** 2
    total = np.cumsum(np.where(_good(order) & np.isfinite(squared), squared, 0.0))
    return np.concatenate([[0.0], total])[np.searchsorted(order[WAVE], grid, side="left")]


# Blaze

NODES = 64


def _overlap_levels(a, b, parts: int = 4):
    """log(flux of `a` / flux of `b`) in `parts` of their overlap, blue to red; `None` where there is too little."""
    good = _good(b)
    if good.sum() < 5:
        return None
    lo, hi = b[WAVE, 0], a[WAVE, -1]
    wave, flux = a[WAVE, _good(a)], a[FLUX, _good(a)]
    other = np.interp(wave, b[WAVE, good], b[FLUX, good])
    edges, levels = np.linspace(lo, hi, parts + 1), []
    for begin, end in zip(edges, edges[1:]):
        inside = (wave >= begin) & (wave <= end)
        sums = flux[inside].sum(), other[inside].sum()
        levels.append(np.log(sums[0] / sums[1]) if inside.sum() > 4 and min(sums) > 0 else np.nan)
    return np.array(levels) if np.isfinite(levels).all() else None


def _blaze_remains(orders, least: float = 0.1) -> bool:
    """Whether flux ratios of neighbours fall from the blue to the red end of their overlaps, by 10 % in the middle case."""
    levels = [x for x in (_overlap_levels(a, b) for a, b in zip(orders, orders[1:])) if x is not None]
    return len(orders) >= 3 and bool(levels) and float(np.median([x[0] - x[-1] for x in levels])) > least


def _without_blaze(orders, neighbours: int = 3):
    """Orders divided by an estimated blaze: the median shape of the continua of up to `2 neighbours + 1` orders.

    The blaze changes little from one order to the next, whereas a broad line of the star lies elsewhere on the
    detector in each order, and so drops out of the median.
    """
    nodes = np.linspace(0, 1, NODES)
    shapes = np.full((len(orders), NODES), np.nan)
    for k, order in enumerate(orders):
        good = _good(order)
        if good.sum() > NODES:
            level = rough_continuum(np.where(good, order[FLUX], 0.0), good, pixels_per_block=order.shape[1] // 20 + 1)
            shapes[k] = np.interp(nodes, np.linspace(0, 1, order.shape[1]), level)
            shapes[k] /= np.percentile(shapes[k], 95)
    result = []
    for k, order in enumerate(orders):
        near = shapes[max(k - neighbours, 0) : k + neighbours + 1]
        near = near[np.isfinite(near).all(axis=1)]
        blaze = np.interp(np.linspace(0, 1, order.shape[1]), nodes, np.median(near, axis=0)) if len(near) else 1.0
        order = order.copy()
        with np.errstate(divide="ignore", invalid="ignore"):
            order[[FLUX, ERROR]] /= np.where(blaze > 0, blaze, np.nan)
        result.append(order)
    return result


def _level(a, b, least: float = 0.01) -> float:
    """What makes the flux of `b` that of `a` in their overlap; 1 where that is not sure, or within 1 %."""
    levels = _overlap_levels(a, b)
    if levels is None:
        return 1.0
    middle = float(np.median(levels))
    return float(np.exp(middle)) if abs(middle) > max(least, 2.5 * float(np.std(levels))) else 1.0


def _same_level(orders):
    """Orders scaled so that the fluxes of neighbours agree in their overlaps, and in how many overlaps they did not."""
    scale, result, matched = 1.0, [orders[0]], 0
    for before, order in zip(orders, orders[1:]):
        level = _level(before, order)
        matched += level != 1.0
        scale *= level
        result.append(_scaled(order, scale))
    return result, matched


def _scaled(order, factor):
    order = order.copy()
    order[[FLUX, ERROR]] *= factor
    return order


# Slices


def _slices_together(orders, common: float = 0.8):
    """Neighbours that have 80 % of their ranges in common, as the slices of an image slicer, made into one order each."""
    result = [orders[0]]
    for order in orders[1:]:
        last = result[-1]
        shorter = min(order[WAVE, -1] - order[WAVE, 0], last[WAVE, -1] - last[WAVE, 0])
        shared = min(order[WAVE, -1], last[WAVE, -1]) - max(order[WAVE, 0], last[WAVE, 0])
        if shared > common * shorter:
            result[-1] = _together(last, _scaled(order, _level(last, order)))
        else:
            result.append(order)
    return result


def _together(a, b):
    """All pixels of two orders, by wavelength; on the same pixels their mean, weighted by the inverse variances."""
    if a.shape != b.shape or not np.allclose(a[WAVE], b[WAVE], rtol=1e-9, atol=0):
        both = np.concatenate([a, b], axis=1)
        return both[:, np.argsort(both[WAVE], kind="stable")]
    has_errors = np.isfinite(a[ERROR]).any() and np.isfinite(b[ERROR]).any()
    errors = [np.where(np.isfinite(o[ERROR]) & (o[ERROR] > 0), o[ERROR], np.nan) if has_errors else 1.0 for o in (a, b)]
    weights = np.array(
        [np.where(_good(o), np.nan_to_num(e * np.ones(o.shape[1])), 0.0) for o, e in zip((a, b), errors)]
    )
    weights = np.where(weights > 0, np.where(weights > 0, weights, 1.0) ** -2, 0.0)
    total = weights.sum(axis=0)
    known = np.where(total > 0, total, np.nan)
    flux = sum(w * np.where(w > 0, o[FLUX], 0.0) for w, o in zip(weights, (a, b))) / known
    return np.stack([a[WAVE], flux, known**-0.5 if has_errors else a[ERROR], (total == 0).astype(float)])
