"""What a network sees and is asked at each training step. Host only; a function of the step's number, so that resuming is exact."""

import dataclasses
from typing import NamedTuple

import numpy as np

from ..errors import TrainingError
from ..tokens import TokenSet, Vocabulary
from ..tokens.tokenset import NORMALISED, level_of


class Batch(NamedTuple):
    """Contexts and questions of n objects; K kinds, Q questions, G kinds that the decoder may be given."""

    x: np.ndarray  # (n, K) standardised values
    e: np.ndarray  # (n, K) their errors, 0 where there is none or where it is not told
    seen: np.ndarray  # (n, K) whether an element is in the context
    asked: np.ndarray  # (n, Q) numbers of kinds
    valid: np.ndarray  # (n, Q) whether a question counts
    y: np.ndarray  # (n, Q) what the answer is
    noise: np.ndarray  # (n, Q) the errors of y
    given: np.ndarray  # (n, G) values handed to the decoder
    given_e: np.ndarray  # (n, G) their errors, 0 where they are not told
    known: np.ndarray  # (n, Q, G) which of them a question knows


@dataclasses.dataclass(frozen=True)
class View:
    """One way in which objects are seen.

    - `share`: of the training steps.
    - `groups`: spectra that may be seen. All elements of a spectrum are seen with probability `whole`, those on one side of a
      wavelength of `split` (Å) with `half`; otherwise each with a probability that is itself drawn from 0 to 1.
    - `answers`: groups that may be asked for, beside the labels.
    - `labels`: how often labels are seen; then all of them with probability `all_labels`, or each with one that is drawn.
    """

    share: float
    groups: tuple[str, ...]
    answers: tuple[str, ...]
    whole: float = 0.5
    half: float = 0.0
    split: float = 6400.0
    labels: float = 0.35
    all_labels: float = 0.0


@dataclasses.dataclass(frozen=True)
class Masking:
    """How contexts and questions are drawn.

    - `views`: one of them for each object and step.
    - `others`: groups seen in every view: all with probability 0.35, none with 0.2, else each with one that is drawn.
    - `labels`: the group that is always asked for, and may be given to the decoder.
    - `questions`: number of elements asked for beside the labels.
    - `told`: how often errors are told; an error of 0 means one as usual in the training.
    - `noisier`: how often noise is added to some of the elements and told, of a size between those of `noise`, in units of a
      kind's spread.

    What is asked for is never in the context. Labels of an object come in a random order, and a label may know those before it.
    """

    views: tuple[View, ...]
    others: tuple[str, ...] = ()
    labels: str = "labels"
    questions: int = 11
    told: float = 0.7
    noisier: float = 0.3
    noise: tuple[float, float] = (0.02, 3.0)


class MaskedRows:
    """The batches of `TokenSet` rows for `train_network`: random rows, each with a context and questions of its own."""

    def __init__(self, tokens: TokenSet, masking: Masking, seed: int = 0):
        self.tokens, self.masking, self.seed = tokens, masking, seed
        seen = tokens.standardised()
        self.e, self.have = seen.e, seen.seen
        self.x = with_level(tokens.vocabulary, seen.x, seen.level)
        self.frame = Frame(tokens.vocabulary, masking)
        if not self.have.any():
            raise TrainingError("There is nothing to train on: every value of the training rows is missing.")

    def batch(self, step: int, n: int) -> Batch:
        generator = np.random.default_rng([self.seed, step])
        rows = generator.integers(0, len(self.x), n)
        return self.frame.draw(generator, self.x[rows], self.e[rows], self.have[rows])


