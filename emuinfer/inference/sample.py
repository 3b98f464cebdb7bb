"""From a model to a verified posterior: optimise, localise, sample, verify."""

import dataclasses
import functools
import json
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..emulators import emulator_hash, fit_local
from ..errors import LabelError, SamplingError
from ..labels.design import sobol_design
from ..likelihoods import StellarSpectrum
from ..likelihoods.compressed import CompressedStar, compress
from ..likelihoods.density import Unconstrained
from ..samplers import get_sampler, laplace_covariance, optimise

SCREENED = 256  # Sobol points of the domain whose density is looked at to choose the optimiser's starts
STARTS = 4
ROUNDS = 2  # of outlier weights and model errors at the optimum
LOCAL = 360  # spectra of the full emulator that make the local surrogate, and how wide they lie, in posterior widths
WIDEN = 1.6


@dataclasses.dataclass
class Fit:
    """An optimum of a model: `z` `(dim,)`, parameter `values`, the `data` it holds for (weights, model errors, local
    surrogate); and `star`, the same likelihood compressed, which is what samplers take for `data`."""

    z: np.ndarray
    values: dict
    data: object
    density: Unconstrained
    star: CompressedStar


def find_optimum(model: StellarSpectrum, *, start: dict | None = None, seed: int = 0, progress: bool = True) -> Fit:
    """The highest posterior density, by screening the domain, damped Newton steps, outlier weights and a local
    surrogate of the full emulator. `start` (parameter name to value) replaces the search over the domain."""
    density = Unconstrained(model)
    search = functools.partial(optimise, density.log_density, metric=density.information, max_steps=25)
    if start is None:
        z, data = _starts(model, density, seed)
        _say(progress, f"optimising from {len(z)} starts")
        final = search(z, data)
        for _ in range(ROUNDS):
            data = _update_noise(model, _values(density, final.position), data)
            # As many starts as before, so that nothing is compiled anew.
            final = search(np.repeat(final.position[None], len(z), axis=0), data)
        position = final.position
    else:
        position = _given(model, density, start)
        data = _update_noise(model, _values(density, position), model.data)
    _say(progress, f"fitting a local surrogate to {LOCAL} spectra of the full emulator around the optimum")
    local = _localise(model, density, position, data, seed)
    data = _with_emulators(model, data, local)
    data = _update_noise(model, _values(density, position), data)
    # The last steps, small ones, are those of the compressed likelihood, which is then made anew where they end.
    final = search(position[None], _finished(model, density, position, data).star)
    return _finished(model, density, final.position, data)


def _finished(model, density, z, data):
    """The `Fit` at `z`, with the factors of the emulator's error, which the search did without."""
    values = _values(density, z)
    data = _of_each(model, lambda spectrum, v, d: spectrum.with_model_errors(v, d), values, data)
    return Fit(z, values, data, density, compress_star(model, values, data))


def compress_star(model, values: dict, data) -> CompressedStar:
    """The likelihood of `data`, whose emulator is a `LocalSpectrum`, compressed at `values`."""
    return _of_each(model, lambda spectrum, v, d: _compress(spectrum.compressible, v, d), values, data)


def _of_each(model, function, values, data):
    """`function(spectrum, its values, its data)` of each spectrum of the star, joined as the model's data are."""
    values = {k: jnp.float32(v) for k, v in model.complete(values).items()}
    return model.joined([function(spectrum, values_of(values), own) for spectrum, values_of, own in model.parts(data)])


def _with_emulators(model, data, emulators):
    """`data` with one emulator for each spectrum of the star in place of its own."""
    swap = lambda d, new: eqx.tree_at(lambda d: d.emulator, d, new, is_leaf=lambda x: x is d.emulator)
    return model.joined([swap(own, new) for (_, _, own), new in zip(model.parts(data), emulators)])


@eqx.filter_jit
def _compress(compressible, values, data):
    return compress(*compressible(values, data))


def _given(model, density, start):
    """The position of `start`, which must name every sampled parameter."""
    if missing := [n for n in density.names if n not in start]:
        raise LabelError(f"start has no value for {', '.join(missing)}. Sampled are: {', '.join(density.names)}.")
    values = {n: np.array([float(start[n])]) for n in density.names}
    if bad := [n for n, v in values.items() if not np.isfinite(v).all()]:
        raise LabelError(f"start has values that are not finite, for {', '.join(bad)}.")
    return density.unconstrain(values)[0].astype(np.float32)


