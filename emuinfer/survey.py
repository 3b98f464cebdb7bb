"""`fit_many`: posteriors of thousands to millions of stars observed with one instrument."""

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import __version__
from .emulators import emulator_hash
from .errors import ObservationError, SamplingError
from .grids.design import sobol_design
from .inference import Unconstrained
from .likelihoods import StellarSpectrum
from .posterior import ESS_LIMIT, R_HAT_LIMIT, pareto_smoothed_weights, verify_flag
from .spectra import Observation
from .spectra.doppler import SPEED_OF_LIGHT, cross_correlation_rv
from .spectra.quality import rough_continuum
from .survey_batch import Settings, Stars, fit_again, fit_batch, sample_again
from .survey_files import TABLE, Folder, table_of_parts
from .survey_input import SpectrumStack, stack_observations
from .survey_statistics import effective_size, r_hat, summaries

LIBRARY = 2048  # spectra among which a first guess is sought
VELOCITY_WINDOW = 20.0  # km/s about the cross-correlation's velocity that the prior allows


class SurveyModel(StellarSpectrum):
    """The model that the stars of one instrument share: `rv` is counted from each star's `frame`."""

    def __init__(self, emulator, wavelength, resolution, medium, **options):
        blank = Observation(
            wavelength, np.ones(len(wavelength)), 0.01, resolution=resolution, medium=medium, name="survey", clip=None
        )
        if "rv" in (options.get("priors") or {}):
            raise ObservationError("fit_many finds the velocity of each star itself; give no prior of rv.")
        if options.get("correlation") is not None:
            raise ObservationError("fit_many does not know correlated pixels yet; fit such stars one by one.")
        super().__init__(emulator, blank, **{**options, "rv_range": (-VELOCITY_WINDOW, VELOCITY_WINDOW)})

    def _find_velocity(self, rv_range):
        return 0.0


