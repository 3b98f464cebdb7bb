"""Gravity from Gaia's parallax and colour: published numbers, finite differences, bounds, mocks, tables that lack something."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import tiny
from astropy.table import Table

import emuinfer as ei
from emuinfer import LabelSpace, StellarModel
from emuinfer.errors import EmuinferError, LabelError, ObservationError
from emuinfer.likelihoods.gaia import GaiaLikelihood, colour_temperature, extinction_g, read_gaia
from emuinfer.likelihoods.gaia_tables import gaia_of, gaia_of_stars
from emuinfer.posteriors import draws_of

ROW = {
    "parallax": 5.0,
    "parallax_error": 0.02,
    "phot_g_mean_mag": 11.2,
    "bp_rp": 0.85,
    "ruwe": 1.0,
    "a_v": 0.1,
    "a_v_error": 0.03,
}
SPACE = LabelSpace(("teff", "logg", "fe_h"), (4500, 3.0, -1.5), (6500, 5.0, 0.5))
STAR = {"teff": 5600.0, "logg": 4.3, "fe_h": -0.3}
VALUES = {n: jnp.float32(v) for n, v in {**STAR, "a_k": 0.02}.items()}


def test_the_sun_has_its_temperature():
    """BP − RP = 0.82 of the Sun (Casagrande & VandenBerg 2018): 5772 K within the scatter; and a derivative that is one."""
    found, slope, sd = (float(x) for x in colour_temperature(jnp.float32(0.82), jnp.float32(4.44), jnp.float32(0.0)))
    assert abs(found - 5772) < sd < 130
    step = [float(colour_temperature(jnp.float32(c), jnp.float32(4.44), jnp.float32(0.0))[0]) for c in (0.81, 0.83)]
    assert slope == pytest.approx((step[1] - step[0]) / 0.02, rel=0.01)


def test_colours_of_benchmark_stars(shared_data):
    """Interferometric temperatures of stars within 20 pc and fainter than G = 4: no bias beyond 1.5 %, with the scatter as stated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(shared_data / "reference" / "gaia_fgk_benchmark_v3_lite.fits")
    of = lambda n: np.ma.filled(np.ma.asarray(table[n]).astype(float), np.nan)
    colour, teff, logg, fe_h = of("bp_rp"), of("teff"), of("logg"), of("fe_h")
    use = (of("parallax") > 50) & (of("phot_g_mean_mag") > 4) & (colour < 1.3) & (logg > 3.5)
    assert use.sum() > 15
    found, _, sd = colour_temperature(*(jnp.asarray(x[use], jnp.float32) for x in (colour, logg, fe_h)))
    error = np.hypot(np.asarray(sd), of("e_teff")[use])
    assert abs(np.median(np.asarray(found) - teff[use])) < 0.015 * 5800
    assert np.median(np.abs(np.asarray(found) - teff[use]) / error) < 1.4
    a_g, red = of("ag_gspphot"), of("ebpminrp_gspphot")  # of the archive's own models of stars
    reddening = np.median(red[a_g > 0.05] / a_g[a_g > 0.05])
    assert reddening == pytest.approx((3.374 - 2.035) / 2.74, rel=0.12)


def test_gravities_of_benchmark_stars(shared_data):
    """log g by Gaia's parallax and magnitude of a hundred stars of the Gaia FGK benchmark, whose log g come from interferometric radii."""
    from tests.benchmarks.gaia import compared, gravities

    found = compared(gravities())
    dwarfs, giants, old = found["dwarfs"], found["giants"], found["metal-poor giants"]
    assert dwarfs["n"] > 50 and abs(dwarfs["median offset"]) < 0.02 and dwarfs["scatter"] < 0.04
    assert giants["n"] > 30 and abs(giants["median offset"]) < 0.05 and giants["scatter"] < 0.15
    assert old["n"] >= 4 and abs(old["median offset"]) < 0.05
    assert min(one["within 2 sd"] for one in found.values()) > 0.9


