"""Spectrophotometry and parallax in a posterior: against a dense Gaussian, finite differences, quadrature and published values."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from tiny_xp import KINDS, TRUTH, BlackBody, observe

import emuinfer as ei
from emuinfer.errors import EmuinferError, LabelError, ObservationError
from emuinfer.likelihoods import LuminosityLikelihood
from emuinfer.likelihoods.luminosity import bolometric_correction, distance_nodes, extinction_g, log_mass

value = eqx.filter_jit(lambda likelihood, values: likelihood.log_likelihood(values))
MAGNITUDE = {"phot_g_mean_mag": (11.0, 0.003)}


@pytest.fixture(scope="module")
def emulator():
    return BlackBody()


@pytest.fixture(scope="module")
def model(emulator):
    return ei.XPModel(emulator, observe(emulator))


def at(model, **changes):
    return {n: jnp.float32({**TRUTH, **changes}[n]) for n in model.all_priors}


def dense(model, values, scales=None):
    """Log density of the numbers by a dense covariance in float64, with a level of standard deviation 1e3 in place of a flat one."""
    one = model.likelihood.others[0]
    labels = jnp.asarray([values[n] for n in one.label_space.names], jnp.float32)
    mean, sd = (np.asarray(a, float) for a in one.emulator.predict(labels))
    seen = np.asarray(one.seen) > 0
    factors, level = np.asarray(one.emulator.factors, float), np.asarray(one.level, float)
    covariance = np.diag(sd**2 + np.asarray(one.variance, float)) + factors @ factors.T + 1e6 * np.outer(level, level)
    if scales is not None:
        j = np.asarray(jax.jacfwd(lambda x: one.emulator.predict(x)[0])(labels), float)
        covariance += (j * np.square([scales.get(n, 0.0) for n in one.label_space.names])) @ j.T
    r = (np.asarray(one.data, float) - mean)[seen]
    covariance = covariance[np.ix_(seen, seen)]
    return -0.5 * (r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(covariance)[1])


POINTS = [{}, {"teff": 5300.0}, {"logg": 3.0, "a_k": 0.2}, {"fe_h": 0.2, "alpha_m": 0.0, "teff": 6200.0}]


def test_agrees_with_a_dense_gaussian(model):
    """Differences over labels, as the constants differ; with all numbers, and with some missing."""
    some = {k: v if i % 3 else (np.nan, 1.0) for i, (k, v) in enumerate(observe(model.emulator).items())}
    for one in (model, ei.XPModel(model.emulator, some)):
        found = np.array([float(value(one.likelihood, at(one, **p))) for p in POINTS])
        expected = np.array([dense(one, {**TRUTH, **p}) for p in POINTS])
        np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=3e-3, atol=0.05)
        assert np.ptp(expected) > 30


def test_scales_of_labels_count_beside_others(model):
    """`scale_errors` are errors of the labels, passed on to the numbers; alone the model is on its emulator's own scale."""
    scales = {"teff": 80.0, "fe_h": 0.1}
    alone = ei.XPModel(model.emulator, observe(model.emulator), scale_errors=scales)
    assert float(value(alone.likelihood, at(alone))) == float(value(model.likelihood, at(model)))
    beside = alone.likelihood.others[0].beside_spectra()
    found = np.array([float(value(beside, at(alone, **p))) for p in POINTS])
    expected = np.array([dense(alone, {**TRUTH, **p}, scales) for p in POINTS])
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=3e-3, atol=0.05)


def test_only_the_shape_of_a_spectrum_counts(model):
    """Fluxes in other units, but not colours in others, leave the likelihood as it is."""
    data = observe(model.emulator)
    times = {k: tuple(3e20 * np.array(v)) if k.startswith("xp") else v for k, v in data.items()}
    other = ei.XPModel(model.emulator, times)
    for p in POINTS:
        assert float(value(other.likelihood, at(other, **p))) == pytest.approx(
            float(value(model.likelihood, at(model, **p))), rel=1e-4, abs=2e-3
        )
    redder = ei.XPModel(model.emulator, {**data, "j_h": (data["j_h"][0] + 0.3, 0.005)})
    assert abs(float(value(redder.likelihood, at(redder))) - float(value(model.likelihood, at(model)))) > 5


