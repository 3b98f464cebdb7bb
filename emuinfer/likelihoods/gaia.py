"""What Gaia knows of a star beside its spectrum: parallax and G magnitude, the colour BP − RP, an extinction; as one likelihood.

Parallax and magnitude tell the luminosity and so, by a relation for the mass, log g (`luminosity`). The colour ties Teff to the
extinction A_Ks,

    θ = 5040 K / Teff = b0 + b1 C + b2 C² + b3 [Fe/H] + b4 [Fe/H]² + b5 [Fe/H] C,   C = (BP − RP) − E(BP − RP),

(Mucciarelli, Bellazzini & Massari 2021, A&A 653, A90, table 1), without which the magnitude would not know how much of its light is
missing. All of them may lack for a star, and then say nothing: so one program serves the stars of a survey.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import THETA_TEMPERATURE
from ..errors import ObservationError
from .base import LabelLikelihood
from .luminosity import A_G_PER_A_K, GIANTS_BELOW, LAW_ERROR, TRANSITION, LuminosityLikelihood, extinction_g

DWARFS = (0.4929, 0.5092, -0.0353, 0.0192, -0.0020, -0.0395)
GIANTS = (0.5323, 0.4775, -0.0344, -0.0110, -0.0020, -0.0009)
SCATTER = (61.0, 83.0)  # K, of dwarfs and of giants about the relation, by the same table
# K, between scales of temperature: with BP − RP = 0.82 the Sun comes out 88 K too cool, and dwarfs of the Gaia FGK benchmark stars
# (Soubiran et al. 2024, A&A 682, A145) 70 K.
SCALE_ERROR = 100.0
COLOURS = (0.33, 1.81)  # mag, where the relations hold: 0.39 to 1.50 for dwarfs, 0.33 to 1.81 for giants
COLOUR_FLOOR = 0.015  # mag, calibration of BP and of RP together
# R_BP, R_RP and R_G per E(B − V) of Casagrande & VandenBerg 2018, MNRAS 479, L102: E(BP − RP) is 0.489 A_G, and A_V = 3.1 E(B − V).
R_BP, R_RP, R_G, R_V = 3.374, 2.035, 2.740, 3.1
# A_Ks per unit of each extinction that a table may give.
A_K_PER = {"a_k": 1.0, "a_g": 1.0 / A_G_PER_A_K, "ebv": R_G / A_G_PER_A_K, "a_v": R_G / R_V / A_G_PER_A_K}
GSPPHOT = {"ag_gspphot": A_K_PER["a_g"], "azero_gspphot": A_K_PER["a_v"]}
# mag: of the half-normal prior where nothing is known of the extinction, and the largest possible.
A_K_SD, A_K_MOST = 0.1, 1.5
A_K_LEAST, A_K_RELATIVE = 0.02, 0.2  # mag, what is added to GSP-Phot's; the error of an extinction that has none
A_K_FLOOR = 0.003  # mag
# mas: parallaxes of Gaia DR3 are too small by 0.01 to 0.05 in a way that depends on magnitude, colour and place (Lindegren et al. 2021,
# A&A 649, A4); uncorrected that counts as an error, and less after a correction.
ZERO_POINT_ERROR, CORRECTED_ERROR = 0.03, 0.01
RUWE_LIMIT = 1.4  # above which the source is no single star to Gaia (Lindegren 2018, GAIA-C3-TN-LU-LL-124)
SATURATED = 4.0  # mag in G, about which Gaia's magnitudes are uncertain by more than the calibration's error
NAMES = ("parallax", "parallax_error", "phot_g_mean_mag", "phot_g_mean_mag_error", "phot_bp_mean_mag", "phot_rp_mean_mag", "bp_rp",
         "ruwe", "zero_point", *A_K_PER, *(f"{n}_error" for n in A_K_PER), *GSPPHOT)  # fmt: skip


class GaiaStar(NamedTuple):
    """What is known of one star; NaN where nothing is. `parallax` in mas with its whole error; magnitudes in mag; the extinction `a_k`
    is Gaussian with the error `a_k_error`, cut at 0; `ruwe` as it is; `notes`: sentences on what was done with the numbers."""

    parallax: float
    parallax_error: float
    magnitude: float
    magnitude_error: float
    colour: float
    a_k: float
    a_k_error: float
    ruwe: float
    notes: tuple[str, ...] = ()


# A star without a parallax, whose numbers count for nothing.
NOTHING = GaiaStar(1.0, 1.0, 10.0, 0.01, np.nan, 0.0, A_K_SD, np.nan)


def read_gaia(row, name: str = "") -> GaiaStar:
    """The numbers of one star, by the names of the Gaia archive; see `StellarModel`.

    `row`: a mapping, or a row of an astropy table, of which other columns are ignored. NaN, masked and empty values are missing.

    **Raises:** `ObservationError` where parallax, its error or the G magnitude is missing or impossible.
    """
    get = _numbers(row)
    of, notes = f" of {name}" if name else "", []
    parallax, error, magnitude = get("parallax"), get("parallax_error"), get("phot_g_mean_mag")
    lacking = [n for n, v in zip(NAMES, (parallax, error, magnitude)) if not np.isfinite(v)]
    if lacking:
        raise ObservationError(
            f"The Gaia data{of} have no {' and no '.join(lacking)}: parallax, parallax_error (mas) and phot_g_mean_mag are needed "
            "together. Leave gaia out for a star without them."
        )
    if not error > 0:
        raise ObservationError(f"parallax_error{of} is {error:g} mas; it must be positive.")
    ruwe, shift = get("ruwe"), get("zero_point")
    if ruwe > RUWE_LIMIT:
        error *= ruwe
        notes.append(
            f"RUWE{of} is {ruwe:.2f}, above {RUWE_LIMIT}: Gaia does not see a single star, and parallax and light may be those of "
            "two. The parallax's error is multiplied by RUWE; compare with a fit without Gaia."
        )
    if magnitude < SATURATED:
        notes.append(f"G{of} is {magnitude:.2f}: Gaia's magnitudes and parallaxes of so bright stars are uncertain.")
    corrected = np.isfinite(shift)
    total = float(np.hypot(error, CORRECTED_ERROR if corrected else ZERO_POINT_ERROR))
    g_error = get("phot_g_mean_mag_error")
    a_k, a_k_error, said = _extinction(get, of)
    colour, more = _colour(get, of)
    notes += [*said, *more]
    parallax = parallax - shift if corrected else parallax
    return GaiaStar(
        parallax, total, magnitude, max(np.nan_to_num(g_error), 0.0), colour, a_k, a_k_error, ruwe, tuple(notes)
    )


def _numbers(row):
    """A function from a name to the number in `row`, NaN where it is missing."""
    names = row.colnames if hasattr(row, "colnames") else list(row)
    by_name = {str(n).strip().lower(): n for n in names}
    if not hasattr(row, "colnames") and (unknown := [n for n in by_name if n not in NAMES]):
        raise ObservationError(f"gaia does not know '{unknown[0]}'. It knows: {', '.join(NAMES)}.")

    def get(name):
        if name not in by_name:
            return np.nan
        value = row[by_name[name]]
        if np.ma.is_masked(value) or value is None or str(value).strip().lower() in ("", "null", "nan", "--"):
            return np.nan
        try:
            number = float(getattr(value, "value", value))
        except (TypeError, ValueError):
            raise ObservationError(f"{name} = {value!r} is no number.") from None
        return number if np.isfinite(number) else np.nan

    return get


def _extinction(get, of) -> tuple[float, float, list[str]]:
    """Mean and standard deviation of A_Ks in mag before it is cut at 0, and sentences."""
    for name, factor in A_K_PER.items():
        value, error = get(name), get(f"{name}_error")
        if np.isfinite(value):
            if not np.isfinite(error) or error <= 0:
                error = A_K_RELATIVE * abs(value)
            return factor * value, float(np.hypot(factor * error, A_K_FLOOR)), []
    for name, factor in GSPPHOT.items():
        if np.isfinite(value := get(name)):
            # GSP-Phot cannot tell extinction from temperature (Andrae et al. 2023, A&A 674, A27): it says how much there may be.
            sd = float(np.hypot(factor * value, A_K_LEAST))
            return 0.0, sd, [
                f"The extinction{of} has a half-normal prior of {sd:.2f} mag in A_Ks: what GSP-Phot finds counts as how much there may be."
            ]  # fmt: skip
    return 0.0, A_K_SD, [
        f"No extinction{of} is given: A_Ks has a half-normal prior of {A_K_SD:g} mag. A dust map knows better (a_v, ebv, a_g or a_k, "
        "each with _error)."
    ]  # fmt: skip


def _colour(get, of) -> tuple[float, list[str]]:
    colour = get("phot_bp_mean_mag") - get("phot_rp_mean_mag")
    colour = get("bp_rp") if np.isnan(colour) else colour
    if np.isnan(colour):
        return colour, [f"No colour{of} is given (phot_bp_mean_mag, phot_rp_mean_mag): nothing checks the extinction."]
    if not COLOURS[0] <= colour <= COLOURS[1] + (R_BP - R_RP) / R_G * A_G_PER_A_K * A_K_MOST:
        said = f"BP − RP{of} is {colour:.2f}, outside {COLOURS[0]} to {COLOURS[1]} mag, where its relation holds: it is left out."
        return np.nan, [said]
    return colour, []


def colour_temperature(colour, logg, fe_h):
    """Teff in K of an unreddened BP − RP, its derivative by the colour, and the standard deviation of the relation in K."""
    c = jnp.clip(colour, *(np.float32(x) for x in COLOURS))
    giant = jax.nn.sigmoid((GIANTS_BELOW - logg) / np.float32(TRANSITION))

    def one(b):
        b = [np.float32(x) for x in b]
        theta = b[0] + b[1] * c + b[2] * c**2 + b[3] * fe_h + b[4] * fe_h**2 + b[5] * fe_h * c
        return THETA_TEMPERATURE / theta, -THETA_TEMPERATURE / theta**2 * (b[1] + 2.0 * b[2] * c + b[5] * fe_h)

    (dwarf, slope), (evolved, steep) = one(DWARFS), one(GIANTS)
    mix = lambda a, b: (1 - giant) * a + giant * b
    return mix(dwarf, evolved), mix(slope, steep), jnp.sqrt(mix(*(np.float32(s**2 + SCALE_ERROR**2) for s in SCATTER)))


class GaiaLikelihood(LabelLikelihood):
    """Log likelihood of parallax and magnitude, of the colour, and of what is known of the extinction; see the module's docstring."""

    luminosity: LuminosityLikelihood
    colour: Float[Array, ""]
    extinction: Float[Array, " 2"]  # mean and standard deviation of a_k
    seen: Float[Array, " 3"]  # 1 or 0: parallax, colour, extinction
    site: ClassVar[str] = "gaia"
    kinds: ClassVar[tuple[str, ...]] = ("parallax", "bp_rp", "a_k")

    @classmethod
    def of(cls, star: GaiaStar, there: bool = True) -> "GaiaLikelihood":
        """Of the numbers of one star; with `there=False` they say nothing but of the extinction."""
        as32 = lambda x: jnp.asarray(x, jnp.float32)
        luminosity = LuminosityLikelihood.of(star.parallax, star.parallax_error, star.magnitude, star.magnitude_error)
        seen = (float(there), float(there and np.isfinite(star.colour)), 1.0)
        colour = np.nan_to_num(star.colour, nan=0.8)
        return cls(luminosity, as32(colour), as32([star.a_k, star.a_k_error]), as32(seen))

    def without_extinction(self) -> "GaiaLikelihood":
        """Of which the prior of `a_k` alone says what the extinction is."""
        return GaiaLikelihood(self.luminosity, self.colour, self.extinction, self.seen.at[2].set(0.0))

    def _colour(self, values: dict):
        """Teff less that of the colour, its variance in K², and the derivative of Teff by the colour in K/mag."""
        logg, teff = (jnp.asarray(values[n], jnp.float32) for n in ("logg", "teff"))
        fe_h, a_k = (jnp.asarray(values.get(n, 0.0), jnp.float32) for n in ("fe_h", "a_k"))
        reddening = np.float32((R_BP - R_RP) / R_G) * extinction_g(a_k, teff)
        found, slope, sd = colour_temperature(self.colour - reddening, logg, fe_h)
        spread = np.float32(COLOUR_FLOOR**2) + (np.float32(LAW_ERROR) * reddening) ** 2
        return teff - found, sd**2 + slope**2 * spread, slope

    def _terms(self, values: dict) -> Float[Array, " 3"]:
        r, variance, slope = self._colour(values)
        of_colour = -0.5 * (r**2 / variance + jnp.log(variance / slope**2))
        mean, sd = self.extinction
        of_extinction = -0.5 * ((jnp.asarray(values.get("a_k", 0.0), jnp.float32) - mean) / sd) ** 2
        return jnp.stack([self.luminosity.log_likelihood(values), of_colour, of_extinction])

    def log_likelihood(self, values: dict) -> Float[Array, ""]:
        """The sum over what is there."""
        return jnp.sum(self.seen * self._terms(values))

    def information(self, values_at, z):
        """Fisher information on `z`; variances count as constant."""
        outer = lambda slope: jnp.outer(slope, slope)
        of_colour = outer(jax.grad(lambda z: self._colour(values_at(z))[0])(z)) / self._colour(values_at(z))[1]
        by_a_k = jax.grad(lambda z: jnp.asarray(values_at(z).get("a_k", 0.0), jnp.float32))(z)
        parts = (self.luminosity.information(values_at, z), of_colour, outer(by_a_k) / self.extinction[1] ** 2)
        return sum(self.seen[i] * part for i, part in enumerate(parts))

    def chi2(self, values: dict):
        """Of modulus and colour."""
        r, variance, _ = self._colour(values)
        both = jnp.stack([self.luminosity.chi2(values)[0], r**2 / variance])
        return jnp.sum(self.seen[:2] * both), jnp.sum(self.seen[:2])

    def observed(self):
        """Parallax in mas, BP − RP in mag and the extinction that was given, NaN where there is none."""
        data = jnp.stack([self.luminosity.parallax, self.colour, self.extinction[0]])
        return jnp.where(self.seen > 0, data, jnp.nan)

    def simulated(self, values: dict, key):
        """Parallax, colour and extinction drawn from the model at `values`."""
        keys = jax.random.split(key, 3)
        r, variance, slope = self._colour(values)
        colour = self.colour + r / slope + jnp.sqrt(variance) / slope * jax.random.normal(keys[1])
        a_k = jnp.asarray(values.get("a_k", 0.0), jnp.float32) + self.extinction[1] * jax.random.normal(keys[2])
        return jnp.stack([self.luminosity.simulated(values, keys[0])[0], colour, a_k])


def beside_of(star: GaiaStar, given: bool = False) -> GaiaLikelihood:
    """The likelihood of one star; `given`: the extinction has a prior of its own."""
    found = GaiaLikelihood.of(star)
    return found.without_extinction() if given else found


def extinction_guess(prior, star: GaiaStar) -> tuple[float, ...]:
    """A value of `a_k` that a search may start from: of a prior of its own its mean, or else what is known of the star."""
    if isinstance(prior, float):
        return (prior,)
    if not hasattr(prior, "high"):  # not the flat one of the model
        return (float(np.clip(prior.mean, 0.001, A_K_MOST)),)
    return (float(np.clip(star.a_k if star.a_k > 0 else 0.3 * star.a_k_error, 0.005, 0.9 * A_K_MOST)),)
