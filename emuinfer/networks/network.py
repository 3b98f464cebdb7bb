"""`Network`: weights, vocabulary and card of a trained any-to-any network, and what is asked of it."""

import dataclasses
import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..entry import public
from ..errors import TokenError
from ..tokens import TokenSet, Vocabulary
from . import heads
from .answer import Answer
from .anytoany import AnyToAny
from .calibration import Calibration
from .emulator import NetworkEmulator
from .guide import NetworkGuide

LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)
CHUNK = 256  # objects that are answered for at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A trained any-to-any network: `ask` it for any kind of its vocabulary, given any others.

    - `net`: the weights. - `vocabulary`: the kinds. - `card`: what it was trained on, by whom it is licensed, what it was measured to do.
    """

    net: AnyToAny
    vocabulary: Vocabulary
    card: dict

    @property
    def heads(self) -> np.ndarray:
        """`(K,)`: numbers of `heads.HEADS`."""
        return np.array([heads.HEADS[kind.head] for kind in self.vocabulary], dtype=np.int32)

    @public
    def ask(
        self,
        tokens: TokenSet,
        want,
        *,
        draws: int = 0,
        seed: int = 0,
        levels: Sequence[float] = LEVELS,
        calibrated=True,
    ) -> Answer:
        """The distributions of the kinds or groups `want`, given all else that `tokens` hold of each object.

        **Arguments:**

        - `tokens`: n objects. What is wanted is never read, even where it is there.
        - `want`: names of kinds or of groups.
        - `draws`: joint draws of what is wanted, `(n, draws, d)`: each kind given those before it, in the order of `want`.
        - `levels`: probabilities of the quantiles.
        - `calibrated`: whether widths and quantiles are corrected as the card says (`networks.calibration`), by stars that the
          network was not trained on.

        Of relative kinds (bins of spectra) the values are fluxes in the unit of the bins that were given; where none was, their
        mean over 4000 to 9500 Å is 1. **Raises:** `TokenError` on unknown kinds, and for objects of which nothing is known,
        by their keys.
        """
        wanted = self.vocabulary.indices(want)
        if not len(wanted):
            raise TokenError("Nothing was asked for: give the names of kinds or groups in `want`.")
        others = tokens.without([self.vocabulary.names[i] for i in wanted])
        cells = self.calibration.cells(others) if calibrated and self.calibration else None
        context = others.standardised()
        empty = ~context.seen.any(1)
        if empty.any():
            keys = ", ".join(str(k) for k in tokens.keys[empty][:5])
            raise TokenError(
                f"Of {empty.sum()} of {len(tokens)} objects nothing is known beside what is asked for ({tokens.key_name} {keys}"
                f"{', …' if empty.sum() > 5 else ''}). Leave them out, or give at least one value of: {self.vocabulary.describe()}."
            )
        parts = [
            self._answer(context, cells, slice(i, i + CHUNK), wanted, tuple(levels), draws, seed)
            for i in range(0, len(tokens), CHUNK)
        ]
        mean, sd, quantiles, drawn, density = (np.concatenate(part) for part in zip(*parts))
        return Answer(
            self.vocabulary, wanted, context.level, mean, sd, quantiles, tuple(levels), drawn, density, tokens.keys
        )

    @functools.cached_property
    def calibration(self) -> Calibration | None:
        """What corrects widths and quantiles; None if the card has none."""
        return Calibration.from_json(self.card.get("calibration"), self.vocabulary)

    def _answer(self, context, cells, rows, wanted, levels, draws, seed):
        calibration = None if cells is None else self.calibration
        x, e, seen = (_padded(a[rows], CHUNK) for a in (context.x, context.e, context.seen))
        factor, levels = None, jnp.asarray(levels)
        if calibration is not None:
            own = _padded(cells[rows], CHUNK)
            factor = calibration.factor(own)
            levels = jnp.moveaxis(jnp.asarray(calibration.levels(levels, own, wanted)), 1, 0)
        how = jnp.asarray(wanted), jnp.asarray(self.heads[wanted]), levels
        found = _ask(self.net, x, e, seen, *how, None if factor is None else factor[:, wanted])
        n = len(context.x[rows])
        mean, sd, quantiles = (np.asarray(a)[:n] for a in found)
        if not draws:
            return mean, sd, quantiles, np.zeros((n, 0, len(wanted))), np.zeros((n, 0))
        from .draws import draw_jointly

        key = jax.random.fold_in(jax.random.key(seed), rows.start)
        drawn, density = draw_jointly(self.net, key, x, e, seen, wanted, self.heads, draws, factor)
        return mean, sd, quantiles, np.asarray(drawn)[:n], np.asarray(density)[:n]

    @public
    def latent(self, tokens: TokenSet) -> np.ndarray:
        """Unit vectors `(n, d)` of what is known of each object; near ones are alike (cosine similarity)."""
        s = tokens.standardised()
        rows = [slice(i, i + CHUNK) for i in range(0, len(tokens), CHUNK)]
        parts = [
            np.asarray(_latent(self.net, *(_padded(a[r], CHUNK) for a in (s.x, s.e, s.seen))))[: len(s.x[r])]
            for r in rows
        ]
        return np.concatenate(parts)

    def as_guide(self, tokens: TokenSet, labels: Sequence[str] | str = "labels") -> NetworkGuide:
        """What proposes values of `labels` for the one object of `tokens`: draws and their density, for `refine`."""
        if len(tokens) != 1:
            raise TokenError(f"A guide is of one object; {len(tokens)} were given. Choose one: tokens[0].")
        wanted = self.vocabulary.indices(labels)
        return NetworkGuide(
            self.net,
            self.vocabulary,
            wanted,
            tokens.without([self.vocabulary.names[i] for i in wanted]),
            self.calibration,
        )

    def as_emulator(
        self, condition: Sequence[str] | str = "labels", observe: Sequence[str] | str = "xp_bins"
    ) -> NetworkEmulator:
        """What predicts the kinds `observe` from labels, with the errors of the prediction, for `XPModel`."""
        return NetworkEmulator(self, self.vocabulary.indices(condition), self.vocabulary.indices(observe))


def _padded(array, n):
    """The rows, and rows of zeros up to `n`, so that all chunks are of one shape."""
    array = np.asarray(array)
    return (
        np.concatenate([array, np.zeros((n - len(array), *array.shape[1:]), array.dtype)]) if len(array) < n else array
    )


@eqx.filter_jit
def _ask(net, x, e, seen, wanted, kinds, levels, factor):
    outputs = jax.vmap(lambda *one: net.decode(net.encode(*one), wanted))(x, e, seen)
    if factor is not None:
        outputs = heads.widened(outputs, factor, kinds)
    mean, sd = heads.moments(outputs, kinds)
    return mean, sd, jnp.moveaxis(heads.quantiles(outputs, levels, kinds), 0, -1)


@eqx.filter_jit
def _latent(net, x, e, seen):
    pooled = jax.vmap(lambda *one: jnp.mean(net.encode(*one), 0))(x, e, seen)
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
