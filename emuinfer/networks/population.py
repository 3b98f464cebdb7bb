"""The population that a network was trained on: told from that of answers, and put in another's place by weights."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ..errors import NetworkError, TokenError
from ..tokens import TokenSet
from .answer import Answer

COMPONENTS = 8
ROUNDS = 100
FLOOR = 0.02  # least standard deviation of a component, in units of the kinds' spread
QUANTILES = tuple(i / 40 for i in range(41))
FARTHEST = 0.1  # distance of two distributions that is told, if it is not by chance
CRITICAL = 1.63  # over sqrt(n): a Kolmogorov distance that chance reaches in 1 % of samples


class Shift(NamedTuple):
    """`distance`: by label, the largest difference of the shares below a value (Kolmogorov). `limit`: beyond it the populations differ.
    `told`: a sentence for each label beyond it."""

    distance: dict[str, float]
    limit: float
    told: tuple[str, ...]


class Reweighted(NamedTuple):
    """`weights` `(n, draws)` add up to 1 for each object; `mean`, `sd` `(n, d)` and `quantiles` (probability to `(n, d)`) with them;
    `ess` `(n,)`: how many draws the weighted ones are worth."""

    weights: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    quantiles: dict[float, np.ndarray]
    ess: np.ndarray


def population_card(tokens: TokenSet, names="labels", seed: int = 0) -> dict:
    """What the card keeps of training objects: quantiles of each label, and a mixture of Gaussians of all in standardised units,
    of the objects that have them all."""
    v = tokens.vocabulary
    wanted = v.indices(names)
    x, values = tokens.standardised().x[:, wanted].astype(float), tokens.values[:, wanted]
    weights, means, covariances = _mixture(x[tokens.seen[:, wanted].all(1)], seed)
    plain = lambda a: np.round(a, 4).tolist()
    return {
        "names": [v.names[i] for i in wanted],
        "quantiles": [[float(f"{q:.6g}") for q in np.nanquantile(column, QUANTILES)] for column in values.T],
        "weights": plain(weights),
        "means": plain(means),
        "covariances": plain(covariances),
    }


def _mixture(x, seed):
    """Weights, means and covariances of Gaussians by expectation and maximisation, from random objects."""
    n, d = x.shape
    k = max(1, min(COMPONENTS, n // (10 * d)))
    means = x[np.random.default_rng(seed).choice(n, k, replace=False)]
    weights, covariances = np.full(k, 1 / k), np.tile(np.cov(x.T).reshape(d, d), (k, 1, 1))
    for _ in range(ROUNDS):
        logs = _log_parts(x, weights, means, covariances)
        share = np.exp(logs - np.logaddexp.reduce(logs, 1, keepdims=True))
        number = share.sum(0) + 1e-9
        weights, means = number / n, share.T @ x / number[:, None]
        off = x[:, None] - means
        covariances = np.einsum("nk,nki,nkj->kij", share, off, off) / number[:, None, None] + FLOOR**2 * np.eye(d)
    return weights, means, covariances


def _log_parts(x, weights, means, covariances):
    """`(n, k)`: logarithms of weight times density of each Gaussian."""
    off = x[:, None] - means
    chi2 = np.einsum("nki,kij,nkj->nk", off, np.linalg.inv(covariances), off, optimize=True)
    return np.log(weights) - 0.5 * (chi2 + np.linalg.slogdet(2 * np.pi * covariances)[1])


def _population(network) -> dict:
    card = network.card.get("population")
    if not card:
        raise NetworkError(
            "The network's card says nothing of the population it was trained on. Fetch a newer network."
        )
    return card


def population_shift(network, answer: Answer) -> Shift:
    """How far the distribution of the answers is from that of the training objects: of draws if there are, else of medians, which lie
    closer together than what is true."""
    card, distance, told = _population(network), {}, []
    limit = max(FARTHEST, CRITICAL / max(len(answer), 1) ** 0.5)
    for i, name in enumerate(answer.names):
        if name not in card["names"]:
            continue
        values = answer.draws[..., i] if answer.draws.shape[1] else answer.quantiles[0.5][:, i]
        values, known = np.sort(np.ravel(values)), np.array(card["quantiles"][card["names"].index(name)])
        expected = np.interp(values, known, QUANTILES, left=0.0, right=1.0)
        place = np.arange(len(values) + 1) / len(values)
        gap = np.maximum(np.abs(expected - place[1:]), np.abs(expected - place[:-1]))
        distance[name] = float(gap.max())
        if distance[name] > limit:
            told.append(
                f"{name}: the answers' median is {np.median(values):.4g}, that of the training {known[len(known) // 2]:.4g} (Kolmogorov "
                f"distance {distance[name]:.2f}). Wide answers lean to the training population: reweight them to yours."
            )
    return Shift(distance, limit, tuple(told))


def reweight(network, answer: Answer, prior: Mapping | Callable) -> Reweighted:
    """The draws of `ask(…, draws=N)` weighted by a stated prior over the training population.

    `prior`: names of labels to distributions (with `log_prob`, as NumPyro's), or to functions that give the logarithm of a density in the
    label's unit; what is not named stays as in the training, given the named. Or one function of all the answer's draws `(…, d)`.
    **Raises:** `TokenError` without draws, and for labels that the answer or the card does not have.
    """
    card, v = _population(network), answer.vocabulary
    if not answer.draws.shape[1]:
        raise TokenError("Only draws can be reweighted: ask with draws=1000.")
    names = list(prior) if isinstance(prior, Mapping) else list(answer.names)
    for name in names:
        if name not in answer.names or name not in card["names"]:
            raise TokenError(
                f"'{name}' cannot be reweighted; the answer has {', '.join(answer.names)}, the card {', '.join(card['names'])}."
            )
    own, of = [answer.names.index(n) for n in names], [card["names"].index(n) for n in names]
    values = answer.draws[..., own]
    n, draws, d = values.shape
    kinds = [v[name] for name in names]
    scale = np.array([k.scale for k in kinds])
    x = np.stack([k.transformed(values[..., i]) - k.centre for i, k in enumerate(kinds)], -1) / scale
    slope = np.stack([k.transformed_error(values[..., i], 1.0) for i, k in enumerate(kinds)], -1) / scale
    weights, means, covariances = (np.array(card[key], float) for key in ("weights", "means", "covariances"))
    covariances = covariances[:, of][:, :, of]
    trained = np.logaddexp.reduce(_log_parts(x.reshape(-1, d), weights, means[:, of], covariances), 1).reshape(n, draws)
    trained += np.log(slope).sum(-1)
    if isinstance(prior, Mapping):
        wanted = sum(np.asarray(getattr(p, "log_prob", p)(values[..., i]), float) for i, p in enumerate(prior.values()))
    else:
        wanted = np.asarray(prior(answer.draws), float)
    ratio = np.where(np.isfinite(wanted), wanted - trained, -np.inf)
    largest = ratio.max(1, keepdims=True)
    w = np.exp(ratio - np.where(np.isfinite(largest), largest, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        w = w / w.sum(1, keepdims=True)  # NaN where the prior allows no draw
        ess = np.nan_to_num(1 / (w**2).sum(1))
    mean = np.einsum("nk,nkd->nd", w, answer.draws)
    sd = np.sqrt(np.einsum("nk,nkd->nd", w, (answer.draws - mean[:, None]) ** 2))
    return Reweighted(w, mean, sd, {p: _quantile(answer.draws, w, p) for p in answer.quantiles}, ess)


def _quantile(draws, weights, p):
    order = np.argsort(draws, axis=1)
    below = np.cumsum(np.take_along_axis(weights[..., None], order, 1), axis=1)
    place = np.minimum((below < p).sum(1, keepdims=True), draws.shape[1] - 1)
    found = np.take_along_axis(np.take_along_axis(draws, order, 1), place, 1)[:, 0]
    return np.where(np.isfinite(weights[:, :1]), found, np.nan)
