"""Spectra by PySME (Wehrhahn, Piskunov & Ryabchikova 2023, A&A 671, A171): a realistic code behind `make_backend("pysme")`.

LTE and plane-parallel, with C3K model atmospheres (`atmosphere`), the packaged line list and individual abundances. The
spectra are computed one at a time by PySME's compiled library (`smelib`); several workers compute several.

    emuinfer grid make --backend pysme --n 300 --output pysme.h5
"""

import importlib.metadata
import importlib.util

import numpy as np

from ..constants import ATOMIC_MASS, LN_10
from ..errors import EmuinferError
from ..labels.space import LabelSpace
from .atmosphere import FILE, model_atmosphere
from .elements import abundance_matrix, element_data, solar_composition
from .lines import ISOTOPE_FRACTION, LineList, line_constants
from .setting import setting
from .smelib import LINE_CUTOFF, Library

INSTALL = 'Install it: pip install "emuinfer[pysme]".'
N_ANGLES = 4  # Gaussian angles of the flux integral; within 7e-5 of 7 angles in the Sun
NO_STARK = -30.0  # log10 of a width that is negligible; 0 would make SMElib take its own approximation


class PySMEBackend:
    """Spectra one by one by PySME.

    **Arguments:**

    - `labels`: a `LabelSpace` with `teff`, `logg`, `fe_h`, `vmic` and any `x_fe`. The atmosphere's [alpha/Fe] is `mg_fe`.
    - `wavelength`: Å in `medium`, rising, inside the range of the line list.
    - `line_list`: a `LineList`. Lines that do not reach the spectrum are left out.
    - `window`: a `Window` of `emuinfer.labels`, or its name, of which these are taken where they are not given; the default
      one if None. `medium`: "air" or "vacuum", in place of the window's.
    - `solar_composition`: `"asplund2009"` (default) or `"mixed"`, see `elements.solar_composition`.
    - `stark`: whether lines get the approximate widths by electrons of `lines.line_constants`; the list has none.
    - `h2_broadening`: whether lines are broadened by hydrogen molecules. It matters below 4500 K: without it the difference
      to Turbospectrum falls from 0.009 to 0.003 in a 4150 K dwarf, and rises from 0.002 to 0.003 in a 4290 K subgiant.

    Photons scattered by the continuum are treated as absorbed and thermally emitted, which is PySME's own default. With its
    scattering source switched on, SMElib 6.13.20 applies it to the continuum and not to the spectrum, so that the normalised
    flux between the lines of a cool metal-poor giant comes out at 0.96 instead of 1.

    **Attributes:** as `LTEBackend`. Calling it with labels of shape `(b, n_labels)` **returns** normalised flux and
    continuum, both `(b, n_wave)`, float32; the continuum is in 1e6 erg s^-1 cm^-2 Å^-1 at the stellar surface.

    **Raises** `EmuinferError` if PySME or atmosnet is not installed, for wavelengths outside the line list, and in a call
    for labels without a model atmosphere or intensities that are not positive.
    """

    def __init__(self, labels: LabelSpace | None = None, wavelength=None, line_list: LineList | None = None,
                 solar_composition: str = "asplund2009", stark: bool = False,
                 h2_broadening: bool = True, window=None, medium=None):  # fmt: skip
        if importlib.util.find_spec("pysme") is None:
            raise EmuinferError(f"The backend 'pysme' needs the package pysme-astro. {INSTALL}")
        self.options = dict(labels=labels, wavelength=wavelength, line_list=line_list,
                            solar_composition=solar_composition, stark=stark, h2_broadening=h2_broadening,
                            window=window, medium=medium)  # fmt: skip
        self.labels, self.wavelength, self.medium, air, lines = setting(window, labels, wavelength, medium, line_list)
        near = (lines.wavelength + lines.reach > air[0]) & (lines.wavelength - lines.reach < air[-1])
        self._lines = vald_columns(lines[near & (lines.reach > 0)], stark)
        self._composition = _Composition(self.labels, solar_composition)
        # Gauss-Legendre on [0, 1]: flux = 2 pi int I mu dmu
        node, weight = np.polynomial.legendre.leggauss(N_ANGLES)
        angles = 0.5 * (node + 1.0)
        self._weights = np.pi * weight * angles
        self._library = Library(self._lines, air, angles, bool(h2_broadening))
        self.provenance = {
            "backend": "pysme",
            "physics": "LTE, plane-parallel, scattering as absorption, no molecular lines",
            "atmospheres": f"C3K, atmosnet, {FILE}",
            "line_list": lines.source,
            "line_list_hash": lines.hash(),
            "n_lines": len(self._lines["wlcent"]),
            "solar_composition": solar_composition,
            "stark": bool(stark),
            "h2_broadening": bool(h2_broadening),
            "n_angles": N_ANGLES,
            "line_cutoff": LINE_CUTOFF,
            "continuum_unit": "1e6 erg s-1 cm-2 Angstrom-1",
            "versions": {name: _version(name) for name in ("emuinfer", "pysme-astro", "atmosnet")},
            "library": self._library.version,
        }

    def __reduce__(self):
        return _rebuild, (self.options,)

    def __call__(self, labels):
        rows = np.asarray(self.labels.to_array(labels), dtype=float).reshape(-1, len(self.labels))
        spectra = [self._spectrum(self.labels.to_dict(row), row) for row in rows]
        return np.array([flux for flux, _ in spectra], np.float32), np.array([c for _, c in spectra], np.float32)

    def _spectrum(self, star, row):
        model = model_atmosphere(star["teff"], star["logg"], star["fe_h"], star.get("mg_fe", 0.0))
        abundance = np.full(99, -99.0)
        abundance[: len(element_data()["symbol"])] = 12.0 + self._composition(row)
        layers = dict(
            rhox=model.column_mass, temp=model.temperature, xne=model.electrons, xna=model.atoms,
            rho=model.atoms * self._composition.mean_mass(row) * ATOMIC_MASS,
        )  # fmt: skip
        lines, continuum = (self._weights @ x for x in self._library.intensities(star, layers, abundance))
        return lines / continuum, continuum / 1e6


