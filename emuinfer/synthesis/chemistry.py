"""Chemical equilibrium of the elements beside hydrogen: what molecules leave of C, N, O and of all that forms oxides and hydrides.

Molecules are traces beside H I and H2, so electrons, H I and H2 come from `eos`. Unknown are the neutral atoms of C, N, O and Si,
which CO, CN, C2, N2, CH, NH, OH, SiO (and SiH) bind; all but C follow in closed form once C is known. Other elements lose atoms to
their oxides and hydrides without changing O and H. Molecules of three atoms and more, sulphides and NO are left out: they matter
below 3000 K only.
"""

import functools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import EV_OVER_K, K_BOLTZMANN
from . import eos

DATA = Path(__file__).parents[1] / "data" / "physics" / "molecules.npz"
CARBON, NITROGEN, OXYGEN, SILICON = 5, 6, 7, 13  # atomic number less one


@functools.cache
def constants() -> dict[str, np.ndarray]:
    """The table built by `recipes/molecules.py`."""
    with np.load(DATA) as file:
        return {key: file[key] for key in file.files}


class Molecules(eqx.Module):
    """Equilibrium constants of oxides and hydrides of all elements, of C2, CN and N2 (Barklem & Collet 2016, A&A 588, A96)."""

    ln_k: Float[Array, "n_temperatures n_molecules"]
    energy: Float[Array, " n_molecules"]
    t_start: float = eqx.field(static=True)
    t_step: float = eqx.field(static=True)

    def __init__(self):
        data = constants()
        families = ("oxide", "hydride", "other")
        ln_k = np.concatenate([data[f"{family}_ln_k"] for family in families])
        self.ln_k = jnp.asarray(ln_k.T, jnp.float32)
        self.energy = jnp.asarray(np.concatenate([data[f"{family}_energy"] for family in families]), jnp.float32)
        self.t_start, self.t_step = float(data["temperature"][0]), float(np.diff(data["temperature"])[0])

    def association(self, temperature: Float[Array, "*n"]) -> tuple:
        """n_AB / (n_A n_B) in cm^3: of oxides and hydrides `(*n, 92)`, and of C2, CN, N2 `(*n, 3)`.

        Below 1500 K, where the tables end, they stay what they are there.
        """
        x = jnp.clip((temperature - self.t_start) / self.t_step, 0.0, len(self.ln_k) - 1.001)
        i = jax.lax.stop_gradient(x).astype(jnp.int32)
        w, t = (x - i.astype(x.dtype))[..., None], jnp.maximum(temperature, self.t_start)[..., None]
        ln_k = (1.0 - w) * self.ln_k[i] + w * self.ln_k[i + 1] - self.energy * (EV_OVER_K / t)
        value = jnp.exp(jnp.minimum(jnp.log(K_BOLTZMANN * t) - ln_k, 46.0))
        return value[..., :92], value[..., 92:184], value[..., 184:]


def _nitrogen(carbon, h1, amount, charge, k_nh, k_cn, k_n2):
    linear = charge + k_nh * h1 + k_cn * carbon
    return 2.0 * amount / (linear + jnp.sqrt(linear * linear + 8.0 * k_n2 * amount))


def _oxygen(carbon, h1, amount, charge, k_oh, k_co, silicon, k_sio):
    """Neutral O from C; `silicon` = number of Si nuclei and the number for each neutral one where there is no SiO."""
    linear = charge + k_oh * h1 + k_co * carbon
    kappa = jnp.clip(k_sio * amount / (linear * silicon[1]), 1e-20, 1e15)
    b = 1.0 + kappa * (silicon[0] / amount - 1.0)
    root = jnp.sqrt(b * b + 4.0 * kappa)
    share = jnp.where(b > 0.0, 2.0 / (jnp.maximum(b, 0.0) + root), (root - jnp.minimum(b, 0.0)) / (2.0 * kappa))
    return share * amount / linear


def _carbon_nuclei(ln_carbon, h1, carbon, nitrogen, oxygen, k_ch, k_c2, k_cn, k_co):
    """ln of the number of C nuclei that belongs to the number of neutral C atoms."""
    n_c = jnp.exp(ln_carbon)
    n_n, n_o = _nitrogen(n_c, h1, *nitrogen), _oxygen(n_c, h1, *oxygen)
    linear = carbon[1] + k_ch * h1 + k_cn * n_n + k_co * n_o
    return jnp.log(n_c) + jnp.log(linear + 2.0 * k_c2 * n_c)


