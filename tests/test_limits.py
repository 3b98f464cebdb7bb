"""Limits against quantiles of truncated Gaussians and their coverage; lines of a label against lines whose place is known."""

import numpy as np
import numpyro.distributions as dist
import pytest
import tiny
from scipy import stats

import emuinfer as ei
from emuinfer import StellarModel
from emuinfer.errors import EmuinferError
from emuinfer.forecast import lines_of, plot_lines
from emuinfer.forecast.observed import model_information
from emuinfer.forecast.species import elements_of_label, species_names, strengths
from emuinfer.likelihoods.priors import prior_fact
from emuinfer.posteriors import Limit, Prior, build_posterior, limit_of, stored_limits, summary_table
from emuinfer.synthesis import LineList, load_line_list

UNIT = Prior(0.0, 1.0, 12**-0.5)


def truncated(mean, sd, n=4000, seed=0, lower=0.0, upper=1.0):
    one = stats.truncnorm((lower - mean) / sd, (upper - mean) / sd, mean, sd)
    return one.rvs(n, random_state=seed), one


# Verdicts and limits


@pytest.mark.parametrize(
    ("mean", "sd", "verdict"),
    [
        (0.5, 0.1, "measured"),
        (0.3, 0.1, "measured"),  # three standard deviations from the bound
        (0.1, 0.1, "upper limit"),
        (-0.2, 0.15, "upper limit"),
        (0.95, 0.1, "lower limit"),
        (0.5, 2.0, "unconstrained"),
        (0.2, 0.6, "unconstrained"),
    ],
)
def test_verdicts_and_quantiles(mean, sd, verdict):
    draws, exact = truncated(mean, sd)
    found = limit_of(draws.reshape(4, 1000), UNIT)
    assert found.verdict == verdict
    if verdict in ("measured", "unconstrained"):
        assert np.isnan(found.value) and np.isnan(found.likelihood)
        return
    level = 0.95 if verdict == "upper limit" else 0.05
    assert found.value == pytest.approx(exact.ppf(level), abs=0.03 * sd + 0.01)
    # The likelihood is the Gaussian itself: from the peak, or from the bound where that lies beyond, 1.3528 in its logarithm.
    z = np.sqrt(2 * 1.3528 + min(max(-mean / sd, 0.0), 9.0) ** 2)
    far = mean + z * sd if verdict == "upper limit" else mean - np.sqrt(2 * 1.3528) * sd
    assert found.likelihood == pytest.approx(far, abs=0.12 * sd)


def test_a_prior_that_is_all_there_is():
    """Gaussian draws of the prior itself; half-normal draws of a positive parameter; an exponential pile at zero."""
    rng = np.random.default_rng(1)
    assert limit_of(rng.normal(5700, 80, 4000), Prior(4000, 7000, 80.0)).verdict == "unconstrained"
    assert limit_of(rng.normal(5700, 30, 4000), Prior(4000, 7000, 80.0)).verdict == "measured"
    positive = Prior(0.0, np.inf, 18.0)
    assert limit_of(np.abs(rng.normal(0, 30, 4000)), positive).verdict == "unconstrained"
    found = limit_of(rng.exponential(2.0, 4000), positive)
    assert found.verdict == "upper limit" and found.value == pytest.approx(-2 * np.log(0.05), rel=0.08)
    assert limit_of(1.0 + rng.exponential(0.01, 500), UNIT)[:2] == ("lower limit", 1.0)  # beyond the wall of a domain
    assert limit_of(np.full(100, 0.3), UNIT).verdict == "unconstrained" and limit_of([np.nan, 1.0], UNIT).sign == "?"


def test_limits_cover():
    """Truths drawn from the prior, data about them: of those that come out as limits, 95 % lie within."""
    rng = np.random.default_rng(2)
    inside = []
    for sd in (0.1, 0.25):
        truth = rng.uniform(0, 1, 600)
        for i, (t, y) in enumerate(zip(truth, truth + sd * rng.standard_normal(600))):
            found = limit_of(truncated(y, sd, 500, seed=i)[0], UNIT)
            if found.verdict == "upper limit":
                inside.append(t < found.value)
            elif found.verdict == "lower limit":
                inside.append(t > found.value)
    assert len(inside) > 300 and np.mean(inside) == pytest.approx(0.95, abs=3.5 * np.sqrt(0.95 * 0.05 / len(inside)))


