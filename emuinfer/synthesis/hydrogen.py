"""Lines of hydrogen between 4200 and 9200 Å: Stark profiles, self-broadening, and levels that dissolve in the plasma.

The opacity is computed on wavelengths that lie close in the cores and far apart in the wings, and interpolated to the pixels.
"""

import functools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..constants import ATOMIC_MASS, EV_OVER_K, IONISATION_OF_HYDROGEN, K_BOLTZMANN, SPEED_OF_LIGHT
from ..wavelengths.interpolation import from_nodes, node_weights
from ..wavelengths.medium import convert_medium
from .lines import abo_width
from .opacity import BOHR_RADIUS, occupation, stimulated

DATA = Path(__file__).parents[1] / "data" / "physics" / "hydrogen_lines.npz"
RYDBERG = 109677.583  # 1/cm, of hydrogen (NIST Atomic Spectra Database)
HYDROGEN_MASS = 1.00784
# Cross-section at 10 km/s in Bohr radii squared, and its exponent of velocity (Barklem, Piskunov & O'Mara 2000, A&A 363, 1091).
SELF_BROADENING = {(2, 3): (1180.0, 0.677), (2, 4): (2320.0, 0.455), (2, 5): (4208.0, 0.380)}
# Natural widths of levels 2 to 6 (1/s), averaged over their states, from the transition probabilities of NIST's Atomic Spectra Database;
# those of higher levels fall as n^-4.5.
NATURAL = {2: 4.699e8, 3: 9.985e7, 4: 3.019e7, 5: 1.156e7, 6: 5.19e6}
WINGS = {2: 300.0, 3: 200.0}  # Å from the centre to which lines are followed, by their lower level
# Spacing in a core (of the wavelength), in far wings (Å), per distance to the centre.
FINEST, COARSEST, GROWTH = 6e-6, 8.0, 0.1


@functools.cache
def profiles() -> dict[str, np.ndarray]:
    """The table built by `recipes/hydrogen_lines.py`."""
    with np.load(DATA) as file:
        return {key: file[key] for key in file.files}


def line_grid(lo: float, hi: float, centres: np.ndarray, wings: np.ndarray) -> np.ndarray:
    """Wavelengths (Å) from `lo` to `hi` and a little beyond, close near `centres` and farther apart in their wings, float64."""
    grid: list[float] = []
    at = lo - 0.1
    centres = centres[(centres > lo - wings) & (centres < hi + wings)]
    while at < hi + 0.1 or len(grid) < 4:
        grid.append(at)
        distance = np.min(np.abs(centres - at), initial=np.inf)
        at += np.clip(GROWTH * distance, FINEST * at, COARSEST)
    return np.array([*grid, at])


