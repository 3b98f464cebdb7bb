"""Derivatives by lines against finite differences; the calibration against line lists whose errors are known."""

import dataclasses
import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import emuinfer as ei
from emuinfer.constants import LN_10
from emuinfer.errors import EmuinferError
from emuinfer.forward.operator import SpectrumOperator
from emuinfer.recipes import line_calibration as recipe
from emuinfer.recipes.line_factors import largest_of, line_factor_table
from emuinfer.recipes.line_stars import CalibrationStar, Equations, with_changed_lines
from emuinfer.synthesis import LTESynthesizer
from emuinfer.synthesis.derivatives import line_derivatives
from emuinfer.synthesis.lines import load_line_list
from emuinfer.wavelengths.uniform import log_grid

WAVELENGTH = log_grid(5176.0, 5190.0, 1.5)  # with one of the Mg b lines
SUN = {"teff": 5772.0, "logg": 4.44, "fe_h": 0.0, "vmic": 1.0}
F_DWARF = {"teff": 6500.0, "logg": 4.1, "fe_h": -0.2, "vmic": 1.6}


@pytest.fixture(scope="module")
def lines():
    every = load_line_list()
    return every[recipe.within(WAVELENGTH, every)]


@pytest.fixture(scope="module")
def synthesizer(lines):
    return LTESynthesizer(wavelength=WAVELENGTH, line_list=lines, n_depth=32)


def complete(synthesizer, labels):
    return {name: labels.get(name, 0.0) for name in synthesizer.labels.names}


@eqx.filter_jit
def flux_of(synthesizer, labels):
    return synthesizer(labels)[0]


@pytest.fixture(scope="module")
def derivatives(synthesizer):
    return line_derivatives(synthesizer, complete(synthesizer, SUN))


def test_derivatives_are_finite_differences(synthesizer, lines, derivatives):
    labels = jnp.asarray(synthesizer.labels.to_array(complete(synthesizer, SUN)), jnp.float32)
    np.testing.assert_allclose(derivatives.flux, flux_of(synthesizer, labels), atol=2e-6)
    strongest = np.argsort(-largest_of(derivatives.strength))[[0, 3, 30, 100]]
    step = 0.01
    for matrix, which in ((derivatives.strength, 0), (derivatives.damping, 1)):
        for i in strongest:
            change = np.zeros((2, len(lines)))
            change[which, i] = step / LN_10
            up, down = (np.asarray(flux_of(with_changed_lines(synthesizer, *(s * change)), labels)) for s in (1, -1))
            np.testing.assert_allclose(matrix[[i]].toarray()[0], (up - down) / (2 * step), atol=2e-4)
    assert largest_of(derivatives.strength).max() > 0.15


def test_components_of_one_transition_share_a_parameter():
    """Four components of a cobalt line, a cobalt line from another level, and two iron lines from one level."""
    one = load_line_list()[:7]
    made = dataclasses.replace(
        one,
        wavelength=np.array([5200.0, 5200.03, 5200.1, 5200.12, 5200.15, 5200.2, 5200.25]),
        element=np.array([27, 27, 27, 26, 27, 27, 26], np.uint8),
        ion=np.ones(7, np.uint8),
        isotope=np.zeros(7, np.uint8),
        e_low=np.array([3.0, 3.0, 3.0, 2.0, 3.5, 3.0, 2.0], np.float32),
    )
    assert recipe.tie_hyperfine(made).tolist() == [0, 0, 0, 1, 2, 0, 3]
    lines = load_line_list()
    group = recipe.tie_hyperfine(lines)
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        assert len(members) == 1 or (
            np.ptp(lines.e_low[members]) < 0.01 and len(np.unique(lines.element[members])) == 1
        )
    assert len(lines) - 500 < len(np.unique(group)) < len(lines) - 100


def mock_star(name, synthesizer, truth, labels, snr, rv, seed):
    """A star whose lines have the changes `truth`, with noise."""
    pixels = log_grid(5178.0, 5188.0, 1.8)
    flux = flux_of(
        with_changed_lines(synthesizer, *truth), jnp.asarray(synthesizer.labels.to_array(labels), jnp.float32)
    )
    operator = SpectrumOperator(WAVELENGTH, pixels, 90_000, rv_range=(-20, 20), medium="air")
    seen = np.asarray(operator(flux, rv, 2.5), float) * (1.0 + 0.01 * np.linspace(-1, 1, len(pixels)))
    noisy = seen + np.random.default_rng(seed).normal(0, 1 / snr, len(pixels))
    observation = ei.Observation(pixels, noisy, np.full(len(pixels), 1 / snr), resolution=90_000, medium="air")
    priors = {n: (v, 0.0 if n in ("teff", "logg", "fe_h") else 0.02) for n, v in labels.items()}
    return CalibrationStar(name, observation, priors, synthesizer, WAVELENGTH)


@pytest.fixture(scope="module")
def calibrated(synthesizer, lines):
    """Two stars of one changed line list, and the truth."""
    group = recipe.tie_hyperfine(lines)
    rng = np.random.default_rng(1)
    truth = 0.12 * rng.standard_t(4, group.max() + 1)[group], np.zeros(len(lines))
    labels = [complete(synthesizer, SUN), complete(synthesizer, F_DWARF)]
    stars = [mock_star(str(i), synthesizer, truth, x, 300, 3.0 - 5 * i, i) for i, x in enumerate(labels)]
    return recipe.calibrate(stars, lines, iterations=6), truth


