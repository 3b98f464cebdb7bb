"""Observation: validation, masking, medium conversion, and what can be made of it."""

import astropy.units as u
import numpy as np
import pytest

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation, list_examples
from emuinfer.wavelengths.medium import convert_medium

WAVELENGTH = np.linspace(5100, 5300, 4001)


def flux_with_lines(n_lines=60, seed=0):
    rng = np.random.default_rng(seed)
    depth = sum(
        rng.uniform(0.1, 0.9) * np.exp(-0.5 * ((WAVELENGTH - c) / 0.08) ** 2) for c in rng.uniform(5101, 5299, n_lines)
    )
    return np.clip(1 - depth, 0.02, None)


def observe(flux=None, uncertainty=0.01, **kwargs):
    return Observation(
        WAVELENGTH, flux_with_lines() if flux is None else flux, uncertainty, **{"medium": "air", **kwargs}
    )


def test_attributes_units_and_immutability():
    obs = Observation(WAVELENGTH * 0.1 * u.nm, flux_with_lines() * u.adu, 0.01, medium="air", resolution=5e4, name="x")
    np.testing.assert_allclose(obs.wavelength, WAVELENGTH, rtol=1e-14)
    assert obs.good.all() and obs.medium == "air" and obs.resolution == 5e4 and len(obs) == 4001
    assert 70 < obs.snr <= 105
    assert "4001 pixels" in repr(obs) and "in air" in repr(obs)
    with pytest.raises(AttributeError):
        obs.medium = "vacuum"
    with pytest.raises(ValueError, match="read-only"):
        obs.flux[0] = 2.0


def test_descending_wavelengths_are_sorted_with_all_their_columns():
    resolution, mask = np.linspace(4e4, 5e4, 4001), np.arange(4001) == 7
    up = observe(uncertainty=np.linspace(0.01, 0.02, 4001), resolution=resolution, mask=mask)
    down = Observation(
        WAVELENGTH[::-1],
        up.flux[::-1],
        up.uncertainty[::-1],
        medium="air",
        resolution=resolution[::-1],
        mask=mask[::-1],
    )
    assert down.hash == up.hash
    np.testing.assert_array_equal(down.resolution, up.resolution)


def test_hash_sees_data_but_not_the_name():
    obs = observe()
    assert obs.hash == observe(name="other").hash and len(obs.hash) == 16
    assert (
        len({obs.hash, observe(medium="vacuum").hash, observe(uncertainty=0.02).hash, obs.with_noise(50, 0).hash}) == 4
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"medium": None}, ['medium="air"', "vacuum"]),
        ({"medium": "water"}, ["water", "'air', 'vacuum'"]),
        ({"uncertainty": None}, ["snr="]),
        ({"snr": 100}, ["Both"]),
        ({"uncertainty": 0.0}, ["zero"]),
        ({"uncertainty": np.full(4001, np.nan)}, ["not finite"]),
        ({"uncertainty": -0.01}, ["positive", "-0.01"]),
        ({"uncertainty": np.ones(5)}, ["(4001,)", "(5,)"]),
        ({"uncertainty": None, "snr": -3.0}, ["snr", "-3"]),
        ({"flux": np.ones((2, 4001))}, ["(4001,)"]),
        ({"flux": np.full(4001, np.nan)}, ["no usable pixel"]),
        ({"flux": np.zeros(4001)}, ["no usable pixel", "zero"]),
        ({"flux": -np.ones(4001)}, ["positive"]),
        ({"mask": np.ones(4001, bool)}, ["all 4001", "mask"]),
        ({"mask": np.zeros(3, bool)}, ["(3,)"]),
        ({"resolution": -5}, ["-5"]),
        ({"resolution": np.ones(7)}, ["(7,)"]),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(ObservationError) as error:
        observe(**change)
    for word in words:
        assert word in str(error.value)


def test_bad_wavelengths():
    flux = np.ones(6)
    for wavelength, words in [
        ([1.0, 2, 3, 3, 4, 5], "repeated"),
        ([1.0, 2, 3, 2.5, 4, 5], "Merge or cut"),
        ([1.0, 2, np.nan, 4, 5, 6], "finite"),
        ([-1.0, 2, 3, 4, 5, 6], "positive"),
        (np.ones((2, 3)), "one-dimensional"),
        (np.arange(1, 7) * u.kg, "not a length"),
    ]:
        with pytest.raises(ObservationError, match=words):
            Observation(wavelength, flux, 0.1, medium="air")


