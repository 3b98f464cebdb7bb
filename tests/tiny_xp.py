"""An analytic emulator of low-resolution spectra and a colour, for tests of what needs one: black bodies with features and dust."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

LABELS = ("teff", "logg", "fe_h", "alpha_m", "a_k")
LOWER, UPPER = (4000.0, 1.0, -1.5, -0.2, -0.05), (7500.0, 5.0, 0.5, 0.5, 1.0)
NM = (400, 440, 480, 520, 560, 600, 650, 700, 750, 800, 850, 900)
KINDS = (*(f"xp_bin_{w}" for w in NM), "j_h")
TRUTH = {"teff": 5600.0, "logg": 4.2, "fe_h": -0.3, "alpha_m": 0.15, "a_k": 0.05}
MICRON = np.array([*NM, 1235, 1662]) / 1e3
FACTORS = 0.01 * np.stack([np.linspace(-1, 1, 13), np.cos(np.arange(13.0))], 1)


class BlackBody(eqx.Module):
    """ln B + features of gravity and abundances − 0.92 A, about constants; J − H in magnitudes."""

    factors: np.ndarray = eqx.field(default_factory=lambda: FACTORS.astype(np.float32))
    bend: float = 1.0  # of the dependence of the scatter on the temperature
    labels: tuple = eqx.field(static=True, default=LABELS)
    lower: tuple = eqx.field(static=True, default=LOWER)
    upper: tuple = eqx.field(static=True, default=UPPER)
    kinds: tuple = eqx.field(static=True, default=KINDS)

    def predict(self, labels):
        teff, logg, fe_h, alpha, a_k = labels
        w = jnp.asarray(MICRON, jnp.float32)
        line = lambda at, width: jnp.exp(-0.5 * ((w - at) / width) ** 2)
        x = np.float32(14387.77) / (w * teff)
        ln_f = -5.0 * jnp.log(w) - jnp.log(jnp.expm1(x)) - np.float32(0.921 * 0.37 / 0.39) * a_k * w**-1.6
        ln_f = ln_f - line(0.42, 0.03) * (0.25 * (fe_h + 1.5) + 0.04 * (logg - 3.0)) - 0.1 * line(0.52, 0.02) * alpha
        ln_f = ln_f - 0.05 * line(0.52, 0.02) * logg + 0.03 * line(0.7, 0.2) * fe_h
        mean = jnp.append(ln_f[:-2], np.float32(-2.5 / np.log(10)) * (ln_f[-2] - ln_f[-1]))
        sd = 0.01 * jnp.exp(self.bend * (np.float32(5500.0) - teff) / 5000.0) * jnp.ones(len(self.kinds))
        return mean, sd.astype(jnp.float32)


def observe(emulator, seed=0, truth=TRUTH, error=0.005, level=-30.0):
    """`{kind: (value, error)}` of one star, drawn with all errors; `error` relative, and in mag."""
    rng = np.random.default_rng(seed)
    mean, sd = (
        np.asarray(a, float) for a in emulator.predict(jnp.asarray([truth[n] for n in emulator.labels], jnp.float32))
    )
    noise = np.hypot(sd, error) * rng.standard_normal(len(mean))
    noise += np.asarray(emulator.factors) @ rng.standard_normal(emulator.factors.shape[1])
    fluxes = np.array([k.startswith("xp_bin") for k in emulator.kinds])
    y = mean + noise + level * fluxes
    value = np.where(fluxes, np.exp(np.where(fluxes, y, 0.0)), y)
    return {k: (v, error * v if f else error) for k, v, f in zip(emulator.kinds, value, fluxes)}