def _localise(model, density, z, data, seed):
    """A `LocalSpectrum` from draws of the Laplace approximation, widened so that it covers the posterior's tails."""
    covariance, _ = laplace_covariance(density.log_density, z, data, metric=density.information)
    rng = np.random.default_rng([seed, 3])
    draws = rng.standard_normal((LOCAL, len(z))) @ np.linalg.cholesky(covariance).T
    return _localise_at(model, density, z + WIDEN * draws, data)


def _localise_at(model, density, positions, data):
    """One `LocalSpectrum` for each spectrum of the star, from the flat `positions` `(n, dim)`."""
    values = model.complete(_constrain_all(density, positions))
    return [local_surrogate(spectrum, values_of(values), own) for spectrum, values_of, own in model.parts(data)]


def _localise_again(model, fit, positions, seed):
    """The fit with a surrogate from draws of the posterior itself, for one that the Laplace approximation misses."""
    flat = positions.reshape(-1, positions.shape[-1])
    rows = np.random.default_rng([seed, 9]).choice(len(flat), LOCAL)
    centre = flat.mean(0)
    local = _localise_at(model, fit.density, centre + WIDEN * (flat[rows] - centre), fit.data)
    data = _update_noise(model, fit.values, _with_emulators(model, fit.data, local))
    return _finished(model, fit.density, centre.astype(np.float32), data), np.cov(flat.T)


def local_surrogate(model, values: dict, data):
    """A `LocalSpectrum` of the full emulator and the star's operator at draws `values`, each `(n,)`."""
    values = model.complete(values)
    n = max(np.size(v) for v in values.values())
    full = eqx.tree_at(lambda d: d.emulator, data, model.full_on_grid(), is_leaf=lambda x: x is data.emulator)
    rows = [{k: jnp.float32(np.broadcast_to(v, n)[i]) for k, v in values.items()} for i in range(n)]
    parameters = np.stack([np.asarray(model.local_parameters(row)) for row in rows])
    return fit_local(parameters, np.stack([np.asarray(_flux_jit(model.normalised_flux, row, full)) for row in rows]))


@eqx.filter_jit
def _flux_jit(flux_of, values, data):
    return flux_of(values, data)


def _update_noise(model, values, data):
    """The data with the variance of the model's errors (without factors) and the outlier weights for `values`."""
    return _of_each(model, _updated, values, _with_variance(model, values, data))


def _with_variance(model, values, data):
    set_variance = lambda d, variance: eqx.tree_at(lambda d: d.model_variance, d, variance)
    return _of_each(model, lambda spectrum, v, d: set_variance(d, spectrum.model_variance(v, d)), values, data)


def _updated(spectrum, values, data):
    return eqx.tree_at(lambda d: d.weight, data, spectrum.reweight(values, data)) if spectrum.robust else data


def _values(density, z):
    return {k: float(v) for k, v in _constrain_jit(density, jnp.asarray(z, jnp.float32)).items()}


@eqx.filter_jit
def _constrain_jit(density, z):
    return density.constrain(z)


