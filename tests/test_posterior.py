"""Posteriors as ArviZ objects, their summaries, warnings and importance weights."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from emuinfer.errors import EmuinferError
from emuinfer.posteriors import (
    build_posterior,
    diagnose,
    load_posterior,
    pareto_smoothed_weights,
    save_posterior,
    summary_table,
    verify_flag,
)
from emuinfer.posteriors.library import import_arviz

az = import_arviz()


@pytest.fixture
def posterior():
    rng = np.random.default_rng(0)
    draws = {
        "teff": 5700 + 30 * rng.normal(size=(4, 500)),
        "fe_h": 0.1 * rng.normal(size=(4, 500)),
        "continuum": rng.normal(size=(4, 500, 3)).astype(np.float32),
    }
    stats = {
        "lp": rng.normal(size=(4, 500)),
        "energy": rng.normal(size=(4, 500)),
        "diverging": np.zeros((4, 500), bool),
    }
    return build_posterior(
        draws,
        stats,
        observed_data={"flux": np.ones(7)},
        posterior_predictive={"flux": rng.normal(size=(4, 500, 7))},
        constant_data={"wavelength": np.linspace(5100, 5101, 7)},
        coords={"pixel": np.arange(7)},
        dims={"flux": ["pixel"], "wavelength": ["pixel"]},
        attrs={
            "emulator_hash": "abc",
            "seed": 3,
            "k_hat": np.float32(0.25),
            "verified": True,
            "nothing": None,
            "versions": {"jax": "0.10"},
        },
    )


def test_round_trip_keeps_draws_and_attributes(posterior, tmp_path):
    path = save_posterior(posterior, tmp_path / "posterior.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]
    loaded = load_posterior(path)
    path.unlink()  # wholly in memory, the file is not needed any more
    for name in ("teff", "continuum"):
        np.testing.assert_array_equal(loaded.posterior[name].values, posterior.posterior[name].values)
    assert loaded.sample_stats["diverging"].values.dtype == bool
    np.testing.assert_array_equal(loaded.constant_data["wavelength"].values, np.linspace(5100, 5101, 7))
    assert loaded.observed_data["flux"].dims == ("pixel",)
    attrs = loaded.attrs
    assert attrs["emulator_hash"] == "abc" and attrs["seed"] == 3 and attrs["verified"] == 1 and "nothing" not in attrs
    assert attrs["k_hat"] == pytest.approx(0.25) and json.loads(attrs["versions"]) == {"jax": "0.10"}
    assert "created_at" in attrs
    assert type(loaded) is type(posterior)


@pytest.mark.comparison
def test_arviz_understands_the_object(posterior):
    table = az.summary(posterior, var_names=["teff", "continuum"])
    assert list(table.index) == ["teff", "continuum[0]", "continuum[1]", "continuum[2]"]
    assert float(az.rhat(posterior, var_names=["teff"])["teff"]) < 1.01


@pytest.mark.comparison
def test_summary_table_has_the_numbers(posterior, tmp_path):
    table = summary_table(posterior, ["fe_h", "teff"], {"teff": "K", "fe_h": "dex"})
    assert table.colnames == ["label", "unit", "mean", "sd", "q16", "median", "q84", "r_hat", "ess_bulk"]
    assert list(table["label"]) == ["fe_h", "teff"] and list(table["unit"]) == ["dex", "K"]
    row = table[1]
    assert row["mean"] == pytest.approx(5700, abs=3) and row["sd"] == pytest.approx(30, rel=0.06)
    assert row["q84"] - row["q16"] == pytest.approx(2 * 0.9945 * 30, rel=0.08)
    reference = az.summary(posterior, var_names=["teff"], round_to=None)
    assert row["r_hat"] == pytest.approx(float(reference["r_hat"].iloc[0]), abs=0.006)
    assert row["ess_bulk"] == pytest.approx(float(reference["ess_bulk"].iloc[0]), rel=0.01)
    from astropy.table import Table

    table.write(tmp_path / "summary.ecsv", format="ascii.ecsv")
    assert Table.read(tmp_path / "summary.ecsv")["label"][1] == "teff"


def test_healthy_posterior_has_no_warnings(posterior):
    assert diagnose(posterior, bounds={"teff": (4000, 7000), "fe_h": (-3, 0.5)}) == []


def test_every_trouble_is_named():
    rng = np.random.default_rng(1)
    shifted = rng.normal(size=(4, 300)) + np.array([0, 0, 0, 3])[:, None]
    walk = np.cumsum(rng.normal(size=(4, 300)), axis=1)
    draws = {
        "shifted": shifted,
        "bounded": np.abs(rng.normal(size=(4, 300))),
        "flat": rng.uniform(size=(4, 300)),
        "frozen": np.ones((4, 300)),
    }
    diverging = np.zeros((4, 300), bool)
    diverging[0, :5] = True
    text = diagnose(
        build_posterior(draws, {"diverging": diverging, "energy": walk}, observed_data={}),
        bounds={"bounded": (0, 10), "flat": (0, 1)},
    )
    for words in (
        "R-hat",
        "below 400",
        "5 of 1200 transitions diverged",
        "E-BFMI",
        "bounded piles up at the lower bound",
        "flat fills its whole prior range",
        "frozen are constant",
    ):
        assert sum(words in t for t in text) == 1, (words, text)
    single = build_posterior({"x": rng.normal(size=(1, 900))}, {}, observed_data={})
    assert "only one chain" in diagnose(single)[0]


def test_bad_files_and_shapes(tmp_path, posterior):
    with pytest.raises(EmuinferError, match="no posterior file"):
        load_posterior(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(EmuinferError, match="text.nc cannot be read"):
        load_posterior(tmp_path / "text.nc")
    with pytest.raises(EmuinferError, match="no folder"):
        save_posterior(posterior, tmp_path / "absent" / "p.nc")
    with pytest.raises(EmuinferError, match="must not be called"):
        build_posterior({"x": np.zeros((1, 2, 3))}, {}, observed_data={}, dims={"x": ["label"]})
    with pytest.raises(EmuinferError, match="chain, draw"):
        build_posterior({"x": np.zeros((2, 5)), "y": np.zeros((2, 4))}, {}, observed_data={})
    with pytest.raises(EmuinferError, match="no parameter 'logg'.*teff"):
        summary_table(posterior, ["logg"])


def _ratio(rng, s, n=4000):
    """Log ratio of N(0, 1) over N(0, s) at draws from N(0, s), and the draws."""
    x = s * rng.normal(size=n)
    return -0.5 * x**2 + 0.5 * (x / s) ** 2, x


def test_k_hat_of_known_tails():
    """The ratio is bounded for s > 1; its tail has shape 1 - s^2 for s < 1, reached slowly, so the limits are loose."""
    rng = np.random.default_rng(2)
    log_weights, k_hat, ess = pareto_smoothed_weights(_ratio(rng, 1.2)[0])
    assert k_hat < 0 and ess > 3000 and np.exp(log_weights).sum() == pytest.approx(1)
    assert pareto_smoothed_weights(_ratio(rng, 0.95)[0])[1] < 0.5
    # An exact Pareto tail: uniform u to the power -k has shape k.
    for k in (0.3, 0.8, 1.5):
        k_hats = [pareto_smoothed_weights(-k * np.log(rng.uniform(size=20000)))[1] for _ in range(10)]
        assert np.mean(k_hats) == pytest.approx(k, abs=0.15)  # (1 + k) / sqrt(10 * 425) = 0.04 is the scatter
    assert pareto_smoothed_weights(0.5 * rng.standard_t(1.5, size=4000) ** 2)[1] > 0.7  # too narrow a proposal
    # The weights are right: they move a mean of 0 to the target's mean.
    x = rng.normal(size=20000)
    log_weights, _, _ = pareto_smoothed_weights(0.5 * x)
    assert np.sum(np.exp(log_weights) * x) == pytest.approx(0.5, abs=0.05)


@pytest.mark.comparison
def test_k_hat_agrees_with_arviz():
    rng = np.random.default_rng(5)
    for s in (1.3, 0.9, 0.6):
        log_ratio = _ratio(rng, s, 1000)[0]
        if hasattr(az, "psislw"):
            reference, k_hat = az.psislw(log_ratio)
        else:  # ArviZ 1.x wants the negative log ratio
            from arviz_stats.base import array_stats

            reference, k_hat = array_stats.psislw(-log_ratio)
        log_weights, ours, _ = pareto_smoothed_weights(log_ratio)
        assert ours == pytest.approx(float(k_hat), abs=0.08)  # the versions differ by 0.05 among themselves
        np.testing.assert_allclose(np.exp(log_weights), np.exp(reference) / np.exp(reference).sum(), rtol=0.06)


def test_k_hat_edge_cases():
    log_weights, k_hat, ess = pareto_smoothed_weights(np.full(100, -1e4))
    assert k_hat == 0 and ess == 100 and np.allclose(log_weights, -np.log(100))
    x = np.random.default_rng(3).normal(size=200)
    x[3] = -np.inf
    assert np.exp(pareto_smoothed_weights(x)[0][3]) < 1e-6
    with pytest.raises(EmuinferError, match="1 of 200"):
        x[4] = np.nan
        pareto_smoothed_weights(x)


def test_verify_flag():
    assert verify_flag(0.1, 280, 300)[0] == "ok"
    assert verify_flag(0.9, 299.9, 300)[0] == "ok"  # weights equal but for rounding
    assert verify_flag(0.55, 200, 300)[0] == "warn"
    assert verify_flag(0.1, 50, 300)[0] == "warn"
    assert verify_flag(0.65, 100, 300)[0] == "fail"  # limit 1 - 1/log10(300) = 0.60
    assert verify_flag(0.65, 100, 4000)[0] == "warn"
    assert verify_flag(float("inf"), 2, 300)[0] == verify_flag(float("nan"), 100, 300)[0] == "fail"


def test_arviz_announces_nothing_in_the_middle_of_a_fit(tmp_path):
    """On a day without an import of ArviZ yet (a fresh cache), building and diagnosing a posterior prints nothing."""
    program = """
import numpy as np
from emuinfer.posteriors import build_posterior, diagnose
draws = np.random.default_rng(0).normal(size=(4, 500))
print(diagnose(build_posterior({"teff": draws}, {"lp": draws}, observed_data={"flux": np.ones(3)})))
"""
    import matplotlib

    fresh = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "MPLCONFIGDIR": matplotlib.get_configdir()}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **fresh})
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)
