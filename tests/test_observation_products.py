"""Products of archives: two real files of ESO's archive, and files made to the published formats where there is no real one."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation
from emuinfer.observations.cross_correlation import cross_correlation_rv

RNG = np.random.default_rng(0)
N = 400
WAVE = 5100 + 0.05 * np.arange(N)
FLUX = 100 + RNG.standard_normal(N)
SIGMA = np.full(N, 2.0)


def write(path, *hdus, **cards):
    """A FITS file of these HDUs after a primary one with these cards, of which `__` stands for a blank."""
    primary = fits.PrimaryHDU()
    primary.header.update({k.replace("__", " "): v for k, v in cards.items()})
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True, output_verify="ignore")
    return path


def one_row(columns, units=(), ucd=(), utype=(), name="SPECTRUM"):
    """A table of one row of arrays, as ESO's standard and LAMOST since DR8 have it."""
    formats = {"f": "D", "i": "J"}
    made = [
        fits.Column(
            n, f"{len(a)}{formats[np.asarray(a).dtype.kind]}", array=np.asarray(a)[None], unit=dict(units).get(n)
        )
        for n, a in columns.items()
    ]
    hdu = fits.BinTableHDU.from_columns(made, name=name)
    for i, n in enumerate(columns, start=1):
        hdu.header.update({f"TUCD{i}": dict(ucd).get(n, ""), f"TUTYP{i}": dict(utype).get(n, "")})
    return hdu


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
    assert 15 < obs.snr < 30 and "signal-to-noise ratio 23.35 that the file" in " ".join(obs.notes)
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


# LAMOST and SDSS


def lamost_table(name, wave, n_rows=1, **columns):
    columns = {"FLUX": FLUX, "IVAR": SIGMA**-2.0, "WAVELENGTH": wave, **columns}
    hdu = one_row(columns, name=name)
    if n_rows != 1:  # as DR6 and DR7 have it
        hdu = fits.BinTableHDU(Table({n: np.asarray(a) for n, a in columns.items()}), name=name)
    return hdu


@pytest.mark.parametrize("n_rows", [1, N])
def test_lamost_low_resolution(tmp_path, n_rows):
    """Made to the description of DR8 (lamost.org/dr8, lr-data-production-description)."""
    mask = np.zeros(N, int)
    mask[7] = 4
    hdu = lamost_table("COADD", WAVE, n_rows, ANDMASK=mask, ORMASK=mask | 1)
    obs = Observation.read(write(tmp_path / "spec.fits", hdu, TELESCOP="LAMOST", OBJECT="J01", HELIO=True))
    assert obs.medium == "vacuum" and obs.resolution == 1800 and obs.meta["frame"] == "heliocentric"
    assert list(np.flatnonzero(~obs.good)) == [7] and "RAA 12, 1197" in " ".join(obs.notes)
    np.testing.assert_allclose(obs.uncertainty, SIGMA)


def test_lamost_image_and_spspec(tmp_path):
    """The image of five rows of LAMOST to DR7 and SDSS-I/II: the second row is the inverse variance, or no error at all."""
    log = np.log10(WAVE[0]) + 1e-4 * np.arange(N)
    axis = {"CRVAL1": log[0], "CD1_1": 1e-4, "COEFF0": log[0], "COEFF1": 1e-4, "DC-FLAG": 1}
    mask = np.zeros(N)
    mask[9] = 1
    lamost = fits.PrimaryHDU(np.stack([FLUX, SIGMA**-2.0, 10**log, mask, mask]).astype("f4"))
    lamost.header.update({"TELESCOP": "LAMOST", **axis})
    lamost.writeto(tmp_path / "lamost.fits")
    sdss = fits.PrimaryHDU(np.stack([FLUX, FLUX - 100, SIGMA, mask, mask]).astype("f4"))
    sdss.header.update({"TELESCOP": "SDSS 2.5-M", **axis})
    sdss.writeto(tmp_path / "spSpec.fits")
    for name, power in (("lamost", 1800), ("spSpec", 1728)):
        obs = Observation.read(tmp_path / f"{name}.fits")
        np.testing.assert_allclose(obs.wavelength, 10**log)
        np.testing.assert_allclose(obs.uncertainty[obs.good], 2.0, rtol=1e-6)
        assert obs.medium == "vacuum" and obs.meta["frame"] == "heliocentric" and not obs.good[9]
        assert np.median(obs.resolution) == pytest.approx(power, rel=0.05)


