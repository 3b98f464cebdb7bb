"""Bounds from emulators against bounds from the synthesis itself. `python -m tests.benchmarks.bounds_synthesis [--stars 30]`

For mock stars well inside the domain, 5101–5299 Å, R = 20,000, three pixels per FWHM, velocity, broadening and continuum
free: marginal bounds from symmetric differences of LTE spectra of our own synthesis (the steps of Ting et al. 2017), from the
shipped emulators, and from baselines fitted to the 1,065 Turbospectrum spectra that these learned from: The Payne's network,
and Gaussian processes. The truth here is our LTE code, not Turbospectrum, so that all differences hold those of the two codes
as well; and the shipped emulators have also learned from LTE spectra of that very code, which these baselines have not. So with
`--simple GRID.h5` (LTE spectra) The Payne's network is also fitted to both kinds together, with 3,000 LTE spectra. For
Turbospectrum itself, the one pair of spectra at hand, the Sun and [Ti/Fe] + 0.3, is compared with the emulators' differences
of the same step.
Writes `results/bounds_synthesis.json`, `.md` and `.png`.
"""

import argparse
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import emuinfer as ei
from emuinfer.emulators import Emulator, emulator_hash, list_emulators
from emuinfer.emulators.training import fit_logit_gp, fit_mlp
from emuinfer.forecast import Instrument, cramer_rao
from emuinfer.grids import Grid
from emuinfer.grids.split import flagship_split
from emuinfer.synthesis import make_backend

from .baselines import GRID
from .bounds_truth import stars

RESULTS = Path(__file__).parent / "results"
INSTRUMENT = Instrument.single(5101.0, 5299.0, 20_000.0, 3.0)
STEPS = {"teff": 50.0, "logg": 0.1, "vmic": 0.1}  # 0.05 dex for abundances: Ting et al. 2017, section 2
SHIPPED = ("optical-fgk",)


class Tangent(Emulator):
    """A spectrum and its derivatives by the scaled labels, in place of an emulator: linear in the labels."""

    flux_there: jax.Array
    rows: jax.Array  # (n_labels, n_wave)
    at: jax.Array  # scaled labels
    label_space: ei.LabelSpace = eqx.field(static=True)
    wavelength: tuple = eqx.field(static=True)
    wavelength_range: tuple = eqx.field(static=True)
    medium: str = eqx.field(static=True)

    def prepare(self, wavelength):
        from scipy.interpolate import CubicSpline

        both = np.concatenate([np.asarray(self.flux_there)[None], np.asarray(self.rows)]).astype(float)
        return jnp.asarray(CubicSpline(np.linspace(*self.wavelength), both, axis=1)(wavelength), jnp.float32)

    def flux(self, scaled_labels, query):
        return query[0] + (scaled_labels - self.at) @ query[1:]


def of_synthesis(backend, labels, space):
    """A `Tangent` by symmetric differences of synthetic spectra."""
    steps = np.array([STEPS.get(n, 0.05) for n in space.names])
    rows = np.concatenate([labels[None], labels + np.diag(steps), labels - np.diag(steps)])
    flux = backend(rows)[0].astype(float)
    n = len(steps)
    slope = (flux[1 : n + 1] - flux[n + 1 :]) / (2 * steps[:, None]) * space.half_width[:, None]
    wavelength = (float(backend.wavelength[0]), float(backend.wavelength[-1]), len(backend.wavelength))
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    return Tangent(as32(flux[0]), as32(slope), as32(space.scale(labels)), space, wavelength, wavelength[:2], "air")


def sun_and_titanium(emulators, space):
    """Conditional bound on [Ti/Fe] of the Sun at S/N 100 from differences over + 0.3 dex, by source."""
    from scipy.ndimage import gaussian_filter1d

    pair = np.load(GRID.with_name("turbospectrum_sun.npz"))
    wavelength = pair["wavelength"]
    sigma = wavelength.mean() / INSTRUMENT.arms[0].resolution / 2.3548 / 0.02
    labels = np.asarray(pair["labels"], float)
    more = labels + 0.3 * (np.array(space.names) == "ti_fe")
    pixel = wavelength.mean() * INSTRUMENT.arms[0].pixel_step
    bound = lambda d: 0.3 / 100 / np.sqrt((gaussian_filter1d(d, sigma)[50:-50] ** 2).sum() * 0.02 / pixel)
    out = {"Turbospectrum": bound(pair["flux_ti_plus_0p3"].astype(float) - pair["flux"])}
    for name, e in emulators.items():
        two = np.asarray(e(np.stack([more, labels]), wavelength), float)
        out[name] = bound(two[0] - two[1])
    return {k: float(v) for k, v in out.items()}


