"""Lines of CH, C2, CN and MgH, as cross-sections on the pixels of a synthesis.

All lines of a molecule share temperature, microturbulence and mass, so that their sum is tabulated once, when a synthesis is set up: for
some temperatures and some microturbulences. A spectrum then costs the same however many lines there are.
"""

import functools
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import ATOMIC_MASS, EV_OVER_K, HC_OVER_K, K_BOLTZMANN, LN_10, LN_SAHA, SPEED_OF_LIGHT
from ..errors import EmuinferError, suggestion
from ..wavelengths.interpolation import lagrange_weights
from .chemistry import constants
from .elements import element_data

LINES = Path(__file__).parents[1] / "data" / "lines" / "molecules_4180_9220.npz"
RANGE = (4180.0, 9220.0)  # Å, air
# Elements (atomic number less one) and the dissociation energy's place among the constants.
MOLECULES = {
    "CH": (0, 5, "hydride", 5),
    "C2": (5, 5, "other", 0),
    "CN": (5, 6, "other", 1),
    "MgH": (0, 11, "hydride", 11),
}
# Of the heavier element's isotopes, on Earth (NIST; de Laeter et al. 2003); those of H and N that are left out are rarer than 0.4 %.
FRACTION = {12: 0.9893, 13: 0.0107, 24: 0.7899, 25: 0.1000, 26: 0.1101}
TEMPERATURES = (2200.0, 7500.0)  # K, of the tables; above it no molecule is left
MICROTURBULENCE = (0.0, 3.0)  # km/s
N_TEMPERATURES, N_VELOCITIES = 9, 5
ELECTRON_MASS = 5.48579909e-4  # in atomic mass units (CODATA 2018)
WIDTHS = 4.2  # Doppler widths from the centre that a line is followed to


@functools.cache
def line_data() -> dict[str, np.ndarray]:
    """The lines' table built by `recipes/molecules.py`."""
    with np.load(LINES) as file:
        return {key: file[key] for key in file.files}


def chosen_molecules(molecules) -> tuple[str, ...]:
    """Names of molecules from True (all), False (none) or names. **Raises:** `EmuinferError` for a name without lines."""
    if isinstance(molecules, bool) or molecules is None:
        return tuple(MOLECULES) if molecules else ()
    names = (molecules,) if isinstance(molecules, str) else tuple(molecules)
    for name in names:
        if name not in MOLECULES:
            raise EmuinferError(
                f"There are no lines of the molecule '{name}'.{suggestion(name, MOLECULES)} There are: {', '.join(MOLECULES)}."
            )
    return names


def chebyshev(lo: float, hi: float, n: int) -> np.ndarray:
    """The n Chebyshev nodes between `lo` and `hi`, rising."""
    return 0.5 * (lo + hi) - 0.5 * (hi - lo) * np.cos(np.pi * (np.arange(n) + 0.5) / n)


def cross_sections(wavelength: np.ndarray, name: str, temperatures, velocities) -> tuple[np.ndarray, float]:
    """Cross-section of a molecule over its partition function, times exp(E0 / kT), in cm^2, and E0 in eV.

    `wavelength` (Å, air) `(n_wave,)`. **Returns** float32 `(n_velocities, n_wave, n_temperatures)`. Stimulated emission is in it; lines
    have Doppler profiles, isotopologues their fraction and mass.
    """
    data, masses = line_data(), element_data()["mass"]
    names, isotopes = data["molecule"][data["species"]], data["isotope"][data["species"]]
    edge = WIDTHS * 5.5 / SPEED_OF_LIGHT
    inside = (names == name) & (data["wavelength"] > wavelength[0] * (1 - edge))
    inside &= data["wavelength"] < wavelength[-1] * (1 + edge)
    lam, e_low, isotope = data["wavelength"][inside], data["e_low"][inside].astype(float), isotopes[inside]
    mass = (
        isotope + masses[MOLECULES[name][1 if name == "CN" else 0]]
    )  # the other atom's; isotopes are those of C or Mg
    fraction = np.array([FRACTION[i] * (FRACTION[12] if name == "C2" else 1.0) for i in isotope.tolist()])
    # pi e^2 / (m c^2) = 8.85282e-13 cm, see `lines.line_constants`
    strength = 8.85282e-21 / np.sqrt(np.pi) * lam**2 * np.exp(LN_10 * data["log_gf"][inside].astype(float)) * fraction
    table = np.zeros((len(velocities), len(wavelength), len(temperatures)), np.float32)
    if not len(lam):
        return table, 0.0
    e_mean = float(np.average(e_low, weights=strength * np.exp(-e_low * EV_OVER_K / 4500.0)))
    square = 2e-10 * K_BOLTZMANN / ATOMIC_MASS / mass  # km^2 s^-2 K^-1
    widest = np.sqrt(np.max(square) * np.max(temperatures) + np.max(velocities) ** 2)
    half = WIDTHS * widest / SPEED_OF_LIGHT * lam
    first, last = np.searchsorted(wavelength, lam - half), np.searchsorted(wavelength, lam + half)
    count = last - first
    line = np.repeat(np.arange(len(lam)), count)
    pixel = np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count) + first[line]
    detuning = ((wavelength[pixel] / lam[line] - 1.0) * SPEED_OF_LIGHT) ** 2  # km^2/s^2
    for k, t in enumerate(temperatures):
        factor = strength * np.exp((e_mean - e_low) * EV_OVER_K / t) * -np.expm1(-HC_OVER_K / (lam * t))
        for j, v in enumerate(velocities):
            width2 = square * t + v**2
            peak = factor / (lam * np.sqrt(width2) / SPEED_OF_LIGHT)
            values = peak[line] * np.exp(-detuning / width2[line])
            table[j, :, k] = np.bincount(pixel, values, minlength=len(wavelength))
    return table, e_mean


