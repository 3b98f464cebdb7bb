"""Errors of emulators: figures and statistics against residuals that are put in by hand."""

import json

import numpy as np
import pytest

from emuinfer.emulators.baselines.regression import PixelPolynomial
from emuinfer.emulators.training.evaluate import (
    convolve,
    error_scale,
    error_table,
    format_table,
    load_statistics,
    predict,
    residual_statistics,
    save_statistics,
)
from emuinfer.errors import LabelError, TrainingError
from emuinfer.labels.space import LabelSpace
from emuinfer.wavelengths.pixels import PixelGrid

SPACE = LabelSpace(("teff", "logg", "fe_h"), (4000, 0, -3), (7000, 5, 1))
WAVELENGTH = 5100.0 + 0.02 * np.arange(400)
EMULATOR = PixelPolynomial(SPACE, PixelGrid.from_wavelength(WAVELENGTH), "air", 1)  # predicts zero everywhere
RNG = np.random.default_rng(0)
LABELS = RNG.uniform(SPACE.lower, SPACE.upper, (200, 3))


def test_convolution_of_a_line_broadens_it_as_theory_says():
    sigma, resolution = 0.1, 40_000
    seen_sigma = np.hypot(sigma, 5104.0 / resolution / 2.3548)
    line = np.exp(-0.5 * ((WAVELENGTH - 5104.0) / sigma) ** 2)[None]
    seen, inside = convolve(line, WAVELENGTH, resolution)
    expected = sigma / seen_sigma * np.exp(-0.5 * ((WAVELENGTH - 5104.0) / seen_sigma) ** 2)
    np.testing.assert_allclose(seen[0], expected[inside], atol=1e-4)
    np.testing.assert_allclose(convolve(np.ones((1, 400)), WAVELENGTH, resolution)[0], 1.0, atol=1e-6)
    with pytest.raises(TrainingError, match="line spread"):
        convolve(line, WAVELENGTH, 300)
    with pytest.raises(TrainingError, match="equally spaced"):
        convolve(line, np.geomspace(5100, 5200, 400), resolution)


def test_figures_of_known_residuals():
    flux = RNG.normal(0.0, 0.01, (200, 400))
    table = error_table(EMULATOR, LABELS, flux, WAVELENGTH)
    assert json.loads(json.dumps(table)) == table
    native = table["native"]["all"]
    assert native["mae"] == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.02)  # of a normal distribution
    assert native["rmse"] == pytest.approx(0.01, rel=0.02)
    assert native["p95"] == pytest.approx(0.0196, rel=0.02)
    assert native["max"] == pytest.approx(np.abs(flux).max(), rel=1e-5)
    # White noise averaged with a Gaussian of s pixels falls by (4 pi s^2)^(1/4).
    s = 5104 / 40_000 / 2.3548 / 0.02
    assert table["R=40000"]["all"]["rmse"] == pytest.approx(0.01 / (4 * np.pi * s * s) ** 0.25, rel=0.05)
    assert "| all | R=40000 | 200 |" in format_table(table)


def test_regions_divide_the_spectra():
    flux = np.where(LABELS[:, :1] < 5000, 0.5, 0.1) * np.ones((200, 400))
    parts = error_table(EMULATOR, LABELS, flux, WAVELENGTH, resolutions=(None,))["native"]["regions"]
    assert parts["teff < 5000"]["mae"] == pytest.approx(0.5) and parts["teff >= 6000"]["mae"] == pytest.approx(0.1)
    assert parts["teff < 5000"]["n"] == (LABELS[:, 0] < 5000).sum()
    for name in ("teff", "logg", "fe_h"):
        assert sum(p["n"] for region, p in parts.items() if name in region) == 200
    own = error_table(EMULATOR, LABELS, flux, WAVELENGTH, resolutions=(None,), regions={"teff": (5500,)})
    assert set(own["native"]["regions"]) == {"teff < 5500", "teff >= 5500"}
    with pytest.raises(LabelError):
        error_table(EMULATOR, LABELS, flux, WAVELENGTH, regions={"tef": (5500,)})


def test_statistics_find_bias_scatter_and_basis():
    pattern = np.sin(WAVELENGTH * 3)
    amplitude = RNG.normal(size=(200, 1))
    truth = np.zeros((200, 400))
    predicted = 0.02 * np.cos(WAVELENGTH) + 0.01 * amplitude * pattern + RNG.normal(0, 0.001, (200, 400))
    found = residual_statistics(EMULATOR, LABELS, truth, WAVELENGTH, rank=1, predicted=predicted)
    np.testing.assert_allclose(found["bias"], 0.02 * np.cos(WAVELENGTH), atol=0.003)
    assert abs(np.corrcoef(found["basis"][0], pattern)[0, 1]) > 0.999
    np.testing.assert_allclose(found["sd_rest"], 0.001, rtol=0.35)
    np.testing.assert_allclose(found["sd"] ** 2, (found["basis"] ** 2).sum(0) + found["sd_rest"] ** 2, rtol=1e-3)
    seen = residual_statistics(EMULATOR, LABELS, truth, WAVELENGTH, resolution=40_000, predicted=predicted)
    assert seen["bias"].shape == seen["wavelength"].shape and len(seen["wavelength"]) < 400
    assert seen["basis"].shape == (10, len(seen["wavelength"]))


def test_error_scale_follows_the_labels():
    scaled = SPACE.scale(LABELS)
    size = np.exp(-0.8 * scaled[:, 0])
    truth = size[:, None] * RNG.normal(0, 0.01, (200, 400))
    found = residual_statistics(EMULATOR, LABELS, truth, WAVELENGTH)
    scale = error_scale(found, scaled)
    assert np.corrcoef(np.log(scale), np.log(size))[0, 1] > 0.99
    assert (scale**2).mean() == pytest.approx(1.0, rel=1e-3)
    np.testing.assert_allclose(found["spectrum_rms"], size * 0.01, rtol=0.2)


def test_rms_by_depth():
    predicted = np.tile(np.linspace(0, 1, 400), (200, 1)).astype(np.float32)
    truth = predicted - 0.03 * (1 - predicted)
    found = residual_statistics(EMULATOR, LABELS, truth, WAVELENGTH, predicted=predicted)
    middle = 0.5 * (found["depth_edges"][1:] + found["depth_edges"][:-1])
    np.testing.assert_allclose(found["depth_rms"], 0.03 * middle, rtol=0.2)


def test_statistics_survive_the_file(tmp_path):
    flux = RNG.normal(0.0, 0.01, (20, 400))
    found = residual_statistics(EMULATOR, LABELS[:20], flux, WAVELENGTH)
    save_statistics(tmp_path / "s.npz", found)
    again = load_statistics(tmp_path / "s.npz")
    assert set(again) == set(found)
    for name in found:
        np.testing.assert_array_equal(again[name], found[name])


def test_predictions_may_leave_the_domain_and_shapes_are_checked():
    assert predict(EMULATOR, LABELS[:3] + 1000.0, WAVELENGTH).shape == (3, 400)
    with pytest.raises(TrainingError, match="flux"):
        error_table(EMULATOR, LABELS, np.zeros((200, 399)), WAVELENGTH)
    with pytest.raises(TrainingError, match="predicted"):
        error_table(EMULATOR, LABELS, np.zeros((200, 400)), WAVELENGTH, predicted=np.zeros((3, 400)))
    with pytest.raises(TrainingError, match="at least 3"):
        residual_statistics(EMULATOR, LABELS[:2], np.zeros((2, 400)), WAVELENGTH)
