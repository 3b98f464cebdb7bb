"""A small emulator with an analytic formula, and observations made of it, for tests of fits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from emuinfer import LabelSpace, Observation
from emuinfer.emulators import Emulator, reduce_emulator
from emuinfer.forward.operator import SpectrumOperator

SPACE = LabelSpace(("teff", "fe_h", "mg_fe"), (4500, -1.5, -0.3), (6500, 0.5, 0.6))
TRUTH = {"teff": 5600.0, "fe_h": -0.3, "mg_fe": 0.15}
RV, VBROAD, RESOLUTION = 12.3, 4.0, 30000.0
RANGE = (6180.0, 6194.0)


class Lines(Emulator):
    """Lines whose depth saturates with their strength: f = 1 / (1 + sum_l exp(strength_l) profile_l)."""

    centre: np.ndarray = eqx.field(static=True)
    strength: jax.Array  # (n_lines,)
    slope: jax.Array  # (n_lines, n_labels), by scaled label
    bend: jax.Array  # (n_lines,), quadratic in teff
    label_space: LabelSpace = eqx.field(static=True)
    wavelength_range: tuple[float, float] = eqx.field(static=True)
    medium: str = eqx.field(static=True)

    kind = "test_lines"

    def prepare(self, wavelength):
        x = (np.asarray(wavelength)[None] - np.asarray(self.centre)[:, None]) / 0.07
        return jnp.asarray(np.exp(-0.5 * x**2) + 0.02 / (1 + x**2), jnp.float32)

    def flux(self, scaled_labels, query):
        strength = self.strength + self.slope @ scaled_labels + self.bend * scaled_labels[0] ** 2
        return 1.0 / (1.0 + jnp.exp(strength) @ query)

    def to_config(self):
        return {"centre": list(self.centre)}


def line_emulator():
    """Fifteen lines of iron with different excitation, and five of magnesium."""
    rng = np.random.default_rng(4)
    n = 20
    centre = tuple(np.sort(rng.uniform(RANGE[0] + 0.4, RANGE[1] - 0.4, n)).tolist())
    magnesium = np.arange(n) % 4 == 2
    teff = rng.uniform(-1.3, 0.3, n)
    slope = np.stack([teff, np.full(n, 2.0), np.where(magnesium, 0.9, 0.0)], axis=1)
    as32 = lambda x: jnp.asarray(x, jnp.float32)
    return Lines(centre, as32(rng.uniform(-1.5, 1.5, n)), as32(slope), as32(np.full(n, -0.2)), SPACE, RANGE, "air")


def reduced_lines(emulator, **settings):
    settings = {"n_train": 300, "n_test": 16, "components": 12, "hidden": 32, "steps": 1000, **settings}
    return reduce_emulator(emulator, cache=False, progress=False, **settings)


def observe(emulator, snr=100.0, seed=1, labels=TRUTH, rv=RV, grid=None):
    """A noisy spectrum of `emulator` with a sloping continuum in arbitrary units; `grid`: wavelengths of the model."""
    lo, hi = RANGE
    grid = np.exp(np.linspace(np.log(lo), np.log(hi), 1800)) if grid is None else grid
    wavelength = np.arange(lo + 0.02, hi - 0.02, 0.07)
    flux = emulator(labels, np.clip(grid, lo, hi))
    flux = np.asarray(SpectrumOperator(grid, wavelength, RESOLUTION)(flux, rv, VBROAD), float)
    continuum = 700 * (1 + 0.05 * (wavelength - lo) / (hi - lo))
    sigma = continuum / snr
    noise = np.random.default_rng(seed).standard_normal(len(wavelength)) if np.isfinite(snr) else 0.0
    sigma = sigma if np.isfinite(snr) else continuum / 1000
    return Observation(
        wavelength, continuum * flux + sigma * noise, sigma, resolution=RESOLUTION, medium="air", name="tiny", clip=None
    )


def stop_after_one_batch(patch):
    """Let a run over many stars be interrupted once it has saved its first batch; `patch`: a `pytest.MonkeyPatch`."""
    from emuinfer.survey.files import Folder

    save, saved = Folder.save, []

    def interrupted(self, number, results):
        if saved:
            raise KeyboardInterrupt
        saved.append(number)
        save(self, number, results)

    patch.setattr(Folder, "save", interrupted)


def local_surrogate(model, draws):
    """A `LocalSpectrum` of a `StellarModel` from the full emulator at `draws`, name to `(n,)` or a number."""
    import equinox as eqx

    from emuinfer.emulators import fit_local
    from emuinfer.inference import steps

    values = model.complete({k: jnp.asarray(v, jnp.float32) for k, v in draws.items()})
    full = model.likelihood.with_emulators(model.full_on_grid())
    parameters, flux = eqx.filter_jit(steps.spectra)(full, values, 20)
    return eqx.filter_jit(fit_local)(parameters, flux, np.flatnonzero(np.ptp(np.asarray(parameters), 0) > 0))
