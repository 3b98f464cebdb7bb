"""Bad input on the command line: one clear message, a status other than zero, and nothing lost."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny

from emuinfer.errors import suggestion

LO, HI = tiny.RANGE
WAVELENGTH = np.arange(LO + 0.1, HI - 0.1, 0.07)
FLUX = np.ones(len(WAVELENGTH))
SIGMA = np.full(len(WAVELENGTH), 0.01)


@pytest.fixture
def refused(cli, tiny_path, tmp_path, monkeypatch):
    """`refused(words, *arguments)`: the command fails with all `words` on standard error, and leaves no file behind."""
    monkeypatch.chdir(tmp_path)

    def check(words, *arguments, emulator=tiny_path, status=1):
        before = sorted(tmp_path.rglob("*"))
        found, out, err = cli(*arguments, "--emulator", emulator, "--quiet")
        assert found == status and "Traceback" not in out + err
        for word in words:
            assert word in err
        if status == 1:
            assert err.startswith("Error: ") and err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before

    return check


# Spectra


def test_no_spectrum_at_all(refused):
    refused(["--example"], "fit")


def test_missing_file(refused, tmp_path):
    refused(["There is no file", "nowhere.fits"], "fit", "nowhere.fits")
    refused(["is a directory", str(tmp_path)], "fit", tmp_path)
    refused(["no example 'sirius'", "hd41248"], "fit", "--example", "sirius")


def test_not_a_spectrum(refused, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear colleague,\nplease find the spectrum\nenclosed, yours\n")
    refused(["letter.txt", "A spectrum is"], "fit", "letter.txt", "--medium", "air")
    (tmp_path / "noise.fits").write_bytes(b"SIMPLE  =" + np.random.default_rng(0).bytes(5000))
    refused(["noise.fits", "A spectrum is"], "fit", "noise.fits", "--medium", "air")


def test_no_overlap_names_both_ranges(refused, tmp_path, spectrum_file):
    spectrum_file(tmp_path / "red.ecsv", WAVELENGTH + 1000, FLUX, SIGMA)
    refused([f"{LO + 1000.1:.1f}–{HI + 999.9:.1f} Å", f"{LO:.1f}–{HI:.1f} Å", "overlap"], "fit", "red.ecsv")


def test_unknown_medium(refused, tmp_path):
    np.savetxt(tmp_path / "plain.txt", np.transpose([WAVELENGTH, FLUX, SIGMA]))
    refused(["plain.txt", "air or in vacuum", "--medium"], "fit", "plain.txt", "--resolution", 30000)
    refused(["--medium", "'water'", "air", "vacuum"], "fit", "plain.txt", "--medium", "water", status=2)


@pytest.mark.parametrize(
    "uncertainty, word",
    [
        (None, "no uncertainties"),
        (np.zeros_like(FLUX), "zero"),
        (-SIGMA, "-0.01"),
        (np.full_like(FLUX, np.nan), "not finite"),
    ],
    ids=["missing", "zero", "negative", "nan"],
)
def test_bad_uncertainties(refused, tmp_path, spectrum_file, uncertainty, word):
    spectrum_file(tmp_path / "star.ecsv", WAVELENGTH, FLUX, uncertainty)
    refused([word], "fit", "star.ecsv")
    refused(["snr", "-5"], "fit", "star.ecsv", "--snr", -5)


def test_all_pixels_masked(refused, tmp_path, spectrum_file):
    spectrum_file(tmp_path / "gap.ecsv", WAVELENGTH, np.full_like(FLUX, np.nan), SIGMA)
    refused(["no usable pixel", f"all {len(FLUX)} are masked"], "fit", "gap.ecsv")


def test_unknown_resolution(refused, tmp_path):
    np.savetxt(tmp_path / "plain.txt", np.transpose([WAVELENGTH, FLUX, SIGMA]))
    refused(["resolving power", "plain"], "fit", "plain.txt", "--medium", "air")


# Labels


@pytest.mark.parametrize("command", [("crb", "--label"), ("fit", "star.ecsv", "--fix")], ids=["crb", "fit"])
def test_bad_labels(refused, tmp_path, spectrum_file, command):
    spectrum_file(tmp_path / "star.ecsv", WAVELENGTH, FLUX, SIGMA)
    refused(["teff", "9000", "[4500, 6500]"], *command, "teff=9000")
    refused(["Unknown label 'tef'", "Did you mean 'teff'?", "teff, fe_h, mg_fe"], *command, "tef=5000")
    refused(["NAME=NUMBER", "'teff:5000'"], *command, "teff:5000")
    refused(["'teff' twice"], *command, "teff=5000", command[-1], "teff=6000")


def test_range_outside_the_emulator(refused):
    refused([f"{LO:.3f}–{HI:.3f} Å", "5000.000–5100.000 Å"], "crb", "--range", 5000, 5100)


# Emulators


def test_unknown_emulator_lists_those_that_exist(refused, tiny_path, star_file, monkeypatch):
    from emuinfer.emulators import storage

    monkeypatch.setattr(storage, "ZOO", tiny_path.parent)
    words = ["No emulator 'tiny-line'", "Did you mean 'tiny-lines'?", "Shipped emulators: tiny-lines"]
    refused(words, "fit", star_file, emulator="tiny-line")
    refused(words, "crb", emulator="tiny-line")


@pytest.fixture
def copy(tiny_path, tmp_path):
    """A copy of the tiny emulator that may be damaged: paths of its card and weights."""
    for suffix in (".json", ".safetensors"):
        shutil.copy(tiny_path.with_suffix(suffix), tmp_path / f"copy{suffix}")
    return tmp_path / "copy.json", tmp_path / "copy.safetensors"


def truncate(card, weights):
    weights.write_bytes(weights.read_bytes()[:-1000])


def flip(card, weights):
    blob = bytearray(weights.read_bytes())
    blob[len(blob) // 2] ^= 1
    weights.write_bytes(blob)


def remove(card, weights):
    weights.unlink()


def foreign_card(card, weights):
    card.write_text(json.dumps({"name": "a package", "version": "1.0"}))


def no_json(card, weights):
    card.write_text("{" + card.read_text())


def newer(card, weights):
    card.write_text(json.dumps(json.loads(card.read_text()) | {"format_version": 99}))


def other_labels(card, weights):
    described = json.loads(card.read_text())
    for key in ("names", "units", "lower", "upper"):
        described["labels"][key].pop()
    card.write_text(json.dumps(described))


@pytest.mark.parametrize(
    "damage, words",
    [
        (truncate, ["copy.safetensors", "damaged", "SHA-256"]),
        (flip, ["copy.safetensors", "damaged", "SHA-256"]),
        (remove, ["copy.safetensors", "missing"]),
        (foreign_card, ["copy.json", "not an emuinfer emulator card"]),
        (no_json, ["copy.json", "not a readable emulator card"]),
        (newer, ["copy.json", "99", "Update emuinfer"]),
        (other_labels, ["copy.safetensors", "do not have the hash"]),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_damaged_and_foreign_weights(refused, copy, star_file, damage, words):
    damage(*copy)
    refused(words, "fit", star_file, emulator=copy[0])


def test_weights_that_are_something_else(refused, copy, star_file):
    """A file of another program whose hash the card has: the hash is no help there."""
    import hashlib

    card, weights = copy
    weights.write_bytes(b"PK\x03\x04 something else entirely")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    card.write_text(json.dumps(json.loads(card.read_text()) | {"weights_sha256": digest}))
    refused(["copy.safetensors", "cannot be read"], "fit", star_file, emulator=card)


# Grids and training


def test_bad_grids(cli, tmp_path):
    for command in (("grid", "info"), ("train", "--output", tmp_path / "x")):
        status, _, err = cli(*command, tmp_path / "none.h5")
        assert status == 1 and "none.h5" in err and err.count("\n") == 1
        (tmp_path / "text.h5").write_text("not a grid")
        status, _, err = cli(*command, tmp_path / "text.h5")
        assert status == 1 and "text.h5" in err and err.count("\n") == 1
    assert not (tmp_path / "x.json").exists()


def test_training_on_a_grid_that_does_not_fit(cli, tiny_path, tmp_path):
    from emuinfer import Grid, LabelSpace, TransformerPayne, save_emulator
    from emuinfer.emulators import TransformerConfig

    space, wavelength = LabelSpace(("teff", "fe_h"), (4000, -1), (6000, 0)), 5000 + 0.05 * np.arange(40)
    labels = np.random.default_rng(0).uniform(space.lower, space.upper, (10, 2))

    def grid(name, medium="air", scale=1.0):
        Grid(labels, wavelength * scale, np.ones((10, 40)), label_space=space, medium=medium).save(tmp_path / name)
        return tmp_path / name

    def fails(words, *arguments):
        status, _, err = cli("train", *arguments, "--steps", 2, "-q", "--output", tmp_path / "new")
        assert status == 1 and err.count("\n") == 1, err
        for word in words:
            assert word in err
        assert not (tmp_path / "new.json").exists()

    import jax

    sizes = TransformerConfig(
        width=4, depth=1, heads=1, tokens=2, label_hidden=4, frequencies=2, table_nodes=40, rank=0
    )
    start = TransformerPayne(space, (wavelength[0], wavelength[-1]), "air", sizes, key=jax.random.key(0))
    save_emulator(start, tmp_path / "start")
    fails(["'reduced' emulator", "only transformers"], grid("air.h5"), "--init", tiny_path)
    fails(["air", "vacuum"], grid("vacuum.h5", "vacuum"), "--init", tmp_path / "start")
    fails(["5000.00 to 5001.95 Å", "5050.00 to 5051.97 Å"], grid("far.h5", scale=1.01), "--init", tmp_path / "start")
    fails(["near.h5", "5000.100 to 5002.050 Å"], grid("air.h5"), "--replay", grid("near.h5", scale=1.00002))
    fails(["--width", "--heads"], grid("air.h5"), "--width", 7)
    fails(["--held-out", "0.9"], grid("air.h5"), "--held-out", 0.9)


def test_a_run_folder_of_other_settings_is_refused(cli, tmp_path):
    from emuinfer import Grid, LabelSpace

    space = LabelSpace(("teff", "fe_h"), (4000, -1), (6000, 0))
    labels = np.random.default_rng(0).uniform(space.lower, space.upper, (10, 2))
    Grid(labels, 5000 + 0.05 * np.arange(40), np.ones((10, 40)), label_space=space, medium="air").save(
        tmp_path / "g.h5"
    )
    run = tmp_path / "new.run"
    run.mkdir()
    (run / "checkpoint.eqx").write_bytes(b"broken")
    (run / "config.json").write_text(json.dumps({"steps": 7}))
    call = (
        "train",
        tmp_path / "g.h5",
        "--steps",
        2,
        "--width",
        4,
        "--heads",
        1,
        "--rank",
        0,
        "-q",
        "-o",
        tmp_path / "new",
    )
    status, _, err = cli(*call)
    assert status == 1 and "steps: 7 there, 2 now" in err
    (run / "config.json").write_text(json.dumps({"steps": 2}))
    status, _, err = cli(*call)
    assert status == 1 and "checkpoint" in err and "damaged" in err
    status, _, err = cli(*call, "--no-resume")
    assert status == 1 and "already holds a run" in err
    assert (run / "checkpoint.eqx").read_bytes() == b"broken"


# The command itself


def test_wrong_calls(cli):
    for call in (("fitt",), ("fit", "--chans", "4"), ("fit", "x.fits", "--chains", "0"), ("grid", "make")):
        status, _, err = cli(*call)
        assert status == 2 and "Traceback" not in err


def test_output_that_cannot_be_written(refused, tmp_path, star_file):
    (tmp_path / "file").write_text("in the way")
    refused(["is a file"], "fit", star_file, "--output", "file")
    refused(["file"], "fit", star_file, "--output", "file/below")
    assert (tmp_path / "file").read_text() == "in the way"


def test_debug_shows_the_traceback():
    command = [sys.executable, "-m", "emuinfer", "--debug", "emulators", "nothing"]
    debug = subprocess.run(command, capture_output=True, text=True)
    assert (
        debug.returncode == 1 and "Traceback" in debug.stderr and "EmulatorError: No emulator 'nothing'" in debug.stderr
    )


@pytest.mark.parametrize(
    "name, known, hint",
    [
        ("tef", ("teff", "logg"), " Did you mean 'teff'?"),
        ("ESPRESO", ("ESPRESSO", "HARPS"), " Did you mean 'ESPRESSO'?"),
        ("espresso", ("HARPS", "ESPRESSO"), " Did you mean 'ESPRESSO'?"),
        ("vacum", ("air", "vacuum"), " Did you mean 'vacuum'?"),
        (3, ("teff",), ""),
        ("nothing", (), ""),
    ],
)
def test_suggestion(name, known, hint):
    assert suggestion(name, known) == hint
