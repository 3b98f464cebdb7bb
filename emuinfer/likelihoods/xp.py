"""`XPModel` and `ParallaxModel`: NumPyro models of what is known of a star beside its high-resolution spectra."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..entry import public
from ..errors import LabelError, ObservationError, suggestion
from ..labels import LabelSpace
from .base import LabelLikelihood, SpectrumModel
from .joint import JointLikelihood
from .luminosity import LENGTH, LuminosityLikelihood
from .photometry import Held, PhotometricLikelihood, TokenEmulator
from .priors import checked_prior, label_priors

EXTINCTION = "a_k"
MAGNITUDE = "phot_g_mean_mag"
A_K_SD = 0.1  # mag, of the half-normal prior where no emulator says how far extinctions go
# How much the labels of two emulators may differ for one star: APOGEE's calibrated Teff, log g and abundances against those of
# synthetic spectra in LTE. Comparisons of surveys find such differences (e.g. Jönsson et al. 2020, AJ 160, 120); a choice.
SCALE_ERRORS = {"teff": 50.0, "logg": 0.05, "fe_h": 0.05, "alpha_m": 0.05}
TRANSFORMS: dict[str, tuple[Callable, Callable]] = {  # to the space in which emulators predict, and its derivative
    "identity": (lambda v: v, np.ones_like),
    "log": (np.log, np.reciprocal),
    "arcsinh": (np.arcsinh, lambda v: 1.0 / np.hypot(1.0, v)),
}
GUESSES = (0.02, 0.15, 0.4, 0.7)  # quantiles of an extinction's prior that a search may start from


class LabelModel(SpectrumModel):
    """A model without spectra. The base of `XPModel` and `ParallaxModel`.

    **Attributes:** `notes`: sentences on data that were left out.
    """

    spectra = ()
    broadening = "none"
    rv_guess, peaks = 0.0, None
    notes: tuple[str, ...] = ()

    def _set(self, label_space: LabelSpace, priors, others, extinctions):
        """Labels, priors and likelihood. `extinctions`: the default prior of `a_k`, or None where there is none."""
        given = dict(priors or {})
        self.nuisance_priors = {}
        if extinctions is not None:
            self.nuisance_priors[EXTINCTION] = checked_prior(EXTINCTION, given.pop(EXTINCTION, extinctions))
        self.label_space, self.priors = label_space, label_priors(label_space, given)
        self.likelihood = JointLikelihood((), tuple(others))

    @property
    def units(self) -> dict[str, str]:
        """Units of all parameters."""
        return {**dict(zip(self.label_space.names, self.label_space.units)), EXTINCTION: "mag"}

    def first_guesses(self, name: str) -> tuple[float, ...]:
        """Extinctions that a search may start from."""
        return guesses_of(self.nuisance_priors[name])

    @public
    def full_on_grid(self) -> tuple:
        """There are no spectra."""
        return ()


def guesses_of(prior) -> tuple[float, ...]:
    """Four values of a parameter from its prior."""
    if isinstance(prior, float):
        return (prior,)
    draws = np.asarray(prior.sample(jax.random.key(0), (2000,)))
    return tuple(float(q) for q in np.quantile(draws, GUESSES))


class XPModel(LabelModel):
    """A NumPyro model of a star's spectrophotometry (Gaia XP spectrum, colours), and of its parallax, through an emulator.

    Labels and the extinction `a_k` (A_Ks, mag) are the parameters. Fluxes of a low-resolution spectrum may be in any unit: their
    common level is integrated out. The covariance has the data's errors, the emulator's scatter and its factors of low rank.

    With a parallax the magnitude `phot_g_mean_mag` tells the luminosity, and so, by a relation for the mass, log g: see
    `emuinfer.likelihoods.luminosity` for the formulas, their sources and errors. Its prior of the distance is that of a density of
    stars that falls exponentially.

    **Arguments:**

    - `emulator`: a `TokenEmulator`, as `network.as_emulator(condition=…, observe=…)` gives it.
    - `data`: names of kinds to `(value, error)`, in the kinds' units: `{"xp_bin_500": (3.1e-15, 4e-17), "j_h": (0.31, 0.03)}`; or a
      `TokenSet` of one star. NaN values and infinite errors are missing. What has no error (a number alone, a NaN error) cannot be
      weighed: it is left out, with a note.
    - `parallax`: `(value, error)` in mas, corrected for the zero point by you; negative values are fine. `data` then needs
      `phot_g_mean_mag`, whose error may be left out: beside the calibration's 0.01 mag it hardly counts.
    - `priors`: names to NumPyro distributions, or to numbers that fix. Default: labels flat in the emulator's domain, `a_k` flat from 0 to
      the emulator's upper bound. A dust map is `{"a_k": dist.Normal(0.05, 0.02)}`.
    - `scale_errors`: standard deviations by which the scales of the labels of this emulator and of those of spectra may differ, for use
      in a `JointModel`; by default 50 K, and 0.05 dex of `logg`, `fe_h` and `alpha_m`.
    - `length`: pc, of the prior of the distance.

    Colours that are made of the same photons as the spectrum (`bp_rp` beside `xp_bin_…`) count twice: give one of them.

    In `JointModel([StellarModel(…), XPModel(…)])` labels of the same name are one. `alpha_m` is the mean of those of O, Mg,
    Si, S, Ca and Ti over Fe that the spectrum's emulator has.

    **Raises:** `ObservationError` where nothing can be used, on kinds that the emulator does not predict, and on errors that are
    negative or zero.
    """

    @public
    def __init__(self, emulator: TokenEmulator, data, *, parallax=None, priors=None, scale_errors=None, length=LENGTH):
        import numpyro.distributions as dist

        self.emulator = emulator
        whole = LabelSpace(tuple(emulator.labels), emulator.lower, emulator.upper)
        bounds = whole.bounds
        upper = bounds.pop(EXTINCTION, None)
        space = LabelSpace(tuple(bounds), *zip(*bounds.values()))
        numbers, magnitude, self.notes = read_numbers(emulator, data)
        others: list[LabelLikelihood] = [_photometric(emulator, numbers, whole, scale_errors)]
        extinctions = None if upper is None else dist.Uniform(max(upper[0], 0.0), upper[1])
        if parallax is not None:
            if magnitude is None:
                raise ObservationError(f"A parallax needs an apparent magnitude beside it: give data['{MAGNITUDE}'].")
            others.append(_luminosity(parallax, magnitude, length, space))
            extinctions = dist.HalfNormal(A_K_SD) if extinctions is None else extinctions
        self._set(space, priors, others, extinctions)


class ParallaxModel(LabelModel):
    """A NumPyro model of a star's parallax and apparent magnitude, for a `JointModel` with a spectrum: see `XPModel`.

    **Arguments:**

    - `parallax`: `(value, error)` in mas; `magnitude`: `(value, error)` of Gaia's G (Vega).
    - `label_space`: where the labels `teff`, `logg`, `fe_h` lie, by default 3300–8000 K, 0–5.5 and −3 to 0.6.
    - `priors`: as in `XPModel`; by default `a_k` is half-normal with 0.1 mag: a dust map knows better.
    - `length`: pc, of the prior of the distance.
    """

    @public
    def __init__(self, parallax, magnitude, *, label_space=None, priors=None, length=LENGTH):
        import numpyro.distributions as dist

        if label_space is None:
            label_space = LabelSpace(("teff", "logg", "fe_h"), (3300.0, 0.0, -3.0), (8000.0, 5.5, 0.6))
        others = [_luminosity(parallax, magnitude, length, label_space)]
        self._set(label_space, priors, others, dist.HalfNormal(A_K_SD))


class Numbers(NamedTuple):
    """Transformed numbers in the emulator's order `(m,)`, their errors, whether they are seen, and whether they are relative."""

    values: np.ndarray
    errors: np.ndarray
    seen: np.ndarray
    relative: np.ndarray


