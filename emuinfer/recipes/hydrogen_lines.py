"""Build `emuinfer/data/physics/hydrogen_lines.npz`: Stark profiles of the Balmer and Paschen lines between 4200 and 9200 Å.

    python -m emuinfer.recipes.hydrogen_lines Stehle-Hutchson-hydrogen-profiles.h5

The argument is the table of Stehlé & Hutcheon (1999, A&AS 140, 93) as Korg.jl distributes it (BSD-3-Clause, copyright 2021
Adam Wheeler; Wheeler et al. 2023, AJ 165, 68): profiles per Hz, with thermal broadening, by detuning / F0, electron density and
temperature; F0 = 1.25e-9 n_e^(2/3) is the Holtsmark field strength in cgs units.

They are resampled to detunings in Doppler widths, u, on a uniform grid of arsinh u: there a profile hardly changes with
temperature, both in the Doppler core and in the wings. Tabulated is ln(profile × Doppler width).
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

from ..constants import ATOMIC_MASS, K_BOLTZMANN, SPEED_OF_LIGHT
from ..files import write_arrays
from ..labels.data_files import DATA

OUTPUT = DATA / "physics" / "hydrogen_lines.npz"
LINES = [(2, n) for n in range(3, 7)] + [(3, n) for n in range(9, 31)]
ARSINH_U = 0.15 * np.arange(60)  # to u = 3500
LN_ELECTRONS = np.log(10.0) * (10.0 + 0.5 * np.arange(13))
N_TEMPERATURES = 4  # 2500 to 19,950 K
RYDBERG = 109677.583  # 1/cm, of hydrogen (NIST)
SOURCE = "Stehlé & Hutcheon 1999, A&AS 140, 93, as tabulated in Korg.jl (BSD-3-Clause, © 2021 Adam Wheeler)"


def resample(detuning, profile, doppler) -> np.ndarray:
    """ln(profile × Doppler width) on `ARSINH_U` from a `profile` (s) at `detuning` (Hz), both (n,); `doppler` in Hz."""
    u, value = detuning / doppler, profile * doppler
    good = value > 0
    u, value = u[good], value[good]
    wanted = np.sinh(ARSINH_U)
    x, y = np.log(u[1:]), np.log(value[1:])
    slope = (y[-1] - y[-4]) / (x[-1] - x[-4])
    at = np.log(np.maximum(wanted, u[1]))
    result = PchipInterpolator(x, y)(np.minimum(at, x[-1])) + slope * np.maximum(at - x[-1], 0.0)
    if value[0] > 0.5 / np.sqrt(np.pi):
        # Where a Doppler core meets the wings the table of some lines is too coarse: a Gaussian and a power law are put there.
        outer = np.flatnonzero(u > 8.0)[0]
        wing = value[outer] * (np.maximum(wanted, 1.0) / u[outer]) ** -2.5
        core = np.log(value[0] * np.exp(-(wanted**2)) + np.where(wanted > 1.0, wing, 0.0))
        after = np.clip(np.searchsorted(u, wanted), 1, len(u) - 1)
        coarse = (u[after] > 2.0 * u[after - 1]) & (u[after - 1] < 4.0) & (wanted < u[outer])
        doppler_core = value[0] > 0.9 / np.sqrt(np.pi)
        result = np.where(coarse | (wanted < 1.0) | (doppler_core & (wanted < u[outer])), core, result)
    return result


def build(path: Path) -> dict[str, np.ndarray]:
    import h5py

    tables, log_gf = [], []
    with h5py.File(path) as file:
        for lower, upper in LINES:
            group = file[f"{lower}_{upper}"]
            log_gf.append(group.attrs["log_gf"])
            temperature = group["temps"][:N_TEMPERATURES]
            ln_ne = np.log(group["electron_number_densities"][:])
            scaled, profile = group["delta_nu_over_F0"][:], group["profile"][:]
            frequency = 1e5 * SPEED_OF_LIGHT * RYDBERG * (1.0 / lower**2 - 1.0 / upper**2)
            table = np.zeros((len(ARSINH_U), len(LN_ELECTRONS), N_TEMPERATURES))
            for i, wanted in enumerate(LN_ELECTRONS):
                j = min(
                    int(np.argmin(np.abs(ln_ne - wanted))), len(ln_ne) - 1
                )  # the highest where the line has dissolved
                field = 1.25e-9 * np.exp(ln_ne[j]) ** (2 / 3)
                for k, t in enumerate(temperature):
                    doppler = (
                        frequency * np.sqrt(2 * K_BOLTZMANN * t / (1.00784 * ATOMIC_MASS)) / (1e5 * SPEED_OF_LIGHT)
                    )
                    values = profile[:, j, k]
                    if not values[0] > 0:
                        raise ValueError(f"no profile of {lower}-{upper} at {t:g} K, {np.exp(ln_ne[j]):g} cm^-3")
                    table[:, i, k] = resample(scaled * field, values, doppler)
            tables.append(table)
    levels = np.array(LINES)
    return dict(lower=levels[:, 0], upper=levels[:, 1], log_gf=np.array(log_gf), ln_profile=np.array(tables, np.float32),
                arsinh_u=ARSINH_U, ln_electrons=LN_ELECTRONS, temperature=temperature, source=np.array(SOURCE))  # fmt: skip


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profiles", type=Path)
    write_arrays(OUTPUT, build(parser.parse_args(argv).profiles))
    print(f"wrote {OUTPUT} ({OUTPUT.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
