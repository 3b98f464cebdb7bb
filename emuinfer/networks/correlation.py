"""What the errors of a network's predictions from labels have in common: measured on stars that it was not trained on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..entry import public
from ..errors import TokenError
from ..tokens import TokenSet
from .network import Network

LABEL_SD = {
    "a_k": 0.024
}  # of labels whose errors the table does not give: A_K scatters by this about what XP spectra and colours tell
RANK, FEWEST, CUT = 12, 50, 6.0
LEAST = 0.1  # of the predicted variance stays each kind's own


@public
def measure_correlation(
    network: Network, tokens: TokenSet, condition="labels", observe=("xp_bins", "colours"), *, rank: int = RANK
) -> dict:
    """The entry `correlation` of a card, from stars with labels: `kinds`, `factors` `(m, r)` and `unique` `(m,)`.

    Residuals of what is observed from what labels predict, in units of the predicted standard deviations, have a covariance; that of
    the noise of the labels (their errors, through the derivatives of the prediction) and of the data is taken out, as a label that is
    a parameter of a fit has none. The leading components become the factors, in the transformed unit of the kinds, at the median
    standard deviation; `unique` are what remains of the standard deviations. Stars further than 6 standard deviations off in a kind
    are left out; the level of a spectrum counts for nothing.

    **Raises:** `TokenError` with fewer than 50 stars that have all labels.
    """
    emulator = network.as_emulator(condition, observe)
    emulator = eqx.tree_at(lambda e: e.unique, emulator, np.ones_like(emulator.unique))
    whole = tokens.seen[:, [*emulator.condition, *emulator.observe]].all(1)
    if whole.sum() < FEWEST:
        raise TokenError(f"{whole.sum()} of {len(tokens)} stars have all labels and kinds; {FEWEST} are needed.")
    part = tokens[whole]
    labels = part.values[:, list(emulator.condition)]
    noise = part.errors[:, list(emulator.condition)]
    unknown = np.array([LABEL_SD.get(n, 0.0) for n in emulator.labels])
    noise = np.where(np.isfinite(noise), noise, unknown)
    mean, sd, slope = (np.asarray(a, float) for a in _predicted(emulator, jnp.asarray(labels, jnp.float32)))
    columns = list(emulator.observe)
    kinds = [network.vocabulary[i] for i in columns]
    y = np.stack([k.transformed(part.values[:, i]) for k, i in zip(kinds, columns)], 1)
    e = np.stack([k.transformed_error(part.values[:, i], part.errors[:, i]) for k, i in zip(kinds, columns)], 1)
    relative = np.array([k.relative for k in kinds])
    shape = lambda a: a - relative * (a[..., relative].mean(-1, keepdims=True) if relative.any() else 0.0)
    z = shape(y - mean) / sd
    slope = np.moveaxis(shape(np.moveaxis(slope, 1, 2)), 2, 1) / sd[:, :, None] * noise[:, None, :]
    typical = 1.4826 * np.median(np.abs(z), axis=0)
    kept = (np.abs(z) < CUT * typical).all(1)
    z, slope, e = z[kept] - np.median(z[kept], axis=0), slope[kept], np.nan_to_num(e[kept] / sd[kept])
    covariance = z.T @ z / len(z) - np.einsum("nkl,njl->kj", slope, slope) / len(z) - np.diag((e**2).mean(0))
    values, vectors = np.linalg.eigh(covariance)
    factors = vectors[:, ::-1][:, :rank] * np.sqrt(np.maximum(values[::-1][:rank], 0.0))
    rest = np.maximum(np.diag(covariance) - (factors**2).sum(1), LEAST)
    return {
        "kinds": list(emulator.kinds),
        "factors": (factors * np.median(sd, axis=0)[:, None]).round(6).tolist(),
        "unique": np.sqrt(rest).round(4).tolist(),
        "stars": int(kept.sum()),
        "left_out": int((~kept).sum()),
    }


@eqx.filter_jit
def _predicted(emulator, rows):
    """Means, standard deviations `(n, m)` and derivatives of the means by the labels `(n, m, d)`."""
    return jax.lax.map(lambda x: (*emulator.predict(x), jax.jacfwd(lambda x: emulator.predict(x)[0])(x)), rows)
