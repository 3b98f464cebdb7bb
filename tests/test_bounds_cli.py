"""`emuinfer crb`: options of a forecast."""

import numpy as np
import pytest
from astropy.table import Table
from tiny import TRUTH

LABELS = [f"--label={n}={v}" for n, v in TRUTH.items()]


@pytest.fixture
def crb(cli, tiny_path):
    return lambda *options: cli("crb", "--emulator", tiny_path, *LABELS, "-q", *options)


def test_options_of_a_forecast_reach_the_table(crb, tmp_path):
    path = tmp_path / "crb.ecsv"
    options = (
        "--resolution",
        20_000,
        "--snr",
        90,
        "--snr-per",
        "resolution_element",
        "--exposures",
        4,
        "--mask",
        "6184:6186",
    )
    status, out, _ = crb(*options, "--prior", "teff=20", "--correlation", 0.5, "-o", path)
    assert status == 0 and "S/N 90 per resolution element" in out and "The error of this emulator is not known" in out
    table = Table.read(path, format="ascii.ecsv")
    assert (
        table.meta["mask"] == [[6184.0, 6186.0]]
        and table.meta["priors"] == {"teff": 20.0}
        and table.meta["exposures"] == 4
    )
    marginal = dict(zip(table["label"], table["marginal"]))
    assert 0 < marginal["teff"] < 20 and np.isfinite(table["marginal"]).all()


def test_instruments_are_listed(cli):
    status, out, _ = cli("crb", "--instruments")
    assert status == 0 and "WEAVE-HR-green" in out and "APOGEE" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-i", "ESPRESO"), "Did you mean 'ESPRESSO'"),
        (("-i", "APOGEE"), "nothing in common"),
        (("-i", "MUSE", "--resolution", 5000), "give either it or those"),
        (("--snr", 0), "snr = 0.0 must be a positive number"),
        (("--resolution", -5), "resolution = -5.0 must be a positive number"),
        (("--mask", "6186-6184"), "--mask takes two rising wavelengths"),
        (("--prior", "teff=-3"), "give a positive standard deviation"),
        (("--prior", "tef=3"), "Did you mean 'teff'"),
        (("--model-error", "--mask", "6184:6186"), "model_error goes with"),
    ],
)
def test_bad_options(crb, options, words):
    status, _, err = crb(*options)
    assert status == 1 and words in err


def test_missing_labels_are_solar_with_a_note(cli, tiny_path):
    status, out, _ = cli("crb", "--emulator", tiny_path, "--label", "fe_h=-0.3", "-q")
    assert status == 0 and "Note: Solar values are used for teff = 5777, mg_fe = 0, which were not given." in out


def test_a_star_of_which_nothing_is_said_is_the_sun(cli, tiny_path):
    status, out, _ = cli("crb", "--emulator", tiny_path, "--fix", "vsini=4", "-q")
    assert status == 0 and "Note: No label was given: the star is the Sun." in out
    rows = [line.split()[0] for line in out.splitlines() if line.split()]
    assert "vbroad" in rows and "vsini" not in rows


def test_the_star_of_a_fit(cli, tiny_path, tmp_path):
    """Its labels, velocity and broadening count where no option says otherwise."""
    rows = {**TRUTH, "rv": 12.0, "vsini": 6.0, "log10_jitter": -3.0}
    path = tmp_path / "summary.ecsv"
    Table({"label": list(rows), "median": list(rows.values())}).write(path, format="ascii.ecsv")
    status, out, err = cli("crb", "--emulator", tiny_path, "--star", path, "--label", "mg_fe=0.2", "--rv", 3, "-q")
    assert status == 0, err
    values = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert (
        " 5600 " in values["teff"] and " 0.2 " in values["mg_fe"] and " 3 " in values["rv"] and " 6 " in values["vsini"]
    )
    assert "Left out of the star's values: log10_jitter." in out
    status, _, err = cli("crb", "--emulator", tiny_path, "--star", tmp_path / "nothing.nc")
    assert status == 1 and "There is no file" in err


def test_options_of_the_noise_of_a_fit(crb):
    """`--model-error` adds noise; `--reduced` changes nothing for an emulator that is reduced already."""
    bound = lambda *options: float(crb("--range", 6182, 6192, *options)[1].split("\n fe_h ")[1].split()[2])
    plain = bound()
    assert bound("--reduced") == plain and bound("--model-error") > 1.02 * plain
    assert bound("--continuum-terms", 0) < plain


def test_every_argument_has_an_option():
    """What Python can set the command line can, and the other way round."""
    import inspect

    from emuinfer.cli.crb import crb as command
    from emuinfer.forecast import forecast_bounds

    spelt = {"labels": "label", "count": "exposures", "priors": "fix", "prior_sd": "prior", "progress": "quiet"}
    own = {"star", "instruments", "wavelength_range", "resolution", "pixels_per_fwhm", "output", "overwrite"}
    given = {spelt.get(name, name) for name in inspect.signature(forecast_bounds).parameters}
    assert given | own == set(inspect.signature(command).parameters) - {"sampling"}


def test_the_old_name_of_an_option(crb):
    assert crb("--sampling", 2.5)[1] == crb("--pixels-per-fwhm", 2.5)[1] != crb()[1]
