"""The command line: what it writes, prints and returns."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny

from emuinfer import load_emulator
from emuinfer.emulators import list_emulators

WINDOW = "{:g} to {:g} Å (air)".format(*tiny.RANGE)
COLUMNS = [
    "label",
    "unit",
    "mean",
    "sd",
    "q16",
    "median",
    "q84",
    "r_hat",
    "ess_bulk",
    "verdict",
    "limit",
    "limit_lines",
]
COLUMNS += ["flag", "ucd", "description"]
COMMANDS = [
    (),
    ("fit",),
    ("emulators",),
    ("train",),
    ("crb",),
    ("grid",),
    ("grid", "make"),
    ("grid", "import"),
    ("grid", "info"),
    ("ask",),
    ("network", "train"),
    ("network", "coverage"),
]


# Help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_option(cli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    status, out, err = cli(*command, "--help")
    assert status == 0 and err == ""
    listed = out.split("Options:")[1].split("Commands:")[0].splitlines()
    options = [line for line in listed if line.strip().startswith("-")]
    assert options
    for i, line in enumerate(listed):
        if line.strip().startswith("-"):
            text = line.strip().split("  ", 1)[1:] or [listed[i + 1]]
            assert len(text[0].strip()) > 8, line
    if command not in ((), ("grid",)):
        assert "Example" in out and f"    emuinfer {' '.join(command)}" in out


def test_version(cli):
    import emuinfer

    assert cli("--version")[:2] == (0, f"emuinfer {emuinfer.__version__}\n")


@pytest.mark.parametrize(
    "code", [["-c", "import emuinfer"], ["-m", "emuinfer", "fit", "--help"]], ids=["import", "help"]
)
def test_starts_without_heavy_imports(code):
    result = subprocess.run([sys.executable, "-X", "importtime", *code], capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "emuinfer" in imported
    assert not imported & {"jax", "numpyro", "blackjax", "arviz", "matplotlib", "astropy", "specutils", "scipy"}


# Fits


@pytest.fixture(scope="module")
def fitted(cli, tiny_path, star_file, tmp_path_factory):
    """Two spectra in one call, of which one does not exist."""
    folder = tmp_path_factory.mktemp("fits")
    settings = ("--chains", 2, "--warmup", 150, "--draws", 250, "--seed", 3, "--rv-range", -50, 50, "--lines", "mg_fe")
    missing = folder / "missing.fits"
    return folder, cli("fit", missing, star_file, "--emulator", tiny_path, *settings, "--output", folder)


def test_fit_writes_its_results(fitted):
    from astropy.table import Table

    from emuinfer.posteriors import load_posterior

    folder, _ = fitted
    star = folder / "star"
    assert sorted(p.name for p in star.iterdir()) == [
        "corner.png",
        "fit.png",
        "lines.ecsv",
        "lines.png",
        "model.fits",
        "posterior.nc",
        "residual.fits",
        "results.fits",
        "summary.ecsv",
    ]
    table = Table.read(star / "summary.ecsv", format="ascii.ecsv")
    assert table.colnames == COLUMNS
    assert list(table["label"]) == ["teff", "fe_h", "mg_fe", "rv", "vbroad", "log10_jitter"]
    assert list(table["unit"])[:5] == ["K", "dex", "dex", "km / s", "km / s"]
    for name, truth in {**tiny.TRUTH, "rv": tiny.RV, "vbroad": tiny.VBROAD}.items():
        row = table[list(table["label"]).index(name)]
        assert abs(row["mean"] - truth) < 4.5 * row["sd"], name
        assert row["q16"] < row["median"] < row["q84"] and row["r_hat"] < 1.1
    posterior = load_posterior(star / "posterior.nc")
    assert posterior["posterior"]["teff"].shape == (2, 250)
    assert float(posterior["posterior"]["teff"].mean()) == pytest.approx(table["mean"][0])
    assert [str(v) for v in table["verdict"]] == ["measured"] * 3 + ["--", "measured", "--"] and np.isnan(
        table["limit"]
    ).all()
    lines = Table.read(star / "lines.ecsv", format="ascii.ecsv")
    assert (
        set(lines["label"]) == {"mg_fe"} and lines["share"].sum() > 0.7 and (lines["wavelength"] > tiny.RANGE[0]).all()
    )
    for picture in ("fit.png", "corner.png", "lines.png"):
        assert (star / picture).read_bytes()[:4] == b"\x89PNG"


def test_catalogue_of_a_fit(fitted):
    """One row in the columns of fit-many: units, UCDs of the IVOA's list, errors and flags of each label, the covariance."""
    import numpy as np
    from astropy.io import fits
    from astropy.io.votable.ucd import parse_ucd
    from astropy.table import Table

    from emuinfer.posteriors import load_posterior
    from emuinfer.survey.summary import bits_of

    star = fitted[0] / "star"
    summary, table = Table.read(star / "summary.ecsv", format="ascii.ecsv"), Table.read(star / "results.fits")
    assert len(table) == 1 and table["teff"].unit == "K" and table["e_rv"].unit == "km / s"
    for i, label in enumerate(summary["label"]):
        assert table[label][0] == pytest.approx(summary["median"][i])
        assert table[f"e_{label}"][0] == pytest.approx(summary["sd"][i], rel=1e-5)
        assert table[f"flag_{label}"][0] == summary["flag"][i]
        assert (summary["flag"][i] & 8 > 0) == (summary["ess_bulk"][i] < 400)
    said = bits_of(json.loads(load_posterior(star / "posterior.nc").attrs["flags"]))
    assert said & table["flag"][0] == said  # what the verdict and the velocity raise is in the catalogue too
    header = fits.getheader(star / "results.fits", 1)
    assert header["PARAMS"].split(",") == list(summary["label"]) and "Asplund et al. 2009" in header["SOLAR"]
    np.testing.assert_allclose(np.sqrt(table["covariance"][0].diagonal()), summary["sd"], rtol=0.01)
    assert header["MEDIUM"] == "air" == summary.meta["medium"] and header["FRAME"] == "unknown"
    for i in range(1, len(table.colnames) + 1):
        parse_ucd(header[f"TUCD{i}"], check_controlled_vocabulary=True)
        assert header[f"TCOMM{i}"]
    assert (
        table["l_mg_fe"].mask.all() and table["mg_fe_limit"].mask.all() and "l_rv" not in table.colnames
    )  # empty: measured
    assert header["TUCD4"] == "phys.temperature.effective;stat.median;meta.main"
    assert list(summary["ucd"])[:4] == [
        "phys.temperature.effective",
        "phys.abund.Fe",
        "phys.abund",
        "spect.dopplerVeloc",
    ]


