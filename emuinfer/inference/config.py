"""How much is spent on a fit: one set of numbers for one star, for surveys and for the test of their coverage."""

import dataclasses

from ..errors import SamplingError

LEAST = {
    "chains": 1,
    "warmup": 1,
    "draws": 1,
    "test": 1,
    "components": 1,
    "verify": 0,
    "predictive": 0,
    "pointwise": 0,
    "at_once": 1,
}


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Numbers of a fit, the same for `sample`, `fit_many` and `check_coverage`.

    - `chains`, `warmup`, `draws`: chains per star; steps per chain.
    - `local`, `test`, `components`: spectra of the full emulator behind a star's local surrogate, how many of them only
      measure its error, and its principal components.
    - `verify`: draws checked against the full emulator over all pixels; 0 skips it.
    - `predictive`: draws whose model flux and simulated flux are kept as posterior predictive; 0 keeps none.
    - `pointwise`: draws whose log likelihood per pixel is kept, for `arviz.loo`; 0 keeps none.
    - `at_once`: stars whose spectra are computed together in a survey: 1 on a CPU, tens on a GPU with memory for them.

    **Raises:** `SamplingError` on numbers that are not whole or too small.
    """

    chains: int = 4
    warmup: int = 300
    draws: int = 500
    local: int = 360
    test: int = 40
    components: int = 16
    verify: int = 200
    predictive: int = 64
    pointwise: int = 200
    at_once: int = 1

    def __post_init__(self):
        for name, least in {**LEAST, "local": self.test + 8}.items():
            value = getattr(self, name)
            if not (isinstance(value, int) and not isinstance(value, bool) and value >= least):
                raise SamplingError(
                    f"{name} = {value!r} of a SamplingConfig must be a whole number of {least} or more."
                )

    def with_given(self, **numbers) -> "SamplingConfig":
        """The same with those of `numbers` that are not None."""
        return dataclasses.replace(self, **{k: v for k, v in numbers.items() if v is not None})


STAR = SamplingConfig()
SURVEY = SamplingConfig(warmup=150, local=240, verify=64, predictive=0, pointwise=0)
