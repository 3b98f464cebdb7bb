"""PySME's compiled library in a process of its own.

SMElib (Piskunov & Valenti 2017, A&A 597, A16) ends the process it runs in where its equation of state does not converge, and
keeps its state between calls. In a process of its own neither does harm: the star is reported as failed, the process is
started anew, and no other user of the library shares its state.

    python -m emuinfer.synthesis.smelib     (the process; started by `Library`)
"""

import os
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ..errors import EmuinferError

MARGIN = 2.0  # Å on either side of the spectrum for which continuous opacities are prepared
LINE_CUTOFF = 1e-4  # of the continuous opacity, beyond which a line ends
EOS_DENSITIES = 7  # electron, particle and mass densities by SMElib's equation of state with the abundances of the star
LONGEST = 600.0  # seconds for one spectrum; some 3 are usual


class Library:
    """Intensities of one line list, wavelength range and set of angles, for one star after another.

    `lines` are the columns of `pysme.vald_columns`, `wavelength` (n_wave,) Å in air, `angles` (n_angles,) cosines,
    `h2_broadening` says whether lines are broadened by hydrogen molecules. Raises `EmuinferError` if PySME cannot be started.
    """

    def __init__(self, lines: dict, wavelength: np.ndarray, angles: np.ndarray, h2_broadening: bool = True):
        self._process: subprocess.Popen | None = None
        self._setup = lines, wavelength, angles, h2_broadening
        self.version = self._start()

    def intensities(self, star: dict, layers: dict, abundance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intensities with lines and of the continuum, (n_angles, n_wave) each, in erg s^-1 cm^-2 Å^-1 sr^-1.

        `star` has `teff` (K), `logg`, `vmic` (km/s); `layers` arrays (n_layers,) `rhox` (g cm^-2), `temp` (K), `xne`, `xna`
        (cm^-3) and `rho` (g cm^-3); `abundance` (99,) is log10 N on the scale where hydrogen has 12.
        Raises `EmuinferError` with what PySME said if it failed, ended, or took longer than `LONGEST` seconds.
        """
        if self._process is None:
            self._start()
        return self._ask((star, layers, abundance))

    def close(self):
        if self._process is not None:
            self._to.close()
            self._from.close()
            self._process.kill()
            self._process.wait()
            self._log.close()
            self._process = None

    __del__ = close

    def _start(self):
        self._log = tempfile.TemporaryFile()
        command = [sys.executable, "-m", __name__]
        here = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, here))}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment, bufsize=0
        )
        assert process.stdin is not None and process.stdout is not None
        self._to = Connection(os.dup(process.stdin.fileno()), readable=False)
        self._from = Connection(os.dup(process.stdout.fileno()), writable=False)
        process.stdin.close()
        process.stdout.close()
        self._process = process
        return self._ask(self._setup)

    def _ask(self, question):
        try:
            self._to.send(question)
            if not self._from.poll(LONGEST):
                self.close()
                raise EmuinferError(f"PySME took longer than {LONGEST:g} s and was ended.")
            answer = self._from.recv()
        except (EOFError, OSError):
            code, said = self._process and self._process.wait(), self._last_words()
            self.close()
            raise EmuinferError(f"PySME ended by itself (exit status {code}); its last words: {said}") from None
        if isinstance(answer, Exception):
            raise EmuinferError(f"PySME failed: {type(answer).__name__}: {answer}")
        return answer

    def _last_words(self):
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - 4000, 0))
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return " ".join(lines[-1].split())[:200] if lines else "none"


def main():
    # Standard output is the line to the parent; whatever the library prints goes to standard error.
    receive, send = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    try:
        session = _Session(*receive.recv())
        send.send(session.dll.SMELibraryVersion())
    except Exception as error:
        send.send(RuntimeError(f"{type(error).__name__}: {error}"))
        return
    while True:
        try:
            question = receive.recv()
        except EOFError:  # the parent is gone
            return
        try:
            answer = session(*question)
        except Exception as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        send.send(answer)


class _Session:
    def __init__(self, lines, wavelength, angles, h2_broadening):
        import pandas
        from pysme.linelist.linelist import LineList
        from pysme.sme_synth import SME_DLL

        self.dll, self.wavelength, self.angles = SME_DLL(), wavelength, angles
        self.dll.SetH2broad(h2_broadening)
        self.dll.SetContinuumOpacityGrid("adaptive")
        self.dll.SetContinuumScatteringSourceMode(False)  # see PySMEBackend
        self.lines = LineList(pandas.DataFrame(lines), medium="air")

    def __call__(self, star, layers, abundance):
        from pysme.abund import Abund
        from pysme.atmosphere.atmosphere import Atmosphere

        setting = dict(method="embedded", geom="PP", depth="RHOX", interp="RHOX", wlstd=5000.0)
        model = Atmosphere(teff=star["teff"], logg=star["logg"], vturb=star["vmic"], **setting, **layers)
        dll = self.dll
        dll.InputLineList(self.lines)
        dll.InputModel(star["teff"], star["logg"], star["vmic"], model)
        dll.InputAbund(Abund(monh=0.0, pattern=abundance, type="H=12"))
        dll.Ionization(EOS_DENSITIES)
        dll.SetVWscale(1.0)
        dll.InputWaveRange(self.wavelength[0] - MARGIN, self.wavelength[-1] + MARGIN)
        dll.Opacity()
        _, _, lines, continuum = dll.Transf(self.angles, wave=self.wavelength, accrt=LINE_CUTOFF)
        # PySME turns intensities that are not numbers into zeros, which no photosphere has.
        bad = ~((lines > 0) & (continuum > 0)).all(axis=0)
        if bad.any():
            raise ValueError(f"the intensity is not positive at {bad.sum()} of {len(bad)} wavelengths")
        return lines, continuum


if __name__ == "__main__":
    main()
