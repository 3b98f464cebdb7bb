"""Products of observatories: two real files of ESO's archive, and files made to the published formats where none is at hand."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from products import FLUX, RNG, SIGMA, WAVE, N, one_row, write

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation
from emuinfer.observations.cross_correlation import cross_correlation_rv
from emuinfer.wavelengths.medium import convert_medium

# ESO


def velocity(path, **options):
    """Velocity of a spectrum against the packaged HD 41248 (+3.5 km/s, air, barycentric), plus that."""
    star = Observation.read(path, **options).cut(5110, 5290)
    template = Observation.example("hd41248")
    return cross_correlation_rv(star, template.wavelength_in(star.medium), template.flux) + 3.5


def test_real_phase_3_product_of_harps(shared_data):
    """Errors all NaN, S/N and resolving power in the header, and a UCD that says vacuum of wavelengths in air."""
    path = shared_data / "archives" / "eso_adp_harps.fits"
    obs = Observation.read(path)
    assert obs.name == "IC4651No9122" and obs.resolution == 115_000 and obs.meta["frame"] == "barycentric"
    assert 15 < obs.snr < 30 and "(SNR: 23.35)" in " ".join(obs.notes)
    for lo, hi in ((5400, 5410), (5900, 5910), (6700, 6705)):  # noise of second differences, where lines are few
        piece = obs.cut(lo, hi)
        noise = np.median(np.abs(2 * piece.flux[4:-4] - piece.flux[:-8] - piece.flux[8:])) / 0.6745 / np.sqrt(6)
        assert np.median(piece.uncertainty) == pytest.approx(noise, rel=0.3)
    # Gaia DR3 and the header's ESO TEL TARG RADVEL: -30.6 km/s. In vacuum it would be -114.
    assert obs.medium == "air" and velocity(path) == pytest.approx(-30.5, abs=0.5)


def test_real_s1d_of_harps(shared_data):
    """Nothing but an axis and a header: medium, frame, resolving power and S/N are the pipeline's."""
    path = shared_data / "archives" / "harps_s1d.fits"
    obs = Observation.read(path)
    assert obs.name == "Gl581" and obs.medium == "air" and obs.meta["frame"] == "barycentric"
    assert obs.resolution == 115_000 and "The Messenger 114, 20" in " ".join(obs.notes)
    assert velocity(path) == pytest.approx(-9.4, abs=1.0)  # Gl 581: -9.4 km/s (Nidever et al. 2002)
    blue, red = obs.cut(4000, 4100).snr, obs.cut(6500, 6600).snr
    assert red > 4 * blue  # an M dwarf


UTYPES = {
    "WAVE": "Spectrum.Data.SpectralAxis.Value",
    "FLUX": "Spectrum.Data.FluxAxis.Value",
    "ERR": "Spectrum.Data.FluxAxis.Accuracy.StatError",
    "QUAL": "Spectrum.Data.FluxAxis.Accuracy.QualityStatus",
}


@pytest.mark.parametrize(
    "instrument, ucd, unit, system, medium, frame",
    [
        ("UVES", "em.wl;obs.atmos", "Angstrom", "TOPOCENT", "air", "topocentric"),
        ("XSHOOTER", "em.wl;obs.atmos", "nm", "TOPOCENT", "air", "topocentric"),
        ("GIRAFFE", "em.wl", "nm", "HELIOCEN", "air", "heliocentric"),
        ("ESPRESSO", "em.wl", "Angstrom", "BARYCENT", "vacuum", "barycentric"),
    ],
)
def test_phase_3_of_other_instruments(tmp_path, instrument, ucd, unit, system, medium, frame):
    """Made to ESO's Science Data Product standard, with second columns of flux and error as X-shooter's have."""
    quality = np.zeros(N, int)
    quality[5] = 1
    wave = WAVE / 10 if unit == "nm" else WAVE
    columns = {
        "WAVE": wave,
        "FLUX": FLUX,
        "ERR": SIGMA,
        "QUAL": quality,
        "FLUX_REDUCED": FLUX * 3,
        "ERR_REDUCED": SIGMA * 3,
    }
    hdu = one_row(columns, {"WAVE": unit}, {"WAVE": ucd, "FLUX": "phot.flux.density"}, UTYPES)
    cards = {"INSTRUME": instrument, "SPECSYS": system, "SPEC_RES": 42310.0, "SNR": 50.0, "OBJECT": "HD 1"}
    path = write(tmp_path / "ADP.fits", hdu, **cards, **{"HIERARCH ESO QC VRAD BARYCOR": -12.345})
    obs = Observation.read(path)
    assert (obs.medium, obs.meta["frame"], obs.resolution, obs.name) == (medium, frame, 42310, "HD 1")
    np.testing.assert_allclose(obs.wavelength, WAVE)
    np.testing.assert_allclose(obs.flux, FLUX)
    np.testing.assert_allclose(obs.uncertainty, SIGMA)
    assert list(np.flatnonzero(~obs.good)) == [5]
    if frame == "topocentric":
        assert "add -12.345 km/s" in " ".join(obs.notes) and obs.meta["barycentric_correction"] == -12.345
    np.testing.assert_allclose(
        Observation.read(path, flux_column="FLUX_REDUCED").flux / Observation.read(path).uncertainty[0], FLUX * 3 / 2
    )