class Frame:
    """A masking for one vocabulary: what does not change from step to step."""

    def __init__(self, vocabulary: Vocabulary, masking: Masking):
        self.masking, self.kinds = masking, len(vocabulary)
        self.labels = vocabulary.group(masking.labels)
        self.vocabulary = vocabulary
        among = lambda names: np.isin(np.arange(self.kinds), vocabulary.indices(names) if names else [])
        self.spectra = [among(view.groups) for view in masking.views]
        self.answers = [among(view.answers) for view in masking.views]
        wavelength = np.array([k.wavelength or np.nan for k in vocabulary])
        with np.errstate(invalid="ignore"):
            self.blue = [wavelength < view.split for view in masking.views]
            self.normalised = vocabulary.relative & (wavelength > NORMALISED[0]) & (wavelength < NORMALISED[1])
        self.others, self.label = among(masking.others), among([masking.labels])
        self.shares = np.array([view.share for view in masking.views])
        if not np.isclose(self.shares.sum(), 1):
            raise TrainingError(f"The shares of the views must add up to 1; they make {self.shares.sum():g}.")

    def draw(self, generator, x, e, have) -> Batch:
        """Contexts and questions for objects of which `have` says what there is."""
        n, m = len(x), self.masking
        view = generator.choice(len(m.views), n, p=self.shares)
        seen = have & self._context(generator, view)
        x = with_level(self.vocabulary, x, -self._level(x, seen, have))
        context, errors = self._noisier(generator, x, e)
        asked, valid = self._questions(generator, view, have & ~seen)
        told = generator.random((n, 1)) < m.told
        known = self._known(generator, asked.shape) & have[:, None, self.labels]
        take = lambda a: np.take_along_axis(a, asked, 1)
        return Batch(
            context,
            errors,
            seen,
            asked.astype(np.int32),
            valid,
            take(x),
            take(np.where(self.label, e, 0)).astype(np.float32),
            x[:, self.labels],
            np.where(told, e[:, self.labels], 0).astype(np.float32),
            known,
        )

    def _level(self, x, seen, have):
        """`(n,)`: the level of relative kinds, by those that are seen; by those between `NORMALISED` where none is."""
        relative = self.vocabulary.relative
        seen = seen & relative
        by = np.where(seen.any(1, keepdims=True), seen, have & self.normalised)
        return level_of(x * self.vocabulary.scale, by).astype(np.float32)

    def _context(self, generator, view):
        """`(n, K)`: what would be seen if it were there."""
        n, kinds = len(view), self.kinds
        u = lambda *more: generator.random((n, *more), np.float32)
        each = lambda: u(kinds) < u(1)
        spectra = np.stack(self.spectra)[view]
        of = lambda name: np.array([getattr(v, name) for v in self.masking.views], np.float32)[view][:, None]
        which = u(1)
        side = np.where(u(1) < 0.5, np.stack(self.blue)[view], ~np.stack(self.blue)[view])
        part = np.where(which < of("whole") + of("half"), side, each())
        spectra = spectra & ((which < of("whole")) | part)
        which = u(1)
        others = self.others & ((which < 0.35) | ((which < 0.8) & each()))
        labels = self.label & (u(1) < of("labels")) & ((u(1) < of("all_labels")) | each())
        return spectra | others | labels

    def _noisier(self, generator, x, e):
        """Values with more noise, and the errors that are told."""
        n, u = len(x), lambda *more: generator.random((n, *more), np.float32)
        low, high = np.log(self.masking.noise)
        where = (u(1) < self.masking.noisier) & (u(self.kinds) < u(1))
        more = np.where(where, np.exp(low + (high - low) * u(1)), 0).astype(np.float32)
        noisy = x + more * generator.standard_normal(x.shape, np.float32)
        told = (u(1) < self.masking.told) | where
        return noisy, np.where(told, np.hypot(e, more), 0).astype(np.float32)

    def _questions(self, generator, view, free):
        """Labels, and other elements that are not seen; which of the questions count."""
        n, q = len(view), self.masking.questions
        weight = np.where(free & ~self.label & np.stack(self.answers)[view], generator.random((n, self.kinds)), -1)
        asked = np.argpartition(-weight, q, 1)[:, :q]
        asked = np.concatenate([np.broadcast_to(self.labels, (n, len(self.labels))), asked], 1)
        valid = np.take_along_axis(free & (self.label | (weight >= 0)), asked, 1)
        return asked, valid

    def _known(self, generator, shape):
        """Labels in a random order: a label may know those before it, another question some of the first ones."""
        (n, questions), labels = shape, len(self.labels)
        order = generator.random((n, labels), np.float32)
        place = np.concatenate([order, 1.2 * generator.random((n, questions - labels), np.float32) - 0.1], 1)
        return (order[:, None] < place[..., None]) & (generator.random((n, questions, 1)) < 0.5)


def with_level(vocabulary: Vocabulary, x, level):
    """Standardised values with `level` `(n,)` added to their relative kinds."""
    shift = (level[:, None] * vocabulary.relative / vocabulary.scale).astype(np.float32)
    return x + shift
