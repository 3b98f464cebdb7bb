"""What is to be said of single rows of answers: bits of `FLAGS` and a note. Host only."""

import numpy as np

from ..tokens import TokenSet

FLAGS = {
    "nothing_known": 1,  # every value beside what is asked for is missing: no answer
    "outside": 2,  # values lie outside of those of the training: `note` names them
    "outlier": 4,  # the values do not go together as those of the training do: `outlier_p` below `RARE`
    "edge": 8,  # the answer lies at or beyond the edge of the training values, where it cannot be trusted
}
OTHERS = {
    "flag": ("meta.code.qual", "bits of emuinfer.networks.FLAGS; 0 is good"),
    "note": ("meta.note", "what the flag means here"),
    "outlier_score": ("stat.value", "how unlike the training objects, about 1 for ordinary ones"),
    "outlier_p": ("stat.probability", "share of ordinary objects with a higher outlier_score"),
}
RARE = 0.001
SHARE = 0.1  # of the elements of a spectrum may lie outside
LONG = 6  # groups with more kinds are spectra
NAMED = 3  # values in a note


def judged(context: TokenSet, kinds, median, p) -> tuple[np.ndarray, np.ndarray]:
    """Flags `(n,)` and notes `(n,)` of answers with the medians `(n, d)` from what `context` holds; `p`: of the outlier score."""
    seen, outside = context.seen, context.outside()
    flag = np.where(seen.any(1), 0, FLAGS["nothing_known"]).astype(np.int16)
    notes: dict[int, list[str]] = {int(i): ["nothing is known"] for i in np.flatnonzero(flag)}
    for group in context.vocabulary.groups:
        columns = context.vocabulary.group(group)
        far = outside[:, columns]
        if len(columns) > LONG:
            many = far.sum(1) > SHARE * np.maximum(seen[:, columns].sum(1), 1)
            for i in np.flatnonzero(many):
                notes.setdefault(int(i), []).append(f"{far[i].sum()} of {seen[i, columns].sum()} {group} outside")
        else:
            many = far.any(1)
            for i in np.flatnonzero(many):
                said = [_outside(context.vocabulary[k], context.values[i, k]) for k in columns[far[i]][:NAMED]]
                notes.setdefault(int(i), []).extend(said)
        flag[many] |= FLAGS["outside"]
    bounds = [(kind.lower, kind.upper) for kind in kinds]
    low, high = (np.array([b[k] if b[k] is not None else s * np.inf for b in bounds]) for k, s in ((0, -1), (1, 1)))
    level = np.array([not kind.relative for kind in kinds])
    with np.errstate(invalid="ignore"):
        edge = (((median <= low) | (median >= high)) & level).any(1)
        rare = p < RARE
    for condition, name, text in (
        (rare, "outlier", "unlike the training objects"),
        (edge, "edge", "answer at the edge of the training"),
    ):
        flag[condition] |= FLAGS[name]
        for row in np.flatnonzero(condition):
            notes.setdefault(int(row), []).append(text)
    return flag, np.array(["; ".join(notes.get(i, [])) for i in range(len(flag))], dtype=str)


def _outside(kind, value) -> str:
    unit = f" {kind.unit}" if kind.unit and kind.unit != "dex" else ""
    return f"{kind.name} = {value:.4g}{unit}, outside {kind.lower:.4g} to {kind.upper:.4g}"