def test_phase_3_with_two_wavelength_columns(tmp_path):
    """ESPRESSO's products have vacuum and air wavelengths; either serves, and `medium` chooses."""
    columns = {"WAVE": WAVE, "WAVE_AIR": WAVE - 1.42, "FLUX": FLUX, "ERR": SIGMA}
    hdu = one_row(
        columns, {"WAVE": "Angstrom", "WAVE_AIR": "Angstrom"}, {"WAVE": "em.wl", "WAVE_AIR": "em.wl;obs.atmos"}
    )
    path = write(tmp_path / "ADP.fits", hdu, INSTRUME="ESPRESSO", SPECSYS="BARYCENT", SPEC_RES=140000.0)
    assert Observation.read(path).medium == "vacuum"
    obs = Observation.read(path, medium="air")
    np.testing.assert_allclose(obs.wavelength, WAVE - 1.42)
    with pytest.raises(ObservationError, match="no column 'WAVE_AI'. Did you mean"):
        Observation.read(path, wavelength_column="WAVE_AI")


# PypeIt


def test_pypeit_onespec(tmp_path):
    """Made to PypeIt's data model OneSpec: a mask of 1 is a good pixel, and wavelengths of 0 are none."""
    wave, mask = WAVE.copy(), np.ones(N, int)
    wave[-3:], mask[40:60] = 0, 0
    columns = {"wave": wave, "wave_grid_mid": WAVE, "flux": FLUX, "ivar": SIGMA**-2.0, "sigma": SIGMA, "mask": mask}
    hdu = fits.BinTableHDU(Table(columns), name="SPECTRUM")
    hdu.header["DMODCLS"] = "OneSpec"
    path = write(tmp_path / "coadd.fits", hdu, PYP_SPEC="keck_hires", TARGET="HD 2")
    obs = Observation.read(path, resolution=48_000)
    assert obs.medium == "vacuum" and obs.meta["frame"] == "heliocentric" and obs.name == "HD 2"
    assert len(obs) == N - 3 and list(np.flatnonzero(~obs.good)) == list(range(40, 60))


def test_pypeit_traces(tmp_path):
    """Made to PypeIt's data model SpecObj: a table per trace, optimal and boxcar extraction."""
    good = np.ones(N, bool)
    good[3] = False
    hdus = []
    for k in range(2):
        columns = {
            f"{how}_{what}": value + k * (what == "COUNTS")
            for how in ("OPT", "BOX")
            for what, value in {"WAVE": WAVE, "COUNTS": FLUX, "COUNTS_IVAR": SIGMA**-2.0}.items()
        }
        hdu = fits.BinTableHDU(
            Table({**columns, "OPT_MASK": good, "BOX_MASK": good}), name=f"SPAT0{k}17-SLIT0096-DET01"
        )
        hdu.header.update({"DMODCLS": "SpecObj", "VEL_TYPE": "barycentric", "VEL_CORR": 1.00001})
        hdus.append(hdu)
    path = write(tmp_path / "spec1d.fits", *hdus, DMODCLS="SpecObjs", PYP_SPEC="keck_deimos")
    obs = Observation.read(path, row=1, resolution=5000)
    np.testing.assert_allclose(obs.flux, FLUX + 1)
    assert obs.meta["frame"] == "barycentric" and list(np.flatnonzero(~obs.good)) == [3]
    assert "SPAT0117-SLIT0096-DET01, optimal extraction" in " ".join(obs.notes)
    with pytest.raises(ObservationError, match="2 traces: give row=0 to 1. They are SPAT0017"):
        Observation.read(path, resolution=5000)


# HARPS' pipelines