def read_numbers(emulator, data) -> tuple[Numbers, tuple[float, float] | None, tuple[str, ...]]:
    """The numbers that the emulator predicts, the G magnitude `(value, error)` if it is there, and notes on what is left out."""
    given, kinds = _by_name(data)
    known = tuple(emulator.kinds)
    magnitude = given.pop(MAGNITUDE, None) if MAGNITUDE not in known else given.get(MAGNITUDE)
    if kinds is None:
        kinds = getattr(emulator, "vocabulary", None)
        if unknown := [n for n in given if n not in known]:
            raise ObservationError(
                f"The emulator does not predict '{unknown[0]}'.{suggestion(unknown[0], known)} It predicts: {_listed(known)}."
            )
    if kinds is None:
        transforms, relative = zip(*(("log", True) if n.startswith("xp_bin_") else ("identity", False) for n in known))
    else:
        transforms, relative = zip(*((kinds[n].transform, kinds[n].relative) for n in known))
    value, error = np.array([given.get(n, (np.nan, np.nan)) for n in known], float).reshape(-1, 2).T
    there = np.isfinite(value) & ~np.isposinf(error) & ((np.array(transforms) != "log") | (value > 0))
    if not isinstance(data, Mapping):  # in tokens a negative error is one that is not known
        error = np.where(error < 0, np.nan, error)
    elif (wrong := there & (error <= 0)).any():
        k = int(np.argmax(wrong))
        raise ObservationError(f"The error of {known[k]} is {error[k]:g}; it must be positive.")
    notes = []
    if (unsure := there & np.isnan(error)).any():
        names = [n for n, u in zip(known, unsure) if u]
        notes.append(f"Without an error, and so left out: {_listed(names)}.")
    seen = there & ~unsure
    if not seen.any():
        raise ObservationError(
            f"None of the {len(known)} numbers that the emulator predicts has a value and an error: {_listed(known)}. A parallax alone "
            "is a ParallaxModel."
        )
    if seen.sum() == 1 and np.array(relative)[seen].all():
        notes.append("One flux of a spectrum says nothing: only ratios count.")
    x, sd = np.zeros(len(known)), np.zeros(len(known))
    for transform, (function, slope) in TRANSFORMS.items():
        of = seen & (np.array(transforms) == transform)
        x[of], sd[of] = function(value[of]), error[of] * slope(value[of])
    return Numbers(x, sd, seen, np.array(relative)), magnitude, tuple(notes)


