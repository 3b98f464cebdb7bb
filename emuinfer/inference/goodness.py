"""The verdict on a fit: whether one star's spectrum describes the data, in numbers and in words. NumPy."""

import dataclasses

import numpy as np

from .misfit import Spectrum, statistics_of, steps_of

VERDICTS = ("good", "doubtful", "poor")
POOR = 2.0  # times its threshold, a statistic makes a fit poor
# What a statistic may be in a fit that is good. Chosen on the first half of the mock stars of `tests/benchmarks/goodness.py`
# and on the real stars there, so that none of these alarms; its results quote the rates of the second half.
THRESHOLDS = {
    "jitter": 0.5,  # fitted jitter over noise and the model's errors of a typical pixel
    "outliers": 0.04,  # share of the pixels that count less than half
    "correlated": 5.5,  # chi² of residuals averaged over a line's width
    "second_spectrum": 4.5,  # correlation with the star's lines at other velocities, over its scatter
    "emission": 0.02,  # share of the pixels that stand above the continuum over a line's width
    "lines": 50.0,  # the least gain in chi² by lines over none
}
LEAST = ("lines",)  # these are to be above their thresholds
ROTATION, SIGNIFICANT = 0.2, 3.0  # amplitude of a rotation profile in place of the Gaussian, and standard deviations
NO_BROADENING = 1.0  # km/s: hardly a star has less macroturbulence (Doyle et al. 2014, MNRAS 444, 3592)
UNLIKELY = 1e-3  # chance of a larger chi² of numbers that are no spectrum, below which it alarms
SIMULATED = 40  # spectra behind a p-value

TOO_LOW = (
    "Stars have macroturbulence, so the stated resolving power is probably too low, and the labels are wrong by that. Give "
    "the right one (--resolution), or let it be fitted (resolution='fit', --resolution fit)."
)
ROTATES = "The lines have the shape of a rotating star's rather than a Gaussian: fit with broadening='vsini' (--broadening vsini)."


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A number, the `threshold` beyond which it alarms, and the share `p` of spectra simulated from the model of the star and of
    the noise that have it as extreme (None: not simulated)."""

    value: float
    threshold: float
    p: float | None = None
    least: bool = False  # whether it must be above its threshold and not below

    @property
    def excess(self) -> float:
        """How many times beyond its threshold it is; an alarm above 1."""
        if not np.isfinite(self.value):
            return np.inf
        return self.threshold / max(self.value, 1e-9) if self.least else self.value / self.threshold


@dataclasses.dataclass(frozen=True)
class Goodness:
    """A `verdict` (`"good"`, `"doubtful"`, `"poor"`), the `statistics` behind it by name, and `messages` in plain words."""

    verdict: str
    statistics: dict[str, Statistic]
    messages: tuple[str, ...] = ()
    narrow: bool = False  # the broadening goes to zero
    rotating: bool = False  # lines have the shape of a rotating star's, but were fitted with a Gaussian

    @property
    def lineless(self) -> bool:
        """Whether the spectrum shows no lines."""
        return "lines" in self.statistics and self.statistics["lines"].excess > 1

    @property
    def alarms(self) -> tuple[str, ...]:
        """Names of the statistics beyond their thresholds."""
        return tuple(name for name, one in self.statistics.items() if one.excess > 1)

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the flags of results (`emuinfer.survey.FLAGS`) that it raises."""
        raised = {
            "poor_fit": self.verdict == "poor",
            "doubtful_fit": self.verdict == "doubtful",
            "second_spectrum": "second_spectrum" in self.alarms and not self.lineless,
            "emission": "emission" in self.alarms,
            "no_lines": self.lineless,
            "resolution": self.narrow,
            "rotation": self.rotating,
        }
        return tuple(name for name, is_raised in raised.items() if is_raised)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.verdict == "good":
            return "The fit is good: the residuals are like those of single stars that the model describes."
        return f"The fit is {self.verdict}: the data are not described by the spectrum of a single star of this model."

    @property
    def attrs(self) -> dict:
        """What a posterior keeps of it."""
        numbers = {k: {"value": s.value, "threshold": s.threshold, "p": s.p} for k, s in self.statistics.items()}
        return {"goodness": self.verdict, "goodness_message": self.sentence, "goodness_statistics": numbers}

    def with_numbers(self, numbers: dict[str, tuple[float, float]]) -> "Goodness":
        """With the chi² of data that are no spectra: names to `(chi², how many numbers are free)`."""
        from scipy.stats import chi2

        statistics, messages = dict(self.statistics), list(self.messages)
        for name, (value, free) in numbers.items():
            free = max(free, 1.0)
            one = Statistic(value, float(chi2.isf(UNLIKELY, free)), float(chi2.sf(value, free)))
            statistics[f"chi2_{name}"] = one
            if one.excess > 1:
                messages.append(
                    f"The model does not describe {name}: chi² = {value:.0f} for {free:.0f} numbers (p = {one.p:.1g})."
                )
        new = [statistics[f"chi2_{n}"].excess for n in numbers]
        verdict = (
            max(self.verdict, *(verdict_of(excess) for excess in new), key=VERDICTS.index) if new else self.verdict
        )
        return dataclasses.replace(self, verdict=verdict, statistics=statistics, messages=tuple(messages))

    def with_broadening(self, vbroad) -> "Goodness":
        """With a sentence where draws of the broadening go to zero; `vbroad` km/s, of any shape, or None."""
        if vbroad is None or self.lineless or not at_zero(vbroad):
            return self
        text = f"The broadening goes to zero (84 % of the draws below {np.quantile(vbroad, 0.84):.2f} km/s). {TOO_LOW}"
        return dataclasses.replace(self, narrow=True, messages=(*self.messages, text))