class Survey:
    """Everything that the batches of one run share, compiled once.

    **Arguments:** as for `fit_many`. `wavelength` `(n_pix,)` Å in `medium`, `resolution` a resolving power or `(n_pix,)`.
    """

    def __init__(self, emulator, wavelength, resolution, medium, *, seed=0, rv_range=(-500.0, 500.0), settings=None, **options):
        self.settings = settings or Settings()
        self.seed, self.rv_range = int(seed), tuple(rv_range)
        self.model = SurveyModel(emulator, wavelength, resolution, medium, **options)
        self.model_of = lambda: self.model
        self.density = Unconstrained(self.model)
        self.full = self.model.full_on_grid()
        self._make_library()
        rng = np.random.default_rng([self.seed, 21])
        self.normals = jnp.asarray(rng.standard_normal((self.settings.local, self.density.dim)), jnp.float32)

    def _make_library(self):
        """Spectra at rest that fill the domain, `(LIBRARY, n_pix)`, and their positions `(LIBRARY, dim)`."""
        model = self.model
        labels = sobol_design(model.label_space, LIBRARY, seed=self.seed)
        given = model.label_space.to_dict(labels)
        nuisance = {"rv": 0.0, "vbroad": 3.0, "vsini": 3.0, "log10_jitter": -2.5}
        values = {n: given[n] if n in given else np.full(LIBRARY, nuisance[n]) for n in self.density.names}
        self.library_z = self.density.unconstrain(values).astype(np.float32)
        rows = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), values)

        @eqx.filter_jit
        def spectra(rows, data):
            return jax.lax.map(lambda v: model.normalised_flux(model.complete(v), data), rows, batch_size=32)

        self.library = np.asarray(spectra(rows, model.data))
        middle = {**dict(zip(model.label_space.names, model.label_space.centre)), "teff": 5300.0, "logg": 3.5, "fe_h": -0.5}
        scaled = jnp.asarray(model.label_space.scale(model.label_space.to_array({n: middle[n] for n in model.label_space.names})), jnp.float32)
        self.template = np.asarray(model.reduced.grid_flux(scaled), float)

    # One star on the host

    def prepare(self, observation: Observation):
        """A star's arrays for `Stars`, its start `(dim,)`, and its good pixels; raises `ObservationError` if it is unusable."""
        model = self.model
        observation = observation.in_medium(model.full.medium)
        grid = model.reduced.config.wavelength
        velocity = cross_correlation_rv(observation, grid, self.template, rv_range=self.rv_range)
        good = observation.good[model.pixels].copy()
        reach = VELOCITY_WINDOW + 45.0
        lo, hi = (grid[i] * (1 + (velocity + s) / SPEED_OF_LIGHT) for i, s in ((0, reach), (-1, -reach)))
        good &= (model.wavelength > lo) & (model.wavelength < hi)
        if good.sum() < max(100, 4 * self.density.dim):
            raise ObservationError(f"Only {good.sum()} usable pixels overlap with the emulator at {velocity:.0f} km/s.")
        flux = observation.flux[model.pixels]
        level = rough_continuum(flux, good)
        scale = float(np.median(level[good]))
        if not (np.isfinite(level).all() and scale > 0 and (level > 0.05 * scale).all()):
            raise ObservationError("The continuum is not positive: the flux is zero or negative over long stretches.")
        sigma = np.where(good, observation.uncertainty[model.pixels] / scale, 1.0)
        flux = np.where(good, flux / scale, 1.0)
        arrays = {
            "flux": flux, "variance": sigma**2, "level": level / scale, "weight": good.astype(float), "reference_ivar": sigma**-2,
            "frame": velocity,
        }
        return arrays, self._start(flux / (level / scale), np.where(good, (level / scale / sigma) ** 2, 0.0), velocity), good

    def _start(self, normalised, ivar, velocity):
        """The position of the spectrum of the library that is most alike, `(dim,)`."""
        at = self.model.wavelength * (1 + velocity / SPEED_OF_LIGHT)
        d = np.interp(at, self.model.wavelength, normalised)
        w = np.interp(at, self.model.wavelength, ivar) * (np.interp(at, self.model.wavelength, (ivar == 0).astype(float)) == 0)
        w = (w / max(w.max(), 1e-30)).astype(np.float32)
        cross, square = self.library @ (w * d).astype(np.float32), (self.library**2) @ w
        # The largest of these is the smallest chi² with the best scale.
        return self.library_z[np.argmax(cross**2 / np.maximum(square, 1e-30))]

    # A batch

    def fit(self, observations, number: int = 0, size: int | None = None) -> dict:
        """Results of one batch, a dict of NumPy arrays with the stars along the first axis.

        `observations`: an `Observation`, or an exception that says why there is none, per star. `size`: of the batch,
        filled up with copies, so that the same program serves the last, smaller batch; `number` enters the seed.
        """
        n, size = len(observations), size or len(observations)
        prepared, problems = [], [""] * n
        for i, one in enumerate(observations):
            try:
                if isinstance(one, Exception):
                    raise one
                prepared.append((i, *self.prepare(one)))
            except (ObservationError, ValueError, FloatingPointError) as error:
                problems[i] = str(error)
        base = {"problem": np.array(problems), "n_pixels": np.zeros(n, int), "snr": np.full(n, np.nan)}
        if not prepared:
            return summaries(None, base, [], self)
        filled = prepared + [prepared[0]] * (size - len(prepared))
        stars = Stars(**{k: jnp.asarray(np.stack([p[1][k] for p in filled]), jnp.float32) for k in Stars.__dataclass_fields__})
        starts = jnp.asarray(np.stack([p[2] for p in filled]))
        key = jax.random.fold_in(jax.random.key(self.seed), number)
        raw, state = self._run(stars, starts, key)
        raw = jax.tree.map(np.array, raw)
        raw["repaired"] = np.zeros(len(raw["chi2"]), bool)
        state = self._new_surrogates(raw, state, stars, len(prepared), jax.random.fold_in(key, 1))
        self._sample_longer(raw, state, len(prepared), jax.random.fold_in(key, 2))
        raw = {k: jax.tree.map(lambda a: np.asarray(a)[: len(prepared)], v) for k, v in raw.items()}
        index = np.array([p[0] for p in prepared])
        base["n_pixels"][index] = [p[3].sum() for p in prepared]
        base["snr"][index] = [np.median(p[1]["flux"][p[3]] / np.sqrt(p[1]["variance"][p[3]])) for p in prepared]
        raw["frame"] = np.asarray(stars.frame)[: len(prepared)]
        return summaries(raw, base, index, self)

    def _new_surrogates(self, raw, state, stars, count, key):
        """Fit stars again whose surrogate does not hold against the full emulator; in `raw`. Returns the states of all."""
        if "log_ratio" not in raw:
            return state
        rows = np.array([i for i in range(count) if _fails(raw["log_ratio"][i]) and np.isfinite(raw["cloud"][i]).all()], int)
        for part, filled in self._parts(rows, len(raw["chi2"])):
            some = jax.tree.map(lambda a: a[filled], stars)
            again, new = fit_again(
                self.model_of, self.density, self.model.data, self.full, some, jnp.asarray(raw["outlier_weight"][filled]),
                jnp.asarray(raw["cloud"][filled]), jax.random.fold_in(key, part[0]), self.settings,
            )
            again = jax.tree.map(np.array, again)
            better = [k for k, i in enumerate(part) if not _fails(again["log_ratio"][k])]
            self._put(raw, part[better], again, better)
            state = jax.tree.map(lambda old, a: old.at[part[better]].set(a[np.array(better, int)]), state, new)
        return state

    def _sample_longer(self, raw, state, count, key):
        """Sample stars again, for longer, whose chains have not mixed or whose effective size is small; in `raw`."""
        draws = np.stack([np.asarray(raw["values"][k], float) for k in self.density.names], 1)[:count]
        chains = draws.reshape(*draws.shape[:2], self.settings.chains, self.settings.draws)
        with np.errstate(invalid="ignore"):
            good = (r_hat(chains) < R_HAT_LIMIT).all(1) & (effective_size(chains) >= ESS_LIMIT).all(1)
        rows = np.flatnonzero(~good & np.isfinite(draws).all((1, 2)))
        for part, filled in self._parts(rows, len(raw["chi2"])):
            some = jax.tree.map(lambda a: a[filled], state)
            again = sample_again(self.density, self.model.data, some, jax.random.fold_in(key, part[0]), self.settings)
            self._put(raw, part, jax.tree.map(np.array, again), np.arange(len(part)))

    def _parts(self, rows, size):
        """`rows` in parts of a quarter of the batch, each with itself filled up to that, so that one program serves all."""
        size = max(1, size // 4)
        for i in range(0, len(rows), size):
            part = rows[i : i + size]
            yield part, np.concatenate([part, np.repeat(part[:1], size - len(part))])

    def _put(self, raw, rows, new, index):
        raw["repaired"][rows] = True
        index = np.array(index, int)
        for k, v in new.items():
            if k == "values":
                for name, draws in v.items():
                    raw["values"][name][rows] = draws[index]
            else:
                raw[k][rows] = v[index]

    def _run(self, stars, starts, key):
        devices = jax.devices()
        arguments = (self.model_of, self.density, self.model.data, self.full)
        if len(devices) == 1 or len(stars.frame) % len(devices):
            return jax.block_until_ready(fit_batch(*arguments, stars, starts, self.normals, key, self.settings))
        return _sharded(arguments, stars, starts, self.normals, key, self.settings, devices)


def _fails(log_ratio) -> bool:
    """Whether importance weights say that a surrogate does not hold."""
    if not np.isfinite(log_ratio).all():
        return True
    _, k_hat, ess = pareto_smoothed_weights(log_ratio)
    return verify_flag(k_hat, ess, len(log_ratio))[0] == "fail"


def _sharded(arguments, stars, starts, normals, key, settings, devices):
    """`fit_batch` with the stars divided over several devices."""
    from jax.sharding import Mesh, PartitionSpec

    mesh = Mesh(np.array(devices), ("stars",))
    arrays, rest = eqx.partition(arguments[2:], eqx.is_array)

    def local(arrays, stars, starts, normals, keys):
        return fit_batch(*arguments[:2], *eqx.combine(arrays, rest), stars, starts, normals, keys[0], settings)

    over, same = PartitionSpec("stars"), PartitionSpec()
    program = jax.shard_map(local, mesh=mesh, in_specs=(same, over, over, same, over), out_specs=over, check_vma=False)
    return jax.block_until_ready(jax.jit(program)(arrays, stars, starts, normals, jax.random.split(key, len(devices))))


def fit_many(
    emulator,
    spectra,
    output,
    *,
    resolution=None,
    medium=None,
    settings: Settings | None = None,
    batch: int | None = None,
    seed: int = 0,
    rv_range=(-500.0, 500.0),
    worker: tuple[int, int] = (0, 1),
    workers: int = 1,
    save_draws: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options,
):
    """Posteriors of all stars of a stack of spectra, written to a folder; returns its table.

    A run that was killed goes on when it is started again with the same arguments: finished batches are kept, and the
    random keys depend on the batch and the seed only. A star with bad data is flagged and harms no other.

    **Arguments:**

    - `emulator`: an `Emulator`, or the name or path of one.
    - `spectra`: path of an HDF5 stack (`SpectrumStack`), or a list of `Observation`s with the same wavelengths.
    - `output`: folder of the results (`survey_files`).
    - `resolution`, `medium`: where the file does not say.
    - `settings`: numbers of draws, chains and so on (`Settings`).
    - `batch`: stars per compiled call; by default as many as the memory allows, at most 64 on a CPU.
    - `rv_range`: km/s, searched for each star's velocity.
    - `workers`: processes on this machine, one per core is best. `worker`: `(k, n)` for the k-th of n jobs on many
      machines that share `output`; each takes every n-th batch, and whichever finishes last writes the table.
    - `save_draws`: write all draws as netCDF, one file per batch.
    - `options`: as for `StellarSpectrum`: priors, broadening, continuum_terms, line_errors, emulator_error, robust.

    **Returns:** an `astropy.table.Table` with one row per star in the order of the input, or None where other workers are
    not done. See `survey_statistics.FLAGS` for the column `flag`.
    """
    from .emulators import load_emulator

    settings = settings or Settings()
    output = Path(output)
    if not isinstance(spectra, str | os.PathLike):
        spectra = _stacked(spectra, output)
    stack = SpectrumStack(spectra, medium=medium, resolution=resolution)
    named = emulator if isinstance(emulator, str | os.PathLike) else None
    emulator = load_emulator(emulator) if named is not None else emulator
    batch = int(batch or default_batch(settings, len(stack)))
    plan = _plan(emulator, stack, settings, batch, seed, rv_range, options)
    folder = Folder(output, plan, overwrite)
    numbers = range(-(-len(stack) // batch))
    if workers > 1 and not all(folder.done(i) for i in numbers):
        if named is None:
            raise SamplingError("With several workers, give the emulator by name or path, so that each can load it.")
        common = {
            "resolution": resolution, "medium": medium, "settings": settings, "batch": batch, "seed": seed, "rv_range": rv_range,
            "save_draws": save_draws, **options,
        }
        _run_workers(workers, (str(named), str(spectra), str(output)), common, folder, numbers, len(stack), progress)
    mine = [i for i in numbers if i % worker[1] == worker[0] and not folder.done(i)]
    if mine:
        _run(Survey(emulator, stack.wavelength, stack.resolution, stack.medium, seed=seed, rv_range=rv_range, settings=settings,
                    progress=progress, **options), stack, folder, mine, batch, save_draws, progress)
    if not all(folder.done(i) for i in numbers):
        return None
    return _table(folder, numbers, plan)


def default_batch(settings: Settings, stars: int) -> int:
    """Stars per call: at most 64 on a CPU and 1024 elsewhere, and no more than the memory holds."""
    floats = settings.chains * (settings.draws + settings.warmup) * 40 + 200_000
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 8
    most = 64 if jax.default_backend() == "cpu" else 1024
    return int(max(1, min(most, stars, memory / (4 * floats))))


def _plan(emulator, stack, settings, batch, seed, rv_range, options):
    shown = {k: repr(v) if not isinstance(v, int | float | str | bool | type(None)) else v for k, v in sorted(options.items())}
    return {
        "emulator": emulator_hash(emulator), "data": stack.fingerprint, "stars": len(stack), "batch": batch, "seed": int(seed),
        "rv_range": list(rv_range), "settings": dataclasses.asdict(settings), "options": shown, "versions": {"emuinfer": __version__},
    }


def _stacked(observations, output):
    """The observations as a file in `output`, written once."""
    output.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("".join(o.hash for o in observations).encode()).hexdigest()[:12]
    path = output.with_name(f"{output.name}-input-{digest}.h5")
    return path if path.exists() else stack_observations(observations, path)


def _run_workers(workers, arguments, common, folder, numbers, stars, progress):
    """`workers` processes, each on cores of its own; raises `SamplingError` with the first error of one of them."""
    import multiprocessing

    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    jobs = [context.Process(target=_worker, args=(k, workers, arguments, common, errors), daemon=True) for k in range(workers)]
    # Linear algebra of small matrices is up to 60 times slower where its threads compete for busy cores.
    with _environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"):
        for job in jobs:
            job.start()
    done = lambda: sum(folder.done(i) for i in numbers)
    with tqdm(total=len(numbers), initial=done(), desc=f"batches of {stars} stars", unit="batch", disable=not progress) as bar:
        while any(job.is_alive() for job in jobs):
            time.sleep(0.5)
            bar.update(done() - bar.n)
        bar.update(done() - bar.n)
    if not errors.empty():
        raise SamplingError(f"A worker failed: {errors.get()} What it had finished is kept; run again to go on.")
    if bad := [job.exitcode for job in jobs if job.exitcode]:
        raise SamplingError(f"A worker ended with status {bad[0]} (killed, or out of memory?). Run again to go on.")


@contextlib.contextmanager
def _environment(**values):
    """Variables for processes started meanwhile; those that the user has set stay."""
    added = {k: v for k, v in values.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for k in added:
            del os.environ[k]


def _worker(k, workers, arguments, common, errors):
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) >= workers:
        os.sched_setaffinity(0, cores[k::workers])
    if len(cores[k::workers]) == 1:
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    try:
        fit_many(*arguments, worker=(k, workers), progress=False, **common)
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")


def _run(survey, stack, folder, mine, batch, save_draws, progress):
    from tqdm import tqdm

    with tqdm(total=len(mine) * batch, desc="stars", unit="star", disable=not progress, file=sys.stderr) as bar:
        for number in mine:
            rows = slice(number * batch, min((number + 1) * batch, len(stack)))
            clock = time.perf_counter()
            names, *arrays = stack.read(rows)
            results = survey.fit([_observe(stack, *one) for one in zip(names, *arrays)], number, batch)
            results["row"], results["name"] = np.arange(rows.start, rows.stop), np.array(names)
            results["parameters"] = np.array(survey.density.names)
            results["units"] = np.array([survey.model.units[n] for n in survey.density.names])
            results["seconds"] = np.full(len(names), (time.perf_counter() - clock) / len(names))
            if save_draws:
                folder.save_draws(number, _draws(survey, results))
            folder.save(number, results)
            bar.update(batch)


def _observe(stack, name, flux, uncertainty, mask):
    try:
        return stack.observation(name, flux, uncertainty, mask)
    except Exception as error:  # whatever is wrong with one star must not stop the others
        return error


def _draws(survey, results):
    from .posterior import build_posterior

    draws = results.get("draws")
    fitted = np.flatnonzero(results["flag"] & 1 == 0)
    names = survey.density.names
    shape = (survey.settings.chains, survey.settings.draws, len(results["row"]))
    values = {}
    for i, name in enumerate(names):
        values[name] = np.full(shape, np.nan, np.float32)
        if draws is not None:
            values[name][..., fitted] = np.moveaxis(draws[:, i], 0, -1)
    return build_posterior(
        values, None, observed_data={"row": results["row"]}, coords={"star": results["name"]},
        dims={**{n: ["star"] for n in names}, "row": ["star"]}, attrs={"seed": survey.seed},
    )


def _table(folder, numbers, plan):
    parts = [folder.load(i) for i in numbers]
    names, units = parts[0]["parameters"].tolist(), parts[0]["units"].tolist()
    for part in parts:
        del part["parameters"], part["units"]
    meta = {"PARAMS": ",".join(names), "SEED": plan["seed"], "EMULATOR": plan["emulator"], "VERSION": __version__}
    table = table_of_parts(parts, names, dict(zip(names, units)), meta)
    path = folder.path / TABLE
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        table.write(temporary, format="fits", overwrite=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return table
