"""Principal components of x = log(1/f − 1 + ε), and networks for their coefficients."""

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import EmulatorError
from .network import apply_layers, dense_layers


def principal_components(x: np.ndarray, k: int, *, centre: bool = True):
    """Mean `(n_wave,)`, the leading `k` components `(k, n_wave)` of unit norm, and coefficients `(n, k)` of `x` `(n, n_wave)`.

    Without `centre` the mean is left in, and zeros are returned for it. Raises `EmulatorError` if there are fewer than `k`.
    """
    from scipy.linalg import eigh

    if not 0 < k <= min(len(x) - centre, x.shape[1]):
        raise EmulatorError(
            f"{k} principal components need {k + centre} spectra of {k} wavelengths or more; got {len(x)} of {x.shape[1]}."
        )
    mean = x.mean(0, dtype=np.float64) if centre else np.zeros(x.shape[1])
    centred = x - mean
    if len(x) <= x.shape[1]:  # fewer spectra than wavelengths: the Gram matrix of the spectra is the smaller one
        values, vectors = eigh(centred @ centred.T, subset_by_index=(len(x) - k, len(x) - 1))
        # Directions without variance would be rounding noise blown up to unit norm: they stay zero.
        there = values > 1e-12 * values[-1]
        basis = np.where(there[:, None], (vectors.T @ centred) / np.sqrt(np.where(there, values, 1.0))[:, None], 0.0)
    else:
        _, vectors = eigh(centred.T @ centred, subset_by_index=(x.shape[1] - k, x.shape[1] - 1))
        basis = vectors.T
    basis = np.ascontiguousarray(basis[::-1])
    return mean, basis, centred @ basis.T


def fit_coefficients(
    scaled,
    coefficients,
    hidden: int,
    steps: int,
    seed: int = 0,
    batch: int = 4096,
    progress=True,
    *,
    depth: int = 2,
    rate: float = 4e-3,
):
    """SiLU network with `depth` hidden layers from scaled labels `(n, n_labels)` to coefficients `(n, k)`, by AdamW.

    The network learns standardised coefficients, so that small components learn as fast as large ones; the loss weighs
    them by their share of x.
    """
    import optax

    spread = np.maximum(coefficients.std(0), 1e-6 * coefficients.std(0).max())
    layers = dense_layers(jax.random.key(seed), (scaled.shape[1], *[hidden] * depth, coefficients.shape[1]))
    optimiser = optax.adamw(
        optax.warmup_cosine_decay_schedule(0.0, rate, min(100, steps // 2), steps, 1e-6), b2=0.99, weight_decay=1e-4
    )
    weight = jnp.asarray(spread / spread[0], jnp.float32)

    def loss(layers, s, t):
        residual = apply_layers(layers, s) - t
        return jnp.mean(jnp.sum(weight * jnp.sqrt(residual**2 + 1e-4), axis=-1))

    @jax.jit
    def advance(carry, scaled, target, rows):
        def one(carry, rows):
            layers, state = carry
            grads = jax.grad(loss)(layers, scaled[rows], target[rows])
            updates, state = optimiser.update(grads, state, layers)
            return (optax.apply_updates(layers, updates), state), None

        return jax.lax.scan(one, carry, rows)[0]

    rng = np.random.default_rng(seed)
    size = min(batch, len(scaled))
    scaled, target = jnp.asarray(scaled, jnp.float32), jnp.asarray(coefficients / spread, jnp.float32)
    carry = (layers, optimiser.init(layers))
    rounds = range(max(1, steps // 20))
    if progress:
        from tqdm import tqdm

        rounds = tqdm(rounds, desc="fitting coefficients", unit="×20", leave=False, mininterval=1)
    for _ in rounds:
        rows = np.stack([rng.permutation(len(scaled))[:size] for _ in range(20)])
        carry = advance(carry, scaled, target, rows)
    weight_out, bias_out = carry[0][-1]
    return carry[0][:-1] + [(weight_out * spread, bias_out * spread)]
