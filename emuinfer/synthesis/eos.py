"""LTE equation of state: Saha ionisation of all elements, H- and H2, electron density at given temperature and pressure.

Everything is float32 and works on arrays of any shape; densities are in cm^-3, pressures in dyn cm^-2.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import EV_OVER_K, K_BOLTZMANN, LN_10, LN_SAHA, THETA_TEMPERATURE
from .elements import element_data

E_AFFINITY = 0.754195  # electron affinity of H, eV (Lykke, Murray & Lineberger 1991)
# log10 of Kp(H2) = P(H)^2 / P(H2) in dyn cm^-2 as a polynomial in 5040/T (Tsuji 1973, A&A 23, 411).
LOG_KP_H2 = (6.3021e-4, -1.4149e-2, 1.2572e-1, -5.1172, 12.739)
# Elements whose electrons or number count; the others are less abundant than these by far.
MAIN = (
    "H",
    "He",
    "C",
    "N",
    "O",
    "Ne",
    "Na",
    "Mg",
    "Al",
    "Si",
    "S",
    "Ar",
    "K",
    "Ca",
    "Ti",
    "V",
    "Cr",
    "Mn",
    "Fe",
    "Co",
    "Ni",
)


class ElementTables(eqx.Module):
    """Device copies of the element data."""

    ln_u: Float[Array, "n_temperatures 92 3"]
    chi: Float[Array, "92 2"]
    mass: Float[Array, " 92"]
    t_start: float = eqx.field(static=True)
    t_step: float = eqx.field(static=True)
    main: tuple[int, ...] = eqx.field(static=True)

    def __init__(self):
        data = element_data()
        self.ln_u = jnp.asarray(np.moveaxis(data["ln_partition_function"], -1, 0), jnp.float32)
        self.chi = jnp.asarray(data["ionisation_energy"], jnp.float32)
        self.mass = jnp.asarray(data["mass"], jnp.float32)
        self.t_start, self.t_step = float(data["temperature"][0]), float(np.diff(data["temperature"])[0])
        symbols = data["symbol"].tolist()
        self.main = tuple(symbols.index(s) for s in MAIN)

    def ln_partition(self, temperature: Float[Array, "*n"], elements=None) -> Float[Array, "*n n_elements 3"]:
        """ln U of the first three stages, shape (..., n_elements, 3); linear between the tabulated temperatures."""
        table = self.ln_u if elements is None else self.ln_u[:, jnp.asarray(elements)]
        x = jnp.clip((temperature - self.t_start) / self.t_step, 0.0, len(self.ln_u) - 1.001)
        i = jax.lax.stop_gradient(x).astype(jnp.int32)
        w = (x - i.astype(x.dtype))[..., None, None]
        return (1.0 - w) * table[i] + w * table[i + 1]

    def ln_saha(self, temperature: Float[Array, "*n"], elements=None) -> Float[Array, "*n n_elements 2"]:
        """ln(n_{j+1} n_e / n_j) for j = I, II, shape (..., n_elements, 2) (Saha 1920)."""
        ln_u = self.ln_partition(temperature, elements)
        chi = self.chi if elements is None else self.chi[jnp.asarray(elements)]
        t = temperature[..., None, None]
        return jnp.log(2.0) + LN_SAHA + 1.5 * jnp.log(t) - chi * EV_OVER_K / t + jnp.diff(ln_u, axis=-1)


def ionisation_fractions(ln_saha: Float[Array, "*n 2"], ln_ne: Float[Array, "*#n"]) -> Float[Array, "*n 3"]:
    """Fractions of an element in stages I, II, III; `ln_saha` (..., 2), `ln_ne` broadcastable to (...)."""
    steps = ln_saha - ln_ne[..., None]
    ln_ratio = jnp.stack([jnp.zeros_like(steps[..., 0]), steps[..., 0], steps[..., 0] + steps[..., 1]], axis=-1)
    return jax.nn.softmax(ln_ratio, axis=-1)


def h_minus_constant(temperature: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """n(H-) / (n(H I) n_e) in cm^3, from Saha's equation with U(H-) = 1 and U(H I) = 2."""
    return 0.25 * jnp.exp(-LN_SAHA - 1.5 * jnp.log(temperature) + E_AFFINITY * EV_OVER_K / temperature)


