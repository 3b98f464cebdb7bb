"""`AnyToAny`: a transformer that takes any subset of the elements of a vocabulary and answers for any other."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from ..errors import NetworkError
from .heads import OUTPUTS


@dataclasses.dataclass(frozen=True)
class AnyToAnyConfig:
    """Sizes of an `AnyToAny` network.

    - `width`, `heads`: of latents and queries, and of every attention.
    - `latents`: vectors that hold what is known of one object; the cost of its tokens is linear in their number.
    - `depth`: blocks of latents; all tokens are read before the first.
    - `rereads`: blocks, from the second on, before which tokens are read again, as what differs from what the latents expect of
      them.
    - `decoder_depth`: blocks of the queries.
    - `features`: nonlinear functions of a value that each kind has for itself, beside the value and its error.
    """

    width: int = 96
    heads: int = 4
    latents: int = 8
    depth: int = 3
    decoder_depth: int = 1
    features: int = 3
    rereads: int = 0

    def __post_init__(self):
        if not isinstance(self.rereads, int) or not 0 <= self.rereads < max(self.depth, 1):
            raise NetworkError(
                f"rereads = {self.rereads!r:.40} with depth = {self.depth!r:.40}: it must be 0 to depth - 1, as nothing is read again "
                "before the first block."
            )


def _normal(key, shape, scale):
    return scale * jax.random.normal(key, shape)


def _times(x, matrix):
    """`x @ matrix`. All axes of `x` but the last are made one: on CPU the gradient of a feed-forward layer takes half the time so."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


class Norm(eqx.Module):
    """Root-mean-square norm over the last axis (Zhang & Sennrich 2019), with a weight."""

    weight: Array

    def __init__(self, width: int):
        self.weight = jnp.ones(width)

    def __call__(self, x):
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * self.weight


class Tokens(eqx.Module):
    """Tokens of values: for each kind functions of (value, error), times vectors of that kind.

    The functions are 1, the value, the logarithm of the error and `features` of the kind's own, tanh(a x + b). A value of error e
    (in units of the kind's spread) is shrunk by 1/(1 + e²), the mean of a value with unit variance that was measured so, and the
    whole token by the same factor, so that an error without bound takes it out. Far values are compressed (arcsinh).
    """

    slope: Float[Array, "kinds features"]
    offset: Float[Array, "kinds features"]
    vectors: Float[Array, "kinds functions width"]

    def __init__(self, kinds: int, width: int, features: int, *, key):
        a, b, c = jax.random.split(key, 3)
        self.slope = jnp.exp(_normal(a, (kinds, features), 0.5))
        self.offset = jax.random.uniform(b, (kinds, features), minval=-2.0, maxval=2.0)
        self.vectors = _normal(c, (kinds, features + 3, width), (features + 3) ** -0.5)

    def functions(self, x: Float[Array, "*n kinds"], e: Float[Array, "*n kinds"]) -> Float[Array, "*n kinds functions"]:
        trust = 1.0 / (1.0 + e * e)
        x = 3.0 * jnp.arcsinh(x * trust / 3.0)
        own = jnp.tanh(self.slope * x[..., None] + self.offset)
        shared = jnp.stack([jnp.ones_like(x), x, jnp.log1p(100.0 * e) / 5.0], -1)
        return trust[..., None] * jnp.concatenate([shared, own], -1)

    def __call__(self, x, e) -> Float[Array, "*n kinds width"]:
        return jnp.einsum("...kf,kfw->...kw", self.functions(x, e), self.vectors)

    def pooled(self, x, e, seen) -> Float[Array, "*n width"]:
        """The sum of the tokens that are `seen`, over the square root of their number."""
        functions = jnp.where(seen[..., None], self.functions(x, e), 0.0)
        number = jnp.sum(functions[..., 0], -1, keepdims=True)
        total = _times(functions.reshape(*x.shape[:-1], -1), self.vectors.reshape(-1, self.vectors.shape[-1]))
        return total / jnp.sqrt(1.0 + number)


