"""`AnyToAny`: a transformer that takes any subset of the elements of a vocabulary and answers for any other."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from .heads import OUTPUTS


@dataclasses.dataclass(frozen=True)
class AnyToAnyConfig:
    """Sizes of an `AnyToAny` network.

    - `width`, `heads`: of latents and queries, and of every attention.
    - `latents`: vectors that hold what is known of one object; the cost of its tokens is linear in their number.
    - `depth`: blocks of latents; all tokens are read before the first and again before the middle one.
    - `decoder_depth`: blocks of the queries.
    - `features`: nonlinear functions of a value that each kind has for itself, beside the value and its error.
    """

    width: int = 96
    heads: int = 4
    latents: int = 8
    depth: int = 3
    decoder_depth: int = 1
    features: int = 3


def _normal(key, shape, scale):
    return scale * jax.random.normal(key, shape)


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

    def functions(self, x: Float[Array, " kinds"], e: Float[Array, " kinds"]) -> Float[Array, "kinds functions"]:
        trust = 1.0 / (1.0 + e * e)
        x = 3.0 * jnp.arcsinh(x * trust / 3.0)
        own = jnp.tanh(self.slope * x[:, None] + self.offset)
        return trust[:, None] * jnp.concatenate(
            [jnp.stack([jnp.ones_like(x), x, jnp.log1p(100.0 * e) / 5.0], 1), own], 1
        )

    def __call__(self, x, e) -> Float[Array, "kinds width"]:
        return jnp.einsum("kf,kfw->kw", self.functions(x, e), self.vectors)

    def pooled(self, x, e, seen) -> Float[Array, " width"]:
        """The sum of the tokens that are `seen`, over the square root of their number."""
        functions = jnp.where(seen[:, None], self.functions(x, e), 0.0)
        number = jnp.sum(functions[:, 0])
        return functions.reshape(-1) @ self.vectors.reshape(functions.size, -1) / jnp.sqrt(1.0 + number)


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
        """`x` (n, width), `keys` and `values` (m, width), `bias` (m,) or (n, m), added to the logits. With no token at all
        (every bias −∞) the answer is zero."""
        split = lambda a: a.reshape(*a.shape[:-1], self.heads, -1)
        logits = jnp.einsum("nhc,mhc->hnm", split(x @ self.query), split(keys)) * (x.shape[-1] / self.heads) ** -0.5
        if bias is not None:
            logits = logits + bias
        largest = jax.lax.stop_gradient(jnp.maximum(jnp.max(logits, -1, keepdims=True), -1e4))
        weight = jnp.exp(logits - largest)
        weight = weight / (jnp.sum(weight, -1, keepdims=True) + 1e-9)
        mixed = jnp.einsum("hnm,mhc->nhc", weight, split(values))
        return mixed.reshape(x.shape) @ self.out


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
        return (jax.nn.silu(x @ self.gate) * (x @ self.expand)) @ self.contract


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
        return others @ self.key, others @ self.value

    def __call__(self, x, keys=None, values=None, bias=None):
        """Attention to `keys` and `values`, or to itself."""
        if keys is None:
            keys, values = self.read(x)
        x = x + self.attention(self.norm(x), keys, values, bias)
        return x + self.feed(self.second_norm(x))


class AnyToAny(eqx.Module):
    """An any-to-any transformer over the kinds of a vocabulary (all arrays are of one object; `jax.vmap` for many).

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
        self.config, self.given = config, tuple(given)
        self.tokens = Tokens(kinds, c.latents * c.width, c.features, key=next(k))
        self.given_keys = Tokens(len(given), c.width * c.decoder_depth, c.features, key=next(k))
        self.given_values = Tokens(len(given), c.width * c.decoder_depth, c.features, key=next(k))
        self.start = _normal(next(k), (c.latents, c.width), 1.0)
        self.queries = _normal(next(k), (kinds, c.width), 1.0)
        make = lambda n: [Block(c.width, c.heads, key=one) for one in jax.random.split(next(k), n)]
        self.blocks, self.decoder = make(c.depth), make(c.decoder_depth)
        self.norm, self.norm_of_answer = Norm(c.width), Norm(c.width)
        self.head = jnp.zeros((c.width, OUTPUTS))
        self.bias_of_kind = jnp.zeros((kinds, OUTPUTS))

    def encode(
        self, x: Float[Array, " kinds"], e: Float[Array, " kinds"], seen: Bool[Array, " kinds"]
    ) -> Float[Array, "latents width"]:
        """What is known, from the elements that are `seen`; the others' `x` and `e` may be anything, NaN too."""
        x, e = jnp.where(seen, x, 0.0), jnp.where(seen, e, 0.0)
        latents = self.start + self.tokens.pooled(x, e, seen).reshape(self.start.shape)
        for block in self.blocks:
            latents = block(latents)
        return self.norm(latents)

    def decode(
        self,
        latents: Float[Array, "latents width"],
        asked: Int[Array, " queries"],
        x: Float[Array, " given"] | None = None,
        e: Float[Array, " given"] | None = None,
        known: Bool[Array, "queries given"] | None = None,
    ) -> Float[Array, "queries outputs"]:
        """Parameters of the distributions of the kinds `asked` for; `x` and `e` are values and errors of the kinds of
        `given`, of which query q knows those of `known[q]`."""
        queries, width = self.queries[asked], self.config.width
        if x is not None and e is not None and known is not None:
            x, e = jnp.where(jnp.any(known, 0), x, 0.0), jnp.where(jnp.any(known, 0), e, 0.0)
            more_keys, more_values = self.given_keys(x, e), self.given_values(x, e)
            bias = jnp.where(known, -jnp.log1p(e * e), -jnp.inf)
            bias = jnp.concatenate([jnp.zeros((len(asked), len(latents))), bias], 1)
        for number, block in enumerate(self.decoder):
            keys, values = block.read(latents)
            if x is None:
                queries = block(queries, keys, values)
            else:
                part = slice(number * width, (number + 1) * width)
                both = jnp.concatenate([keys, more_keys[:, part]]), jnp.concatenate([values, more_values[:, part]])
                queries = block(queries, *both, bias)
        queries = self.norm_of_answer(queries)
        return queries @ self.head + self.bias_of_kind[asked]