class _Composition:
    """log10(N_X / N_H) of elements 1 to 92 from labels."""

    def __init__(self, labels, name):
        self.solar = solar_composition(name, labels.names)
        self.matrix = abundance_matrix(labels.names)
        self.mass = element_data()["mass"]

    def __call__(self, row):
        return self.solar + row @ self.matrix

    def mean_mass(self, row):
        """Mass per nucleus in atomic mass units."""
        number = 10.0 ** self(row)
        return np.sum(number * self.mass) / np.sum(number)


def vald_columns(lines: LineList, stark: bool = False) -> dict[str, np.ndarray]:
    """A line list as the columns of VALD that SMElib reads, sorted by wavelength.

    `species` ("Fe 1"), `wlcent` (Å, air), `excit` (eV), `gflog` (isotopic fraction included), `gamrad` (log10 1/s), `gamqst`
    (log10 of the width per electron at 10,000 K), `gamvw`, `atom_number`, `ionization`. Where `gamqst` is 0, SMElib takes the
    approximation of Cowley (1971, Obs. 91, 139), which has no bound: upper levels close to the ionisation limit get lines
    0.1 deep and many Å wide in F stars. Hence it is never 0.

    SMElib reads `gamvw` above 10 as sigma.alpha of Anstee, Barklem & O'Mara and below 0 as log10 of the width per perturber
    at 10,000 K. A factor on Unsöld's width, as the Gaia-ESO list gives for 1,500 lines, it would take for the width itself and
    spread the line over the spectrum. Hence all lines but those with sigma.alpha get the log10 of the width that our own
    synthesis uses (`lines.line_constants`).
    """
    lines = lines[np.argsort(lines.wavelength, kind="stable")]
    constants = line_constants(lines, stark)
    symbol = element_data()["symbol"]
    pairs = zip(lines.element.tolist(), lines.isotope.tolist())
    fraction = np.array([ISOTOPE_FRACTION[pair] if pair[1] else 1.0 for pair in pairs])
    width = constants["ln_vdw"].astype(float) / LN_10
    electrons = np.log10(np.maximum(constants["gamma_stark"].astype(float), 10.0**NO_STARK))
    return {
        "species": np.array([f"{symbol[z - 1]} {ion}" for z, ion in zip(lines.element, lines.ion)]),
        "wlcent": lines.wavelength.astype(float),
        "excit": lines.e_low.astype(float),
        "gflog": lines.log_gf.astype(float) + np.log10(fraction),
        "gamrad": np.log10(constants["gamma_rad"].astype(float)),
        "gamqst": electrons,
        "gamvw": np.where(lines.fdamp > 20.0, lines.fdamp.astype(float), width),
        "atom_number": np.ones(len(lines)),  # 1 for an atom, 0 for a molecule
        "ionization": lines.ion.astype(float),
    }


def _rebuild(options):
    return PySMEBackend(**options)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
