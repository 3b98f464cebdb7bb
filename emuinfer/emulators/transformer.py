"""TransformerPayne: a wavelength-wise transformer emulator (Różański, Ting & Jabłońska 2024, arXiv:2407.05751)."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..entry import public
from ..errors import EmulatorError
from ..labels.features import gp_features
from ..labels.space import LabelSpace
from .base import AtWavelengths, Emulator, from_link
from .network import Layers, apply_layers, dense_layers
from .strangers import check_counts
from .wavelength_encoding import WavelengthQuery, interpolate, log_periods, prepare_query, shift_query


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `TransformerPayne`.

    - `depth`: blocks; with 0 the bilinear part is all there is, and a spectrum costs one product of matrices.
    - `table_nodes`: nodes of the learned wavelength tables, best the pixels of the training grid; 0 leaves them out (and needs
      `rank = 0`).
    - `rank`: of the bilinear part; `branch_layers`: hidden layers of its branch, each `label_hidden` wide; `branch_theta`: give
      the branch 5040 K / Teff beside the labels, in which line strengths are nearer to linear.
    - Periods are in dex of wavelength. The shortest should not be below two pixels of the training grid (3.3e-6 dex for 0.02 Å
      at 5200 Å), or the emulator is undetermined between the pixels; the longest need not be above twice the window's width.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    tokens: int = 16
    label_hidden: int = 256
    feedforward: int = 2
    frequencies: int = 64
    shortest_period: float = 4e-6
    longest_period: float = 10.0
    table_nodes: int = 10_001
    rank: int = 128
    branch_layers: int = 2
    branch_theta: bool = False
    epsilon: float = 0.003

    def __post_init__(self):
        check_counts(
            "A TransformerPayne",
            self,
            width=(1, 16_384),
            depth=(0, 256),
            heads=(1, 1024),
            tokens=(1, 4096),
            label_hidden=(1, 65_536),
            feedforward=(1, 64),
            frequencies=(1, 65_536),
            table_nodes=(0, 100_000_000),
            rank=(0, 65_536),
            branch_layers=(0, 64),
        )
        if self.width % self.heads:
            raise EmulatorError(f"A TransformerPayne: width ({self.width}) must be a multiple of heads ({self.heads}).")
        if not (0 < self.shortest_period < self.longest_period < np.inf and 0 < self.epsilon < 1):
            raise EmulatorError(
                "A TransformerPayne: periods must be positive, the shortest below the longest, and epsilon between 0 and 1; got "
                f"{self.shortest_period}, {self.longest_period} and {self.epsilon}."
            )


def _dense(key, n_in, n_out, scale=1.0):
    return scale * jax.random.normal(key, (n_in, n_out), jnp.float32) / np.sqrt(n_in)


def _rms_norm(x, gain):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * gain


class Block(eqx.Module):
    """Pre-norm cross-attention from wavelengths to label tokens, then a pre-norm ReLU feed-forward. No biases."""

    norm_attention: Float[Array, " width"]
    query: Float[Array, "width width"]
    key: Float[Array, "width width"]
    value: Float[Array, "width width"]
    out: Float[Array, "width width"]
    norm_feedforward: Float[Array, " width"]
    expand: Float[Array, "width hidden"]
    contract: Float[Array, "hidden width"]
    heads: int = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, key):
        keys = jax.random.split(key, 6)
        d = config.width
        residual = 1.0 / np.sqrt(2 * config.depth)
        self.norm_attention = jnp.ones(d)
        self.query = _dense(keys[0], d, d)
        self.key = _dense(keys[1], d, d)
        self.value = _dense(keys[2], d, d)
        self.out = _dense(keys[3], d, d, residual)
        self.norm_feedforward = jnp.ones(d)
        self.expand = _dense(keys[4], d, config.feedforward * d)
        self.contract = _dense(keys[5], config.feedforward * d, d, residual)
        self.heads = config.heads

    def __call__(
        self, x: Float[Array, "n_wave width"], tokens: Float[Array, "n_tokens width"]
    ) -> Float[Array, "n_wave width"]:
        return self.feed(self.attend(x, tokens))

    def attention(
        self, x: Float[Array, "n_wave width"], tokens: Float[Array, "n_tokens width"]
    ) -> Float[Array, "n_wave heads n_tokens"]:
        """The share of each token in what a wavelength attends to."""
        # Queries and outputs are folded into the few keys and values, so that a wavelength costs two products with
        # (width, heads * n_tokens) instead of four. Logits scale as 1/d_head, not its root: learning rates then
        # carry over between widths (muP). Products are taken in the precision of the matrices, which training may lower.
        d, h, low = self.query.shape[0], self.heads, self.query.dtype
        keys = (tokens.astype(low) @ self.key).reshape(-1, h, d // h)
        to_logits = jnp.einsum("dhe,the->dht", self.query.reshape(d, h, d // h), keys) * (h / d)
        logits = (_rms_norm(x, self.norm_attention).astype(low) @ to_logits.reshape(d, -1)).reshape(
            -1, h, tokens.shape[0]
        )
        return jax.nn.softmax(logits.astype(x.dtype), axis=-1)

    def attend(
        self, x: Float[Array, "n_wave width"], tokens: Float[Array, "n_tokens width"]
    ) -> Float[Array, "n_wave width"]:
        d, h, low = self.query.shape[0], self.heads, self.query.dtype
        values = (tokens.astype(low) @ self.value).reshape(-1, h, d // h)
        to_output = jnp.einsum("the,hed->htd", values, self.out.reshape(h, d // h, d))
        weights = self.attention(x, tokens).reshape(x.shape[0], -1)
        return x + (weights.astype(low) @ to_output.reshape(-1, d)).astype(x.dtype)

    def feed(self, x: Float[Array, "n_wave width"]) -> Float[Array, "n_wave width"]:
        # ReLU rather than GELU: the same accuracy in trials, and on CPUs half the time of a block.
        normed = _rms_norm(x, self.norm_feedforward).astype(self.expand.dtype)
        return x + (jax.nn.relu(normed @ self.expand) @ self.contract).astype(x.dtype)


class TransformerPayne(Emulator):
    """Each wavelength is a query to a few tokens made from the labels; the head gives its normalised flux.

    The query is a projected sinusoidal encoding plus, if configured, features from a learned table on a grid of
    wavelengths: on a fixed window these spare the network learning thousands of line positions through sinusoids, while
    the emulator stays a continuous function of wavelength. To the head's output is added a bilinear part, the inner product
    of `rank` tabulated wavelength features (the trunk) with `rank` functions of the labels (the branch); the sum x passes
    the saturating link f = 1/(1 − ε + eˣ).
    """

    encode: Float[Array, "waves width"] | None  # sines and cosines to the width
    table: Float[Array, "nodes width"] | None
    trunk_mean: Float[Array, " nodes"] | None
    trunk: Float[Array, "nodes rank"] | None
    trunk_in: Float[Array, "rank width"] | None
    branch: Layers
    label_in: Float[Array, "n_labels hidden"] | None
    label_bias: Float[Array, " hidden"] | None
    label_out: Float[Array, "hidden tokens_times_width"] | None
    token_bias: Float[Array, "n_tokens width"] | None
    blocks: list[Block]
    norm_head: Float[Array, " width"] | None
    head: Float[Array, "width 1"] | None
    head_bias: Float[Array, " 1"]
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    config: TransformerConfig = eqx.field(static=True)

    kind = "transformer"

    @public
    def __init__(self, label_space: LabelSpace, wavelength_range, medium: str, config=None, *, key):
        c = config or TransformerConfig()
        if not c.depth and not c.rank:
            raise EmulatorError("A TransformerPayne needs blocks (depth > 0), a bilinear part (rank > 0), or both.")
        if c.rank and not c.table_nodes:
            raise EmulatorError(
                "A TransformerPayne with rank > 0 needs table_nodes > 0; set rank=0 for one without tables."
            )
        if c.branch_theta and "teff" not in label_space.names:
            raise EmulatorError(f"branch_theta needs the label teff; the labels are {', '.join(label_space.names)}.")
        k = iter(jax.random.split(key, 10 + c.depth))
        n, d, hidden = len(label_space), c.width, c.label_hidden
        # Without blocks, what feeds them and what they feed is left out.
        attends = c.depth > 0
        self.encode = _dense(next(k), 2 * c.frequencies, d) if attends else None
        # Tables that start at zero would leave all wavelengths alike to the first steps of the optimiser.
        self.table = 0.3 * jax.random.normal(next(k), (c.table_nodes, d)) if attends and c.table_nodes else None
        self.trunk_mean = jnp.zeros(c.table_nodes) if c.rank else None
        self.trunk = 0.1 * jax.random.normal(next(k), (c.table_nodes, c.rank)) if c.rank else None
        self.trunk_in = _dense(next(k), c.rank, d) if attends and c.rank else None
        self.branch = dense_layers(next(k), self.branch_sizes(n, c)) if c.rank else []
        self.label_in = _dense(next(k), n, hidden, 1.5) if attends else None
        self.label_bias = 0.5 * jax.random.normal(next(k), (hidden,)) if attends else None
        self.label_out = _dense(next(k), hidden, c.tokens * d) if attends else None
        self.token_bias = 0.5 * jax.random.normal(next(k), (c.tokens, d)) if attends else None
        self.blocks = [Block(c, next(k)) for _ in range(c.depth)]
        self.norm_head = jnp.ones(d) if attends else None
        self.head = _dense(next(k), d, 1, 0.1) if attends else None
        self.head_bias = jnp.array([-3.0])
        self.label_space = label_space
        self.wavelength_range = (float(wavelength_range[0]), float(wavelength_range[1]))
        self.medium = medium
        self.config = c

    @staticmethod
    def branch_sizes(n_labels: int, c: TransformerConfig) -> tuple[int, ...]:
        return (n_labels + c.branch_theta, *[c.label_hidden] * c.branch_layers, c.rank)

    def branch_inputs(
        self, scaled_labels: Float[Array | np.ndarray, "*batch n_labels"]
    ) -> Float[Array | np.ndarray, "*batch n_in"]:
        """What the branch sees of the labels: themselves and, with `branch_theta`, one more."""
        if not self.config.branch_theta:
            return scaled_labels
        i = self.label_space.index("teff")
        theta = gp_features(self.label_space, scaled_labels)[..., i : i + 1]
        return jnp.concatenate([scaled_labels, theta], axis=-1)

    @property
    def periods(self) -> np.ndarray:
        return log_periods(self.config.frequencies, self.config.shortest_period, self.config.longest_period)

    def prepare(self, wavelength) -> WavelengthQuery:
        return prepare_query(wavelength, self.periods, self.wavelength_range, max(self.config.table_nodes, 4))

    def shift(self, query: WavelengthQuery, log1p_velocity) -> WavelengthQuery:
        """The query of a source receding at v, `log1p_velocity` = ln(1 + v/c); device-side and differentiable."""
        nodes = max(self.config.table_nodes, 4)
        return shift_query(query, log1p_velocity, self.periods, self.wavelength_range, nodes)

    def tokens(self, scaled_labels: Float[Array, " n_labels"]) -> Float[Array, "n_tokens width"]:
        """Label tokens."""
        # There where there are blocks.
        assert self.label_in is not None and self.label_bias is not None
        assert self.label_out is not None and self.token_bias is not None
        hidden = jax.nn.relu(scaled_labels @ self.label_in + self.label_bias)
        return (hidden @ self.label_out).reshape(self.token_bias.shape) + self.token_bias

    def wavelength_features(self, query: WavelengthQuery):
        """What the network knows of the wavelengths: inputs of the blocks `(n_wave, width)`, and, if there is a bilinear
        part, the trunk's mean `(n_wave, 1)` and features `(n_wave, rank)`. Without blocks their inputs are `(n_wave, 0)`."""
        if not self.blocks:
            assert self.trunk is not None and self.trunk_mean is not None  # without blocks it is all there is
            trunk = interpolate(self.trunk, query)
            return jnp.zeros((len(trunk), 0)), interpolate(self.trunk_mean[:, None], query), trunk
        assert self.encode is not None
        x = jnp.concatenate([jnp.sin(query.phase), jnp.cos(query.phase)], axis=-1) @ self.encode
        if self.table is not None:
            x = x + interpolate(self.table, query)
        if self.trunk is None:
            return (x,)
        assert self.trunk_mean is not None and self.trunk_in is not None
        trunk = interpolate(self.trunk, query)
        return x + trunk @ self.trunk_in, interpolate(self.trunk_mean[:, None], query), trunk

    def link(self, scaled_labels: Float[Array, " n_labels"], features) -> Float[Array, " n_wave"]:
        """The x that the link turns into flux; `features` of `wavelength_features`."""
        out = self.head_bias[0]
        if self.blocks:
            assert self.head is not None and self.norm_head is not None
            x, tokens = features[0], self.tokens(scaled_labels)
            for block in self.blocks:
                x = block(x, tokens)
            out = out + (_rms_norm(x, self.norm_head) @ self.head)[:, 0]
        if self.trunk is not None:
            out = out + features[1][:, 0] + features[2] @ apply_layers(self.branch, self.branch_inputs(scaled_labels))
        return out

    @public
    def attention(self, labels, wavelength) -> list[np.ndarray]:
        """For each block, the share of each token in what each wavelength attends to, `(n_wave, heads, n_tokens)`.

        `labels` in physical units, a mapping or `(n_labels,)`; `wavelength` `(n_wave,)` Å. For figures, not for fits.
        """
        if not self.blocks:
            raise EmulatorError("This TransformerPayne has no blocks (depth = 0): there is no attention to show.")
        scaled = jnp.asarray(self.label_space.scale(self.label_space.to_array(labels)), jnp.float32)
        x, tokens = self.wavelength_features(self.prepare(self.check_wavelength(wavelength)))[0], self.tokens(scaled)
        shares = []
        for block in self.blocks:
            shares.append(np.asarray(block.attention(x, tokens)))
            x = block(x, tokens)
        return shares

    def flux(self, scaled_labels: Float[Array, " n_labels"], query: WavelengthQuery) -> Float[Array, " n_wave"]:
        x = self.link(scaled_labels, self.wavelength_features(query))
        return from_link(x, self.config.epsilon)

    def tabulate(self, query) -> "Tabulated":
        """The emulator at the wavelengths of `query`, with all that does not depend on labels computed once."""
        return Tabulated(self, _features(self, query))

    def to_config(self) -> dict:
        return dataclasses.asdict(self.config)

    @classmethod
    def from_config(cls, config, label_space, wavelength_range, medium):
        return cls(label_space, wavelength_range, medium, TransformerConfig(**config), key=jax.random.key(0))


class Tabulated(AtWavelengths):
    """A `TransformerPayne` at fixed wavelengths; `grid_flux` is that of `emulator.flux` there."""

    emulator: TransformerPayne
    features: tuple

    def grid_flux(self, scaled_labels: Float[Array, " n_labels"]) -> Float[Array, " n_wave"]:
        return from_link(self.emulator.link(scaled_labels, self.features), self.emulator.config.epsilon)


@eqx.filter_jit
def _features(emulator, query):
    return emulator.wavelength_features(query)