class Reread(eqx.Module):
    """What the elements that are seen add to what is known: each less what the latents expect of it, in units of a scale of its
    own, as a token again (predictive coding: Rao & Ballard 1999, Nature Neuroscience 2, 79). Any subset of the elements can so be
    explained jointly, where a single sum of tokens weighs each alike whatever else is seen.
    """

    norm: Norm
    expected: Float[Array, "kinds latents*width"]
    log_scale: Float[Array, " kinds"]
    tokens: Tokens

    def __init__(self, kinds: int, latents: int, width: int, *, key):
        a, b = jax.random.split(key)
        self.norm = Norm(width)
        self.expected = _normal(a, (kinds, latents * width), 0.3 * (latents * width) ** -0.5)
        self.log_scale = jnp.full((kinds,), -1.0)
        self.tokens = Tokens(kinds, latents * width, 1, key=b)

    def __call__(self, latents, x, e, seen):
        scale = jnp.exp(self.log_scale)
        known = self.norm(latents).reshape(*x.shape[:-1], -1)
        residual = (x / (1.0 + e * e) - _times(known, self.expected.T)) / scale
        return latents + self.tokens.pooled(residual, e / scale, seen).reshape(latents.shape)


class Attention(eqx.Module):
    """Multi-head attention of queries to keys and values that are given (projected by whoever has them)."""

    query: Float[Array, "width width"]
    out: Float[Array, "width width"]
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, *, key):
        a, b = jax.random.split(key)
        self.query = _normal(a, (width, width), width**-0.5)
        self.out = _normal(b, (width, width), 0.5 * width**-0.5)
        self.heads = heads

    def __call__(self, x, keys, values, bias=None):
        """`x` (…, n, width), `keys` and `values` (…, m, width), `bias` (…, n, m), added to the logits. With no token at all
        (every bias −∞) the answer is zero."""
        split = lambda a: a.reshape(*a.shape[:-1], self.heads, -1)
        logits = jnp.einsum("...nhc,...mhc->...hnm", split(_times(x, self.query)), split(keys))
        logits = logits * (x.shape[-1] / self.heads) ** -0.5
        if bias is not None:
            logits = logits + bias[..., None, :, :]
        largest = jax.lax.stop_gradient(jnp.maximum(jnp.max(logits, -1, keepdims=True), -1e4))
        weight = jnp.exp(logits - largest)
        weight = weight / (jnp.sum(weight, -1, keepdims=True) + 1e-9)
        mixed = jnp.einsum("...hnm,...mhc->...nhc", weight, split(values))
        return _times(mixed.reshape(x.shape), self.out)


class FeedForward(eqx.Module):
    """Gated feed-forward layer (SwiGLU, Shazeer 2020)."""

    expand: Float[Array, "width hidden"]
    gate: Float[Array, "width hidden"]
    contract: Float[Array, "hidden width"]

    def __init__(self, width: int, *, key):
        a, b, c = jax.random.split(key, 3)
        hidden = 4 * width // 3 // 8 * 16
        self.expand, self.gate = _normal(a, (width, hidden), width**-0.5), _normal(b, (width, hidden), width**-0.5)
        self.contract = _normal(c, (hidden, width), 0.5 * hidden**-0.5)

    def __call__(self, x):
        return _times(jax.nn.silu(_times(x, self.gate)) * _times(x, self.expand), self.contract)


class Block(eqx.Module):
    """One residual block: attention to something, then a feed-forward layer."""

    norm: Norm
    attention: Attention
    key: Float[Array, "width width"]
    value: Float[Array, "width width"]
    norm_of_others: Norm
    second_norm: Norm
    feed: FeedForward

    def __init__(self, width: int, heads: int, *, key):
        a, b, c, d = jax.random.split(key, 4)
        self.norm, self.second_norm = Norm(width), Norm(width)
        self.attention = Attention(width, heads, key=a)
        self.key = _normal(b, (width, width), width**-0.5)
        self.value = _normal(c, (width, width), width**-0.5)
        self.norm_of_others = Norm(width)
        self.feed = FeedForward(width, key=d)

    def read(self, others):
        """Keys and values of what is attended to."""
        others = self.norm_of_others(others)
        return _times(others, self.key), _times(others, self.value)

    def __call__(self, x, keys=None, values=None, bias=None):
        """Attention to `keys` and `values`, or to itself."""
        if keys is None:
            keys, values = self.read(x)
        x = x + self.attention(self.norm(x), keys, values, bias)
        return x + self.feed(self.second_norm(x))


