"""The files that Turbospectrum reads and writes: model atmospheres, line lists, what is asked of its programs, spectra.

Their formats are described in Turbospectrum's documentation (`docs/Turbospectrum_v20_Documentation.pdf` and
`Readme-Linelist_format` of the package; Plez 2012, ascl:1205.004; Gerber et al. 2023, A&A 669, A43).
"""

import csv
import dataclasses
import gzip
from pathlib import Path

import numpy as np

from ..constants import LN_10
from ..errors import EmuinferError
from .atmosphere import ModelAtmosphere
from .elements import element_data
from .lines import LineList, line_constants

ROMAN = {1: "I", 2: "II", 3: "III"}
# Fortran reads names into fields of limited width, so that files are named relative to the folder that a program runs in.
MODEL, OPACITY, SPECTRUM = "model", "opacity", "spectrum"
ABSENT = -5.0  # log10 N (hydrogen 12) below which an element has no abundance in the Sun's tables and is not given
FAINTEST = 0.1  # normalised flux, printed with 5 decimals, below which the continuum is not taken from it
MOLECULES = {"CH": (1, 6), "NH": (1, 7), "OH": (1, 8), "MgH": (1, 12), "SiH": (1, 14), "CaH": (1, 20), "FeH": (1, 26),
             "C2": (6, 6), "CN": (6, 7), "TiO": (8, 22)}  # fmt: skip
MOLECULAR_COLUMNS = ("molecule", "iso1", "iso2", "wl", "elow", "loggf")


def atmosphere_text(model: ModelAtmosphere, logg: float) -> str:
    """A model atmosphere as "KURUCZ": column mass, temperature, gas pressure, electron density, and an opacity, per layer.

    The programs compute the opacity anew, so that 1 stands for it.
    """
    rows = zip(model.column_mass, model.temperature, model.gas_pressure, model.electrons)
    head = f"'KURUCZ' {len(model.temperature)} 5000. {logg:.4f} 0 0."
    return "\n".join([head, *(f"{m:.8E} {t:.3f} {p:.6E} {e:.6E} 1.0" for m, t, p, e in rows)]) + "\n"


def line_list_text(lines: LineList) -> str:
    """Lines as Turbospectrum's atomic line list: blocks of an element, isotope and ion, sorted by wavelength.

    A line's `fdamp` means there what it means here, if the levels are given as `'x'`. Where ours says that Turbospectrum
    uses another width than the list's (`lines.ABO_OVER_GIVEN`), the width is given as `line_constants` has it. Isotopes get
    Turbospectrum's own fractions. Hydrogen is left out: its lines have a file of their own.
    """
    lines = lines[lines.element > 1]
    if not len(lines):
        return ""
    width = _damping(lines)
    symbol = element_data()["symbol"]
    order = np.lexsort((lines.wavelength, lines.isotope, lines.ion, lines.element))
    key = np.stack([lines.element, lines.isotope, lines.ion]).astype(int)[:, order]
    starts = np.flatnonzero(np.append(True, np.any(np.diff(key, axis=1) != 0, axis=0)))
    out = []
    for first, last in zip(starts, np.append(starts[1:], len(order))):
        z, isotope, ion = key[:, first].tolist()
        out += [f"'{z:4d}.{isotope:03d}            ' {ion:4d} {last - first:9d}", f"'{symbol[z - 1]} {ROMAN[ion]}'"]
        for i in order[first:last]:
            out.append(
                f"{lines.wavelength[i]:11.4f} {lines.e_low[i]:7.4f} {lines.log_gf[i]:8.4f} {width[i]:9.4f} "
                f"{max(lines.g_up[i], 1.0):6.1f} {lines.gamma_rad[i]:9.2E} 'x' 'x' 0.0 1.0"
            )
    return "\n".join(out) + "\n"


def _damping(lines: LineList) -> np.ndarray:
    """`fdamp`, with the logarithms of widths (negative values) as our own synthesis has them, float64 `(n_lines,)`."""
    fdamp = lines.fdamp.astype(float)
    whole = dataclasses.replace(lines, isotope=np.zeros_like(lines.isotope))  # widths do not depend on it
    return np.where(fdamp < 0, line_constants(whole)["ln_vdw"].astype(float) / LN_10, fdamp)


