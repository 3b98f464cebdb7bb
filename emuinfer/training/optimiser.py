"""The optimiser: AdamW, or Muon for matrices, with a rate for each group of weights."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax

from .config import LoopSettings


@dataclasses.dataclass(frozen=True)
class Group:
    """How a weight is trained.

    - `rate`: factor on the learning rate; 0 leaves the weight as it is.
    - `optimiser`: `"adamw"`, or `"muon"`, for matrices alone.
    - `lowered`: the loss sees it in the run's `precision`, and the network must bring what it multiplies to the same.
    """

    rate: float = 1.0
    optimiser: str = "adamw"
    lowered: bool = False


Groups = Callable[[tuple, jax.Array], Group]  # of a weight's path in the pytree, as JAX gives it, and the weight


def name_of(path) -> str:
    """`"blocks.0.query"`, from a path in a pytree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def is_part(name: str, whole: str) -> bool:
    """Whether the weight `name` is `whole`, or belongs to it."""
    return name == whole or name.startswith(whole + ".")


def groups_by_name(config: LoopSettings) -> Groups:
    """Groups by `config.frozen` and `config.rates`; matrices get `config.optimiser`, and all but vectors are lowered."""
    rates = sorted(getattr(config, "rates", {}).items(), key=lambda item: len(item[0]))

    def group(path, weight):
        name, rate = name_of(path), 1.0
        for whole, factor in rates:
            rate = factor if is_part(name, whole) else rate
        if any(is_part(name, whole) for whole in config.frozen):
            rate = 0.0
        return Group(rate, config.optimiser if weight.ndim == 2 else "adamw", weight.ndim > 1)

    return group


def in_precision(model, precision: str, groups: Groups):
    """The model with its lowered weights in `precision`; gradients flow back to the float32 weights."""
    if precision == "float32":
        return model
    lower = lambda path, leaf: (
        leaf.astype(precision) if eqx.is_inexact_array(leaf) and groups(path, leaf).lowered else leaf
    )
    return jax.tree_util.tree_map_with_path(lower, model)


def make_optimiser(config: LoopSettings, params, groups: Groups):
    """The optimiser of `config` for `params`: clipping of the global gradient norm, then one rate for each group of weights."""
    import optax

    def make(optimiser, rate_factor):
        if not rate_factor:
            return optax.set_to_zero()
        schedule = config.schedule()
        rate = lambda i: rate_factor * schedule(i)
        if optimiser == "adamw":
            return optax.adamw(rate, b2=0.99, weight_decay=config.weight_decay)
        # Steps of the root mean square of AdamW's, so that both take the same rates (Liu et al. 2025, arXiv:2502.16982).
        return optax.contrib.muon(rate, weight_decay=config.weight_decay, consistent_rms=0.2)

    def name(path, weight):  # optax wants leaves, and gives each group its own part of the state under this name
        group = groups(path, weight)
        return f"{group.optimiser} × {group.rate:.6g}"

    named = {
        name(path, weight): (groups(path, weight).optimiser, groups(path, weight).rate)
        for path, weight in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.multi_transform(
            {text: make(*kind) for text, kind in named.items()},
            # A function, not its result: labels shaped like the network would be taken for one.
            lambda tree: jax.tree_util.tree_map_with_path(name, tree),
        ),
    )
