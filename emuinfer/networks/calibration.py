"""What corrects the widths of a network's answers, as the card keeps it; `calibrate` fits it to objects not used in training."""

import dataclasses

import numpy as np

from ..errors import NetworkError
from ..tokens import TokenSet, Vocabulary

COUNTS = (12.5, 60.5, 89.5)  # of elements seen, between the bins; the last are those of whole spectra (90 coefficients)
UNKNOWN = 3  # the bin of objects of unknown quality, after the thirds


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Two corrections, by the quality of an object's data, by the number of elements seen, and by kind.

    - A temperature: every distribution is widened about its mean by exp(`factors[cell, row of kind]` + `offsets[kind]`), so that
      draws, densities, standard deviations and quantiles agree.
    - On top of it, for quantiles alone, a monotone map of probabilities (split conformal): a share p of the validation values lies
      below the quantile of p', and `levels` gives p' for p.

    The quality is the logarithm of the S/N of the spectrum (`quality_of`); `edges` are those of its thirds. Kinds that have no row of their
    own share that of their group. `label_errors`: of values without errors, as they were found.
    """

    rows: tuple[str, ...]
    row: np.ndarray  # (K,)
    edges: np.ndarray  # (2,)
    factors: np.ndarray  # (cells, rows)
    offsets: np.ndarray  # (K,)
    knots: np.ndarray  # (knots,)
    maps: np.ndarray  # (cells, rows, knots)
    label_errors: dict[str, float] = dataclasses.field(default_factory=dict)

    def cells(self, tokens: TokenSet, seen=None) -> np.ndarray:
        """`(n,)`: the cell of each object, by what `tokens` hold of it; `seen` `(n, K)`: what of that the network sees, if not all."""
        seen = tokens.seen if seen is None else seen
        return cells_of(quality_of(tokens), seen.sum(1), self.edges)

    def factor(self, cells) -> np.ndarray:
        """`(n, K)`: by which widths are multiplied."""
        return np.exp(self.factors[cells][:, self.row] + self.offsets).astype(np.float32)

    def levels(self, levels, cells, wanted) -> np.ndarray:
        """`(n, levels, wanted)`: the probabilities whose quantiles have the probabilities `levels`."""
        ends = lambda a: np.concatenate([[0.0], a, [1.0]])
        pairs, where = np.unique(np.stack(np.broadcast_arrays(np.asarray(cells)[:, None], self.row[wanted]), -1).reshape(-1, 2),
                                 axis=0, return_inverse=True)  # fmt: skip
        each = np.stack([np.interp(levels, ends(self.knots), ends(self.maps[c, r])) for c, r in pairs])
        return np.moveaxis(each[where].reshape(len(cells), len(wanted), -1), 1, 2).astype(np.float32)

    def ranks(self, ranks, cells, kinds) -> np.ndarray:
        """Probabilities `(n, m)` below values of `kinds` `(n, m)`, in the widened distributions, mapped: the inverse of `levels`."""
        ends = lambda a: np.concatenate([[0.0], a, [1.0]])
        found, row = np.array(ranks, float), self.row[kinds]
        for c in np.unique(cells):
            for r in range(len(self.rows)):
                here = (cells == c)[:, None] & (row == r)
                found[here] = np.interp(found[here], ends(self.maps[c, r]), ends(self.knots))
        return found

    def to_json(self) -> dict:
        """Plain lists for the card."""
        plain = lambda v: np.round(v, 5).tolist() if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v
        return {k: plain(v) for k, v in vars(self).items() if k != "row"} | {"row": self.row.tolist()}

    @classmethod
    def from_json(cls, card: dict | None, vocabulary: Vocabulary) -> "Calibration | None":
        """The inverse of `to_json`; None for None. **Raises:** `NetworkError` where it does not belong to the vocabulary."""
        if not card:
            return None
        try:
            names = [f.name for f in dataclasses.fields(cls)]
            made = cls(**{n: _array(n, card[n]) for n in names})
            k, cells, rows = len(vocabulary), len(COUNTS) * (UNKNOWN + 1) + UNKNOWN + 1, len(made.rows)
            shapes = {
                "row": (k,), "offsets": (k,), "edges": (2,), "factors": (cells, rows), "maps": (cells, rows, len(made.knots)),
            }  # fmt: skip
            wrong = [
                n for n, s in shapes.items() if getattr(made, n).shape != s or not np.isfinite(getattr(made, n)).all()
            ]
            if wrong or made.row.min() < 0 or made.row.max() >= rows:
                raise ValueError(f"{', '.join(wrong) or 'row'} of a wrong shape or not finite")
        except (KeyError, TypeError, ValueError) as error:
            raise NetworkError(
                f"The calibration in the network's card is damaged ({type(error).__name__}: {error}). Fetch the card again, or ask "
                "with calibrated=False."
            ) from error
        return made


def _array(name, value):
    if name in ("rows", "label_errors"):
        return tuple(value) if name == "rows" else dict(value)
    return np.array(value, dtype=int if name == "row" else float)


def cells_of(quality, count, edges) -> np.ndarray:
    """Numbers of cells of objects with `quality` (NaN: not known) and `count` elements seen."""
    third = np.where(np.isfinite(quality), np.searchsorted(edges, np.nan_to_num(quality)), UNKNOWN)
    return np.searchsorted(COUNTS, count) * (UNKNOWN + 1) + third


def quality_of(tokens: TokenSet) -> np.ndarray:
    """`(n,)`: the logarithm of the median of value over error of relative kinds, the S/N of a spectrum; NaN where it has none."""
    relative = tokens.vocabulary.relative
    ok = (tokens.known & (np.nan_to_num(tokens.errors) > 0))[:, relative]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(ok, np.log(tokens.values[:, relative] / tokens.errors[:, relative]), np.nan)
    found = np.full(len(ratio), np.nan)
    found[ok.any(1)] = np.nanmedian(ratio[ok.any(1)], axis=1)
    return found