def test_terms_against_plain_gaussians():
    """Differences of the log likelihood over the extinction and Teff, by hand."""
    one = GaiaLikelihood.of(read_gaia(ROW))
    at = lambda **changes: {**VALUES, **{n: jnp.float32(v) for n, v in changes.items()}}
    value = eqx.filter_jit(lambda o, v: o.log_likelihood(v))

    def by_hand(**changes):
        v = {n: float(x) for n, x in at(**changes).items()}
        red = (3.374 - 2.035) / 2.74 * float(extinction_g(jnp.float32(v["a_k"]), jnp.float32(v["teff"])))
        found, slope, sd = (
            float(x) for x in colour_temperature(*(jnp.float32(x) for x in (0.85 - red, v["logg"], v["fe_h"])))
        )
        variance = sd**2 + slope**2 * (0.015**2 + (0.1 * red) ** 2)
        a_k = 0.1 * 2.74 / 3.1 / 8.05
        sd_k = np.hypot(0.03 * 2.74 / 3.1 / 8.05, 0.003)
        of_colour = -0.5 * ((v["teff"] - found) ** 2 / variance + np.log(variance / slope**2))
        return of_colour - 0.5 * ((v["a_k"] - a_k) / sd_k) ** 2 + float(one.luminosity.log_likelihood(at(**changes)))

    for change in ({"teff": 5300.0}, {"a_k": 0.06}, {"logg": 3.2, "fe_h": -1.0}):
        assert float(value(one, at(**change)) - value(one, VALUES)) == pytest.approx(
            by_hand(**change) - by_hand(), abs=0.02
        )
    nothing = GaiaLikelihood.of(read_gaia(ROW), there=False)
    assert float(value(nothing, at(teff=4700.0, logg=3.1))) == pytest.approx(float(value(nothing, VALUES)), abs=1e-4)


def test_information_against_a_hessian():
    """Near the best values the curvature of the log likelihood is the information."""
    one = GaiaLikelihood.of(read_gaia(ROW))
    names, unit = ("teff", "logg", "fe_h", "a_k"), jnp.asarray([100.0, 0.1, 0.1, 0.01], jnp.float32)
    values_at = lambda z: {n: VALUES[n] + unit[i] * z[i] for i, n in enumerate(names)}
    information = np.asarray(eqx.filter_jit(lambda o, z: o.information(values_at, z))(one, jnp.zeros(4)), float)
    # Where the residuals are zero: parallax and colour that the star has.
    m = float(one.luminosity.absolute(VALUES)[0])
    r, _, slope = one._colour(VALUES)
    best = ROW | {
        "parallax": 100 * 10 ** (-0.2 * (11.2 - m)),
        "bp_rp": 0.85 + float(r / slope),
        "a_v": 0.02 * 8.05 * 3.1 / 2.74,
    }
    there = GaiaLikelihood.of(read_gaia(best))
    hessian = -np.asarray(jax.jit(jax.hessian(lambda z: there.log_likelihood(values_at(z))))(jnp.zeros(4)), float)
    scale = np.sqrt(np.diag(hessian))
    np.testing.assert_allclose(information / np.outer(scale, scale), hessian / np.outer(scale, scale), atol=0.12)