def markdown(facts, table, titanium):
    names = list(table)
    labels = list(next(iter(table.values())))
    lines = [
        "# Bounds of emulators against bounds of the synthesis",
        "",
        f"Marginal bounds of {facts['stars']} mock stars, R = 20,000, 5101–5299 Å, velocity, broadening and continuum free. Median of",
        "|σ / σ(LTE synthesis) − 1| in per cent, and in brackets the median of σ / σ(LTE synthesis) − 1. Written by",
        "`tests/benchmarks/bounds_synthesis.py`. The truth is our LTE code. `optical-fgk` has learned from 1,065 Turbospectrum",
        "spectra and from thousands of LTE spectra of that code (its card); The Payne and the Gaussian processes "
        "from the 1,065 Turbospectrum spectra",
        "alone, except where LTE spectra (3,000) are named.",
        "",
        f"Emulators: {', '.join(f'{k} {v}' for k, v in facts['hash'].items())}.",
        "",
        "| label | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for label in labels:
        cells = [
            f"{100 * table[n][label]['median_absolute']:.1f} ({100 * table[n][label]['median']:+.1f})" for n in names
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    mean = [np.mean([t["median_absolute"] for t in table[n].values()]) for n in names]
    lines.append("| **mean** | " + " | ".join(f"**{100 * m:.1f}**" for m in mean) + " |")
    lines += [
        "",
        "Turbospectrum itself: conditional bound on [Ti/Fe] of the Sun at S/N 100, from the difference over + 0.3 dex: "
        + ", ".join(f"{k} {v:.5f}" for k, v in titanium.items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def plot(each, names):
    from emuinfer.plotting.figure import label_text, new_figure, write_figure

    figure = new_figure(10, 4.2)
    axis = figure.add_axes((0.08, 0.2, 0.91, 0.75))
    labels = list(each[0]["LTE synthesis"])
    rng = np.random.default_rng(0)
    for k, (name, colour) in enumerate(zip(names, ("#08519c", "#2a9d5c", "#d1495b", "#e08e0b"))):
        for i, label in enumerate(labels):
            ratio = [row[name][label] / row["LTE synthesis"][label] for row in each]
            x = i + 0.22 * (k - 0.5 * (len(names) - 1)) + rng.uniform(-0.06, 0.06, len(ratio))
            axis.plot(x, ratio, ".", ms=3, color=colour, label=name if i == 0 else None)
    axis.axhline(1, color="k", lw=0.8)
    axis.set(yscale="log", ylabel="bound / bound of the synthesis", ylim=(0.4, 2.5))
    axis.set_yticks([0.5, 0.7, 1, 1.4, 2], ["0.5", "0.7", "1", "1.4", "2"])
    axis.minorticks_off()
    axis.set_xticks(range(len(labels)), [label_text(n) for n in labels], rotation=35, ha="right")
    axis.legend(fontsize=8, ncols=4, markerscale=3)
    write_figure(figure, RESULTS / "bounds_synthesis.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=30)
    parser.add_argument("--simple", help="a grid of LTE spectra of our own synthesis (HDF5)")
    arguments = parser.parse_args()
    begin, space = time.perf_counter(), ei.OPTICAL_FGK
    data = np.load(GRID)
    rows = flagship_split(len(data["flux"]))[0]
    emulators = {n: ei.load_emulator(n) for n in SHIPPED if n in list_emulators()}
    payne = lambda labels, flux, wavelength: fit_mlp(space, labels, flux, wavelength, medium="air")
    emulators["The Payne"] = payne(data["labels"][rows], data["flux"][rows], data["wavelength"].astype(float))
    emulators["Gaussian processes"] = fit_logit_gp(
        space, data["labels"][rows], data["flux"][rows], data["wavelength"].astype(float), medium="air"
    )
    if arguments.simple:
        grid, n = Grid.load(arguments.simple, lazy=True), 3000
        both = [
            np.concatenate(x) for x in ((data["labels"][rows], grid.labels[:n]), (data["flux"][rows], grid.flux[:n]))
        ]
        emulators["The Payne, LTE spectra too"] = payne(*both, data["wavelength"].astype(float))
    print(f"emulators ready after {time.perf_counter() - begin:.0f} s", flush=True)
    backend, each, titanium = make_backend(), [], sun_and_titanium(emulators, space)
    for i, labels in enumerate(stars(space, arguments.stars)):
        sources = {"LTE synthesis": of_synthesis(backend, labels, space), **emulators}
        bounds = {k: cramer_rao(e, labels, INSTRUMENT, 100.0, emulator_error=None).marginal for k, e in sources.items()}
        each.append({k: {n: b[n] for n in (*space.names, "rv", "vbroad")} for k, b in bounds.items()})
        print(f"{i}: {time.perf_counter() - begin:.0f} s", flush=True)
        table = {}
        for name in emulators:
            ratio = {n: np.array([r[name][n] / r["LTE synthesis"][n] for r in each]) - 1 for n in each[0][name]}
            table[name] = {
                n: {
                    "median_absolute": float(np.median(np.abs(x))),
                    "median": float(np.median(x)),
                    "worst": float(np.abs(x).max()),
                }
                for n, x in ratio.items()
            }
        facts = {"stars": len(each), "hash": {n: emulator_hash(e) for n, e in emulators.items() if n in SHIPPED}}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "bounds_synthesis.json").write_text(
            json.dumps(
                {**facts, "seconds": time.perf_counter() - begin, "table": table, "titanium": titanium, "each": each},
                indent=1,
            )
        )
        (RESULTS / "bounds_synthesis.md").write_text(markdown(facts, table, titanium))
    print((RESULTS / "bounds_synthesis.md").read_text())
    plot(each, list(emulators))


if __name__ == "__main__":
    main()
