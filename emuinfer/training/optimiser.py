"""The optimiser: AdamW, or Muon for the matrices of the blocks, with rates that carry over between sizes."""

from .config import TrainConfig

TABLES = ("table", "encode", "trunk", "trunk_mean")
MATRICES = ("query", "key", "value", "out", "expand", "contract")
ENDS_OF_BRANCHES = ("out", "contract")  # what a block adds to the residual stream


def rate_factor(path, config: TrainConfig, width: int, depth: int) -> float:
    """The factor on the learning rate of the weight at the pytree `path` of a transformer of `width` and `depth`.

    Tables and encodings learn at `config.table_rate`. With `config.base_width`, matrices that sum over the width learn at
    base_width / width, as an Adam step moves each entry alike however many there are (muP; Yang et al. 2022,
    arXiv:2203.03466, table 3). With `config.base_depth`, what each of L blocks adds learns at √(base_depth / L) (depth-muP; Yang et
    al. 2023, arXiv:2310.02244). The best rate of a small model is then about that of a large one.
    """
    names = [getattr(key, "name", None) for key in path]
    if names[0] in config.frozen:
        return 0.0
    if names[0] in TABLES:
        return config.table_rate
    factor = 1.0
    if config.base_width and (names[0] == "head" or names[-1] in MATRICES):
        # A step of Muon has full rank: at the same root mean square its norm grows as the root of the width, an Adam step's as
        # the width.
        muon = config.optimiser == "muon" and names[-1] in MATRICES
        factor *= (config.base_width / width) ** (0.5 if muon else 1.0)
    if config.base_depth and names[-1] in ENDS_OF_BRANCHES:
        factor *= (config.base_depth / depth) ** 0.5
    return factor


def make_optimiser(config: TrainConfig, params):
    """The optimiser of `config` for `params`: clipping of the global gradient norm, then one rate for each group of weights."""
    import jax
    import optax

    def group(path):
        muon = config.optimiser == "muon" and getattr(path[-1], "name", None) in MATRICES
        return ("muon" if muon else "adamw", rate_factor(path, config, params.config.width, params.config.depth))

    def make(kind, factor):
        if not factor:
            return optax.set_to_zero()
        schedule = config.schedule()
        rate = lambda i: factor * schedule(i)
        if kind == "adamw":
            return optax.adamw(rate, b2=0.99, weight_decay=config.weight_decay)
        # Steps of the root mean square of AdamW's, so that both take the same rates (Liu et al. 2025, arXiv:2502.16982).
        return optax.contrib.muon(rate, weight_decay=config.weight_decay, consistent_rms=0.2)

    groups = {group(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]}
    # Names, as optax wants leaves; and a function, not its result: labels shaped like the emulator would be taken for one.
    name = lambda kind_factor: "{} × {:.6g}".format(*kind_factor)
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.multi_transform(
            {name(g): make(*g) for g in groups},
            lambda tree: jax.tree_util.tree_map_with_path(lambda path, leaf: name(group(path)), tree),
        ),
    )