def solve(
    molecules: Molecules,
    tables: eos.ElementTables,
    temperature: Float[Array, " n_depth"],
    state: dict,
    abundance: Float[Array, " 92"],
    iterations: int = 18,
) -> dict[str, Float[Array, "..."]]:
    """What is left of each element, and the neutral atoms that molecules are made of.

    `state`: of `eos.solve`. **Returns** `ln_free` `(n_depth, 92)`: ln of the share of nuclei that are in atoms and ions; `neutral`
    `(n_depth, 92)`: neutral atoms in cm^-3, H I among them.

    Newton's iteration for ln n(C I), kept between bounds that hold the solution and halved where a step leaves them: the number of
    C nuclei rises with it. Gradients flow through the last step, as in `eos.solve`.
    """
    h1, nuclei = state["h1"], state["nuclei"][:, None] * abundance
    fractions = eos.ionisation_fractions(tables.ln_saha(temperature), state["ln_ne"][:, None])
    neutral_share = jnp.maximum(fractions[..., 0], 1e-30)
    charge = 1.0 / neutral_share  # nuclei in atoms and ions for each neutral atom
    oxide, hydride, other = molecules.association(temperature)
    k_c2, k_cn, k_n2 = other[:, 0], other[:, 1], other[:, 2]
    carbon = (nuclei[:, CARBON], charge[:, CARBON])
    nitrogen = (nuclei[:, NITROGEN], charge[:, NITROGEN], hydride[:, NITROGEN], k_cn, k_n2)
    silicon = (nuclei[:, SILICON], charge[:, SILICON] + hydride[:, SILICON] * h1)
    oxygen = (nuclei[:, OXYGEN], charge[:, OXYGEN], hydride[:, OXYGEN], oxide[:, CARBON], silicon, oxide[:, SILICON])
    args = (h1, carbon, nitrogen, oxygen, hydride[:, CARBON], k_c2, k_cn, oxide[:, CARBON])

    def excess(x, args):
        return _carbon_nuclei(x, *args) - jnp.log(args[1][0])

    def newton(x, args):
        value, slope = jax.jvp(lambda y: excess(y, args), (x,), (jnp.ones_like(x),))
        return value, x - value / jnp.maximum(slope, 1e-3)

    fixed = jax.tree.map(jax.lax.stop_gradient, args)
    most = jnp.log(fixed[1][0]) - jnp.log(fixed[1][1])
    bound = (
        fixed[1][1]
        + fixed[4] * fixed[0]
        + fixed[7] * nuclei[:, OXYGEN]
        + k_cn * nuclei[:, NITROGEN]
        + 2.0 * k_c2 * fixed[1][0]
    )
    least = jax.lax.stop_gradient(jnp.log(fixed[1][0]) - jnp.log(bound)) - 0.1

    def step(_, bracket):
        low, high, x = bracket
        value, new = newton(x, fixed)
        low, high = jnp.where(value < 0.0, x, low), jnp.where(value < 0.0, high, x)
        return low, high, jnp.where((new > low) & (new < high), new, 0.5 * (low + high))

    _, _, x = jax.lax.fori_loop(0, iterations, step, (least, most, 0.5 * (least + most)))
    ln_carbon = newton(jax.lax.stop_gradient(x), args)[1]
    n_c = jnp.exp(ln_carbon)
    n_n, n_o = _nitrogen(n_c, h1, *nitrogen), _oxygen(n_c, h1, *oxygen)
    per_neutral = charge + oxide * n_o[:, None] + hydride * h1[:, None]
    neutral = nuclei / per_neutral
    for index, value in ((0, h1), (CARBON, n_c), (NITROGEN, n_n), (OXYGEN, n_o)):
        neutral = neutral.at[:, index].set(value)
    ln_free = jnp.log(neutral) + jnp.log(charge) - jnp.log(nuclei)
    return {"ln_free": ln_free.at[:, 0].set(0.0), "neutral": neutral}