def test_information_against_finite_differences(model):
    """Mean and scatter both tell of the labels: Fisher information of the dense Gaussian, by central differences in float64."""
    one = model.likelihood.others[0]
    names = one.label_space.names
    steps = np.array([20.0, 0.05, 0.05, 0.05, 0.01])
    centre = np.array([TRUTH[n] for n in names])
    predicted = eqx.filter_jit(lambda e, x: e.predict(x))
    moments = lambda x: tuple(np.asarray(a, float) for a in predicted(one.emulator, jnp.asarray(x, jnp.float32)))
    by = [
        [(p - m) / (2 * h) for p, m in zip(moments(centre + h * e), moments(centre - h * e))]
        for h, e in zip(steps, np.eye(5))
    ]
    mean, sd = np.array([b[0] for b in by]), np.array([b[1] for b in by])
    at_centre = moments(centre)[1]
    factors, level = np.asarray(one.emulator.factors, float), np.asarray(one.level, float)
    covariance = np.diag(at_centre**2 + np.asarray(one.variance, float)) + factors @ factors.T
    p = np.linalg.inv(covariance)
    u = p @ level
    p -= np.outer(u, u) / (level @ u)
    change = 2 * sd * at_centre
    expected = mean @ p @ mean.T + 0.5 * change @ p**2 @ change.T
    scale = jnp.asarray(steps, jnp.float32)
    run = eqx.filter_jit(
        lambda one, v, z: one.information(lambda z: {n: v[n] + scale[i] * z[i] for i, n in enumerate(names)}, z)
    )
    found = np.asarray(run(one, at(model), jnp.zeros(5)), float) / np.outer(steps, steps)
    unit = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found / np.outer(unit, unit), expected / np.outer(unit, unit), atol=0.01)


def test_chi2_of_data_that_the_model_made(emulator):
    """Its mean is the number of numbers less the level's."""
    one = ei.XPModel(emulator, observe(emulator)).likelihood.others[0]
    data = [ei.XPModel(emulator, observe(emulator, seed=s)).likelihood.others[0].data for s in range(60)]
    chi2 = eqx.filter_jit(lambda one, d, v: eqx.tree_at(lambda o: o.data, one, d).chi2(v))
    found = [chi2(one, d, {n: jnp.float32(v) for n, v in TRUTH.items()}) for d in data]
    free = float(found[0][1])
    assert free == len(KINDS) - 1
    assert np.mean([float(c) for c, _ in found]) == pytest.approx(free, abs=4 * np.sqrt(2 * free / 60))


def test_is_a_numpyro_model(emulator):
    """Its density is that of priors and likelihood; data simulated of it scatter as the emulator says."""
    from numpyro.infer import Predictive
    from numpyro.infer.util import log_density

    model = ei.XPModel(emulator, {**observe(emulator), **MAGNITUDE}, parallax=(3.0, 0.3))
    values = at(model)
    flat = sum(float(p.log_prob(values[n])) for n, p in model.all_priors.items())
    found = float(jax.jit(lambda v: log_density(model, (), {}, v)[0])(values))
    assert found == pytest.approx(flat + float(value(model.likelihood, values)), abs=0.01)
    draws = {n: jnp.broadcast_to(v, (400,)) for n, v in values.items()}
    simulated = Predictive(model, draws)(jax.random.key(0), observe=False)
    assert simulated["xp"].shape == (400, 13) and simulated["parallax"].shape == (400, 1)
    moments = model.likelihood.others[0].moments(values)
    sd = np.sqrt(np.asarray(moments.variance) + (np.asarray(moments.factors) ** 2).sum(1))
    np.testing.assert_allclose(np.asarray(simulated["xp"]).std(0), sd, rtol=0.15)


def test_surrogate_near_a_star(model):
    """Quadratic in the labels, it holds where it was fitted; and the whole emulator comes back."""
    one = model.likelihood.others[0]
    rng = np.random.default_rng(2)
    sd = {"teff": 60.0, "logg": 0.1, "fe_h": 0.1, "alpha_m": 0.05, "a_k": 0.02}
    rows = {n: jnp.asarray(TRUTH[n] + sd[n] * rng.standard_normal(150), jnp.float32) for n in TRUTH}
    local = eqx.filter_jit(lambda o, v: o.surrogate(v, set(TRUTH), ei.SamplingConfig()))(one, rows)
    here = {n: v[3] for n, v in rows.items()}
    assert local.local is not None and float(value(local, here)) != float(value(one, here))
    assert float(value(local, here)) == pytest.approx(float(value(one, here)), abs=0.05)
    assert local.full().local is None


