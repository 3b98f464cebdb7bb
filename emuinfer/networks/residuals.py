"""What the errors of a network's predictions have in common: low-rank factors, on objects it was not trained on, for `as_emulator`."""

from typing import NamedTuple

import numpy as np

from ..tokens import TokenSet
from ..tokens.tokenset import NORMALISED, level_of
from .network import Network

RANK = 8
ROUNDS = 60
KEPT = 0.98  # of the objects, by their chi-square: wrong labels, blends, bad spectra
LEAST, MOST = 0.05, 3.0  # of the predicted standard deviation that may be left


class Residuals(NamedTuple):
    """What was seen minus what was predicted from labels, transformed, `(n, m)`; the predicted standard deviations; the errors of
    what was seen. NaN where there is nothing. `wanted` are the kinds' numbers."""

    difference: np.ndarray
    sd: np.ndarray
    error: np.ndarray
    wanted: np.ndarray

    def where(self, rows) -> "Residuals":
        """Of some of the objects."""
        return Residuals(self.difference[rows], self.sd[rows], self.error[rows], self.wanted)


class Factors(NamedTuple):
    """`factors` `(m, r)` in transformed units and `unique` `(m,)`: the covariance of an object's residuals is factors factorsᵀ plus
    the squares of unique · sd and of the errors."""

    factors: np.ndarray
    unique: np.ndarray


def residuals(network: Network, tokens: TokenSet, condition="labels", observe=("xp_bins", "colours")) -> Residuals:
    """Of objects of which all of `condition` is known. Relative kinds are compared at the level of 4000 to 9500 Å."""
    v = network.vocabulary
    wanted, given = v.indices(observe), v.indices(condition)
    tokens = tokens[tokens.seen[:, given].all(1)]
    names = [v.names[i] for i in given]
    answer = network.ask(tokens.only(names), [v.names[i] for i in wanted], calibrated=False, levels=(0.5,))
    seen = tokens.seen[:, wanted]
    values, errors = np.where(seen, tokens.values[:, wanted], np.nan), np.where(seen, tokens.errors[:, wanted], np.nan)
    kinds = [v[i] for i in wanted]
    x = np.stack([k.transformed(values[:, i]) for i, k in enumerate(kinds)], 1) - v.centre[wanted]
    error = np.stack([k.transformed_error(values[:, i], errors[:, i]) for i, k in enumerate(kinds)], 1)
    relative = v.relative[wanted]
    wavelength = np.array([k.wavelength or np.nan for k in kinds])
    with np.errstate(invalid="ignore"):
        inner = relative & (wavelength > NORMALISED[0]) & (wavelength < NORMALISED[1])
    x = x - relative * level_of(x, np.isfinite(x) & inner)[:, None]
    sd = answer.standardised_sd * v.scale[wanted]
    return Residuals(x - answer.standardised_mean * v.scale[wanted], sd, np.nan_to_num(error), wanted)