def verdict_of(excess: float) -> str:
    """The verdict where a statistic is `excess` times its threshold."""
    return VERDICTS[0 if excess <= 1 else 1 if excess <= POOR else 2]


def at_zero(vbroad):
    """Whether draws `(…, n)` of the broadening, km/s, go to zero; `(…,)`."""
    return np.quantile(vbroad, 0.84, axis=-1) < NO_BROADENING


def judge(wavelength, residuals, *, simulate: int = 0, seed: int = 0) -> Goodness:
    """The verdict on one spectrum from its `Residuals`; `wavelength` `(n_pix,)` Å.

    `simulate`: spectra to be simulated for p-values, 0 for none.
    """
    spectrum = Spectrum(wavelength, residuals)
    found = statistics_of(spectrum)
    p = _p_values(spectrum, found, simulate, seed) if simulate else {}
    statistics = {k: Statistic(found[k], limit, p.get(k), k in LEAST) for k, limit in THRESHOLDS.items()}
    # A jitter alone is noise that was stated too low, which the fit takes care of: doubtful at most.
    worst = max(min(one.excess, POOR) if name == "jitter" else one.excess for name, one in statistics.items())
    verdict = verdict_of(worst)
    lines = found["lines"] >= THRESHOLDS["lines"]
    alike = statistics["second_spectrum"].excess <= 1  # two stars look like one that rotates
    rotating = bool(lines and alike and found["rotation"] > ROTATION and found["rotation_z"] > SIGNIFICANT)
    one = Goodness(verdict, statistics, (), rotating=rotating)
    messages = (*_alarms(one, found), *([ROTATES] if rotating else []), *(_steps(spectrum) if lines else []))
    return dataclasses.replace(one, messages=messages)


def together(parts) -> Goodness:
    """The verdict on a star with several spectra: the worst of them, `parts` `[(name, Goodness)]`; good where there are none."""
    parts = list(parts)
    if not parts:
        return Goodness(VERDICTS[0], {})
    if len(parts) == 1:
        return parts[0][1]
    worst = lambda name: max((one.statistics[name] for _, one in parts), key=lambda s: s.excess)
    statistics = {name: worst(name) for name in parts[0][1].statistics}
    verdict = max((one.verdict for _, one in parts), key=VERDICTS.index)
    return Goodness(
        verdict,
        statistics,
        tuple(f"{name}: {text}" for name, one in parts for text in one.messages),
        rotating=any(one.rotating for _, one in parts),
    )


def _p_values(spectrum, found, count, seed) -> dict[str, float]:
    """Shares of simulated residuals whose statistics are as large as those found."""
    rng = np.random.default_rng([seed, 17])
    names = ("correlated", "second_spectrum", "emission")
    larger = dict.fromkeys(names, 0)
    for _ in range(count):
        one = statistics_of(spectrum.simulated(rng))
        for name in names:
            larger[name] += one[name] >= found[name]
    return {name: (1 + n) / (1 + count) for name, n in larger.items()}


def _alarms(one: Goodness, found: dict) -> list[str]:
    """A sentence for each statistic beyond its threshold, the one that says most first."""
    alarms = one.alarms
    if not alarms:
        return []
    if "lines" in alarms and "emission" not in alarms:
        return [
            f"{one.sentence} It shows no lines: lines gain {found['lines']:.0f} in chi² over a continuum without any "
            f"(at least {THRESHOLDS['lines']:.0f} are to be expected). Neither labels nor velocity mean anything."
        ]
    said = []
    if "emission" in alarms:
        said.append(
            f"{100 * found['emission']:.1f} % of the pixels stand above the continuum over a line's width: emission"
        )
    if "second_spectrum" in alarms:
        said.append(
            f"the residuals show the star's lines again at {found['second_kms']:+.0f} km/s, about "
            f"{100 * max(found['second_share'], 0.0):.0f} % as deep: a second star"
        )
    if "correlated" in alarms:
        said.append(f"chi² of the residuals over a line's width is {found['correlated']:.1f} per pixel")
    if "outliers" in alarms:
        said.append(f"{100 * found['outliers']:.1f} % of the pixels are taken for outliers")
    if "jitter" in alarms:
        said.append(f"the fitted jitter is {found['jitter']:.2f} of noise and model errors")
    return [
        f"{one.sentence} {_sentence('; '.join(said))} A binary, emission, a wrong resolving power, too small uncertainties or "
        "an object of another kind misfit so. Look at the residuals, and do not trust the labels."
    ]


def _steps(spectrum: Spectrum) -> list[str]:
    """A sentence where the continuum steps."""
    if not (steps := steps_of(spectrum)):
        return []
    listed = ", ".join(f"{at:.1f} Å ({100 * size:+.0f} %)" for at, size in steps)
    return [
        f"The continuum steps at {listed}, as where orders were joined. A smooth continuum cannot follow: give the parts on both "
        "sides as spectra of their own (JointModel, --together), which have continua of their own."
    ]


def _sentence(text):
    return f"{text[0].upper()}{text[1:]}."
