"""Parallax and apparent magnitude as a likelihood of the labels, by way of luminosity and mass.

The labels and a mass make an absolute magnitude,

    M_bol = 4.74 − 2.5 [log M + 4 log(Teff / 5772 K) − (log g − 4.438)],   M_G = M_bol − BC_G(Teff),

(nominal solar values: Prša et al. 2016, AJ 152, 41; M_bol: IAU 2015 resolution B2), and with an extinction A_G the apparent one says
how far the star is. Mass, bolometric correction and law of extinction have errors, all of them Gaussian in magnitudes and integrated
out; the distance is integrated out numerically, under its prior and the parallax. Negative parallaxes need no special care.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .base import LabelLikelihood

SUN = {"teff": 5772.0, "logg": 4.438, "mbol": 4.74}
# Andrae et al. 2018, A&A 616, A8, equation 7 and table 4: coefficients of (Teff − 5772 K)^i; MARCS models, |[Fe/H]| < 0.5.
BC_WARM = (6.000e-2, 6.731e-5, -6.647e-8, 2.859e-11, -7.197e-15)  # 4000–8000 K
BC_COOL = (1.749, 1.977e-3, 3.737e-7, -8.966e-11, -4.183e-14)  # 3300–4000 K
BC_RANGE = (3300.0, 8000.0)  # K, at whose ends the correction stays
BC_SD = 0.04  # mag: their dispersion over log g and [Fe/H] is 0.026 at the Sun and about 0.04 at 7000 K
BC_SD_PER_DEX = 0.05  # mag per dex of distance from the range of [Fe/H] that the formula was made for; a choice
# Torres, Andersen & Giménez 2010, A&ARv 18, 67, table 4: log M of (1, X, X², X³, log² g, log³ g, [Fe/H]), X = log Teff − 4.1.
MASS = (1.5689, 1.3787, 0.4243, 1.139, -0.1425, 0.01969, 0.1010)
MASS_SD = 0.035  # dex: their scatter is 0.027, and the Sun comes out 0.02 too massive
# Giants of one temperature and gravity have many masses; those of APOKASC-2 (Pinsonneault et al. 2018, ApJS 239, 32) lie at
# 0.8 to 2 M_sun. Log-normal, and the dwarfs' relation gives way to it about log g = 3.6.
GIANT_LOG_MASS, GIANT_SD = 0.08, 0.12
# Giants of the halo are old: 0.77 to 0.87 M_sun are expected below [M/H] = −1 (Epstein et al. 2014, ApJL 785, L28).
OLD_LOG_MASS, OLD_SD, OLD_BELOW, OLD_TRANSITION = -0.09, 0.06, -0.9, 0.1
GIANTS_BELOW, TRANSITION = 3.6, 0.1  # dex in log g
# A_G / A_Ks for black bodies through the Gaia DR3 passband and the curve of Gordon et al. 2023 (ApJ 950, 86) with R_V = 3.1, to 1 %
# at 4000–7000 K and A_Ks < 0.6.
A_G_PER_A_K, A_G_PER_K, A_G_BEND = 8.05, 3.9e-4, 0.30
LAW_ERROR = 0.10  # of A_G: between published laws the ratio is 7.3 to 10
MAGNITUDE_FLOOR = 0.01  # mag, calibration
LENGTH = 1350.0  # pc, of the prior of the distance (Astraatmadja & Bailer-Jones 2016, ApJ 833, 119)
NODES = 512
FAR_DOWN = 25.0  # nodes reach as far as the density of the distance lies above exp(−25) of its highest


def bolometric_correction(teff):
    """BC_G in mag, added to M_G to make M_bol; JAX or NumPy. +0.06 for the Sun."""
    x = jnp.clip(teff, *BC_RANGE) - np.float32(SUN["teff"])
    power = lambda coefficients: sum(np.float32(c) * x**i for i, c in enumerate(coefficients))
    return jnp.where(x < 4000.0 - SUN["teff"], power(BC_COOL), power(BC_WARM))


def log_mass(teff, logg, fe_h):
    """Mean and standard deviation of log10 of the mass in solar masses, given labels."""
    x = jnp.log10(teff) - np.float32(4.1)
    terms = (1.0, x, x**2, x**3, logg**2, logg**3, fe_h)
    dwarf = sum(np.float32(c) * term for c, term in zip(MASS, terms))
    giant = jax.nn.sigmoid((GIANTS_BELOW - logg) / np.float32(TRANSITION))
    old = jax.nn.sigmoid((OLD_BELOW - fe_h) / np.float32(OLD_TRANSITION))
    evolved = (1 - old) * np.float32(GIANT_LOG_MASS) + old * np.float32(OLD_LOG_MASS)
    variance = (1 - old) * np.float32(GIANT_SD**2) + old * np.float32(OLD_SD**2)
    return (1 - giant) * dwarf + giant * evolved, jnp.sqrt((1 - giant) * np.float32(MASS_SD**2) + giant * variance)


def extinction_g(a_k, teff):
    """A_G in mag of the extinction A_Ks."""
    ratio = A_G_PER_A_K + np.float32(A_G_PER_K) * (jnp.clip(teff, *BC_RANGE) - np.float32(5750.0))
    return a_k * ratio / (1.0 + np.float32(A_G_BEND) * jnp.maximum(a_k, 0.0))


class LuminosityLikelihood(LabelLikelihood):
    """Log likelihood of parallax and apparent G magnitude; see the module's docstring. Moduli are distance moduli in mag."""

    magnitude: Float[Array, ""]
    magnitude_variance: Float[Array, ""]
    parallax: Float[Array, ""]  # mas
    parallax_sd: Float[Array, ""]
    moduli: Float[Array, " nodes"]
    log_weights: Float[Array, " nodes"]  # of the distance's prior and the parallax, normalised
    modulus_variance: Float[Array, ""]  # of both
    site: ClassVar[str] = "parallax"
    kinds: ClassVar[tuple[str, ...]] = ("parallax",)

    @classmethod
    def of(cls, parallax, parallax_sd, magnitude, magnitude_sd, length=LENGTH) -> "LuminosityLikelihood":
        """From a parallax in mas and a magnitude, with their standard deviations."""
        moduli, log_weights, variance = distance_nodes(parallax, parallax_sd, length)
        as32 = lambda x: jnp.asarray(x, jnp.float32)
        numbers = (
            magnitude,
            magnitude_sd**2 + MAGNITUDE_FLOOR**2,
            parallax,
            parallax_sd,
            moduli,
            log_weights,
            variance,
        )
        return cls(*map(as32, numbers))

    def absolute(self, values: dict):
        """M_G + A_G at `values`, and its variance: of magnitude, bolometric correction, mass and law of extinction."""
        teff, logg = (jnp.asarray(values[n], jnp.float32) for n in ("teff", "logg"))
        fe_h, a_k = (jnp.asarray(values.get(n, 0.0), jnp.float32) for n in ("fe_h", "a_k"))
        mass, mass_sd = log_mass(teff, logg, fe_h)
        log_l = mass + 4.0 * jnp.log10(teff / np.float32(SUN["teff"])) - (logg - np.float32(SUN["logg"]))
        a_g = extinction_g(a_k, teff)
        beyond = jnp.maximum(jnp.abs(fe_h) - 0.5, 0.0)
        variance = (
            self.magnitude_variance
            + np.float32(BC_SD**2)
            + (np.float32(BC_SD_PER_DEX) * beyond) ** 2
            + (2.5 * mass_sd) ** 2
            + (np.float32(LAW_ERROR) * a_g) ** 2
        )
        return np.float32(SUN["mbol"]) - 2.5 * log_l - bolometric_correction(teff) + a_g, variance

    def _joint(self, values: dict):
        """Log density of the distance modulus at the nodes, together with the data."""
        m, variance = self.absolute(values)
        r = self.magnitude - m - self.moduli
        return self.log_weights - 0.5 * r**2 / variance - 0.5 * jnp.log(variance)

    def log_likelihood(self, values: dict) -> Float[Array, ""]:
        """Log likelihood with the distance integrated out."""
        return jax.nn.logsumexp(self._joint(values))

    def information(self, values_at, z):
        """Fisher information on `z` of the mean of M_G + A_G, whose error is that of the modulus, too."""
        slope = jax.grad(lambda z: self.absolute(values_at(z))[0])(z)
        return jnp.outer(slope, slope) / (self.absolute(values_at(z))[1] + self.modulus_variance)

    def chi2(self, values: dict):
        """Squared difference of the moduli by magnitude and by parallax in units of their errors."""
        m, variance = self.absolute(values)
        mean = jnp.sum(jnp.exp(self.log_weights) * self.moduli)
        return (self.magnitude - m - mean) ** 2 / (variance + self.modulus_variance), jnp.ones(())

    def observed(self):
        """The parallax in mas, `(1,)`."""
        return self.parallax[None]

    def simulated(self, values: dict, key):
        """A parallax in mas `(1,)`, of a distance drawn given all data."""
        first, second = jax.random.split(key)
        modulus = self.moduli[jax.random.categorical(first, self._joint(values))]
        parallax = 1e3 / 10.0 ** (modulus / 5.0 + 1.0)
        return (parallax + self.parallax_sd * jax.random.normal(second))[None]


def distance_nodes(parallax, parallax_sd, length=LENGTH):
    """Distance moduli `(NODES,)`, logarithms of their weights (sum 1), and the variance of the modulus. Float64, host.

    Prior: density of stars falling as exp(−r/L), p(r) ∝ r² exp(−r/L) (Bailer-Jones 2015, PASP 127, 994); the parallax is Gaussian
    about 1/r.
    """
    wide = np.linspace(-10.0, 25.0, 200_001)
    log_density = _log_density(wide, parallax, parallax_sd, length)
    inside = wide[log_density > log_density.max() - FAR_DOWN]
    moduli = np.linspace(inside[0], inside[-1], NODES)
    log_weights = _log_density(moduli, parallax, parallax_sd, length)
    log_weights -= np.logaddexp.reduce(log_weights)
    weights = np.exp(log_weights)
    mean = weights @ moduli
    return moduli, log_weights, weights @ (moduli - mean) ** 2


def _log_density(moduli, parallax, parallax_sd, length):
    """Log density of the modulus under prior and parallax, not normalised."""
    r = 10.0 ** (moduli / 5.0 + 1.0)  # pc
    return 3.0 * np.log(r) - r / length - 0.5 * ((parallax - 1e3 / r) / parallax_sd) ** 2
