"""What the peaks of a cross-correlation say: how significant the velocity is, and whether there are two sets of lines.

Significance: the height of the peak over the noise of the curve, which is measured on the curve itself once the best template
is taken off the data, so that neither wrong uncertainties nor side lobes count. Noise alone reaches a height z somewhere in the
searched range with a probability of at most Q(z) + N exp(−z²/2), with N the number of upward crossings of zero that a Gaussian
process of the curve's smoothness makes (Davies 1977, Biometrika 64, 247; Gross & Vitells 2010, Eur. Phys. J. C 70, 525).

Two sets of lines: two templates at two velocities are fitted together, as in TODCOR (Zucker & Mazeh 1994, ApJ 420, 806), and
must gain more in chi² than one template, of whatever rotation.
"""

import dataclasses
import math

import numpy as np

from ..constants import RV_RANGE
from .cross_correlation import Correlation, Curve, common_peak

FALSE_ALARM = 1e-3  # probability above which noise explains a peak
COMPARABLE = 0.15  # strength of the second set of lines over the first's
SECOND = 6.5  # significance of a second set
SEPARATE = 0.2  # correlation of two templates above which they count as one
EDGE_KMS = 3.0  # from the end of the searched range
CLIP = 4.0  # robust standard deviations at which residuals are cut in the search for a second set


@dataclasses.dataclass(frozen=True)
class VelocityPeaks:
    """The peaks of a cross-correlation.

    - `best`: km/s, of the highest. `significance`: its height in standard deviations of the curve's noise.
    - `false_alarm`: the probability that noise alone makes such a peak somewhere in the searched range.
    - `second`: km/s, of a second set of lines (nan: there is no candidate). `ratio`: strength of its lines over the first's.
      `second_significance`: square root of the gain in chi², over one template of any rotation, in units of the curve's noise.
    - `at_edge`: the highest lies at the end of `rv_range`.
    """

    best: float
    significance: float
    false_alarm: float
    second: float
    ratio: float
    second_significance: float
    at_edge: bool
    rv_range: tuple[float, float]

    @property
    def significant(self) -> bool:
        """Whether noise does not explain the velocity."""
        return self.false_alarm < FALSE_ALARM

    @property
    def binary(self) -> bool:
        """Whether there is a second, comparable set of lines."""
        return self.significant and self.second_significance > SECOND and self.ratio > COMPARABLE

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the flags of results (`emuinfer.survey.FLAGS`) that they raise."""
        raised = {"no_velocity": not self.significant, "second_spectrum": self.binary, "velocity": self.at_edge}
        return tuple(name for name, is_raised in raised.items() if is_raised)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user; none where all is well."""
        said = []
        low, high = self.rv_range
        if not self.significant:
            said.append(
                f"The velocity is not significant: noise explains the peak at {self.best:.1f} km/s "
                f"({self.significance:.1f} standard deviations; such a peak has a probability of {self.false_alarm:.2g} "
                "without any line). Velocity and labels may be meaningless, and the posterior may hold only one of many such peaks."
            )
        if self.binary:
            said.append(
                f"There are two sets of lines, at {self.best:.1f} and {self.second:.1f} km/s, the second with {self.ratio:.2f} of "
                "the first's strength: a binary? One star is fitted."
            )
        if self.at_edge:
            said.append(
                f"The velocity {self.best:.1f} km/s lies at the end of the searched range, {low:g} to {high:g} km/s: the true one "
                "may be beyond. Widen it: rv_range=(low, high), --rv-range LOW HIGH."
            )
        return tuple(said)


def velocity_peaks(observation, template_wavelength, template_flux, rv_range=RV_RANGE) -> VelocityPeaks:
    """The peaks of the cross-correlation of a spectrum with a template; arguments and errors of `cross_correlation_rv`."""
    return peaks_of(Correlation(observation, template_wavelength, template_flux, rv_range))


def common_peaks(pairs, rv_range=RV_RANGE) -> VelocityPeaks:
    """As `velocity_peaks`, of the velocity that several spectra of a star share best.

    `pairs`: for each, `(observation, template_wavelength, template_flux)`. Heights over the noise are combined with the weights
    that lines of one strength would give them; the second set of lines is that of the spectrum that shows it best.
    """
    pairs = list(pairs)
    if len(pairs) == 1:
        ((observation, wavelength, flux),) = pairs
        return velocity_peaks(observation, wavelength, flux, rv_range)
    correlations = [Correlation(o, wavelength, flux, rv_range) for o, wavelength, flux in pairs]
    curves = [correlation.curves() for correlation in correlations]
    tops = [max(found, key=lambda curve: curve.highest) for found in curves]
    snr = [observation.snr for observation, _, _ in pairs]
    best, heights, trials = common_peak(snr, tops), [], []
    for correlation, found, top in zip(correlations, curves, tops):
        z, _ = _significance(correlation, top)
        at = float(np.interp(best, top.velocity, top.score))
        heights.append(z * at / top.highest if top.highest > 0 else 0.0)
        trials.append(len(correlation.templates) * sum(_significance(correlation, curve)[1] for curve in found))
    weights = [ratio * math.sqrt(top.variance.max()) for ratio, top in zip(snr, tops)]
    own = [peaks_of(correlation, found) for correlation, found in zip(correlations, curves)]
    share = np.array(weights) / np.linalg.norm(weights)
    z = float(share @ np.array(heights))
    clearest = max(own, key=lambda peaks: peaks.second_significance)
    return dataclasses.replace(
        clearest,
        best=best,
        significance=z,
        false_alarm=_false_alarm(z, float(share**2 @ np.array(trials))),
        at_edge=_at_edge(best, clearest.rv_range),
    )


