"""Model atmospheres: temperature as a function of optical depth, and hydrostatic equilibrium."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import ATOMIC_MASS, LN_10
from . import eos, opacity

REFERENCE_WAVELENGTH = 5000.0  # Å, of the optical depth scale
C3K_TABLE = Path(__file__).parents[1] / "data" / "physics" / "c3k_temperature.npz"


def depth_grid(n_depth: int = 56, top: float = -6.0, bottom: float = 1.8) -> np.ndarray:
    """log10 of the optical depth at 5000 Å of the layers, from the top down."""
    return np.linspace(top, bottom, n_depth)


def hopf(tau):
    """(T/Teff)^4 of the grey atmosphere with the fit q = 0.7104 - 0.1331 exp(-3.4488 tau) to Hopf's function.

    Mihalas (1978), Stellar Atmospheres, section 3-3.
    """
    return 0.75 * (tau + 0.7104 - 0.1331 * jnp.exp(-3.4488 * tau))


def krishna_swamy(tau):
    """(T/Teff)^4 of Krishna Swamy (1966, ApJ 145, 174), an analytic fit to the Sun."""
    return 0.75 * (tau + 1.39 - 0.815 * jnp.exp(-2.54 * tau) - 0.025 * jnp.exp(-30.0 * tau))


def vernazza(tau):
    """(T/Teff)^4 of the fit by Sonoi et al. (2019, A&A 621, A84) to model C of Vernazza et al. (1981)."""
    return 0.75 * (tau + 1.036 - 0.3134 * jnp.exp(-2.448 * tau) - 0.2959 * jnp.exp(-30.0 * tau))


def small_network(parameters, x):
    """Two hidden layers with tanh; `parameters` is [W0, b0, W1, b1, W2, b2], `x` (..., n_in)."""
    w0, b0, w1, b1, w2, b2 = parameters
    return jnp.tanh(jnp.tanh(x @ w0 + b0) @ w1 + b1) @ w2 + b2


class TemperatureTable(eqx.Module):
    """T/Teff of ATLAS12 models on tabulated log10 tau_5000, as a smooth function of labels (`build_temperature_table`)."""

    log_tau: Float[Array, " n_table"]
    parameters: list
    centre: Float[Array, " n_names"]
    half_width: Float[Array, " n_names"]
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, path=C3K_TABLE):
        with np.load(path) as file:
            for name in ("log_tau", "centre", "half_width"):
                setattr(self, name, jnp.asarray(file[name], jnp.float32))
            self.parameters = [jnp.asarray(file[f"p{i}"], jnp.float32) for i in range(6)]
            self.names = tuple(file["names"].tolist())

    def __call__(self, labels: Float[Array, " n_names"], ln_tau: Float[Array, " n_depth"]) -> Float[Array, " n_depth"]:
        """T/Teff at `ln_tau`; `labels` in the order of `names`."""
        ln_ratio = small_network(self.parameters, (labels - self.centre) / self.half_width)
        return jnp.exp(jnp.interp(ln_tau / LN_10, self.log_tau, ln_ratio))


ANALYTIC = {"hopf": hopf, "krishna-swamy": krishna_swamy, "vernazza": vernazza}


def opacity_5000(tables, temperature, pressure, abundance, full=False):
    """Continuous absorption coefficient at 5000 Å per gram (cm^2/g), with the equation of state's densities.

    `full`: with what `opacity.continuum` has beside its main terms.
    """
    state = eos.solve(tables, temperature, pressure, abundance)
    if full:
        state["protons"], state["ions"] = _ions(tables, temperature, state, abundance)
    he1 = helium_neutral(tables, temperature, state, abundance)
    alpha = opacity.continuum(REFERENCE_WAVELENGTH, temperature, state, he1)
    return alpha / density(tables, state, abundance), state, alpha


def _ions(tables, temperature, state, abundance):
    """Densities of protons and of singly charged ions of metals, cm^-3."""
    main = jnp.asarray(tables.main)
    fractions = eos.ionisation_fractions(tables.ln_saha(temperature, tables.main), state["ln_ne"][..., None])
    protons = state["h1"] * jnp.exp(jnp.minimum(tables.ln_saha(temperature, (0,))[..., 0, 0] - state["ln_ne"], 20.0))
    return protons, state["nuclei"] * jnp.sum((fractions[..., 1] * abundance[main])[..., 2:], axis=-1)


def helium_neutral(tables, temperature, state, abundance):
    """Density of He I in cm^-3."""
    fractions = eos.ionisation_fractions(tables.ln_saha(temperature, (1,)), state["ln_ne"][..., None])
    return state["nuclei"] * abundance[1] * fractions[..., 0, 0]


def density(tables, state, abundance):
    """Mass density in g cm^-3."""
    return state["nuclei"] * (jnp.sum(abundance * tables.mass) * ATOMIC_MASS)


def hydrostatic(
    tables: eos.ElementTables,
    ln_tau: Float[Array, " n_depth"],
    temperature: Float[Array, " n_depth"],
    gravity: Float[Array, ""],
    abundance: Float[Array, " 92"],
    full: bool = False,
) -> Float[Array, " n_depth"]:
    """Gas pressure (dyn cm^-2) of each layer from dP/dtau = g/kappa_5000, shape of `ln_tau`.

    Heun's method for ln P over ln tau. At the top the opacity per gram is taken to grow with the pressure (H-), so
    P^2 = 2 g tau P/kappa there. Radiation and turbulent pressure are neglected.
    """

    n_top, n_layer = 8, len(ln_tau)
    # One scan evaluates the slope once per step, so that the equation of state is compiled once: `n_top` steps that find
    # the pressure of the first layer, then two per layer (predict from its slope, correct with the next layer's).
    layer = np.concatenate([np.zeros(n_top, int), np.repeat(np.arange(1, n_layer), 2)])
    layer[n_top::2] -= 1
    kind = np.concatenate([np.zeros(n_top, int), np.tile([1, 2], n_layer - 1)])
    to_next = np.append(np.arange(1, n_layer), n_layer - 1)[layer]
    h = jnp.where(kind == 1, ln_tau[to_next] - ln_tau[layer], ln_tau[layer] - ln_tau[np.maximum(layer - 1, 0)])

    def step(carry, inputs):
        ln_p, derivative, trial = carry
        kind, ln_t, temp, h = inputs
        kappa, _, _ = opacity_5000(tables, temp, jnp.exp(trial), abundance, full)
        slope = gravity * jnp.exp(ln_t - trial) / kappa
        top = trial + 0.5 * jnp.log(2.0 * slope)
        corrected = ln_p + 0.5 * h * (derivative + slope)
        ln_p = jnp.where(kind == 0, top, jnp.where(kind == 1, ln_p, corrected))
        trial = jnp.where(kind == 1, ln_p + h * slope, ln_p)
        return (ln_p, jnp.where(kind == 1, slope, derivative), trial), ln_p

    start = LN_10 + 0.6 * jnp.log(gravity / 27500.0)
    steps = (jnp.asarray(kind), ln_tau[layer], temperature[layer], h)
    _, ln_p = jax.lax.scan(step, (start, jnp.zeros_like(start), start), steps)
    return jnp.exp(ln_p[np.append(n_top - 1, np.arange(n_top + 1, len(kind), 2))])
