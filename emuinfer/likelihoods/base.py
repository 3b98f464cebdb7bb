"""What all models of spectra have in common, and what they ask of a likelihood."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..entry import public
from ..labels import LabelSpace
from ..observations.peaks import VelocityPeaks
from .forward_model import scaled_labels
from .priors import domain_penalty


class Likelihood(eqx.Module):
    """How probable the data are at one value per parameter. A pytree: an argument of jitted functions, never closed over.

    Three kinds answer the same questions: of pixels with an emulator on a grid or with a star's own surrogate
    (`PixelLikelihood`), compressed to a few numbers (`CompressedLikelihood`), and of several spectra of one star
    (`JointLikelihood`).
    """

    @abc.abstractmethod
    def log_likelihood(self, values: dict) -> Float[Array, ""]:
        """Log likelihood, up to a constant of the data, at `values` of all parameters in their own units."""

    @abc.abstractmethod
    def information(self, values_at: Callable, z: Float[Array, " dim"]) -> Float[Array, "dim dim"]:
        """Fisher information on `z`, of which `values_at(z)` makes the values, with the continuum integrated out."""

    @abc.abstractmethod
    def declare(self, values: dict, observe: bool = True, site: str = "flux") -> None:
        """Tell NumPyro of the data: an observed site of pixels, or, where there are none, a factor."""


class SpectraLikelihood(Likelihood):
    """A likelihood that has the pixels still, of one spectrum or of several: on it a fit takes its steps.

    Every step gives a new likelihood; `values` maps all parameters to scalars in their own units.
    """

    @property
    @abc.abstractmethod
    def arms(self) -> tuple:
        """The `PixelLikelihood` of each spectrum; where samplers take it compressed, the `CompressedLikelihood`."""

    @property
    def others(self) -> tuple:
        """The `LabelLikelihood` of what else is known of the star."""
        return ()

    @abc.abstractmethod
    def parts(self, values: dict) -> list:
        """`[(arm, its values)]` of each spectrum."""

    @abc.abstractmethod
    def with_emulators(self, emulators: tuple):
        """With a full emulator on the grid (`full_on_grid`) for each spectrum in place of the surrogate."""

    @abc.abstractmethod
    def localised(self, surrogates: tuple):
        """With the star's own surrogate for each spectrum."""

    @abc.abstractmethod
    def with_model_variance(self, values: dict):
        """With the variance of the model's errors at `values`, without factors."""

    @abc.abstractmethod
    def with_weights(self, values: dict):
        """With the weights of outliers at `values`."""

    @abc.abstractmethod
    def with_model_errors(self, values: dict):
        """With the variance and the factors of the model's errors at `values`."""

    @abc.abstractmethod
    def compressed(self, values: dict) -> Likelihood:
        """Compressed around `values`; the forward models must be local."""