class MolecularLines(eqx.Module):
    """Opacity of the lines of molecules on the pixels `wavelength` (Å in air, rising); `names` of `MOLECULES`."""

    table: Float[Array, "n_velocities n_wave n_columns"]
    energy: Float[Array, " n_molecules"]
    ln_mass: Float[Array, " n_molecules"]
    atoms: tuple = eqx.field(static=True)
    names: tuple = eqx.field(static=True)

    def __init__(self, wavelength: np.ndarray, names):
        inverse = chebyshev(1.0 / TEMPERATURES[1], 1.0 / TEMPERATURES[0], N_TEMPERATURES)
        velocities = chebyshev(*MICROTURBULENCE, N_VELOCITIES)
        mass, tables, energy, ln_mass, kept = element_data()["mass"], [], [], [], []
        for name in names:
            table, e_mean = cross_sections(wavelength, name, 1.0 / inverse, velocities)
            if not table.any():
                continue
            first, second, family, place = MOLECULES[name]
            tables.append(table)
            energy.append(float(constants()[f"{family}_energy"][place]) - e_mean)
            ln_mass.append(np.log(mass[first] * mass[second] / (mass[first] + mass[second]) / ELECTRON_MASS))
            kept.append(name)
        empty = np.zeros((N_VELOCITIES, len(wavelength), 0), np.float32)
        self.table = jnp.asarray(np.concatenate([empty, *tables], axis=-1))
        self.energy, self.ln_mass = jnp.asarray(energy, jnp.float32), jnp.asarray(ln_mass, jnp.float32)
        self.atoms = tuple(MOLECULES[name][:2] for name in kept)
        self.names = tuple(kept)

    def __call__(self, temperature, ln_partition, neutral, ln_reference, vmic) -> Float[Array, "n_wave n_depth"]:
        """Absorption coefficient over a reference opacity.

        `temperature` and `ln_reference` (cm^-1) `(n_depth,)`; `ln_partition` and `neutral` (cm^-3) of atoms `(n_depth, 92)`; `vmic`
        in km/s. The population of a level by the law of mass action: n/U of the molecule is the product of the atoms' n/U, times
        (h^2 / 2 pi mu kT)^(3/2) exp(D0 / kT).
        """
        if not self.names:
            return jnp.zeros((self.table.shape[1], len(temperature)), jnp.float32)
        ln_atom = jnp.log(jnp.maximum(neutral, 1e-37)) - ln_partition
        one, two = (ln_atom[:, np.array(side)].T for side in zip(*self.atoms))
        ln_t = jnp.log(temperature)
        ln_amount = (
            one + two - LN_SAHA - 1.5 * (self.ln_mass[:, None] + ln_t) + self.energy[:, None] * EV_OVER_K / temperature
        )
        amount = jnp.exp(jnp.clip(ln_amount - ln_reference, -80.0, 80.0))
        scale = np.float32(TEMPERATURES[0])  # nodes of order one, for float32
        nodes = chebyshev(TEMPERATURES[0] / TEMPERATURES[1], 1.0, N_TEMPERATURES)
        in_t = jnp.stack(lagrange_weights(nodes.tolist(), scale / jnp.clip(temperature, *TEMPERATURES)))
        nodes = chebyshev(*MICROTURBULENCE, N_VELOCITIES)
        in_v = lagrange_weights(nodes.tolist(), jnp.clip(vmic, *MICROTURBULENCE))
        at_vmic = sum(weight * table for weight, table in zip(in_v, self.table))
        layers = (amount[:, None] * in_t).reshape(-1, len(temperature))
        return at_vmic @ layers
