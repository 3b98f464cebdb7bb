"""`Network`: weights, vocabulary and card of a trained any-to-any network, and what is asked of it."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..entry import public
from ..errors import TokenError
from ..tokens import TokenSet, Vocabulary, read_tokens, tokens_of
from . import heads
from .answer import Answer
from .anytoany import AnyToAny
from .calibration import Calibration
from .context import context_of
from .emulator import NetworkEmulator
from .guide import NetworkGuide
from .outliers import Outliers, outlier_scores

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

    @property
    def kinds(self):
        """The kinds of the vocabulary, in order."""
        return self.vocabulary.kinds

    def tokens(self, data, *, columns=None, key: str | None = None) -> TokenSet:
        """What is known of objects, as tokens: of a table, a file's path, a mapping such as
        `{"xp": (flux, error), "j_h": 0.41, "teff": (5777, 60)}`, or tokens as they are. `columns`, `key`: as of
        `emuinfer.tokens.table_tokens`. Spectra come as bins and as coefficients; each answer uses one of the two."""
        options = dict(columns=columns, key=key, spectrum="both")
        if isinstance(data, str | Path):
            return read_tokens(data, self.vocabulary, **options).tokens
        return tokens_of(data, self.vocabulary, **options)

    @public
    def ask(
        self,
        tokens,
        want,
        *,
        draws: int = 0,
        seed: int = 0,
        levels: Sequence[float] = LEVELS,
        calibrated=True,
    ) -> Answer:
        """The distributions of the kinds or groups `want`, given all else that `tokens` hold of each object.

        **Arguments:**

        - `tokens`: n objects, or a table or mapping of which `tokens()` makes them. What is wanted is never read, even where it
          is there, and of a spectrum either the coefficients or the bins are.
        - `want`: names of kinds or of groups.
        - `draws`: joint draws of what is wanted, `(n, draws, d)`: each kind given those before it, labels first,
          else in the order of `want`.
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
        levels = (*levels, 0.5) if 0.5 not in levels else tuple(levels)
        tokens = self.tokens(tokens)
        others = tokens.without([self.vocabulary.names[i] for i in wanted])
        context = context_of(tokens, wanted).standardised()
        cells = self.calibration.cells(others, context.seen) if calibrated and self.calibration else None
        empty = ~context.seen.any(1)
        if empty.any():
            keys = ", ".join(str(k) for k in tokens.keys[empty][:5])
            raise TokenError(
                f"Of {empty.sum()} of {len(tokens)} objects nothing is known beside what is asked for ({tokens.key_name} {keys}"
                f"{', …' if empty.sum() > 5 else ''}). Leave them out, or give at least one value of: {self.vocabulary.describe()}."
            )
        parts = [
            self._answer(context, cells, slice(i, i + CHUNK), wanted, levels, draws, seed)
            for i in range(0, len(tokens), CHUNK)
        ]
        mean, sd, quantiles, drawn, density = (np.concatenate(part) for part in zip(*parts))
        return Answer(
            self.vocabulary, wanted, context.level, mean, sd, quantiles, levels, drawn, density, tokens.keys,
            tokens.key_name,
        )  # fmt: skip

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
        m = 1 << (n - 1).bit_length()  # a few shapes, and no draws for the many rows of zeros
        x, e, seen, factor = (None if a is None else a[:m] for a in (x, e, seen, factor))
        drawn, density = draw_jointly(self.net, key, x, e, seen, wanted, self.heads, draws, factor)
        return mean, sd, quantiles, np.asarray(drawn)[:n], np.asarray(density)[:n]

    @public
    def latent(self, tokens) -> np.ndarray:
        """Unit vectors `(n, d)` of what is known of each object; near ones are alike (cosine similarity)."""
        tokens = context_of(self.tokens(tokens))
        s = tokens.standardised()
        rows = [slice(i, i + CHUNK) for i in range(0, len(tokens), CHUNK)]
        parts = [
            np.asarray(_latent(self.net, *(_padded(a[r], CHUNK) for a in (s.x, s.e, s.seen))))[: len(s.x[r])]
            for r in rows
        ]
        return np.concatenate(parts)

    @public
    def outlier_score(self, tokens) -> Outliers:
        """How unlike the training objects each object is: `score` and `p`, both `(n,)`.

        Every second of an object's elements is predicted from the others, and these from the first. The score is a mean over all of
        what lies between prediction and value in units of its error (robust: ln(1 + t²/5)), so that it is about 1 where the
        object is as the network expects, errors included. `p` is the share of objects like those of the training, with the
        same description of the spectrum, that are as odd, in all elements together or in those of one group (labels, colours, …);
        NaN for parts of spectra, of which none was measured.
        """
        return outlier_scores(self, self.tokens(tokens))

    def as_guide(self, tokens: TokenSet, labels: Sequence[str] | str = "labels") -> NetworkGuide:
        """What proposes values of `labels` for the one object of `tokens`: draws and their density, for `refine`."""
        if len(tokens) != 1:
            raise TokenError(f"A guide is of one object; {len(tokens)} were given. Choose one: tokens[0].")
        wanted = self.vocabulary.indices(labels)
        context = context_of(tokens, wanted)
        factor = None
        if self.calibration is not None:
            others = tokens.without([self.vocabulary.names[i] for i in wanted])
            factor = self.calibration.factor(self.calibration.cells(others, context.seen))[0]
        return NetworkGuide(self.net, self.vocabulary, wanted, context, factor)

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
    outputs = net.decode(net.encode(x, e, seen), jnp.broadcast_to(wanted, (len(x), len(wanted))))
    if factor is not None:
        outputs = heads.widened(outputs, factor, kinds)
    mean, sd = heads.moments(outputs, kinds)
    return mean, sd, jnp.moveaxis(heads.quantiles(outputs, levels, kinds), 0, -1)


@eqx.filter_jit
def _latent(net, x, e, seen):
    pooled = jnp.mean(net.encode(x, e, seen), -2)
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
