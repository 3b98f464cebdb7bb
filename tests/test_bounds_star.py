"""Whatever describes a star is accepted by `cramer_rao`; several arms; correlated noise."""

import types

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from astropy.table import Table
from tiny import RV, SPACE, TRUTH, VBROAD, observe

from emuinfer import JointModel, Observation, StellarModel, cramer_rao
from emuinfer.errors import EmuinferError, LabelError
from emuinfer.forecast import Forecast, Instrument
from emuinfer.forecast.exposure import Exposure
from emuinfer.forecast.star import read_star
from emuinfer.posteriors import build_posterior, save_posterior, summary_table

NUISANCES = {"rv": RV, "vbroad": VBROAD, "log10_jitter": -2.0}
KNOWN = {**TRUTH, **NUISANCES}
OPTIONS = {"progress": False, "rv_range": (-60, 60), "robust": False}
INSTRUMENT = Instrument.single(6181.0, 6193.0, 20_000.0)


@pytest.fixture(scope="module")
def model(tiny_emulator, tiny_observation):
    return StellarModel(tiny_emulator, tiny_observation, **OPTIONS)


@pytest.fixture(scope="module")
def expected(model):
    """With everything said by keywords."""
    return cramer_rao(model, TRUTH, **NUISANCES).marginal


@pytest.fixture(scope="module")
def posterior():
    """Draws whose medians are `KNOWN`."""
    draws = {n: v + np.array([[-1.0, 0.0, 3.0]]) for n, v in KNOWN.items()}
    return build_posterior(draws, {}, observed_data={"flux": np.ones(3)})


def as_table(posterior, **meta):
    table = summary_table(posterior)
    table.meta.update(meta)
    return table


# What describes a star


def test_nuisances_in_a_mapping(model, expected):
    assert cramer_rao(model, KNOWN).marginal == expected
    assert cramer_rao(model, {**KNOWN, "vbroad": 9.0}, vbroad=VBROAD).marginal == expected  # a keyword counts more


def test_a_summary_a_posterior_and_their_files(model, expected, posterior, tmp_path):
    close = lambda bounds: bounds.marginal == pytest.approx(expected, rel=1e-6)
    assert close(cramer_rao(model, posterior))
    assert close(cramer_rao(model, as_table(posterior)))
    as_table(posterior).write(tmp_path / "summary.ecsv", format="ascii.ecsv")
    assert close(cramer_rao(model, tmp_path / "summary.ecsv")) and close(
        cramer_rao(model, str(tmp_path / "summary.ecsv"))
    )
    save_posterior(posterior, tmp_path / "posterior.nc")
    assert close(cramer_rao(model, tmp_path / "posterior.nc"))
    fixed = as_table(posterior, fixed={"fe_h": TRUTH["fe_h"]})
    fixed.remove_row(list(fixed["label"]).index("fe_h"))
    assert close(cramer_rao(model, fixed))


def test_missing_labels_are_solar_with_a_note(model, expected):
    some = {n: v for n, v in KNOWN.items() if n != "fe_h"}
    bounds = cramer_rao(model, some)
    assert bounds.labels["fe_h"] == 0.0 and bounds.notes == (
        "Solar values are used for fe_h = 0, which were not given.",
    )
    assert bounds.marginal == cramer_rao(model, {**some, "fe_h": 0.0}).marginal != expected
    assert "Note: Solar values are used for fe_h" in repr(bounds)
    nothing = cramer_rao(model, {})
    assert nothing.labels["teff"] == 5777.0 and nothing.notes == ("No label was given: the star is the Sun.",)


def test_a_fixed_label_needs_not_be_said(tiny_emulator, tiny_observation):
    known = StellarModel(tiny_emulator, tiny_observation, **OPTIONS, priors={"fe_h": -0.3})
    bounds = cramer_rao(known, {n: v for n, v in KNOWN.items() if n != "fe_h"})
    assert bounds.labels["fe_h"] == -0.3 and not bounds.notes and "fe_h" not in bounds.names


def test_forecasts_take_the_same(tiny_emulator, posterior):
    expected = cramer_rao(tiny_emulator, TRUTH, INSTRUMENT, 100.0, rv=RV, vbroad=VBROAD, emulator_error=None)
    for star in (KNOWN, posterior, as_table(posterior)):
        bounds = cramer_rao(tiny_emulator, star, INSTRUMENT, 100.0, emulator_error=None)
        assert bounds.marginal == pytest.approx(expected.marginal, rel=1e-6)
        assert "Left out of the star's values: log10_jitter." in bounds.notes[-1]
    rotating = Forecast(tiny_emulator, {**TRUTH, "vsini": 5.0}, Exposure(INSTRUMENT, 100.0))
    assert rotating.shared[-2:] == ("rv", "vsini") and rotating.values["vsini"] == 5.0
    both = Forecast(tiny_emulator, {**TRUTH, "vsini": 5.0, "vbroad": 2.0}, Exposure(INSTRUMENT, 100.0))
    assert both.shared[-3:] == ("rv", "vbroad", "vsini")
    known = Forecast(tiny_emulator, TRUTH, Exposure(INSTRUMENT, 100.0), priors={"vsini": 5.0})
    assert known.shared[-2:] == ("rv", "vbroad") and known.values["vsini"] == 5.0