# Parallax


def test_published_values_of_the_sun():
    """BC_G of the Sun is +0.06 (Andrae et al. 2018), its mass by Torres et al. (2010) 1.05; A_G is 2.7 to 3 of A_V 3.1's A_K / 0.106."""
    assert float(bolometric_correction(5772.0)) == pytest.approx(0.06, abs=1e-6)
    assert float(bolometric_correction(3999.0)) == pytest.approx(float(bolometric_correction(4001.0)), abs=0.01)
    mass, sd = log_mass(5777.0, 4.44, 0.0)
    assert 10 ** float(mass) == pytest.approx(1.05, abs=0.01) and float(sd) == pytest.approx(0.035, abs=1e-3)
    assert float(log_mass(4800.0, 2.5, 0.0)[1]) == pytest.approx(0.12, abs=0.01)
    assert float(extinction_g(0.106, 5750.0)) == pytest.approx(0.83, abs=0.02)  # per A_V


def test_the_sun_at_ten_parsecs():
    """M_G = 4.68 (M_bol 4.74, BC 0.06), at 100 mas: log g comes out as 4.44 but for the relation's mass of 1.05."""
    one = LuminosityLikelihood.of(100.0, 0.01, 4.68, 0.003)
    grid = np.linspace(3.8, 5.0, 241)
    curve = jax.vmap(lambda g: one.log_likelihood({"teff": 5772.0, "logg": g, "fe_h": 0.0, "a_k": 0.0}))
    found = np.asarray(curve(jnp.asarray(grid, jnp.float32)), float)
    weight = np.exp(found - found.max())
    mean = (weight @ grid) / weight.sum()
    assert mean == pytest.approx(4.438 + 0.02, abs=0.01)
    # 0.4 × the error in magnitudes: mass 2.5 × 0.035, correction 0.04, floor 0.01, with the relation's own slope with log g.
    assert np.sqrt((weight @ (grid - mean) ** 2) / weight.sum()) == pytest.approx(
        0.4 * np.hypot(0.0875, 0.0415), rel=0.15
    )


@pytest.mark.parametrize("parallax, sd, g", [(5.0, 0.5, 11.0), (0.2, 0.3, 11.0), (-0.4, 0.2, 11.0), (18.52, 0.02, 8.6)])
def test_distance_is_integrated_out(parallax, sd, g):
    """Against quadrature over the distance itself, in float64, of prior, parallax and magnitude."""
    one = LuminosityLikelihood.of(parallax, sd, g, 0.003)
    r = np.exp(np.linspace(np.log(1.0), np.log(1e5), 400_001))
    found, expected = [], []
    for logg in (1.5, 2.2, 2.6, 3.0, 3.5, 4.0, 4.3, 4.5):
        values = {
            "teff": jnp.float32(5600.0),
            "logg": jnp.float32(logg),
            "fe_h": jnp.float32(0.0),
            "a_k": jnp.float32(0.0),
        }
        m, variance = (float(x) for x in one.absolute(values))
        terms = 3 * np.log(r) - r / 1350 - 0.5 * ((parallax - 1e3 / r) / sd) ** 2
        terms -= 0.5 * (g - m - 5 * np.log10(r) + 5) ** 2 / variance + 0.5 * np.log(variance)
        expected.append(np.logaddexp.reduce(terms))
        found.append(float(value(one, values)))
    near = np.array(expected) > max(expected) - 15
    assert near.sum() >= 2
    np.testing.assert_allclose(
        (np.array(found) - max(found))[near], (np.array(expected) - max(expected))[near], atol=0.03
    )


def test_modulus_of_a_good_parallax():
    moduli, log_weights, variance = distance_nodes(5.0, 0.05)
    assert np.exp(log_weights) @ moduli == pytest.approx(5 * np.log10(200) - 5, abs=0.01)
    assert np.sqrt(variance) == pytest.approx(5 / np.log(10) * 0.01, rel=0.02)