def test_what_is_known_of_priors():
    flat = prior_fact(dist.Uniform(-0.2, 0.9), -0.3, 0.6)
    assert (flat.lower, flat.upper) == pytest.approx((-0.2, 0.6)) and flat.sd == pytest.approx(0.8 / np.sqrt(12))
    narrow = prior_fact(dist.Normal(5700.0, 80.0), 4000.0, 7000.0)
    assert (narrow.lower, narrow.upper, narrow.sd) == (4000, 7000, 80) and not narrow.flat
    assert prior_fact(dist.HalfNormal(10.0), 0.0, np.inf).upper == np.inf


def test_the_summary_has_them():
    draws, _ = truncated(0.05, 0.1)
    attrs = {"limits": {"y_fe": ["upper limit", 0.22, 0.21], "teff": ["measured", None, None]}}
    values = {"teff": np.full((2, 2000), 5700.0), "y_fe": draws.reshape(2, 2000)}
    posterior = build_posterior(values, {}, observed_data={"flux": np.ones(3)}, attrs=attrs)
    table = summary_table(posterior)
    assert (
        list(table["verdict"]) == ["measured", "upper limit"]
        and table["limit"][1] == 0.22
        and np.isnan(table["limit"][0])
    )
    assert stored_limits(posterior)["y_fe"] == Limit("upper limit", 0.22, 0.21)


# Lines


def test_strengths_name_the_right_lines():
    """The strongest lines of the Sun at 5100–5300 Å are known: Mg b, Fe I 5269.5, Cr I 5208.4; Y is ionised, in hot stars Fe too."""
    lines = load_line_list()
    sun = {"teff": 5772.0, "logg": 4.438, "fe_h": 0.0, "mg_fe": 0.0}
    strength, names = strengths(lines, sun), species_names(lines)
    best = [f"{names[i]} {lines.wavelength[i]:.0f}" for i in np.argsort(-strength)[:6]]
    assert {"Mg I 5184", "Mg I 5173", "Mg I 5167", "Fe I 5270"} <= set(best)
    yttrium = lines.element == 39
    assert strength[yttrium & (lines.ion == 2)].max() > strength[yttrium & (lines.ion == 1)].max() + 2
    more = strengths(lines, {**sun, "mg_fe": 0.4})
    assert np.allclose((more - strength)[names == "Mg I"], 0.4) and np.allclose((more - strength)[names == "Fe I"], 0.0)
    iron = lambda labels: (
        strengths(lines, labels)[names == "Fe II"].max() - strengths(lines, labels)[names == "Fe I"].max()
    )
    assert iron({**sun, "teff": 6800.0}) > iron(sun) > iron({**sun, "teff": 4500.0})
    assert elements_of_label("y_fe", {"y_fe": 0, "fe_h": 0}) == {39} and elements_of_label("teff", {}) is None
    assert {12, 8, 14} <= elements_of_label("mg_fe", {"mg_fe": 0, "ca_fe": 0}) and 20 not in elements_of_label(
        "mg_fe", {"mg_fe": 0, "ca_fe": 0}
    )


@pytest.fixture(scope="module")
def model(tiny_emulator, tiny_observation):
    return StellarModel(tiny_emulator, tiny_observation, progress=False, rv_range=(-60, 60), line_errors=None)


@pytest.fixture(scope="module")
def listed():
    """The lines of `tiny.py`, of which every fourth is of magnesium."""
    emulator = tiny.line_emulator()
    centre, n = np.array(emulator.centre), len(emulator.centre)
    magnesium = np.arange(n) % 4 == 2
    whole = lambda x: np.full(n, float(x))
    return LineList(
        centre, np.where(magnesium, 12.0, 26.0), whole(1), whole(0), whole(2.0), np.asarray(emulator.strength, float), whole(0), whole(1),
        whole(0), whole(1.0), "tiny",
    )  # fmt: skip


STAR = {**tiny.TRUTH, "rv": tiny.RV, "vbroad": tiny.VBROAD}