def fit_factors(r: Residuals, rank: int = RANK) -> Factors:
    """The most probable factors and unique parts of Gaussian residuals (expectation and maximisation, Rubin & Thayer 1982), of the
    objects that fit: a share `KEPT` by chi-square."""
    rank = min(rank, r.difference.shape[1] // 2)
    use = np.isfinite(r.difference).sum(1) > rank
    y, sd, error = (np.asarray(a[use], float) for a in r[:3])
    there = np.isfinite(y)
    y = np.where(there, y, 0.0)
    start = y / np.sqrt(sd**2 + error**2)
    unique = np.clip(np.median(np.abs(start), 0), LEAST, MOST)  # two thirds of their standard deviation, to begin with
    vectors = np.linalg.svd(np.clip(start, -4, 4), full_matrices=False)
    factors = (vectors[2][:rank].T * vectors[1][:rank] / np.sqrt(len(y))) * np.median(sd, 0)[:, None]
    kept = np.ones(len(y), bool)
    for number in range(ROUNDS):
        precision = there / ((unique * sd) ** 2 + error**2)
        scores, spread, chi2 = _scores(y, precision, factors)
        if number % 10 == 9:
            limit = chi2 / np.maximum(there.sum(1), 1)
            kept = limit < np.quantile(limit, KEPT)
        w = precision * kept[:, None]
        second = spread + scores[:, :, None] * scores[:, None, :]
        left = np.einsum("nk,nrs->krs", w, second) + 1e-9 * np.eye(factors.shape[1])
        factors = np.linalg.solve(left, np.einsum("nk,nk,nr->kr", w, y, scores)[..., None])[..., 0]
        off = (y - scores @ factors.T) ** 2 + np.einsum("kr,nrs,ks->nk", factors, spread, factors)
        # The scores' own covariance goes into the factors: many times faster (parameter expansion, Liu et al. 1998, Biometrika 85, 755).
        factors = factors @ np.linalg.cholesky(second[kept].mean(0))
        # A step towards where the squares are as large as they should be, weighted as in the likelihood.
        weight = w**2 * sd**2
        ratio = (weight * (off - error**2)).sum(0) / np.maximum((weight * (unique * sd) ** 2).sum(0), 1e-30)
        unique = np.clip(unique * np.sqrt(np.clip(ratio, 0.25, 4.0)), LEAST, MOST)
    return Factors(factors, unique)


def _scores(y, precision, factors):
    """Means `(n, r)` and covariances `(n, r, r)` of the scores, and the chi-squares `(n,)` of all."""
    inverse = np.einsum("nk,kr,ks->nrs", precision, factors, factors, optimize=True) + np.eye(factors.shape[1])
    spread = np.linalg.inv(inverse)
    right = (precision * y) @ factors
    scores = np.einsum("nrs,ns->nr", spread, right)
    return scores, spread, (precision * y**2).sum(1) - (right * scores).sum(1)


def whitened(r: Residuals, f: Factors) -> np.ndarray:
    """`(n, m)`: residuals without correlation and with unit variance, if the factors are right. Objects with gaps are left out."""
    use = np.isfinite(r.difference).all(1)
    out = []
    for y, sd, error in zip(r.difference[use], r.sd[use], r.error[use]):
        lower = np.linalg.cholesky(f.factors @ f.factors.T + np.diag((f.unique * sd) ** 2 + error**2))
        out.append(np.linalg.solve(lower, y))
    return np.array(out)


def check(r: Residuals, f: Factors) -> dict[str, float]:
    """How far the whitened residuals are from independent ones of variance 1, in robust numbers."""
    z = whitened(r, f)
    off = np.corrcoef(np.clip(z, -4, 4).T)[np.triu_indices(z.shape[1], 1)]
    return {
        "n": len(z),
        "robust_sd": float(1.4826 * np.median(np.abs(z))),
        "within_1": float(np.mean(np.abs(z) < 1)),
        "within_2": float(np.mean(np.abs(z) < 2)),
        "rms_correlation": float(np.sqrt(np.mean(off**2))),
        "rms_correlation_expected": float(len(z) ** -0.5),
        "largest_correlation": float(np.abs(off).max()),
        "chi2_per_kind_median": float(np.median((z**2).mean(1))),
    }


def correlation_card(network: Network, tokens: TokenSet, rank: int = RANK, seed: int = 0, **what) -> dict:
    """What `as_emulator` reads from the card: factors by all objects; and the check of factors by one half on the other."""
    r = residuals(network, tokens, **what)
    order = np.random.default_rng(seed).permutation(len(r.difference))
    halves = [r.where(part) for part in np.array_split(order, 2)]
    found = fit_factors(r, rank)
    return {
        "kinds": [network.vocabulary.names[i] for i in r.wanted],
        "factors": np.round(found.factors, 5).tolist(),
        "unique": np.round(found.unique, 4).tolist(),
        "objects": len(order),
        "check": check(halves[1], fit_factors(halves[0], rank)),
    }
