"""Continuous opacity: H- (bound-free, free-free), H I, Rayleigh scattering of H I, He I and H2, Thomson scattering.

Bound-free absorption of metals, He- and H2- free-free and H2+ are left out (a few per cent at 5200 Å at most).
Absorption coefficients are per cm; wavelengths in Å. Scattering is treated as absorption.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import EV_OVER_K, HC_OVER_K, IONISATION_OF_HYDROGEN, K_BOLTZMANN, LN_SAHA, THETA_TEMPERATURE

BOHR_RADIUS = 5.29177211e-9  # cm (CODATA 2018)
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
H2_PLUS = (-91.4156, -1.25097, -0.229336, -0.0390145, -0.0031672)


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


def occupation(level, electrons, h1, he1):
    """Probability that level n of H I is not dissolved, 0 to 1; densities in cm^-3.

    Hummer & Mihalas (1988, ApJ 331, 794), equation 4.71: fields of ions, whose number is that of electrons, with K_n of its equation
    4.24, and collisions with H I and He I in their ground states, with radii as in Hubeny, Hummer & Lanz (1994, A&A 282, 151),
    appendix A, halved as white dwarfs demand (Bergeron, Wesemael & Fontaine 1991, ApJ 367, 253).
    """
    n2 = level * level
    field = jnp.where(
        level > 3.0, 16.0 / 3.0 * n2 * (level + 7.0 / 6.0) / ((level + 1.0) ** 2 * (n2 + level + 0.5)), 1.0
    )
    binding = IONISATION_OF_HYDROGEN / n2
    # e^2 = 1.4399645e-7 eV cm
    charged = 16.0 * (1.4399645e-7 / (binding * jnp.sqrt(field))) ** 3 * electrons
    radius = jnp.sqrt(2.5 * n2 * n2 + 0.5 * n2) * BOHR_RADIUS
    of_h1, of_he1 = (0.5 * (radius + np.float32(r * BOHR_RADIUS)) for r in (1.732, 1.02))
    neutral = h1 * of_h1**3 + he1 * of_he1**3
    return jnp.exp(-4.0 / 3.0 * np.pi * (charged + neutral))


def hydrogen_with_edges(wavelength, temperature, ln_ne, h1, he1):
    """As `hydrogen`, for 3647 Å < wavelength < 14,580 Å: levels 2 to 6 with their edges, higher ones integrated (Unsöld 1955).

    Beyond its edge a level absorbs by transitions to dissolved levels (Däppen, Anderson & Mihalas 1987, ApJ 319, 195): the
    cross-section goes on as lambda^3 there, times the probability that the level that the photon would reach is dissolved.
    """
    theta = THETA_TEMPERATURE / temperature
    energy, rydberg = IONISATION_OF_HYDROGEN, 1.0968e-3  # eV, 1/Å
    gaunt = 0.3456 / (wavelength * rydberg) ** (1.0 / 3.0)
    electrons, total = jnp.exp(ln_ne), 0.0
    for n in (2, 3, 4, 5, 6):
        g = 1.0 - gaunt * (wavelength * rydberg / n**2 - 0.5)
        share = 1.0
        if n < 4:
            reached = jnp.maximum(1.0 / n**2 - 1.0 / (rydberg * wavelength), 1e-5) ** -0.5
            share = 1.0 - occupation(reached, electrons, h1, he1)
        total = total + share * g / n**3 * 10.0 ** (-theta * energy * (1.0 - 1.0 / n**2))
    g_free = 1.0 + gaunt * (0.4342945 * wavelength / (theta * 1.2398e4) + 0.5)
    high = 0.4342945 / (2.0 * theta * energy)
    edge = 10.0 ** (-theta * energy * (1.0 - 1.0 / 49.0))
    limit = 10.0 ** (-theta * energy)
    total = total + high * (edge - limit) + high * g_free * limit
    return (1.0449e-26 * wavelength**3) * total * stimulated(wavelength, temperature) * h1


def metals(wavelength, temperature, ln_ne, ions):
    """Bound-free and free-free absorption of neutral metals with `ions` singly charged ones (cm^-3).

    Excited levels, of whom photons of these wavelengths ionise those within 3 eV of the limit, as those of hydrogen, and their sum as
    an integral (Unsöld 1955, Physik der Sternatmosphären, section 46): with Saha's equation for the neutral atoms the sum depends on
    ions and electrons alone. No edges and no resonances.
    """
    photon = HC_OVER_K / (wavelength * temperature)
    width = temperature / (2.0 * IONISATION_OF_HYDROGEN * EV_OVER_K)
    neutral = ions * jnp.exp(ln_ne - LN_SAHA - 1.5 * jnp.log(temperature))  # 2 N_I U_II / U_I exp(-chi / kT)
    return (1.0449e-26 * wavelength**3) * width * jnp.expm1(photon) * neutral


def h2_plus(wavelength, temperature, h1, protons):
    """Absorption by pairs of H I and protons, bound and free; the fit of Kurucz (1970, SAO Special Report 309) to Bates (1952)."""
    f = 2997.92458 / wavelength  # frequency in 1e15 Hz
    # The fit's polynomial in the logarithm of the frequency, about that of 5000 Å, which float32 can hold
    x = jnp.log(f / 0.599584916)
    ln_strength = H2_PLUS[0] + x * (H2_PLUS[1] + x * (H2_PLUS[2] + x * (H2_PLUS[3] + x * H2_PLUS[4])))
    energy = -7.342e-3 + f * (-2.409 + f * (1.028 + f * (-0.4230 + f * (0.1224 - 0.01351 * f))))  # eV
    # exp(-89) of the fit is taken apart: h1 * protons alone overflows float32
    scale = jnp.exp(ln_strength + 80.0 - energy * EV_OVER_K / temperature) * stimulated(wavelength, temperature)
    return scale * (h1 * np.float32(np.exp(-40.0))) * (protons * np.float32(np.exp(-40.0)))


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
    """Total continuous absorption coefficient in cm^-1; arguments broadcast against each other.

    With `"ions"` in `state` (`structure.opacity_5000` with `full`), the edges of hydrogen, H2+ and metals are in it.
    """
    ln_ne, h1 = state["ln_ne"], state["h1"]
    common = h_minus(wavelength, temperature, ln_ne, h1) + scattering(wavelength, ln_ne, h1, he1, state["h2"])
    if "ions" not in state:
        return common + hydrogen(wavelength, temperature, h1)
    common = common + hydrogen_with_edges(wavelength, temperature, ln_ne, h1, he1)
    return (
        common
        + metals(wavelength, temperature, ln_ne, state["ions"])
        + h2_plus(wavelength, temperature, h1, state["protons"])
    )


def planck(wavelength: float | Float[Array, "*#n"], temperature: Float[Array, "*#n"]) -> Float[Array, "*n"]:
    """B_lambda in 1e6 erg s^-1 cm^-2 Å^-1 sr^-1 (wavelength in Å)."""
    # 2 h c^2 = 1.191042972e-5 erg cm^2 s^-1 = 1.191042972e27 erg s^-1 cm^-2 Å^4
    return 1.191042972e6 / (wavelength * 1e-3) ** 5 / jnp.expm1(HC_OVER_K / (wavelength * temperature))