def test_model_and_residuals_for_specutils(fitted, tiny_observation):
    import numpy as np
    from specutils import Spectrum

    from emuinfer.observations.fitted import fitted_spectra
    from emuinfer.posteriors import load_posterior

    star = fitted[0] / "star"
    model, residual = (Spectrum.read(star / name) for name in ("model.fits", "residual.fits"))
    assert model.spectral_axis.unit == "Angstrom" and model.meta["header"]["MEDIUM"] == "air"
    used = ~np.asarray(residual.mask)
    assert used.sum() > 0.75 * len(tiny_observation)
    flux = np.interp(model.spectral_axis.value, tiny_observation.wavelength, tiny_observation.flux)
    np.testing.assert_allclose((model.flux + residual.flux).value[used], flux[used], rtol=1e-6)
    assert np.std((residual.flux.value / residual.uncertainty.array)[used]) == pytest.approx(1, abs=0.15)
    ours = fitted_spectra(load_posterior(star / "posterior.nc"))
    np.testing.assert_allclose(ours["model"].flux.value, model.flux.value)
    np.testing.assert_allclose(ours["data"].flux.value[used], flux[used], rtol=1e-6)


def test_summary_says_where_it_comes_from(fitted, tiny_emulator, tiny_observation):
    from astropy.table import Table

    from emuinfer.emulators import emulator_hash
    from emuinfer.posteriors import load_posterior

    folder, _ = fitted
    meta = Table.read(folder / "star" / "summary.ecsv", format="ascii.ecsv").meta
    assert meta["emulator_hash"] == emulator_hash(tiny_emulator) and meta["emulator"].endswith("tiny-lines")
    assert meta["data_hash"] == tiny_observation.hash
    assert meta["seed"] == 3 and meta["verification"] == "ok"
    # The tiny surrogate is so close that all weights are alike; the shape of their tail, k-hat, is then that of rounding errors.
    assert meta["k_hat"] <= 0.7 or load_posterior(folder / "star" / "posterior.nc").attrs["importance_ess"] > 0.99 * 200
    assert isinstance(meta["warnings"], list) and meta["versions"]["jax"]


def test_fit_prints_table_warnings_and_places(fitted):
    folder, (_, out, _) = fitted
    for word in ("teff", "ess_bulk", "log10_jitter", f"Written to {folder / 'star'}", "Pareto k-hat"):
        assert word in out
    assert "Warning: Few independent draws" in out  # 2 chains of 250 do not give 400 of the jitter


def test_a_failing_file_is_reported_and_the_rest_go_on(fitted):
    folder, (status, _, err) = fitted
    assert status == 1
    assert f"Error: missing: There is no file {folder / 'missing.fits'}" in err
    assert "1 of 2 spectra could not be fitted: missing." in err
    assert sorted(p.name for p in folder.iterdir()) == ["star"] and "Traceback" not in err


