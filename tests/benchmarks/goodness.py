"""How often the verdict on the fit is right: `python -m tests.benchmarks.goodness` from the repository's root.

Mock stars of the packaged emulator at three resolving powers: fits that should be good (S/N 20 to 200, two of three with errors of
the lines as the model expects them), binaries with two spectra, noise without lines, emission, a resolving power stated at half
of its value, rotation fitted with a Gaussian; and the real stars of `../shared`. Each is fitted up to the optimum, as `fit_many`
does it, and its residuals are kept in `--directory`, so that a killed run goes on. The first half of the stars of each kind served
to choose the thresholds, the second to measure the rates.
"""

import argparse
import json
import platform
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import emuinfer as ei
from emuinfer.constants import SPEED_OF_LIGHT
from emuinfer.files import use_compilation_cache
from emuinfer.forward.operator import SpectrumOperator
from emuinfer.inference import Residuals, judge, residuals_of, steps
from emuinfer.inference.goodness import VERDICTS
from emuinfer.survey.batch import Stars, with_star
from emuinfer.survey.model import Survey
from emuinfer.wavelengths.uniform import log_pixels
from tests.conftest import SHARED

RESULTS = Path(__file__).parent / "results"
POWERS = (40_000, 115_000, 20_000)
RANGE = (5104.4, 5295.6)  # Å
PIXELS_PER_FWHM = 2.5
BATCH = 16
COUNTS = {"good": 112, "sb2": 80, "noise": 16, "emission": 16, "rotation": 16, "half": 16}
# file, resolving power, S/N, more options
STARS = {
    "HD 41248": ("hd41248_espresso.fits", 140_000, None, {}),
    "Sun": ("sun_uves.fits", 110_000, 100, {}),
    "Procyon": ("procyon_harps.fits", 115_000, 300, {}),
    "IC 4651 No 9122": ("ic4651_9122_harps.fits", 115_000, 23, {}),
    "HD 122563": ("hd122563_mike.fits", 40_000, 100, {}),
    "WASP-120 vsini": ("wasp120_uves.fits", 80_000, 50, {"broadening": "vsini"}),
    "WASP-120 vbroad": ("wasp120_uves.fits", 80_000, 50, {}),
    "Sun R/2": ("sun_uves.fits", 55_000, 100, {}),
    "Sun R 40,000": ("sun_uves.fits", 40_000, 100, {}),
}