@pytest.mark.parametrize("n_rows", [1, N])
def test_lamost_medium_resolution(tmp_path, n_rows):
    """Made to the description of DR9: the arms' combined spectra, then the exposures; the red arm first here."""
    red = lamost_table("COADD_R", WAVE + 1300, n_rows, PIXMASK=np.zeros(N, int))
    exposure = lamost_table("B-84380369", WAVE, n_rows, PIXMASK=np.zeros(N, int))
    path = write(tmp_path / "med.fits", red, lamost_table("COADD_B", WAVE, n_rows), exposure, TELESCOP="LAMOST")
    arms = Observation.read_arms(path)
    assert [a.wavelength[0] for a in arms] == [5100, 6400] and all(a.resolution == 7500 for a in arms)
    assert all(a.medium == "vacuum" and a.meta["frame"] == "heliocentric" for a in arms)
    with pytest.raises(ObservationError, match='arms b, r: give arm="b"'):
        Observation.read(path)
    assert len(Observation.read(path, hdu="B-84380369")) == N


def test_arms_of_an_unknown_instrument(tmp_path):
    """Two tables of the same columns elsewhere in wavelength are arms; a second exposure of the same range is not."""
    table = lambda shift, name: fits.BinTableHDU(Table({"WAVE": WAVE + shift, "FLUX": FLUX, "ERR": SIGMA}), name=name)
    path = write(tmp_path / "arms.fits", table(1300, "RED"), table(0, "BLUE"))
    options = {"medium": "air", "resolution": 4e4}
    assert [a.wavelength[0] for a in Observation.read_arms(path, **options)] == [5100, 6400]
    with pytest.raises(ObservationError, match=r'arms blue, red.*arm="blue".*BLUE \(5100 to 5119.95\), RED \(6400'):
        Observation.read(path, **options)
    path = write(tmp_path / "exposures.fits", table(0, "ONE"), table(0.5, "TWO"))
    assert len(Observation.read_arms(path, hdu="TWO", **options)) == 1
    with pytest.raises(ObservationError, match="hdu="):
        Observation.read(path, **options)


def mwm_table(name, wave, rows, **columns):
    columns = {"wavelength": wave, "flux": FLUX, "ivar": SIGMA**-2.0, "pixel_flags": np.zeros(N, int), **columns}
    return fits.BinTableHDU(
        Table({n: np.repeat(np.asarray(a)[None], rows, axis=0) for n, a in columns.items()}), name=name
    )


def test_mwm_star(tmp_path):
    """Made to Astra's data models: four tables, here two of them empty."""
    flags = np.zeros(N, int)
    flags[[3, 4]] = 1 << 24, 1 << 25  # no data; one exposure was rejected
    boss = mwm_table("BOSS/APO", WAVE, 1, pixel_flags=flags, v_rad=21.5)
    empty = [mwm_table(name, WAVE, 0) for name in ("BOSS/LCO", "APOGEE/LCO")]
    apogee = mwm_table("APOGEE/APO", WAVE + 1e4, 1)
    path = write(tmp_path / "mwmStar-0.6.0-1.fits", boss, empty[0], apogee, empty[1], SDSS_ID=54392544, V_ASTRA="0.6.0")
    one, two = Observation.read_arms(path)
    assert one.medium == two.medium == "vacuum" and one.meta["frame"] == two.meta["frame"] == "rest"
    assert list(np.flatnonzero(~one.good)) == [3] and two.resolution == 22_500 and one.meta["v_rad"] == 21.5
    assert np.interp(5100, [3700, 6000], [1560, 2270]) == pytest.approx(one.resolution[0])
    np.testing.assert_allclose(one.uncertainty, SIGMA)
    with pytest.raises(ObservationError, match="arms boss/apo, apogee/apo"):
        Observation.read(path)


def test_mwm_visit(tmp_path):
    """Visits have no column of wavelengths but a logarithmic axis in the header."""
    table = mwm_table("APOGEE/LCO", WAVE, 2)
    table = fits.BinTableHDU(Table(table.data)[["flux", "ivar", "pixel_flags"]], name="APOGEE/LCO")
    table.header.update({"CRVAL": 4.179, "CDELT": 6e-6, "NPIXELS": N})
    path = write(tmp_path / "mwmVisit.fits", table, SDSS_ID=1)
    np.testing.assert_allclose(Observation.read(path, row=1).wavelength, 10 ** (4.179 + 6e-6 * np.arange(N)))
    with pytest.raises(ObservationError, match="has 2 visits: give row=0 to 1"):
        Observation.read(path)


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


# GALAH, Gaia