def molecular_lines_text(path: Path, low: float, high: float) -> str:
    """Lines of molecules between two wavelengths (Å, air) as Turbospectrum's line list.

    `path`: a CSV file (or .csv.gz) with the columns `molecule` ("CH", "C2", …), `iso1`, `iso2` (mass numbers of its nuclei
    as the name has them, in the order of atomic numbers), `wl` (Å, air), `elow` (eV), `loggf` (fraction of the isotope not
    included: Turbospectrum has the fractions). Raises `EmuinferError` on another file or an unknown molecule.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="") as file:
            rows = csv.DictReader(file)
            missing = set(MOLECULAR_COLUMNS) - set(rows.fieldnames or ())
            if missing:
                raise ValueError(f"no column {', '.join(sorted(missing))}")
            blocks: dict[tuple[str, int, int], list[tuple[float, float, float]]] = {}
            for row in rows:
                wavelength = float(row["wl"])
                if low <= wavelength <= high:
                    light, heavy = sorted((int(row["iso1"]), int(row["iso2"])))
                    blocks.setdefault((row["molecule"], light, heavy), []).append(
                        (wavelength, float(row["elow"]), float(row["loggf"]))
                    )
    except (OSError, EOFError, ValueError) as error:
        raise EmuinferError(
            f"{path} is not a table of molecular lines ({error}); it takes CSV with {', '.join(MOLECULAR_COLUMNS)}."
        ) from error
    out = []
    for (molecule, *isotopes), block in sorted(blocks.items()):
        if molecule not in MOLECULES:
            raise EmuinferError(f"{path}: unknown molecule '{molecule}'; known are {', '.join(MOLECULES)}.")
        light, heavy = MOLECULES[molecule]
        out += [
            f"'{light:02d}{heavy:02d}.{isotopes[0]:03d}{isotopes[1]:03d}        ' {1:4d} {len(block):9d}",
            f"'{molecule}'",
        ]
        out += [f"{wl:11.4f} {e:7.4f} {gf:8.4f} 0.0 1.0 0.00E+00 'x' 'x' 0.0 1.0" for wl, e, gf in sorted(block)]
    return "\n".join(out) + ("\n" if out else "")


def _common(low: float, high: float, step: float, log_number: np.ndarray) -> list[str]:
    given = [(z, 12.0 + x) for z, x in enumerate(log_number, start=1) if 12.0 + x > ABSENT]
    return [
        f"'LAMBDA_MIN:' '{low:.4f}'",
        f"'LAMBDA_MAX:' '{high:.4f}'",
        f"'LAMBDA_STEP:' '{step:.6f}'",
        f"'MODELOPAC:' '{OPACITY}'",
        "'METALLICITY:' '0.000'",
        "'ALPHA/Fe:' '0.000'",
        "'HELIUM:' '0.000'",
        "'R-PROCESS:' '0.000'",
        "'S-PROCESS:' '0.000'",
        f"'INDIVIDUAL ABUNDANCES:' '{len(given)}'",
        *(f"{z:d} {value:.5f}" for z, value in given),
    ]


def babsma_text(low: float, high: float, step: float, log_number: np.ndarray, vmic: float) -> str:
    """What `babsma_lu` is asked: continuous opacities between two wavelengths (Å, air).

    `log_number` (92,): log10(N_X / N_H). `vmic` in km/s, the same in all layers.
    """
    model = [f"'MODELINPUT:' '{MODEL}'", "'MARCS-FILE:' '.false.'"]
    return "\n".join([*model, *_common(low, high, step, log_number), "'XIFIX:' 'T'", f"{vmic:.5f}"]) + "\n"


def bsyn_text(low: float, high: float, step: float, log_number: np.ndarray, line_files: tuple[str, ...]) -> str:
    """What `bsyn_lu` is asked: the flux of a plane-parallel atmosphere in LTE, with the lines of some files."""
    ask = ["'NLTE :' '.false.'", "'INTENSITY/FLUX:' 'Flux'", f"'RESULTFILE :' '{SPECTRUM}'"]
    files = [f"'NFILES   :' '{len(line_files)}'", *line_files]
    # Four numbers follow by the format; they are read for spherical models only.
    plane = ["'SPHERICAL:' 'F'", "30", "300.00", "15", "1.30"]
    return "\n".join([*ask, *_common(low, high, step, log_number), *files, *plane]) + "\n"


def read_spectrum(path: Path, wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised flux and continuum (erg s^-1 cm^-2 Å^-1) of a spectrum of `bsyn_lu`, float64 `(n_wave,)`.

    `wavelength` `(n_wave,)` Å is what must be in it; others around it are left out. Raises `EmuinferError` where the file
    is missing, ends early, or has numbers that are not finite.
    """
    try:
        table = np.loadtxt(path, usecols=(0, 1, 2), ndmin=2)
    except (OSError, ValueError) as error:
        raise EmuinferError(
            f"Turbospectrum's spectrum cannot be read ({' '.join(str(error).split())[:100]})."
        ) from None
    step = wavelength[1] - wavelength[0]
    first = int(np.abs(table[:, 0] - wavelength[0]).argmin()) if len(table) else 0
    table = table[first : first + len(wavelength)]
    if len(table) < len(wavelength) or np.abs(table[:, 0] - wavelength).max() > 0.2 * step:
        raise EmuinferError(f"Turbospectrum's spectrum has not the {len(wavelength)} wavelengths that were asked for.")
    _, norm, flux = table.T
    clear = norm > FAINTEST
    if not np.isfinite(table).all() or not clear.any():
        raise EmuinferError("Turbospectrum's spectrum has numbers that are not finite, or no flux.")
    # The printed wavelengths have 3 decimals, hence those that were asked for.
    return norm, np.interp(wavelength, wavelength[clear], flux[clear] / norm[clear])