class Maker:
    """Mock stars of one resolving power."""

    def __init__(self, survey, power):
        self.survey, self.power = survey, power
        model = survey.model
        self.model, self.space = model, model.label_space
        self.grid = model.reduced.config.wavelength
        (self.full,) = model.full_on_grid()
        self.wavelength = model.wavelength
        self.operators = {1: model.likelihood.forward.operator}
        self.relative = model.line_errors.relative_at(self.grid)
        self.flux = eqx.filter_jit(lambda full, x: full.grid_flux(x))
        self.see = eqx.filter_jit(lambda op, f, *kernels: op(f, *kernels))

    def rest(self, labels, rng, errors):
        scaled = jnp.asarray(self.space.scale(self.space.to_array(labels)), jnp.float32)
        flux = np.asarray(self.flux(self.full, scaled), float)
        if errors:  # of lines, the same over about a line
            step = SPEED_OF_LIGHT * np.log(self.grid[1] / self.grid[0])
            knots = rng.standard_normal(int(len(self.grid) * step / 8.0) + 2)
            field = np.interp(np.linspace(0, len(knots) - 1, len(self.grid)), np.arange(len(knots)), knots) * 1.2
            flux = 1 - (1 - flux) * np.clip(1 + self.relative * field, 0, None)
        return flux

    def through(self, flux, rv, vbroad, vsini=0.0, sharper=1):
        if sharper not in self.operators:
            self.operators[sharper] = SpectrumOperator(self.grid, self.wavelength, self.power * sharper)
        kernels = (jnp.float32(v) for v in (rv, vbroad, vsini))
        return np.asarray(self.see(self.operators[sharper], jnp.asarray(flux, jnp.float32), *kernels), float)

    def labels(self, rng, low=-2.5):
        while True:
            unit = rng.uniform(size=len(self.space.names))
            labels = {n: lo + u * (hi - lo) for u, (n, (lo, hi)) in zip(unit, self.space.bounds.items())}
            if labels["fe_h"] > low and self.space.contains(self.space.to_array(labels)):
                return labels

    def star(self, kind, number):
        """`(observation, truth)`."""
        rng = np.random.default_rng([self.power, list(COUNTS).index(kind), number])
        snr = 100.0 if kind == "sb2" else float(np.exp(rng.uniform(np.log(20), np.log(200))))
        rv, vbroad = rng.uniform(-60, 60), float(np.exp(rng.uniform(np.log(1.5), np.log(12))))
        truth = {"snr": snr, "rv": rv, "vbroad": vbroad}
        if kind == "sb2":
            flux, more = self.binary(rng, rv)
            truth |= more
        elif kind == "noise":
            flux = np.ones(len(self.wavelength))
        else:
            labels = self.labels(rng, -1.5 if kind in ("rotation", "half", "emission") else -2.5)
            truth |= labels
            rest = self.rest(labels, rng, errors=number % 3 > 0)
            vsini = rng.uniform(8, 40) if kind == "rotation" else 0.0
            truth["vsini"] = vsini
            vbroad = 2.0 if kind == "rotation" else min(vbroad, 3.0) if kind == "half" else vbroad
            flux = self.through(rest, rv, vbroad, vsini, 2 if kind == "half" else 1)
            if kind == "emission":
                flux = 2.0 - flux
        terms = rng.standard_normal(5) * 0.05 / np.arange(1, 6)
        continuum = 1000 * (1 + np.polynomial.chebyshev.chebval(np.linspace(-1, 1, len(flux)), terms))
        sigma = continuum / snr
        noisy = flux * continuum + sigma * rng.standard_normal(len(flux))
        one = ei.Observation(
            self.wavelength, noisy, sigma, resolution=self.power, medium=self.model.full.medium, name=kind, clip=None
        )
        return one, truth

    def binary(self, rng, rv):
        """Two stars of one composition, the light of the second over that of the first from 0.25 to 1."""
        while True:
            first = self.labels(rng, -1.5)
            ratio, apart = rng.uniform(0.25, 1.0), rng.uniform(30, 150) * rng.choice([-1, 1])
            second = {**first, "teff": first["teff"] * ratio**0.13}
            if first["teff"] > 4400 and self.space.contains(self.space.to_array(second)):
                break
        widths = np.exp(rng.uniform(np.log(1.5), np.log(8), 2))
        parts = [
            self.through(self.rest(labels, rng, False), v, w)
            for labels, v, w in ((first, rv, widths[0]), (second, rv + apart, widths[1]))
        ]
        more = {"ratio": ratio, "apart": apart, **first, "vbroad": float(widths[0]), "second": float(widths[1])}
        return (parts[0] + ratio * parts[1]) / (1 + ratio), more


@eqx.filter_jit
def judged(density, base, full, stars, starts, normals, config):
    """Optimum and `Residuals` of each star, through the steps of `fit_many`."""

    def one(star_and_start):
        star, start = star_and_start
        z, likelihood = steps.optimum(density, with_star(base, star), start[None])
        points = steps.spread(density, likelihood, z, normals)
        found = steps.around(density, likelihood, full, z, points, config)
        values = density.values_at(found.z)
        return values, residuals_of(found.likelihood, values)

    return jax.lax.map(one, (stars, starts))


def run_mocks(folder, kinds):
    emulator = ei.load_emulator("optical-fgk")
    for power in POWERS:
        wanted = [(k, i) for k in kinds for i in range(0, COUNTS[k], BATCH) if not _path(folder, power, k, i).exists()]
        if not wanted:
            continue
        wavelength = log_pixels(*RANGE, 1 / (power * PIXELS_PER_FWHM))
        survey = Survey(emulator, wavelength, float(power), emulator.medium, seed=0)
        maker = Maker(survey, power)
        for kind, first in wanted:
            run_batch(survey, maker, kind, first, _path(folder, power, kind, first))


def _path(folder, power, kind, first):
    return folder / f"{kind}-{power}-{first}.npz"


def run_batch(survey, maker, kind, first, path):
    made = [maker.star(kind, i) for i in range(first, first + BATCH)]
    prepared = [survey.prepare(one) for one, _ in made]
    stars = Stars(
        **{k: jnp.asarray(np.stack([p[0][k] for p in prepared]), jnp.float32) for k in Stars.__dataclass_fields__}
    )
    starts = jnp.asarray(np.stack([p[1] for p in prepared]))
    arguments = survey.density, survey.model.likelihood, survey.full, stars, starts, survey.normals, survey.config
    values, residuals = jax.tree.map(np.asarray, judged(*arguments))
    save(path, residuals, values, [t for _, t in made], survey.model.wavelength)
    print(path.name, flush=True)