@pytest.mark.slow
def test_changes_are_found_within_their_errors(calibrated):
    found, truth = calibrated
    p, n = found.parameters, len(found.parameters.strong)
    first = np.unique(p.group, return_index=True)[1]
    want = truth[0][first[p.strong]]
    error = np.sqrt(np.diag(found.covariance))[:n]
    known = error < 0.08
    assert known.sum() > 10
    pull = (found.values[:n] - want)[known] / np.hypot(error[known], recipe.STAR_TO_STAR / np.sqrt(2))
    assert 0.3 < np.sqrt(np.mean(pull**2)) < 1.5 and np.abs(np.median(pull)) < 0.5
    assert np.corrcoef(found.values[:n][known], want[known])[0, 1] > 0.9
    assert all(star["median_residual"] < 0.004 for star in found.stars.values())


@pytest.mark.slow
def test_what_is_written_says_which_stars_decided(calibrated, tmp_path, lines):
    found, _ = calibrated
    found.save(tmp_path / "lines.npz")
    with np.load(tmp_path / "lines.npz") as file:
        meta = json.loads(str(file["meta"]))
        assert meta["used"] == ["0", "1"] and file["log_gf_change"].shape == (len(lines),)
        total, error = file["share"].astype(float).sum(0), file["log_gf_error"]
        measured = (error > 0) & (error < 0.09)
        assert measured.sum() > 10
        np.testing.assert_allclose(total[measured], 1.0, atol=2e-3)
        assert (total[error == 0] == 0).all()


def test_stars_scatter_about_common_changes():
    """Two stars that disagree by far more than their errors: the error of the mean is that of the scatter."""

    class One:
        kind, species = np.array(["strength"]), np.array([261])

        def __len__(self):
            return 1

    prior = recipe.Prior(One(), np.zeros(1), np.ones(1), np.full(1, 1e-6))
    stars = [Equations(np.full((1, 1), 1e8), np.full(1, 1e8 * x), {}) for x in (0.1, 0.2)]
    value, covariance, information = recipe.solve(stars, [0.0, 0.0], prior)
    np.testing.assert_allclose([value[0], covariance[0, 0] ** 0.5], [0.15, recipe.STAR_TO_STAR / 2**0.5], rtol=1e-3)
    far = recipe.solve(stars, [0.0, 2.5], prior)
    assert far[0][0] < 0.12 and far[2][1] < 0.2 * far[2][0] and np.allclose(information[0], information[1])


@pytest.fixture(scope="module")
def factors(calibrated, synthesizer):
    found, _ = calibrated
    return line_factor_table(found, found.apply(synthesizer), WAVELENGTH, "air", [0.0, -0.2], {"used": found.used})


@pytest.mark.slow
def test_a_factor_is_what_one_line_does(calibrated, synthesizer, lines, factors):
    """At an atmosphere of the table, a factor is the finite difference of the flux by its line's strength."""
    found, _ = calibrated
    row = 12  # 5770 K, 4.3, solar
    labels = dict(zip(("teff", "logg", "fe_h"), factors.reference[row])) | {"vmic": 1.0}
    calibrated_lines = found.apply(synthesizer)
    at = jnp.asarray(synthesizer.labels.to_array(complete(synthesizer, labels)), jnp.float32)
    flux = np.asarray(flux_of(calibrated_lines, at), float)
    error, rows = factors.on(WAVELENGTH).at(jnp.asarray(factors.reference[row], jnp.float32), jnp.asarray(1 - flux))
    error, rows = np.asarray(error), np.asarray(rows)
    assert (factors.kind == 0).sum() >= 1 and rows.shape == (factors.on(WAVELENGTH).rank, len(WAVELENGTH))
    line = np.argmin(np.abs(lines.wavelength - 5183.604) + 10 * (lines.element != 12))  # Mg I
    largest = np.argmax(np.abs(rows[: len(factors.sd)]).sum(1))
    sd = np.hypot(factors.sd[largest], factors.star_to_star)
    change = np.zeros(len(lines))
    change[line] = 0.02
    up, down = (
        np.asarray(flux_of(with_changed_lines(calibrated_lines, s * change, 0 * change), at), float) for s in (1, -1)
    )
    want = -(up - down) / 0.04 * sd
    inside = np.abs(want) > 0.2 * np.abs(want).max()
    np.testing.assert_allclose(rows[largest][inside], want[inside], rtol=0.12)
    assert np.isfinite(error).all() and 0.0005 < np.median(error) < 0.05


@pytest.mark.slow
def test_factors_far_from_the_calibrating_stars_are_larger(factors):
    on, depth = factors.on(WAVELENGTH), jnp.full(len(WAVELENGTH), 0.3, jnp.float32)
    far = on.at(jnp.asarray([5770.0, 4.3, -2.5], jnp.float32), depth)
    table = dataclasses.replace(factors, per_dex=0.0)
    same = table.on(WAVELENGTH).at(jnp.asarray([5770.0, 4.3, -2.5], jnp.float32), depth)
    assert (np.asarray(far[0]) > 1.5 * np.asarray(same[0])).mean() > 0.5


def test_a_table_of_stars_without_a_column_is_refused(tmp_path, synthesizer):
    (tmp_path / "stars.csv").write_text("name,file,teff,logg,vmic\nSun,sun.fits,5772,4.44,1\n")
    with pytest.raises(EmuinferError, match="no column 'fe_h'"):
        recipe.read_stars(tmp_path / "stars.csv", synthesizer, WAVELENGTH)