def test_parallax_in_the_bounds(emulator):
    """`cramer_rao` of spectrophotometry and a parallax is the sum of both, with the prior of the extinction."""
    data, priors = {**observe(emulator), **MAGNITUDE}, {"a_k": dist.Normal(0.05, 0.02)}
    xp = ei.XPModel(emulator, data, priors=priors)
    both = ei.XPModel(emulator, data, parallax=(5.0, 0.5), priors=priors)
    alone, more = (ei.cramer_rao(m, TRUTH) for m in (xp, both))
    one = both.likelihood.others[1]
    names, values = more.names, {n: jnp.float32(v) for n, v in TRUTH.items()}
    gradient = jax.grad(lambda v: one.absolute(v)[0])(values)
    slope = np.array([float(gradient[n]) for n in names])
    error = float(one.absolute(values)[1] + one.modulus_variance)
    np.testing.assert_allclose(
        more.fisher - alone.fisher, np.outer(slope, slope) / error, rtol=1e-3, atol=1e-5 * more.fisher.max()
    )
    assert more.marginal["logg"] < 0.7 * alone.marginal["logg"]
    assert alone.fisher[names.index("a_k")][names.index("a_k")] > 1 / 0.02**2


# Bad input


def test_values_without_errors_are_left_out_and_said(emulator):
    data = observe(emulator)
    data |= {
        "xp_bin_400": data["xp_bin_400"][0],
        "xp_bin_440": (1.0, np.inf),
        "xp_bin_480": (np.nan, 0.1),
        "xp_bin_520": (-1.0, 0.1),
    }
    model = ei.XPModel(emulator, data)
    assert model.notes == ("Without an error, and so left out: xp_bin_400.",)
    np.testing.assert_array_equal(np.asarray(model.likelihood.others[0].seen), [0, 0, 0, 0] + [1] * 9)
    one = model.likelihood.others[0]
    assert np.isfinite(float(value(one, at(model))))
    moved = dataclasses.replace(one, data=one.data.at[:4].set(7.0))
    assert float(value(moved, at(model))) == float(value(one, at(model)))


@pytest.mark.parametrize("kind, moves", [("j_h", True), ("xp_bin_600", False)])
def test_one_band(emulator, kind, moves):
    """A colour alone tells of the temperature; one flux alone of nothing, and the model says so."""
    model = ei.XPModel(emulator, {kind: observe(emulator)[kind]})
    both = [float(value(model.likelihood, at(model, **p))) for p in ({}, {"teff": 4800.0})]
    assert np.isfinite(both).all() and (abs(both[1] - both[0]) > 5) is moves
    assert bool(model.notes) is not moves


@pytest.mark.parametrize(
    "data, options, words",
    [
        (dict.fromkeys(KINDS, (np.nan, 1.0)), {}, "None of the 13 numbers"),
        ({}, {}, "None of the 13 numbers"),
        ({"xp_bin_450": (1.0, 0.1)}, {}, "Did you mean 'xp_bin_"),
        ({"j_h": (0.3, 0.0)}, {}, "error of j_h is 0"),
        ({"j_h": (0.3, -0.1)}, {}, "error of j_h is -0.1"),
        ({"j_h": "red"}, {}, "must be given as"),
        ({"j_h": (0.3, 0.02)}, {"parallax": (5.0, 0.5)}, "phot_g_mean_mag"),
        ({"j_h": (0.3, 0.02), **MAGNITUDE}, {"parallax": (5.0, 0.0)}, "error positive"),
        ({"j_h": (0.3, 0.02), **MAGNITUDE}, {"parallax": (np.nan, 0.1)}, "finite"),
        ({"j_h": (0.3, 0.02), **MAGNITUDE}, {"parallax": (5.0, np.inf)}, "finite"),
        ([1.0, 2.0], {}, "mapping of kinds"),
    ],
)
def test_data_that_cannot_be_used(emulator, data, options, words):
    with pytest.raises(ObservationError, match=words):
        ei.XPModel(emulator, data, **options)


def test_labels_and_priors_that_cannot_be_used(emulator):
    data = {"j_h": (0.3, 0.02)}
    with pytest.raises(LabelError, match="Unknown label 'tef'"):
        ei.XPModel(emulator, data, scale_errors={"tef": 1.0})
    with pytest.raises(LabelError, match="scale error of teff"):
        ei.XPModel(emulator, data, scale_errors={"teff": -1.0})
    with pytest.raises(EmuinferError, match="cannot be fixed"):
        ei.XPModel(emulator, data, priors={"teff": 9000.0})
    fixed = ei.XPModel(emulator, data, priors={"a_k": 0.0, "fe_h": dist.Normal(0, 0.1)})
    assert fixed.names == ("teff", "logg", "fe_h", "alpha_m") and fixed.units["a_k"] == "mag"
