"""What every sampler does before it starts: checks, whitening, starts."""

from typing import NamedTuple

import numpy as np

from ..errors import SamplingError
from ._progress import clock
from .optimise import laplace_covariance

SPREAD = (2.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.1, 0.0)  # tried in turn until a start has a finite density


class Counts(NamedTuple):
    """How many chains, and how many steps of warm-up and draws each of them has."""

    chains: int
    warmup: int
    draws: int


def check_arguments(initial, chains, warmup, draws, covariance, target=None) -> Counts:
    """The counts; `initial` decides the number of chains where it has a row per chain. Raises `SamplingError`."""
    if initial.ndim not in (1, 2) or 0 in initial.shape:
        raise SamplingError(f"`initial` must have shape (dim,) or (chains, dim); got {initial.shape}.")
    for name, value in {"chains": chains, "warmup": warmup, "draws": draws}.items():
        check_whole(name, value)
    if target is not None and not 0 < target < 1:
        raise SamplingError(f"`target_acceptance` must lie between 0 and 1, usually 0.8 to 0.99; got {target}.")
    dim = initial.shape[-1]
    if covariance is not None and (np.shape(covariance) != (dim, dim) or not np.isfinite(covariance).all()):
        shape = np.shape(covariance)
        raise SamplingError(f"`covariance` must be finite and of shape ({dim}, {dim}); got shape {shape}.")
    return Counts(int(chains) if initial.ndim == 1 else initial.shape[0], int(warmup), int(draws))


def check_whole(name, value, least=1):
    """Raise `SamplingError` unless `value` is a whole number of at least `least`."""
    if int(value) != value or value < least:
        raise SamplingError(f"`{name}` must be a whole number of at least {least}; got {value}.")


def check_starts(finite):
    """Notes on the starts without a finite log density; `SamplingError` if that is all of them."""
    if not finite.any():
        raise SamplingError(
            f"The log density or its gradient is not finite at any of the {len(finite)} starts. Give starts inside "
            "the priors, such as the end of `optimise`, and check that no used pixel has a NaN or zero uncertainty."
        )
    bad = int((~finite).sum())
    if not bad:
        return ()
    return (f"{bad} of {len(finite)} starts had no finite log density; these chains start where others do.",)


def known_covariance(log_density, initial, data, covariance, progress, method):
    """`(covariance, notes)`: that of the user, or of the Laplace approximation where `initial` is one position."""
    if covariance is not None:
        return covariance, ()
    if initial.ndim == 2:
        raise SamplingError(
            f"'{method}' works in a whitened space and needs `covariance` where `initial` has a start per chain. Give "
            "`laplace_covariance(log_density, optimum, data)[0]`, or use 'nuts', which can do without."
        )
    with clock("Laplace approximation", progress):
        return laplace_covariance(log_density, initial, data)


def whitening(initial, covariance):
    """`(centre, root)` such that `z = centre + root @ u` makes the posterior about standard normal in `u`."""
    rows = initial.reshape(-1, initial.shape[-1]).astype(float)
    rows = rows[np.isfinite(rows).all(1)]
    if not len(rows):
        raise SamplingError("None of the starts in `initial` is finite. Give numbers, such as the end of `optimise`.")
    centre = rows.mean(0).astype(np.float32)
    if covariance is None:
        return centre, np.eye(initial.shape[-1], dtype=np.float32)
    try:
        return centre, np.linalg.cholesky(np.asarray(covariance, float)).astype(np.float32)
    except np.linalg.LinAlgError as error:
        raise SamplingError(
            "`covariance` is not positive definite. Use `laplace_covariance`, which repairs that, or leave it out."
        ) from error


def whitened(density, affine):
    """The density as a function of `u`."""
    centre, root = affine
    return lambda u: density(centre + root @ u)


def start_candidates(initial, affine, chains, seed):
    """Starts in the whitened space to be tried in turn by each chain, shape `(chains, tries, dim)`."""
    if initial.ndim == 2:
        u = np.linalg.solve(affine[1].astype(float), (initial - affine[0]).T.astype(float)).T
        return u[:, None].astype(np.float32)
    normal = np.random.default_rng(seed).normal(size=(chains, len(SPREAD), initial.shape[0]))
    return (np.asarray(SPREAD)[:, None] * normal).astype(np.float32)
