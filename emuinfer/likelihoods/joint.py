"""`JointModel`: several arms or exposures of one star in one likelihood."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from ..constants import RV_RANGE
from ..entry import public
from ..errors import LabelError, ObservationError
from ..observations.peaks import common_peaks
from ..wavelengths.doppler import rest_wavelength
from ..wavelengths.medium import convert_medium
from .base import SpectraLikelihood, SpectrumModel
from .common_labels import common_space
from .priors import BROADENING, NUISANCE_UNITS, RV_HALF_WIDTH, checked_prior, described_prior, label_priors
from .stellar import StellarModel

OFFSET_SD = 5.0  # km/s, of the default prior of an arm's velocity offset
OWN = ("log10_jitter", "rv_offset")  # parameters that each arm has for itself: `log10_jitter_1`, `rv_offset_2`, …


def arm_values(values: dict, k: int) -> dict:
    """The parameters of arm `k` (from 1) under the names of a `StellarModel`; numbers or arrays."""
    common = {n: v for n, v in values.items() if not n.startswith(OWN)}
    rv = values["rv"] + values[f"rv_offset_{k}"] if k > 1 else values["rv"]
    return {**common, "rv": rv, "log10_jitter": values[f"log10_jitter_{k}"]}


class JointLikelihood(SpectraLikelihood):
    """The likelihoods of a star's arms, each a `PixelLikelihood` or, for samplers, a `CompressedLikelihood`, and those of
    whatever else is known of it (`LabelLikelihood`)."""

    spectra: tuple
    beside: tuple = ()

    @property
    def arms(self) -> tuple:
        """The likelihood of each arm."""
        return self.spectra

    @property
    def others(self) -> tuple:
        """What has no pixels."""
        return self.beside

    def parts(self, values: dict) -> list:
        """`[(arm, its values)]`: the joint parameters, all of them, under the names of a `StellarModel`."""
        return [(arm, arm_values(values, k)) for k, arm in enumerate(self.arms, start=1)]

    def mapped(self, function, values: dict) -> "JointLikelihood":
        """`function(arm, its values)` of each arm, joined."""
        return JointLikelihood(tuple(function(arm, own) for arm, own in self.parts(values)), self.beside)

    def log_likelihood(self, values: dict):
        """The sum over all."""
        of_arms = sum(arm.log_likelihood(own) for arm, own in self.parts(values))
        return of_arms + sum(one.log_likelihood(values) for one in self.beside)

    def information(self, values_at, z):
        """The sum over all."""
        of_arms = sum(
            arm.information(lambda z, k=k: arm_values(values_at(z), k), z) for k, arm in enumerate(self.arms, start=1)
        )
        return of_arms + sum(one.information(values_at, z) for one in self.beside)

    def declare(self, values: dict, observe: bool = True, site: str = "flux") -> None:
        """The sites `flux_1`, `flux_2`, … of the arms, and those of the others under their own names."""
        for k, (arm, own) in enumerate(self.parts(values), start=1):
            arm.declare(own, observe, f"{site}_{k}")
        for one in self.beside:
            one.declare(values, observe)

    def with_emulators(self, emulators: tuple) -> "JointLikelihood":
        """With a full emulator on each arm's grid, and no surrogates of the others."""
        arms = tuple(arm.with_emulators((one,)) for arm, one in zip(self.arms, emulators, strict=True))
        return JointLikelihood(arms, tuple(one.full() for one in self.beside))

    def localised(self, surrogates: tuple) -> "JointLikelihood":
        """With a surrogate of the star for each arm, behind which come the others with theirs (`LabelLikelihood.surrogate`)."""
        n = len(self.arms)
        arms = tuple(arm.localised((one,)) for arm, one in zip(self.arms, surrogates[:n], strict=True))
        return JointLikelihood(arms, surrogates[n:])

    def with_model_variance(self, values: dict) -> "JointLikelihood":
        """As each arm's."""
        return self.mapped(lambda arm, own: arm.with_model_variance(own), values)

    def with_weights(self, values: dict) -> "JointLikelihood":
        """As each arm's."""
        return self.mapped(lambda arm, own: arm.with_weights(own), values)

    def with_model_errors(self, values: dict) -> "JointLikelihood":
        """As each arm's."""
        return self.mapped(lambda arm, own: arm.with_model_errors(own), values)

    def compressed(self, values: dict) -> "JointLikelihood":
        """Of the compressed arms."""
        return self.mapped(lambda arm, own: arm.compressed(own), values)


