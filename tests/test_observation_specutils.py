"""`specutils.Spectrum` in and out, and the files of a fit that specutils and jdaviz open."""

import astropy.units as u
import numpy as np
import pytest
from specutils import Spectrum

from emuinfer.errors import EmuinferError
from emuinfer.observations import Observation
from emuinfer.observations.fitted import fitted_spectra, write_spectrum
from emuinfer.posteriors import build_posterior

N = 300
WAVE = 5100 + 0.1 * np.arange(N)
RNG = np.random.default_rng(0)
FLUX = 2 + 0.01 * RNG.standard_normal(N)


@pytest.mark.parametrize("resolution", [4e4, np.linspace(3e4, 5e4, N)], ids=["one", "each"])
def test_round_trip(resolution, tmp_path):
    mask = np.arange(N) % 50 == 7
    meta = {"frame": "heliocentric", "credit": "ESO"}
    obs = Observation(WAVE, FLUX, 0.01, mask=mask, resolution=resolution, medium="air", name="HD 1", meta=meta)
    spectrum = obs.to_spectrum()
    assert spectrum.spectral_axis.unit == u.AA and list(spectrum.mask) == list(mask)
    assert spectrum.uncertainty.uncertainty_type == "std" and spectrum.meta["header"]["SPECSYS"] == "HELIOCEN"
    back = Observation.from_spectrum(spectrum)
    assert back.hash == obs.hash and back.name == obs.name
    assert back.meta["frame"] == "heliocentric" and back.meta["credit"] == "ESO"
    write_spectrum(spectrum[5:250], tmp_path / "cut.fits")  # specutils' own operations and files
    read = Observation.read(tmp_path / "cut.fits", resolution=4e4)
    assert read.medium == "air" and read.meta["frame"] == "heliocentric" and len(read) == 245
    np.testing.assert_array_equal(read.good, obs.good[5:250])


def test_units_of_flux_are_kept():
    unit = u.Unit("1e-17 erg / (Angstrom cm2 s)")
    spectrum = Spectrum(spectral_axis=WAVE * u.AA, flux=FLUX * unit)
    obs = Observation.from_spectrum(spectrum, snr=100, medium="vacuum")
    assert obs.to_spectrum().flux.unit == unit and obs.to_spectrum().uncertainty.unit == unit
    assert Observation(WAVE, FLUX, 0.1, medium="air", meta={"flux_unit": "lamps"}).to_spectrum().flux.unit == ""


def posterior_of(arms):
    draws = 2.0 + 0.001 * RNG.standard_normal((2, 50, N))
    facts = {
        "wavelength": WAVE,
        "good": np.arange(N) > 3,
        "uncertainty": np.full(N, 0.01),
        "model_error": np.full(N, 0.02),
    }
    if arms > 1:
        facts["arm"] = np.repeat(np.arange(1, arms + 1), N // arms)
    return build_posterior(
        {"teff": np.zeros((2, 50))},
        None,
        observed_data={"flux": FLUX},
        posterior_predictive={"model_flux": draws},
        constant_data=facts,
        attrs={
            "observation": "HD 1",
            "medium": ", ".join(["air", "vacuum"][:arms]),
            "frame": ", ".join(["rest"] * arms),
        },
    )


def test_spectra_of_a_fit(tmp_path):
    spectra = fitted_spectra(posterior_of(1))
    np.testing.assert_allclose((spectra["model"] + spectra["residual"]).flux.value, FLUX)
    assert spectra["model"].uncertainty.array.mean() == pytest.approx(0.001, rel=0.1)
    np.testing.assert_allclose(spectra["residual"].uncertainty.array, np.hypot(0.01, 0.02))
    write_spectrum(spectra["residual"], tmp_path / "residual.fits")
    read = Spectrum.read(tmp_path / "residual.fits")
    assert read.flux.unit == u.ct and read.mask[:4].all() and not read.mask[4:].any()
    assert read.meta["header"]["SPECSYS"] == "SOURCE" and read.meta["header"]["OBJECT"] == "HD 1"
    np.testing.assert_allclose(read.flux.value, spectra["residual"].flux.value)


def test_spectra_of_a_joint_fit():
    posterior = posterior_of(2)
    second = fitted_spectra(posterior, 2)["data"]
    np.testing.assert_allclose(second.flux.value, FLUX[N // 2 :])
    assert second.meta["header"]["MEDIUM"] == "vacuum"
    with pytest.raises(EmuinferError, match="2 spectra: give arm= a number from 1 to 2; got None"):
        fitted_spectra(posterior)
    with pytest.raises(EmuinferError, match="predictive=0"):
        one = build_posterior(
            {"x": np.zeros((2, 5))}, None, observed_data={"flux": FLUX}, constant_data={"wavelength": WAVE}
        )
        fitted_spectra(one)
