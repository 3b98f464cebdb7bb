"""Many stars at once: the truth, bad stars among good ones, interruption and resumption, inputs, the command line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny
from astropy.io import fits
from astropy.table import Table

from emuinfer import SamplingConfig, fit_many
from emuinfer.errors import ObservationError, SamplingError
from emuinfer.inference import sample
from emuinfer.likelihoods import StellarModel
from emuinfer.observations.stack import SpectrumStack, as_stack, stack_observations
from emuinfer.posteriors import draws_of, load_posterior
from emuinfer.survey import FLAGS
from emuinfer.survey.files import Folder

CONFIG = SamplingConfig(warmup=75, draws=150, local=80, test=20, components=8, verify=24)
OPTIONS = {"config": CONFIG, "line_errors": None, "batch": 4, "progress": False, "rv_range": (-60.0, 60.0)}
LABELS = [
    {"teff": t, "fe_h": f, "mg_fe": m}
    for t, f, m in [
        (5600, -0.3, 0.15),
        (5000, 0.1, 0.0),
        (6000, -0.6, 0.3),
        (5300, -0.2, 0.2),
        (5800, 0.0, -0.1),
        (5500, -0.5, 0.4),
    ]
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
    assert (table["velocity_significance"][good] > 5).all() and np.isnan(table["second_velocity"][good]).all()
    assert not (table["flag"][good] & (FLAGS["no_velocity"] | FLAGS["second_spectrum"])).any()
    order = table.meta["PARAMS"].split(",")
    diagonal = np.asarray(table["covariance"])[0].diagonal()
    assert np.sqrt(diagonal) == pytest.approx([table[f"{n}_sd"][0] for n in order], rel=1e-3)


def test_bad_stars_are_flagged_and_harm_no_other(table, tiny_emulator, stack):
    assert all(table["flag"][i] & 1 and len(table["problem"][i]) > 10 for i in (BAD, DARK))
    assert np.isnan(table["teff"][BAD]) and np.isfinite(np.asarray(table["teff"])[[0, 1, 3, 4]]).all()


@pytest.mark.slow
def test_agrees_with_a_fit_of_one_star(table, tiny_emulator):
    observation = tiny.observe(tiny_emulator, seed=0, labels=LABELS[0], rv=12.0, grid=tiny_emulator.config.wavelength)
    model = StellarModel(tiny_emulator, observation, line_errors=None, progress=False, rv_range=(-60, 60))
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
    header = fits.getheader(folder / "results.fits", 1)
    units = {header[f"TTYPE{i}"]: header.get(f"TUCD{i}") for i in range(1, header["TFIELDS"] + 1)}
    assert (
        units["e_fe_h"] == "stat.error;phys.abund.Fe"
        and units["flag_teff"] == "meta.code.qual;phys.temperature.effective"
    )
    assert units["l_mg_fe"] == "meta.code.error;phys.abund" and units["mg_fe_limit"] == "phys.abund;stat.value"
    assert "limit_lines" in read.colnames and "l_rv" not in read.colnames and np.isnan(table["mg_fe_limit"][BAD])
    assert header["MEDIUM"] == "air" and "Asplund et al. 2009" in header["SOLAR"]
    np.testing.assert_array_equal(read["e_teff"], read["teff_sd"])
    assert read["flag_teff"][BAD] == FLAGS["bad_data"] and not (np.asarray(read["flag_teff"]) & ~read["flag"]).any()
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


def test_a_stack_has_the_frame_of_its_spectra(tmp_path, tiny_emulator):
    star = tiny.observe(tiny_emulator, grid=tiny_emulator.config.wavelength)
    framed = [star._with(meta={"frame": frame}) for frame in ("rest", "topocentric")]
    assert SpectrumStack(stack_observations(framed[:1], tmp_path / "one.h5")).frame == "rest"
    assert SpectrumStack(stack_observations(framed, tmp_path / "two.h5")).frame == "rest or topocentric"


def test_a_folder_of_spectra_is_a_stack(stack, tmp_path, tiny_emulator, spectrum_file):
    folder = tmp_path / "spectra"
    folder.mkdir()
    stars = [tiny.observe(tiny_emulator, seed=i, grid=tiny_emulator.config.wavelength) for i in range(3)]
    for i, star in enumerate(stars):
        spectrum_file(folder / f"star-{i}.ecsv", star.wavelength, star.flux, star.uncertainty)
    for spectra in (folder, sorted(folder.iterdir())):
        path = as_stack(spectra, tmp_path / "out", medium="air", resolution=30000)
        names, flux, _uncertainty, mask = SpectrumStack(path).read(slice(0, 3))
        assert len(SpectrumStack(path)) == 3 and names[1] == "star-1" and not mask.any()
        assert SpectrumStack(path).frame is None
        np.testing.assert_allclose(flux[2], stars[2].flux, rtol=1e-6)
        assert len(list(tmp_path.glob("out-input-*.h5"))) == 1
    before = SpectrumStack(path).fingerprint
    with h5py.File(path, "r+") as file:
        file["flux"][1, 5] *= 1.01
    assert SpectrumStack(path).fingerprint != before
    assert not list(tmp_path.glob("*.tmp*"))


def test_what_is_no_spectrum_gets_a_row_that_says_why(tmp_path, tiny_emulator, spectrum_file):
    folder = tmp_path / "night"
    folder.mkdir()
    star = tiny.observe(tiny_emulator, grid=tiny_emulator.config.wavelength)
    spectrum_file(folder / "b.ecsv", star.wavelength, star.flux, star.uncertainty)
    spectrum_file(folder / "c.ecsv", star.wavelength, star.flux, star.uncertainty)
    spectrum_file(folder / "d.ecsv", star.wavelength[:-5], star.flux[:-5], star.uncertainty[:-5])
    (folder / "a.ecsv").write_bytes((folder / "b.ecsv").read_bytes()[:400])
    (folder / "README.txt").write_text("notes of the night")
    (folder / "z.fits").write_bytes(b"")
    (folder / "nowhere.fits").symlink_to(tmp_path / "none")
    (folder / "sub").mkdir()
    stack = SpectrumStack(as_stack(folder, tmp_path / "out", medium="air", resolution=30000))
    found = dict(stack.observations(slice(0, len(stack))))
    assert list(found) == ["README", "a", "b", "c", "d", "nowhere", "z"]
    assert [n for n, one in found.items() if not isinstance(one, Exception)] == ["b", "c"]
    for name in ("README.txt", "a.ecsv", "nowhere.fits", "z.fits"):
        assert name in str(found[name.partition(".")[0]])
    assert "other wavelengths" in str(found["d"])
    assert stack.note().startswith("5 of 7 spectra cannot be used and are flagged bad_data: ")
    assert len(stack.fingerprint) == 16
    for name in "bcd":
        (folder / f"{name}.ecsv").unlink()
    with pytest.raises(ObservationError, match=r"None of 4 spectra can be used: .*README.txt"):
        as_stack(folder, tmp_path / "out", medium="air", resolution=30000)


def test_a_damaged_row_of_a_stack_harms_no_other(stack, tmp_path):
    path = tmp_path / "damaged.h5"
    with h5py.File(stack) as old, h5py.File(path, "w") as new:
        new["wavelength"], new["name"] = old["wavelength"][:], old["name"][:]
        new.attrs.update(old.attrs)
        for name in ("flux", "uncertainty"):
            new.create_dataset(name, data=old[name][:], chunks=(1, old[name].shape[1]), fletcher32=True)
        at = new["flux"].id.get_chunk_info(1).byte_offset
    with open(path, "r+b") as file:
        file.seek(at + 40)
        file.write(b"damage")
    found = [one for _, one in SpectrumStack(path).observations(slice(0, 6))]
    assert [isinstance(one, OSError) for one in found] == [False, True, False, False, False, False]
    assert len(SpectrumStack(path).fingerprint) == 16


def test_a_full_disk_leaves_no_half_part(tmp_path, monkeypatch):
    folder = Folder(tmp_path / "run", {"seed": 1})
    folder.save(0, {"mean": np.ones(3)})

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)  # all is written, but the disk cannot keep it
    with pytest.raises(SamplingError, match="part-000001.npz could not be written.*No space.*run again"):
        folder.save(1, {"mean": np.ones(3)})
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "run" / "parts").iterdir()] == ["part-000000.npz"]
    assert not folder.done(1) and folder.load(0)["mean"].sum() == 3


def program(path, stack, out, devices=1, environment=(), **more):
    """A process of its own that fits the stack."""
    code = f"""