def _by_name(data):
    """Name to `(value, error)`, and the vocabulary of a `TokenSet`, or None."""
    if isinstance(data, Mapping):
        return {n: _pair(v) for n, v in data.items()}, None
    if not hasattr(data, "vocabulary"):
        raise ObservationError(
            f"data must be a mapping of kinds to (value, error), or a TokenSet of one star; got {type(data).__name__}."
        )
    if len(data) != 1:
        raise ObservationError(f"One star is needed; the tokens have {len(data)}. Take one with tokens[i].")
    pairs = zip(np.asarray(data.values, float)[0], np.asarray(data.errors, float)[0])
    return dict(zip(data.vocabulary.names, pairs)), data.vocabulary


def _pair(value) -> tuple[float, float]:
    """`(value, error)` as floats; NaN for an error that is not given."""
    try:
        pair = [float(v) for v in np.atleast_1d(np.asarray(value, float))]
    except (TypeError, ValueError):
        pair = []
    if len(pair) not in (1, 2):
        raise ObservationError(f"A number must be given as (value, error); got {value!r:.60}.")
    return pair[0], pair[1] if len(pair) == 2 else np.nan


def _listed(names) -> str:
    names = list(names)
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])}, …, {names[-1]} ({len(names)} in all)"


def _photometric(emulator, numbers: Numbers, whole: LabelSpace, scale_errors) -> PhotometricLikelihood:
    scales = dict(SCALE_ERRORS if scale_errors is None else scale_errors)
    if scale_errors is not None:
        whole.require_names(list(scales))
        if bad := [n for n, sd in scales.items() if not (np.isfinite(sd) and sd >= 0)]:
            raise LabelError(f"The scale error of {bad[0]} is {scales[bad[0]]}; it must be a number of 0 or more.")
    values, errors, seen, relative = numbers
    fluxes = seen & relative
    # Near 0, where float32 has digits; the level is integrated out, so that its size does not matter.
    middle = np.mean(values[fluxes]) if fluxes.any() else 0.0
    as32 = lambda x: jnp.asarray(x, jnp.float32)
    return PhotometricLikelihood(
        Held(emulator) if jax.tree.leaves(emulator) == [emulator] else emulator,
        as32(np.asarray(emulator.factors, float).reshape(len(seen), -1)),
        as32(np.where(fluxes, values - middle, values)),
        as32(errors**2),
        as32(seen),
        as32(relative),
        as32([scales.get(n, 0.0) for n in whole.names]),
        whole,
        tuple(emulator.kinds),
    )


def _luminosity(parallax, magnitude, length, space) -> LuminosityLikelihood:
    if missing := [n for n in ("teff", "logg") if n not in space.names]:
        raise LabelError(f"A parallax tells of teff and logg together; the emulator has no {', '.join(missing)}.")
    value, error = _pair(parallax)
    g, g_error = _pair(magnitude)
    if not (np.isfinite([value, error, g]).all() and error > 0):
        raise ObservationError(
            f"parallax = {value:g} ± {error:g} mas, G = {g:g}: all must be finite and the error positive. Leave a missing parallax out."
        )
    if not (np.isnan(g_error) or 0 <= g_error < np.inf):
        raise ObservationError(f"The error of {MAGNITUDE} is {g_error:g}; it must be a finite number of 0 or more.")
    if not (np.isfinite(length) and length > 0):
        raise ObservationError(f"length = {length} must be a positive number of parsecs.")
    return LuminosityLikelihood.of(value, error, g, np.nan_to_num(g_error), length)
