"""`NetworkGuide`: a network as the proposal of a likelihood; see `emuinfer.refine`."""

import equinox as eqx
import jax.numpy as jnp

from ..entry import public
from ..tokens import TokenSet, Vocabulary
from . import heads
from .draws import draws_of_one, log_density


class NetworkGuide:
    """Draws of labels given one object's tokens, and their exact density, both in the units of the labels.

    - `names`: what is proposed, in order. - `sample(key, n)`: `(n, d)`. - `log_prob(values)`: `(n, d)` to `(n,)`.
    """

    def __init__(self, net, vocabulary: Vocabulary, wanted, tokens: TokenSet, factor=None):
        self.net, self.wanted = net, tuple(int(i) for i in wanted)
        self.factor = None if factor is None else jnp.asarray(factor)
        self.kinds = tuple(vocabulary[i] for i in self.wanted)
        self.names = tuple(kind.name for kind in self.kinds)
        context = tokens.standardised()
        self.context = tuple(jnp.asarray(a[0]) for a in (context.x, context.e, context.seen))
        self.numbers = tuple(heads.HEADS[kind.head] for kind in vocabulary)
        self.level = float(context.level[0])
        offset = vocabulary.centre[list(self.wanted)] + self.level * vocabulary.relative[list(self.wanted)]
        self._offset = jnp.asarray(offset, jnp.float32)
        self._scale = jnp.asarray(vocabulary.scale[list(self.wanted)], jnp.float32)
        self._transforms = tuple(kind.transform for kind in self.kinds)

    @public
    def sample(self, key, n: int):
        """`(n, d)` draws: each label given those before it."""
        how = self.wanted, self.numbers, self._offset, self._scale, self._transforms
        return _sample(self.net, self.factor, key, self.context, n, *how)

    @public
    def log_prob(self, values):
        """The logarithm `(n,)` of the density at `values` `(n, d)`; −∞ where a value cannot be, as a negative Teff."""
        values = jnp.asarray(values, jnp.float32)
        how = self.wanted, self.numbers, self._offset, self._scale, self._transforms
        return _density(self.net, self.factor, self.context, values, *how)


def _physical(x, transforms):
    return jnp.stack(
        [{"log": jnp.exp, "arcsinh": jnp.sinh}.get(t, lambda a: a)(x[:, i]) for i, t in enumerate(transforms)], 1
    )


@eqx.filter_jit
def _sample(net, factor, key, context, n, wanted, numbers, offset, scale, transforms):
    drawn, _ = draws_of_one(net, key, context[0], context[1], context[2], wanted, jnp.asarray(numbers), n, factor)
    return _physical(drawn * scale + offset, transforms)


@eqx.filter_jit
def _density(net, factor, context, values, wanted, numbers, offset, scale, transforms):
    inside, transformed, slope = jnp.ones(len(values), bool), [], jnp.zeros(len(values))
    for i, transform in enumerate(transforms):
        value = values[:, i]
        if transform == "log":
            inside, value = inside & (value > 0), jnp.log(jnp.maximum(value, 1e-30))
            slope = slope - value
        elif transform == "arcsinh":
            slope = slope - 0.5 * jnp.log1p(value**2)
            value = jnp.arcsinh(value)
        transformed.append(value)
    standardised = (jnp.stack(transformed, 1) - offset) / scale
    density = log_density(net, context[0], context[1], context[2], wanted, jnp.asarray(numbers), standardised, factor)
    found = density + slope - jnp.sum(jnp.log(scale))
    return jnp.where(inside & jnp.isfinite(found), found, -jnp.inf)