def e2ds(path, n_orders=5, n=1200, snr=60.0, correction=-8.7):
    """Made to the HARPS DRS user manual: rows of orders with a blaze, polynomials and S/N of each order in the header."""
    pixel = np.arange(n)
    coefficients = [[5000 + 12.0 * k, 0.0125, 1e-7, 0.0] for k in range(n_orders)]
    blaze = np.sinc(1.2 * (pixel / n - 0.5)) ** 2
    flux = 4000 * np.tile(blaze, (n_orders, 1))
    hdu = fits.PrimaryHDU(RNG.poisson(flux).astype("f4"))
    hdu.header.update({"INSTRUME": "HARPS", "OBJECT": "HD 3"})
    hdu.header["HIERARCH ESO DRS VERSION"], hdu.header["HIERARCH ESO DRS BERV"] = "HARPS_3.5", correction
    hdu.header["HIERARCH ESO DRS CAL TH DEG LL"] = 3
    for i, value in enumerate(np.ravel(coefficients)):
        hdu.header[f"HIERARCH ESO DRS CAL TH COEFF LL{i}"] = value
    for k in range(n_orders):
        hdu.header[f"HIERARCH ESO DRS SPE EXT SN{k}"] = snr
    hdu.writeto(path)
    return coefficients, flux


def test_e2ds_of_harps(tmp_path):
    coefficients, flux = e2ds(tmp_path / "e2ds.fits")
    obs = Observation.read(tmp_path / "e2ds.fits", order=2)
    np.testing.assert_allclose(obs.wavelength, np.polyval(coefficients[2][::-1], np.arange(1200)), rtol=1e-9)
    assert obs.medium == "air" and obs.meta["frame"] == "topocentric" and obs.resolution == 115_000
    assert "add -8.700 km/s" in " ".join(obs.notes)
    # Photon noise with the header's S/N of 60 at the middle, where the counts of 4000 would have 63.
    np.testing.assert_allclose(obs.uncertainty, np.sqrt(flux[2]) * 63.2 / 60, rtol=0.12)
    with pytest.raises(ObservationError, match='5 orders. Give order="merge"'):
        Observation.read(tmp_path / "e2ds.fits")
    merged = Observation.read(tmp_path / "e2ds.fits", order="merge")
    assert merged.wavelength[0] == obs.wavelength[0] - 24 and (np.diff(merged.wavelength) > 0).all()


def test_s1d_and_s2d_of_espresso(tmp_path):
    """Made to the ESPRESSO pipeline's user manual: wavelengths in vacuum and in air; zero is good quality."""
    quality = np.zeros(N, int)
    quality[11] = 1
    columns = {"wavelength": WAVE, "wavelength_air": WAVE - 1.42, "flux": FLUX, "error": SIGMA, "quality": quality}
    cards = {"INSTRUME": "ESPRESSO", "HIERARCH ESO INS MODE": "SINGLEHR"}
    path = write(tmp_path / "S1D_A.fits", fits.BinTableHDU(Table(columns)), **cards)
    for medium, shift in ((None, 0), ("air", 1.42)):
        obs = Observation.read(path, medium=medium)
        assert obs.medium == (medium or "vacuum") and obs.meta["frame"] == "barycentric" and obs.resolution == 140_000
        np.testing.assert_allclose(obs.wavelength, WAVE - shift)
        assert list(np.flatnonzero(~obs.good)) == [11]
    names = {"SCIDATA": FLUX, "ERRDATA": SIGMA, "QUALDATA": quality, "WAVEDATA_VAC_BARY": WAVE}
    images = [fits.ImageHDU(np.stack([a, a + (15 if n.startswith("WAVE") else 0)]), name=n) for n, a in names.items()]
    path = write(tmp_path / "S2D_A.fits", *images, **{**cards, "HIERARCH ESO INS MODE": "SINGLEUHR"})
    obs = Observation.read(path, order=1)
    assert obs.wavelength[0] == 5115 and obs.resolution == 190_000 and list(np.flatnonzero(~obs.good)) == [11]


@pytest.mark.parametrize("kind", ["fits", "ascii.ecsv", "ascii.csv"])
def test_wavelengths_in_both_media(tmp_path, kind):
    """Two columns that differ as air and vacuum do are no riddle, whatever they are called; others are."""
    air = convert_medium(WAVE, "vacuum", "air")
    for names in (("wavelength", "wavelength_air"), ("wave", "lambda"), ("lambda_vac", "lambda_air")):
        for columns in ((WAVE, air), (air, WAVE)):
            table = Table([*columns, FLUX, SIGMA], names=(*names, "flux", "sigma"))
            table.write(tmp_path / "x", format=kind, overwrite=True)
            if names[1].endswith("_air") and columns[0] is air:
                continue  # the names would lie
            for medium in (None, "air", "vacuum"):
                obs = Observation.read(tmp_path / "x", medium=medium)
                assert obs.medium == (medium or ("vacuum" if columns[0] is WAVE else "air"))
                np.testing.assert_allclose(obs.wavelength_in("vacuum"), WAVE, rtol=1e-7)
    Table([WAVE, WAVE + 1, FLUX, SIGMA], names=("wave", "lambda", "flux", "sigma")).write(tmp_path / "y", format=kind)
    with pytest.raises(ObservationError, match="Several columns could be the wavelength: wave, lambda"):
        Observation.read(tmp_path / "y", medium="air")
