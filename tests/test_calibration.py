"""Calibration: of fits that must be calibrated and of fits that cannot be, the statistics behind it, the command line."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from astropy.table import Table
from scipy import stats

from emuinfer.calibration import check_coverage
from emuinfer.calibration.statistics import ALL, DRAWS, ecdf_band, histogram_band, ranks_of, summarise, uniformity
from emuinfer.emulators.uncertainty import EmulatorUncertainty, sensitivity
from emuinfer.errors import GridError, LabelError, SamplingError
from emuinfer.grids import Grid
from emuinfer.inference import SamplingConfig
from emuinfer.labels import sobol_design
from emuinfer.labels.features import label_terms
from emuinfer.wavelengths.pixels import PixelGrid

STARS = 48
OPTIONS = {
    "resolution": tiny.RESOLUTION,
    "pixels_per_fwhm": 2.5,
    "snr": 100,
    "rv_range": (-5.0, 5.0),
    "batch": 24,
    "progress": False,
    "config": SamplingConfig(warmup=75, draws=400, local=80, test=20, components=8, verify=0),
}


@pytest.fixture(scope="module")
def spectra(tiny_emulator):
    """Labels from the prior and the emulator's own spectra, on pixels of 0.02 Å."""
    wavelength = np.linspace(*tiny.RANGE, 701)
    labels = sobol_design(tiny_emulator.label_space, STARS, seed=5)
    return wavelength, labels, np.asarray(tiny_emulator(labels, wavelength), float)


@pytest.fixture(scope="module")
def perfect(tiny_emulator, spectra, tmp_path_factory):
    """Fits of the emulator's own spectra."""
    wavelength, labels, flux = spectra
    grid = Grid(labels, wavelength, flux, label_space=tiny_emulator.label_space, medium="air")
    return check_coverage(
        tiny_emulator, grid, tmp_path_factory.mktemp("perfect") / "out", emulator_error=None, **OPTIONS
    ), grid


def of_all_labels(calibration, on):
    s = calibration.summary
    return s[(s["parameter"] == ALL) & (s["emulator_error"] == on) & (s["stars"] == "all") & np.isfinite(s["snr"])][0]


def test_fits_with_the_true_model_are_calibrated(perfect):
    row = of_all_labels(perfect[0], False)
    assert row["n"] == STARS
    assert row["coverage_68"] == pytest.approx(0.68, abs=3.5 * row["coverage_68_error"])
    assert row["coverage_95"] == pytest.approx(0.95, abs=3.5 * row["coverage_95_error"])
    assert row["spread"] == pytest.approx(1.0, abs=0.15)
    single = perfect[0].summary[np.isfinite(perfect[0].summary["p_uniform"])]
    assert single["p_uniform"].min() > 0.01 / len(single)
    assert not perfect[0].notes


@pytest.fixture(scope="module")
def erring(tiny_emulator, spectra, tmp_path_factory):
    """Fits of spectra that depart from the emulator's by errors of a known covariance, which one of two likelihoods knows;
    interrupted after the first batch and then finished."""
    wavelength, labels, flux = spectra
    uncertainty = made_by_hand(tiny_emulator.label_space, wavelength)
    coefficients = np.random.default_rng(8).standard_normal((STARS, uncertainty.rank))
    factors = np.asarray(uncertainty.factors, float)
    flux = flux + sensitivity(flux, uncertainty.epsilon, np) * (coefficients @ factors)
    grid = Grid(labels, wavelength, flux, label_space=tiny_emulator.label_space, medium="air")
    out = tmp_path_factory.mktemp("erring") / "out"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        tiny.stop_after_one_batch(patch)
        check_coverage(tiny_emulator, grid, out, emulator_error=(uncertainty, None), **OPTIONS)
    first = next(out.glob("*/parts/part-000000.npz"))
    written = first.stat().st_mtime_ns
    done = check_coverage(tiny_emulator, grid, out, emulator_error=(uncertainty, None), **OPTIONS)
    assert first.stat().st_mtime_ns == written
    return done