def test_results_are_replaced_only_on_demand(fitted, cli, star_file, tiny_path, spectrum_file, tmp_path):
    folder, _ = fitted
    before = {p.name: p.read_bytes() for p in (folder / "star").iterdir()}
    status, _, err = cli("fit", star_file, "--emulator", tiny_path, "--output", folder / "star")
    assert status == 1 and "already holds the results" in err and "--overwrite" in err
    # A fit that fails leaves the earlier results as they were.
    spectrum_file(tmp_path / "red.ecsv", np.linspace(8000, 8100, 500), np.ones(500), np.full(500, 0.01))
    status, _, err = cli(
        "fit", tmp_path / "red.ecsv", "--emulator", tiny_path, "--output", folder / "star", "--overwrite"
    )
    assert status == 1 and "do not overlap" in err
    assert {p.name: p.read_bytes() for p in (folder / "star").iterdir()} == before


@pytest.mark.skipif("optical-fgk" not in list_emulators(), reason="the emulator optical-fgk is not installed")
def test_the_example_and_the_default_emulator_exist(cli):
    status, out, _ = cli("emulators")
    assert status == 0 and "optical-fgk" in out and "5100 to 5300 Å (air), 12 labels" in out
    from emuinfer.observations import list_examples

    assert "hd41248" in list_examples()
    assert load_emulator("optical-fgk").labels[:3] == ("teff", "logg", "fe_h")


# Bounds


def test_bounds_agree_with_the_posterior(fitted, cli, tiny_path, tmp_path):
    from astropy.table import Table

    labels = [f"--label={n}={v}" for n, v in tiny.TRUTH.items()]
    # Pixels of 0.07 Å, as the observation has them.
    instrument = (
        "--resolution",
        tiny.RESOLUTION,
        "--sampling",
        np.mean(tiny.RANGE) / tiny.RESOLUTION / 0.07,
        "--snr",
        100,
        "--vbroad",
        tiny.VBROAD,
    )
    status, out, _ = cli("crb", "--emulator", tiny_path, *labels, *instrument, "-o", tmp_path / "crb.ecsv", "-q")
    assert status == 0 and "R = 30000" in out and "marginal" in out
    bounds = Table.read(tmp_path / "crb.ecsv", format="ascii.ecsv")
    assert bounds.colnames == ["label", "unit", "value", "marginal", "conditional"]
    assert (bounds["marginal"] >= bounds["conditional"]).all()
    assert bounds.meta["labels"] == tiny.TRUTH and bounds.meta["snr"] == 100
    summary = Table.read(fitted[0] / "star" / "summary.ecsv", format="ascii.ecsv")
    sd = dict(zip(summary["label"], summary["sd"]))
    for name, bound in zip(bounds["label"], bounds["marginal"]):
        assert sd[name] == pytest.approx(bound, rel=0.4), name
    status, _, err = cli("crb", "--emulator", tiny_path, "-o", tmp_path / "crb.ecsv")
    assert status == 1 and "crb.ecsv exists" in err


# Emulators


def test_emulators_are_listed_and_shown(cli, tiny_path, monkeypatch):
    from emuinfer.emulators import storage

    monkeypatch.setattr(storage, "ZOO", tiny_path.parent)
    status, out, _ = cli("emulators")
    assert status == 0 and out == f"{'tiny-lines':<20} {WINDOW}, 3 labels  Analytic lines\n"
    status, out, _ = cli("emulators", "tiny-lines")
    assert status == 0
    for word in ("Analytic lines", "reduced", "4500", "6500", WINDOW, "mae: 0.00123"):
        assert word in out
    card = json.loads(cli("emulators", tiny_path, "--json")[1])
    assert card["kind"] == "reduced" and card["labels"]["names"] == ["teff", "fe_h", "mg_fe"]


def test_the_card_of_the_default_emulator_is_readable(cli):
    status, out, _ = cli("emulators", "optical-fgk")
    assert status == 0 and len(out.splitlines()) <= 60
    for word in (
        "window        optical-fgk: 5100 to 5300 Å (air)",
        "3,906,962 parameters, 7.9 MB",
        "hash          c58bbeedaefff960",
        "teff     4000     7000            K",
        "all                      118       0.00082  0.00434        0.00061  0.00281",
        "contain 73 and 97 % (native)",
        "x, Gaussian processes, with 3,000 LTE spectra  0.00097  0.00079  0.00066",
        "made by       Teacher: joint Gaussian processes",
        "limits        LTE, plane-parallel, no molecules",
        "emuinfer emulators optical-fgk --json",
    ):
        assert word in out, word
    assert "shortest_period" not in out and "sha256" not in out
    assert json.loads(cli("emulators", "optical-fgk", "--json")[1])["config"]["shortest_period"] == 4e-6
