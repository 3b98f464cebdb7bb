"""Observation.read: every format, what headers say, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import InverseVariance
from astropy.table import QTable, Table

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation

OBSERVED = Path(__file__).parents[1] / ".." / "shared" / "data" / "observed"
N = 500
WAVELENGTH = np.linspace(5100, 5150, N)
FLUX = 1 - 0.5 * np.exp(-0.5 * ((WAVELENGTH - 5125) / 0.5) ** 2)
SIGMA = np.linspace(0.01, 0.02, N)


def check(obs, sigma=SIGMA, rtol=1e-6):
    np.testing.assert_allclose(obs.wavelength, WAVELENGTH, rtol=1e-9)
    np.testing.assert_allclose(obs.flux, FLUX, rtol=rtol)
    np.testing.assert_allclose(obs.uncertainty, sigma, rtol=rtol)
    return obs


def table_hdu(columns, header=(), units=()):
    hdu = fits.BinTableHDU(Table(columns))
    names = list(columns)
    for name, unit in dict(units).items():
        hdu.header[f"TUNIT{names.index(name) + 1}"] = unit
    hdu.header.update(dict(header))
    return hdu


def write(path, *hdus):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def test_fits_table_with_keywords(tmp_path):
    header = {"MEDIUM": "air", "RESOLVE": 40000, "OBJECT": "star"}
    hdu = table_hdu({"wavelength": WAVELENGTH / 10, "flux": FLUX, "uncertainty": SIGMA}, header, {"wavelength": "nm"})
    obs = check(Observation.read(write(tmp_path / "a.fits", hdu)))
    assert obs.medium == "air" and obs.resolution == 40000 and obs.name == "star"
    assert Observation.read(tmp_path / "a.fits", resolution=5e4, medium="vacuum").medium == "vacuum"
    assert Observation.read(tmp_path / "a.fits", snr=10).snr < 11


def test_eso_phase_3_table(tmp_path):
    columns = {
        "WAVE": WAVELENGTH[None] / 10,
        "FLUX": FLUX[None],
        "ERR": SIGMA[None],
        "QUAL": (np.arange(N) == 9)[None].astype("i4"),
    }
    header = {"SPEC_RES": 115000.0, "TUCD1": "em.wl;obs.atmos"}
    obs = check(Observation.read(write(tmp_path / "a.fits", table_hdu(columns, header, {"WAVE": "nm"}))))
    assert obs.medium == "air" and obs.resolution == 115000 and not obs.good[9] and obs.good.sum() == N - 1
    obs = Observation.read(write(tmp_path / "b.fits", table_hdu(columns, {"TUCD1": "em.wl"}, {"WAVE": "nm"})))
    assert obs.medium == "vacuum"


def test_sdss_table(tmp_path):
    ivar = SIGMA**-2.0
    ivar[3] = 0
    hdu = table_hdu({"flux": FLUX, "loglam": np.log10(WAVELENGTH), "ivar": ivar})
    obs = Observation.read(write(tmp_path / "a.fits", hdu), medium="vacuum", resolution=2000)
    np.testing.assert_allclose(obs.wavelength, WAVELENGTH)
    np.testing.assert_allclose(obs.uncertainty[4:], SIGMA[4:])
    assert not obs.good[3] and obs.good.sum() == N - 1


@pytest.mark.parametrize("kind", ["linear", "log10", "wcs-log"])
def test_fits_image(tmp_path, kind):
    if kind == "linear":
        axis, cards = WAVELENGTH, {"CTYPE1": "AWAV", "CRVAL1": WAVELENGTH[0], "CDELT1": WAVELENGTH[1] - WAVELENGTH[0]}
    else:
        axis = np.geomspace(5100, 5150, N)
        step = np.log(axis[1] / axis[0])
        cards = {"DC-FLAG": 1, "CRVAL1": np.log10(5100), "CD1_1": step / np.log(10)}
        if kind == "wcs-log":
            cards = {"CTYPE1": "AWAV-LOG", "CRVAL1": 5100.0, "CDELT1": 5100 * step, "CUNIT1": "Angstrom"}
    primary = fits.PrimaryHDU(FLUX)
    primary.header.update({"CRPIX1": 1.0, **cards})
    fits.HDUList([primary, fits.ImageHDU(SIGMA, name="ERR")]).writeto(tmp_path / "a.fits")
    obs = Observation.read(tmp_path / "a.fits", medium="air" if kind == "log10" else None)
    np.testing.assert_allclose(obs.wavelength, axis, rtol=1e-10)
    np.testing.assert_allclose(obs.flux, FLUX)
    np.testing.assert_allclose(obs.uncertainty, SIGMA)


def test_ecsv(tmp_path):
    table = QTable(
        {"wave": WAVELENGTH * 1e-4 * u.um, "flux": FLUX, "err": SIGMA}, meta={"medium": "vacuum", "resolution": 9000}
    )
    table.write(tmp_path / "a.ecsv")
    obs = check(Observation.read(tmp_path / "a.ecsv"))
    assert obs.medium == "vacuum" and obs.resolution == 9000 and obs.name == "a"


@pytest.mark.parametrize(
    "head", ["wavelength,flux,error\n", "# wave flux sigma\n", "", "Wavelength (Angstrom);Flux;Err\n", "# a comment\n"]
)
def test_text(tmp_path, head):
    separator = "," if "," in head else ";" if ";" in head else " "
    rows = "\n".join(separator.join(f"{x:.12g}" for x in row) for row in zip(WAVELENGTH, FLUX, SIGMA))
    (tmp_path / "a.csv").write_text(head + rows + "\n")
    check(Observation.read(tmp_path / "a.csv", medium="air"))


def test_text_with_two_columns_and_chosen_columns(tmp_path):
    np.savetxt(tmp_path / "a.txt", np.stack([WAVELENGTH, FLUX], axis=1))
    assert Observation.read(tmp_path / "a.txt", medium="air", snr=100).snr > 90
    with pytest.raises(ObservationError, match="snr="):
        Observation.read(tmp_path / "a.txt", medium="air")
    (tmp_path / "b.csv").write_text("x,y,z\n" + "\n".join(f"{a},{b},{c}" for a, b, c in zip(SIGMA, FLUX, WAVELENGTH)))
    check(
        Observation.read(
            tmp_path / "b.csv", medium="air", wavelength_column="z", flux_column="y", uncertainty_column="x"
        )
    )
    with pytest.raises(ObservationError, match="wavelength_column=.*x, y, z"):
        Observation.read(tmp_path / "b.csv", medium="air")
    with pytest.raises(ObservationError, match="no column 'q'"):
        Observation.read(tmp_path / "b.csv", medium="air", wavelength_column="q")


@pytest.mark.comparison
def test_specutils(tmp_path):
    from specutils import Spectrum

    spectrum = Spectrum(
        spectral_axis=WAVELENGTH / 10 * u.nm,
        flux=FLUX * u.Jy,
        uncertainty=InverseVariance(SIGMA**-2),
        mask=np.arange(N) == 4,
    )
    obs = check(Observation.from_spectrum(spectrum, medium="vacuum", resolution=1000, name="s"))
    assert not obs.good[4] and obs.name == "s"
    with pytest.raises(ObservationError, match="pick one"):
        Observation.from_spectrum(
            Spectrum(spectral_axis=WAVELENGTH * u.AA, flux=np.ones((2, N)) * u.Jy), medium="air", snr=3
        )
    spectrum.write(tmp_path / "a.fits", format="tabular-fits")
    np.testing.assert_allclose(Observation.read(tmp_path / "a.fits", medium="air", format="tabular-fits").flux, FLUX)


def test_unreadable_files(tmp_path):
    def fails(name, *words, **kwargs):
        with pytest.raises(ObservationError) as error:
            Observation.read(tmp_path / name, **kwargs)
        for word in (name, *words):
            assert word in str(error.value)

    fails("none.fits", "no file")
    (tmp_path / "folder").mkdir()
    fails("folder", "directory")
    (tmp_path / "noise.bin").write_bytes(np.random.default_rng(0).bytes(4000))
    fails("noise.bin", "neither FITS nor text", medium="air")
    (tmp_path / "empty.txt").write_text("")
    fails("empty.txt", "no rows", medium="air")
    (tmp_path / "letter.txt").write_text("Dear colleague,\nplease find the spectrum\nenclosed, yours\n")
    fails("letter.txt", "columns", medium="air")
    (tmp_path / "ragged.txt").write_text("1 2 3\n4 5\n")
    fails("ragged.txt", "equally many columns", medium="air")
    fits.PrimaryHDU(np.ones((20, 30))).writeto(tmp_path / "picture.fits")
    fails("picture.fits", "(20, 30)", medium="air")
    (tmp_path / "cut.fits").write_bytes((tmp_path / "picture.fits").read_bytes()[:1000])
    fails("cut.fits", medium="air")
    write(tmp_path / "two.fits", table_hdu({"wave": WAVELENGTH, "flux": FLUX, "flux_norm": FLUX}))
    fails("two.fits", "flux, flux_norm", "flux_column=", medium="air")
    write(tmp_path / "many.fits", table_hdu({"wave": np.ones((3, 9)), "flux": np.ones((3, 9))}))
    fails("many.fits", "3 spectra", medium="air")
    write(tmp_path / "medium.fits", table_hdu({"wave": WAVELENGTH, "flux": FLUX, "err": SIGMA}))
    fails("medium.fits", 'medium="air"')
    write(tmp_path / "unit.fits", table_hdu({"wave": WAVELENGTH / 10, "flux": FLUX, "err": SIGMA}))
    fails("unit.fits", 'wavelength_unit="nm"', medium="air")
    check(Observation.read(tmp_path / "unit.fits", medium="air", wavelength_unit="nm"))


@pytest.mark.skipif(not OBSERVED.exists(), reason="the observed spectra are not here")
@pytest.mark.parametrize(
    "name, pixels, resolution, masked",
    [
        ("hd41248_espresso", 25371, 140000, 0),
        ("ic4651_9122_harps", 22001, 115000, 585),
        ("sun_uves", 29999, 110_000, 0),
        ("hd122563_mike", 9103, 40000, 0),
        ("wasp120_uves", 30000, 110000, 0),
    ],
)
def test_real_spectra(name, pixels, resolution, masked):
    obs = Observation.read(OBSERVED / f"{name}.fits")
    assert len(obs) == pixels and obs.resolution == resolution and obs.medium == "air" and (~obs.good).sum() == masked
