"""Synthesis backends for grid generation: labels in, spectra out, as NumPy arrays, with provenance."""

from pathlib import Path

import numpy as np

from ..entry import public
from ..errors import EmuinferError, suggestion
from ..files import file_hash


class LTEBackend:
    """Spectra in batches by `LTESynthesizer`.

    **Attributes:** `labels` (`LabelSpace`), `wavelength` (Å, float64), `medium` of these, `provenance` (dict for JSON),
    `options` (rebuilds the backend by `make_backend("lte", **options)`; backends pickle by it).

    Calling it with labels of shape `(b, n_labels)` **returns** normalised flux `(b, n_wave)` and continuum `(b, n_wave)`,
    float32; the continuum is in 1e6 erg s^-1 cm^-2 Å^-1 at the stellar surface. `batch` spectra are computed at a time;
    on a GPU use as many as memory allows (about 25 MB each), on a CPU a few.

    `wavelength_range`, (lowest, highest) Å, and `step`, Å, may stand in place of `wavelength`. Outside the window the lines are those
    of 4200 to 9200 Å (air), and molecules and hydrogen lines are on. `labels` may be the name of a window, or `"whole-optical"`, all 28
    labels that such spectra depend on.
    """

    @public
    def __init__(self, batch: int = 1, **options):
        import equinox as eqx
        import jax

        from .setting import setting
        from .synthesizer import LTESynthesizer

        self.options = {"batch": batch, **options}
        if "wavelength_range" in options:
            options["wavelength"] = _uniform(
                options.pop("wavelength_range"), options.pop("step", 0.02), options.get("wavelength")
            )
        chosen = ("window", "labels", "wavelength", "medium", "line_list")
        self.labels, self.wavelength, self.medium, _, lines = setting(*(options.pop(name, None) for name in chosen))
        self.batch = batch
        self._synthesizer = LTESynthesizer(self.labels, self.wavelength, line_list=lines, medium=self.medium, **options)
        self._run = eqx.filter_jit(lambda synthesizer, labels: jax.vmap(synthesizer)(labels))
        self.provenance = _provenance(self._synthesizer, lines, options)

    def __reduce__(self):
        return _rebuild, (self.options,)

    @public
    def __call__(self, labels):
        labels = np.asarray(self.labels.to_array(labels), dtype=np.float32).reshape(-1, len(self.labels))
        flux = np.empty((len(labels), len(self.wavelength)), np.float32)
        continuum = np.empty_like(flux)
        for start in range(0, len(labels), self.batch):
            part = labels[start : start + self.batch]
            # the last batch is filled up, so that nothing is compiled twice
            filled = np.concatenate([part, np.repeat(part[-1:], self.batch - len(part), axis=0)])
            f, c = self._run(self._synthesizer, filled)
            flux[start : start + len(part)], continuum[start : start + len(part)] = f[: len(part)], c[: len(part)]
        return flux, continuum


def _rebuild(options):
    return LTEBackend(**options)


def _uniform(wavelength_range, step, wavelength):
    lo, hi = (float(x) for x in wavelength_range)
    if wavelength is not None or not (0 < lo < hi and step > 0):
        raise EmuinferError(
            f"`wavelength_range` must rise from above 0 and stand without `wavelength`, `step` be positive; got {lo:g} to {hi:g} Å and "
            f"{step:g} Å."
        )
    return np.round(lo + step * np.arange(round((hi - lo) / step) + 1), 6)


def _provenance(synthesizer, lines, options) -> dict:
    import jax

    from .. import __version__

    data = Path(__file__).parents[1] / "data"
    molecules = synthesizer.molecules
    with_molecules = synthesizer.chemistry is not None
    files = [data / "physics" / f"{name}.npz" for name in ("c3k_temperature", "elements")]
    if with_molecules:
        files += [data / "physics" / "molecules.npz", data / "lines" / "molecules_4180_9220.npz"]
    if synthesizer.hydrogen is not None:
        files.append(data / "physics" / "hydrogen_lines.npz")
    return {
        "backend": "lte",
        "physics": "LTE, plane-parallel, hydrostatic, " + ("molecules" if with_molecules else "no molecules"),
        "molecular_lines": list(molecules.names) if with_molecules else [],
        "hydrogen_lines": synthesizer.hydrogen is not None,
        "continuum": synthesizer.continuum,
        "scattering": synthesizer.scattering,
        "temperature_structure": synthesizer.temperature_structure,
        "solar_composition": options.get("solar_composition", "mixed"),
        "stark": synthesizer.stark,
        "line_list": lines.source,
        "line_list_hash": lines.hash(),
        "n_lines": int(synthesizer.centres.shape[0]),
        "n_depth": int(synthesizer.ln_tau.shape[0]),
        "physics_data_hash": {p.name: file_hash(p) for p in files},
        "continuum_unit": "1e6 erg s-1 cm-2 Angstrom-1",
        "versions": {"emuinfer": __version__, "jax": jax.__version__},
    }


BACKENDS = ("lte", "pysme", "turbospectrum")


def make_backend(name: str = "lte", **options):
    """A synthesis backend by name: `"lte"` (`LTEBackend`; our own code), `"pysme"` (`PySMEBackend`; PySME) or
    `"turbospectrum"` (`TurbospectrumBackend`; Turbospectrum).

    `options` are those of the backend; `"lte"` takes `batch` and the options of `LTESynthesizer`. All take `window`, by
    default the first of `emuinfer.labels.WINDOWS`, of which labels, wavelengths and lines are taken. Raises `EmuinferError` for
    an unknown name or option, and for the other codes where they are not installed.
    """
    if name == "lte":
        return LTEBackend(**options)
    if name == "pysme":
        from .pysme import PySMEBackend

        return PySMEBackend(**options)
    if name == "turbospectrum":
        from .turbospectrum import TurbospectrumBackend

        return TurbospectrumBackend(**options)
    raise EmuinferError(
        f"Unknown synthesis backend '{name}'.{suggestion(name, BACKENDS)} Available: {', '.join(BACKENDS)}."
    )