class AnyToAny(eqx.Module):
    """An any-to-any transformer over the kinds of a vocabulary. Arrays are of one object, or of many, with further axes in front.

    Values are standardised, each kind by its own centre and scale, and come with errors in the same units (0 where there is none).
    `encode` reads the elements that are seen (a Perceiver, Jaegle et al. 2021, arXiv:2103.03206: latents attend to tokens, then
    to themselves); an element that is not seen has no influence, nor has an order, and an error that grows takes an element out.
    `decode` answers queries from the latents: the parameters of a distribution for each (`heads`). Labels may be handed to
    the decoder directly: chains of conditionals then encode an object once.
    """

    tokens: Tokens
    given_keys: Tokens
    given_values: Tokens
    start: Float[Array, "latents width"]
    queries: Float[Array, "kinds width"]
    rereads: Reread | None
    blocks: list[Block]
    decoder: list[Block]
    norm: Norm
    norm_of_answer: Norm
    head: Float[Array, "width outputs"]
    bias_of_kind: Float[Array, "kinds outputs"]
    config: AnyToAnyConfig = eqx.field(static=True)
    given: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, kinds: int, given: tuple[int, ...], config: AnyToAnyConfig = AnyToAnyConfig(), *, key):
        c, k = config, iter(jax.random.split(key, 9))
        again = jax.random.fold_in(key, 9)
        self.config, self.given = config, tuple(given)
        self.tokens = Tokens(kinds, c.latents * c.width, c.features, key=next(k))
        self.given_keys = Tokens(len(given), c.width * c.decoder_depth, c.features, key=next(k))
        self.given_values = Tokens(len(given), c.width * c.decoder_depth, c.features, key=next(k))
        self.start = _normal(next(k), (c.latents, c.width), 1.0)
        self.queries = _normal(next(k), (kinds, c.width), 1.0)
        self.rereads = Reread(kinds, c.latents, c.width, key=again) if c.rereads else None
        make = lambda n: [Block(c.width, c.heads, key=one) for one in jax.random.split(next(k), n)]
        self.blocks, self.decoder = make(c.depth), make(c.decoder_depth)
        self.norm, self.norm_of_answer = Norm(c.width), Norm(c.width)
        self.head = jnp.zeros((c.width, OUTPUTS))
        self.bias_of_kind = jnp.zeros((kinds, OUTPUTS))

    def encode(
        self, x: Float[Array, "*n kinds"], e: Float[Array, "*n kinds"], seen: Bool[Array, "*n kinds"]
    ) -> Float[Array, "*n latents width"]:
        """What is known, from the elements that are `seen`; the others' `x` and `e` may be anything, NaN too."""
        x, e = jnp.where(seen, x, 0.0), jnp.where(seen, e, 0.0)
        latents = self.start + self.tokens.pooled(x, e, seen).reshape(*x.shape[:-1], *self.start.shape)
        for number, block in enumerate(self.blocks):
            if self.rereads is not None and 0 < number <= self.config.rereads:
                latents = self.rereads(latents, x, e, seen)
            latents = block(latents)
        return self.norm(latents)

    def decode(
        self,
        latents: Float[Array, "*n latents width"],
        asked: Int[Array, "*n queries"],
        x: Float[Array, "*n given"] | None = None,
        e: Float[Array, "*n given"] | None = None,
        known: Bool[Array, "*n queries given"] | None = None,
    ) -> Float[Array, "*n queries outputs"]:
        """Parameters of the distributions of the kinds `asked` for; `x` and `e` are values and errors of the kinds of
        `given`, of which query q knows those of `known[q]`."""
        queries, width = self.queries[asked], self.config.width
        if x is not None and e is not None and known is not None:
            some = jnp.any(known, -2)
            x, e = jnp.where(some, x, 0.0), jnp.where(some, e, 0.0)
            more_keys, more_values = self.given_keys(x, e), self.given_values(x, e)
            bias = jnp.where(known, -jnp.log1p(e * e)[..., None, :], -jnp.inf)
            bias = jnp.concatenate([jnp.zeros((*bias.shape[:-1], latents.shape[-2])), bias], -1)
        for number, block in enumerate(self.decoder):
            keys, values = block.read(latents)
            if x is None:
                queries = block(queries, keys, values)
            else:
                part = slice(number * width, (number + 1) * width)
                join = lambda a, b: jnp.concatenate([a, b[..., part]], -2)
                queries = block(queries, join(keys, more_keys), join(values, more_values), bias)
        queries = self.norm_of_answer(queries)
        return _times(queries, self.head) + self.bias_of_kind[asked]
