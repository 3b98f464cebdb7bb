"""The extinction curve that a network has learned: how spectra of stars of one kind change with their extinction alone."""

from typing import NamedTuple

import numpy as np

from ..errors import NetworkError
from ..tokens import TokenSet

STEP = 0.05  # mag in A_K, to both sides of a star's own extinction
TOLD = (1.0, 1.5, 2.0)  # errors of the label that are told, in units of its own


class ExtinctionCurve(NamedTuple):
    """`curve` `(m,)` is A(λ)/A_K up to a constant at `wavelength` (Å, vacuum): spectra are known up to a factor. `error`: standard
    error of the mean over the stars."""

    wavelength: np.ndarray
    curve: np.ndarray
    error: np.ndarray


def extinction_curve(
    network,
    stars: TokenSet,
    *,
    label: str = "a_k",
    observe="xp_bins",
    label_error: float | None = None,
    deconvolve: bool = True,
) -> ExtinctionCurve:
    """From pairs of spectra that `network` generates for each of `stars` (their labels are read, no spectrum) at its extinction
    plus and minus `STEP`, where the training stars of its kind lie.

    A label with an error of σ attenuates a curve that is learned from it, by V/(V + σ²) where V is the variance of the true
    extinction. The network has learned with errors of many sizes and is told them: with `deconvolve` the curve is asked at
    several, and its inverse, linear in σ², is led on to σ = 0 (simulation and extrapolation, Cook & Stefanski 1994, JASA 89, 1314,
    with the rational-linear extrapolant). `label_error`: σ of the training labels, in magnitudes; if not given, what the
    recipe in the network's card says.

    **Raises:** `NetworkError` where no star has all labels, and where neither `label_error` nor the card has an error of the label.
    """
    if label_error is None:
        label_error = network.card.get("recipe", {}).get("label_errors", {}).get(label)
    if label_error is None:
        raise NetworkError(
            f"The card of the network has no error of the training's {label}: give label_error=, in mag."
        )
    v = network.vocabulary
    labels = v.indices("labels")
    whole = np.isfinite(stars.values[:, labels]).all(1)
    if not whole.any():
        raise NetworkError(f"Of {len(stars)} stars none has all labels ({', '.join(v.names[i] for i in labels)}).")
    stars = stars[whole].only("labels")
    kinds = [v[i] for i in v.indices(observe)]
    told = [label_error * factor for factor in (TOLD if deconvolve else TOLD[:1])]
    curves = np.stack([_slopes(network, stars, v.index(label), kinds, error) for error in told])  # (errors, stars, m)
    centred = curves - curves.mean(-1, keepdims=True)
    mean = centred.mean(1)
    strength = 1.0
    if deconvolve:
        # One factor for the whole curve: errors of the label attenuate all wavelengths alike.
        relative = np.array([(mean[0] @ one) / (mean[0] @ mean[0]) for one in mean])
        strength = 1 / np.polyfit(np.square(told), 1 / relative, 1)[1]
    error = centred[0].std(0) / np.sqrt(len(stars))
    return ExtinctionCurve(np.array([k.wavelength for k in kinds]), strength * mean[0], strength * error)


def _slopes(network, stars, column, kinds, error):
    """`(stars, m)`: magnitudes of extinction in each kind per magnitude of the label."""
    ends = []
    for sign in (-1, 1):
        values, errors = stars.values.copy(), stars.errors.copy()
        values[:, column] += sign * STEP
        errors[:, column] = error
        moved = TokenSet(stars.vocabulary, values, errors, stars.keys)
        ends.append(-2.5 * np.log10(network.ask(moved, [kind.name for kind in kinds]).mean))
    return (ends[1] - ends[0]) / (2 * STEP)
