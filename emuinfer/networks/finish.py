"""A trained network made ready: rounded, its residuals and its calibration measured on objects it was not trained on, its card complete."""

import dataclasses
import importlib.metadata
import platform
import time

import numpy as np

from ..tokens import TokenSet
from .calibrate import asked_with_errors, calibrated_ranks, fit_calibration, ranks
from .network import Network
from .outliers import ordinary_scores
from .population import population_card
from .residuals import correlation_card
from .storage import half_precision

BATCHES = 80
OBSERVED = ("xp_bins", "colours")
CENTRAL = {"68": 0.34, "95": 0.475}  # half of the central probability


def finish_network(
    network: Network,
    validation: TokenSet,
    card: dict,
    *,
    training: TokenSet | None = None,
    observe=OBSERVED,
    seed: int = 0,
    batches=BATCHES,
    say=print,
) -> Network:
    """The network with weights in half precision and a full card.

    `validation`: objects that were not used in training. The calibration and the factors are those by all of them; the figures in
    the card are of one random half by what was fitted to the other. `training`: whose distribution of labels is kept. `observe`: groups
    whose residuals, given labels, are measured. `card`: title, data, licence and what else is to be said.
    """
    network = dataclasses.replace(half_precision(network), card=dict(network.card))
    half = np.random.default_rng(seed).permutation(len(validation)) < len(validation) // 2
    say("residuals of spectra and colours, given labels")
    correlation = correlation_card(network, validation, seed=seed, observe=observe)
    say("scores of ordinary objects")
    outliers = ordinary_scores(network, validation)
    say("questions at random")
    one, errors = asked_with_errors(network, validation[half], batches, seed + 1)
    other, _ = asked_with_errors(network, validation[~half], batches, seed + 2)
    say("calibration by one half, judged on the other")
    judged = coverage(network, fit_calibration(network, one, errors), other)
    both, errors = asked_with_errors(network, validation, 2 * batches, seed + 3)
    calibration = fit_calibration(network, both, errors)
    more = {} if training is None else {"population": population_card(training)}
    made = {
        **more,
        **card,
        "correlation": correlation,
        "outliers": outliers,
        "calibration": calibration.to_json(),
        "figures": {"coverage_of_held_out_half": judged, "objects": len(validation), "seed": seed},
        "made": {"date": time.strftime("%Y-%m-%d", time.gmtime()), **versions()},
    }
    return dataclasses.replace(network, card={**network.card, **made})


def coverage(network: Network, calibration, asked) -> dict:
    """Shares of true values within the central 68 and 95 % of what was said, by rows of the calibration: before it, after it, and
    after it by thirds of the quality."""
    before, after = ranks(network, asked), calibrated_ranks(network, calibration, asked)
    third = np.where(
        np.isfinite(asked.quality) & asked.spectrum,
        np.searchsorted(calibration.edges, np.nan_to_num(asked.quality)),
        -1,
    )
    share = lambda r: (
        [round(float(np.mean(np.abs(r - 0.5) < half)), 4) for half in CENTRAL.values()] if len(r) else None
    )
    found = {}
    for r, name in enumerate(calibration.rows):
        own = asked.valid & (calibration.row[asked.asked] == r) & np.isfinite(after)
        parts = [after[own & (third == t)[:, None]] for t in range(3)]
        found[name] = {
            "n": int(own.sum()),
            "before": share(before[own]),
            "after": share(after[own]),
            "thirds": [share(p) for p in parts],
        }
    return found


def versions() -> dict[str, str]:
    """Of what made the network."""
    names = ("emuinfer", "jax", "equinox", "numpy")
    return {name: importlib.metadata.version(name) for name in names} | {"python": platform.python_version()}
