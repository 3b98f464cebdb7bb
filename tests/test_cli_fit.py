"""What `emuinfer fit` hands on: priors and noise as in Python, several files of one star, arms and rows of a file."""

import numpyro.distributions as dist
import pytest
import tiny

from emuinfer.errors import LabelError
from emuinfer.likelihoods.priors import parse_prior


@pytest.mark.parametrize(
    "text, expected",
    [
        ("5700:80", dist.Normal(5700.0, 80.0)),
        ("normal(5700, 80)", dist.Normal(5700.0, 80.0)),
        ("Uniform(0,60)", dist.Uniform(0.0, 60.0)),
        ("half-normal(5)", dist.HalfNormal(5.0)),
        ("lognormal(1, .5)", dist.LogNormal(1.0, 0.5)),
        ("studentt(5, 0, 0.3)", dist.StudentT(5.0, 0.0, 0.3)),
    ],
)
def test_priors_in_words(text, expected):
    found = parse_prior(text)
    assert type(found) is type(expected) and found.get_args() == expected.get_args()


@pytest.mark.parametrize(
    "text",
    ["normal(5700)", "5700:-80", ":80", "normal(5700, -80)", "uniform(3, 1)", "beta(1, 2)", "hot", "normal(1, 2"],
)
def test_priors_that_are_none(text):
    with pytest.raises(LabelError, match=r"normal\(mean, sd\)"):
        parse_prior(text)
    assert parse_prior("4.5") == 4.5