def test_galah_camera(tmp_path):
    """Made to the description of DR3: the flux, its relative error, and three more images."""
    sigma = SIGMA / FLUX
    images = [fits.ImageHDU(a, name=n) for n, a in (("input_sigma", sigma), ("no_sky", FLUX), ("no_sky_sigma", sigma))]
    primary = fits.PrimaryHDU(FLUX)
    primary.header.update({"CRVAL1": 4713.0, "CDELT1": 0.046, "CRPIX1": 0, "OBJECT": "galahic_1"})
    fits.HDUList([primary, *images, fits.ImageHDU(FLUX / 100, name="normalised_spectrum")]).writeto(tmp_path / "1.fits")
    obs = Observation.read(tmp_path / "1.fits")
    assert obs.medium == "air" and obs.meta["frame"] == "barycentric" and obs.resolution == 28_000
    np.testing.assert_allclose(obs.uncertainty, SIGMA)
    np.testing.assert_allclose(obs.wavelength, 4713 + 0.046 * np.arange(N))


def test_galah_fitted_spectrum(tmp_path):
    """Made to the table of DR4 that holds all four cameras (columns as written by the survey's public code)."""
    wave = np.concatenate([lo + 0.06 * np.arange(N) for lo in (4720, 5660, 6480, 7700)])
    columns = {"wave": wave, "sob": np.tile(FLUX / 100, 4), "uob": np.tile(SIGMA / 100, 4), "smod": wave * 0 + 1}
    path = write(tmp_path / "x_single_fit_spectrum.fits", fits.BinTableHDU(Table({**columns, "mob": wave > 0})))
    arms = Observation.read_arms(path)
    assert [round(a.wavelength[0]) for a in arms] == [4720, 5660, 6480, 7700]
    whole = Observation.read(path)
    assert len(whole) == 4 * N and whole.meta["frame"] == "rest" and whole.medium == "air"


def rvs(n_stars):
    flux = 1 + 0.01 * RNG.standard_normal((n_stars, 2401))
    flux[:, :20] = np.nan
    return 846 + 0.01 * np.arange(2401), flux, np.where(np.isfinite(flux), 0.01, np.nan)


@pytest.mark.parametrize("kind", ["fits", "vot", "csv"])
def test_gaia_rvs(tmp_path, kind):
    """Made to section 20.12.1 of the documentation of Gaia DR3: one star in the formats of DataLink."""
    wave, flux, error = rvs(1)
    table = Table({"wavelength": wave, "flux": flux[0], "flux_error": error[0]}, units={"wavelength": "nm"})
    path = tmp_path / f"RVS_MEAN_SPECTRUM-Gaia DR3 123.{kind}"
    table.write(path, format={"vot": "votable", "csv": "ascii.csv"}.get(kind, kind))
    obs = Observation.read(path)
    assert obs.medium == "vacuum" and obs.meta["frame"] == "rest" and obs.resolution == 11_500
    np.testing.assert_allclose(obs.wavelength, wave * 10)
    assert not obs.good[:20].any() and obs.good[20:].all() and obs.snr == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("kind", ["fits", "vot", "csv"])
def test_gaia_rvs_of_several_stars(tmp_path, kind):
    """The table rvs_mean_spectrum with its arrays; in CSV they are text."""
    _, flux, error = rvs(2)
    source = np.array([4295806720, 34361129088])
    path = tmp_path / f"raw.{kind}"
    if kind == "csv":
        cells = lambda a: '"[' + ",".join("null" if np.isnan(x) else f"{x:.6f}" for x in a) + ']"'
        lines = [f"{s},1,{cells(f)},{cells(e)}" for s, f, e in zip(source, flux, error)]
        path.write_text("\n".join(["source_id,solution_id,flux,flux_error", *lines]))
    else:
        Table({"source_id": source, "flux": flux, "flux_error": error}).write(
            path, format={"vot": "votable"}.get(kind, kind)
        )
    obs = Observation.read(path, row=1)
    assert obs.name == "Gaia DR3 34361129088" or kind == "fits"
    np.testing.assert_allclose(obs.flux[20:], flux[1, 20:], atol=1e-6)
    with pytest.raises(ObservationError, match="2 RVS spectra: give row=0 to 1.* 4295806720, 34361129088"):
        Observation.read(path)


def test_votable_of_any_service(tmp_path):
    table = Table({"wavelength": WAVE / 10, "flux": FLUX, "flux_error": SIGMA}, units={"wavelength": "nm"})
    table["wavelength"].meta["ucd"] = "em.wl;obs.atmos"
    table.write(tmp_path / "x.vot", format="votable")
    obs = Observation.read(tmp_path / "x.vot", resolution=1e4, medium="air")
    np.testing.assert_allclose(obs.wavelength, WAVE)
    (tmp_path / "bad.vot").write_text("<?xml version='1.0'?><a></a>")
    with pytest.raises(ObservationError, match="XML but no VOTable"):
        Observation.read(tmp_path / "bad.vot")
