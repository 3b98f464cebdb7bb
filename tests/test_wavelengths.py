"""Uniform grids of wavelengths, and interpolation between their points."""

import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import ObservationError
from emuinfer.wavelengths.interpolation import four_points, lagrange_weights
from emuinfer.wavelengths.pixels import PixelGrid
from emuinfer.wavelengths.uniform import log_grid, log_pixels, log_uniform, velocity_grid


@pytest.mark.parametrize("nodes", [(0.0, 1.0, 2.0, 3.0), (5000.0, 5010.0, 5035.0), range(6)])
def test_lagrange_weights_reproduce_polynomials(nodes):
    nodes = np.asarray(nodes, float)
    at = np.linspace(nodes[0] - 0.3, nodes[-1] + 0.3, 50).reshape(5, 10)
    x, t = (at - nodes.mean()) / np.ptp(nodes), (nodes - nodes.mean()) / np.ptp(nodes)
    weights = np.stack(lagrange_weights(nodes, at))
    for power in range(len(nodes)):
        np.testing.assert_allclose(np.tensordot(t**power, weights, 1), x**power, atol=1e-11)
    np.testing.assert_allclose(np.stack(lagrange_weights(nodes, nodes)), np.eye(len(nodes)), atol=0)
    on_device = jnp.stack(lagrange_weights(range(4), jnp.float32(1.5)))
    np.testing.assert_allclose(on_device, [-1 / 16, 9 / 16, 9 / 16, -1 / 16], rtol=1e-6)


def test_four_points_follow_a_cubic_to_the_ends():
    n, position = 12, np.array([0.0, 0.4, 1.5, 5.0, 7.25, 10.9, 11.0])
    index, weights = four_points(position, n)
    assert index.dtype == np.int32 and weights.dtype == np.float32 and index.min() == 0 and index.max() == n - 1
    assert (np.diff(index) == 1).all()
    inside = (position >= 1) & (position <= n - 2)
    assert (index[inside, 1] == np.floor(position[inside])).all()
    cubic = lambda x: 1 + x * (0.3 - x * (0.02 + 0.001 * x))
    np.testing.assert_allclose((weights * cubic(index)).sum(-1), cubic(position), rtol=1e-5)
    exact = np.flatnonzero(position == np.round(position))
    assert (np.sort(np.abs(weights[exact]), axis=-1) == [0, 0, 0, 1]).all()
    query = PixelGrid(5000.0, 0.5, n).query(5000.0 + 0.5 * position)
    np.testing.assert_array_equal(query.index, index)
    np.testing.assert_allclose(query.weight, weights, atol=2e-6)


def test_uniform_grids():
    grid = velocity_grid(5000.0, 5300.0, 1.0)
    np.testing.assert_array_equal(log_grid(5000.0, 5300.0, 1.0), grid.wavelength)
    np.testing.assert_array_equal(log_uniform(5000.0, 5300.0, len(grid)), grid.wavelength)
    whole = velocity_grid(5000.0, 5000.0 * np.exp(299.792458 / 299_792.458), 0.299792458)  # 1000 steps, not 1001
    assert len(whole) == 1001
    pixels = log_pixels(5000.0, 5300.0, 1e-5)
    np.testing.assert_allclose(np.diff(np.log(pixels)), 1e-5, rtol=1e-6)
    assert pixels[0] == 5000.0 and 5300.0 * (1 - 1.1e-5) < pixels[-1] <= 5300.0
    assert len(log_pixels(5000.0, 5000.0 * np.exp(0.01), 1e-5)) == 1001
    with pytest.raises(ObservationError, match="0 < lo < hi"):
        log_grid(5300.0, 5000.0, 1.0)