class LabelLikelihood(Likelihood):
    """A likelihood of numbers that depend on the labels alone: no pixels, no velocity, no continuum.

    `values` has all parameters of the star by name; each takes its own (`label_value`). `site` names it for NumPyro and ArviZ;
    `kinds`, which every subclass has, names its numbers.
    """

    site: ClassVar[str]

    @abc.abstractmethod
    def observed(self) -> Float[Array, " m"]:
        """The data as `simulated` gives them, NaN where there are none."""

    @abc.abstractmethod
    def simulated(self, values: dict, key) -> Float[Array, " m"]:
        """Data drawn from the model at `values`."""

    @abc.abstractmethod
    def chi2(self, values: dict) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Squared residuals over the variances, all covariances in account, and how many are free."""

    def surrogate(self, values: dict, moving: set, config, batch_size=None) -> "LabelLikelihood":
        """With a surrogate, good near `values` `(n,)`, of whatever is slow; `moving`: names of what is sampled. By default itself."""
        return self

    def full(self) -> "LabelLikelihood":
        """Without the surrogate."""
        return self

    def beside_spectra(self) -> "LabelLikelihood":
        """As one of several that share labels, whose scales may differ."""
        return self

    def declare(self, values: dict, observe: bool = True, site: str = "") -> None:
        """Tell NumPyro of the data: a factor, or, with `observe=False`, simulated data."""
        import numpyro

        if observe:
            numpyro.factor(self.site, self.log_likelihood(values))
        else:
            numpyro.deterministic(self.site, self.simulated(values, numpyro.prng_key()))


class SpectrumModel(abc.ABC):
    """A NumPyro model of one star: priors, and a likelihood. The base of `StellarModel`, `JointModel` and `XPModel`.

    **Attributes** that a subclass sets: `label_space`, `broadening`, `priors` and `nuisance_priors` (name to a NumPyro
    distribution, or to a number that fixes it), `likelihood` (a `Likelihood`), `spectra` (the `StellarModel` of each
    spectrum), `rv_guess` (km/s), `peaks` (what the cross-correlation found, None for a known velocity), `notes` (sentences on what was
    done with the data).
    """

    label_space: LabelSpace
    broadening: str
    priors: dict
    nuisance_priors: dict
    likelihood: SpectraLikelihood
    spectra: tuple
    rv_guess: float
    peaks: VelocityPeaks | None
    notes: tuple[str, ...] = ()

    @property
    @abc.abstractmethod
    def units(self) -> dict[str, str]:
        """Units of all parameters as strings that astropy understands."""

    @abc.abstractmethod
    def first_guesses(self, name: str) -> tuple[float, ...]:
        """Values of a nuisance parameter that a search may start from; 1, 2 or 4 of them."""

    @abc.abstractmethod
    def full_on_grid(self) -> tuple:
        """The full emulator on the reduced one's grid, for each spectrum."""

    @property
    def velocity_warnings(self) -> tuple[str, ...]:
        """What the user is to be told of the velocity that the cross-correlation found; see `VelocityPeaks`."""
        return self.peaks.warnings if self.peaks is not None else ()

    @property
    def all_priors(self) -> dict:
        """Priors of labels and nuisances, in this order."""
        return {**self.priors, **self.nuisance_priors}

    @property
    def fixed(self) -> dict[str, float]:
        """Values of the parameters that are not sampled."""
        return {n: float(p) for n, p in self.all_priors.items() if isinstance(p, float | int)}

    @property
    def names(self) -> tuple[str, ...]:
        """Sampled parameters, labels first."""
        return tuple(n for n in self.all_priors if n not in self.fixed)

    @public
    def complete(self, values: dict) -> dict:
        """`values` of the sampled parameters with the fixed ones added."""
        return {**{k: jnp.float32(v) for k, v in self.fixed.items()}, **values}

    def scaled_labels(self, values: dict) -> Float[Array, " n_labels"]:
        """Labels of `values` scaled to [-1, 1]."""
        return scaled_labels(self.label_space, values)

    def __call__(self, data: Likelihood | None = None, *, observe: bool = True) -> dict:
        """Declare the model to NumPyro and return the values of all parameters.

        **Arguments:**

        - `data`: a `Likelihood`; by default that of the model's own data.
        - `observe`: False leaves the pixels unobserved, as `numpyro.infer.Predictive` needs it to draw them:
          `Predictive(model, draws)(key, observe=False)["flux"]`, shape `(n, n_pix)`, in the unit of the data.
        """
        import numpyro

        data = self.likelihood if data is None else data
        values = {}
        for name, prior in self.all_priors.items():
            values[name] = jnp.float32(prior) if name in self.fixed else numpyro.sample(name, prior)
        numpyro.factor("domain", self.domain_wall(values))
        data.declare(values, observe)
        return values

    def domain_wall(self, values: dict) -> Float[Array, ""]:
        """Log of the soft wall around the emulator's domain."""
        return domain_penalty(self.label_space, self.scaled_labels(values))
