"""Training of any-to-any networks, and the recipe of `stars-xp`."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ..tokens import TokenSet
from ..training import Group, LoopConfig, train_network
from ..training.optimiser import name_of
from . import heads
from .anytoany import AnyToAny, AnyToAnyConfig
from .loss import AnyToAnyLoss
from .masking import MaskedRows, Masking, View
from .network import Network

# Read as vectors of the kinds, not as matrices that map one thing to another.
TABLES = ("queries", "start", "bias_of_kind", "slope", "offset", "expected")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that makes a network from tokens: sizes, what is seen and asked, the loop, and the weight of questions beside labels.

    `label_errors`: errors that are put in place of unknown ones, by kind, in its unit.
    """

    sizes: AnyToAnyConfig
    masking: Masking
    loop: LoopConfig
    others: float = 0.3
    label_errors: dict[str, float] = dataclasses.field(default_factory=dict)


def stars_xp(steps: int = 24_000, seed: int = 0) -> Recipe:
    """The recipe of the shipped network of stars.

    The errors of A_K, 0.01 mag, are about those that make the labels of the validation stars most probable: 0.009 with the network
    before, 0.006 with the shipped one (`label_errors` of its calibration).
    """
    light = ("colours", "magnitudes")
    views = (
        View(0.42, ("xp_coefficients",), ("xp_coefficients", *light)),
        View(0.33, ("xp_bins",), ("xp_bins", *light), whole=0.4, half=0.3),
        View(0.20, (), ("xp_bins", *light), labels=0.85, all_labels=0.6),
        View(0.05, (), ("xp_coefficients", *light), labels=0.85, all_labels=0.6),
    )
    loop = LoopConfig(
        steps=steps,
        batch=128,
        warmup=200,
        decay=0.4,
        learning_rate=3e-3,
        weight_decay=0.02,
        optimiser="muon",
        average=0.998,
        seed=seed,
        validate_every=1000,
        checkpoint_every=500,
    )
    return Recipe(AnyToAnyConfig(rereads=2), Masking(views, light), loop, label_errors={"a_k": 0.01})


def train_any_to_any(
    tokens: TokenSet, recipe: Recipe, *, validation: TokenSet | None = None, directory=None, progress: bool = True
) -> Network:
    """A network trained on `tokens` by `recipe`; a killed run goes on from `directory`.

    `validation`: objects for which labels are asked from all else, as training goes; the figures are means of minus the
    logarithm of the density, by kinds of spectra, in `directory`'s `metrics.jsonl`.
    """
    vocabulary = tokens.vocabulary
    labels = vocabulary.group(recipe.masking.labels)
    source = MaskedRows(with_label_errors(tokens, recipe.label_errors), recipe.masking, recipe.loop.seed)
    key = jax.random.key(recipe.loop.seed)
    net = AnyToAny(len(vocabulary), tuple(int(i) for i in labels), recipe.sizes, key=key)
    kinds = np.array([heads.HEADS[kind.head] for kind in vocabulary], dtype=np.int32)
    loss = AnyToAnyLoss(jnp.asarray(kinds), len(labels), recipe.others)
    judge = None if validation is None or not len(validation) else _judge(validation, recipe, kinds)
    described = {
        "vocabulary": vocabulary.to_json(),
        "masking": dataclasses.asdict(recipe.masking),
        "others": recipe.others,
    }
    net = train_network(
        net,
        loss,
        source,
        recipe.loop,
        groups=_groups,
        validate=judge,
        described={**described, "objects": len(tokens)},
        save=_save(vocabulary),
        directory=directory,
        progress=progress,
    )
    return Network(net, vocabulary, {"recipe": dataclasses.asdict(recipe)})


def with_label_errors(tokens: TokenSet, errors: dict[str, float]) -> TokenSet:
    """`tokens` with errors of some kinds where they have values and no known ones."""
    found = tokens.errors.copy()
    for name, error in errors.items():
        i = tokens.vocabulary.index(name)
        found[:, i] = np.where(np.isfinite(tokens.values[:, i]) & ~np.isfinite(found[:, i]), error, found[:, i])
    return dataclasses.replace(tokens, errors=found)


def _groups(path, weight) -> Group:
    name = name_of(path).rpartition(".")[2]
    matrix = weight.ndim == 2 and name not in TABLES
    return Group(1.0, "muon" if matrix else "adamw", matrix)


def _judge(tokens, recipe, kinds):
    """Scores of labels from each kind of spectrum with colours, and of spectra from labels, on fixed objects."""
    masking = dataclasses.replace(recipe.masking, noisier=0.0)
    batches = {}
    for view in masking.views:
        name = view.groups[0] if view.groups else "of " + view.answers[0]
        alone = dataclasses.replace(masking, views=(dataclasses.replace(view, share=1.0),))
        batches[name] = MaskedRows(with_label_errors(tokens, recipe.label_errors), alone, seed=7).batch(0, 512)
    loss = AnyToAnyLoss(jnp.asarray(kinds), len(tokens.vocabulary.group(masking.labels)), recipe.others)
    score = jax.jit(lambda net, batch: loss(net, batch)[1])

    def judge(net):
        found: dict[str, float] = {}
        for name, batch in batches.items():
            figures = score(net, batch)
            found |= {f"{name}: {which}": float(value) for which, value in figures.items()}
        return {"mean": float(np.mean([v for k, v in found.items() if k.endswith("labels")])), **found}

    return judge


def _save(vocabulary):
    def save(net, path: Path):
        from .storage import save_network

        return save_network(Network(net, vocabulary, {}), path)

    return save