class HydrogenLines(eqx.Module):
    """Opacity of the lines of hydrogen on the pixels `wavelength` (Å in air, rising)."""

    table: Float[Array, "n_lines n_u n_electrons n_temperatures"]
    strength: Float[Array, " n_lines"]
    energy: Float[Array, " n_lines"]
    upper: Float[Array, " n_lines"]
    frequency: Float[Array, " n_lines"]
    centre: Float[Array, " n_lines"]
    natural: Float[Array, " n_lines"]
    self_width: Float[Array, " n_lines"]
    self_exponent: Float[Array, " n_lines"]
    pair_line: Int[Array, " n_pairs"]
    pair_node: Int[Array, " n_pairs"]
    detuning: Float[Array, " n_pairs"]
    first: Int[Array, " n_wave"] | None
    weights: Float[Array, "n_wave n_weights"]
    n_nodes: int = eqx.field(static=True)
    axes: tuple = eqx.field(static=True)

    def __init__(self, wavelength: np.ndarray):
        data = profiles()
        lower, upper = data["lower"].astype(int), data["upper"].astype(int)
        wavenumber = RYDBERG * (1.0 / lower**2 - 1.0 / upper**2)
        vacuum = 1e8 / wavenumber
        centres = convert_medium(vacuum, "vacuum", "air")
        wings = np.array([WINGS[n] for n in lower])
        nodes = line_grid(wavelength[0], wavelength[-1], centres, wings)
        distance = np.abs(nodes[:, None] - centres)
        near = (distance < wings) & (nodes[:, None] > 1e8 * lower**2 / RYDBERG)
        node, line = np.nonzero(near)
        kept = np.unique(line)
        frequency = 1e5 * SPEED_OF_LIGHT * wavenumber  # Hz
        f32 = lambda x: jnp.asarray(x, jnp.float32)
        self.table = f32(data["ln_profile"][kept])
        # pi e^2 / (m c) = 0.02654 cm^2 Hz; gf over the partition function of H I, 2
        self.strength = f32(0.0265400 * 10.0 ** data["log_gf"][kept] / 2.0)
        self.energy = f32(IONISATION_OF_HYDROGEN * (1.0 - 1.0 / lower[kept] ** 2))
        self.upper, self.frequency, self.centre = f32(upper[kept]), f32(frequency[kept]), f32(centres[kept])
        width_of = lambda n: NATURAL.get(n, NATURAL[6] * (6.0 / n) ** 4.5)
        self.natural = f32([width_of(a) + width_of(b) for a, b in zip(lower[kept].tolist(), upper[kept].tolist())])
        width, exponent = _self_broadening([(a, b) for a, b in zip(lower[kept].tolist(), upper[kept].tolist())])
        self.self_width, self.self_exponent = f32(width), f32(exponent)
        self.pair_line = jnp.asarray(np.searchsorted(kept, line), jnp.int32)
        self.pair_node = jnp.asarray(node, jnp.int32)
        in_vacuum = convert_medium(nodes, "air", "vacuum")
        self.detuning = f32(np.abs(1e13 * SPEED_OF_LIGHT / in_vacuum[node] - frequency[line]))
        first, weights = node_weights(nodes, wavelength)
        self.first, self.weights, self.n_nodes = (
            None if first is None else jnp.asarray(first),
            jnp.asarray(weights),
            len(nodes),
        )
        axis = lambda x: (float(x[0]), float(x[1] - x[0]))
        self.axes = (axis(data["arsinh_u"]), axis(data["ln_electrons"]), axis(np.log(data["temperature"])))

    def __call__(self, temperature, ln_ne, h1, he1, vmic) -> Float[Array, "n_wave n_depth"]:
        """Absorption coefficient in cm^-1 on the pixels; layers' arrays `(n_depth,)`, `vmic` in km/s."""
        if not len(self.strength):
            return jnp.zeros((len(self.weights), len(temperature)), jnp.float32)
        square = 2e-10 * K_BOLTZMANN / (HYDROGEN_MASS * ATOMIC_MASS)  # km^2 s^-2 K^-1
        broad = temperature + vmic**2 / square  # the temperature of the same Doppler width
        doppler = self.frequency[:, None] * (jnp.sqrt(square * broad) / SPEED_OF_LIGHT)
        table = self._profiles(jnp.log(broad), ln_ne)
        electrons = jnp.exp(ln_ne)
        undissolved = occupation(self.upper[:, None], electrons, h1, he1)
        gamma = self.self_width[:, None] * jnp.exp(self.self_exponent[:, None] * jnp.log(temperature * 1e-4)) * h1
        gamma = gamma + self.natural[:, None]
        a = gamma / (4.0 * np.pi * doppler)
        strength = self.strength[:, None] * jnp.exp(-self.energy[:, None] * EV_OVER_K / temperature) * h1 / doppler
        strength = strength * undissolved * stimulated(self.centre[:, None], temperature)

        line, layer = self.pair_line[:, None], jnp.arange(len(temperature))
        u = self.detuning[:, None] / doppler[self.pair_line]
        start, step = self.axes[0]
        x = jnp.clip((jnp.arcsinh(u) - start) / step, 0.0, table.shape[1] - 1.001)
        i = jnp.clip(jax.lax.stop_gradient(x).astype(jnp.int32) - 1, 0, table.shape[1] - 4)
        t = x - i.astype(x.dtype)
        # cubic Lagrange interpolation at 0, 1, 2, 3
        w = (
            -(t - 1) * (t - 2) * (t - 3) / 6,
            t * (t - 2) * (t - 3) / 2,
            -t * (t - 1) * (t - 3) / 2,
            t * (t - 1) * (t - 2) / 6,
        )
        ln_profile = sum(w[k] * table[line, i + k, layer] for k in range(4))
        profile = jnp.exp(ln_profile) + a[self.pair_line] / (np.float32(np.pi) * (u * u + 1.0))
        at_nodes = jax.ops.segment_sum(
            strength[self.pair_line] * profile, self.pair_node, self.n_nodes, indices_are_sorted=True
        )
        return from_nodes(self.first, self.weights, at_nodes)

    def _profiles(self, ln_temperature, ln_ne) -> Float[Array, "n_lines n_u n_depth"]:
        """ln(profile × Doppler width), linear between the tabulated ln T and ln n_e; constant beyond them."""

        def ends(value, axis, n):
            x = jnp.clip((value - axis[0]) / axis[1], 0.0, n - 1.001)
            i = jax.lax.stop_gradient(x).astype(jnp.int32)
            return i, x - i.astype(x.dtype)

        i, wi = ends(ln_ne, self.axes[1], self.table.shape[2])
        k, wk = ends(ln_temperature, self.axes[2], self.table.shape[3])
        corner = lambda di, dk: self.table[:, :, i + di, k + dk]
        return (1 - wi) * ((1 - wk) * corner(0, 0) + wk * corner(0, 1)) + wi * (
            (1 - wk) * corner(1, 0) + wk * corner(1, 1)
        )


def _self_broadening(levels):
    """Width (rad/s per H I per cm^3, full width at half maximum) at 10,000 K and its exponent in T, as `lines._van_der_waals`."""
    speed = np.sqrt(8 * K_BOLTZMANN * 1e4 / np.pi / ATOMIC_MASS * 2.0 / HYDROGEN_MASS)  # cm/s
    width, exponent = np.zeros(len(levels)), np.zeros(len(levels))
    for i, pair in enumerate(levels):
        if pair in SELF_BROADENING:
            sigma, alpha = SELF_BROADENING[pair]
            width[i] = abo_width(sigma * BOHR_RADIUS**2, alpha, speed)
            exponent[i] = 0.5 * (1 - alpha)
    return width, exponent
