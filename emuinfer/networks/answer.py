"""`Answer`: what a network says of the kinds it was asked for, in physical units."""

import numpy as np

from ..tokens import Vocabulary
from .answer_table import columns_of, described

PROBABILITY = 0.6827  # of an interval of one standard deviation on both sides


class Answer:
    """Distributions of d kinds for n objects.

    - `names`, `keys`: of the kinds and of the objects.
    - `median` `(n, d)`, in the units of the kinds: the best single number, and what `answer[name]` and tables give.
    - `mean`, `sd` `(n, d)`. For kinds with a logarithm inside they are those of the value, to first order. A small part of a
      distribution that lies far off moves the mean and widens the standard deviation, not the quantiles.
    - `quantiles`: probability to `(n, d)`; 0.5 is always there.
    - `draws` `(n, draws, d)` and `log_prob` `(n, draws)`: joint draws and the logarithm of their density, in physical units.
    """

    def __init__(
        self, vocabulary: Vocabulary, wanted, level, mean, sd, quantiles, levels, draws, log_prob, keys, key_name="row"
    ):
        self.vocabulary, self.wanted = vocabulary, np.asarray(wanted)
        self.keys, self.key_name = keys, key_name
        self.kinds = tuple(vocabulary[i] for i in wanted)
        self.names = tuple(kind.name for kind in self.kinds)
        self._level = np.asarray(level)
        # What the network works with; calibration and as_emulator need it.
        self.standardised_mean, self.standardised_sd = mean, sd
        self.mean = self.physical(mean)
        self.sd = sd * self.slope(self.mean)
        self.quantiles = {float(p): self.physical(quantiles[..., i]) for i, p in enumerate(levels)}
        self.median = self.quantiles[0.5]
        self.draws = self.physical(draws)
        self.log_prob = log_prob - np.sum(np.log(np.abs(self.slope(self.draws))), -1)

    def __len__(self):
        return len(self.mean)

    def __getitem__(self, name: str) -> np.ndarray:
        """The medians `(n,)` of a kind."""
        return self.median[:, self.names.index(self.vocabulary[name].name)]

    def __repr__(self):
        return f"<Answer for {len(self)} objects: {', '.join(self.names[:8])}{', …' if len(self.names) > 8 else ''}>"

    def physical(self, standardised):
        """Standardised values `(n, …, d)` in the units of the kinds."""
        v, w = self.vocabulary, self.wanted
        x = np.asarray(standardised, dtype=float) * v.scale[w] + v.centre[w]
        level = self._level.reshape(-1, *[1] * (x.ndim - 1)) * v.relative[w]
        x = x + level
        return np.stack([kind.physical(x[..., i]) for i, kind in enumerate(self.kinds)], -1)

    def slope(self, physical):
        """The derivative of the physical by the standardised value, at physical values `(n, …, d)`."""
        one = [kind.transformed_error(physical[..., i], 1.0) for i, kind in enumerate(self.kinds)]
        return self.vocabulary.scale[self.wanted] / np.stack(one, -1)

    def to_table(self):
        """One row for each object: its key, `NAME` (the median), `e_NAME`, quantiles `NAME_p16`, … and what was drawn, `NAME_draws`, as an
        astropy Table with units, descriptions and UCDs."""
        columns = columns_of(self.kinds, self.median, self.sd, self.quantiles, self.draws, self.log_prob)
        return described({self.key_name: self.keys, **columns}, self.kinds, self.key_name)
