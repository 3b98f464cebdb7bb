"""The conventions of the published bounds, and what can be compared. `python -m tests.benchmarks.bounds_conventions`

Ting et al. 2017 (ApJ 843, 32) and Sandford et al. 2020 (ApJS 249, 24): S/N per pixel at the continuum, the same noise in the
lines; velocity, broadening and continuum known; gradients from symmetric differences of ± 50 K, 0.1 dex in log g, 0.1 km/s
and 0.05 dex; marginal bounds. Their instruments reach far beyond 5100–5300 Å, so that no bound of theirs can be compared as
it stands. Compared are: what their steps do to the bounds; what knowing the nuisances does; how posterior widths of Sandford
et al. (their HMC samples for DEIMOS 1200G, a giant of log Z = −1.5) fall with S/N under their priors; and whether, as Ting et
al. say, precision depends little on resolving power at a fixed exposure and number of detector pixels.
Writes `results/bounds_conventions.json` and `.md`.
"""

import json
from pathlib import Path

import numpy as np
import numpyro.distributions as dist

import emuinfer as ei
from emuinfer.forecast import Exposure, Forecast, Instrument, best_window, cramer_rao
from emuinfer.labels.space import solar_labels

from .bounds_synthesis import of_synthesis

RESULTS = Path(__file__).parent / "results"
KNOWN = {"broadening": "none", "continuum_terms": 0, "emulator_error": None}
# Standard deviations of the HMC samples that come with Sandford et al. 2020 (notebooks, appendix E of the paper), by S/N
PUBLISHED = {
    "teff": {30: 30.2, 50: 20.1, 100: 11.0, 200: 5.74}, "logg": {30: 0.114, 50: 0.0946, 100: 0.0578, 200: 0.0307},
    "vmic": {30: 0.125, 50: 0.0812, 100: 0.0398, 200: 0.0200}, "fe_h": {30: 0.0420, 50: 0.0266, 100: 0.0138, 200: 0.0070},
    "ca": {30: 0.0404, 50: 0.0251, 100: 0.0128, 200: 0.0064}, "ni": {30: 0.0700, 50: 0.0425, 100: 0.0205, 200: 0.0100},
    "ti": {30: 0.1237, 50: 0.0721, 100: 0.0360, 200: 0.0172}, "co": {30: 0.1529, 50: 0.0892, 100: 0.0445, 200: 0.0230},
    "mg": {30: 0.1466, 50: 0.0879, 100: 0.0425, 200: 0.0201},
}  # fmt: skip


class _Backend:
    """An emulator in the place of a synthesis, at native sampling."""

    def __init__(self, emulator):
        self.emulator, self.wavelength = emulator, np.round(5100 + 0.02 * np.arange(10_001), 2)

    def __call__(self, labels):
        return np.asarray(self.emulator(labels, self.wavelength, extrapolate=True)), None


