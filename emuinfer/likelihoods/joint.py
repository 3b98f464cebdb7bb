"""`JointSpectrum`: several arms or exposures of one star in one likelihood."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..constants import SPEED_OF_LIGHT
from ..errors import LabelError, ObservationError
from ..observations.cross_correlation import common_rv
from ..wavelengths.medium import convert_medium
from .priors import BROADENING, checked_prior, domain_penalty, label_priors
from .stellar import NUISANCE_UNITS, StellarSpectrum

OFFSET_SD = 5.0  # km/s, of the default prior of an arm's velocity offset
OWN = ("log10_jitter", "rv_offset")  # parameters that each arm has for itself: `log10_jitter_1`, `rv_offset_2`, …


class JointData(eqx.Module):
    """The `StarData` (or, for samplers, the `CompressedStar`) of each arm."""

    arms: tuple

    @property
    def emulator(self) -> tuple:
        return tuple(arm.emulator for arm in self.arms)


class JointSpectrum:
    """A NumPyro model of one star seen in several arms or exposures.

    Labels, velocity and broadening are common. Each arm has its continuum, its jitter `log10_jitter_k`, its line spread
    function, its outlier weights and, but for the first, an offset `rv_offset_k` (km/s) added to the velocity; arms count
    from 1. The log likelihood is the sum of those of the arms. Use it where a `StellarSpectrum` goes: `sample`,
    `find_optimum`, `numpyro.infer.MCMC`.

    An error of the model's lines or of the emulator is the same in all arms that see a line, and does not average out over
    them: there the model's variance is multiplied by the information of all arms over that of the one, so that together
    they know 1 / (1/S + m) for a model variance m and the data's information S (inverse variance per ångström). Errors of
    the emulator at different wavelengths count as independent between arms, not within an arm.

    **Arguments:**

    - `arms`: `StellarSpectrum` objects with equal labels and broadening; resolution, continuum terms, line errors and noise
      may differ, and so may the emulators.
    - `priors`: as for `StellarSpectrum`, with the names above. Default: labels, velocity and broadening have those of the
      first arm, each jitter that of its arm, and an offset is normal with a standard deviation of 5 km/s. A number fixes:
      `{"rv_offset_2": 0.0}`.

    `JointSpectrum.of(emulator, observations, …)` makes the arms too, and searches their velocity in all of them at once,
    which a noisy arm needs.

    **Raises:** `ObservationError` without arms, `LabelError` on arms that differ and on priors without a parameter.
    """

    def __init__(self, arms, *, priors=None):
        self.arms = tuple(arms)
        _check_arms(self.arms)
        first = self.arms[0]
        self.label_space, self.broadening, self.rv_guess = first.label_space, first.broadening, first.rv_guess
        self._set_priors(dict(priors or {}))
        self.data = JointData(tuple(_with_share(arm.data, a) for arm, a in zip(self.arms, _shares(self.arms))))

    @classmethod
    def of(cls, emulator, observations, *, priors=None, rv_range=(-500.0, 500.0), **options):
        """The star of `observations`, an `Observation` per arm; `options` go to each `StellarSpectrum`."""
        observations = tuple(observations)
        if not observations:
            raise ObservationError("A JointSpectrum needs one observation or more; got none.")
        own = {n: p for n, p in (priors or {}).items() if n.startswith(OWN)}
        shared = {n: p for n, p in (priors or {}).items() if n not in own}
        make = lambda o, **more: StellarSpectrum(
            emulator, o, **{"priors": shared, "rv_range": rv_range, **options, **more}
        )
        arms = [make(o) for o in observations]
        if len(arms) > 1 and not isinstance(shared.get("rv"), int | float):
            guess = common_rv([arm.correlation_pair() for arm in arms], rv_range)
            near = max(guess - 20.0, min(rv_range)), min(guess + 20.0, max(rv_range))
            arms = [arm if abs(arm.rv_guess - guess) < 2 else make(arm.observation, rv_range=near) for arm in arms]
        return cls(arms, priors=own)

    def _set_priors(self, given):
        import numpyro.distributions as dist

        first = self.arms[0]
        nuisance = {n: p for n, p in first.nuisance_priors.items() if n != "log10_jitter"}
        for k, arm in enumerate(self.arms, start=1):
            if k > 1:
                nuisance[f"rv_offset_{k}"] = dist.Normal(0.0, OFFSET_SD)
            nuisance[f"log10_jitter_{k}"] = arm.nuisance_priors["log10_jitter"]
        for name in nuisance:
            if name in given:
                nuisance[name] = checked_prior(name, given.pop(name))
        names = (*OWN, *NUISANCE_UNITS)
        if unknown := sorted(n for n in given if n.startswith(names)):
            raise LabelError(
                f"There is no parameter {', '.join(unknown)}. Besides labels there are: {', '.join(nuisance)}."
            )
        overridden = label_priors(self.label_space, given)
        self.priors = {n: overridden[n] if n in given else p for n, p in first.priors.items()}
        self.nuisance_priors = nuisance

    @property
    def names(self) -> tuple[str, ...]:
        """Sampled parameters, labels first."""
        return tuple(n for n, p in {**self.priors, **self.nuisance_priors}.items() if not isinstance(p, float | int))

    @property
    def units(self) -> dict[str, str]:
        nuisance = {
            n: NUISANCE_UNITS.get(n, "km / s" if n.startswith("rv_offset") else "") for n in self.nuisance_priors
        }
        return {**dict(zip(self.label_space.names, self.label_space.units)), **nuisance}

    # The model

    def __call__(self, data: JointData | None = None):
        """Declare the model to NumPyro and return the values of all parameters. `data` defaults to this star's."""
        import numpyro

        data = self.data if data is None else data
        values = {}
        for name, prior in {**self.priors, **self.nuisance_priors}.items():
            values[name] = jnp.float32(prior) if isinstance(prior, float | int) else numpyro.sample(name, prior)
        for name, factor in self.factors(values, data).items():
            numpyro.factor(name, factor)
        return values

    def factors(self, values: dict, data) -> dict:
        """What the log density adds to that of the priors, by name: the soft wall of the domain, each arm's log likelihood."""
        arms = {
            f"spectrum_{k}": spectrum.log_likelihood(values_of(values), own)[0]
            for k, (spectrum, values_of, own) in enumerate(self.parts(data), start=1)
        }
        return {"domain": domain_penalty(self.label_space, self.arms[0].scaled_labels(values)), **arms}

    def log_likelihood(self, values: dict, data: JointData):
        """`(sum of the arms' log likelihoods, coefficients of the continuum per arm)`; see `StellarSpectrum`."""
        found = [spectrum.log_likelihood(values_of(values), own) for spectrum, values_of, own in self.parts(data)]
        return sum(value for value, _ in found), tuple(coefficients for _, coefficients in found)

    def arm_values(self, values: dict, k: int) -> dict:
        """The parameters of arm `k` (from 1) under the names of a `StellarSpectrum`; numbers or arrays."""
        common = {n: v for n, v in values.items() if not n.startswith(OWN)}
        rv = values["rv"] + values[f"rv_offset_{k}"] if k > 1 else values["rv"]
        return {**common, "rv": rv, "log10_jitter": values[f"log10_jitter_{k}"]}

    # What fits and checks need of it

    def parts(self, data: JointData) -> list:
        """`(spectrum, values_of, data)` of each arm: `values_of` turns the joint parameters, all of them, into the arm's."""
        return [
            (arm, lambda values, k=k: self.arm_values(values, k), own)
            for k, (arm, own) in enumerate(zip(self.arms, data.arms), start=1)
        ]

    def joined(self, parts) -> JointData:
        """The opposite of `parts`."""
        return JointData(tuple(parts))

    def complete(self, values: dict) -> dict:
        """`values` of the sampled parameters with the fixed ones added."""
        fixed = {n: p for n, p in {**self.priors, **self.nuisance_priors}.items() if isinstance(p, float | int)}
        return {**{k: jnp.float32(v) for k, v in fixed.items()}, **values}

    def full_on_grid(self) -> tuple:
        """The full emulator on each arm's grid."""
        return tuple(arm.full_on_grid() for arm in self.arms)

    def first_guesses(self, name: str) -> tuple[float, ...]:
        """Values of a nuisance parameter that a search may start from."""
        if name.startswith("rv_offset"):
            arm = self.arms[int(name.rsplit("_", 1)[1]) - 1]
            return (float(np.clip(arm.rv_guess - self.rv_guess, -2 * OFFSET_SD, 2 * OFFSET_SD)),)
        return self.arms[0].first_guesses("log10_jitter" if name.startswith("log10_jitter") else name)


