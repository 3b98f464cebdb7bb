"""Files made as SDSS, APOGEE and DESI make them, read by us and by specutils' own loaders."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from specutils import Spectrum, SpectrumList

from emuinfer.errors import ObservationError
from emuinfer.forward.lsf import resolving_power
from emuinfer.observations import Observation

RNG = np.random.default_rng(0)


def noisy(n, level=50.0):
    return level + RNG.standard_normal(n), np.full(n, 1.0)


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")  # of specutils' own reader
@pytest.mark.comparison
def test_sdss_spec(tmp_path):
    """spec-PLATE-MJD-FIBER.fits of SDSS-III/IV: the COADD table and its columns."""
    n = 600
    loglam = 3.70 + 1e-4 * np.arange(n)
    flux, sigma = noisy(n)
    ivar = sigma**-2.0
    ivar[5] = 0
    and_mask = np.zeros(n, "i4")
    and_mask[8] = 1 << 24
    columns = {
        "flux": flux.astype("f4"),
        "loglam": loglam.astype("f4"),
        "ivar": ivar.astype("f4"),
        "and_mask": and_mask,
        "or_mask": and_mask | 1,
        "wdisp": np.full(n, 1.1, "f4"),
        "sky": flux.astype("f4"),
        "model": flux.astype("f4"),
    }
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "TELESCOP": "SDSS 2.5-M",
            "VERS2D": "v5_13_0",
            "PLATEID": 4055,
            "MJD": 55359,
            "FIBERID": 596,
            "BUNIT": "1E-17 erg/cm^2/s/Ang",
            "COEFF0": 3.70,
            "COEFF1": 1e-4,
            "DISPAXIS": 1,
            "DC-FLAG": 1,
        }
    )
    coadd = fits.BinTableHDU(Table(columns), name="COADD")
    path = tmp_path / "spec-4055-55359-0596.fits"
    fits.HDUList([primary, coadd, fits.BinTableHDU(Table({"Z": [0.0]}), name="SPECOBJ")]).writeto(path)
    obs = Observation.read(path)
    assert (
        obs.medium == "vacuum" and sorted(np.flatnonzero(~obs.good)) == [5, 8] and obs.meta["frame"] == "heliocentric"
    )
    np.testing.assert_allclose(obs.wavelength, 10**loglam, rtol=2e-6)  # loglam is single precision in the files, too
    np.testing.assert_allclose(obs.uncertainty[obs.good], 1.0, rtol=1e-5)
    # 1.1 pixels of 69.03 km/s: FWHM 178.8 km/s.
    np.testing.assert_allclose(np.median(obs.resolution), 299792.458 / (2.3548 * 1.1 * 69.03), rtol=2e-3)
    theirs = Spectrum.read(path, format="SDSS-III/IV spec")
    np.testing.assert_allclose(obs.wavelength, theirs.spectral_axis.value, rtol=1e-7)
    np.testing.assert_allclose(obs.flux, theirs.flux.value)
    assert not theirs.mask[obs.good].any()


def apogee_primary(**cards):
    primary = fits.PrimaryHDU()
    primary.header.update({"SURVEY": "apogee", "OBJID": "2M00000002+7417074", "SNR": 140.0, **cards})
    primary.header["HISTORY"] = "APSTAR: The data are APOGEE spectra"
    return primary


def apogee_image(data, unit, name=None):
    hdu = fits.ImageHDU(data)
    hdu.header.update({"BUNIT": unit, "CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1.0, "CTYPE1": "LOG-LINEAR"})
    return hdu


def check_apogee_axis(obs, n):
    np.testing.assert_allclose(obs.wavelength, 10 ** (4.179 + 6e-6 * np.arange(n)), rtol=1e-9)
    assert obs.medium == "vacuum" and obs.resolution == 22500 and obs.name.startswith("2M0000")


@pytest.mark.comparison
def test_apogee_star(tmp_path):
    """apStar: rows of two combinations and the visits; errors of 1e10 and bits of APOGEE_PIXMASK where data are missing."""
    n = 8575
    flux = np.stack([noisy(n)[0] + k for k in range(4)]).astype("f4")
    error = np.ones_like(flux)
    mask = np.zeros((4, n), "i2")
    flux[:, :10], error[:, :10], mask[:, :10] = 0, 1e10, 1
    mask[0, 20], mask[0, 21], mask[0, 22] = 1 << 12, 1 << 9, 1 << 14  # a sky line, persistence, little of the profile
    hdus = [apogee_primary(SFILE1="apVisit-r12-5094-55874-088.fits", NVISITS=2)]
    hdus += [
        apogee_image(flux, "Flux (10^-17 erg/s/cm^2/Ang)"),
        apogee_image(error, "Err (10^-17 erg/s/cm^2/Ang)"),
        apogee_image(mask, "Pixel mask"),
    ]
    path = tmp_path / "apStar-r12-2M00000002+7417074.fits"
    fits.HDUList(hdus).writeto(path)
    obs = Observation.read(path)
    check_apogee_axis(obs, n)
    assert set(np.flatnonzero(~obs.good)) == {*range(10), 20, 22} and obs.meta["frame"] == "rest"
    theirs = Spectrum.read(path, format="APOGEE apStar")
    np.testing.assert_allclose(obs.wavelength, theirs.spectral_axis.value, rtol=1e-7)
    np.testing.assert_allclose(obs.flux, theirs.flux.value)
    np.testing.assert_allclose(Observation.read(path, row=3).flux, flux[3])
    with pytest.raises(ObservationError, match="has 4 spectra; row=7"):
        Observation.read(path, row=7)


def test_apogee_aspcap(tmp_path):
    """aspcapStar: one normalised spectrum, its errors, and a model where an apStar has its mask."""
    n = 8575
    flux = (1 + 0.01 * RNG.standard_normal(n)).astype("f4")
    flux[:50] = 0
    error = np.where(flux == 0, 0, 0.01).astype("f4")
    parameters = fits.BinTableHDU(Table({"FPARAM": [1.0]}))
    parameters.header["TTYPE2"] = "ASPCAPFLAG"
    parameters.header["FLAGNAME"] = "ASPCAPFLAG"
    hdus = [apogee_primary(), *(apogee_image(a, "1") for a in (flux, error, np.ones(n, "f4"))), parameters]
    fits.HDUList(hdus).writeto(tmp_path / "aspcapStar-r12-x.fits", output_verify="ignore")
    obs = Observation.read(tmp_path / "aspcapStar-r12-x.fits")
    check_apogee_axis(obs, n)
    assert not obs.good[:50].any() and obs.good[50:].all()
    np.testing.assert_allclose(obs.flux, flux)


@pytest.mark.comparison
def test_apogee_visit(tmp_path):
    """apVisit: three detectors with wavelengths that fall, in a table of their own."""
    wavelength = np.stack([np.linspace(a, b, 4096) for a, b in ((16960, 16480), (16430, 15860), (15800, 15140))])
    flux = np.stack([noisy(4096)[0] for _ in range(3)]).astype("f4")
    mask = np.zeros((3, 4096), "i2")
    mask[1, 7] = 1 << 2
    primary = apogee_primary()
    images = [flux, np.ones_like(flux), mask, wavelength]
    units = ["Flux (10^-17 erg/s/cm^2/Ang)", "Flux (10^-17 erg/s/cm^2/Ang)", "Pixel mask", "Wavelength (Ang)"]
    hdus = [primary]
    for data, unit in zip(images, units):
        hdus.append(fits.ImageHDU(data))
        hdus[-1].header["BUNIT"] = unit
    path = tmp_path / "apVisit-r12-1-2-3.fits"
    fits.HDUList(hdus).writeto(path)
    obs = Observation.read(path)
    assert (
        obs.meta["frame"] == "topocentric"
        and len(obs) == 3 * 4096
        and obs.medium == "vacuum"
        and (np.diff(obs.wavelength) > 0).all()
    )
    np.testing.assert_allclose(obs.flux[:4096], flux[2, ::-1])
    assert (~obs.good).sum() == 1 and obs.flux[~obs.good][0] == pytest.approx(flux[1, 7])
    theirs = Spectrum.read(path, format="APOGEE apVisit")
    np.testing.assert_allclose(obs.wavelength, np.sort(theirs.spectral_axis.value))


@pytest.fixture(scope="module")
def desi(tmp_path_factory):
    """A coadd of two targets, with the HDUs of DESI's data model; pixels of 0.8 Å and an 11-diagonal resolution."""
    hdus = [fits.PrimaryHDU()]
    hdus[0].header["INFIL000"] = "cframe-b0-00000000.fits"
    hdus.append(
        fits.BinTableHDU(
            Table({"TARGETID": np.array([39627000, 39627001], "i8"), "TARGET_RA": [1.0, 2.0]}), name="FIBERMAP"
        )
    )
    for arm, lo in zip("BRZ", (5100.0, 5760.0, 7520.0)):
        n = 250
        wave = fits.ImageHDU(lo + 0.8 * np.arange(n), name=f"{arm}_WAVELENGTH")
        wave.header["BUNIT"] = "Angstrom"
        flux = fits.ImageHDU((50 + RNG.standard_normal((2, n))).astype("f4"), name=f"{arm}_FLUX")
        flux.header["BUNIT"] = "10**-17 erg/(s cm2 Angstrom)"
        ivar = np.full((2, n), 4.0, "f4")
        ivar[1, 3] = 0
        ivar_hdu = fits.ImageHDU(ivar, name=f"{arm}_IVAR")
        ivar_hdu.header["BUNIT"] = "10**+34 (s2 cm4 Angstrom2) / erg2"
        mask = np.zeros((2, n), "i4")
        mask[1, 30] = 2
        profile = np.exp(-0.5 * (np.arange(-5, 6) / 0.9) ** 2)
        resolution = np.broadcast_to((profile / profile.sum())[None, :, None], (2, 11, n)).astype("f4")
        hdus += [
            wave,
            flux,
            ivar_hdu,
            fits.CompImageHDU(mask, name=f"{arm}_MASK"),
            fits.ImageHDU(resolution, name=f"{arm}_RESOLUTION"),
        ]
    hdus.append(fits.BinTableHDU(Table({"TARGETID": np.array([39627000, 39627001], "i8")}), name="SCORES"))
    path = tmp_path_factory.mktemp("desi") / "coadd-main-bright-10000.fits"
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.comparison
def test_desi_coadd(desi):
    obs = Observation.read(desi, arm="b", row=1)
    assert obs.medium == "vacuum" and set(np.flatnonzero(~obs.good)) == {3, 30} and obs.name == "DESI 39627001 b"
    np.testing.assert_allclose(obs.wavelength, 5100 + 0.8 * np.arange(250))
    np.testing.assert_allclose(obs.uncertainty[obs.good], 0.5)
    assert obs.resolution.shape == (11, 250) and obs.meta["frame"] == "barycentric"
    # Standard deviation 0.9 pixels, and the pixel itself.
    expected = obs.wavelength / (2.3548 * 0.8 * np.sqrt(0.9**2 + 1 / 12))
    np.testing.assert_allclose(resolving_power(obs.resolution, obs.wavelength)[10:-10], expected[10:-10], rtol=1e-3)
    theirs = SpectrumList.read(desi, format="DESI coadd")[0]
    np.testing.assert_allclose(obs.wavelength, theirs.spectral_axis.value)
    np.testing.assert_allclose(obs.flux, theirs.flux.value[1])
    np.testing.assert_allclose(np.where(obs.good, obs.uncertainty, 0)[50:] ** -2.0, theirs.uncertainty.array[1][50:])


def test_desi_arms(desi):
    arms = Observation.read_arms(desi, row=0)
    assert [a.wavelength[0] for a in arms] == [5100.0, 5760.0, 7520.0]
    with pytest.raises(ObservationError, match="arms b, r, z.*read_arms"):
        Observation.read(desi)
    with pytest.raises(ObservationError, match="2 spectra: give row=0 to 1. Their targets are 39627000, 39627001"):
        Observation.read(desi, arm="z")
    with pytest.raises(ObservationError, match="row=2 is not one"):
        Observation.read(desi, arm="z", row=2)
