"""Forecasts against formulas, dense matrices, finite differences and the bounds of a model of an observation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from tiny import TRUTH

from emuinfer import cramer_rao
from emuinfer.emulators import EmulatorUncertainty
from emuinfer.errors import EmuinferError, LabelError
from emuinfer.forecast import Arm, Bounds, Exposure, Forecast, Instrument, instrument_model
from emuinfer.forecast.derivatives import pixel_flux
from emuinfer.forecast.emulator_floor import emulator_covariance, grid_response
from emuinfer.forecast.fisher import unwhiten_transposed, whiten
from emuinfer.forecast.maps import against_snr, best_window, bounds_map, snr_needed
from emuinfer.labels.features import label_terms
from emuinfer.wavelengths.pixels import PixelGrid

INSTRUMENT = Instrument.single(6181.0, 6193.0, 20_000.0)


@pytest.fixture(scope="module")
def forecast(tiny_emulator):
    return Forecast(tiny_emulator, TRUTH, Exposure(INSTRUMENT, 100.0))


@pytest.fixture(scope="module")
def bounds(forecast):
    return forecast.bounds(emulator_error=None)


def test_information_is_sound(forecast, bounds):
    fisher = forecast.fisher()
    assert np.isfinite(fisher).all() and (np.diag(fisher) > 0).all() and np.allclose(fisher, fisher.T)
    scale = np.sqrt(np.diag(fisher))
    assert np.linalg.eigvalsh(fisher / np.outer(scale, scale)).min() > 0
    assert all(bounds.marginal[n] >= bounds.conditional[n] > 0 for n in bounds.names)
    assert bounds.floor is None and bounds.limited is None


def test_forward_derivatives_agree_with_differences_to_a_thousandth(forecast):
    """Fourth-order symmetric differences of the emulator through the whole chain."""
    s = forecast.spectra[0]
    flux = lambda **new: np.asarray(
        pixel_flux(
            forecast._flux_of,
            s.operator,
            {k: jnp.float32(v) for k, v in {**forecast.values, **new}.items()},
            forecast.space,
        ),
        float,
    )
    for name, step in {"teff": 60.0, "fe_h": 0.08, "mg_fe": 0.08, "rv": 0.5, "vbroad": 0.5}.items():
        at = [flux(**{name: forecast.values[name] + k * step}) for k in (-2, -1, 1, 2)]
        numeric = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)
        own = s.jacobian[forecast.shared.index(name)]
        assert np.abs(own - numeric).max() < 1e-3 * np.abs(numeric).max(), name


def test_agrees_with_the_bounds_of_an_observation(tiny_emulator, forecast, bounds):
    model = instrument_model(
        tiny_emulator,
        wavelength_range=(6181.0, 6193.0),
        resolution=20_000.0,
        snr=100.0,
        labels=TRUTH,
        progress=False,
        priors={"log10_jitter": -7.0},
    )
    # The model leaves out pixels within 65 km/s of the grid's ends, and has a wide prior for the broadening.
    lo, hi = model.wavelength[[0, -1]]
    exposure = Exposure(Instrument.single(lo, hi * (1 + 1e-9), 20_000.0), 100.0)
    own = Forecast(tiny_emulator, TRUTH, exposure, priors={"vbroad": dist.HalfNormal(10.0)}).bounds(emulator_error=None)
    other = cramer_rao(model, TRUTH, rv=0.0)
    for name in ("teff", "fe_h", "mg_fe", "rv", "vbroad"):
        assert own.marginal[name] == pytest.approx(other.marginal[name], rel=5e-3), name


def test_signal_to_noise_is_per_what_is_said(tiny_emulator, bounds):
    arm = INSTRUMENT.arms[0]
    elements = cramer_rao(
        tiny_emulator, TRUTH, INSTRUMENT, 100 * np.sqrt(3.0), snr_per="resolution_element", emulator_error=None
    )
    step = 6187.0 * arm.pixel_step  # Å, of a pixel in the middle
    angstrom = cramer_rao(
        tiny_emulator, TRUTH, INSTRUMENT, 100 / np.sqrt(step), snr_per="angstrom", emulator_error=None
    )
    curve = cramer_rao(tiny_emulator, TRUTH, INSTRUMENT, ([6000.0, 7000.0], [100.0, 100.0]), emulator_error=None)
    called = cramer_rao(tiny_emulator, TRUTH, INSTRUMENT, lambda w: 100.0 + 0 * w, emulator_error=None)
    assert elements.marginal["teff"] == pytest.approx(bounds.marginal["teff"], rel=1e-6)
    assert angstrom.marginal["teff"] == pytest.approx(bounds.marginal["teff"], rel=1e-3)
    assert curve.marginal == called.marginal == pytest.approx(bounds.marginal)


def test_exposures_add_up(tiny_emulator, forecast, bounds):
    """Four equal exposures halve the bounds; arms of one range and apart hold the information of both."""
    four = Forecast(tiny_emulator, TRUTH, Exposure(INSTRUMENT, 100.0, count=4, continuum_terms=0)).bounds(
        emulator_error=None
    )
    one = Forecast(tiny_emulator, TRUTH, Exposure(INSTRUMENT, 100.0, continuum_terms=0)).bounds(emulator_error=None)
    assert four.marginal["mg_fe"] == pytest.approx(0.5 * one.marginal["mg_fe"], rel=1e-6)
    parts = [
        Exposure(Instrument.single(a, b, 20_000.0), 100.0, continuum_terms=2) for a, b in ((6181, 6187), (6187.1, 6193))
    ]
    joint = Forecast(tiny_emulator, TRUTH, parts)
    single = [Forecast(tiny_emulator, TRUTH, p) for p in parts]
    n, names = len(joint.shared), joint.names
    assert names[n:] == ("continuum[0:0]", "continuum[0:1]", "continuum[1:0]", "continuum[1:1]")
    np.testing.assert_allclose(joint.fisher()[:n, :n], sum(f.fisher()[:n, :n] for f in single), rtol=1e-3)
    # With the continua projected out of each, what remains adds up too.
    shared = [np.linalg.inv(np.linalg.inv(f.fisher())[:n, :n]) for f in single]
    np.testing.assert_allclose(
        np.diag(np.linalg.inv(sum(shared))), np.diag(joint.bounds(emulator_error=None).covariance)[:n], rtol=1e-2
    )


def test_masked_pixels_tell_nothing(tiny_emulator, forecast, bounds):
    mask = ((6184.0, 6186.0),)
    masked = Forecast(tiny_emulator, TRUTH, Exposure(INSTRUMENT, 100.0, mask=mask))
    wavelength = masked.spectra[0].wavelength
    assert not ((wavelength >= 6184) & (wavelength <= 6186)).any() and masked.n_pix < forecast.n_pix
    assert all(masked.bounds(emulator_error=None).marginal[n] > bounds.marginal[n] for n in masked.shared)


def test_correlated_noise_against_a_dense_covariance():
    """Whitening in two diagonals is the dense inverse of exp(−distance / length), also over gaps."""
    rng = np.random.default_rng(0)
    position = np.sort(rng.choice(60, 30, replace=False)).astype(float)
    sigma, rows = rng.uniform(0.5, 2, 30), rng.standard_normal((3, 30))
    covariance = np.exp(-np.abs(position[:, None] - position) / 2.5) * np.outer(sigma, sigma)
    rho = np.exp(-np.diff(position) / 2.5)
    white = whiten(rows, sigma, rho)
    np.testing.assert_allclose(white @ white.T, rows @ np.linalg.solve(covariance, rows.T), rtol=1e-9)
    np.testing.assert_allclose(unwhiten_transposed(white, sigma, rho), np.linalg.solve(covariance, rows.T).T, rtol=1e-8)


def test_correlated_pixels_cost_information(tiny_emulator, bounds):
    correlated = Exposure(INSTRUMENT, 100.0, correlation_pixels=0.8)
    assert (
        Forecast(tiny_emulator, TRUTH, correlated).bounds(emulator_error=None).marginal["fe_h"]
        > 1.2 * bounds.marginal["fe_h"]
    )


def test_priors_and_fixed_labels(tiny_emulator, bounds):
    sharp = bounds.marginal["teff"] / 3
    prior = cramer_rao(
        tiny_emulator, TRUTH, INSTRUMENT, 100.0, priors={"teff": dist.Normal(5600.0, sharp)}, emulator_error=None
    )
    i = bounds.names.index("teff")
    assert prior.fisher[i, i] - bounds.fisher[i, i] == pytest.approx(sharp**-2, rel=1e-3)
    known = cramer_rao(tiny_emulator, TRUTH, INSTRUMENT, 100.0, priors={"teff": 5600.0, "rv": 0.0}, emulator_error=None)
    assert "teff" not in known.names and "rv" not in known.names and known.labels["teff"] == 5600.0
    assert known.marginal["fe_h"] < prior.marginal["fe_h"] < bounds.marginal["fe_h"]


def test_information_spectra_sum_to_the_bounds(forecast, bounds):
    for name in ("teff", "mg_fe"):
        assert forecast.information(name)[0].sum() == pytest.approx(bounds.marginal[name] ** -2, rel=1e-5)
        assert forecast.information(name, marginal=False)[0].sum() == pytest.approx(
            bounds.conditional[name] ** -2, rel=1e-9
        )


# The emulator's own error


def uncertainty_of(emulator, size=0.02, rho=(1.0,)):
    """Errors of x with standard deviation `size` everywhere, correlated by `rho` over the stored pixels, no factors."""
    grid = PixelGrid.from_wavelength(np.linspace(*emulator.wavelength_range, 800))
    zeros = jnp.zeros(label_terms(emulator.label_space, np.zeros(len(emulator.label_space), np.float32), np).shape[-1])
    return EmulatorUncertainty(
        zeros,
        zeros,
        zeros,
        jnp.full(grid.n, size),
        jnp.zeros((1, grid.n)),
        jnp.asarray(rho, jnp.float32),
        emulator.label_space,
        grid,
        "air",
        0.003,
        5.0,
        5.0,
    )


@pytest.fixture(scope="module")
def uncertainty(tiny_emulator):
    return uncertainty_of(tiny_emulator, rho=np.exp(-np.arange(12) / 2.0))


def test_labels_move_as_predicted_by_the_grid_response(tiny_emulator, forecast, bounds):
    """A known small error of the emulator shifts a least-squares fit as its response says (here: by a linear fit)."""
    response = grid_response(forecast, bounds.covariance)
    error = 1e-3 * np.exp(-0.5 * ((forecast.grid - 6187.0) / 0.3) ** 2)
    s = forecast.spectra[0]
    seen = np.asarray(s.operator(jnp.asarray(1.0 - error, jnp.float32), 0.0, 3.0), float) - 1.0
    shared, terms = s.whitened()
    rows = np.concatenate([shared, terms])
    expected = bounds.covariance @ (rows @ whiten(-seen[None], s.sigma)[0])
    shift = response @ error
    np.testing.assert_allclose(shift, expected, atol=1e-3 * np.abs(expected).max())


def test_floor_against_drawn_errors(forecast, bounds, uncertainty):
    """The covariance of shifts agrees with that of errors drawn from the uncertainty."""
    covariance = emulator_covariance(forecast, uncertainty, bounds.covariance)
    response = grid_response(forecast, bounds.covariance)
    scaled = np.asarray(forecast.space.scale(np.array([TRUTH[n] for n in forecast.space.names])), np.float32)
    flux = np.asarray(forecast._flux_of(jnp.asarray(scaled)))
    sd = np.asarray(uncertainty.at(scaled, forecast.grid.clip(*uncertainty.grid.range), flux)[0], float)
    lag = np.abs(forecast.grid[:, None] - forecast.grid)
    rho = np.interp(lag, uncertainty.grid.step * np.arange(12), np.exp(-np.arange(12) / 2.0), right=0.0)
    dense = (response * sd) @ rho @ (response * sd).T
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), np.sqrt(np.diag(dense)), rtol=0.02)


def test_floor_does_not_fall_with_photons(forecast, uncertainty):
    faint, bright = (forecast.bounds(f, emulator_error=uncertainty) for f in (1.0, 100.0))
    assert bright.floor["fe_h"] == pytest.approx(faint.floor["fe_h"], rel=0.02)
    assert bright.marginal["fe_h"] < 0.02 * faint.marginal["fe_h"]
    assert bright.limited["fe_h"] == pytest.approx(np.hypot(bright.floor["fe_h"], bright.marginal["fe_h"]))
    assert bright.table().colnames[-2:] == ["emulator", "limited"]
    assert snr_needed(forecast, "fe_h", 0.5 * bright.floor["fe_h"], emulator_error=uncertainty) == np.inf


# Maps and scans


def test_map_agrees_with_single_stars(tiny_emulator, forecast, bounds):
    space = tiny_emulator.label_space
    labels = np.array([space.to_array(TRUTH), [5000.0, -0.8, 0.3], [6000.0, 0.1, 0.0]])
    found = bounds_map(tiny_emulator, labels, Exposure(INSTRUMENT, 100.0), batch=2)
    for i, row in enumerate(labels):
        one = Forecast(tiny_emulator, row, Exposure(INSTRUMENT, 100.0)).bounds(emulator_error=None)
        np.testing.assert_allclose(found.marginal[i], [one.marginal[n] for n in found.names], rtol=3e-3)
        np.testing.assert_allclose(found.conditional[i], [one.conditional[n] for n in found.names], rtol=1e-3)
    assert found.of("mg_fe").shape == (3,)


def test_scans(forecast, bounds):
    curves = against_snr(forecast, [1.0, 2.0])
    assert curves["mg_fe"][0] / curves["mg_fe"][1] == pytest.approx(2, rel=0.01)
    factor = snr_needed(forecast, "mg_fe", 0.1)
    assert forecast.bounds(factor, emulator_error=None).marginal["mg_fe"] == pytest.approx(0.1, rel=1e-3)
    windows = best_window(forecast, "mg_fe", 6.0, n=7)
    assert windows.best[1] - windows.best[0] == pytest.approx(6.0)
    assert np.nanmin(windows.bound) > bounds.marginal["mg_fe"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snr": 0}, "snr = 0 must be a positive number"),
        ({"snr": -3.0}, "snr = -3.0 must be"),
        ({"snr": np.nan}, "snr = nan must be"),
        ({"snr": lambda w: w - 6187.0}, "must be a positive number everywhere"),
        ({"snr": ([6190.0, 6200.0], [10.0, 10.0])}, "The S/N curve covers 6190.0–6200.0"),
        ({"snr_per": "beer"}, "per pixel, resolution_element, angstrom; got 'beer'"),
        ({"instrument": "ESPRESO"}, "Did you mean 'ESPRESSO'"),
        ({"instrument": "APOGEE"}, "nothing in common"),
        ({"instrument": None}, "needs an instrument"),
        ({"snr": None}, "needs a signal-to-noise ratio"),
        ({"mask": ((6000, 7000),)}, "No pixel is left"),
        ({"vbroad": 0.0}, "no information on vbroad"),
        ({"broadening": "none", "priors": {"vbroad": 3.0}}, "Unknown label 'vbroad'"),
        ({"labels": {**TRUTH, "zr_fe": 0.0}}, "Unknown label 'zr_fe'"),
        ({"labels": {**TRUTH, "teff": 9000.0}}, "teff = 9000 is outside the domain"),
    ],
)
def test_bad_input_gets_a_clear_answer(tiny_emulator, options, words):
    arguments = {"labels": TRUTH, "instrument": INSTRUMENT, "snr": 100.0, "emulator_error": None, **options}
    with pytest.raises((EmuinferError, LabelError), match=words):
        cramer_rao(tiny_emulator, **arguments)


def test_combination():
    covariance = np.array([[4.0, 1.0], [1.0, 9.0]])
    both = Bounds(("fe_h", "mg_fe"), {}, np.linalg.inv(covariance), covariance, {})
    assert both.combination({"fe_h": 1, "mg_fe": 1}) == pytest.approx(np.sqrt(15))
    with pytest.raises(EmuinferError, match="No free parameter is called ni_fe"):
        both.combination({"ni_fe": 1})


def test_several_arms_in_a_map(tiny_emulator):
    instrument = Instrument("two", (Arm(6181, 6187, 20_000.0), Arm(6187.1, 6193, 15_000.0)))
    exposure = Exposure(instrument, 80.0, correlation_pixels=0.5, continuum_terms=2)
    one = Forecast(tiny_emulator, TRUTH, exposure).bounds(emulator_error=None)
    many = bounds_map(tiny_emulator, tiny_emulator.label_space.to_array(TRUTH), exposure)
    np.testing.assert_allclose(many.marginal[0], [one.marginal[n] for n in many.names], rtol=3e-3)
    assert jax.config.jax_enable_x64 is False


def test_old_names_of_arguments(tiny_emulator, forecast, uncertainty):
    with pytest.warns(DeprecationWarning, match="uncertainty= of forecast_bounds is now emulator_error="):
        cramer_rao(tiny_emulator, TRUTH, INSTRUMENT, 100.0, uncertainty=None)
    with pytest.warns(DeprecationWarning, match="uncertainty= of Forecast.bounds"):
        old = forecast.bounds(uncertainty=uncertainty)
    assert old.floor == forecast.bounds(emulator_error=uncertainty).floor
    with pytest.warns(DeprecationWarning, match="emulator_error=False is now emulator_error=None"):
        assert forecast.bounds(emulator_error=False).floor is None
    with pytest.warns(DeprecationWarning, match="emulator_error=True is now emulator_error=.shipped."):
        assert "is not known" in forecast.bounds(emulator_error=True).notes[-1]
    with pytest.raises(EmuinferError, match="must be 'shipped', None or an EmulatorUncertainty"):
        forecast.bounds(emulator_error="own")
