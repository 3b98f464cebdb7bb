"""Products of surveys: files made to their published formats, as no real ones are at hand."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from products import FLUX, RNG, SIGMA, WAVE, N, one_row, write

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation

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