def made_by_hand(space, wavelength):
    """Six factors, each a wave of 0.06 in ln opacity with a length of 1 to 4 Å, and nearly nothing on the diagonal."""
    rng = np.random.default_rng(2)
    waves = np.sin(2 * np.pi * (wavelength / rng.uniform(1, 4, (6, 1)) + rng.uniform(size=(6, 1))))
    terms = label_terms(space, np.zeros(len(space), np.float32), np).shape[-1]
    as32 = lambda x: jnp.asarray(x, jnp.float32)
    return EmulatorUncertainty(
        scale=jnp.zeros(terms),
        factor_scale=jnp.zeros(terms),
        stretch=jnp.zeros(terms),
        diagonal=as32(np.full(len(wavelength), 1e-4)),
        factors=as32(0.06 * np.sqrt(2) * waves),
        correlation=as32([1.0, 0.5, 0.0]),
        label_space=space,
        grid=PixelGrid.from_wavelength(wavelength),
        medium="air",
        epsilon=0.003,
        degrees_of_freedom=50.0,
        factor_degrees_of_freedom=50.0,
    )


@pytest.mark.slow
def test_unknown_errors_are_seen_and_known_ones_repair_the_fit(erring):
    off, on = of_all_labels(erring, False), of_all_labels(erring, True)
    assert off["coverage_68"] < 0.55 and off["spread"] > 1.4
    assert on["coverage_68"] == pytest.approx(0.68, abs=3.5 * on["coverage_68_error"])
    assert on["coverage_95"] == pytest.approx(0.95, abs=3.5 * on["coverage_95_error"])
    p = {switch: erring.summary[erring.summary["emulator_error"] == switch]["p_uniform"] for switch in (True, False)}
    assert np.nanmin(p[False]) < 1e-3 < np.nanmin(p[True])


@pytest.mark.slow
def test_the_folder_is_complete_and_speaks(erring):
    page = (erring.path / "index.html").read_text()
    for text in ("Calibration", "S/N 100 per pixel", "coverage.png", 'class="bad"', "fe_h"):
        assert text in page
    assert len(Table.read(erring.path / "results.ecsv")) == 2 * STARS * 5
    assert len(Table.read(erring.path / "summary.ecsv")) == len(erring.summary)
    for name in ("coverage.png", "ranks.png", "ecdf.png"):
        assert (erring.path / name).stat().st_size > 10_000
    assert not list(erring.path.rglob("*.nc")) and not list(erring.path.rglob("*.tmp*"))


def test_other_settings_are_refused(perfect, tiny_emulator):
    done, grid = perfect
    with pytest.raises(SamplingError, match="other settings .mock"):
        check_coverage(tiny_emulator, grid, done.path, emulator_error=None, **{**OPTIONS, "seed": 4})


def test_bad_input(tiny_emulator, spectra, tmp_path):
    wavelength, labels, flux = spectra
    space = tiny_emulator.label_space
    good = Grid(labels, wavelength, flux, label_space=space, medium="air")
    vacuum = Grid(labels, wavelength, flux, label_space=space, medium="vacuum")
    coarse = Grid(labels, wavelength[::10], flux[:, ::10], label_space=space, medium="air")
    short = Grid(labels, wavelength[:120], flux[:, :120], label_space=space, medium="air")
    for source, change, error, message in [
        (good, {"snr": -1}, GridError, "positive"),
        (good, {"n": 500}, GridError, "500 spectra"),
        (vacuum, {}, GridError, "vacuum"),
        (coarse, {}, GridError, "too wide"),
        (short, {}, GridError, "too little in common"),
        (good, {"rows": "test"}, GridError, "held-out"),
        (good, {"priors": {"teff": 5000.0}}, LabelError, "teff"),
        ("none.h5", {}, GridError, "no grid file"),
        (good, {"emulator_error": "on"}, SamplingError, "'shipped', None, an EmulatorUncertainty"),
        (good, {"emulator_error": ("shipped", "shipped")}, SamplingError, "a pair of None and another"),
        (lambda: 0, {}, GridError, "Give n"),
    ]:
        with pytest.raises(error, match=message):
            check_coverage(tiny_emulator, source, tmp_path / "out", **{**OPTIONS, **change})


@pytest.mark.parametrize("broadening", ["vbroad", "vsini", "both", "none"])
def test_mocks_are_drawn_from_the_priors_of_the_fit(tiny_emulator, tiny_observation, monkeypatch, broadening):
    """Whatever default priors a model has: those of the broadening are also those of the true values."""
    from emuinfer import StellarModel
    from emuinfer.calibration.mock import Mock, nuisance_draws
    from emuinfer.likelihoods import priors

    monkeypatch.setattr(priors, "WIDTHS", {"vbroad": 2.5, "vsini": 70.0})
    options = {"broadening": broadening, "rv_range": (-60, 60), "progress": False}
    model = StellarModel(tiny_emulator, tiny_observation, **options)
    draws = nuisance_draws(Mock(30_000, 2.5, (100.0,), broadening), {}, 4000)
    assert set(draws) == set(model.nuisance_priors) - {"log10_jitter"}
    for name in set(draws) - {"rv"}:
        assert stats.kstest(draws[name], stats.halfnorm(scale=model.nuisance_priors[name].scale).cdf).pvalue > 1e-3
    fixed = nuisance_draws(Mock(30_000, 2.5, (100.0,), broadening), {"vbroad": 4.0}, 3)
    assert "vbroad" not in fixed or set(fixed["vbroad"]) == {4.0}


