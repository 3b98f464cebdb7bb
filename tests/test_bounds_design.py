"""Optimal design against a search by brute force; figures of forecasts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TRUTH

from emuinfer.errors import EmuinferError
from emuinfer.forecast import (
    Camera,
    Exposure,
    Forecast,
    Instrument,
    best_window,
    optimal_design,
    plot_bounds,
    plot_information,
    plot_map,
    plot_windows,
)
from emuinfer.forecast.design import _Problem

CAMERA = Camera(pixels=90, rate=5.0, read_noise=4.0)
RANGE = (10_000.0, 40_000.0)
TARGETS = {"mg_fe": 0.05, "fe_h": 0.05}


def test_design_is_the_best_of_all_and_reaches_its_targets(tiny_emulator):
    design = optimal_design(tiny_emulator, TRUTH, TARGETS, CAMERA, resolution_range=RANGE, steps=30)
    problem = _Problem.build(tiny_emulator, TRUTH, TARGETS, CAMERA, RANGE, None, 3.0)
    at = jnp.asarray([(c, r) for c in np.linspace(-2, 2, 9) for r in np.linspace(-3, 3, 7)], jnp.float32)
    tried = np.exp(jax.lax.map(lambda f: problem.log_seconds(f)[0], at))
    assert design.seconds < 1.05 * np.nanmin(tried)
    reached = max(design.bounds.marginal[n] / t for n, t in TARGETS.items())
    assert reached == pytest.approx(1, abs=0.1)  # ends of the window are soft in the search, and its maximum smooth
    lo, hi = design.window
    assert RANGE[0] <= design.resolution <= RANGE[1] and 6180 < lo < hi < 6194
    wanted = 0.5 * (lo + hi) * CAMERA.pixels / (3.0 * design.resolution)
    assert hi - lo == pytest.approx(wanted, rel=0.01) or design.notes


def test_camera_against_photon_counting():
    """S/N² = S² / (S + read²): photon noise alone at long exposures, read noise alone at short ones."""
    signal = 5.0 * 1e6 * 6187.0 / (20_000 * 3.0)
    assert CAMERA.snr_per_pixel(6187.0, 20_000.0, 1e6) == pytest.approx(np.sqrt(signal), rel=1e-4)
    assert CAMERA.snr_per_pixel(6187.0, 20_000.0, 1e-3) == pytest.approx(signal * 1e-9 / 4.0, rel=1e-2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": {"mg_fe": -1.0}}, "must be positive precisions"),
        ({"targets": {"zr_fe": 0.1}}, "Unknown label 'zr_fe'"),
        ({"priors": {"mg_fe": 0.15}}, "mg_fe is fixed by the priors"),
        ({"resolution_range": (2e4, 1e4)}, "must rise"),
    ],
)
def test_bad_designs(tiny_emulator, change, words):
    arguments = {"targets": {"mg_fe": 0.05}, "camera": CAMERA, "resolution_range": RANGE, **change}
    with pytest.raises(EmuinferError, match=words):
        optimal_design(tiny_emulator, TRUTH, **arguments)


def test_bad_camera():
    with pytest.raises(EmuinferError, match="rate = 0 must be a positive number"):
        Camera(pixels=100, rate=0)


def test_figures_are_written(tiny_emulator, tmp_path):
    forecast = Forecast(tiny_emulator, TRUTH, Exposure(Instrument.single(6181.0, 6193.0, 20_000.0), 100.0))
    x = np.array([10.0, 100.0])
    curves = {"teff": 100 / x, "mg_fe": 1 / x}
    values = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    figures = {
        "information": lambda p: plot_information(p, forecast, ["teff", "mg_fe"]),
        "bounds": lambda p: plot_bounds(p, x, curves, "S/N", floors={"mg_fe": 0.02}),
        "map": lambda p: plot_map(p, [4000, 5000], [1, 2, 3], values, "mg_fe", contours=(2.0,)),
        "windows": lambda p: plot_windows(p, forecast, best_window(forecast, "mg_fe", 6.0, n=5)),
    }
    for name, plot in figures.items():
        path = tmp_path / f"{name}.png"
        assert plot(path) is not None
        assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 5000
    with pytest.raises(EmuinferError, match=r"shape \(2, 2\); got \(2, 3\)"):
        plot_map(None, [4000, 5000], [1, 2], values, "mg_fe")
    with pytest.raises(EmuinferError, match="'ni_fe' is not a free parameter"):
        plot_information(None, forecast, "ni_fe")
