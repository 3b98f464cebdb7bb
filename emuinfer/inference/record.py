"""A posterior object from a fit and its draws: the data, predictions, the likelihood of each pixel, facts of the run."""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..emulators import emulator_hash
from ..likelihoods.priors import prior_facts
from ..posteriors import limits_of
from .residuals import goodness_of

PACKAGES = ("emuinfer", "jax", "numpyro", "blackjax", "arviz", "numpy")


def posterior_of(fit, result, check, values: dict, timings: dict):
    """The ArviZ object of `sample`. `values`: name to draws `(n,)` of all chains; `check`: of the verification, or None."""
    from ..posteriors import build_posterior, diagnose

    model, config, seed = fit.model, fit.config, result.seed
    chains, draws = result.positions.shape[:2]
    positions = {n: np.asarray(v, np.float64).reshape(chains, draws) for n, v in values.items()}
    constant = pixel_facts(fit)
    beside = {one.site: np.asarray(one.observed(), float) for one in fit.likelihood.others}
    attrs, warnings = facts(fit, result, check, values, constant)
    goodness = goodness_of(fit, values, seed)
    by_pixel = {n: ["pixel"] for n in ("flux", "model_flux", *constant)} | {n: [f"{n}_kind"] for n in beside}
    coords = {f"{one.site}_kind": np.array(one.kinds) for one in fit.likelihood.others}
    if constant:
        coords |= {
            "pixel": np.arange(len(constant["wavelength"])),
            "used_pixel": np.flatnonzero(constant["weight"] > 0),
        }
    if check is not None:
        constant |= {"verified_draw": check.index, "verified_log_weight": check.log_weights}
    kept = {"posterior_predictive": config.predictive, "log_likelihood": config.pointwise}
    thin = {group: thinned(draws, count, chains) for group, count in kept.items() if count}
    predicted, points = {}, {}
    if "posterior_predictive" in thin:
        predicted = predictions(fit, positions, thin["posterior_predictive"], seed)
    if "log_likelihood" in thin and model.spectra:
        points = {"flux": pointwise(fit, positions, thin["log_likelihood"])}
    posterior = build_posterior(
        positions,
        result.stats,
        observed_data=beside | _together("flux", [s.observation.flux[s.pixels] for s in model.spectra]),
        posterior_predictive=predicted,
        log_likelihood=points,
        constant_data=constant,
        coords=coords,
        dims={**by_pixel, "verified_draw": ["verified"], "verified_log_weight": ["verified"]},
        group_dims={"log_likelihood": {"flux": ["used_pixel"]}},
        thinned=thin,
        attrs={
            **attrs,
            **goodness.attrs,
            "flags": _flags(model, goodness),
            "limits": _limits(model, positions),
            "timings": timings,
        },
    )
    bounds = {n: model.label_space.bounds[n] for n in model.names if n in model.label_space.names}
    found = diagnose(posterior, names=list(model.names), bounds=bounds)
    posterior.attrs["warnings"] = json.dumps([*goodness.messages, *result.notes, *fit.notes, *found, *warnings])
    return posterior


def _together(name, arrays) -> dict:
    """Arrays of several spectra as one, by name; nothing where there are none."""
    return {name: np.concatenate(arrays)} if arrays else {}


def _limits(model, draws) -> dict:
    """Verdict, limit and limit of the likelihood of each label, broadening and extinction, as JSON knows them."""
    found = limits_of(draws, prior_facts(model))
    return {n: [None if isinstance(v, float) and np.isnan(v) else v for v in one] for n, one in found.items()}


def _flags(model, goodness) -> list[str]:
    """Names of the flags that the verdict and the velocity raise."""
    return sorted({*goodness.flags, *(() if model.peaks is None else model.peaks.flags)})


def pixel_facts(fit) -> dict[str, np.ndarray]:
    """What a posterior keeps of the pixels, each `(n_pix,)`; where there are several spectra, `arm` counts them from 1. Empty where
    there are none."""
    if not fit.model.spectra:
        return {}
    values = {k: jnp.float32(v) for k, v in fit.model.complete(fit.values).items()}
    parts = [(spectrum, *part) for spectrum, part in zip(fit.model.spectra, fit.likelihood.parts(values))]
    together = lambda function: np.concatenate([np.asarray(function(*part)) for part in parts])
    constant = {
        "wavelength": together(lambda spectrum, part, _: spectrum.wavelength),
        "good": together(lambda spectrum, part, _: (np.asarray(spectrum.likelihood.noise.weight) > 0).astype(np.int8)),
        "weight": together(lambda spectrum, part, _: part.noise.weight),
        "uncertainty": together(lambda spectrum, part, _: spectrum.observation.uncertainty[spectrum.pixels]),
        "model_error": together(lambda spectrum, part, values: _model_error(part, values) * spectrum.scale),
    }
    if len(parts) > 1:
        constant["arm"] = np.repeat(np.arange(1, len(parts) + 1), [len(part.flux) for _, part, _ in parts])
    return constant


def _model_error(part, values):
    """Standard deviation of the model's errors at single pixels relative to the level, times it."""
    error = np.asarray(_model_errors(part, values)[2], float)
    return error * np.asarray(part.noise.level)


