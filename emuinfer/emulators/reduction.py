"""Building a `ReducedEmulator` from an expensive emulator, and keeping it on disk."""

import contextlib
import hashlib
import json
import shutil
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..entry import public
from ..errors import EmulatorError
from ..files import cache_directory, cache_folders, lock, written_whole
from ..wavelengths.uniform import log_grid
from .base import Emulator, from_link, to_link
from .components import fit_coefficients, principal_components
from .reduced import ReducedEmulator, ReductionConfig
from .storage import emulator_hash, load_emulator, save_emulator, weight_folders

CHUNK = 50  # spectra between two saves of an unfinished reduction


def reduction_key(emulator: Emulator, config: ReductionConfig) -> str:
    """Name of a reduction: a hash of the emulator's weights, the wavelength grid and the settings."""
    described = {"emulator": emulator_hash(emulator), **{k: getattr(config, k) for k in config.__dataclass_fields__}}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


@public
def reduce_emulator(
    emulator: Emulator,
    wavelength_range: tuple[float, float] | None = None,
    *,
    step_kms: float = 1.0,
    cache: bool = True,
    progress: bool = True,
    **settings,
) -> ReducedEmulator:
    """A surrogate of `emulator` for samplers, built once and then read from disk.

    The surrogate lives in the star's rest frame at native detail, so that one reduction serves every instrument: line
    spread function, rotation and Doppler shift are applied afterwards, by `emuinfer.forward.operator.SpectrumOperator`.

    **Arguments:**

    - `wavelength_range`: Å in the emulator's medium; the emulator's whole range if None.
    - `step_kms`: largest step of the grid in km/s.
    - `cache`: read a finished reduction from the package or the cache directory, and keep a new one there.
    - `settings`: fields of `ReductionConfig`: n_train, n_test, components, hidden, steps, epsilon, seed.

    **Raises:** `EmulatorError` if the range leaves the emulator's.
    """
    if isinstance(emulator, ReducedEmulator):
        return emulator
    lo, hi = wavelength_range or emulator.wavelength_range
    emulator.check_wavelength([lo, hi])
    config = ReductionConfig(float(lo), float(hi), len(log_grid(lo, hi, step_kms)), **settings)
    key = reduction_key(emulator, config)
    if not cache:
        return _build(emulator, config, None, progress)[0]
    found = _load_reduction(key)
    if found is not None:
        return found
    # One process builds; others that want the same wait, and read it.
    waiting = "Another process is reducing the same emulator: waiting for it." if progress else ""
    remedy = "Set EMUINFER_CACHE to a folder that can be written to and has space, or give cache=False."
    with lock(cache_directory() / f"reduced-{key}", waiting=waiting, error=EmulatorError, remedy=remedy):
        found = _load_reduction(key)
        if found is not None:
            return found
        directory = cache_directory() / f"reducing-{key}"
        reduced, card = _build(emulator, config, directory, progress)
        save_emulator(reduced, cache_directory() / f"reduced-{key}", {"parent_hash": emulator_hash(emulator), **card})
        shutil.rmtree(directory, ignore_errors=True)
    return reduced


def _load_reduction(key) -> ReducedEmulator | None:
    name = f"reduced-{key}"
    shipped = (folder / "reductions" / name for folder in weight_folders())
    for stem in (*shipped, *(folder / name for folder in cache_folders())):
        if stem.with_name(stem.name + ".json").exists():
            with contextlib.suppress(EmulatorError):  # a damaged cache entry is built anew
                return cast(ReducedEmulator, load_emulator(stem))
    return None


def _build(emulator, config, directory, progress):
    """The reduction and its figures; with `directory`, a build that is killed goes on from the spectra kept there."""
    scaled, x = _evaluate(emulator, config, directory, progress)
    reduced = _fit(emulator, config, scaled[: config.n_train], x[: config.n_train], progress)
    return _measure(reduced, scaled[config.n_train :], x[config.n_train :])


def _evaluate(emulator, config, directory, progress):
    """Scaled labels and depths x `(n, n_wave)` of the full emulator on a Sobol design."""
    from ..labels.design import sobol_design

    total = config.n_train + config.n_test
    labels = sobol_design(emulator.label_space, total, seed=config.seed)
    scaled = np.asarray(emulator.label_space.scale(labels), np.float32)
    query = emulator.prepare(emulator.check_wavelength(config.wavelength))
    evaluate = eqx.filter_jit(lambda e, s, q: to_link(e.flux(s, q), config.epsilon))
    starts = range(0, total, CHUNK)
    if progress:
        from tqdm import tqdm

        starts = tqdm(starts, desc="reducing: spectra", unit=f"×{CHUNK}", leave=False)
    parts = []
    for start in starts:
        file = directory / f"{start:06d}.npy" if directory is not None else None
        rows = scaled[start : start + CHUNK]
        kept = _kept(file, (len(rows), config.n_wave))
        if kept is not None:
            parts.append(kept)
            continue
        part = np.stack([np.asarray(evaluate(emulator, jnp.asarray(s), query)) for s in rows]).astype(np.float16)
        if file is not None:
            with written_whole(file, EmulatorError) as temporary:
                np.save(temporary, part)
        parts.append(part)
    return scaled, np.concatenate(parts).astype(np.float32)


def _kept(file, shape):
    """A part that was kept, unless it is damaged."""
    if file is None or not file.exists():
        return None
    with contextlib.suppress(OSError, ValueError, EOFError):
        part = np.load(file, mmap_mode="r", allow_pickle=False)
        if part.shape == shape and part.dtype == np.float16:
            return np.array(part)
    return None


def _fit(emulator, config, scaled, x, progress) -> ReducedEmulator:
    mean, basis, coefficients = principal_components(x, config.components)
    layers = fit_coefficients(scaled, coefficients, config.hidden, config.steps, config.seed, progress=progress)
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    return ReducedEmulator(
        mean=as32(mean),
        basis=as32(basis),
        layers=jax.tree.map(as32, layers),
        error=jnp.zeros(config.n_wave),
        label_space=emulator.label_space,
        wavelength_range=(config.lo, config.hi),
        medium=emulator.medium,
        config=config,
    )


def _measure(reduced, scaled, x):
    """The error against the full emulator on labels that the fit has not seen, per wavelength and in all."""
    predict = eqx.filter_jit(lambda r, s: r.grid_flux(s))
    epsilon = reduced.config.epsilon
    flux = np.asarray(from_link(x, epsilon)) if len(x) else np.zeros((0, reduced.config.n_wave))
    residual = np.stack([np.asarray(predict(reduced, jnp.asarray(s))) for s in scaled]) - flux
    absolute = np.abs(residual)
    figures = {
        "n_test": len(x),
        "mae": float(absolute.mean()),
        "rmse": float(np.sqrt((residual**2).mean())),
        "p95": float(np.percentile(absolute, 95)),
        "max": float(absolute.max()),
    }
    error = jnp.asarray(np.sqrt((residual**2).mean(0)), jnp.float32)
    reduced = eqx.tree_at(lambda r: r.error, reduced, error)
    return reduced, {"error_against_full": figures}
