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
        (("--model-error", "--mask", "6184:6186"), "--model-error goes with"),
    ],
)
def test_bad_options(crb, options, words):
    status, _, err = crb(*options)
    assert status == 1 and words in err