@pytest.fixture(scope="module")
def exposures(tiny_emulator, spectrum_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exposures")
    for seed in (1, 2):
        one = tiny.observe(tiny_emulator, grid=tiny_emulator.config.wavelength, seed=seed)
        spectrum_file(folder / f"exposure-{seed}.ecsv", one.wavelength, one.flux, one.uncertainty)
    return folder / "exposure-1.ecsv", folder / "exposure-2.ecsv"


def test_exposures_of_one_star_in_one_likelihood(cli, exposures, tiny_path, tmp_path):
    from astropy.table import Table

    options = ("--together", "--sampler", "laplace", "--prior", "teff=normal(5600,50)", "--fix", "rv_offset_2=0")
    options += ("--no-line-errors", "--draws", 250, "--verify", 0, "--rv-range", -50, 50, "--quiet")
    status, out, err = cli("fit", *exposures, "--emulator", tiny_path, "--output", tmp_path / "star", *options)
    assert status == 0, err
    names = ["corner.png", "fit-1.png", "fit-2.png", "model-1.fits", "model-2.fits", "posterior.nc", "residual-1.fits"]
    names += ["residual-2.fits", "results.fits", "summary.ecsv"]
    assert sorted(p.name for p in (tmp_path / "star").iterdir()) == names and "fit-2.png" in out
    table = Table.read(tmp_path / "star" / "summary.ecsv", format="ascii.ecsv")
    assert {"log10_jitter_1", "log10_jitter_2"} < set(table["label"]) and "rv_offset_2" not in table["label"]
    assert table.meta["priors"] == ["teff=normal(5600,50)"] and table.meta["fixed"] == {"rv_offset_2": 0.0}
    row = table[list(table["label"]).index("fe_h")]
    assert abs(row["mean"] - tiny.TRUTH["fe_h"]) < 5 * row["sd"]


@pytest.fixture
def asked(monkeypatch, tiny_observation):
    """`asked(*arguments)`: what the command asks of `Observation.read`, of models and of `sample`, without a fit."""
    calls = {"read": [], "model": [], "sample": []}

    def stop(model, **options):
        calls["sample"].append(options)
        raise LabelError("far enough")

    def read(path, **options):
        calls["read"].append(options)
        return tiny_observation

    def model(emulator, observations, **options):
        calls["model"].append((observations, options))

    monkeypatch.setattr("emuinfer.observations.Observation.read", read)
    monkeypatch.setattr("emuinfer.observations.readers.read_arms", lambda path: ["b", "r", "z"])
    monkeypatch.setattr("emuinfer.likelihoods.StellarModel", model)
    monkeypatch.setattr("emuinfer.likelihoods.JointModel.of", model)
    monkeypatch.setattr("emuinfer.inference.sample", stop)
    return calls


def test_arms_and_rows(cli, asked, tiny_path, tmp_path):
    common = ("fit", "coadd.fits", "--emulator", tiny_path, "--output", tmp_path / "o", "--row", 7, "--quiet")
    status, _, err = cli(*common, "--arm", "all")
    assert status == 1 and "far enough" in err and not (tmp_path / "o").exists()
    assert [c["arm"] for c in asked["read"]] == ["b", "r", "z"] and {c["row"] for c in asked["read"]} == {7}
    assert len(asked["model"][-1][0]) == 3
    cli(*common, "--arm", "r")
    assert asked["read"][-1]["arm"] == "r" and asked["model"][-1][0].name is not None


def test_extension_order_and_mask(cli, asked, tiny_path, tmp_path):
    options = ("--hdu", "SCI", "--order", "merge", "--mask-column", "!good")
    cli("fit", "echelle.fits", "--emulator", tiny_path, "--output", tmp_path / "o", "--quiet", *options)
    read = asked["read"][-1]
    assert (read["hdu"], read["order"], read["mask_column"]) == ("SCI", "merge", "!good")


def test_arms_that_the_emulator_does_not_cover_are_left_out(tiny_emulator, tiny_observation, capsys):
    from emuinfer.cli.fit import _covered

    far = tiny_observation._with(wavelength=tiny_observation.wavelength + 1300)
    assert _covered(tiny_emulator, [far, tiny_observation]) == [tiny_observation]
    assert "The arm of 7480 to 7494 Å is left out" in capsys.readouterr().err
    assert _covered(tiny_emulator, [far]) == [far]  # the model says what is wrong


def test_options_of_model_and_sampler_are_handed_on(cli, asked, star_file, tiny_path, tmp_path):
    options = ("--correlation", 2.5, "--no-emulator-error", "--not-robust", "--continuum-terms", 3, "--sampler", "hmc")
    cli("fit", star_file, "--emulator", tiny_path, "--output", tmp_path / "o", "--quiet", *options)
    model, sampled = asked["model"][-1][1], asked["sample"][-1]
    assert model["correlation"] == 2.5 and model["emulator_error"] is None and model["robust"] is False
    assert model["continuum_terms"] == 3 and model["line_errors"] == "shipped" and sampled["sampler"] == "hmc"


def test_wrong_calls_are_refused_before_work_starts(cli, star_file, tiny_path):
    for words, arguments in {
        "Did you mean 'nuts'": ("--sampler", "nutz"),
        "NAME=PRIOR": ("--prior", "teff"),
        "gives 'teff' twice": ("--fix", "teff=5000", "--fix", "teff=5100"),
        "give 'teff' twice": ("--fix", "teff=5000", "--prior", "teff=normal(5000,10)"),
        "two files or more": ("--together",),
    }.items():
        status, _, err = cli("fit", star_file, "--emulator", tiny_path, *arguments)
        assert status == 1 and words in err, err


def test_programs_are_kept_by_python_calls_too(monkeypatch, tiny_emulator, tiny_observation):
    """`sample` uses the cache of compiled programs as the command does."""
    from emuinfer import StellarModel, sample
    from emuinfer.inference import run

    used = []
    monkeypatch.setattr(run, "use_compilation_cache", lambda: used.append(True))
    monkeypatch.setattr(run, "get_sampler", lambda name: None)

    def stop(*arguments, **options):
        raise LabelError("far enough")

    monkeypatch.setattr(run, "find_optimum", stop)
    with pytest.raises(LabelError, match="far enough"):
        sample(StellarModel(tiny_emulator, tiny_observation, rv_range=(-50, 50), progress=False))
    assert used == [True]
