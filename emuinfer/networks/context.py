"""What of an object's tokens a network may see, given what it is asked for. Host only."""

import dataclasses

import numpy as np

from ..errors import TokenError
from ..tokens import TokenSet, Vocabulary

# Two descriptions of one spectrum: a context holds one of them, as in the training. The first is taken where it is whole.
SPECTRA = ("xp_coefficients", "xp_bins")


def context_of(tokens: TokenSet, wanted=()) -> TokenSet:
    """`tokens` without the kinds `wanted` (numbers), and with one description of each object's spectrum.

    Coefficients where they are all there, else the bins, else what coefficients there are. Where one of the two is asked for,
    the other is never seen: bins of the red from bins of the blue. **Raises:** `TokenError` where both are asked for.
    """
    vocabulary = tokens.vocabulary
    tokens = tokens.without([vocabulary.names[i] for i in wanted]) if len(wanted) else tokens
    asked = _asked(vocabulary, wanted)
    if not set(SPECTRA) <= set(vocabulary.groups):
        return tokens
    if asked:
        return tokens.without([name for name in SPECTRA if name not in asked])
    coefficients, bins = (np.isin(np.arange(len(vocabulary)), vocabulary.group(name)) for name in SPECTRA)
    seen = tokens.seen
    whole = np.logical_or(seen[:, coefficients].all(1), ~seen[:, bins].any(1))
    kept = np.where(whole[:, None], ~bins, ~coefficients)
    return dataclasses.replace(
        tokens, values=np.where(kept, tokens.values, np.nan), errors=np.where(kept, tokens.errors, np.nan)
    )


def _asked(vocabulary: Vocabulary, wanted) -> set[str]:
    asked = {vocabulary[int(i)].group for i in wanted} & set(SPECTRA)
    if len(asked) > 1:
        raise TokenError(f"{' and '.join(SPECTRA)} are the same spectrum twice: ask for one of them at a time.")
    return asked
