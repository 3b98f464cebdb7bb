"""Continuous opacity: H- (bound-free, free-free), H I, Rayleigh scattering of H I, He I and H2, Thomson scattering.

Bound-free absorption of metals, He- and H2- free-free and H2+ are left out (a few per cent at 5200 Å at most).
Absorption coefficients are per cm; wavelengths in Å. Scattering is treated as absorption.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..constants import HC_OVER_K, IONISATION_OF_HYDROGEN, K_BOLTZMANN, THETA_TEMPERATURE

# John (1988, A&A 193, 189), table 2: bound-free coefficients C_1..C_6.
HMINUS_BF = (152.519, 49.534, -118.858, 92.536, -34.194, 4.982)
# John (1988), table 3a (wavelength > 0.3645 µm): rows n = 2..6, columns A..F.
HMINUS_FF = (
    (2483.3460, 285.8270, -2054.2910, 2827.7760, -1341.5370, 208.9520),
    (-3449.8890, -1158.3820, 8746.5230, -11485.6320, 5303.6090, -812.9390),
    (2200.0400, 2427.7190, -13651.1050, 16755.5240, -7510.4940, 1132.7380),
    (-696.2710, -1841.4000, 8624.9700, -10051.5300, 4400.0670, -655.0200),
    (88.2830, 444.5170, -1863.8640, 2095.2880, -901.7880, 132.9850),
)


def stimulated(wavelength: float | Float[Array, "*#n"], temperature: Float[Array, "*#n"]) -> Float[Array, "*n"]:
    """1 - exp(-hc / lambda k T)."""
    return -jnp.expm1(-HC_OVER_K / (wavelength * temperature))


def h_minus(wavelength, temperature, ln_ne, h1):
    """Bound-free and free-free absorption of H- (John 1988, equations 3 to 6), for 3645 Å < wavelength < 16,419 Å."""
    micron = wavelength * 1e-4
    x = 1.0 / micron - 1.0 / 1.6419
    shape = sum(c * x ** (0.5 * n) for n, c in enumerate(HMINUS_BF))
    sigma = micron**3 * x**1.5 * shape  # 1e-18 cm^2
    bound_free = 0.750 * temperature**-2.5 * jnp.exp(1.439e4 / (1.6419 * temperature)) * sigma
    bound_free = bound_free * stimulated(wavelength, temperature) * 1e8  # in 1e-26 cm^4 dyn^-1
    free_free = 0.0
    for n, (a, b, c, d, e, f) in enumerate(HMINUS_FF, start=2):
        term = micron**2 * a + b + c / micron + d / micron**2 + e / micron**3 + f / micron**4
        free_free = free_free + (THETA_TEMPERATURE / temperature) ** (0.5 * (n + 1)) * term
    free_free = 1e-3 * free_free  # in 1e-26 cm^4 dyn^-1
    electron_pressure = jnp.exp(ln_ne) * K_BOLTZMANN * temperature
    return (bound_free + free_free) * electron_pressure * (h1 * 1e-26)


def hydrogen(wavelength, temperature, h1):
    """Bound-free and free-free absorption of H I for 3647 Å < wavelength < 8204 Å (Gray 2005, equations 8.4 to 8.10).

    Levels 3 to 5 are summed, higher ones integrated (Unsöld 1955).
    """
    theta = THETA_TEMPERATURE / temperature
    energy, rydberg = IONISATION_OF_HYDROGEN, 1.0968e-3  # eV, 1/Å
    gaunt = 0.3456 / (wavelength * rydberg) ** (1.0 / 3.0)
    total = 0.0
    for n in (3, 4, 5):
        g = 1.0 - gaunt * (wavelength * rydberg / n**2 - 0.5)
        total = total + g / n**3 * 10.0 ** (-theta * energy * (1.0 - 1.0 / n**2))
    g_free = 1.0 + gaunt * (0.4342945 * wavelength / (theta * 1.2398e4) + 0.5)
    high = 0.4342945 / (2.0 * theta * energy)
    edge = 10.0 ** (-theta * energy * (1.0 - 1.0 / 36.0))
    limit = 10.0 ** (-theta * energy)
    total = total + high * (edge - limit) + high * g_free * limit
    return (1.0449e-26 * wavelength**3) * total * stimulated(wavelength, temperature) * h1


def scattering(wavelength, ln_ne, h1, he1, h2):
    """Thomson scattering and Rayleigh scattering of H I, H2 (Dalgarno 1962; Dalgarno & Williams 1962) and He I.

    The He I fit is that of Kurucz (1970, SAO Special Report 309).
    """
    w2 = (wavelength * 1e-3) ** 2
    on_h1 = (5.799e-25 + 1.422e-24 / w2 + 2.784e-24 / w2**2) / w2**2
    on_h2 = (8.14e-25 + 1.28e-24 / w2 + 1.61e-24 / w2**2) / w2**2
    on_he = 5.484e-26 / w2**2 * (1.0 + (0.244 + 0.0594 / (w2 - 0.290)) / w2) ** 2
    return 6.6524e-25 * jnp.exp(ln_ne) + on_h1 * h1 + on_h2 * h2 + on_he * he1


def continuum(
    wavelength, temperature: Float[Array, "*#n"], state: dict, he1: Float[Array, "*#n"]
) -> Float[Array, "*n"]:
    """Total continuous absorption coefficient in cm^-1; arguments broadcast against each other."""
    return (
        h_minus(wavelength, temperature, state["ln_ne"], state["h1"])
        + hydrogen(wavelength, temperature, state["h1"])
        + scattering(wavelength, state["ln_ne"], state["h1"], he1, state["h2"])
    )


def planck(wavelength: float | Float[Array, "*#n"], temperature: Float[Array, "*#n"]) -> Float[Array, "*n"]:
    """B_lambda in 1e6 erg s^-1 cm^-2 Å^-1 sr^-1 (wavelength in Å)."""
    # 2 h c^2 = 1.191042972e-5 erg cm^2 s^-1 = 1.191042972e27 erg s^-1 cm^-2 Å^4
    return 1.191042972e6 / (wavelength * 1e-3) ** 5 / jnp.expm1(HC_OVER_K / (wavelength * temperature))
