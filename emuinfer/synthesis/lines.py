"""The line list, and strengths and widths of its lines in a model atmosphere."""

import dataclasses
import hashlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import gamma as gamma_function

from ..constants import ATOMIC_MASS, EV_OVER_K, HC, IONISATION_OF_HYDROGEN, K_BOLTZMANN, LN_10, SPEED_OF_LIGHT
from ..errors import EmuinferError
from ..labels import data_files
from ..labels.windows import OPTICAL_LINES, OPTICAL_LINES_RANGE
from ..labels.windows import window as window_by_name
from .elements import element_data
from .opacity import stimulated

COLUMNS = ("wavelength", "element", "ion", "isotope", "e_low", "log_gf", "fdamp", "g_up", "gamma_rad")
# Turbospectrum has its own tables of ABO widths and uses them for lines that the list gives a width near 10^-7.51 (to 4d
# levels), by the evidence of spectra made from this list: there these factors fit, within 10 %, and 1 everywhere else.
ABO_OVER_GIVEN = {26: 2.4, 24: 1.7, 28: 1.7}  # by atomic number, neutral atoms
ABO_LOG_WIDTH = (-7.535, -7.485)
# Fractions of the isotopes that have lines of their own in the list (NIST; de Laeter et al. 2003); log gf excludes them.
ISOTOPE_FRACTION = {
    (3, 6): 0.0759, (3, 7): 0.9241, (29, 63): 0.6915, (29, 65): 0.3085,
    (56, 134): 0.0242, (56, 135): 0.0659, (56, 136): 0.0785, (56, 137): 0.1123, (56, 138): 0.7170, (57, 139): 0.9991, (59, 141): 1.0,
    (60, 142): 0.2715, (60, 143): 0.1217, (60, 144): 0.2380, (60, 145): 0.0829, (60, 146): 0.1719, (60, 148): 0.0576,
    (60, 150): 0.0564, (62, 144): 0.0307, (62, 147): 0.1499, (62, 148): 0.1124, (62, 149): 0.1382, (62, 150): 0.0738,
    (62, 152): 0.2675, (62, 154): 0.2275, (63, 151): 0.4781, (63, 153): 0.5219,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LineList:
    """Spectral lines as arrays of one length.

    `wavelength` (Å, air), `element` (atomic number), `ion` (1 neutral, 2 singly ionised), `isotope` (mass number, 0 for
    all), `e_low` (eV), `log_gf`, `fdamp` (> 20: sigma.alpha of Anstee, Barklem & O'Mara; 0 to 20: factor on Unsöld's
    width; negative: log10 of the width per perturber at 10,000 K), `g_up`, `gamma_rad` (1/s), `reach` (Å from the centre
    beyond which the line is negligible everywhere in the domain; 0 for lines that never matter). `covers`: (lowest,
    highest) Å for which the list is complete, None where that is not known.
    """

    wavelength: np.ndarray
    element: np.ndarray
    ion: np.ndarray
    isotope: np.ndarray
    e_low: np.ndarray
    log_gf: np.ndarray
    fdamp: np.ndarray
    g_up: np.ndarray
    gamma_rad: np.ndarray
    reach: np.ndarray
    source: str = ""
    covers: tuple[float, float] | None = None

    def __len__(self):
        return len(self.wavelength)

    def __getitem__(self, index):
        values = {name: getattr(self, name)[index] for name in (*COLUMNS, "reach")}
        return dataclasses.replace(self, **values)

    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the contents."""
        digest = hashlib.sha256()
        for name in (*COLUMNS, "reach"):
            digest.update(np.ascontiguousarray(getattr(self, name), dtype=np.float64).tobytes())
        return digest.hexdigest()[:16]


def load_line_list(path: Path | str | None = None, *, window=None, wavelength_range=None) -> LineList:
    """The line list of a file, or of a window: a `Window`, a name, or None for the default one.

    That of `optical-fgk` is the Gaia-ESO line list (Heiter et al. 2021, A&A 645, A106). `wavelength_range`: (lowest, highest) Å
    in air that it must cover; where the window's own list does not, or the window has none, the lines are those of 4200 to
    9200 Å from the same source, if these do. **Raises:** `EmuinferError` on a file that is missing or no line list, and for a
    window that has none.
    """
    covers = None
    if path is None:
        entry = window_by_name(window)
        own = entry.line_list is not None and covers_range(entry.line_list_range, wavelength_range)
        if not own and wavelength_range is not None and covers_range(OPTICAL_LINES_RANGE, wavelength_range):
            path, covers = data_files.DATA / "lines" / OPTICAL_LINES, OPTICAL_LINES_RANGE
        elif entry.line_list is None:
            raise EmuinferError(f"The window '{entry.name}' has no line list, so nothing can be synthesised there.")
        else:
            path, covers = entry.file(entry.line_list), entry.line_list_range
    try:
        with np.load(path) as file:
            values = {name: file[name] for name in (*COLUMNS, "reach")}
            return LineList(source=str(file["source"]), covers=covers, **values)
    except (OSError, KeyError, ValueError) as error:
        raise EmuinferError(
            f"{path} is not a line list of emuinfer ({error}); build one with python -m emuinfer.recipes.line_list."
        ) from error


def covers_range(covers, wavelength_range) -> bool:
    """Whether (lowest, highest) Å `covers` includes `wavelength_range`; a range that is not known is taken to, none does not."""
    if wavelength_range is None or covers is None:
        return True
    return covers[0] <= wavelength_range[0] and wavelength_range[-1] <= covers[1]


def line_constants(lines: LineList, stark: bool = False) -> dict[str, np.ndarray]:
    """Depth-independent quantities of the lines, float32 arrays of shape (n_lines,), for `line_opacity`.

    Strength: pi e^2/(m c^2) = 8.85282e-13 cm, times lambda^2, in units that make the line opacity per cm
    exp(ln_strength) N/U exp(-E/kT) H/(sqrt(pi) Delta lambda_D) with lambda in Å.
    """
    data = element_data()
    z, ion = lines.element.astype(int) - 1, lines.ion.astype(int)
    chi = data["ionisation_energy"][z, ion - 1]
    ln_strength = np.log(8.85282e-13 / np.sqrt(np.pi)) + 2 * np.log(lines.wavelength) - np.log(1e8)
    ln_strength = ln_strength + LN_10 * lines.log_gf.astype(float) + np.log(_isotope_fraction(lines))
    # Classical damping where the list gives no radiative width: 2.223e15 / lambda^2[Å].
    radiative = np.where(lines.gamma_rad > 1.0, lines.gamma_rad, 2.223e15 / lines.wavelength**2)
    width, exponent = _van_der_waals(lines, chi, data["mass"][z])
    f32 = lambda x: np.asarray(x, np.float32)
    return dict(
        ln_strength=f32(ln_strength), e_low=f32(lines.e_low), gamma_rad=f32(radiative),
        gamma_stark=f32(_stark(lines, chi) * stark), ln_vdw=f32(np.log(width)), vdw_exponent=f32(exponent),
        mass=f32(data["mass"][z]), species=np.asarray(2 * z + ion - 1, np.int32),
    )  # fmt: skip


def _isotope_fraction(lines):
    pairs = zip(lines.element.tolist(), lines.isotope.tolist())
    return np.array([ISOTOPE_FRACTION[pair] if pair[1] else 1.0 for pair in pairs])


def abo_width(sigma, alpha, speed):
    """Width (rad/s per perturber per cm^3, full width at half maximum) by collisions with H I at the mean relative `speed` (cm/s).

    w = 2 (4/pi)^(alpha/2) Gamma(2 - alpha/2) v (v/v0)^(-alpha) sigma, `sigma` in cm^2 at v0 = 10 km/s (Anstee & O'Mara 1995, MNRAS 276,
    859; Barklem et al. 2000). It goes with T as T^((1 - alpha) / 2).
    """
    return 2 * (4 / np.pi) ** (alpha / 2) * gamma_function(2 - alpha / 2) * speed * (speed / 1e6) ** -alpha * sigma


def _van_der_waals(lines, chi, mass):
    """Width (rad/s per hydrogen atom per cm^3, full width at half maximum) at 10,000 K and its exponent in T.

    ABO theory where `fdamp` gives it (`abo_width`). Negative `fdamp` gives log10 of the width, see `ABO_OVER_GIVEN`. Unsöld (1955) as
    in Gray (2005), equations 11.28 to 11.30: w = 17 v^0.6 C6^0.4.
    """
    speed = np.sqrt(8 * K_BOLTZMANN * 1e4 / np.pi / ATOMIC_MASS * (1 / 1.008 + 1 / mass))  # cm/s
    fdamp = lines.fdamp.astype(float)
    sigma, alpha = np.floor(fdamp) * 2.8002852e-17, fdamp - np.floor(fdamp)
    abo = abo_width(sigma, alpha, speed)
    photon = HC / lines.wavelength
    charge = lines.ion.astype(float)
    lower = np.maximum(chi - lines.e_low, 0.1)
    upper = np.maximum(chi - lines.e_low - photon, 0.1)
    c6 = 0.3e-30 * charge**2 * np.maximum(upper**-2 - lower**-2, 1e-3)
    unsold = 17.0 * speed**0.6 * c6**0.4 * np.where(fdamp > 0, fdamp, 1.0)
    tabulated = (fdamp > ABO_LOG_WIDTH[0]) & (fdamp < ABO_LOG_WIDTH[1]) & (lines.ion == 1)
    factor = np.array([ABO_OVER_GIVEN.get(z, 1.0) for z in lines.element.tolist()])
    given = np.where(tabulated, factor, 1.0) * 10.0 ** np.minimum(fdamp, 0.0)
    width = np.where(fdamp > 20, abo, np.where(fdamp < 0, given, unsold))
    exponent = np.where(fdamp > 20, 0.5 * (1 - alpha), 0.3)
    return width, exponent


def _stark(lines, chi):
    """Width per electron at 10,000 K, rad/s cm^3: 1e-8 n*^5 (Kurucz & Avrett 1981, SAO Special Report 391), n*^2 <= 25.

    n* is the effective quantum number of the upper level. The list gives no Stark widths.
    """
    upper = np.maximum(chi - lines.e_low - HC / lines.wavelength, 0.3)
    return 1e-8 * np.minimum(IONISATION_OF_HYDROGEN * lines.ion.astype(float) ** 2 / upper, 25.0) ** 2.5


def line_opacity(
    constants: dict,
    temperature: Float[Array, " n_depth"],
    ln_population: Float[Array, "n_depth n_species"],
    perturbers: Float[Array, " n_depth"],
    electrons: Float[Array, " n_depth"],
    ln_alpha_ref: Float[Array, " n_depth"],
    vmic: Float[Array, ""],
    wavelength: Float[Array, " n_lines"],
) -> tuple[Float[Array, "n_lines n_depth"], Float[Array, "n_lines n_depth"], Float[Array, "n_lines n_depth"]]:
    """Strength, damping parameter and Doppler width of lines in every layer.

    **Arguments:** `constants` of `line_constants`; layers' `temperature` (n_depth,); `ln_population` (n_depth, 92 * 2),
    ln of N/U (cm^-3) of neutral and singly ionised atoms; `perturbers` (n_depth,) H I plus weighted He I and H2;
    `electrons` (n_depth,) in cm^-3; `ln_alpha_ref` (n_depth,) of the reference opacity; `vmic` in km/s; `wavelength`
    (n_lines,) in Å.

    **Returns:** `amplitude` (line opacity / reference opacity at the centre, without the Voigt function), `a` and
    `1 / Delta lambda_D`, each of shape (n_lines, n_depth).
    """
    c = {k: v[:, None] for k, v in constants.items()}
    lam = wavelength[:, None]
    thermal = 2.0 * K_BOLTZMANN / ATOMIC_MASS * 1e-10 * temperature / c["mass"]  # km^2/s^2
    inverse_width = SPEED_OF_LIGHT / lam / jnp.sqrt(thermal + vmic**2)
    ln_n = jnp.take(ln_population, constants["species"], axis=1).T
    ln_amplitude = c["ln_strength"] + ln_n - c["e_low"] * EV_OVER_K / temperature - ln_alpha_ref
    amplitude = jnp.exp(ln_amplitude) * stimulated(lam, temperature) * inverse_width
    ln_t4 = jnp.log(temperature * 1e-4)
    gamma = (
        c["gamma_rad"]
        + jnp.exp(c["ln_vdw"] + c["vdw_exponent"] * ln_t4) * perturbers
        + c["gamma_stark"] * jnp.exp(ln_t4 / 6.0) * electrons
    )
    # a = gamma lambda^2 / (4 pi c Delta lambda_D); c in Å/s is 1e13 times that in km/s
    a = gamma * (lam**2 / (4.0 * jnp.pi * SPEED_OF_LIGHT * 1e13)) * inverse_width
    return amplitude, a, inverse_width