def test_what_the_archive_gives():
    star = read_gaia({**ROW, "ruwe": 2.0})
    assert star.parallax_error == pytest.approx(np.hypot(0.04, 0.03)) and "RUWE is 2.00" in star.notes[0]
    corrected = read_gaia({**ROW, "zero_point": -0.03})
    assert corrected.parallax == pytest.approx(5.03) and corrected.parallax_error == pytest.approx(np.hypot(0.02, 0.01))
    assert (star.a_k, star.a_k_error) == pytest.approx((0.1 * 0.1098, np.hypot(0.03 * 0.1098, 0.003)), rel=1e-3)
    dust = lambda **more: read_gaia({k: v for k, v in ROW.items() if not k.startswith("a_v")} | more)
    assert dust().a_k_error == 0.1 and "No extinction is given" in dust().notes[0]
    found = dust(ag_gspphot=0.8)
    assert (
        found.a_k == 0 and found.a_k_error == pytest.approx(np.hypot(0.8 / 8.05, 0.02)) and "GSP-Phot" in found.notes[0]
    )
    assert "nothing checks the extinction" in read_gaia({k: v for k, v in ROW.items() if k != "bp_rp"}).notes[0]
    assert "left out" in read_gaia({**ROW, "bp_rp": 0.1}).notes[0]
    assert "uncertain" in read_gaia({**ROW, "phot_g_mean_mag": 1.2}).notes[0]
    assert read_gaia({**ROW, "phot_bp_mean_mag": 12.0, "phot_rp_mean_mag": 11.0}).colour == 1.0
    assert read_gaia({**ROW, "parallax": -0.3}).parallax == -0.3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parallax_error": np.nan}, "no parallax_error"),
        ({"parallax": np.ma.masked, "phot_g_mean_mag": ""}, "no parallax and no phot_g_mean_mag"),
        ({"parallax_error": -0.1}, "must be positive"),
        ({"paralax": 3.0}, "does not know 'paralax'"),
        ({"ruwe": "high"}, "no number"),
    ],
)
def test_what_cannot_be(change, words):
    with pytest.raises(ObservationError, match=words):
        read_gaia({**ROW, **change})