@eqx.filter_jit
def _model_errors(part, values):
    return part.noise.model_errors(values, part.forward)


def thinned(draws: int, count: int, chains: int) -> np.ndarray:
    """Indices of the draws of each chain, equally spaced, so that all chains together have about `count`."""
    each = int(np.clip(round(count / chains), 1, draws))
    return np.unique(np.linspace(0, draws - 1, each).round().astype(int))


def predictions(fit, values: dict, draws: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """`model_flux`, the model with its continuum, and `flux`, simulated data, in the unit of the data.

    `values`: name to draws `(chains, draws)`; `draws`: indices of those to take. Both results have the shape
    `(chains, len(draws), n_pix)`. A pixel of `flux` is drawn given the data of all others, which tell its continuum. Data that are
    no pixels are simulated under their own names.
    """
    keys = jax.random.split(jax.random.key(np.random.default_rng([seed, 7]).integers(2**31)), 1)[0]
    some = _rows(fit, values, draws)
    n = len(next(iter(some.values())))
    out = _predict(fit.likelihood, some, jax.random.split(keys, n))
    return {k: np.asarray(v).reshape(-1, len(draws), v.shape[-1]) for k, v in out.items()}


@eqx.filter_jit
def _predict(likelihood, values, keys):
    def one(row):
        values, key = row
        model, flux = [], []
        for k, (part, own) in enumerate(likelihood.parts(values)):
            model.append(part.model_flux(own) * part.scale)
            flux.append(part.distribution(own).sample(jax.random.fold_in(key, k)))
        out = {"model_flux": jnp.concatenate(model), "flux": jnp.concatenate(flux)} if flux else {}
        for k, one in enumerate(likelihood.others, start=len(flux)):
            out[one.site] = one.simulated(values, jax.random.fold_in(key, k))
        return out

    return jax.lax.map(one, (values, keys))


def pointwise(fit, values: dict, draws: np.ndarray) -> np.ndarray:
    """Log likelihood `(chains, len(draws), n_used)` of each used pixel given all others, for `arviz.loo`."""
    out = np.asarray(_pointwise(fit.likelihood, _rows(fit, values, draws)))
    used = np.concatenate([np.asarray(arm.noise.weight) > 0 for arm in fit.likelihood.arms])
    return out[:, used].reshape(-1, len(draws), used.sum())


@eqx.filter_jit
def _pointwise(likelihood, values):
    def one(values):
        parts = likelihood.parts(values)
        return jnp.concatenate([part.distribution(own).log_prob(part.flux * part.scale) for part, own in parts])

    return jax.lax.map(one, values)


def _rows(fit, values, draws):
    """All parameters at the chosen draws of all chains, each `(chains × len(draws),)`."""
    some = {k: np.asarray(v)[:, draws].reshape(-1) for k, v in values.items()}
    n = len(next(iter(some.values())))
    complete = fit.model.complete({k: jnp.asarray(v, jnp.float32) for k, v in some.items()})
    return {k: jnp.broadcast_to(v, (n,)) for k, v in complete.items()}


def facts(fit, result, check, values: dict, constant: dict) -> tuple[dict, list[str]]:
    """Attributes of the posterior, and warnings about the domain and the verification. `values`: name to draws `(n,)`."""
    space = fit.model.label_space
    complete = fit.model.complete(values)
    n = len(next(iter(values.values())))
    labels = np.stack([np.broadcast_to(complete[k], n) for k in space.names], -1)
    inside = float(space.contains(labels, tolerance=0.05).mean())
    warnings = [*fit.model.velocity_warnings, *fit.model.notes]
    if inside < 0.99:
        warnings.append(
            f"{100 * (1 - inside):.0f} % of the draws lie outside the emulator's domain, held back only by its soft wall: "
            "the star may be of a kind the emulator does not know."
        )
    if check is not None and check.flag != "ok":
        warnings.append(check.message)
    together = lambda of: ", ".join(dict.fromkeys(of(spectrum) for spectrum in fit.model.spectra))
    attrs = {
        "emulator_hash": together(lambda spectrum: emulator_hash(spectrum.full)),
        "reduced_hash": together(lambda spectrum: emulator_hash(spectrum.reduced)),
        "data_hash": ", ".join(spectrum.observation.hash for spectrum in fit.model.spectra),
        "observation": together(lambda spectrum: spectrum.observation.name),
        "medium": ", ".join(spectrum.observation.medium for spectrum in fit.model.spectra),
        "frame": ", ".join(str(spectrum.observation.meta.get("frame", "unknown")) for spectrum in fit.model.spectra),
        "seed": result.seed,
        "in_domain": inside,
        "edge_distance": float(space.edge_distance(np.median(labels, axis=0))),
        "k_hat": check.k_hat if check else None,
        "verification": check.flag if check else "skipped",
        "verification_message": check.message if check else "",
        "importance_ess": check.ess if check else None,
        "down_weighted_pixels": float((constant["weight"][constant["good"] > 0] < 0.5).mean()) if constant else None,
        "versions": {p: _version(p) for p in PACKAGES} | {"python": sys.version.split()[0]},
        "gradients": result.gradients,
    }
    return attrs, warnings


def _version(package):
    from importlib.metadata import version

    from .. import __version__

    return __version__ if package == "emuinfer" else version(package)