def test_prior_widths_are_gaussian_priors(tiny_emulator):
    options = {"emulator_error": None}
    by_width = cramer_rao(tiny_emulator, TRUTH, INSTRUMENT, 100.0, prior_sd={"teff": 20.0, "rv": 0.1}, **options)
    priors = {"teff": dist.Normal(5500.0, 20.0), "rv": dist.Normal(0.0, 0.1)}
    by_prior = cramer_rao(tiny_emulator, TRUTH, INSTRUMENT, 100.0, priors=priors, **options)
    assert by_width.marginal == pytest.approx(by_prior.marginal, rel=1e-5)
    assert by_width.meta["priors"] == by_prior.meta["priors"] == {"teff": 20.0, "rv": pytest.approx(0.1)}


@pytest.mark.parametrize(
    ("star", "words"),
    [
        ({**TRUTH, "tef": 5000.0}, "Unknown label 'tef'. Did you mean 'teff'"),
        ({**KNOWN, "vsini": 3.0}, "vsini = 3.0 was given, but the model has no vsini"),
        ({**TRUTH, "rv_offset_2": 3.0}, "the model has no rv_offset_2"),
        ("nowhere.ecsv", "There is no file nowhere.ecsv"),
        (Table({"name": ["teff"], "mean": [5000.0]}), "needs the column label"),
        (Table({"label": ["teff"], "best": [5000.0]}), "one of median, value, mean"),
        (types.SimpleNamespace(teff=5000.0), "A star is a mapping of labels"),
        ([5600.0, -0.3], "must have length 3"),
        (np.full((2, 3), [5600.0, -0.3, 0.1]), "must have length 3"),
    ],
)
def test_what_is_no_star_is_named(model, star, words):
    with pytest.raises((EmuinferError, LabelError), match=words):
        cramer_rao(model, star)


def test_a_foreign_file_is_named(tmp_path):
    (tmp_path / "summary.ecsv").write_text("not a table\n")
    with pytest.raises(EmuinferError, match="no summary of a fit"):
        read_star(tmp_path / "summary.ecsv", SPACE)


# Several arms


@pytest.fixture(scope="module")
def arms(tiny_emulator):
    """Two overlapping stretches, the second moved and noisier."""
    whole = observe(tiny_emulator, grid=tiny_emulator.config.wavelength)
    moved = observe(tiny_emulator, grid=tiny_emulator.config.wavelength, rv=RV + 2.5, seed=2, snr=60)
    cut = lambda o, keep: Observation(
        o.wavelength[keep],
        o.flux[keep],
        o.uncertainty[keep],
        resolution=o.resolution,
        medium="air",
        name="arm",
        clip=None,
    )
    return cut(whole, whole.wavelength < 6188), cut(moved, moved.wavelength > 6186)