def _starts(model, density, seed):
    """The `STARTS` best of `SCREENED` points that fill the domain, and the data with the model's variance at the best."""
    labels = model.label_space.to_dict(sobol_design(model.label_space, SCREENED, seed=seed))
    # Guesses in blocks: each block of a Sobol sequence fills the domain, every fourth point of it does not.
    guess = lambda name: np.repeat(model.first_guesses(name), SCREENED // len(model.first_guesses(name)))
    values = {n: labels[n] if n in labels else guess(n) for n in density.names}
    z = density.unconstrain(values).astype(np.float32)
    lp = np.asarray(_densities(density, jnp.asarray(z), model.data))
    if not np.isfinite(lp).any():
        raise SamplingError(
            "The posterior density is not finite anywhere in the emulator's domain. Check the priors, and that the "
            "observation's fluxes and uncertainties are sensible."
        )
    best = z[np.argsort(-np.where(np.isfinite(lp), lp, -np.inf))[:STARTS]]
    return best, _with_variance(model, _values(density, best[0]), model.data)


@eqx.filter_jit
def _densities(density, z, data):
    return jax.lax.map(lambda one: density.log_density(one, data), z)


def sample(
    model: StellarSpectrum,
    *,
    seed: int = 0,
    start: dict | None = None,
    sampler: str = "nuts",
    chains: int = 4,
    warmup: int = 300,
    draws: int = 500,
    verify: int = 200,
    predictive: int = 64,
    progress: bool = True,
    **options,
):
    """The posterior of a `StellarSpectrum` as an ArviZ object, verified against the full emulator.

    **Arguments:**

    - `seed`: of everything random; the same seed on the same machine gives the same draws.
    - `start`: parameter name to value, near the posterior: saves the search over the domain, as for a second fit of the same
      star with other priors.
    - `sampler`: a name from `emuinfer.samplers.SAMPLERS`; `options` go to it.
    - `chains`, `warmup`, `draws`: chains run together; steps per chain.
    - `verify`: draws at which the full emulator is evaluated for importance weights and k-hat; 0 skips it.
    - `predictive`: draws whose model flux is kept as posterior predictive.

    **Returns:** `InferenceData` (ArviZ 0.23) or `DataTree` (1.x) with groups posterior, sample_stats, observed_data,
    constant_data and posterior_predictive, and attributes `emulator_hash`, `data_hash`, `seed`, `k_hat`,
    `verification` (ok, warn, fail or skipped), `in_domain` (share of the draws), `edge_distance` (of the median labels from
    the domain's nearest bound, in half-widths of the labels; negative outside), `warnings`, `versions`, `timings`.
    """
    from ..posteriors.posterior import build_posterior, diagnose
    from .verify import importance_check

    run = get_sampler(sampler)
    clock = time.perf_counter()
    fit = find_optimum(model, start=start, seed=seed, progress=progress)
    covariance, notes = laplace_covariance(fit.density.log_density, fit.z, fit.star, metric=fit.density.information)
    optimum_s = time.perf_counter() - clock
    for attempt in range(2):
        result = run(
            fit.density.log_density,
            fit.z,
            fit.star,
            seed=seed,
            chains=chains,
            warmup=warmup,
            draws=draws,
            covariance=covariance,
            progress=progress,
            **{"target_acceptance": 0.9, **options},
        )
        values = _constrain_all(fit.density, result.positions)
        clock = time.perf_counter()
        check = (
            importance_check(model, fit.data, values, star=fit.star, n=verify, seed=seed, progress=progress)
            if verify
            else None
        )
        verify_s = time.perf_counter() - clock
        if attempt or not check or check.flag != "fail":
            break
        _say(
            progress,
            "the surrogate does not hold over the whole posterior: making one from its draws, and sampling again",
        )
        fit, covariance = _localise_again(model, fit, result.positions, seed)
    predicted = _predict(model, fit.data, values, predictive, seed)
    attrs = _attributes(model, fit, result, check, values)
    extra = attrs.pop("_extra")
    attrs["timings"] = {"optimise_s": optimum_s, **result.timings, "verify_s": verify_s}
    shape = result.positions.shape[:2]
    positions = {n: np.asarray(v, np.float64).reshape(shape) for n, v in values.items()}
    constant = _constant_data(model, fit)
    n_pix = len(constant["wavelength"])
    by_pixel = ("flux", "model_flux", *constant)
    if check is not None:
        constant |= {"verified_draw": check.index, "verified_log_weight": check.log_weights}
    posterior = build_posterior(
        positions,
        result.stats,
        observed_data={
            "flux": _over_pixels(model, fit, lambda spectrum, v, d: spectrum.observation.flux[spectrum.pixels])
        },
        posterior_predictive={"model_flux": predicted},
        constant_data=constant,
        coords={"pixel": np.arange(n_pix)},
        dims={**{n: ["pixel"] for n in by_pixel}, "verified_draw": ["verified"], "verified_log_weight": ["verified"]},
        attrs=attrs,
    )
    bounds = {n: model.label_space.bounds[n] for n in model.names if n in model.label_space.names}
    warnings = [*result.notes, *notes, *diagnose(posterior, names=list(model.names), bounds=bounds), *extra]
    posterior.attrs["warnings"] = json.dumps(warnings)
    return posterior


def _over_pixels(model, fit, function):
    """`function(spectrum, its values, its data)` of all spectra of the star, one after the other along the pixels."""
    values = model.complete(fit.values)
    parts = [
        np.asarray(function(spectrum, values_of(values), own)) for spectrum, values_of, own in model.parts(fit.data)
    ]
    return np.concatenate(parts, axis=-1)


def _constant_data(model, fit) -> dict:
    """What a posterior keeps of the pixels, each `(n_pix,)`; where there are several spectra, `arm` counts them from 1."""
    functions = {
        "wavelength": lambda spectrum, v, d: spectrum.wavelength,
        "good": lambda spectrum, v, d: (np.asarray(spectrum.data.weight) > 0).astype(np.int8),
        "weight": lambda spectrum, v, d: d.weight,
        "uncertainty": lambda spectrum, v, d: spectrum.observation.uncertainty[spectrum.pixels],
        "model_error": lambda spectrum, v, d: spectrum.model_error(v, d) * np.asarray(d.level) * spectrum.scale,
    }
    constant = {name: _over_pixels(model, fit, function) for name, function in functions.items()}
    parts = model.parts(fit.data)
    if len(parts) > 1:
        constant["arm"] = np.repeat(np.arange(1, len(parts) + 1), [len(own.flux) for _, _, own in parts])
    return constant


def _constrain_all(density, positions):
    flat = jnp.asarray(positions.reshape(-1, positions.shape[-1]), jnp.float32)
    return {k: np.asarray(v, np.float64) for k, v in _constrain_rows(density, flat).items()}


@eqx.filter_jit
def _constrain_rows(density, rows):
    return jax.vmap(density.constrain)(rows)


def _predict(model, data, values, n, seed):
    """Model flux with its continuum in the unit of the data at `n` draws, `(1, n, n_pix)`."""
    total = len(next(iter(values.values())))
    rows = np.sort(np.random.default_rng([seed, 7]).choice(total, min(n, total), replace=False))

    @eqx.filter_jit
    def flux(values, data):
        fluxes = []
        for spectrum, values_of, own in model.parts(data):
            v = values_of(values)
            _, coefficients = spectrum.log_likelihood(v, own)
            fluxes.append(spectrum.normalised_flux(v, own) * own.continuum(coefficients) * spectrum.scale)
        return jnp.concatenate(fluxes)

    out = [np.asarray(flux(model.complete({k: jnp.float32(v[i]) for k, v in values.items()}), data)) for i in rows]
    return np.stack(out).astype(np.float32)[None]


def _attributes(model, fit, result, check, values):
    from importlib.metadata import version

    labels = np.stack(
        [np.broadcast_to(model.complete(values)[n], len(next(iter(values.values())))) for n in model.label_space.names],
        -1,
    )
    inside = float(model.label_space.contains(labels, tolerance=0.05).mean())
    extra = []
    if inside < 0.99:
        extra.append(
            f"{100 * (1 - inside):.0f} % of the draws lie outside the emulator's domain, held back only by its soft wall: "
            "the star may be of a kind the emulator does not know."
        )
    if check is not None and check.flag != "ok":
        extra.append(check.message)
    spectra = [spectrum for spectrum, _, _ in model.parts(fit.data)]
    together = lambda of: ", ".join(dict.fromkeys(of(spectrum) for spectrum in spectra))
    constant = _constant_data(model, fit)
    packages = ("emuinfer", "jax", "numpyro", "blackjax", "arviz", "numpy")
    return {
        "emulator_hash": together(lambda spectrum: emulator_hash(spectrum.full)),
        "reduced_hash": together(lambda spectrum: emulator_hash(spectrum.reduced)),
        "data_hash": ", ".join(spectrum.observation.hash for spectrum in spectra),
        "observation": together(lambda spectrum: spectrum.observation.name),
        "seed": result.seed,
        "in_domain": inside,
        "edge_distance": float(model.label_space.edge_distance(np.median(labels, axis=0))),
        "k_hat": check.k_hat if check else None,
        "verification": check.flag if check else "skipped",
        "verification_message": check.message if check else "",
        "importance_ess": check.ess if check else None,
        "down_weighted_pixels": float((constant["weight"][constant["good"] > 0] < 0.5).mean()),
        "versions": {p: _version(p, version) for p in packages} | {"python": sys.version.split()[0]},
        "gradients": result.gradients,
        "_extra": extra,
    }


def _version(package, version):
    from .. import __version__

    return __version__ if package == "emuinfer" else version(package)


def _say(progress, text):
    if progress:
        print(text, file=sys.stderr, flush=True)