def test_tables(tmp_path):
    """Rows by name, by order, alone; a star that lacks something is told apart."""
    table = Table(
        {
            "name": ["b", "a"],
            "parallax": [1.0, 2.0],
            "parallax_error": [0.1, 0.1],
            "PHOT_G_MEAN_MAG": [9.0, np.nan],
            "x": [1, 2],
        }
    )
    table.write(tmp_path / "t.csv", format="ascii.csv")
    assert gaia_of(tmp_path / "t.csv", name="b").parallax == 1.0 and gaia_of(table[:1]).magnitude == 9.0
    found = gaia_of_stars(tmp_path / "t.csv", ["a", "b", "c"])
    assert found.stars[0] is None and found.stars[1].parallax == 1.0 and "no phot_g_mean_mag" in found.problems[0]
    assert "no such star" in found.problems[2]
    with pytest.raises(ObservationError, match="none with the name 'c'"):
        gaia_of(table, name="c")
    del table["name"]
    assert gaia_of_stars(table, ["u", "v"]).stars[0].parallax == 1.0
    with pytest.raises(ObservationError, match="2 rows for 3 stars"):
        gaia_of_stars(table, ["u", "v", "w"])
    with pytest.raises(ObservationError, match="no file"):
        gaia_of(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def emulator():
    """Lines that know log g little: as an excitation of a hundredth of the metallicity's."""
    rng = np.random.default_rng(5)
    n = 20
    centre = tuple(np.sort(rng.uniform(tiny.RANGE[0] + 0.4, tiny.RANGE[1] - 0.4, n)).tolist())
    slope = np.stack([rng.uniform(-1.3, 0.3, n), rng.uniform(-0.2, 0.2, n), np.full(n, 2.0)], axis=1)
    as32 = lambda x: jnp.asarray(x, jnp.float32)
    lines = tiny.Lines(
        centre, as32(rng.uniform(-1.5, 1.5, n)), as32(slope), as32(np.full(n, -0.2)), SPACE, tiny.RANGE, "air"
    )
    return tiny.reduced_lines(lines, n_train=200, components=8, hidden=32, steps=800)


@pytest.fixture(scope="module")
def observation(emulator):
    return tiny.observe(emulator, snr=60.0, labels=STAR, grid=emulator.config.wavelength)


def archive(logg=STAR["logg"], colour=0.85):
    """A row whose parallax is that of the star at 200 pc with `logg`."""
    one = GaiaLikelihood.of(read_gaia(ROW))
    m = float(one.luminosity.absolute({**VALUES, "logg": jnp.float32(logg), "a_k": jnp.float32(0.011)})[0])
    return {**ROW, "phot_g_mean_mag": m + 5 * np.log10(200) - 5, "bp_rp": colour}


OPTIONS = {"progress": False, "rv_range": (-60, 60), "line_errors": None}


def test_bounds_and_joint_models(emulator, observation):
    """log g of a spectrum that knows it little becomes the parallax's, with the errors of mass and correction; bounds say so before."""
    alone = StellarModel(emulator, observation, **OPTIONS)
    both = StellarModel(emulator, observation, gaia=archive(), **OPTIONS)
    assert both.names == (*alone.names, "a_k") and both.units["a_k"] == "mag"
    at = {**STAR, "rv": tiny.RV, "vbroad": tiny.VBROAD}
    little, more = ei.cramer_rao(alone, at), ei.cramer_rao(both, {**at, "a_k": 0.011})
    assert more.marginal["logg"] < 0.6 * little.marginal["logg"] and more.marginal["logg"] < 0.08
    joint = ei.JointModel(
        [
            alone,
            ei.ParallaxModel((5.0, np.hypot(0.02, 0.03)), (archive()["phot_g_mean_mag"], 0.0), priors={"a_k": 0.011}),
        ]
    )
    fixed = StellarModel(
        emulator,
        observation,
        gaia={k: v for k, v in archive().items() if k != "bp_rp"},
        priors={"a_k": 0.011},
        **OPTIONS,
    )
    assert ei.cramer_rao(fixed, at).marginal["logg"] == pytest.approx(
        ei.cramer_rao(joint, at).marginal["logg"], rel=0.01
    )


@pytest.mark.slow
def test_posterior(emulator, observation):
    """log g within its errors, which are those of the bounds; verified, with data simulated for all."""
    both = StellarModel(emulator, observation, gaia=archive(), **OPTIONS)
    more = ei.cramer_rao(both, {**STAR, "rv": tiny.RV, "vbroad": tiny.VBROAD, "a_k": 0.011})
    posterior = ei.sample(
        both, seed=1, progress=False, chains=2, warmup=200, draws=250, verify=40, predictive=20, pointwise=20
    )
    x = draws_of(posterior, "logg")
    assert abs(x.mean() - STAR["logg"]) < 3.5 * x.std() and x.std() == pytest.approx(more.marginal["logg"], rel=0.35)
    assert posterior.attrs["verification"] == "ok" and "chi2_gaia" in posterior.attrs["goodness_statistics"]
    assert posterior["observed_data"]["gaia"].shape == (3,) and posterior["posterior_predictive"]["gaia"].shape[-1] == 3


def test_is_a_numpyro_model(emulator, observation):
    """Its density is that of priors, pixels and Gaia; without observations it simulates all of them."""
    from numpyro.infer import Predictive
    from numpyro.infer.util import log_density

    model = StellarModel(emulator, observation, gaia=archive(), **OPTIONS)
    values = {
        n: jnp.float32({**STAR, "rv": tiny.RV, "vbroad": tiny.VBROAD, "a_k": 0.02, "log10_jitter": -3.0}[n])
        for n in model.names
    }
    flat = sum(float(p.log_prob(values[n])) for n, p in model.all_priors.items())
    found = float(jax.jit(lambda v: log_density(model, (), {}, v)[0])(values))
    both = float(eqx.filter_jit(lambda o, v: o.log_likelihood(v))(model.likelihood, values)) + float(
        model.likelihood.constant
    )
    assert found == pytest.approx(flat + both, abs=0.05)
    alone = StellarModel(emulator, observation, **OPTIONS).likelihood
    pixels = float(eqx.filter_jit(lambda o, v: o.log_likelihood(v))(alone, values)) + float(alone.constant)
    assert both - pixels == pytest.approx(float(model.likelihood.others[0].log_likelihood(values)), abs=0.05)
    draws = {n: jnp.broadcast_to(v, (5,)) for n, v in values.items()}
    simulated = Predictive(model, draws)(jax.random.key(0), observe=False)
    assert simulated["gaia"].shape == (5, 3) and simulated["flux"].shape == (5, len(model.wavelength))


def test_arms_and_priors(emulator, observation):
    """In a `JointModel` of arms the parallax counts once; an extinction has the prior that is given."""
    arms = ei.JointModel.of(
        emulator, [observation, observation], gaia=archive(), priors={"a_k": dist.HalfNormal(0.01)}, **OPTIONS
    )
    assert "a_k" in arms.names and len(arms.likelihood.others) == 1 and arms.units["a_k"] == "mag"
    assert float(arms.likelihood.others[0].seen[2]) == 0 and arms.first_guesses("a_k")[0] == pytest.approx(
        0.008, abs=0.001
    )
    assert all(not arm.beside for arm in arms.likelihood.arms)
    one = StellarModel(emulator, observation, gaia=archive(), **OPTIONS)
    with pytest.raises(ObservationError, match="given twice"):
        ei.JointModel([one, ei.ParallaxModel((5.0, 0.02), (11.0, 0.01))])
    with pytest.raises(LabelError, match="no Gaia data"):
        StellarModel(emulator, observation, priors={"a_k": 0.1}, **OPTIONS)


def test_labels_without_gravity(tiny_emulator, tiny_observation):
    with pytest.raises(LabelError, match="no logg"):
        StellarModel(tiny_emulator, tiny_observation, gaia=ROW, **OPTIONS)


def test_the_option(tmp_path):
    from emuinfer.cli.options import gaia_given

    assert gaia_given(None) is None and gaia_given("parallax=3,ruwe=1.1") == {"parallax": 3.0, "ruwe": 1.1}
    (tmp_path / "row.csv").write_text("parallax\n3\n")
    assert gaia_given(str(tmp_path / "row.csv")) == tmp_path / "row.csv"
    with pytest.raises(EmuinferError, match="no file"):
        gaia_given("row.csv")


@pytest.mark.slow
def test_a_survey(emulator, tmp_path):
    """Each star has its own row; one without a parallax is fitted without, and flagged."""
    from emuinfer.observations.stack import stack_observations
    from emuinfer.survey import FLAGS

    stars = [tiny.observe(emulator, snr=60.0, seed=i, labels=STAR, grid=emulator.config.wavelength) for i in range(3)]
    path = stack_observations(stars, tmp_path / "stars.h5")
    rows = [archive(), archive(logg=4.6), archive()]
    rows[2]["parallax"], rows[0]["ruwe"] = np.nan, 1.7
    gaia = Table(rows)
    config = ei.SamplingConfig(warmup=75, draws=150, local=80, test=20, components=8, verify=24)
    options = {"config": config, "line_errors": None, "batch": 3, "progress": False, "rv_range": (-60.0, 60.0)}
    table = ei.fit_many(emulator, path, tmp_path / "out", gaia=gaia, **options)
    assert table["logg_sd"][1] < 0.6 * table["logg_sd"][2] and table["logg"][1] - table["logg"][0] > 0.15
    assert [bool(f & FLAGS["no_parallax"]) for f in table["flag"]] == [False, False, True]
    assert [bool(f & FLAGS["ruwe"]) for f in table["flag"]] == [True, False, False]
    for row in table:
        assert ("logg:" in row["limit_lines"]) == (row["l_logg"] in ("<", ">")), row["limit_lines"]
    assert np.isfinite(table["a_k"]).all() and not (table["flag"] & FLAGS["verification"]).any()