def h2_constant(temperature: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """n(H2) / n(H I)^2 in cm^3 (Tsuji 1973); zero above 12,000 K, where the fit ends and H2 is gone."""
    theta = THETA_TEMPERATURE / temperature
    ln_kp = LN_10 * jnp.polyval(jnp.asarray(LOG_KP_H2, jnp.float32), jnp.maximum(theta, 0.42))
    return jnp.exp(jnp.log(K_BOLTZMANN * temperature) - ln_kp)


def _hydrogen(total, ratio, k_h2, others):
    """n(H I) and the density of H nuclei from the number of heavy particles `total`.

    `ratio` = n(H II)/n(H I), `others` = sum of the abundances of all other elements relative to H:
    total = (1 + others) (1 + ratio) n + (1 + 2 others) K n^2.
    """
    linear, square = (1.0 + others) * (1.0 + ratio), (1.0 + 2.0 * others) * k_h2
    neutral = 2.0 * total / (linear + jnp.sqrt(linear**2 + 4.0 * square * total))
    return neutral, neutral * (1.0 + ratio) + 2.0 * (k_h2 * neutral) * neutral


def _positive_charges(ln_ne, total, ln_saha, abundance, k_h2, k_hminus):
    """ln of the density of positive charges divided by 1 + n(H-)/n_e: equals ln n_e at the solution."""
    heavy = total - jnp.exp(ln_ne)
    fractions = ionisation_fractions(ln_saha, ln_ne[..., None])
    ratio = jnp.exp(jnp.minimum(ln_saha[..., 0, 0] - ln_ne, 20.0))
    neutral, nuclei = _hydrogen(jnp.maximum(heavy, 1e-3 * total), ratio, k_h2, jnp.sum(abundance[..., 1:], axis=-1))
    charge = (fractions[..., 1] + 2.0 * fractions[..., 2])[..., 1:]
    positive = ratio * neutral + nuclei * jnp.sum(abundance[..., 1:] * charge, axis=-1)
    return jnp.log(positive) - jnp.log1p(k_hminus * neutral)


def solve(
    tables: ElementTables,
    temperature: Float[Array, "*n"],
    pressure: Float[Array, "*n"],
    abundance: Float[Array, " 92"],
    iterations: int = 10,
) -> dict[str, Float[Array, "*n"]]:
    """Densities in LTE at temperature (K) and gas pressure (dyn cm^-2), both of shape (...).

    `abundance`: N_X/N_H of all 92 elements, shape (92,). Returns a dict of arrays of shape (...): `ln_ne`, `h1`, `h2`
    (molecules), `nuclei` (H nuclei), all in cm^-3 except `ln_ne` (natural logarithm), and `total` (all particles).

    Newton's iteration in ln n_e, which converges from any start because ln(charges) falls monotonically with ln n_e;
    gradients flow through the last step only, which the implicit function theorem makes exact at the solution.
    """
    main = tables.main
    total = pressure / (K_BOLTZMANN * temperature)
    args = (total, tables.ln_saha(temperature, main), abundance[jnp.asarray(main)],
            h2_constant(temperature), h_minus_constant(temperature))  # fmt: skip
    upper = jnp.log(total) - 0.65  # n_e < 0.52 of all particles

    def newton(ln_ne, args):
        value, slope = jax.jvp(lambda x: _positive_charges(x, *args) - x, (ln_ne,), (jnp.ones_like(ln_ne),))
        return jnp.clip(ln_ne - value / slope, upper - 30.0, upper)

    fixed = jax.tree.map(jax.lax.stop_gradient, args)
    start = jax.lax.stop_gradient(upper) - 5.0
    start = jax.lax.fori_loop(0, iterations, lambda _, x: newton(x, fixed), start)
    ln_ne = newton(jax.lax.stop_gradient(start), args)
    ratio = jnp.exp(jnp.minimum(args[1][..., 0, 0] - ln_ne, 20.0))
    neutral, nuclei = _hydrogen(total - jnp.exp(ln_ne), ratio, args[3], jnp.sum(args[2][..., 1:], axis=-1))
    return {"ln_ne": ln_ne, "h1": neutral, "h2": (args[3] * neutral) * neutral, "nuclei": nuclei, "total": total}