def test_a_run_with_priors_is_known_again(tiny_emulator, spectra):
    """Two processes describe equal priors equally, and different ones differently."""
    import numpyro.distributions as dist

    from emuinfer.calibration.check import _plan
    from emuinfer.calibration.mock import Mock
    from emuinfer.likelihoods.priors import described_prior, jitter_prior, parse_prior

    wavelength, labels, flux = spectra
    grid = Grid(labels, wavelength, flux, label_space=tiny_emulator.label_space, medium="air")
    mock = Mock(30_000, 2.5, (100.0,))
    plan = lambda prior: _plan(tiny_emulator, grid, [0, 1], mock, None, {"vbroad": prior}, None, {})
    assert plan(dist.HalfNormal(5.0)) == plan(dist.HalfNormal(5.0)) != plan(dist.HalfNormal(6.0))
    assert plan(dist.Uniform(0.0, 5.0)) != plan(dist.Uniform(0.0, 6.0)) != plan(3.0)
    assert described_prior(parse_prior("5700:80")) == "Normal(loc=5700.0, scale=80.0)"
    assert (
        described_prior(jitter_prior(0.02)) == described_prior(jitter_prior(0.02)) != described_prior(jitter_prior(0.1))
    )
    logs = [
        described_prior(dist.TransformedDistribution(dist.Normal(m, 1), dist.transforms.ExpTransform())) for m in (1, 2)
    ]
    assert logs[0] != logs[1] and "object at" not in logs[0]


def test_labels_that_no_prior_draws_are_noted(tiny_emulator, spectra):
    from emuinfer.calibration.check import _prior_notes

    space, labels = tiny_emulator.label_space, spectra[1].copy()
    assert _prior_notes(space, labels) == []
    labels[:, 0] = 5000 + 0.3 * (labels[:, 0] - 5000)
    labels[3, 1] = 2.0
    notes = _prior_notes(space, labels)
    assert f"1 of {STARS} stars lie outside" in notes[0] and "teff" in notes[1] and "mg_fe" not in notes[1]


def test_p_values_and_bands_hold_what_they_say():
    """Against simulation of uniform ranks, with other random numbers than theirs."""
    rng = np.random.default_rng(5)
    n, repeats = 80, 400
    ranks = rng.integers(0, DRAWS + 1, (repeats, n))
    p = np.array([uniformity(r) for r in ranks])
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    z, low, high = ecdf_band(n)
    ecdf = np.stack([np.searchsorted(np.sort(r), z * (DRAWS + 1)) / n for r in ranks])
    inside = ((ecdf >= low) & (ecdf <= high)).all(1).mean()
    assert 0.91 < inside < 0.985
    lo, hi = histogram_band(n, 5)
    counts = np.stack([np.histogram(r, 5, (0, 100))[0] for r in ranks])
    assert ((counts >= lo) & (counts <= hi)).all(1).mean() > 0.93
    assert uniformity(np.full(n, 50)) < 1e-3


def test_ranks_and_coverage_of_gaussians():
    """Posteriors N(x, s²) of truths 0 observed with unit noise: coverage is that of the normal distribution."""
    rng = np.random.default_rng(3)
    n = 4000
    x = rng.standard_normal(n)
    for scale in (1.0, 0.5):
        rank, pit = ranks_of(x[:, None] + scale * rng.standard_normal((n, 1000)), np.zeros(n))
        columns = {
            "star": np.arange(n),
            "snr": np.ones(n),
            "emulator_error": np.ones(n, bool),
            "parameter": np.full(n, "a"),
            "truth": np.zeros(n),
            "mean": x,
            "sd": np.full(n, scale),
            "rank": rank,
            "pit": pit,
            "serious": np.arange(n) < 10,
        }
        table = summarise(Table(columns), ["a"])
        row = table[(table["parameter"] == "a") & (table["stars"] == "all")][0]
        for level, key in ((0.68, "coverage_68"), (0.95, "coverage_95")):
            expected = 2 * stats.norm.cdf(stats.norm.ppf(0.5 + level / 2) * scale) - 1
            assert row[key] == pytest.approx(expected, abs=0.025)
        assert row["spread"] == pytest.approx(1 / scale, rel=0.05)
        assert (row["p_uniform"] > 0.001) == (scale == 1.0)
        assert set(table[table["stars"] == "unflagged"]["n"]) == {n - 10}
    assert ranks_of([[np.nan, 1.0]], [0.5])[0] == -1