def main():
    emulator, out = ei.load_emulator("optical-fgk"), {}
    space = emulator.label_space
    giant = {
        **solar_labels(space),
        "teff": 4800.0,
        "logg": 1.8,
        "fe_h": -1.5,
        "vmic": 1.9,
        "mg_fe": 0.3,
        "ca_fe": 0.3,
        "ti_fe": 0.3,
    }
    deimos_like = Instrument.single(5100.0, 5300.0, 6_500.0, 4.0)
    known = cramer_rao(emulator, giant, deimos_like, 100.0, priors={"rv": 0.0}, **KNOWN)
    tangent = of_synthesis(_Backend(emulator), np.asarray(space.to_array(giant)), space)
    stepped = cramer_rao(tangent, giant, deimos_like, 100.0, priors={"rv": 0.0}, **KNOWN)
    free = cramer_rao(emulator, giant, deimos_like, 100.0, emulator_error=None)
    out["published steps over derivatives"] = {n: stepped.marginal[n] / known.marginal[n] for n in known.names}
    out["nuisances free over known"] = {n: free.marginal[n] / known.marginal[n] for n in known.names}
    priors = {
        "rv": 0.0,
        "teff": dist.Normal(4800.0, 100.0),
        "logg": dist.Normal(1.8, 0.15),
        "vmic": dist.Normal(1.9, 0.25),
    }
    ours = {}
    for snr in (30, 50, 100, 200):
        b = cramer_rao(emulator, giant, deimos_like, snr, priors=priors, **KNOWN)
        ours[snr] = {n: b.marginal[n] for n in ("teff", "logg", "vmic", "fe_h")}
        ours[snr] |= {e: b.combination({f"{e}_fe": 1, "fe_h": 1}) for e in ("ca", "ni", "ti", "co", "mg")}
    out["fall of widths from S/N 50 to 200"] = {
        n: {"published": PUBLISHED[n][50] / PUBLISHED[n][200], "ours": ours[50][n] / ours[200][n]} for n in PUBLISHED
    }
    out["fall of widths from S/N 100 to 200"] = {
        n: {"published": PUBLISHED[n][100] / PUBLISHED[n][200], "ours": ours[100][n] / ours[200][n]} for n in PUBLISHED
    }
    out["at S/N 100, 5100–5300 Å here, 6500–9000 Å there"] = {
        n: {"published": PUBLISHED[n][100], "ours": ours[100][n]} for n in PUBLISHED
    }
    out["resolving power"] = resolving_power(emulator, giant, space)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bounds_conventions.json").write_text(json.dumps(out, indent=1))
    (RESULTS / "bounds_conventions.md").write_text(markdown(out))
    print(markdown(out))


def resolving_power(emulator, giant, space):
    """Bounds at R over those at R = 10,000 for one exposure and one number of detector pixels: the window is 190 Å at
    10,000 and shrinks as 1/R; the best place for each label, and the median over all places."""
    result, first = {}, None
    for resolution in (10_000, 20_000, 40_000):
        instrument = Instrument.single(5102.0, 5298.0, resolution, 3.0)
        forecast = Forecast(
            emulator,
            giant,
            Exposure(instrument, 100.0, "angstrom", continuum_terms=0),
            priors={"rv": 0.0},
            broadening="none",
        )
        width = 190.0 * 10_000 / resolution
        found = {n: best_window(forecast, n, width, n=25).bound for n in space.names}
        best = {n: [float(np.nanmin(b)), float(np.nanmedian(b))] for n, b in found.items()}
        first = first or best
        result[resolution] = {n: [best[n][k] / first[n][k] for k in (0, 1)] for n in best}
    return result


def markdown(out):
    lines = [
        "# Conventions of the published bounds",
        "",
        "Written by `tests/benchmarks/bounds_conventions.py`, whose head says what is compared.",
        "",
    ]
    lines += [
        "| label | their steps / derivatives | nuisances free / known | R 20,000 / 10,000 best (median) place | R 40,000 / 10,000 |",
        "|---|---|---|---|---|",
    ]
    power = out["resolving power"]
    for n, a in out["published steps over derivatives"].items():
        cells = [f"{a:.3f}", f"{out['nuisances free over known'][n]:.2f}"]
        cells += [f"{power[r][n][0]:.2f} ({power[r][n][1]:.2f})" for r in (20_000, 40_000)]
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Sandford et al. 2020 (posterior widths, S/N per pixel) and here (bounds with their priors); elements as [X/H]:",
        "",
        "| label | width at S/N 50 / 200: published | here | 100 / 200: published | here "
        "| at S/N 100: 6500–9000 Å, published | 5100–5300 Å, here |",
        "|---|---|---|---|---|---|---|",
    ]
    keys = (
        "fall of widths from S/N 50 to 200",
        "fall of widths from S/N 100 to 200",
        "at S/N 100, 5100–5300 Å here, 6500–9000 Å there",
    )
    for n in PUBLISHED:
        lines.append(
            f"| {n} | " + " | ".join(f"{out[k][n]['published']:.3g} | {out[k][n]['ours']:.3g}" for k in keys) + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