def test_lines_of_an_abundance(model, listed):
    """Only lines of magnesium tell of it, each where it is; the shares add up to the marginal information."""
    table = lines_of(model, STAR, "mg_fe", lines=listed, least=1e-4)
    centre = listed.wavelength[listed.element == 12]
    assert (
        set(table["species"]) == {"Mg I"}
        and np.abs(np.asarray(table["wavelength"])[:, None] - centre).min(1).max() < 1e-6
    )
    assert table["share"].sum() == pytest.approx(1.0, abs=0.02) and (np.diff(table["share"]) <= 0).all()
    assert table["wavelength"].unit == "Angstrom" and table.meta["medium"] == "air"
    known = model_information(model, STAR, model_error=True)
    whole = {n: b - a for n, (a, b) in model.label_space.bounds.items()}
    prior = {n: w / np.sqrt(12) for n, w in whole.items()} | {"vbroad": 10 * np.sqrt(1 - 2 / np.pi)}
    fisher = known.fisher + np.diag([prior.get(n, np.inf) ** -2.0 for n in known.names])
    i = known.names.index("mg_fe")
    variance = np.linalg.inv(fisher)[i, i]
    assert table.meta["sd"] ** -2 == pytest.approx(1 / variance - prior["mg_fe"] ** -2, rel=0.01)
    other, _ = known.credit("mg_fe", prior)  # the other way to share it
    assert other[0].sum() == pytest.approx(known.credit("mg_fe", prior, by_derivative=True)[0][0].sum(), rel=0.02)


def test_a_line_that_is_lost_costs_its_share(model, listed, tiny_emulator, tiny_observation):
    """Without the pixels of the best line the information falls by about its share."""
    table = lines_of(model, STAR, "mg_fe", lines=listed)
    at = float(table["wavelength"][0]) * (1 + tiny.RV / 299792.458)
    half = 0.35
    one = tiny_observation
    masked = ei.Observation(
        one.wavelength, one.flux, one.uncertainty, mask=np.abs(one.wavelength - at) < half, resolution=one.resolution, medium="air",
        clip=None,
    )  # fmt: skip
    less = StellarModel(tiny_emulator, masked, progress=False, rv_range=(-60, 60), line_errors=None)
    left = (lines_of(less, STAR, "mg_fe", lines=listed).meta["sd"] / table.meta["sd"]) ** -2
    assert left == pytest.approx(1 - table["share"][0], abs=0.12)


def test_other_parameters_and_no_list(model, listed, tmp_path):
    """All lines tell of Teff and the velocity; without a list there are places but no names."""
    assert set(lines_of(model, STAR, "teff", lines=listed)["species"]) == {"Fe I", "Mg I"}
    plain = lines_of(model, STAR, "rv")
    assert set(plain["species"]) == {""} and plain["share"].sum() > 0.8
    with pytest.raises(EmuinferError, match="not a free parameter"):
        lines_of(model, STAR, "logg")
    figure = plot_lines(tmp_path / "lines.png", model, STAR, ["mg_fe", "teff"], lines=listed)
    assert (tmp_path / "lines.png").stat().st_size > 10_000 and len(figure.axes) == 3
    assert any("Mg I" in text.get_text() for text in figure.axes[1].texts)


def test_two_exposures_tell_twice_as_much(listed, tiny_emulator, tiny_observation):
    options = {"progress": False, "rv_range": (-60, 60), "line_errors": None, "emulator_error": None}
    one = StellarModel(tiny_emulator, tiny_observation, **options)
    both = ei.JointModel.of(tiny_emulator, [tiny_observation, tiny_observation], **options)
    single, double = (lines_of(m, STAR, "mg_fe", lines=listed, least=1e-4) for m in (one, both))
    assert double.meta["sd"] / single.meta["sd"] == pytest.approx(0.5**0.5, rel=0.02)
    assert (
        set(double["arm"]) == {1, 2}
        and len(double) == 2 * len(single)
        and double["share"].sum() == pytest.approx(1, abs=0.02)
    )


def test_limits_of_a_posterior(model, listed):
    """Draws that pile up at a bound: a limit, with the lines that decided it, evaluated there."""
    rng = np.random.default_rng(3)
    n, (lo, hi) = 2000, model.label_space.bounds["mg_fe"]
    values = {name: STAR.get(name, -2.0) + 1e-3 * rng.standard_normal((2, n)) for name in model.names}
    values["mg_fe"] = truncated(lo, 0.1, 2 * n, lower=lo, upper=hi)[0].reshape(2, n)
    values["teff"] = 5600 + 30 * rng.standard_normal((2, n))
    posterior = build_posterior(values, {}, observed_data={"flux": np.ones(3)})
    table = ei.limits(model, posterior, lines=listed)
    rows = {row["label"]: row for row in table}
    assert rows["mg_fe"]["verdict"] == "upper limit" and rows["mg_fe"]["limit"] == pytest.approx(lo + 0.196, abs=0.01)
    assert (
        rows["mg_fe"]["lines"].startswith("Mg I 61")
        and rows["teff"]["verdict"] == "measured"
        and rows["teff"]["lines"] == ""
    )
    assert ei.lines_of(model, posterior, "mg_fe", lines=listed).meta["value"] == pytest.approx(rows["mg_fe"]["limit"])