def test_arms_add_their_information(tiny_emulator, arms):
    """With the offset known, the information on labels, velocity and broadening is the sum of both arms', each with its
    continuum projected out."""
    options = {**OPTIONS, "line_errors": None}
    joint = JointModel.of(tiny_emulator, arms, priors={"rv_offset_2": 2.5}, **options)
    star = {**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter_1": -2.0, "log10_jitter_2": -1.5}
    both = cramer_rao(joint, star)
    assert both.names[:5] == ("teff", "fe_h", "mg_fe", "rv", "vbroad")
    assert {"continuum_1[0]", "continuum_2[0]"} < set(both.names) and both.labels["rv_offset_2"] == 2.5
    assert len(both.table()) == 5 and len(both.table(continuum=True)) == len(both.names)
    alone = [
        cramer_rao(arm, {**TRUTH, "rv": rv, "vbroad": VBROAD, "log10_jitter": jitter})
        for arm, rv, jitter in zip(joint.arms, (RV, RV + 2.5), (-2.0, -1.5))
    ]
    shared = [np.linalg.inv(b.covariance[:5, :5]) for b in alone]
    shared[1][4, 4] -= 1 / 10.0**2  # the prior of vbroad is there once
    np.testing.assert_allclose(
        np.linalg.inv(both.covariance[:5, :5]), sum(shared), rtol=1e-4, atol=1e-6 * shared[0].max()
    )


def test_a_free_offset_costs_velocity_only(tiny_emulator, arms):
    """An offset that nothing is known of leaves the second arm's velocity to itself; a known one gives it to the star."""
    free = JointModel.of(tiny_emulator, arms, priors={"rv_offset_2": dist.Normal(0.0, 1e3)}, **OPTIONS)
    known = JointModel.of(tiny_emulator, arms, priors={"rv_offset_2": 2.5}, **OPTIONS)
    star = {**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter": -2.0}
    with_offset, without = cramer_rao(free, {**star, "rv_offset_2": 2.5}), cramer_rao(known, star)
    first = cramer_rao(free.arms[0], star)
    assert with_offset.names[:6] == ("teff", "fe_h", "mg_fe", "rv", "vbroad", "rv_offset_2")
    assert with_offset.units["rv_offset_2"] == "km / s"
    assert without.marginal["rv"] < 0.95 * with_offset.marginal["rv"] < first.marginal["rv"]
    assert with_offset.marginal["rv"] == pytest.approx(first.marginal["rv"], rel=0.1)
    assert with_offset.marginal["mg_fe"] == pytest.approx(without.marginal["mg_fe"], rel=0.05)
    assert with_offset.marginal["rv_offset_2"] > with_offset.marginal["rv"]


def test_options_of_several_arms(tiny_emulator, arms):
    joint = JointModel.of(tiny_emulator, arms, **OPTIONS)
    star = {**TRUTH, "rv": RV, "vbroad": VBROAD}
    plain = cramer_rao(joint, star)
    assert plain.labels["rv_offset_2"] == pytest.approx(2.5, abs=1.0)  # its first guess
    noisy = [cramer_rao(joint, star, **o).marginal["fe_h"] for o in ({"log10_jitter": -1.5}, {"model_error": True})]
    assert min(noisy) > 1.05 * plain.marginal["fe_h"]
    assert cramer_rao(joint, star, full=True).marginal == pytest.approx(plain.marginal, rel=1e-3)
    used = [[b for n, b in plain.labels.items() if n.startswith(f"continuum_{k}")] for k in (1, 2)]
    assert cramer_rao(joint, star, continuum=used).marginal == pytest.approx(plain.marginal, rel=1e-4)
    with pytest.raises(EmuinferError, match="A JointModel has its own observation"):
        cramer_rao(joint, star, INSTRUMENT, 100.0)


# Correlated noise


def test_correlated_noise_of_a_model_against_a_dense_covariance(tiny_emulator, tiny_observation):
    """Bounds of a model with correlated pixels are those of the dense inverse of its noise's covariance."""
    fixed = {"priors": {"log10_jitter": -7.0}, "line_errors": None, "emulator_error": None}
    plain = StellarModel(tiny_emulator, tiny_observation, **OPTIONS, **fixed)
    model = StellarModel(tiny_emulator, tiny_observation, **OPTIONS, **fixed, correlation=1.5)
    star = {**TRUTH, "rv": RV, "vbroad": VBROAD}
    bounds = cramer_rao(model, star)
    terms = np.asarray(plain.likelihood.continuum.basis[: plain.likelihood.continuum.n_terms], float)
    coefficients = np.array([bounds.labels[f"continuum[{i}]"] for i in range(len(terms))])
    flux = lambda values: np.asarray(
        plain.likelihood.normalised_flux({n: jnp.float32(v) for n, v in values.items()}), float
    )
    steps = {"teff": 20.0, "fe_h": 0.02, "mg_fe": 0.02, "rv": 0.2, "vbroad": 0.2}
    rows = [(flux({**star, n: star[n] + h}) - flux({**star, n: star[n] - h})) / (2 * h) for n, h in steps.items()]
    jacobian = np.concatenate([np.array(rows) * (coefficients @ terms), terms * flux(star)])
    sigma = np.sqrt(np.asarray(plain.likelihood.noise.variance, float))
    place = np.arange(len(sigma))
    covariance = np.exp(-np.abs(place[:, None] - place) / 1.5) * np.outer(sigma, sigma)
    fisher = jacobian @ np.linalg.solve(covariance, jacobian.T) + np.diag([0.0] * 4 + [1e-2] + [1.0] * len(terms))
    expected = np.sqrt(np.diag(np.linalg.inv(fisher)))
    np.testing.assert_allclose(list(bounds.marginal.values()), expected, rtol=0.02)
    assert abs(expected[1] / cramer_rao(plain, star).marginal["fe_h"] - 1) > 0.1
