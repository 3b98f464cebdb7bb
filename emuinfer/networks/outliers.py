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
LEAST = 0.95  # of the elements of a spectrum must be there for the scores of whole spectra to be those to compare with
TYPICAL = 0.147  # the mean of ln(1 + t²/ν) for Student's t with ν = 5 degrees of freedom, scaled to unit variance


class Outliers(NamedTuple):
    """Of n objects the `score`, about 1 for ordinary ones, and `p`, the share of ordinary objects whose score is higher (NaN where it
    was not measured)."""

    score: np.ndarray
    p: np.ndarray


def outlier_scores(network, tokens: TokenSet) -> Outliers:
    """See `Network.outlier_score`."""
    context = context_of(tokens)
    score, families = _scores(network, context), _families(context)
    known = network.card.get("outliers", {})
    p = np.full(len(score), np.nan)
    for name, quantiles in known.items():
        rows = families == name
        # Share of higher scores; beyond the highest that was measured it is less than one in their number.
        p[rows] = 1 - np.interp(score[rows], quantiles, LEVELS, right=1.0)
    return Outliers(score, np.where(np.isfinite(score), p, np.nan))


def ordinary_scores(network, tokens: TokenSet) -> dict[str, list[float]]:
    """For the card, as `outliers`: quantiles `LEVELS` of the scores of objects that the network was not trained on, with each
    description of the spectrum, and without one."""
    views = [name for name in SPECTRA if name in tokens.vocabulary.groups]
    found = {}
    for name in [*views, "none"]:
        seen = tokens.without([other for other in views if other != name])
        seen = seen[_families(seen) == name]
        if len(seen) >= 100:
            found[name] = [round(float(q), 4) for q in np.nanquantile(_scores(network, seen), LEVELS)]
    return found


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
    found = np.concatenate(parts) if parts else np.zeros(0)
    return np.where(s.seen.sum(1) > 1, found, np.nan)


def halves(vocabulary) -> np.ndarray:
    """`(K,)`: every second kind of each group."""
    found = np.zeros(len(vocabulary), bool)
    for i, name in enumerate(vocabulary.groups):
        found[vocabulary.group(name)[i % 2 :: 2]] = True
    return found


@eqx.filter_jit
def _surprise(net, x, e, seen, asked, kinds):
    """The mean of Student-t's loss of (value - prediction) / error over the elements, in units of what it is for ordinary ones.
    `asked`: the kinds of each half, which are predicted from the other half."""

    def one(x, e, seen):
        total = jnp.zeros(())
        for mine in (half for half in asked if len(half)):
            outputs = net.decode(net.encode(x, e, seen.at[mine].set(False)), mine)
            mean, sd = heads.moments(outputs, kinds[mine])
            z2 = (x[mine] - mean) ** 2 / (sd**2 + e[mine] ** 2 + 1e-12)
            total += jnp.sum(jnp.where(seen[mine], jnp.log1p(z2 / heads.FREEDOM), 0.0))
        return total / jnp.maximum(jnp.sum(seen, dtype=x.dtype), 1.0)

    return jax.vmap(one)(x, e, seen) / TYPICAL
