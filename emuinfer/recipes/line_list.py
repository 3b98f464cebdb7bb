"""Build the line list of a window from the Gaia-ESO line list as CSV, such as `emuinfer/data/lines/ges_5090_5310.npz`.

    python -m emuinfer.recipes.line_list ges_5090_5310.csv
    python -m emuinfer.recipes.line_list ges_4200_9200.csv.gz --whole-optical

The list is that of Heiter et al. (2021, A&A 645, A106), CDS J/A+A/645/A106. The added column
`reach` is the distance from the line's centre (Å) beyond which its effect on the normalised flux stays below `CUTOFF`
in all of a sample of atmospheres that fills the label domain; 0 where it stays below everywhere. All lines of a window's list are
kept; of the list of the whole optical, those that matter somewhere.
"""

import argparse
import csv
import dataclasses
import gzip
from pathlib import Path

import numpy as np

from ..files import write_arrays
from ..labels.data_files import DATA
from ..labels.space import LabelSpace
from ..labels.windows import OPTICAL_LINES, OPTICAL_LINES_RANGE, WHOLE_OPTICAL, window
from ..synthesis.elements import atomic_number
from ..synthesis.lines import LineList

SOURCE = "Gaia-ESO line list, Heiter et al. 2021, A&A 645, A106"
CUTOFF = 1e-4


def read_csv(path: Path) -> LineList:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    column = lambda key, dtype: np.array([row[key] for row in rows], dtype=dtype)
    return LineList(
        wavelength=column("wl", np.float64),
        element=np.array([atomic_number(row["el"]) for row in rows], np.uint8),
        ion=column("ion", np.uint8),
        isotope=column("iso", np.uint8),
        e_low=column("elow", np.float32),
        log_gf=column("loggf", np.float32),
        fdamp=column("fdamp", np.float32),
        g_up=column("gup", np.float32),
        gamma_rad=column("grad", np.float32),
        reach=np.full(len(rows), np.inf, np.float32),
        source=SOURCE,
    )


# Teff and log g at the borders of the domain of FGK stars, where lines are strongest or widest.
CORNERS = (
    (4000, 0.5),
    (4000, 5.0),
    (4500, 0.5),
    (5000, 5.0),
    (5500, 1.2),
    (6000, 4.0),
    (7000, 5.0),
    (7000, 2.7),
)


def sample_domain(space: LabelSpace, n: int = 64) -> np.ndarray:
    """Labels that fill the domain, its strong-lined corners first. Shape (about n, n_labels)."""
    from scipy.stats import qmc

    unit = qmc.Sobol(len(space), seed=0).random(4 * n)
    points = np.asarray(space.lower) + unit * (np.asarray(space.upper) - np.asarray(space.lower))
    box = [(teff, logg) for teff in space.bounds["teff"] for logg in space.bounds["logg"]]
    rows = []
    for teff, logg in dict.fromkeys(CORNERS + tuple(box)):
        for vmic in space.bounds["vmic"]:
            rich = np.array(space.upper)
            for name, value in {"teff": teff, "logg": logg, "vmic": vmic}.items():
                rich[space.index(name)] = value
            rows.append(rich)
    corners = np.array(rows)
    return np.concatenate([corners[space.contains(corners)], points[space.contains(points)][:n]])


def reach_of_lines(lines: LineList, space: LabelSpace, stark: bool = False, stretch: float = 250.0) -> np.ndarray:
    """Half-width (Å) of the lines' influence over the domain `space`, by the first-order depth of a weak wing.

    A small opacity ratio eta changes the flux by about int eta tau exp(-tau) dln(tau); tau is that of the continuum in the
    middle of the line's stretch of wavelength, `stretch` Å long. `stark`: with approximate Stark widths.
    """
    import equinox as eqx
    import jax.numpy as jnp

    from ..synthesis import opacity, transfer
    from ..synthesis.synthesizer import LTESynthesizer

    # A few pixels over the list's whole range, so that no line is left out.
    lo, hi = np.min(lines.wavelength) - 1.0, np.max(lines.wavelength) + 1.0
    synthesizer = LTESynthesizer(space, np.linspace(lo, hi, 100), line_list=lines, medium="air", stark=stark)
    middles = jnp.asarray(lo + stretch * (np.arange(np.ceil((hi - lo) / stretch)) + 0.5), jnp.float32)
    of_line = jnp.asarray((lines.wavelength - lo) // stretch, jnp.int32)

    @eqx.filter_jit
    def reach(synthesizer, labels):
        layers = synthesizer.atmosphere(labels)
        amplitude, a, inverse = synthesizer.line_quantities(labels, layers)
        tau, step = jnp.exp(synthesizer.ln_tau), synthesizer.ln_tau[1] - synthesizer.ln_tau[0]
        alpha = opacity.continuum(middles[:, None], layers["temperature"], layers, layers["he1"])
        tau_there = transfer.optical_depth(synthesizer.ln_tau, alpha / layers["alpha_5000"])
        visible = (tau * jnp.exp(-tau_there))[of_line]
        wing = jnp.sqrt(jnp.sum(amplitude * a / (1.772 * inverse**2) * visible * step, axis=-1) / CUTOFF)
        strength = jnp.max(amplitude * visible, axis=-1) / CUTOFF
        core = jnp.max(1.0 / inverse, axis=-1) * jnp.sqrt(jnp.log(jnp.maximum(strength, 1.0)))
        return jnp.where(strength > 1.0, jnp.maximum(core, wing), 0.0)

    found = np.zeros(len(lines))
    for row in sample_domain(space):
        found = np.maximum(found, np.asarray(reach(synthesizer, jnp.asarray(row, jnp.float32))))
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="CSV with columns wl, el, ion, iso, elow, loggf, fdamp, gup, grad")
    parser.add_argument("--window", help="whose label domain counts; the first by default")
    parser.add_argument("--whole-optical", action="store_true", help="for 4200 to 9200 Å, of the lines that matter")
    parser.add_argument("--output", type=Path, help="file to write; that of the package by default")
    args = parser.parse_args(argv)
    entry, lines = window(args.window), read_csv(args.source)
    if args.whole_optical:
        name, space = OPTICAL_LINES, WHOLE_OPTICAL
        lo, hi = OPTICAL_LINES_RANGE
        lines = lines[(lines.wavelength > lo - 100.0) & (lines.wavelength < hi + 100.0)]
    else:
        name, space = str(entry.line_list), entry.label_space
    reach = reach_of_lines(lines, space, args.whole_optical).astype(np.float16).astype(np.float32)
    matter = reach > 0
    if args.whole_optical:
        lines, reach = lines[matter], reach[matter]
    output = args.output or DATA / "lines" / name
    columns = {f.name: getattr(lines, f.name) for f in dataclasses.fields(lines) if f.name not in ("reach", "covers")}
    write_arrays(output, {"reach": reach, **columns})
    size = output.stat().st_size / 1000
    print(f"wrote {output}: {len(lines)} lines, {np.sum(matter)} of them matter, {size:.0f} kB")


if __name__ == "__main__":
    main()