from emuinfer import fit_many
from emuinfer import SamplingConfig
from emuinfer.survey.files import Folder
if __name__ == "__main__":
    options = {{"config": {CONFIG!r}, "line_errors": None, "batch": 2, "progress": False, "rv_range": (-60.0, 60.0)}}
    options |= {more!r}
    fit_many({str(path)!r}, {str(stack)!r}, {str(out)!r}, **options)
    import jax
    assert jax.device_count() == {devices}
"""
    script = out.with_name(f"{out.name}.py")  # workers import it
    script.write_text(code)
    here = {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, script], env={**os.environ, **here, **dict(environment)})


def workers_of(pid):
    """The processes that a process has started (Linux)."""
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_run_killed_at_once_goes_on(table, tiny_path, stack, tmp_path):
    out = tmp_path / "out"
    process = program(tiny_path, stack, out, workers=2)
    written = lambda: {p.name: p.stat().st_mtime_ns for p in (out / "parts").glob("*.npz")}
    end = time.monotonic() + 300
    while not written() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    children = workers_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(children) >= 2 and written() and not (out / "results.fits").exists()
    while any(alive(pid) for pid in children) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in children)  # workers end with their parent, however it ended
    kept = written()
    again = fit_many(str(tiny_path), stack, out, **{**OPTIONS, "batch": 2})
    assert kept.items() <= written().items() and len(again) == len(table)
    assert np.isfinite(np.asarray(again["teff"])[[0, 1, 3, 4]]).all()


@pytest.mark.slow
def test_two_devices_give_what_one_gives(tiny_path, stack, tmp_path):
    one = fit_many(str(tiny_path), stack, tmp_path / "one", **{**OPTIONS, "batch": 2})
    flags = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"}
    process = program(tiny_path, stack, tmp_path / "two", devices=2, environment=flags)
    assert process.wait(600) == 0
    two = Table.read(tmp_path / "two" / "results.fits")
    good = [0, 1, 3, 4]
    assert not np.array_equal(np.asarray(two["teff"])[good], np.asarray(one["teff"])[good])
    for name in ("teff", "fe_h", "mg_fe"):  # other random numbers on each device, the same posteriors
        difference = (np.asarray(two[name]) - np.asarray(one[name]))[good] / np.asarray(one[f"{name}_sd"])[good]
        assert np.abs(difference).max() < 0.35
        np.testing.assert_allclose(two[f"{name}_sd"][good], one[f"{name}_sd"][good], rtol=0.3)


@pytest.mark.slow
def test_a_dask_cluster_does_the_batches(tiny_path, stack, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {**OPTIONS, "batch": 2}
    one = fit_many(str(tiny_path), stack, tmp_path / "one", **options)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        two = fit_many(str(tiny_path), stack, tmp_path / "two", cluster=client, **options)
        with pytest.raises(SamplingError, match="Dask worker failed"):
            fit_many(str(tiny_path), stack, tmp_path / "three", cluster=client, **{**options, "priors": {"rv": 1.0}})
    for name in ("teff", "mg_fe_sd", "flag"):
        np.testing.assert_array_equal(two[name], one[name])


def test_command_line(cli, stack, tmp_path):
    status, out, err = cli("fit-many", stack, "-o", tmp_path / "o", "--slurm")
    assert status == 0 and "#SBATCH --array" in out and str(stack) in out
    typed = (
        "--rv-range",
        -60,
        60,
        "--fix",
        "mg_fe=0.1",
        "--fix",
        "vmic=1",
        "--no-line-errors",
        "--broadening",
        "vsini",
        "--medium",
        "air",
    )
    out = cli("fit-many", stack, "-o", tmp_path / "o", "--slurm", "--workers", 2, *typed)[1]
    given = out.splitlines()[-1].split("$SLURM_ARRAY_TASK_COUNT")[1].split()
    assert sorted(given) == sorted(["--rv-range", "-60.0", "60.0", *map(str, typed[3:])])
    status, _, err = cli("fit-many", stack, "-o", tmp_path / "o", "--worker", "4/2")
    assert status == 1 and "K/N" in err
