"""Runs that are killed and go on."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from emuinfer.errors import SamplingError
from emuinfer.samplers import hmc, nuts

MEAN = np.array([1.0, -2.0, 0.5])
SETTINGS = dict(seed=7, covariance=np.diag([1.0, 4.0, 0.25]), warmup=60, draws=90, chunk=20, progress=False)


def density(z, data):
    return -0.5 * jnp.sum(((z - data["mean"]) / jnp.array([1.0, 2.0, 0.5])) ** 2) - 0.05 * z[0] ** 4


DATA = {"mean": MEAN.astype(np.float32)}


class Killed(Exception):
    pass


def kill_after(saves, monkeypatch):
    """Let the run die while it writes its checkpoint for the time after `saves`."""
    replace, count = os.replace, []

    def dying(*args):
        count.append(1)
        if len(count) > saves:
            raise Killed
        replace(*args)

    monkeypatch.setattr(os, "replace", dying)


@pytest.mark.parametrize("sampler", [nuts, hmc])
def test_a_killed_run_gives_the_same_draws(sampler, tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    whole = sampler(density, MEAN, DATA, **SETTINGS)
    for saves in (2, 3):  # killed in the warm-up, and once more in the sampling
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(saves, patch)
            sampler(density, MEAN, DATA, checkpoint=path, **SETTINGS)
    with np.load(path) as file:
        assert int(file["step"]) == 100
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]  # no temporary files are left
    resumed = sampler(density, MEAN, DATA, checkpoint=path, **SETTINGS)
    again = sampler(density, MEAN, DATA, checkpoint=path, **SETTINGS)  # of a run that had ended
    for other in (resumed, again):
        np.testing.assert_array_equal(other.positions, whole.positions)
        assert other.stats.keys() == whole.stats.keys() and other.warmup == whole.warmup
        for name, x in whole.stats.items():
            np.testing.assert_array_equal(other.stats[name], x)
        np.testing.assert_array_equal(other.inverse_mass_matrix, whole.inverse_mass_matrix)
        assert other.gradients == whole.gradients and other.timings["sampling_s"] > 0


def test_another_chunk_may_go_on(tmp_path, monkeypatch):
    path = tmp_path / "run"
    whole = hmc(density, MEAN, DATA, **SETTINGS)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(2, patch)
        hmc(density, MEAN, DATA, checkpoint=path, **SETTINGS)
    resumed = hmc(density, MEAN, DATA, checkpoint=path, **{**SETTINGS, "chunk": 33})
    np.testing.assert_allclose(resumed.positions, whole.positions, rtol=1e-5, atol=1e-5)


def test_checkpoints_of_other_runs_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    hmc(density, MEAN, DATA, checkpoint=path, **SETTINGS)
    before = path.read_bytes()
    for change, said in (
        ({"seed": 8}, r"seed \(7 there, 8 now\)"),
        ({"draws": 91}, r"draws \(90 there, 91 now\)"),
        ({"trajectory": 2.0}, "settings"),
        ({"covariance": np.eye(3)}, "starts and covariance"),
    ):
        with pytest.raises(SamplingError, match=said):
            hmc(density, MEAN, DATA, checkpoint=path, **{**SETTINGS, **change})
    with pytest.raises(SamplingError, match="differs in data"):
        hmc(density, MEAN, {"mean": DATA["mean"] + 1}, checkpoint=path, **SETTINGS)
    with pytest.raises(SamplingError, match="method .hmc there, nuts now"):
        nuts(density, MEAN, DATA, checkpoint=path, **SETTINGS)
    assert path.read_bytes() == before


def test_damaged_checkpoints_and_bad_paths(tmp_path):
    path = tmp_path / "run.npz"
    hmc(density, MEAN, DATA, checkpoint=path, **SETTINGS)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SamplingError, match="damaged.*Delete it"):
        hmc(density, MEAN, DATA, checkpoint=path, **SETTINGS)
    with pytest.raises(SamplingError, match="folder that exists"):
        hmc(density, MEAN, DATA, checkpoint=tmp_path / "nowhere" / "run.npz", **SETTINGS)
