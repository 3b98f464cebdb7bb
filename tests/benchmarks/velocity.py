"""Velocities from −1,000 to +1,000 km/s, and how often noise or one star is called something else.

`python -m tests.benchmarks.velocity [fit] [survey] [peaks]` from the repository's root; saves `results/velocity.json`.

- `fit`: the real spectrum of HD 41248 and a mock star, shifted, in a spectrum wider than the emulator: posterior of each.
- `survey`: mock stars of all velocities in one batch of `fit_many`.
- `peaks`: false alarms of `velocity_peaks` on continua of noise and on single stars, and detections of two sets of lines.

Spectra are shifted here in vacuum and with a spline, not with the code under test.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from scipy.interpolate import CubicSpline

import emuinfer as ei
from emuinfer.constants import SPEED_OF_LIGHT
from emuinfer.labels.design import sobol_design
from emuinfer.observations.peaks import velocity_peaks
from emuinfer.posteriors import draws_of

RESULTS = Path(__file__).parent / "results" / "velocity.json"
VELOCITIES = (-1000.0, -500.0, -200.0, -75.0, 0.0, 75.0, 200.0, 500.0, 1000.0)
STAR = {"teff": 5700.0, "logg": 4.3, "fe_h": -0.4, "vmic": 1.1}
SNR, R = 100.0, 40_000


def index_of_air(vacuum):
    """Birch & Downs (1994), written out again: the benchmark must not share the code that it checks."""
    s2 = (1e4 / vacuum) ** 2
    return 1 + 8.34254e-5 + 2.406147e-2 / (130 - s2) + 1.5998e-4 / (38.9 - s2)


def to_vacuum(air):
    vacuum = np.array(air, float)
    for _ in range(8):
        vacuum = air * index_of_air(vacuum)
    return vacuum


def to_air(vacuum):
    return vacuum / index_of_air(vacuum)


def shifted(air, rv):
    return to_air(to_vacuum(air) * (1 + rv / SPEED_OF_LIGHT))


def composed(v, w):
    """Velocity of a star at `w` that is shifted by `v` more."""
    return SPEED_OF_LIGHT * ((1 + v / SPEED_OF_LIGHT) * (1 + w / SPEED_OF_LIGHT) - 1)


def real(rv):
    """HD 41248, shifted, with flat continuum to both sides as an echelle spectrum has lines there."""
    o = ei.Observation.example("hd41248")
    w = shifted(o.wavelength, rv)
    lo, hi = np.arange(5060, w[0] - 0.01, 0.03), np.arange(w[-1] + 0.01, 5340, 0.03)
    join = lambda level, x: np.concatenate([np.full(len(lo), level), x, np.full(len(hi), level)])
    flux, sigma = join(np.median(o.flux), o.flux), join(np.median(o.uncertainty), o.uncertainty)
    return ei.Observation(np.concatenate([lo, w, hi]), flux, sigma, resolution=140_000, medium="air", name=f"{rv:g}")


class Mocks:
    """Spectra of the emulator at R, on `wavelength`, of stars at any velocity."""

    def __init__(self, wavelength=None):
        self.emulator = ei.load_emulator("optical-fgk")
        self.wavelength = np.arange(5070.0, 5330.0, 0.04) if wavelength is None else wavelength
        ends = self.emulator.wavelength_range
        self.fine = np.exp(np.linspace(*np.log(to_vacuum(np.array(ends))), 16_000))
        self.at = np.clip(to_air(self.fine), *ends)
        self.step = SPEED_OF_LIGHT * np.log(self.fine[1] / self.fine[0])

    def rest(self, labels, extra_kms=2.0):
        """Broadened flux at `fine` of labels by name, or as an array."""
        from scipy.ndimage import gaussian_filter1d

        labels = labels if isinstance(labels, dict) else dict(zip(self.emulator.label_space.names, labels))
        labels = {n: labels.get(n, 0.0) for n in self.emulator.label_space.names}
        sigma = np.hypot(SPEED_OF_LIGHT / 2.354820045 / R, extra_kms) / self.step
        return gaussian_filter1d(np.asarray(self.emulator(labels, self.at), float), sigma, truncate=6, mode="nearest")

    def flux(self, rest, rv):
        at = to_vacuum(self.wavelength) / (1 + rv / SPEED_OF_LIGHT)
        inside = (at >= self.fine[0]) & (at <= self.fine[-1])
        return np.where(inside, CubicSpline(self.fine, rest)(np.clip(at, *self.fine[[0, -1]])), 1.0)

    def observation(self, flux, snr, rng):
        noise = rng.standard_normal(len(flux)) / snr
        return ei.Observation(
            self.wavelength, flux + noise, 1 / snr, resolution=R, medium="air", clip=None, name="mock"
        )


def fit():
    """Errors in m/s of posteriors; those of the real star against itself at rest."""
    mocks, out = Mocks(), {"real": [], "mock": []}
    rest = mocks.rest(STAR)
    for rv in VELOCITIES:
        pair = {"real": real(rv), "mock": mocks.observation(mocks.flux(rest, rv), SNR, np.random.default_rng(1))}
        for kind, observation in pair.items():
            begin = time.perf_counter()
            model = ei.StellarModel(mocks.emulator, observation, progress=False)
            posterior = ei.sample(model, seed=0, chains=2, warmup=200, draws=300, verify=50, progress=False)
            draws = draws_of(posterior, "rv").ravel().astype(float)
            row = {
                "rv": rv,
                "guess": model.rv_guess,
                "median": float(np.median(draws)),
                "sd_m_s": 1e3 * float(draws.std()),
            }
            row |= {"pixels": len(model.wavelength), "verification": posterior.attrs["verification"]}
            out[kind].append(row | {"seconds": round(time.perf_counter() - begin, 1)})
            print(kind, out[kind][-1], flush=True)
    at_rest = next(row["median"] for row in out["real"] if row["rv"] == 0)
    for kind, rows in out.items():
        for row in rows:
            truth = composed(row["rv"], at_rest if kind == "real" else 0.0)
            row["error_m_s"] = 1e3 * (row["median"] - truth)
            row["guess_error_m_s"] = 1e3 * (row["guess"] - truth)
    return out


def survey():
    """Stars of all velocities, and one without lines, in one batch."""
    mocks, rng = Mocks(), np.random.default_rng(2)
    rest = mocks.rest(STAR)
    flux = [mocks.flux(rest, rv) + rng.standard_normal(len(mocks.wavelength)) / SNR for rv in VELOCITIES]
    flux.append(1 + rng.standard_normal(len(mocks.wavelength)) / SNR)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stars.h5"
        with h5py.File(path, "w") as file:
            file["wavelength"], file["flux"] = mocks.wavelength, np.array(flux, "f4")
            file["uncertainty"] = np.full((len(flux), len(mocks.wavelength)), 1 / SNR, "f4")
            file.attrs.update(medium="air", resolution=float(R))
        table = ei.fit_many(mocks.emulator, path, Path(folder) / "out", progress=False)
    rows = []
    for rv, row in zip((*VELOCITIES, None), table):
        one = {"rv": rv, "median": float(row["rv"]), "sd_m_s": 1e3 * float(row["rv_sd"]), "flag": int(row["flag"])}
        one |= {"teff": float(row["teff"]), "teff_sd": float(row["teff_sd"]), "pixels": int(row["n_pixels"])}
        one["significance"] = float(row["velocity_significance"])
        rows.append(one if rv is None else one | {"error_m_s": 1e3 * (one["median"] - rv)})
        print(rows[-1], flush=True)
    return rows


def peaks(n=200, seed=11):
    """False alarms and detections, each as a count of `n`."""
    mocks = Mocks(np.arange(5080.0, 5320.0, 0.04))
    model = ei.StellarModel(mocks.emulator, real(0.0), progress=False)
    grid, template = model.reduced.config.wavelength, model.templates()
    judge = lambda observation: velocity_peaks(observation, grid, template)
    rng, out = np.random.default_rng(seed), {"n": n, "seed": seed, "R": R}

    def count(name, made):
        found = [judge(o) for o in made]
        out[name] = {"n": len(found), "significant": sum(p.significant for p in found)}
        out[name] |= {"binary": sum(p.binary for p in found), "at_edge": sum(p.at_edge for p in found)}
        print(name, out[name], flush=True)

    def noise(number):
        for _ in range(number):
            snr = 10 ** rng.uniform(0.5, 2.5)
            tilt = 1 + 0.1 * np.sin(mocks.wavelength / 30 + rng.uniform(0, 6))
            yield ei.Observation(
                mocks.wavelength,
                tilt * (1 + rng.standard_normal(len(tilt)) / snr),
                tilt / snr,
                resolution=R,
                medium="air",
                clip=None,
            )

    count("noise", noise(5 * n))
    labels = sobol_design(mocks.emulator.label_space, n, seed=5)
    spectra = [mocks.rest(row, rng.uniform(1, 6)) for row in labels]
    for snr in (10, 30, 100, 300):
        count(
            f"single, S/N {snr}", (mocks.observation(mocks.flux(s, rng.uniform(-900, 900)), snr, rng) for s in spectra)
        )
    names = mocks.emulator.label_space.names
    hot = (labels[:, names.index("teff")] > 6300) & (labels[:, names.index("fe_h")] < -1.5)
    hottest = [s for s, one in zip(spectra, hot) if one]
    count(
        "hot and metal-poor, S/N 10",
        (mocks.observation(mocks.flux(s, rng.uniform(-900, 900)), 10, rng) for s in hottest),
    )
    for separation in (30, 60, 150):
        for light in (0.25, 0.5, 1.0):
            count(
                f"two stars, {separation} km/s, light {light}, S/N 100",
                _pairs(mocks, labels, light, separation, n // 4, rng),
            )
    return out


def _pairs(mocks, labels, light, separation, n, rng):
    names = mocks.emulator.label_space.names
    for row in labels[:n]:
        row = row.copy()
        row[names.index("fe_h")] = max(-1.0, 0.4 * row[names.index("fe_h")])
        second = row.copy()
        second[names.index("teff")] = max(4000.0, row[names.index("teff")] - 800 * (1 - light))
        rv, sign = rng.uniform(-300, 300), rng.choice([-1, 1])
        one, two = mocks.flux(mocks.rest(row), rv), mocks.flux(mocks.rest(second), rv + sign * separation)
        yield mocks.observation((one + light * two) / (1 + light), 100, rng)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["fit", "survey", "peaks"])
    for part in parser.parse_args().parts:
        found = {"fit": fit, "survey": survey, "peaks": peaks}[part]()
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(known | {part: found}, indent=1) + "\n")
