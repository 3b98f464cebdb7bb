"""Fits of stars whose lines are wrong: with a factor for each line the errors are right, without one they are too small."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import emuinfer as ei
from emuinfer.errors import EmulatorError
from emuinfer.inference import find_optimum
from emuinfer.likelihoods.line_factors import LEAST_DEPTH, LineFactors

OPTIONS = {"progress": False, "rv_range": (-60, 60), "continuum_terms": 2, "emulator_error": None}
SD = 0.08  # dex, of every line's strength
MOCKS = 12


@pytest.fixture(scope="module")
def lines():
    return tiny.line_emulator()


@pytest.fixture(scope="module")
def table(lines, tiny_emulator):
    """One factor for each of the twenty lines, of the analytic change of the depth at the truth."""
    wavelength = tiny_emulator.config.wavelength
    query = np.asarray(lines.prepare(wavelength), float)
    scaled = jnp.asarray(tiny.SPACE.scale(tiny.SPACE.to_array(tiny.TRUTH)), jnp.float32)
    opacity = np.exp(np.asarray(lines.strength + lines.slope @ scaled + lines.bend * scaled[0] ** 2))[:, None] * query
    flux = 1.0 / (1.0 + opacity.sum(0))
    shape = np.log(10.0) * flux**2 * opacity / (1.0 - flux + LEAST_DEPTH)
    n, m = len(wavelength), len(shape)
    zeros = np.zeros((1, n))
    return LineFactors(
        wavelength, np.array([[5600.0, 4.438, -0.3]]), zeros, zeros, np.zeros(m, int), shape[:, None, :], np.full(m, SD),
        np.zeros(m, int), np.zeros((0, 1, n)), np.zeros(0), (-0.3,), "air", star_to_star=0.0, per_dex=0.0,
    )  # fmt: skip


def test_factors_are_changes_of_the_spectrum_by_single_lines(lines, table, tiny_emulator, tiny_observation):
    model = ei.StellarModel(tiny_emulator, tiny_observation, line_errors=table, **OPTIONS)
    values = model.complete({**tiny.TRUTH, "rv": tiny.RV, "vbroad": tiny.VBROAD, "log10_jitter": -4.0})
    values = {k: jnp.float32(v) for k, v in values.items()}
    variance, factors, error = model.likelihood.noise.model_errors(values, model.likelihood.forward)
    assert factors.shape == (20, len(model.wavelength)) and np.allclose(variance, 0.0, atol=1e-8)
    see = model.likelihood.forward.see(values)
    grid = tiny_emulator.config.wavelength
    for i in (0, 7, 13):
        up, down = (
            eqx.tree_at(lambda e: e.strength, lines, lines.strength.at[i].add(np.float32(s * np.log(10.0) * SD)))
            for s in (0.1, -0.1)
        )
        change = np.asarray(see(up(tiny.TRUTH, grid))) - np.asarray(see(down(tiny.TRUTH, grid)))
        np.testing.assert_allclose(-factors[i], change / 0.2, atol=0.03 * np.abs(change / 0.2).max() + 2e-4)
    np.testing.assert_allclose(error, np.sqrt((np.asarray(factors) ** 2).sum(0)), rtol=1e-4)


def pulls_of(fit):
    """Of the labels at an optimum, by the Laplace approximation there."""
    z = np.random.default_rng(0).multivariate_normal(fit.z, fit.covariance, 400)
    draws = jax.vmap(fit.density.constrain)(jnp.asarray(z, jnp.float32))
    return [(fit.values[n] - tiny.TRUTH[n]) / np.std(np.asarray(draws[n])) for n in tiny.SPACE.names]


def test_errors_are_right_only_with_the_factors(lines, table, tiny_emulator):
    """Stars with lines that are wrong by `SD` each; pulls of all labels at the optima."""
    rng = np.random.default_rng(3)
    pulls = {None: [], "factors": []}
    for i in range(MOCKS):
        wrong = lines.strength + jnp.asarray(np.log(10.0) * SD * rng.standard_normal(20), jnp.float32)
        sky = eqx.tree_at(lambda e: e.strength, lines, wrong)
        observation = tiny.observe(sky, snr=200.0, seed=i, grid=tiny_emulator.config.wavelength)
        for name, errors in ((None, None), ("factors", table)):
            model = ei.StellarModel(tiny_emulator, observation, line_errors=errors, robust=False, **OPTIONS)
            start = {**tiny.TRUTH, "rv": tiny.RV, "vbroad": tiny.VBROAD, "log10_jitter": -3.5}
            pulls[name].append(pulls_of(find_optimum(model, start=start, progress=False)))
    rms = {k: np.sqrt(np.mean(np.square(v))) for k, v in pulls.items()}
    assert 0.6 < rms["factors"] < 1.5 and rms[None] > 2.5


def test_tables_are_read_as_they_were_written(table, tmp_path):
    table.save(tmp_path / "factors.npz")
    again = LineFactors.load(tmp_path / "factors.npz")
    assert again.known_fe_h == (-0.3,) and again.medium == "air" and again.star_to_star == 0.0
    np.testing.assert_allclose(again.shape, table.shape, atol=2e-3)
    (tmp_path / "broken.npz").write_bytes(b"no table")
    with pytest.raises(EmulatorError, match=r"broken\.npz"):
        LineFactors.load(tmp_path / "broken.npz")


def test_tables_that_are_none_are_refused(tiny_emulator, tiny_observation):
    with pytest.raises(EmulatorError, match="LineFactors"):
        ei.StellarModel(tiny_emulator, tiny_observation, line_errors="none", **OPTIONS)
