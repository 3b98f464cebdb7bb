"""Limits of a batch of stars, and the lines that decided them; on the host."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import EmuinferError
from ..forecast.lines import lines_in
from ..forecast.observed import information_at
from ..likelihoods.priors import prior_facts
from ..posteriors import limit_of
from .batch import with_star

NO_VERDICT = "-"  # of parameters for which none is sought


def no_limits(n: int, names, facts) -> dict[str, np.ndarray]:
    """The columns of `n` stars without limits: `limit_sign` and `limit` `(n, n_parameters)`, and `limit_lines` `(n,)`."""
    sign = np.array(["" if name in facts else NO_VERDICT for name in names])
    return {
        "limit_sign": np.tile(sign, (n, 1)),
        "limit": np.full((n, len(names)), np.nan),
        "limit_lines": np.full(n, "", dtype="<U240"),
    }


def put_limits(out: dict, index, draws, survey, stars, raw) -> None:
    """Write the limits of the stars `index` into `out`; `draws` `(n_stars, n_parameters, n)`."""
    names, model = survey.density.names, survey.model
    facts = prior_facts(model)
    for i, row in enumerate(index):
        found = {n: limit_of(draws[i, names.index(n)], fact) for n, fact in facts.items()}
        for name, one in found.items():
            k = names.index(name)
            out["limit_sign"][row, k], out["limit"][row, k] = one.sign, one.value
        labels = [n for n, one in found.items() if np.isfinite(one.value) and n in model.label_space.names]
        if labels and np.isfinite(draws[i]).all():
            out["limit_lines"][row] = _lines(model, _star(stars, raw, i), names, draws[i], found, labels, facts)


def _star(stars, raw, i):
    """One star of a batch, with the weights of its outliers."""
    one = jax.tree.map(lambda a: a[i], stars)
    return eqx.tree_at(lambda s: s.weight, one, jnp.asarray(raw["outlier_weight"][i], jnp.float32))


def _lines(model, star, names, draws, found, labels, facts) -> str:
    """`y_fe: Y II 5200.41, Y II 5205.72; co_fe: …`."""
    # The velocities of the table are counted from zero, not from the star's first guess.
    likelihood = with_star(model.likelihood, dataclasses.replace(star, frame=jnp.zeros_like(star.frame)))
    middle = {n: float(np.median(x)) for n, x in zip(names, draws)}
    bounds = model.label_space.bounds
    middle = {n: float(np.clip(v, *bounds[n])) if n in bounds else v for n, v in middle.items()}
    fixed = {n: float(v) for n, v in model.fixed.items()}
    # All of them at their limits at once: one set of derivatives for each star.
    at_limits = {**fixed, **middle, **{name: found[name].value for name in labels}}
    try:
        known = information_at(model, likelihood, at_limits, model_error=True)
    except EmuinferError:  # a velocity that leaves too few pixels
        return ""
    widths = {n: f.sd for n, f in facts.items() if np.isfinite(f.sd)}
    texts = {name: lines_in(model, known, name, widths).text() for name in labels}
    said = [f"{name}: {text}" for name, text in texts.items() if text]
    return "; ".join(said)[:240]
