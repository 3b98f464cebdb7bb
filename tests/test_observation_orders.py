"""Orders of an echelle: choice, messages, merging without resampling, blaze."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits

from emuinfer import Observation
from emuinfer.errors import ObservationError
from emuinfer.observations.readers.choices import Choices
from emuinfer.observations.readers.orders import choose_order

ORDERS, PIXELS = 9, 1000


def star(wavelength):
    """A continuum with a narrow line every 2 Å and one broad one."""
    lines = 0.5 * np.exp(-0.5 * (((wavelength % 2) - 1) / 0.05) ** 2)
    return (1 - lines) * (1 - 0.6 * np.exp(-0.5 * ((wavelength - 5170) / 4) ** 2))


def echelle(seed=0, counts=1e4):
    """Wavelengths, fluxes, errors of photon noise and the blaze, `(ORDERS, PIXELS)`; orders 60 Å long, 45 Å apart."""
    x = np.linspace(-1, 1, PIXELS)
    wavelength = 5000 + 45 * np.arange(ORDERS)[:, None] + 30 * (x + 1) + 0.4 * x**2
    blaze = np.sinc(0.65 * x) ** 2 * np.ones((ORDERS, 1))
    expected = counts * blaze * star(wavelength)
    flux = np.random.default_rng(seed).poisson(expected).astype(float)
    return wavelength, flux, np.sqrt(np.maximum(flux, 1)), blaze


def test_without_a_choice_the_number_of_orders_is_named():
    wavelength, flux, error, _ = echelle()
    for order in (None, 9, "Mg", -1):
        with pytest.raises(ObservationError, match=r"holds 9 orders.*merge.*--order.*0: 5000 to 5060"):
            choose_order(wavelength, flux, error, None, Choices(order=order))
    many = [np.tile(x, (9, 1))[:79] for x in (wavelength, flux)]
    with pytest.raises(ObservationError, match="holds 79 orders"):
        choose_order(*many, None, None, Choices())


def test_each_order_is_a_spectrum(tmp_path):
    wavelength, flux, error, _ = echelle()
    flux[2] = np.nan  # an order without light
    wavelength[:, -3:] = flux[:, -3:] = 0  # filled up
    images = {"WAVE": wavelength, "FLUX": flux, "ERR": error}
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(data, name=name) for name, data in images.items())]
    fits.HDUList(hdus).writeto(tmp_path / "echelle.fits")
    orders = Observation.read_orders(tmp_path / "echelle.fits", medium="air", resolution=40_000)
    lit = [k for k in range(ORDERS) if k != 2]
    np.testing.assert_allclose([o.wavelength[0] for o in orders], wavelength[lit, 0])
    assert all(np.array_equal(o.flux, flux[k, :-3]) and o.good.all() for o, k in zip(orders, lit))
    fits.HDUList([hdus[0], *(fits.ImageHDU(d[0], name=n) for n, d in images.items())]).writeto(tmp_path / "one.fits")
    (one,) = Observation.read_orders(tmp_path / "one.fits", medium="air", resolution=40_000)
    assert len(one) == PIXELS - 3


def test_one_order_in_angstrom_without_pixels_that_have_no_wavelength():
    wavelength, flux, error, _ = echelle()
    wavelength[3, :5] = 0
    wavelength[3, -2:] = np.nan
    mask = np.arange(PIXELS) % 10 == 0
    got = choose_order(
        wavelength[:, ::-1] / 10 * u.nm,
        flux[:, ::-1],
        error[:, ::-1],
        np.tile(mask, (ORDERS, 1))[:, ::-1],
        Choices(order="3"),
    )
    np.testing.assert_allclose(got["wavelength"], wavelength[3, 5:-2])
    np.testing.assert_array_equal(got["flux"], flux[3, 5:-2])
    np.testing.assert_array_equal(got["mask"], mask[5:-2])
    single = choose_order(wavelength[:1], flux[:1], None, None, Choices())
    assert single["uncertainty"] is None and not single["notes"]


def test_merged_orders_are_pixels_of_the_orders_cut_where_the_blazes_cross():
    wavelength, flux, error, blaze = echelle()
    got = choose_order(wavelength[::-1], flux[::-1], error[::-1], None, Choices(order="merge"), blaze=blaze)
    assert (np.diff(got["wavelength"]) > 0).all() and "9 orders" in got["notes"][0]
    position = {w: i for i, w in enumerate(wavelength.ravel())}
    index = np.array([position[w] for w in got["wavelength"]])  # no pixel is new
    np.testing.assert_allclose(got["flux"], (flux / blaze).ravel()[index])
    np.testing.assert_allclose(got["uncertainty"], (error / blaze).ravel()[index])
    # The better of two orders is kept, but for noise where they are about equal.
    for k in range(ORDERS - 1):
        crossing = wavelength[k][np.flatnonzero(blaze[k] < np.interp(wavelength[k], wavelength[k + 1], blaze[k + 1]))]
        crossing = crossing[crossing > wavelength[k].mean()][0]
        cut = wavelength[k][index[index // PIXELS == k].max() % PIXELS]
        assert abs(cut - crossing) < 1.5
    residual = (got["flux"] / 1e4 - star(got["wavelength"])) / (got["uncertainty"] / 1e4)
    assert abs(residual.mean()) < 0.1 and 0.9 < residual.std() < 1.1


def test_a_blaze_that_is_not_given_is_estimated_only_where_there_is_one():
    wavelength, flux, error, blaze = echelle()
    got = choose_order(wavelength, flux, error, None, Choices(order="all"))
    assert "estimated" in got["notes"][1]
    ratio = got["flux"] / star(got["wavelength"])
    inner = (got["wavelength"] > 5020) & (got["wavelength"] < 5400)
    smooth = np.convolve(ratio[inner] / np.median(ratio), np.full(100, 0.01), "valid")
    assert smooth.min() > 0.93 and smooth.max() < 1.07  # the broad line stays, the blaze, down to 0.4 at the cuts, goes
    corrected = choose_order(wavelength, flux / blaze, error / blaze, None, Choices(order="all"))
    assert len(corrected["notes"]) == 1


def test_levels_of_neighbours_are_matched_only_where_they_differ():
    wavelength, flux, error, blaze = echelle()
    levels = (1 + 0.04 * (np.arange(ORDERS) % 2))[:, None]
    got = choose_order(wavelength, flux * levels, error * levels, None, Choices(order="merge"), blaze)
    assert any("scaled to agree" in note for note in got["notes"])
    ratio = np.convolve(got["flux"] / star(got["wavelength"]), np.full(50, 0.02), "valid")
    assert ratio.max() / ratio.min() < 1.025  # noise of 0.4 % in each overlap adds up
    assert len(choose_order(wavelength, flux, error, None, Choices(order="merge"), blaze)["notes"]) == 1


def test_slices_keep_all_their_light():
    wavelength, flux, error, blaze = echelle()
    second, noisy, sigma, _ = echelle(seed=1)
    for shift in (0.0, 1e-4):
        slices = [np.concatenate(pair) for pair in ((wavelength, second + shift), (flux, noisy), (error, sigma))]
        got = choose_order(*slices, None, Choices(order="merge"), np.concatenate([blaze, blaze]))
        assert (np.diff(got["wavelength"]) > 0).all() and "9 ranges" in got["notes"][1]
        one = choose_order(wavelength, flux, error, None, Choices(order="merge"), blaze)
        information = lambda x: np.sum((x["flux"] / x["uncertainty"]) ** 2)
        np.testing.assert_allclose(information(got) / information(one), 2.0, rtol=0.02)
        residual = (got["flux"] / 1e4 - star(got["wavelength"])) / (got["uncertainty"] / 1e4)
        assert abs(residual.mean()) < 0.1 and 0.9 < residual.std() < 1.1


def test_orders_that_do_not_overlap_and_orders_without_errors():
    wavelength, flux, _, blaze = echelle()
    apart = wavelength + 100 * np.arange(ORDERS)[:, None]
    assert len(choose_order(apart, flux, None, None, Choices(order="merge"))["wavelength"]) == ORDERS * PIXELS
    got = choose_order(wavelength[:2], flux[:2], None, None, Choices(order="merge"), blaze=blaze[:2])
    assert got["uncertainty"] is None and (np.diff(got["wavelength"]) > 0).all()
    step = np.flatnonzero(np.diff(got["wavelength"]) != np.diff(got["wavelength"])[0])
    assert len(step) and abs(np.searchsorted(got["wavelength"], 0.5 * (wavelength[1, 0] + wavelength[0, -1])) - 875) < 5
