"""How unlike the training objects an object is: each half of what is known of it, against what the other half says."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..tokens import TokenSet
from . import heads
from .context import SPECTRA, context_of

CHUNK = 256
LEVELS = np.concatenate([np.linspace(0.0, 0.95, 20), 1 - np.geomspace(0.04, 0.0005, 15)])
FEWEST = 100  # ordinary objects
SMALLEST = 1e-4  # share that is told from others
LEAST = 0.95  # of the elements of a spectrum must be there for the scores of whole spectra to be those to compare with
TYPICAL = 0.147  # the mean of ln(1 + t²/ν) for Student's t with ν = 5 degrees of freedom, scaled to unit variance


class Outliers(NamedTuple):
    """Of n objects the `score`, about 1 for ordinary ones, and `p`, the share of ordinary objects that are as odd in all their elements
    together or in those of one group (NaN where it was not measured)."""

    score: np.ndarray
    p: np.ndarray


def outlier_scores(network, tokens: TokenSet) -> Outliers:
    """See `Network.outlier_score`."""
    context = context_of(tokens)
    scores, families = _scores(network, context), _families(context)
    p = np.full(len(scores), np.nan)
    for name, (*columns, oddest) in network.card.get("outliers", {}).items():
        rows = families == name
        p[rows] = _above(_oddest(scores[rows], columns), oddest)
    return Outliers(scores[:, 0], p)


def _above(values, quantiles):
    """The share of ordinary values that are higher; beyond the highest that was measured it is less than one in their number."""
    return np.where(np.isfinite(values), 1 - np.interp(values, quantiles, LEVELS, right=1.0), np.nan)


def _oddest(scores, columns):
    """`(n,)`: minus the logarithm of the smallest of the shares of higher scores, over all elements and each group."""
    each = [_above(score, quantiles) for score, quantiles in zip(scores.T, columns) if quantiles is not None]
    shares = np.stack([*each, np.full(len(scores), np.nan)])
    smallest = np.where(np.isfinite(shares), np.maximum(shares, SMALLEST), np.inf).min(0)
    return np.where(np.isfinite(smallest), -np.log(smallest), np.nan)


def ordinary_scores(network, tokens: TokenSet) -> dict[str, list[list[float] | None]]:
    """For the card, as `outliers`: quantiles `LEVELS` of the scores of objects that the network was not trained on, with each
    description of the spectrum, and without one: of all elements, of each group (None where too few have it), and of the oddest
    of these."""
    views = [name for name in SPECTRA if name in tokens.vocabulary.groups]
    found = {}
    for name in [*views, "none"]:
        seen = tokens.without([other for other in views if other != name])
        seen = seen[_families(seen) == name]
        if len(seen) >= FEWEST:
            scores = _scores(network, seen)
            columns = [_quantiles(column) for column in scores.T]
            found[name] = [*columns, _quantiles(_oddest(scores, columns))]
    return found


def _quantiles(scores):
    scores = scores[np.isfinite(scores)]
    return [round(float(q), 4) for q in np.quantile(scores, LEVELS)] if len(scores) >= FEWEST else None


def _families(context: TokenSet) -> np.ndarray:
    """Which spectrum is whole, by name; "none" where there is none, "" where there is a part of one."""
    seen, v = context.seen, context.vocabulary
    found = np.full(len(seen), "none", dtype="U16")
    for name in SPECTRA:
        if name in v.groups:
            share = seen[:, v.group(name)].mean(1)
            found = np.where(share >= LEAST, name, np.where((share > 0) & (found == "none"), "", found))
    return found


def _scores(network, context: TokenSet) -> np.ndarray:
    """`(n, 1 + groups)`: of all elements, and of those of each group; NaN where there are none, or nothing to tell them by."""
    s, v = context.standardised(), context.vocabulary
    half = halves(v)
    there = np.isin([kind.group for kind in v], [g for g in v.groups if s.seen[:, v.group(g)].any()])
    asked = [np.flatnonzero(~half & there), np.flatnonzero(half & there)]
    parts = []
    for i in range(0, len(context), CHUNK):
        rows = [np.asarray(a[i : i + CHUNK]) for a in (s.x, s.e, s.seen)]
        n = len(rows[0])
        x, e, seen = (np.concatenate([a, np.zeros((CHUNK - n, *a.shape[1:]), a.dtype)]) for a in rows)
        parts.append(np.asarray(_surprise(network.net, x, e, seen, asked, network.heads))[:n])
    each = np.concatenate(parts) if parts else np.zeros(s.x.shape)
    groups = np.stack([np.ones(len(v)), *(np.array([kind.group == g for kind in v]) for g in v.groups)], 1)
    number = s.seen @ groups
    with np.errstate(invalid="ignore"):
        return np.where((number > 0) & (s.seen.sum(1, keepdims=True) > 1), each @ groups / number / TYPICAL, np.nan)


def halves(vocabulary) -> np.ndarray:
    """`(K,)`: every second kind of each group."""
    found = np.zeros(len(vocabulary), bool)
    for i, name in enumerate(vocabulary.groups):
        found[vocabulary.group(name)[i % 2 :: 2]] = True
    return found


@eqx.filter_jit
def _surprise(net, x, e, seen, asked, kinds):
    """`(n, K)`: ln(1 + t²/ν) of each element, t = (value - prediction) / error; 0 where it is not seen. `asked`: the kinds of each half,
    which are predicted from the other half."""

    def one(x, e, seen):
        found = jnp.zeros_like(x)
        for mine in (half for half in asked if len(half)):
            outputs = net.decode(net.encode(x, e, seen.at[mine].set(False)), mine)
            mean, sd = heads.moments(outputs, kinds[mine])
            z2 = (x[mine] - mean) ** 2 / (sd**2 + e[mine] ** 2 + 1e-12)
            found = found.at[mine].set(jnp.where(seen[mine], jnp.log1p(z2 / heads.FREEDOM), 0.0))
        return found

    return jax.vmap(one)(x, e, seen)