def test_dead_pixels_gaps_and_nan_are_masked_and_noted():
    flux, sigma = flux_with_lines(), np.full(4001, 0.01)
    flux[100:150] = 0
    flux[3000] = 0  # one zero is no gap
    flux[200] = np.nan
    sigma[300:303] = 0, np.inf, np.nan
    obs = observe(flux, sigma)
    bad = np.flatnonzero(~obs.good)
    np.testing.assert_array_equal(bad, [*range(100, 150), 200, 300, 301, 302])
    assert "3 pixels" in obs.notes[0] and "50 pixels" in obs.notes[1]


def test_cosmic_rays_go_and_lines_stay():
    flux = flux_with_lines()
    rng = np.random.default_rng(1)
    hits = rng.choice(np.arange(20, 3980, 20), 15, replace=False)
    spiked = flux.copy()
    spiked[hits] += rng.uniform(1.5, 20, 15)
    noise = rng.normal(0, 0.01, 4001)
    obs = observe(spiked + noise)
    assert not obs.good[hits].any() and (~obs.good).sum() <= 3 * 15
    assert "cosmic rays" in obs.notes[0]
    assert observe(flux + noise).good.all()
    assert observe(spiked + noise, clip=None).good.all()
    emission = 1 + 3 * np.exp(-0.5 * ((WAVELENGTH - 5200) / 0.5) ** 2)
    assert observe(emission).good.all()


def test_snr_gives_uncertainties_at_the_continuum():
    slope = np.linspace(1000, 2000, 4001)
    obs = observe(flux_with_lines() * slope, None, snr=50)
    np.testing.assert_allclose(obs.uncertainty, slope / 50, rtol=0.05)


@pytest.mark.comparison
def test_media_against_published_indices():
    # Morton (2000), NIST: air 5000.000 Å is vacuum 5001.394 Å; Na D2 5889.950 air, 5891.583 vacuum.
    np.testing.assert_allclose(convert_medium([5000.0, 5889.950], "air", "vacuum"), [5001.394, 5891.583], atol=2e-3)
    wavelength = np.geomspace(1000, 30000, 1000)
    there = convert_medium(wavelength, "vacuum", "air")
    np.testing.assert_allclose(convert_medium(there, "air", "vacuum"), wavelength, rtol=1e-13)
    assert (np.diff(there) > 0).all()
    obs = observe()
    np.testing.assert_array_equal(obs.wavelength_in("air"), obs.wavelength)
    np.testing.assert_allclose(obs.wavelength_in("vacuum") / obs.wavelength, 1.000279, atol=2e-6)
    with pytest.raises(ObservationError, match="'air', 'vacuum'"):
        obs.wavelength_in("glass")


def test_cut_and_rebin():
    obs = observe(resolution=np.linspace(4e4, 5e4, 4001))
    part = obs.cut(5150, 5160)
    assert part.wavelength[0] >= 5150 and part.wavelength[-1] <= 5160 and len(part) == len(part.resolution) == 201
    with pytest.raises(ObservationError, match="5100.00 to 5300.00"):
        obs.cut(6000, 6100)
    coarse = obs.rebin(4)
    assert len(coarse) == 1000
    np.testing.assert_allclose(coarse.uncertainty, 0.005)
    np.testing.assert_allclose(coarse.flux.mean(), obs.flux[:4000].mean())
    assert (coarse.resolution < obs.resolution[:4000].reshape(-1, 4).mean(axis=1)).all()
    with pytest.raises(ObservationError, match="rebin"):
        obs.rebin(0)


def test_added_noise_has_the_right_size_and_seed():
    obs = observe(np.ones(4001), 0.01)
    noisy = obs.with_noise(20, seed=3)
    assert abs((noisy.flux - obs.flux).std() / 0.05 - 1) < 0.05
    np.testing.assert_allclose(noisy.uncertainty, np.hypot(0.01, 0.05), rtol=1e-6)
    assert noisy.hash == obs.with_noise(20, seed=3).hash != obs.with_noise(20, seed=4).hash


def test_packaged_example():
    assert "hd41248" in list_examples()
    obs = Observation.example("hd41248")
    assert obs.medium == "air" and obs.resolution == 140_000 and obs.good.all()
    assert obs.wavelength[0] < 5096 and obs.wavelength[-1] > 5304 and 190 < obs.snr < 210
    assert obs.meta["prog_id"] == "0102.C-0757(A)" and obs.meta["license"] == "CC BY 4.0"
    with pytest.raises(ObservationError, match="The examples are: hd41248"):
        Observation.example("hd0")