def peaks_of(correlation: Correlation, curves: list[Curve] | None = None) -> VelocityPeaks:
    """The peaks of a prepared correlation; `curves`: its `curves()`, if they are known."""
    curves = correlation.curves() if curves is None else curves
    top = max(curves, key=lambda curve: curve.highest)
    best, (z, crossings) = top.peak(), _significance(correlation, top)
    trials = sum(_significance(correlation, c)[1] for c in curves) if z < 8 else crossings
    first, second, ratio, strength = _second(correlation, curves, top)
    trials *= len(correlation.templates)
    false_alarm, at_edge = _false_alarm(z, trials), _at_edge(best, correlation.limits)
    found = VelocityPeaks(best, z, false_alarm, second, ratio, strength, at_edge, correlation.limits)
    # Where two sets of lines blend, the highest peak may be that of one rotating star between the two.
    return dataclasses.replace(found, best=first) if found.binary else found


def _false_alarm(z: float, crossings: float) -> float:
    return min(1.0, 0.5 * math.erfc(z / math.sqrt(2)) + crossings * math.exp(-0.5 * z * z))


def _at_edge(velocity: float, limits) -> bool:
    low, high = limits
    return bool(min(velocity - low, high - velocity) < min(EDGE_KMS, 0.05 * (high - low)))


def _significance(correlation, curve: Curve):
    """Height of the peak over the noise of the curve without it, and crossings of zero of such noise in the range."""
    noise, slope = _noise(correlation, curve, [curve.best])
    searched = curve.velocity[curve.searched]
    return curve.highest / noise, float(np.ptp(searched)) * slope / noise / (2 * np.pi)


def _noise(correlation, curve: Curve, peaks):
    """Robust standard deviations of the curve and of its slope per km/s, once the templates at `peaks` are taken off."""
    residual = correlation.depth - _fitted(correlation, curve, peaks)
    score = _scores(correlation, curve, residual)
    valid = curve.variance > 0.2 * curve.variance.max()
    return _scatter(score[valid]), max(_scatter(np.diff(score[valid])), 1e-30) / curve.step


def _scores(correlation, curve, data):
    from scipy.fft import rfft

    found = correlation.score_of(rfft(correlation.weight * data, correlation.n), curve.template)
    return found / np.sqrt(np.maximum(curve.variance, 0.2 * curve.variance.max()))


def _scatter(x) -> float:
    return max(1.4826 * float(np.median(np.abs(x))), 1e-30)


def _fitted(correlation, curve, peaks):
    """The templates at the indices `peaks` with the strengths that fit the data best."""
    rows = np.stack([correlation.moved(curve.template, curve.shifts[i]) for i in peaks])
    weighted = rows * correlation.weight
    strength = np.linalg.lstsq(weighted @ rows.T, weighted @ correlation.depth, rcond=None)[0]
    return strength @ rows


def _second(correlation, curves, top):
    """`(first velocity, second velocity, ratio, significance)` of two sets of lines."""
    nothing = (math.nan, math.nan, 0.0, 0.0)
    residual = correlation.depth - _fitted(correlation, top, [top.best])
    limit = CLIP * _scatter(residual[correlation.weight > 0])
    # Lines that the template has too weak or too strong would imitate others at the distances between lines.
    data = correlation.depth - residual + np.clip(residual, -limit, limit)
    one, pairs = 0.0, []
    for curve in curves:
        pair = _pair(correlation, curve, data)
        one = max(one, pair[0])
        pairs.append((*pair, curve))
    _, gain, first, second, ratio, curve = max(pairs, key=lambda pair: pair[1])
    if gain <= one or second is None:
        return nothing
    noise, _ = _noise(correlation, curve, [first, second])
    if ratio > 1:
        first, second, ratio = second, first, 1 / ratio
    return curve.peak(first), curve.peak(second), float(ratio), math.sqrt(gain - one) / noise


def _pair(correlation, curve, data):
    """Gains in chi² of one template and of two, the indices of the two, and the ratio of their strengths."""
    from scipy.fft import rfft

    cross = _scores(correlation, curve, data)
    first = int(np.argmax(np.where(curve.searched, cross, -np.inf)))
    alone = max(cross[first], 0.0) ** 2
    gain, second, ratio = alone, None, 0.0
    fixed = first
    for _ in range(2):  # the second with the first held, then the first again with the second held
        rows = correlation.weight * correlation.moved(curve.template, curve.shifts[fixed])
        rho = correlation.score_of(rfft(rows, correlation.n), curve.template)
        rho = rho / np.sqrt(np.maximum(curve.variance, 0.2 * curve.variance.max()) * curve.variance[fixed])
        left = cross - rho * cross[fixed]
        score = np.where(
            curve.searched & (rho < SEPARATE) & (left > 0), left / np.sqrt(np.maximum(1 - rho**2, 0.1)), 0.0
        )
        other = int(np.argmax(score))
        if not score[other] > 0:
            return alone, alone, first, None, 0.0
        # Strengths relative to the norms of the templates, which differ little.
        b = (cross[other] - rho[other] * cross[fixed]) / (1 - rho[other] ** 2) / np.sqrt(curve.variance[other])
        a = (cross[fixed] - rho[other] * cross[other]) / (1 - rho[other] ** 2) / np.sqrt(curve.variance[fixed])
        gain, pair = cross[fixed] ** 2 + score[other] ** 2, (fixed, other, b / a if a > 0 else np.inf)
        fixed = other
    first, second, ratio = pair
    if not 0 < ratio < np.inf:
        return alone, alone, first, None, 0.0
    return alone, gain, first, second, ratio
