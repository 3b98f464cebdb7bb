"""Fitting the calibration of a network to objects that it was not trained on, and telling how well it then holds."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..tokens import TokenSet, Vocabulary
from . import heads
from .calibration import COUNTS, UNKNOWN, Calibration, cells_of, quality_of
from .masking import Batch, MaskedRows, Masking, View
from .network import Network
from .train import with_label_errors

KNOTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.16, 0.3, 0.5, 0.7, 0.84, 0.9, 0.95, 0.975, 0.99, 0.995)
CHUNK = 256
FEWEST = 400  # values for a map, and for a temperature, of their own
FACTORS = np.exp(np.linspace(-0.5, 0.5, 21))  # temperatures that are tried
SHRINKING = 200  # values of one kind that count as much as those of its group
LARGE = 12  # a group of more kinds has one row
NOISES = (0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0, 1.25, 1.5)  # times the error that was assumed


class Asked(NamedTuple):
    """What a network said of m random questions about each of n random contexts, and what is true."""

    outputs: np.ndarray  # (n, m, OUTPUTS)
    number: np.ndarray  # (n,) of elements seen
    asked: np.ndarray  # (n, m)
    valid: np.ndarray  # (n, m)
    y: np.ndarray  # (n, m) standardised
    noise: np.ndarray  # (n, m)
    quality: np.ndarray  # (n,) of the object; see `quality_of`
    spectrum: np.ndarray  # (n,) whether something of a spectrum is seen, with which its quality is known

    def where(self, rows) -> "Asked":
        """Some of the contexts."""
        return Asked(*(a[rows] for a in self))

    def cells(self, edges, known: bool = True) -> np.ndarray:
        """`(n,)`: the cells, with the quality where a spectrum is seen, or as if it were not known."""
        return cells_of(np.where(self.spectrum & known, self.quality, np.nan), self.number, edges)


class _Rows(MaskedRows):
    def numbered(self, step, n):
        """Numbers of objects beside their batch."""
        generator = np.random.default_rng([self.seed, step])
        rows = generator.integers(0, len(self.x), n)
        return rows, self.frame.draw(generator, self.x[rows], self.e[rows], self.have[rows])


def masking_of(network: Network) -> Masking:
    """How contexts are drawn, as the network was trained (from its card)."""
    masking = network.card["recipe"]["masking"]
    plain: Callable[[dict], dict[str, Any]] = lambda d: {
        k: tuple(v) if isinstance(v, list) else v for k, v in d.items()
    }
    return Masking(**plain({**masking, "views": tuple(View(**plain(view)) for view in masking["views"])}))


def everyday(masking: Masking) -> Masking:
    """`masking` in half of the contexts; in the others what users have most often: a whole spectrum and no label."""
    spectra = [view for view in masking.views if view.groups]
    whole = [dataclasses.replace(view, share=0.5 / len(spectra), whole=1.0, half=0.0, labels=0.0) for view in spectra]
    rest = [dataclasses.replace(view, share=view.share * (0.5 if spectra else 1.0)) for view in masking.views]
    return dataclasses.replace(masking, views=(*rest, *whole))


def ask_at_random(network: Network, tokens: TokenSet, batches: int, seed: int = 0) -> Asked:
    """Random questions from random contexts, as in training and `everyday`, `CHUNK` of them a batch."""
    masking = everyday(masking_of(network))
    rows, quality, found = _Rows(tokens, masking, seed), quality_of(tokens), []
    spectra = network.vocabulary.indices({group for view in masking.views for group in view.groups})
    for step in range(batches):
        which, batch = rows.numbered(step, CHUNK)
        b = Batch(*batch)
        outputs = np.asarray(_outputs(network.net, b.x, b.e, b.seen, b.asked))
        seen = np.asarray(b.seen)
        found.append((outputs, seen.sum(1), b.asked, b.valid, b.y, b.noise, quality[which], seen[:, spectra].any(1)))
    return Asked(*(np.concatenate(part) for part in zip(*found)))


@eqx.filter_jit
def _outputs(net, x, e, seen, asked):
    return net.decode(net.encode(x, e, seen), asked)


def ranks(network: Network, asked: Asked, factor=1.0) -> np.ndarray:
    """`(n, m)`: probabilities of values below the true ones, these being noisy; uniform where all is right."""
    factor = np.broadcast_to(np.asarray(factor, np.float32), asked.y.shape)
    return np.asarray(_ranks(asked.outputs, factor, network.heads[asked.asked], asked.y, asked.noise))


@jax.jit
def _ranks(outputs, factor, kinds, y, noise):
    return heads.cumulative(heads.widened(outputs, factor, kinds), y, kinds, noise)


def row_names(vocabulary: Vocabulary) -> tuple[tuple[str, ...], np.ndarray]:
    """Rows of a calibration: kinds of small groups, large groups as a whole; and the row of each kind."""
    names = [k.group if len(vocabulary.group(k.group)) > LARGE else k.name for k in vocabulary]
    rows = tuple(dict.fromkeys(names))
    return rows, np.array([rows.index(name) for name in names])


def calibrated_ranks(network: Network, calibration: Calibration, asked: Asked, known: bool = True) -> np.ndarray:
    """`ranks` after the calibration."""
    cells = asked.cells(calibration.edges, known)
    factor = np.take_along_axis(calibration.factor(cells), asked.asked.astype(int), 1)
    return calibration.ranks(ranks(network, asked, factor), cells, asked.asked)


def fit_calibration(network: Network, asked: Asked, label_errors: dict[str, float] | None = None) -> Calibration:
    """A calibration by which a share p of what is true lies within the central p of what was said, whatever p.

    Temperatures bring |rank − 1/2| nearest to uniform (Cramér–von Mises distance), by cell and row, those of single kinds of large
    groups shrunk to their group's; the maps make the quantiles right (split conformal). Objects of known quality and the
    same as if it were unknown are used, so that cells of both are fitted.
    """
    edges = np.nanquantile(asked.quality, (1 / 3, 2 / 3)) if np.isfinite(asked.quality).any() else np.zeros(2)
    rows, row = row_names(network.vocabulary)
    tried = np.stack([ranks(network, asked, f) for f in FACTORS])
    usable = asked.valid & np.isfinite(tried).all(0)
    cells = {known: asked.cells(edges, known) for known in (True, False)}
    number = len(COUNTS) * (UNKNOWN + 1) + UNKNOWN + 1
    factors, maps = np.zeros((number, len(rows))), np.tile(np.array(KNOTS), (number, len(rows), 1))
    of_row, offsets = row[asked.asked], np.zeros(len(row))
    places = {(c, r): _members(cells, usable & (of_row == r), c) for c in range(number) for r in range(len(rows))}
    for (c, r), here in places.items():
        if here.any():
            factors[c, r] = np.log(_best(tried[:, here]))
    for kind in np.flatnonzero(np.bincount(row)[row] > 1):
        own = usable & (asked.asked == kind) & np.isfinite(asked.y)
        together = np.log(_best(tried[:, usable & (of_row == row[kind])]))
        offsets[kind] = (
            (np.log(_best(tried[:, own])) - together) * own.sum() / (own.sum() + SHRINKING) if own.any() else 0.0
        )
    made = Calibration(rows, row, edges, factors, offsets, np.array(KNOTS), maps, dict(label_errors or {}))
    widened = {
        known: ranks(network, asked, np.take_along_axis(made.factor(cells[known]), asked.asked.astype(int), 1))
        for known in (True, False)
    }
    for (c, r), here in places.items():
        if here.any():
            values = widened[c % (UNKNOWN + 1) != UNKNOWN][here]
            # (n + 1) p is the rank among the n values and the one to come (Vovk et al. 2005)
            share = np.clip(np.array(KNOTS) * (1 + 1 / len(values)), 0, 1)
            maps[c, r] = np.clip(np.maximum.accumulate(np.quantile(values, share)), 1e-4, 1 - 1e-4)
    return made


def _members(cells, usable, c):
    """Which questions belong to a cell; more than those where there are too few: of any number of elements, then all."""
    known, third = c % (UNKNOWN + 1) != UNKNOWN, c % (UNKNOWN + 1)
    own = cells[known]
    for where in (own == c, own % (UNKNOWN + 1) == third, np.ones(len(own), bool)):
        here = usable & where[:, None]
        if here.sum() >= FEWEST:
            return here
    return np.zeros_like(usable)


def _best(tried):
    """The factor whose ranks `(factors, n)` are the most uniform about 1/2; between those tried, by a parabola."""
    inner = np.sort(np.abs(tried - 0.5) * 2, axis=1)
    expected = (np.arange(inner.shape[1]) + 0.5) / inner.shape[1]
    distance = np.mean((inner - expected) ** 2, axis=1)
    k = int(np.clip(np.argmin(distance), 1, len(FACTORS) - 2))
    a, b, _ = np.polyfit(np.log(FACTORS[k - 1 : k + 2]), distance[k - 1 : k + 2], 2)
    return np.exp(np.clip(-b / (2 * a), np.log(FACTORS[0]), np.log(FACTORS[-1]))) if a > 0 else FACTORS[k]


def fit_label_errors(network: Network, asked: Asked, assumed: dict[str, float]) -> dict[str, float]:
    """Errors of labels that have none in the table: those that, with a temperature, make the labels most probable."""
    found = {}
    for name, error in assumed.items():
        kind = network.vocabulary.index(name)
        own = (asked.asked == kind) & asked.valid & (asked.number > COUNTS[1])[:, None]
        own = own if own.any() else (asked.asked == kind) & asked.valid
        y, noise, kinds = jnp.asarray(asked.y[own]), jnp.asarray(asked.noise[own]), jnp.asarray(network.heads[kind])
        outputs = jnp.asarray(asked.outputs[own])
        score = lambda n, f: float(heads.log_prob(heads.widened(outputs, f, kinds), y, n * noise, kinds).mean())
        widths = [jnp.full(len(y), f, jnp.float32) for f in FACTORS[::2]]
        likelihood = {n: max(score(n, f) for f in widths) for n in NOISES}
        found[name] = float(max(likelihood, key=lambda n: likelihood[n]) * error)
    return found


def asked_with_errors(network: Network, tokens: TokenSet, batches: int, seed: int):
    """`ask_at_random` with the assumed errors of labels, replaced by those that fit; and these errors."""
    assumed = {k: float(v) for k, v in network.card["recipe"].get("label_errors", {}).items()}
    asked = ask_at_random(network, with_label_errors(tokens, assumed), batches, seed)
    errors = fit_label_errors(network, asked, assumed)
    noise = np.array(asked.noise)
    for name, error in errors.items():
        noise = np.where(asked.asked == network.vocabulary.index(name), noise * error / assumed[name], noise)
    return asked._replace(noise=noise), errors
