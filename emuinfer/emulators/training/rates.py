"""Rates of a transformer's weights that carry over between sizes, and which of them Muon and bfloat16 are for."""

from ...training.optimiser import Group, Groups, is_part, name_of
from ..transformer import TransformerConfig
from .config import TrainConfig

TABLES = ("table", "encode", "trunk", "trunk_mean")
MATRICES = ("query", "key", "value", "out", "expand", "contract")
ENDS_OF_BRANCHES = ("out", "contract")  # what a block adds to the residual stream


def rate_factor(name: str, config: TrainConfig, width: int, depth: int) -> float:
    """The factor on the learning rate of the weight `name`, such as blocks.0.query, of a transformer of `width` and `depth`.

    Tables and encodings learn at `config.table_rate`. With `config.base_width`, matrices that sum over the width learn at
    base_width / width, as an Adam step moves each entry alike however many there are (muP; Yang et al. 2022,
    arXiv:2203.03466, table 3). With `config.base_depth`, what each of L blocks adds learns at √(base_depth / L) (depth-muP; Yang et
    al. 2023, arXiv:2310.02244). The best rate of a small model is then about that of a large one.
    """
    first, last = name.split(".", maxsplit=1)[0], name.rsplit(".", maxsplit=1)[-1]
    if any(is_part(name, whole) for whole in config.frozen):
        return 0.0
    if first in TABLES:
        return config.table_rate
    factor = 1.0
    if config.base_width and (first == "head" or last in MATRICES):
        # A step of Muon has full rank: at the same root mean square its norm grows as the root of the width, an Adam step's as
        # the width.
        muon = config.optimiser == "muon" and last in MATRICES
        factor *= (config.base_width / width) ** (0.5 if muon else 1.0)
    if config.base_depth and last in ENDS_OF_BRANCHES:
        factor *= (config.base_depth / depth) ** 0.5
    return factor


def transformer_groups(sizes: TransformerConfig, config: TrainConfig) -> Groups:
    """How each weight of a `TransformerPayne` of these `sizes` is trained."""

    def group(path, _weight):
        name = name_of(path)
        of_block = name.split(".")[-1] in MATRICES
        optimiser = config.optimiser if of_block else "adamw"
        return Group(rate_factor(name, config, sizes.width, sizes.depth), optimiser, lowered=of_block)

    return group
