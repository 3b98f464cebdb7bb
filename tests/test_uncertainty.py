"""The covariance of an emulator's error: recovered from residuals drawn from a known one; coverage, files, algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from emuinfer.emulators import from_link
from emuinfer.emulators.baselines.regression import PixelPolynomial
from emuinfer.emulators.storage import list_emulators, load_emulator, save_emulator
from emuinfer.emulators.training.coverage import coverage, factor_statistic
from emuinfer.emulators.training.uncertainty import cross_validated_flux, fit_uncertainty
from emuinfer.emulators.uncertainty import (
    correlation_integral,
    load_uncertainty,
    save_uncertainty,
    sensitivity,
    woodbury_log_likelihood,
)
from emuinfer.errors import EmulatorError, TrainingError
from emuinfer.labels.space import LabelSpace
from emuinfer.wavelengths.pixels import PixelGrid

SPACE = LabelSpace(("teff", "logg", "fe_h"), (4000, 0, -3), (7000, 5, 1))
WAVELENGTH = 5100.0 + 0.02 * np.arange(600)
EPSILON = 0.003
LENGTH = 3.0  # pixels, standard deviation of the Gaussian correlation of the diagonal part


def known(n, seed, nu=8.0):
    """Labels, residuals and flux of `n` spectra whose errors have a known covariance, and its pieces.

    Student-t by one random scale per spectrum; the diagonal part is correlated over `LENGTH`; twice as large per unit
    of scaled [Fe/H] (diagonal) or half as large (factors).
    """
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    centre = fixed.uniform(0, 600, 25)
    lines = fixed.uniform(0.2, 2.0, 25) @ np.exp(-0.5 * ((np.arange(600) - centre[:, None]) / 5) ** 2)
    labels = rng.uniform(SPACE.lower, SPACE.upper, (n, 3))
    metals = SPACE.scale(labels)[:, 2]
    flux = 1 / (1 + lines * np.exp(metals)[:, None])
    d = 0.01 * (1.3 + np.sin(np.arange(600) / 40))
    factors = 0.04 * np.stack([np.sin(np.arange(600) / 20), np.cos(np.arange(600) / 33)])
    kernel = np.exp(-0.5 * (np.arange(-12, 13) / (LENGTH / np.sqrt(2))) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    noise = np.stack([np.convolve(row, kernel, "valid") for row in rng.standard_normal((n, 624))])
    t = np.sqrt(nu / rng.chisquare(nu, n) * (nu - 2) / nu)[:, None]
    a, b = np.exp(np.log(2) * metals)[:, None], np.exp(-np.log(2) * metals)[:, None]
    x = t * (a * d * noise + b * rng.standard_normal((n, 2)) @ factors)
    return labels, x * sensitivity(flux, EPSILON, np), flux, (a * d, b[:, :, None] * factors)


@pytest.fixture(scope="module")
def fitted():
    labels, residuals, flux, _ = known(300, 0)
    return fit_uncertainty(SPACE, labels, residuals, flux, WAVELENGTH, rank=2)


def test_sensitivity_is_the_slope_of_the_link():
    x = jnp.linspace(-5.0, 5.0, 41)
    _, slope = jax.jvp(lambda x: from_link(x, EPSILON), (x,), (jnp.ones(41),))
    np.testing.assert_allclose(sensitivity(from_link(x, EPSILON), EPSILON), -slope, rtol=1e-3, atol=1e-6)


def test_a_known_covariance_is_recovered(fitted):
    labels, _, flux, (d, factors) = known(60, 9)
    slope = sensitivity(flux, EPSILON, np)
    ratio, overlap = [], []
    for k, row in enumerate(np.asarray(SPACE.scale(labels), np.float32)):
        sd, found = (np.asarray(a, float) for a in fitted.at(row, WAVELENGTH, flux[k]))
        true = factors[k] * slope[k]
        ratio.append([np.median(sd / (d[k] * slope[k])), np.sqrt((found**2).sum() / (true**2).sum())])
        # Cosine of the larger angle between the two planes: 1 if they are the same.
        q = [np.linalg.qr(f.T)[0] for f in (found, true)]
        overlap.append(np.linalg.svd(q[0].T @ q[1], compute_uv=False)[-1])
    # Amplitudes vary 4-fold over the labels, both ways; they are found to a tenth.
    np.testing.assert_allclose(np.mean(ratio, axis=0), 1.0, atol=0.1)
    assert np.std(np.log(ratio), axis=0).max() < 0.12
    assert np.min(overlap) > 0.95
    assert 3 < fitted.degrees_of_freedom < 25


def test_correlation_and_damping_are_those_put_in(fitted):
    # A Gaussian correlation of length l through a Gaussian of s: l / sqrt(l^2 + 2 s^2).
    exact = np.exp(-0.5 * (np.arange(60) / LENGTH) ** 2)
    for s in (0.5, 3.0, 10.0):
        expected = LENGTH / np.hypot(LENGTH, np.sqrt(2) * s)
        assert correlation_integral(exact, 0.02, 0.02 * s) == pytest.approx(expected, rel=0.01)
    centre = np.zeros(3, np.float32)
    assert fitted.damping(centre, 0.0) == 1.0
    # Lower than the formula, which is for errors equal all over a spectrum; these are near nil between lines.
    for s in (2.75, 10.0):
        expected = LENGTH / np.hypot(LENGTH, np.sqrt(2) * s)
        assert 0.6 * expected < fitted.damping(centre, 0.02 * s) < 1.05 * expected
    # Not convolved, sqrt(2 pi) l pixels are as good as one.
    assert fitted.coherence(centre, 0.0, 0.02) == pytest.approx(np.sqrt(2 * np.pi) * LENGTH, rel=0.3)
    assert fitted.coherence(centre, 0.0, 5.0) == 1.0


def test_coverage_is_nominal_on_fresh_residuals(fitted):
    labels, residuals, flux, _ = known(200, 5)
    table = coverage(fitted, labels, residuals, flux, WAVELENGTH)
    for sampling in ("native", "R=40000"):
        for level in (0.68, 0.95):
            figures = table[sampling]["all"]
            assert figures[f"{level}"] == pytest.approx(level, abs=0.02 + 2 * figures[f"{level}_error"])
            assert table[sampling]["factors"][f"{level}"] == pytest.approx(level, abs=0.08)
        for figures in table[sampling]["regions"].values():
            assert figures["0.68"] == pytest.approx(0.68, abs=0.03 + 3 * figures["0.68_error"])
            assert figures["predicted_rms"] == pytest.approx(figures["rms"], rel=0.35)
    twice = coverage(fitted, labels, 2 * residuals, flux, WAVELENGTH, resolutions=(None,))
    assert twice["native"]["all"]["0.68"] < 0.5 and twice["native"]["factors"]["0.95"] < 0.75


@pytest.mark.comparison
def test_the_statistic_of_the_factors_follows_chi_squared():
    rng = np.random.default_rng(0)
    variance, factors = rng.uniform(0.5, 2, 200), rng.standard_normal((4, 200))
    draws = rng.standard_normal((2000, 200)) * np.sqrt(variance) + rng.standard_normal((2000, 4)) @ factors
    values = 4 * np.array([factor_statistic(r, variance, factors) for r in draws])
    assert stats.kstest(values, stats.chi2(4).cdf).pvalue > 0.01


@pytest.mark.comparison
def test_woodbury_is_the_dense_gaussian():
    rng = np.random.default_rng(0)
    variance, factors = rng.uniform(0.01, 0.1, 50), rng.standard_normal((3, 50))
    residual = np.sqrt(variance) * rng.standard_normal(50) + rng.standard_normal(3) @ factors
    dense = stats.multivariate_normal(np.zeros(50), np.diag(variance) + factors.T @ factors)
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    value_and_slope = jax.jit(jax.value_and_grad(woodbury_log_likelihood))
    found, _ = value_and_slope(as32(residual), as32(variance), as32(factors))
    assert float(found) == pytest.approx(dense.logpdf(residual), abs=1e-3)
    # A pixel of infinite variance is no pixel, also for the gradient.
    keep = np.arange(50) != 7
    dense = stats.multivariate_normal(np.zeros(49), np.diag(variance[keep]) + factors[:, keep].T @ factors[:, keep])
    value, slope = value_and_slope(as32(residual), as32(np.where(keep, variance, np.inf)), as32(factors))
    assert float(value) == pytest.approx(dense.logpdf(residual[keep]), abs=1e-3)
    np.testing.assert_allclose(slope[keep], -np.linalg.solve(dense.cov, residual[keep]), rtol=2e-3, atol=2e-3)
    assert float(slope[7]) == 0.0
    # Factors of zero leave the product of the pixels' Gaussians.
    alone, _ = value_and_slope(as32(residual), as32(variance), jnp.zeros((3, 50)))
    assert float(alone) == pytest.approx(stats.norm.logpdf(residual, scale=np.sqrt(variance)).sum(), rel=1e-4)


def test_files_come_back_and_foreign_ones_are_told(fitted, tmp_path):
    emulator = PixelPolynomial(SPACE, PixelGrid.from_wavelength(WAVELENGTH), "air", 1)
    save_emulator(emulator, tmp_path / "tiny")
    with pytest.raises(EmulatorError, match="has no uncertainty"):
        load_uncertainty(tmp_path / "tiny")
    save_uncertainty(fitted, tmp_path / "tiny", emulator=emulator, card={"title": "test"})
    again = load_uncertainty(tmp_path / "tiny", emulator=load_emulator(tmp_path / "tiny"))
    labels, flux = jnp.array([0.1, -0.2, 0.5]), jnp.full(600, 0.7)
    for one, other in zip(fitted.at(labels, WAVELENGTH, flux), again.at(labels, WAVELENGTH, flux)):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-7)  # float16 on disk
    assert again.degrees_of_freedom == fitted.degrees_of_freedom
    other = PixelPolynomial(SPACE, PixelGrid.from_wavelength(WAVELENGTH), "air", 2)
    with pytest.raises(EmulatorError, match="another emulator"):
        load_uncertainty(tmp_path / "tiny", emulator=other)
    weights = tmp_path / "tiny-uncertainty.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(EmulatorError, match="damaged"):
        load_uncertainty(tmp_path / "tiny")
    assert not any("uncertainty" in name for name in list_emulators())


def test_between_pixels_and_out_of_range(fitted):
    labels, flux = jnp.zeros(3), jnp.full(1, 0.7)
    middle, _ = fitted.at(labels, [5101.01], flux)
    left, right = (fitted.at(labels, [w], flux)[0] for w in (5101.0, 5101.02))
    assert float(middle[0]) == pytest.approx(0.5 * float(left[0] + right[0]), rel=1e-3)
    with pytest.raises(EmulatorError, match="covers 5100.000–5111.980"):
        fitted.at(labels, [5099.0], flux)


def test_few_spectra_and_wrong_input():
    labels, residuals, flux, _ = known(30, 2)
    few = fit_uncertainty(SPACE, labels, residuals, flux, WAVELENGTH)
    assert few.rank < 15 and all(np.isfinite(a).all() for a in few.at(np.zeros(3), WAVELENGTH, flux[0]))
    with pytest.raises(TrainingError, match="at least 8"):
        fit_uncertainty(SPACE, labels[:5], residuals[:5], flux[:5], WAVELENGTH)
    with pytest.raises(TrainingError, match="residuals and flux"):
        fit_uncertainty(SPACE, labels, residuals[:, 1:], flux, WAVELENGTH)
    residuals[:, 7] = 0.0  # a pixel without errors is no trouble
    assert np.isfinite(fit_uncertainty(SPACE, labels, residuals, flux, WAVELENGTH).diagonal).all()
    with pytest.raises(TrainingError, match="spectrum 2 are all zero"):
        fit_uncertainty(SPACE, labels, np.where(np.arange(30)[:, None] == 2, 0.0, residuals), flux, WAVELENGTH)
    residuals[3, 4] = np.nan
    with pytest.raises(TrainingError, match="residuals of spectrum 3"):
        fit_uncertainty(SPACE, labels, residuals, flux, WAVELENGTH)


def test_cross_validation_never_predicts_what_it_has_seen(tmp_path):
    labels = np.random.default_rng(0).uniform(SPACE.lower, SPACE.upper, (12, 3))
    flux = np.full((12, 600), 0.5, np.float32)
    flux[:, 0] = np.arange(12) / 16
    calls = []

    def fit(seen_labels, seen_flux):
        calls.append(set(seen_flux[:, 0].tolist()))
        return lambda asked, wavelength, extrapolate: np.full((len(asked), 600), len(calls), np.float32)

    path = tmp_path / "residuals.npz"
    found = cross_validated_flux(fit, labels, flux, WAVELENGTH, folds=3, path=path)
    assert all(float(f) not in calls[int(call) - 1] for f, call in zip(flux[:, 0], np.round(found[:, 5])))
    again = cross_validated_flux(fit, labels, flux, WAVELENGTH, folds=3, path=path)
    np.testing.assert_allclose(again, found)
    assert len(calls) == 3  # the second time, it is read from the file
    with pytest.raises(TrainingError, match="other spectra"):
        cross_validated_flux(fit, labels[::-1], flux, WAVELENGTH, folds=3, path=path)


# The recipe


def test_the_recipe_learns_from_cross_validated_residuals(tmp_path, monkeypatch, capsys):
    from test_baselines import SPACE as SMALL
    from test_baselines import WAVELENGTH as PIXELS
    from test_baselines import spectra

    from emuinfer.emulators.training import fit_logit_gp, fit_polynomial
    from emuinfer.grids import Grid
    from emuinfer.labels import WINDOWS, Window
    from emuinfer.recipes import emulator_uncertainty

    monkeypatch.setitem(WINDOWS, "small", Window("small", (PIXELS[0], PIXELS[-1]), "air", SMALL, step=0.04))
    (labels, flux), simple = spectra(90), spectra(60, seed=4)
    np.savez(tmp_path / "real.npz", wavelength=PIXELS, flux=flux, labels=labels, label_names=list(SMALL.names))
    Grid(simple[0], PIXELS, simple[1], label_space=SMALL, medium="air").save(tmp_path / "simple.h5")
    pixels = {"wavelength": PIXELS, "medium": "air"}
    teacher = fit_logit_gp(SMALL, labels[:50], flux[:50], simple=simple, components=6, iterations=3, **pixels)
    save_emulator(teacher, tmp_path / "teacher")
    save_emulator(fit_polynomial(SMALL, labels[:50], flux[:50], saturating=True, **pixels), tmp_path / "student")
    call = [str(tmp_path / "student"), "--simple", tmp_path / "simple.h5", "--realistic", tmp_path / "real.npz"]
    call += ["--residuals", tmp_path / "cv.npz", "--rank", 2, "--folds", 2, "--simple-spectra", 30, "--window", "small"]
    emulator_uncertainty.main([*map(str, call), "--teacher", str(tmp_path / "teacher")])
    learned = load_uncertainty(tmp_path / "student")
    assert learned.rank == 2 and learned.label_space == SMALL
    printed = capsys.readouterr().out
    assert "fold 2 of 2" in printed and '"0.68"' in printed
    with np.load(tmp_path / "cv.npz") as kept:
        assert kept["residuals"].shape == (81, len(PIXELS)) and kept["done"] == 2
    # With the residuals at hand it goes on at once, here for an emulator without a teacher.
    emulator_uncertainty.main([*map(str, call)])
    assert "fold" not in capsys.readouterr().out
    departure = emulator_uncertainty.departure(teacher, load_emulator(tmp_path / "student"), labels[:20], PIXELS)
    assert departure.shape == (20, len(PIXELS)) and 0 < np.abs(departure).mean() < 0.1