def _check_arms(arms):
    if not arms:
        raise ObservationError("A JointSpectrum needs one arm or more; got none.")
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


def _shares(arms) -> list[np.ndarray]:
    """Of each arm `(n_pix,)`: the information per ångström of all arms over its own, 1 where no other arm has pixels."""
    found = []
    for arm in arms:
        relative = np.asarray(arm.data.variance, float) / np.maximum(np.asarray(arm.data.level, float), 1e-3) ** 2
        width = np.gradient(arm.wavelength)
        vacuum = convert_medium(arm.wavelength, arm.full.medium, "vacuum")
        rest = vacuum * (1 - arm.rv_guess / SPEED_OF_LIGHT)
        found.append((rest, 1.0 / (relative * width), np.asarray(arm.data.weight) > 0))
    return [
        1.0 + sum(np.interp(rest, *_used(other), left=0.0, right=0.0) for j, other in enumerate(found) if j != i) / own
        for i, (rest, own, _) in enumerate(found)
    ]


def _used(arm):
    wavelength, information, good = arm
    return wavelength, np.where(good, information, 0.0)


def _with_share(data, share):
    if np.all(share == 1.0):
        return data
    return eqx.tree_at(lambda d: d.share, data, jnp.asarray(share, jnp.float32), is_leaf=lambda x: x is None)