def save(path, residuals, values, truths, wavelength):
    facts = {"truth": json.dumps(truths), "values": json.dumps({k: np.asarray(v).tolist() for k, v in values.items()})}
    arrays = {k: np.asarray(v, np.float32) for k, v in residuals._asdict().items()}
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, wavelength=wavelength, **arrays, **facts)
    temporary.rename(path)


def run_stars(folder):
    emulator = ei.load_emulator("optical-fgk")
    for name, (file, power, snr, options) in STARS.items():
        path = folder / f"star-{name.replace(' ', '_').replace('/', '')}.npz"
        if path.exists():
            continue
        read = {"snr": snr} if snr else {}
        observation = ei.Observation.read(SHARED / "observed" / file, resolution=power, medium="air", **read)
        model = ei.StellarModel(emulator, observation, progress=False, **options)
        fit = ei.inference.find_optimum(model, progress=False)
        values = {k: jnp.float32(v) for k, v in model.complete(fit.values).items()}
        residuals = jax.tree.map(lambda a: np.asarray(a)[None], eqx.filter_jit(residuals_of)(fit.likelihood, values))
        save(path, residuals, {k: [float(v)] for k, v in values.items()}, [{"name": name}], model.wavelength)
        print(name, {k: round(float(v), 3) for k, v in values.items()}, flush=True)


def load(path):
    """`[(wavelength, Residuals, truth, values)]` of a file."""
    with np.load(path) as file:
        truths, values = json.loads(str(file["truth"])), json.loads(str(file["values"]))
        arrays = {k: file[k] for k in Residuals._fields}
        wavelength = file["wavelength"]
    return [
        (wavelength, Residuals(*(arrays[k][i] for k in Residuals._fields)), truth, {k: v[i] for k, v in values.items()})
        for i, truth in enumerate(truths)
    ]


def report(folder):
    """Verdicts and alarms of the second half of each kind, which no threshold was chosen with, and of the real stars."""
    kinds, stars = {}, {}
    for path in sorted(folder.glob("*.npz")):
        kind = path.stem.split("-")[0]
        for number, (wavelength, residuals, truth, values) in enumerate(load(path)):
            if kind == "star":
                stars[truth["name"]] = told(judge(wavelength, residuals)) | {"values": values}
            elif number % 2:
                kinds.setdefault(kind, []).append((judge(wavelength, residuals), truth))
    summary = {kind: rates(rows) for kind, rows in kinds.items()}
    facts = {"machine": platform.machine(), "jax": jax.__version__, "powers": POWERS}
    text = json.dumps({**facts, "held_out": summary, "stars": stars}, indent=1)
    (RESULTS / "goodness.json").write_text(text + "\n")
    print(json.dumps(summary, indent=1))


def told(one):
    numbers = {k: float(s.value) for k, s in one.statistics.items()}
    return {"verdict": one.verdict, "rotating": one.rotating, "statistics": numbers, "messages": one.messages}


def rates(rows):
    """Of mock stars `[(Goodness, truth)]`: counts of verdicts and alarms, quantiles of the statistics, and what was missed."""
    values = {k: np.array([float(one.statistics[k].value) for one, _ in rows]) for k in rows[0][0].statistics}
    return {
        "n": len(rows),
        "snr": [float(f([t["snr"] for _, t in rows])) for f in (min, max)],
        "verdicts": {v: sum(one.verdict == v for one, _ in rows) for v in VERDICTS},
        "alarms": {k: sum(k in one.alarms for one, _ in rows) for k in values},
        "rotating": sum(one.rotating for one, _ in rows),
        "quantiles_0_5_50_95_100": {k: np.quantile(x, [0, 0.05, 0.5, 0.95, 1]).tolist() for k, x in values.items()},
        "good": [truth for one, truth in rows if one.verdict == "good"][:8] if rows[0][1].get("ratio") else [],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--directory", type=Path, default=Path("goodness"), help="residuals that are done are kept here"
    )
    parser.add_argument("--kinds", nargs="*", default=list(COUNTS), choices=list(COUNTS))
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    use_compilation_cache()
    run_stars(args.directory)
    run_mocks(args.directory, args.kinds)
    report(args.directory)


if __name__ == "__main__":
    main()