class JointModel(SpectrumModel):
    """A NumPyro model of one star seen in several arms or exposures, and in whatever else is known of it.

    Labels, velocity and broadening are common. Each arm has its continuum, its jitter `log10_jitter_k`, its line spread
    function, its outlier weights and, but for the first, an offset `rv_offset_k` (km/s) added to the velocity; arms count
    from 1. The log likelihood is the sum of those of the arms. Use it where a `StellarModel` goes: `sample`,
    `cramer_rao`, `numpyro.infer.MCMC`.

    An error of the model's lines or of the emulator is the same in all arms that see a line, and does not average out over
    them: there the model's variance is multiplied by the information of all arms over that of the one, so that together
    they know 1 / (1/S + m) for a model variance m and the data's information S (inverse variance per ångström). Errors of
    the emulator at different wavelengths count as independent between arms, not within an arm.

    **Arguments:**

    - `arms`: `StellarModel` objects with equal labels and broadening; resolution, continuum terms, line errors and noise
      may differ, and so may the emulators. Among them models without spectra, `XPModel` and `ParallaxModel`: their labels are those
      of the spectra where the names are the same, within the bounds of all; `alpha_m` is the mean of the abundances of α
      elements; their extinction `a_k` is one; and the scales of their labels may differ by `scale_errors`.
    - `priors`: as for `StellarModel`, with the names above. Default: labels, velocity and broadening have those of the
      first arm, each jitter that of its arm, and an offset is normal with a standard deviation of 5 km/s. A number fixes:
      `{"rv_offset_2": 0.0}`.

    What Gaia knows of the star belongs to one of the arms, `StellarModel(…, gaia=…)`, and counts once.

    `JointModel.of(emulator, observations, …)` makes the arms too, and searches their velocity in all of them at once,
    which a noisy arm needs.

    **Raises:** `ObservationError` without arms, `LabelError` on arms that differ and on priors without a parameter.
    """

    likelihood: JointLikelihood

    @public
    def __init__(self, arms, *, priors=None):
        models = tuple(arms)
        self.arms = self.spectra = tuple(m for m in models if isinstance(m, StellarModel))
        self.beside = tuple(m for m in models if not isinstance(m, StellarModel))
        _check_arms(self.arms, self.beside)
        first = models[0] if not self.arms else self.arms[0]
        self.broadening, self.rv_guess, self.peaks = first.broadening, first.rv_guess, first.peaks
        self.label_space = first.label_space
        for model in self.beside:
            self.label_space = common_space(self.label_space, model.label_space)
        self._set_priors(dict(priors or {}))
        shares = _shares(self.arms)
        others = [one for model in (*self.arms, *self.beside) for one in model.likelihood.others]
        _check_others(others)
        self.notes = tuple(note for model in models for note in model.notes)
        if self.arms or len(self.beside) > 1:
            others = [one.beside_spectra() for one in others]
        alone = [dataclasses.replace(arm.likelihood, beside=()) for arm in self.arms]
        spectra = tuple(_with_share(one, s) for one, s in zip(alone, shares))
        self.likelihood = JointLikelihood(spectra, tuple(others))

    @classmethod
    def of(
        cls,
        emulator,
        observations,
        *,
        priors=None,
        broadening="vbroad",
        rv_range=RV_RANGE,
        continuum_terms=None,
        line_errors="shipped",
        emulator_error="shipped",
        robust=True,
        degrees_of_freedom=4.0,
        correlation=None,
        gaia=None,
        progress=True,
    ) -> "JointModel":
        """The star of `observations`, an `Observation` per arm; the other arguments are those of `StellarModel`."""
        observations = tuple(observations)
        if not observations:
            raise ObservationError("A JointModel needs one observation or more; got none.")
        own = {n: p for n, p in (priors or {}).items() if n.startswith(OWN)}
        options = {
            "priors": {n: p for n, p in (priors or {}).items() if n not in own},
            "broadening": broadening,
            "continuum_terms": continuum_terms,
            "line_errors": line_errors,
            "emulator_error": emulator_error,
            "robust": robust,
            "degrees_of_freedom": degrees_of_freedom,
            "correlation": correlation,
            "progress": progress,
        }
        extinction = options["priors"].pop("a_k", None) if gaia is not None else None

        def make(k, searched=rv_range):
            if k or gaia is None:
                return StellarModel(emulator, observations[k], rv_range=searched, **options)
            known = {**options["priors"], **({} if extinction is None else {"a_k": extinction})}
            return StellarModel(emulator, observations[k], rv_range=searched, gaia=gaia, **{**options, "priors": known})

        arms = [make(k) for k in range(len(observations))]
        if len(arms) > 1 and not isinstance(options["priors"].get("rv"), int | float):
            peaks = common_peaks([arm.correlation_pair() for arm in arms], rv_range)
            if peaks.significant:
                near = max(peaks.best - RV_HALF_WIDTH, min(rv_range)), min(peaks.best + RV_HALF_WIDTH, max(rv_range))
                agrees = lambda arm: arm.peaks.significant and abs(arm.rv_guess - peaks.best) < 2
                arms = [arm if agrees(arm) else make(k, near) for k, arm in enumerate(arms)]
            model = cls(arms, priors=own)
            model.peaks = peaks
            return model
        return cls(arms, priors=own)

    def _set_priors(self, given):
        import numpyro.distributions as dist

        first = self.arms[0].nuisance_priors if self.arms else {}
        nuisance = {n: p for n, p in first.items() if n != "log10_jitter"}
        for k, arm in enumerate(self.arms, start=1):
            if k > 1:
                nuisance[f"rv_offset_{k}"] = dist.Normal(0.0, OFFSET_SD)
            nuisance[f"log10_jitter_{k}"] = arm.nuisance_priors["log10_jitter"]
        for model in self.beside:
            nuisance |= {n: p for n, p in model.nuisance_priors.items() if n not in nuisance}
        for arm in self.arms[1:]:
            nuisance |= {n: p for n, p in arm.nuisance_priors.items() if n == "a_k" and n not in nuisance}
        for name in nuisance:
            if name in given:
                nuisance[name] = checked_prior(name, given.pop(name))
        names = (*OWN, *NUISANCE_UNITS)
        if unknown := sorted(n for n in given if n.startswith(names)):
            raise LabelError(
                f"There is no parameter {', '.join(unknown)}. Besides labels there are: {', '.join(nuisance)}."
            )
        overridden = label_priors(self.label_space, given)
        inherited = _inherited((*self.arms[:1], *self.beside), self.label_space)
        self.priors = {n: p if n in given else inherited.get(n, p) for n, p in overridden.items()}
        self.nuisance_priors = nuisance

    @property
    def units(self) -> dict[str, str]:
        """Units of all parameters."""
        nuisance = {
            n: NUISANCE_UNITS.get(n, "km / s" if n.startswith("rv_offset") else "") for n in self.nuisance_priors
        }
        for model in self.beside:
            nuisance |= {n: model.units[n] for n in model.nuisance_priors}
        return {**dict(zip(self.label_space.names, self.label_space.units)), **nuisance}

    @public
    def full_on_grid(self) -> tuple:
        """The full emulator on each arm's grid."""
        return tuple(arm.full_on_grid()[0] for arm in self.arms)

    def first_guesses(self, name: str) -> tuple[float, ...]:
        """Values of a nuisance parameter that a search may start from."""
        if name.startswith("rv_offset"):
            arm = self.arms[int(name.rsplit("_", 1)[1]) - 1]
            return (float(np.clip(arm.rv_guess - self.rv_guess, -2 * OFFSET_SD, 2 * OFFSET_SD)),)
        for model in self.beside:
            if name in model.nuisance_priors:
                return model.first_guesses(name)
        if name == "a_k":
            return next(arm for arm in self.arms if arm.gaia is not None).first_guesses(name)
        return self.arms[0].first_guesses("log10_jitter" if name.startswith("log10_jitter") else name)


