"""`Survey`: what the batches of stars of one instrument share, and the fit of a batch."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..constants import RV_RANGE
from ..errors import ObservationError
from ..forward.operator import usable_pixels, usable_range
from ..inference import SURVEY
from ..labels.design import sobol_design
from ..likelihoods import StellarModel, Unconstrained
from ..likelihoods.gaia import NOTHING, GaiaLikelihood
from ..likelihoods.priors import RV_HALF_WIDTH, RV_ROOM
from ..observations import Observation
from ..observations.peaks import VelocityPeaks, velocity_peaks
from ..observations.quality import scaled_to_continuum
from ..posteriors import ESS_LIMIT, R_HAT_LIMIT, effective_size, pareto_smoothed_weights, r_hat, verify_flag
from ..wavelengths.doppler import shift_wavelength
from .batch import Stars, fit_again, fit_batch, sample_again
from .summary import summaries

LIBRARY = 2048  # spectra among which a first guess is sought


class SurveyModel(StellarModel):
    """The model that the stars of one instrument share: `rv` is counted from each star's `frame`.

    It has the pixels that any star needs whose velocity lies within `searched` km/s; each star uses those of its own.
    """

    def __init__(self, emulator, wavelength, resolution, medium, searched, **options):
        self.searched = searched
        blank = Observation(
            wavelength, np.ones(len(wavelength)), 0.01, resolution=resolution, medium=medium, name="survey", clip=None
        )
        if "rv" in (options.get("priors") or {}):
            raise ObservationError("fit_many finds the velocity of each star itself; give no prior of rv.")
        if options.get("correlation") is not None:
            raise ObservationError("fit_many does not know correlated pixels yet; fit such stars one by one.")
        super().__init__(emulator, blank, **{**options, "rv_range": (-RV_HALF_WIDTH, RV_HALF_WIDTH)})

    def _find_velocity(self, rv_range, prior):
        return VelocityPeaks(0.0, math.inf, 0.0, math.nan, 0.0, 0.0, False, rv_range)

    def _possible(self, rv_range):
        return self.searched

    def _usable_range(self, grid):
        self.velocities = min(self.searched) - RV_ROOM, max(self.searched) + RV_ROOM
        lo, _ = usable_range(grid, star_velocities(min(self.searched)), self.reach, self.full.medium)
        _, hi = usable_range(grid, star_velocities(max(self.searched)), self.reach, self.full.medium)
        return lo, hi

    def usable(self, velocity: float) -> np.ndarray:
        """The pixels, `(n_pix,)` bool, that a star with this velocity may use."""
        grid = self.reduced.config.wavelength
        return usable_pixels(grid, self.wavelength, star_velocities(velocity), self.reach, self.full.medium)


def star_velocities(velocity: float) -> tuple[float, float]:
    """km/s at which the pixels of a star must be determined whose first guess is `velocity`."""
    return velocity - RV_ROOM, velocity + RV_ROOM


class Survey:
    """Everything that the batches of one run share, compiled once.

    **Arguments:** as for `fit_many`. `wavelength` `(n_pix,)` Å in `medium`, `resolution` a resolving power or `(n_pix,)`.
    """

    def __init__(
        self, emulator, wavelength, resolution, medium, *, seed=0, rv_range=RV_RANGE, config=SURVEY, **options
    ):
        self.config = config
        self.seed, self.rv_range = int(seed), tuple(rv_range)
        self.model = SurveyModel(emulator, wavelength, resolution, medium, self.rv_range, **options)
        self.density = Unconstrained(self.model)
        self.full = self.model.full_on_grid()
        self._make_library()
        rng = np.random.default_rng([self.seed, 21])
        self.normals = jnp.asarray(rng.standard_normal((self.config.local, self.density.dim)), jnp.float32)

    def _make_library(self):
        """Spectra at rest that fill the domain, `(LIBRARY, n_pix)`, and their positions `(LIBRARY, dim)`."""
        model = self.model
        labels = model.label_space.to_dict(sobol_design(model.label_space, LIBRARY, seed=self.seed))
        guess = lambda name: np.full(LIBRARY, model.first_guesses(name)[0])
        values = {n: labels[n] if n in labels else guess(n) for n in self.density.names}
        self.library_z = self.density.unconstrain(values).astype(np.float32)
        rows = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), values)

        @eqx.filter_jit
        def spectra(rows, likelihood):
            return jax.lax.map(lambda v: likelihood.normalised_flux(model.complete(v)), rows, batch_size=32)

        self.library = np.asarray(spectra(rows, model.likelihood))
        self.templates = model.templates()

    # One star on the host

    def prepare(self, observation: Observation):
        """A star's arrays for `Stars`, its start `(dim,)`, its good pixels, and the `VelocityPeaks`.

        Raises `ObservationError` if it is unusable.
        """
        model = self.model
        observation = observation.in_medium(model.full.medium)
        grid = model.reduced.config.wavelength
        peaks = velocity_peaks(observation, grid, self.templates, rv_range=self.rv_range)
        velocity = peaks.best
        good = observation.good[model.pixels] & model.usable(velocity)
        if good.sum() < max(100, 4 * self.density.dim):
            raise ObservationError(f"Only {good.sum()} usable pixels overlap with the emulator at {velocity:.0f} km/s.")
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = model.pixels
            scale, flux, sigma, level = scaled_to_continuum(
                observation.flux[pixels], observation.uncertainty[pixels], good
            )
        if not (np.isfinite(level).all() and scale > 0 and (level > 0.05).all()):
            raise ObservationError("The continuum is not positive: the flux is zero or negative over long stretches.")
        arrays = {
            "flux": flux,
            "variance": sigma**2,
            "level": level,
            "weight": good.astype(float),
            "reference_ivar": sigma**-2,
            "frame": velocity,
        }
        return arrays, self._start(flux / level, np.where(good, (level / sigma) ** 2, 0.0), velocity), good, peaks

    def _start(self, normalised, ivar, velocity):
        """The position of the spectrum of the library that is most alike, `(dim,)`."""
        model = self.model
        at = shift_wavelength(model.wavelength, velocity, model.full.medium)
        d = np.interp(at, model.wavelength, normalised)
        unused = np.interp(at, model.wavelength, (ivar == 0).astype(float), left=1.0, right=1.0) > 0
        w = np.where(unused | ~model.usable(0.0), 0.0, np.interp(at, model.wavelength, ivar))
        w = (w / max(w.max(), 1e-30)).astype(np.float32)
        cross, square = self.library @ (w * d).astype(np.float32), (self.library**2) @ w
        # The largest of these is the smallest chi² with the best scale.
        return self.library_z[np.argmax(cross**2 / np.maximum(square, 1e-30))]

    # A batch

    def fit(self, observations, number: int = 0, size: int | None = None, gaia=None) -> dict:
        """Results of one batch, a dict of NumPy arrays with the stars along the first axis.

        `observations`: an `Observation`, or an exception that says why there is none, per star. `size`: of the batch,
        filled up with copies, so that the same program serves the last, smaller batch; `number` enters the seed. `gaia`: of each
        star a `GaiaStar` or None, where the model has Gaia data.
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
        arrays = {k: jnp.asarray(np.stack([p[1][k] for p in filled]), jnp.float32) for k in filled[0][1]}
        stars = Stars(**arrays, beside=self._beside([(gaia or [None] * n)[p[0]] for p in filled]))
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
        raw["peaks"], raw["stars"] = [p[4] for p in prepared], stars
        return summaries(raw, base, index, self)

    def _beside(self, gaia) -> tuple:
        """The likelihoods of what else is known of the stars of a batch, stacked; nothing where the model has none."""
        if not self.model.beside:
            return ()
        one = lambda star: GaiaLikelihood.of(NOTHING, there=False) if star is None else GaiaLikelihood.of(star)
        # Where the priors say what the extinction is, nothing else does.
        seen = self.model.beside[0].seen
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(one, gaia))
        return (
            eqx.tree_at(lambda s: s.seen, stacked, stacked.seen * jnp.stack([jnp.ones(()), jnp.ones(()), seen[2]])),
        )

    def _new_surrogates(self, raw, state, stars, count, key):
        """Fit stars again whose surrogate does not hold against the full emulator; in `raw`. Returns the states of all."""
        if "log_ratio" not in raw:
            return state
        rows = np.array(
            [i for i in range(count) if _fails(raw["log_ratio"][i]) and np.isfinite(raw["cloud"][i]).all()], int
        )
        for part, filled in self._parts(rows, len(raw["chi2"])):
            some = jax.tree.map(lambda a: a[filled], stars)
            again, new = fit_again(
                self.density,
                self.model.likelihood,
                self.full,
                some,
                jnp.asarray(raw["outlier_weight"][filled]),
                jnp.asarray(raw["cloud"][filled]),
                jax.random.fold_in(key, part[0]),
                self.config,
            )
            again = jax.tree.map(np.array, again)
            better = [k for k, i in enumerate(part) if not _fails(again["log_ratio"][k])]
            self._put(raw, part[better], again, better)
            state = jax.tree.map(lambda old, a: old.at[part[better]].set(a[np.array(better, int)]), state, new)
        return state

    def _sample_longer(self, raw, state, count, key):
        """Sample stars again, for longer, whose chains have not mixed or whose effective size is small; in `raw`."""
        draws = np.stack([np.asarray(raw["values"][k], float) for k in self.density.names], 1)[:count]
        chains = draws.reshape(*draws.shape[:2], self.config.chains, self.config.draws)
        with np.errstate(invalid="ignore"):
            good = (r_hat(chains) < R_HAT_LIMIT).all(1) & (effective_size(chains) >= ESS_LIMIT).all(1)
        rows = np.flatnonzero(~good & np.isfinite(draws).all((1, 2)))
        for part, filled in self._parts(rows, len(raw["chi2"])):
            some = jax.tree.map(lambda a: a[filled], state)
            again = sample_again(self.density, some, jax.random.fold_in(key, part[0]), self.config)
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
        put = lambda old, fresh: old.__setitem__(rows, fresh[index])
        jax.tree.map(put, {k: raw[k] for k in new}, new)

    def _run(self, stars, starts, key):
        devices = jax.devices()
        arguments = (self.density, self.model.likelihood, self.full)
        if len(devices) == 1 or len(stars.frame) % len(devices):
            return jax.block_until_ready(fit_batch(*arguments, stars, starts, self.normals, key, self.config))
        return _sharded(arguments, stars, starts, self.normals, key, self.config, devices)


def _fails(log_ratio) -> bool:
    """Whether importance weights say that a surrogate does not hold."""
    if not np.isfinite(log_ratio).all():
        return True
    _, k_hat, ess = pareto_smoothed_weights(log_ratio)
    return verify_flag(k_hat, ess, len(log_ratio))[0] == "fail"


def _sharded(arguments, stars, starts, normals, key, config, devices):
    """`fit_batch` with the stars divided over several devices."""
    from jax.sharding import Mesh, PartitionSpec

    mesh = Mesh(np.array(devices), ("stars",))
    density, base, full = arguments
    arrays, rest = eqx.partition((base, full), eqx.is_array)

    def local(arrays, stars, starts, normals, keys):
        base, full = eqx.combine(arrays, rest)
        return fit_batch(density, base, full, stars, starts, normals, keys[0], config)

    over, same = PartitionSpec("stars"), PartitionSpec()
    program = jax.shard_map(local, mesh=mesh, in_specs=(same, over, over, same, over), out_specs=over, check_vma=False)
    return jax.block_until_ready(jax.jit(program)(arrays, stars, starts, normals, jax.random.split(key, len(devices))))
