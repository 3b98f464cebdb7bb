"""Many stars at once: the truth, bad stars among good ones, interruption and resumption, inputs, the command line."""

import h5py
import numpy as np
import pytest
import tiny
from astropy.table import Table

from emuinfer import fit_many
from emuinfer.errors import ObservationError, SamplingError
from emuinfer.inference import sample
from emuinfer.likelihoods import StellarSpectrum
from emuinfer.posterior import draws_of, load_posterior
from emuinfer.survey import Settings
from emuinfer.survey_input import SpectrumStack, stack_observations
from emuinfer.survey_statistics import FLAGS

SETTINGS = Settings(warmup=75, draws=150, local=80, test=20, components=8, verify=24)
OPTIONS = {"settings": SETTINGS, "line_errors": None, "batch": 4, "progress": False, "rv_range": (-60.0, 60.0)}
LABELS = [
    {"teff": t, "fe_h": f, "mg_fe": m}
    for t, f, m in [(5600, -0.3, 0.15), (5000, 0.1, 0.0), (6000, -0.6, 0.3), (5300, -0.2, 0.2), (5800, 0.0, -0.1), (5500, -0.5, 0.4)]
]
BAD, DARK = 2, 5


@pytest.fixture(scope="module")
def stack(tiny_emulator, tmp_path_factory):
    """Six stars; the third is NaN, the last has not one good pixel."""
    grid = tiny_emulator.config.wavelength
    stars = [tiny.observe(tiny_emulator, seed=i, labels=x, rv=12.0 + i, grid=grid) for i, x in enumerate(LABELS)]
    path = stack_observations(stars, tmp_path_factory.mktemp("survey") / "stars.h5")
    with h5py.File(path, "r+") as file:
        file["flux"][BAD] = np.nan
        file["mask"][DARK] = True
    return path


@pytest.fixture(scope="module")
def table(tiny_path, stack, tmp_path_factory):
    return fit_many(str(tiny_path), stack, tmp_path_factory.mktemp("run") / "out", save_draws=True, **OPTIONS)


def test_truth_is_found(table):
    good = [i for i in range(6) if i not in (BAD, DARK)]
    for name in ("teff", "fe_h", "mg_fe"):
        pull = [(table[name][i] - LABELS[i][name]) / table[f"{name}_sd"][i] for i in good]
        assert np.abs(pull).max() < 3.5
    assert np.abs(table["rv"][good] - 12.0 - np.array(good)).max() < 0.5
    assert (table["chi2"][good] < 1.5).all() and not (table["flag"][good] & FLAGS["verification"]).any()
    order = table.meta["PARAMS"].split(",")
    diagonal = np.asarray(table["covariance"])[0].diagonal()
    assert np.sqrt(diagonal) == pytest.approx([table[f"{n}_sd"][0] for n in order], rel=1e-3)


def test_bad_stars_are_flagged_and_harm_no_other(table, tiny_emulator, stack):
    assert all(table["flag"][i] & 1 and len(table["problem"][i]) > 10 for i in (BAD, DARK))
    assert np.isnan(table["teff"][BAD]) and np.isfinite(np.asarray(table["teff"])[[0, 1, 3, 4]]).all()


@pytest.mark.slow
def test_agrees_with_a_fit_of_one_star(table, tiny_emulator):
    observation = tiny.observe(tiny_emulator, seed=0, labels=LABELS[0], rv=12.0, grid=tiny_emulator.config.wavelength)
    model = StellarSpectrum(tiny_emulator, observation, line_errors=None, progress=False, rv_range=(-60, 60))
    posterior = sample(model, seed=1, warmup=150, draws=300, verify=0, progress=False)
    for name in ("teff", "fe_h", "mg_fe"):
        x = draws_of(posterior, name)
        assert abs(x.mean() - table[f"{name}_mean"][0]) < 0.35 * x.std()
        assert table[f"{name}_sd"][0] == pytest.approx(x.std(), rel=0.25)


def test_interrupted_and_shared_runs_give_the_same(table, tiny_path, stack, tmp_path, monkeypatch):
    out = tmp_path / "out"
    tiny.stop_after_one_batch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit_many(str(tiny_path), stack, out, **OPTIONS)
    monkeypatch.undo()
    first = out / "parts" / "part-000000.npz"
    written = first.stat().st_mtime_ns
    assert fit_many(str(tiny_path), stack, out, worker=(0, 2), **OPTIONS) is None
    again = fit_many(str(tiny_path), stack, out, worker=(1, 2), **OPTIONS)
    assert first.stat().st_mtime_ns == written and not list(out.rglob("*.tmp*"))
    for name in ("teff", "mg_fe_sd", "flag"):
        np.testing.assert_array_equal(again[name], table[name])
    with pytest.raises(SamplingError, match="seed"):
        fit_many(str(tiny_path), stack, out, **{**OPTIONS, "seed": 5})


def test_results_on_disk(table, stack, tmp_path_factory):
    folder = next(p for p in tmp_path_factory.getbasetemp().glob("run*") if (p / "out").exists()) / "out"
    read = Table.read(folder / "results.fits")
    assert len(read) == 6 and read["teff"].unit == "K" and read["name"][0] == "tiny"
    draws = load_posterior(folder / "draws" / "draws-000000.nc")
    assert draws_of(draws, "teff").shape[:2] == (4, 150)


def test_inputs_that_do_not_fit(stack, tmp_path, tiny_emulator):
    with pytest.raises(ObservationError, match="no file"):
        SpectrumStack(tmp_path / "none.h5")
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["wavelength"] = np.arange(5.0)
        file["flux"] = np.ones((2, 4))
        file["ivar"] = np.ones((2, 4))
    with pytest.raises(ObservationError, match="shape"):
        SpectrumStack(tmp_path / "bad.h5", medium="air", resolution=1e4)
    with h5py.File(tmp_path / "no.h5", "w") as file:
        file["wavelength"] = np.arange(5.0)
    with pytest.raises(ObservationError, match="lacks flux, uncertainty"):
        SpectrumStack(tmp_path / "no.h5")
    a = tiny.observe(tiny_emulator, grid=tiny_emulator.config.wavelength)
    b = a.in_medium("vacuum")
    with pytest.raises(ObservationError, match="other wavelengths"):
        stack_observations([a, b], tmp_path / "x.h5")


def test_command_line(cli, stack, tmp_path):
    status, out, err = cli("fit-many", stack, "-o", tmp_path / "o", "--slurm")
    assert status == 0 and "#SBATCH --array" in out and str(stack) in out
    status, _, err = cli("fit-many", stack, "-o", tmp_path / "o", "--worker", "4/2")
    assert status == 1 and "K/N" in err