def _inherited(models, space) -> dict:
    """The priors that the labels of `space` have in the models, those of the first that has one; but where it is flat over all of
    its own domain, it is left out."""
    found: dict = {}
    for model in models:
        whole = label_priors(model.label_space)
        for name, prior in model.priors.items():
            if name in space.names and described_prior(prior) != described_prior(whole[name]):
                found.setdefault(name, prior)
    return found


def _check_arms(arms, beside):
    if not arms and not beside:
        raise ObservationError("A JointModel needs one arm or more; got none.")
    for model in beside:
        if not isinstance(model, SpectrumModel) or model.spectra:
            raise ObservationError(
                f"A JointModel is made of StellarModel, XPModel and ParallaxModel objects; got {type(model).__name__}."
            )
    if any(arm.fits_resolution for arm in arms):
        raise LabelError(
            "resolution='fit' works for one spectrum: give the arms of a JointModel their resolving powers."
        )
    for k, arm in enumerate(arms[1:], start=2):
        if arm.label_space != arms[0].label_space:
            raise LabelError(
                f"Arm {k} has other labels or bounds than arm 1: the arms need emulators of one label space."
            )
        if arm.broadening != arms[0].broadening:
            raise LabelError(
                f"Arm {k} has broadening='{arm.broadening}', arm 1 '{arms[0].broadening}'. Give all arms one of "
                f"{', '.join(BROADENING)}."
            )


def _check_others(others):
    """Raise `ObservationError` where a parallax counts twice."""
    sites = [one.site for one in others]
    if sites.count("gaia") > 1 or {"gaia", "parallax"} <= set(sites):
        raise ObservationError(
            "The star's parallax is given twice: give gaia to one arm only, and no other parallax beside it."
        )


def _shares(arms) -> list[np.ndarray]:
    """Of each arm `(n_pix,)`: the information per ångström of all arms over its own, 1 where no other arm has pixels."""
    found = []
    for arm in arms:
        noise = arm.likelihood.noise
        relative = np.asarray(noise.variance, float) / np.maximum(np.asarray(noise.level, float), 1e-3) ** 2
        width = np.gradient(arm.wavelength)
        vacuum = convert_medium(arm.wavelength, arm.full.medium, "vacuum")
        rest = rest_wavelength(vacuum, arm.rv_guess)
        found.append((rest, 1.0 / (relative * width), np.asarray(noise.weight) > 0))
    return [
        1.0 + sum(_information_at(rest, *other) for j, other in enumerate(found) if j != i) / own
        for i, (rest, own, _) in enumerate(found)
    ]


def _information_at(rest, wavelength, information, good):
    return np.interp(rest, wavelength, np.where(good, information, 0.0), left=0.0, right=0.0)


def _with_share(likelihood, share):
    if np.all(share == 1.0):
        return likelihood
    return likelihood.with_noise(dataclasses.replace(likelihood.noise, share=jnp.asarray(share, jnp.float32)))
