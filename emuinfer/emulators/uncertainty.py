"""The error of an emulator as a covariance over wavelength: diagonal and low-rank parts that depend on the labels.

An emulator errs in x = log(1/f − 1 + ε), the logarithm of an opacity, more evenly over lines and stars than in the flux
f. Its error there is modelled, and brought to the flux by df/dx (`sensitivity`):

    C(labels) = S (a² diag(d²) + b² Uᵀ U) S,    S = diag(f (1 − f) + ε f²)

with a and b exponentials of polynomials in the labels, d and U functions of wavelength. The errors of neighbouring
pixels that U leaves are correlated, over lengths that are a third function of the labels. All is learned on spectra
that the emulator has not seen, in `training.uncertainty`.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..entry import public
from ..errors import EmulatorError
from ..files import parse_json, write_bytes
from ..labels.features import label_terms
from ..labels.space import LabelSpace
from ..wavelengths.pixels import PixelGrid
from .base import Emulator
from .storage import emulator_hash, find_stem, weight_folders
from .strangers import check_medium_and_range

FORMAT = "emuinfer-uncertainty"
VERSION = 1
ARRAYS = ("scale", "factor_scale", "stretch", "diagonal", "factors", "correlation")


def sensitivity(flux, epsilon: float, xp=jnp):
    """−df/dx of the saturating link f = 1 / (1 − ε + eˣ) at flux f, which is cut to [0, 1]: f (1 − f) + ε f²."""
    flux = xp.clip(flux, 0.0, 1.0)
    return flux * (1.0 - flux) + epsilon * flux**2


def correlation_integral(correlation, step, sigma: float) -> float:
    """∫ ρ(l) exp(−l²/4σ²) / (2 √π σ) dl over both signs of l, for ρ `(lags,)` at lags of 0, 1, … `step` (Å); σ in Å.

    The variance of stationary errors of unit variance and correlation ρ after convolution with a unit Gaussian of σ.
    """
    if sigma <= 0:
        return 1.0
    rho = np.asarray(correlation, float)
    known = step * np.arange(len(rho))
    fine = 0.1 * min(sigma, step)
    lag = fine * np.arange(1 + int(min(known[-1], 10.0 * sigma) / fine))
    kernel = np.exp(-0.25 * (lag / sigma) ** 2) / (2.0 * np.sqrt(np.pi) * sigma)
    return float(2.0 * np.trapezoid(np.interp(lag, known, rho) * kernel, lag))


class UncertaintyQuery(eqx.Module):
    """The stored pixel below each wavelength, and the fraction of a pixel beyond it."""

    index: Int[Array, " n_wave"]
    fraction: Float[Array, " n_wave"]


class EmulatorUncertainty(eqx.Module):
    """Covariance of an emulator's error, emulated − true flux, for any labels and wavelengths.

    **Attributes:**

    - `scale`, `factor_scale`, `stretch` `(terms,)`: coefficients in `label_terms` of ln a, ln b and of the logarithm of
      what the lags of `correlation` are to be multiplied by.
    - `diagonal` `(grid.n,)`: d; `factors` `(rank, grid.n)`: U; both in x, as standard deviations.
    - `correlation` `(lags,)`: correlation of the part that the factors leave, at lags of 0, 1, … stored pixels.
    - `degrees_of_freedom`, `factor_degrees_of_freedom`: ν of the Student-t distributions that pixels, and the
      coefficients of the factors, follow once divided by their standard deviations.
    - `epsilon`: ε of the link.
    """

    scale: Float[Array, " terms"]
    factor_scale: Float[Array, " terms"]
    stretch: Float[Array, " terms"]
    diagonal: Float[Array, " n_grid"]
    factors: Float[Array, "rank n_grid"]
    correlation: Float[Array, " lags"]
    label_space: LabelSpace = eqx.field(static=True)
    grid: PixelGrid = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    degrees_of_freedom: float = eqx.field(static=True)
    factor_degrees_of_freedom: float = eqx.field(static=True)

    @property
    def rank(self) -> int:
        return self.factors.shape[0]

    def prepare(self, wavelength) -> UncertaintyQuery:
        """What `evaluate` needs of the wavelengths `(n_wave,)`, Å in `medium`; host side. `EmulatorError` outside."""
        wavelength = np.atleast_1d(np.asarray(wavelength, np.float64))
        position = (wavelength - self.grid.start) / self.grid.step
        if not position.size or not position.min() > -1e-3 or not position.max() < self.grid.n - 1 + 1e-3:
            lo, hi = self.grid.range
            found = f"{wavelength.min():.3f}–{wavelength.max():.3f} Å" if position.size else "no wavelengths"
            raise EmulatorError(f"The uncertainty covers {lo:.3f}–{hi:.3f} Å ({self.medium}); asked for {found}.")
        index = np.clip(np.floor(position).astype(np.int32), 0, self.grid.n - 2)
        fraction = np.clip(position - index, 0.0, 1.0)
        return UncertaintyQuery(jnp.asarray(index), jnp.asarray(fraction, jnp.float32))

    def evaluate(
        self, scaled_labels: Float[Array, " n_labels"], query: UncertaintyQuery, flux: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], Float[Array, "rank n"]]:
        """`(sd, factors)` at scaled labels where the emulated flux is `flux`.

        C = diag(sd²) + factorsᵀ factors. Pure and differentiable, float32.
        """
        terms = label_terms(self.label_space, scaled_labels)
        slope = sensitivity(flux, self.epsilon)
        at = lambda a: a[..., query.index] * (1 - query.fraction) + a[..., query.index + 1] * query.fraction
        sd = jnp.exp(terms @ self.scale) * at(self.diagonal) * slope
        return sd, jnp.exp(terms @ self.factor_scale) * at(self.factors) * slope

    def at(self, scaled_labels, wavelength, flux):
        """`evaluate` at wavelengths `(n,)`, Å in `medium`, for one spectrum; see there."""
        as32 = lambda a: jnp.asarray(a, jnp.float32)
        return _evaluate(self, as32(scaled_labels), self.prepare(wavelength), as32(flux))

    # What a line spread function does to it

    def _step(self, scaled_labels) -> float:
        """The lag in Å between neighbouring values of `correlation`."""
        terms = label_terms(self.label_space, np.asarray(scaled_labels, np.float32), np)
        return self.grid.step * float(np.exp(terms @ np.asarray(self.stretch)))

    def damping(self, scaled_labels, sigma: float) -> float:
        """What a Gaussian line spread function of standard deviation `sigma` (Å) leaves of sd², once convolved with it.

        The errors of neighbouring pixels average out as far as they are not correlated. Host side.
        """
        return correlation_integral(self.correlation, self._step(scaled_labels), sigma)

    def coherence(self, scaled_labels, sigma: float, pixel: float) -> float:
        """Pixels of width `pixel` (Å) over which errors seen through a Gaussian of `sigma` (Å) are the same; 1 or more.

        The integral of their correlation over all lags. A likelihood that takes the diagonal part of neighbouring
        pixels for independent must multiply its variance by this, lest it count one error many times. Host side.
        """
        rho = np.asarray(self.correlation, float)
        length = self._step(scaled_labels) * (2.0 * rho.sum() - rho[0])
        return max(1.0, length / (self.damping(scaled_labels, sigma) * pixel))


@eqx.filter_jit
def _evaluate(uncertainty, scaled, query, flux):
    return uncertainty.evaluate(scaled, query, flux)


def woodbury_log_likelihood(
    residual: Float[Array, " n"], variance: Float[Array, " n"], factors: Float[Array, "rank n"]
) -> Float[Array, ""]:
    """ln N(residual; 0, diag(variance) + factorsᵀ factors), in O(n × rank²), without any n × n matrix.

    Pixels of infinite variance count for nothing. From the
    Woodbury identity and the matrix determinant lemma (Golub & Van Loan 2013, Matrix Computations, section 2.1.4).
    """
    used = jnp.isfinite(variance)
    variance = jnp.where(used, variance, 1.0)
    root = used.astype(variance.dtype) / jnp.sqrt(variance)
    white, scaled = residual * root, factors * root
    inner = jnp.eye(len(factors), dtype=scaled.dtype) + scaled @ scaled.T
    cholesky = jax.scipy.linalg.cholesky(inner, lower=True)
    solved = jax.scipy.linalg.cho_solve((cholesky, True), scaled @ white)
    # One product of small numbers, not the difference of two large ones: float32 would lose the result.
    quadratic = white @ (white - solved @ scaled)
    log_determinant = jnp.sum(jnp.where(used, jnp.log(2.0 * jnp.pi * variance), 0.0))
    return -0.5 * (quadratic + log_determinant) - jnp.sum(jnp.log(jnp.diag(cholesky)))


# On disk: NAME-uncertainty.safetensors beside NAME.safetensors, and NAME-uncertainty.card.json


def uncertainty_files(stem) -> tuple[Path, Path]:
    """Paths of arrays and card of the uncertainty of the emulator in `stem`.json and `stem`.safetensors."""
    stem = Path(stem)
    names = [stem.name + end for end in ("-uncertainty.safetensors", "-uncertainty.card.json")]
    return stem.with_name(names[0]), stem.with_name(names[1])


def save_uncertainty(uncertainty, stem, *, emulator: Emulator | None, card: dict | None = None) -> Path:
    """Write both files of `uncertainty_files(stem)`, the arrays over wavelength as float16; returns the card's path.

    `emulator` is the one whose error it is: the card keeps its hash, by which `load_uncertainty` and
    `shipped_uncertainty` know that they belong together.
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(getattr(uncertainty, name), np.float32) for name in ARRAYS}
    for name in ("diagonal", "factors"):
        arrays[name] = arrays[name].astype(np.float16)
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise EmulatorError("The uncertainty holds numbers that are not finite or beyond float16; fit it again.")
    blob = save({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    description = {
        "format": FORMAT,
        "format_version": VERSION,
        "emulator_hash": None if emulator is None else emulator_hash(emulator),
        "labels": uncertainty.label_space.to_json(),
        "grid": dataclasses.asdict(uncertainty.grid),
        "medium": uncertainty.medium,
        "epsilon": uncertainty.epsilon,
        "degrees_of_freedom": uncertainty.degrees_of_freedom,
        "factor_degrees_of_freedom": uncertainty.factor_degrees_of_freedom,
        "sha256": hashlib.sha256(blob).hexdigest(),
    }
    content = json.dumps({**(card or {}), **description}, indent=1).encode()
    for file, data in zip(uncertainty_files(stem), (blob, content)):
        write_bytes(file, data, EmulatorError)
    return uncertainty_files(stem)[1]


@public
def load_uncertainty(name_or_path, *, emulator: Emulator | None = None) -> EmulatorUncertainty:
    """The uncertainty saved beside an emulator, found by the emulator's name or path.

    Raises `EmulatorError` where there is none, where a file is damaged, and, with `emulator`, where it was learned on
    another one.
    """
    file, card_file = uncertainty_files(find_stem(name_or_path))
    if not (file.exists() and card_file.exists()):
        raise EmulatorError(f"'{name_or_path}' has no uncertainty: {file.name} and {card_file.name} are not beside it.")
    uncertainty, own = _read(file, card_file)
    if emulator is not None and emulator_hash(emulator) != own:
        raise EmulatorError(f"{file} was learned on another emulator ({own}). Learn it again.")
    return uncertainty


def _read_card(file) -> dict:
    try:
        card = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise EmulatorError(f"{file} is not readable ({error}). Fetch or save it again.") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT or card.get("format_version", 0) > VERSION:
        raise EmulatorError(f"{file} is no card of an uncertainty up to version {VERSION}. Update emuinfer.")
    return card


def _read(file, card_file) -> tuple[EmulatorUncertainty, str | None]:
    """The uncertainty in `file` and the hash of the emulator that it was learned on."""
    from safetensors.numpy import load

    card = _read_card(card_file)
    blob = file.read_bytes()
    if hashlib.sha256(blob).hexdigest() != card.get("sha256"):
        raise EmulatorError(f"{file} is damaged or belongs to another card (SHA-256 differs). Fetch or save it again.")
    try:
        arrays: dict[str, Any] = {name: jnp.asarray(a, jnp.float32) for name, a in load(blob).items()}
        numbers: dict[str, Any] = {
            k: card[k] for k in ("medium", "epsilon", "degrees_of_freedom", "factor_degrees_of_freedom")
        }
        space, grid = LabelSpace.from_json(card["labels"]), PixelGrid(**card["grid"])
        _check(arrays, space, grid, numbers, file)
        uncertainty = EmulatorUncertainty(**{n: arrays[n] for n in ARRAYS}, label_space=space, grid=grid, **numbers)
        return uncertainty, card.get("emulator_hash")
    except EmulatorError:
        raise
    except Exception as error:  # of what strangers write
        raise EmulatorError(f"{card_file} or {file.name} lacks {error}. Fetch or save them again.") from error


@public
def _check(arrays, space, grid, numbers, file):
    """Raise `EmulatorError` where arrays and card do not fit together, or hold numbers that cannot be."""
    shapes = {name: arrays[name].shape for name in ARRAYS}
    terms = label_terms(space, np.zeros(len(space)), np).shape[-1]
    wrong = [n for n in ("scale", "factor_scale", "stretch") if shapes[n] != (terms,)]
    wrong += [] if shapes["diagonal"] == (grid.n,) else ["diagonal"]
    wrong += [] if len(shapes["factors"]) == 2 and shapes["factors"][1] == grid.n else ["factors"]
    wrong += [n for n in ARRAYS if not np.isfinite(arrays[n]).all()]
    wrong += [n for n, v in numbers.items() if n != "medium" and not 0 < float(v) < np.inf]
    if wrong:
        raise EmulatorError(
            f"{file}: {', '.join(dict.fromkeys(wrong))} do not fit the card or are not finite. Fetch or save it again."
        )
    check_medium_and_range(numbers["medium"], (grid.start, grid.start + grid.step * (grid.n - 1)), str(file))


@public
def shipped_uncertainty(emulator: Emulator) -> EmulatorUncertainty | None:
    """The uncertainty that was learned on this very emulator, among those of `weight_folders`; or None."""
    cards = [card for folder in weight_folders() for card in sorted(folder.glob("*-uncertainty.card.json"))]
    if not cards:
        return None
    own = emulator_hash(emulator)
    for card in cards:
        if _read_card(card).get("emulator_hash") == own:
            return _read(*uncertainty_files(card.with_name(card.name.removesuffix("-uncertainty.card.json"))))[0]
    return None