def test_command_line(cli, perfect, tmp_path, monkeypatch):
    """What the options become; the fits themselves are those of the other tests."""
    from emuinfer.calibration import check

    calls = []
    monkeypatch.setattr(check, "check_coverage", lambda *a, **k: calls.append((a, k)) or perfect[0])
    common = ["coverage", "grid.h5", "--emulator", "tiny", "-o", tmp_path / "out", "--resolution", 30000]
    status, out, err = cli(
        *common, "--rows", "2:6", "--snr", 50, "--snr", 80, "--emulator-error", "off", "--draws", 70, "-q"
    )
    assert status == 0, err
    assert "emulator error off  S/N 100" in out and "index.html" in out
    arguments, options = calls[0]
    assert arguments == ("tiny", "grid.h5", tmp_path / "out")
    assert options["rows"] == slice(2, 6) and options["emulator_error"] is None and list(options["snr"]) == [50, 80]
    assert options["config"].draws == 70 and not options["progress"] and options["resolution"] == 30000
    cli(*common, "--rows", "flagship", "--pixels-per-fwhm", 3, "--fix", "vbroad=4", "--not-robust")
    assert (
        calls[1][1]["rows"] == "flagship"
        and calls[1][1]["emulator_error"] == ("shipped", None)
        and calls[1][1]["snr"] == (30.0, 100.0, 300.0)
    )
    assert (
        calls[1][1]["pixels_per_fwhm"] == 3 and calls[1][1]["priors"] == {"vbroad": 4.0} and not calls[1][1]["robust"]
    )
    assert cli(*common, "--rows", "6:2")[2].startswith("Error: --rows must be all")
    assert "must be on, off or both" in cli(*common, "--emulator-error", "maybe")[2]
    assert len(calls) == 2
    cli("calibrate", *common[1:], "--sampling", 2)  # the old names
    assert calls[2][1]["pixels_per_fwhm"] == 2
    assert "calibrate" not in cli("--help")[1]


def test_every_argument_has_an_option(cli):
    """What Python can set the command line can, and the other way round."""
    import inspect

    from emuinfer.cli.coverage import coverage

    given = set(inspect.signature(check_coverage).parameters) - {"uncertainty"}
    spelt = {"priors": "fix", "config": "chains", "progress": "quiet"}
    options = set(inspect.signature(coverage).parameters) - {"sampling"}
    assert {spelt.get(name, name) for name in given} | {"prior", "warmup", "draws"} == options


def test_old_names(perfect, tiny_emulator, monkeypatch):
    import emuinfer.calibration
    from emuinfer.calibration import check
    from emuinfer.calibration.fits import checked_errors

    for room in (emuinfer.calibration, check):
        with pytest.warns(DeprecationWarning, match="is now emuinfer.calibration.check.check_coverage"):
            assert room.calibrate is check_coverage
    with pytest.warns(
        DeprecationWarning, match="emulator_error=(True|False) of check_coverage is now emulator_error=('shipped'|None)"
    ):
        assert checked_errors((False, True)) == ["shipped", None]
    uncertainty = made_by_hand(tiny_emulator.label_space, np.linspace(*tiny.RANGE, 50))
    with pytest.warns(DeprecationWarning, match="uncertainty= of check_coverage"):
        errors = checked_errors(("shipped", None), uncertainty)
    assert errors[0] is uncertainty and errors[1] is None
    done, grid = perfect
    old = {**OPTIONS, "sampling": OPTIONS["pixels_per_fwhm"]}
    del old["pixels_per_fwhm"]
    plan = done.path / "plan.json"
    plan.write_text(plan.read_text().replace("pixels_per_fwhm", "sampling"))
    with pytest.warns(DeprecationWarning, match="is now"):  # and a folder of the last version is gone on with
        again = check.check_coverage(tiny_emulator, grid, done.path, emulator_error=False, **old)
    assert (again.results["rank"] == done.results["rank"]).all()
