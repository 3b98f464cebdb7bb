"""Encodings of wavelength: sinusoids with log-spaced periods, and learned tables on a grid of wavelengths."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..constants import LN_10
from ..wavelengths.interpolation import lagrange_weights


class WavelengthQuery(eqx.Module):
    """Wavelengths as the device sees them. All leaves have leading axis `(n_wave,)`.

    `on_nodes` says that every wavelength is a node of the tables, as the pixels of a training grid are: then the
    tables are read without interpolation.
    """

    phase: Float[Array, "n_wave n_frequency"]  # in [0, 2 pi)
    index: Int[Array, " n_wave"]  # the table's node at or below
    fraction: Float[Array, " n_wave"]  # position between that node and the next
    on_nodes: bool = eqx.field(static=True)


def log_periods(n: int, shortest: float, longest: float) -> np.ndarray:
    """Periods in dex of wavelength, log-spaced (Różański, Ting & Jabłońska 2023, arXiv:2306.15703)."""
    return np.logspace(np.log10(shortest), np.log10(longest), n)


def prepare_query(wavelength: np.ndarray, periods: np.ndarray, table_range, nodes: int) -> WavelengthQuery:
    """Phases and table positions, computed in float64 because log10(λ)/P reaches 10⁶ turns; stored in float32."""
    wavelength = np.asarray(wavelength, np.float64)
    turns = np.log10(wavelength)[:, None] / np.asarray(periods, np.float64)
    phase = 2 * np.pi * (turns - np.floor(turns))
    lo, hi = table_range
    position = np.clip((wavelength - lo) / (hi - lo) * (nodes - 1), 0, nodes - 1)
    on_nodes = bool(np.all(np.abs(position - np.round(position)) < 1e-3))
    index = np.round(position) if on_nodes else np.minimum(np.floor(position), nodes - 2)
    return WavelengthQuery(
        jnp.asarray(phase, jnp.float32),
        jnp.asarray(index, jnp.int32),
        jnp.asarray(position - index, jnp.float32),
        on_nodes,
    )


def shift_query(query: WavelengthQuery, log1p_velocity, periods, table_range, nodes: int) -> WavelengthQuery:
    """The query at rest wavelengths λ / (1 + v/c), with `log1p_velocity` = ln(1 + v/c) as a float32 device scalar.

    The shift enters as an angle, so no float64 is needed; the error grows with velocity over period.
    """
    phase = query.phase - 2 * np.pi * (log1p_velocity / LN_10) / jnp.asarray(periods, jnp.float32)
    lo, hi = table_range
    step = (hi - lo) / (nodes - 1)
    node = query.index.astype(jnp.float32)
    wavelength = lo + (node + query.fraction) * step
    fraction = query.fraction + wavelength / step * jnp.expm1(-log1p_velocity)
    whole = jnp.floor(fraction)
    index = jnp.clip(query.index + whole.astype(jnp.int32), 0, nodes - 2)
    return WavelengthQuery(phase, index, jnp.clip(fraction + node - index.astype(jnp.float32), 0.0, 1.0), False)


def interpolate(table: Float[Array, "nodes width"], query: WavelengthQuery) -> Float[Array, "n_wave width"]:
    """Features by four-point Lagrange interpolation in a table."""
    if query.on_nodes:
        return table[query.index]
    first = jnp.clip(query.index - 1, 0, table.shape[0] - 4)
    t = query.fraction + (query.index - first).astype(jnp.float32)
    weights = lagrange_weights(range(4), t)
    return sum(weight[:, None] * table[first + k] for k, weight in enumerate(weights))
