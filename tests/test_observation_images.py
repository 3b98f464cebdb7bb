"""Spectra that are FITS images: their wavelengths, layouts, images beside them, and what is refused."""

import gzip

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS
from fits_images import AXIS, FLUX, LINEAR, SIGMA, N, header_of, image, read, refused

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation
from emuinfer.observations.readers.spectral_axis import spectral_axis

# One axis


@pytest.mark.comparison
@pytest.mark.parametrize(
    "cards",
    [
        LINEAR,
        {**LINEAR, "CRPIX1": 150.5, "CUNIT1": "Angstrom", "CTYPE1": "AWAV"},
        {"CTYPE1": "LINEAR", "CRVAL1": 5110.0, "CRPIX1": 1.0, "CD1_1": 0.02},
        {"CTYPE1": "LINEAR", "CRVAL1": 5110.0, "CRPIX1": 1.0, "CDELT1": 1.0, "CD1_1": 0.02},
        {"CTYPE1": "WAVE", "CUNIT1": "nm", "CRVAL1": 511.0, "CRPIX1": -3.0, "CDELT1": 0.01, "PC1_1": 0.2},
        {"CTYPE1": "AWAV-LOG", "CUNIT1": "Angstrom", "CRVAL1": 5110.0, "CRPIX1": 7.0, "CDELT1": 0.05},
        {"CTYPE1": "WAVE", "CRVAL1": 5.11e-7, "CRPIX1": 1.0, "CDELT1": 1e-12},
        {"CTYPE1": "FREQ", "CUNIT1": "THz", "CRVAL1": 580.0, "CRPIX1": 1.0, "CDELT1": -0.01},
        {"CTYPE1": "WAVE-F2W", "CUNIT1": "Angstrom", "CRVAL1": 5110.0, "CRPIX1": 1.0, "CDELT1": 0.05},
        {"CTYPE1": "AWAV-GRI", "CUNIT1": "Angstrom", "CRVAL1": 5110.0, "CRPIX1": 200.0, "CDELT1": 0.05}
        | {"PV1_0": 6e5, "PV1_1": 1.0, "PV1_2": 5.0},
    ],
)
def test_axes_agree_with_astropy(tmp_path, cards):
    observation = read(tmp_path, cards, snr=50)
    with np.errstate(all="ignore"):
        wcs = WCS(header_of(**{"NAXIS": 1, "NAXIS1": N, **cards}), naxis=1)
    values = wcs.wcs_pix2world(np.arange(1, N + 1)[:, None], 1)[:, 0]
    unit = u.Unit(str(wcs.wcs.cunit[0]) or "Angstrom")
    expected = np.sort((values * unit).to_value(u.AA, equivalencies=u.spectral()))
    np.testing.assert_allclose(observation.wavelength, expected, rtol=1e-12)
    assert observation.medium == "air" or "medium" not in cards


def test_the_step_that_is_not_used_is_named(tmp_path):
    observation = read(tmp_path, {**LINEAR, "CDELT1": 1.0, "CD1_1": 0.02}, snr=50)
    assert any("CD1_1 = 0.02" in note and "CDELT1 = 1" in note for note in observation.notes)
    observation = read(tmp_path, {"CRVAL1": 5110.0, "CDELT1": 0.05}, snr=50)
    np.testing.assert_allclose(observation.wavelength, AXIS)
    assert any("CRPIX1" in note for note in observation.notes)


@pytest.mark.parametrize(
    "cards, natural",
    [
        ({"DC-FLAG": 1}, False),
        ({"CTYPE1": "LOG-LINEAR"}, False),
        ({"CTYPE1": "LOGLAM"}, True),
        ({"CTYPE1": "WAVE-LOG", "CUNIT1": "Angstrom"}, False),
        ({"CUNIT1": "log10(Angstrom)"}, False),
        ({"CUNIT1": "log(nm)"}, False),
        ({"CUNIT1": "ln(Angstrom)"}, True),
        ({"COEFF0": None, "COEFF1": None}, False),
        ({"DC-FLAG": 1, "WAT1_001": "wtype=linear label=Wavelength units=nanometers"}, False),
    ],
)
def test_logarithms(tmp_path, cards, natural):
    in_nm = "nm" in cards.get("CUNIT1", "") or "nano" in cards.get("WAT1_001", "")
    expected = np.geomspace(5110, 5150, N)
    axis = (np.log if natural else np.log10)(expected / (10 if in_nm else 1))
    value, step = axis[0], (axis[-1] - axis[0]) / (N - 1)
    cards = {**cards, **({"COEFF0": value, "COEFF1": step} if "COEFF0" in cards else {})}
    observation = read(tmp_path, {"CRVAL1": value, "CD1_1": step, "CRPIX1": 1.0, **cards}, snr=50)
    np.testing.assert_allclose(observation.wavelength, expected, rtol=1e-9)


def test_coefficients_of_sdss_alone(tmp_path):
    observation = read(tmp_path, {"COEFF0": 3.7, "COEFF1": 1e-4, "VACUUM": "T"}, snr=50, medium=None)
    np.testing.assert_allclose(observation.wavelength, 10 ** (3.7 + 1e-4 * np.arange(N)))
    assert observation.medium == "vacuum"


def test_units_as_ctype_and_in_wat(tmp_path):
    cards = {"CRVAL1": 511.0, "CDELT1": 0.005, "CRPIX1": 1.0}
    for more in ({"CTYPE1": "Nanometer"}, {"WAT1_001": "wtype=linear label=Wavelength units=nanometers"}):
        np.testing.assert_allclose(read(tmp_path, {**cards, **more}, snr=50).wavelength, AXIS)
    np.testing.assert_allclose(read(tmp_path, {**LINEAR, "CTYPE1": "Angstrom"}, snr=50).wavelength, AXIS)
    np.testing.assert_allclose(read(tmp_path, cards, snr=50, wavelength_unit="nm").wavelength, AXIS)
    named = {**LINEAR, "CTYPE1": "PIXEL"}  # as MIDAS wrote it
    np.testing.assert_allclose(read(tmp_path, {**named, "CUNIT1": "Angstrom"}, snr=50).wavelength, AXIS)
    np.testing.assert_allclose(read(tmp_path, named, snr=50, wavelength_unit="Angstrom").wavelength, AXIS)


@pytest.mark.comparison
def test_a_table_of_wavelengths(tmp_path):
    """-TAB of Greisen et al. 2006, section 6."""
    wavelength = 5110 + np.cumsum(np.linspace(0.04, 0.06, N))
    table = fits.BinTableHDU.from_columns([fits.Column("w", f"{N}D", dim=f"(1,{N})", array=wavelength[None, :, None])])
    table.name = "WCS-TAB"
    cards = {"CTYPE1": "AWAV-TAB", "CUNIT1": "Angstrom", "CRPIX1": 1.0, "CRVAL1": 1.0, "CDELT1": 1.0}
    cards |= {"PS1_0": "WCS-TAB", "PS1_1": "w", "PV1_1": 1, "PV1_2": 1, "PV1_3": 1}
    np.testing.assert_allclose(read(tmp_path, cards, table, snr=50).wavelength, wavelength, rtol=1e-9)


@pytest.mark.parametrize(
    "cards, word",
    [
        ({"CRVAL1": 1.0, "CDELT1": 1.0, "CRPIX1": 1.0}, "pixel numbers"),
        ({"CRVAL1": 0.0, "CDELT1": 1.0}, "pixel numbers"),
        ({"CRVAL1": 101.0, "CDELT1": 1.0, "CRPIX1": 1.0}, "pixel numbers"),
        ({"CRVAL1": 1.0, "CDELT1": 1.0, "CRPIX1": 1.0, "CUNIT1": "Angstrom"}, "pixel numbers"),
        ({"CRVAL1": 0.5, "CDELT1": 0.5, "CRPIX1": 1.0, "CTYPE1": "LINEAR"}, "pixel numbers"),
        ({"CTYPE1": "PIXEL", **LINEAR}, "counts pixels"),
        ({"CUNIT1": "pixel", **LINEAR}, "counts pixels"),
        ({"WAT1_001": "wtype=linear label=Pixel", **LINEAR}, "counts pixels"),
        ({"DC-FLAG": -1, **LINEAR}, "counts pixels"),
        ({"CTYPE1": "VELO", "CRVAL1": -1e5, "CDELT1": 100.0}, "velocities"),
        ({"CTYPE1": "VOPT-W2V", "CRVAL1": 1e5, "CDELT1": 100.0}, "VOPT-W2V"),
        ({"CUNIT1": "km/s", "CRVAL1": 10.0, "CDELT1": 0.5}, "velocities"),
        ({"CTYPE1": "RA---TAN", "CRVAL1": 180.0, "CDELT1": 0.01}, "RA---TAN"),
        ({"CRVAL1": 5110.0}, "step is missing"),
        ({**LINEAR, "CDELT1": 0.0}, "is 0"),
        ({**LINEAR, "DC-FLAG": 1}, "logarithm"),
        ({"CTYPE1": "LINEAR", "CDELT1": 0.05}, "no CRVAL1"),
        ({"CTYPE1": "LINEAR"}, "(400,)"),
        ({"CRVAL1": 511.0, "CDELT1": 0.005, "CRPIX1": 1.0}, "wavelength_unit="),
        ({"CTYPE1": "AWAV-TAB", "CRVAL1": 1.0, "CDELT1": 1.0, "PS1_0": "none"}, "AWAV-TAB"),
    ],
)
def test_what_is_not_wavelength_is_refused(tmp_path, cards, word):
    refused(tmp_path, cards, words=[word])


def test_rows_that_nobody_explains_are_asked_for(tmp_path):
    rows = image(np.stack([FLUX, SIGMA]), kind=fits.PrimaryHDU, **LINEAR)
    refused(tmp_path, rows, words=["2 rows", "--row", 'uncertainty_column="1"'])
    observation = read(tmp_path, rows, flux_column="0", uncertainty_column="1")
    np.testing.assert_allclose(observation.uncertainty, SIGMA)
    np.testing.assert_allclose(read(tmp_path, rows, row=0, snr=50).flux, FLUX)
    refused(tmp_path, rows, words=["row=2"], row=2)
    labelled = image(np.stack([FLUX, SIGMA]), kind=fits.PrimaryHDU, ARRAY1="Flux", ARRAY2="Error", **LINEAR)
    np.testing.assert_allclose(read(tmp_path, labelled).uncertainty, SIGMA)


def test_rows_of_wavelength_flux_and_uncertainty(tmp_path):
    observation = read(tmp_path, image(np.stack([AXIS, FLUX, SIGMA]), kind=fits.PrimaryHDU))
    np.testing.assert_allclose(observation.wavelength, AXIS)
    np.testing.assert_allclose(observation.uncertainty, SIGMA)
    refused(tmp_path, image(np.stack([np.arange(N) + 1.0, FLUX]), kind=fits.PrimaryHDU), words=["(2, 400)"])
    refused(
        tmp_path, image(FLUX, "FLUX"), image(np.arange(1.0, N + 1), "WAVE", BUNIT="Angstrom"), words=["pixel numbers"]
    )
    refused(tmp_path, image(np.ones((3, 4, N)), kind=fits.PrimaryHDU, **LINEAR), words=["(3, 4, 400)"])


# Images beside


@pytest.mark.parametrize(
    "names, second",
    [
        (("FLUX", "WAVE", "ERR"), SIGMA),
        (("SPEC", "WAVELENGTH", "IVAR"), SIGMA**-2),
        (("SCI", "LAMBDA", "VAR"), SIGMA**2),
        (("flux", "wave", "sigma"), SIGMA),
        (("FLUX_B", "WAVE_B", "ERR_B"), SIGMA),
        (("BLUE_FLUX", "BLUE_WAVELENGTH", "BLUE_IVAR"), SIGMA**-2),
    ],
)
def test_images_by_their_names(tmp_path, names, second):
    mask = np.zeros(N, dtype="i2")
    mask[7] = 4
    hdus = [image(a, name) for a, name in zip((FLUX, AXIS, second, mask, FLUX * 0), (*names, "MASK", "SKY"))]
    observation = read(tmp_path, *hdus)
    np.testing.assert_allclose(observation.wavelength, AXIS)
    np.testing.assert_allclose(observation.flux, FLUX)
    np.testing.assert_allclose(observation.uncertainty, SIGMA)
    assert (~observation.good).sum() == 1 and not observation.good[7]


def test_images_that_the_caller_names(tmp_path):
    mask = np.ones(N, dtype="i2")
    mask[7] = 0
    arrays = {"A": FLUX, "B": AXIS, "C": SIGMA, "D": mask, "ERR": 3 * SIGMA}
    named = {"flux_column": "a", "wavelength_column": "B", "uncertainty_column": "C", "mask_column": "!D"}
    hdus = [image(array, name) for name, array in arrays.items()]
    refused(tmp_path, *hdus)
    observation = read(tmp_path, *hdus, **named)
    np.testing.assert_allclose(observation.wavelength, AXIS)
    np.testing.assert_allclose(observation.uncertainty, SIGMA)
    assert list(np.flatnonzero(~observation.good)) == [7]
    good = read(tmp_path, image(FLUX, "FLUX", **LINEAR), image(SIGMA, "ERR"), image(mask, "GOODPIX"))
    assert list(np.flatnonzero(~good.good)) == [7]


def test_the_medium_and_unit_of_an_image_of_wavelengths(tmp_path):
    for name, medium in (("WAVE_AIR", "air"), ("WAVE_VAC", "vacuum")):
        hdus = image(FLUX, "FLUX"), image(AXIS / 10, name, BUNIT="nm"), image(SIGMA, "ERR")
        observation = read(tmp_path, *hdus, medium=None)
        np.testing.assert_allclose(observation.wavelength, AXIS)
        assert observation.medium == medium
    both = image(FLUX, "FLUX"), image(AXIS, "WAVE_AIR"), image(AXIS + 1.4, "WAVE_VAC"), image(SIGMA, "ERR")
    np.testing.assert_allclose(read(tmp_path, *both, medium="vacuum").wavelength, AXIS + 1.4)
    np.testing.assert_allclose(read(tmp_path, *both, medium="air").wavelength, AXIS)


def test_any_hdu(tmp_path):
    hdus = [image(FLUX * k, f"SCI_{k}", **LINEAR) for k in (1, 2, 3)] + [image(SIGMA, "ERR_2")]
    refused(tmp_path, *hdus, words=["several spectra", "2 'SCI_2'", "--hdu"])
    for hdu in (2, "2", "sci_2"):
        observation = read(tmp_path, *hdus, hdu=hdu)
        np.testing.assert_allclose(observation.flux, 2 * FLUX)
        np.testing.assert_allclose(observation.uncertainty, SIGMA)
    np.testing.assert_allclose(read(tmp_path, *hdus, hdu=3, snr=50).flux, 3 * FLUX)
    refused(tmp_path, *hdus, words=["no HDU 9"], hdu=9)
    refused(tmp_path, *hdus, words=["one spectrum", "order='3'"], hdu=2, order="3")
    refused(tmp_path, *hdus, words=["hdu=0 is no image"], hdu=0)
    np.testing.assert_allclose(read(tmp_path, image(FLUX, **LINEAR), snr=50).flux, FLUX)
    stars = (
        image(FLUX, kind=fits.PrimaryHDU, **LINEAR),
        fits.BinTableHDU.from_columns([fits.Column("ra", "D", array=[1.0]), fits.Column("dec", "D", array=[2.0])]),
    )
    np.testing.assert_allclose(read(tmp_path, *stars, snr=50).wavelength, AXIS)


def test_compressed_files(tmp_path):
    path = tmp_path / "star.fits.fz"
    flux = FLUX.astype("f4")[None]
    lossless = {"compression_type": "GZIP_2", "quantize_level": 0}
    hdus = [
        fits.PrimaryHDU(),
        *(fits.CompImageHDU(a, name=n, **lossless) for a, n in ((flux, "SCI"), (flux * 0.02, "ERR"))),
    ]
    hdus[1].header.update(LINEAR)
    fits.HDUList(hdus).writeto(path)
    observation = Observation.read(path, medium="air")
    np.testing.assert_allclose(observation.wavelength, AXIS)
    np.testing.assert_allclose(observation.flux, FLUX, rtol=1e-6)
    np.testing.assert_allclose(observation.uncertainty, FLUX * 0.02, rtol=1e-6)
    assert observation.name == "star"
    with gzip.open(tmp_path / "b.fits.gz", "wb") as file:
        file.write(path.read_bytes())
    np.testing.assert_allclose(Observation.read(tmp_path / "b.fits.gz", medium="air").flux, FLUX, rtol=1e-6)


def test_damaged_headers(tmp_path):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(FLUX, header_of(SPARE="x", **LINEAR)).writeto(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"SPARE   = 'x", b"SPARE   = x'"))  # no value at all
    np.testing.assert_allclose(Observation.read(path, medium="air", snr=50).wavelength, AXIS)
    path.write_bytes(content.replace(b"NAXIS   =                    1", b"NAXIS   =         999999999999"))
    with pytest.raises(ObservationError, match="NAXIS"):
        Observation.read(path, medium="air", snr=50)


def test_the_spectral_axis_need_not_be_the_first(tmp_path):
    cube = FLUX.reshape(N, 1, 1)
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CTYPE3": "AWAV",
        "CRVAL3": 5110.0,
        "CDELT3": 0.05,
        "CRPIX3": 1.0,
    }
    observation = read(tmp_path, image(cube, kind=fits.PrimaryHDU, **cards), snr=50, medium=None)
    np.testing.assert_allclose(observation.wavelength, AXIS)
    assert observation.medium == "air"
    cards = {"CTYPE2": "AWAV", "CRVAL2": 5110.0, "CDELT2": 0.05, "CRPIX2": 1.0}
    rows = image(np.stack([FLUX, SIGMA]).T, kind=fits.PrimaryHDU, **cards)
    np.testing.assert_allclose(read(tmp_path, rows, flux_column="0", uncertainty_column="1").uncertainty, SIGMA)
    np.testing.assert_allclose(spectral_axis(header_of(**cards), N, axis=2).values, AXIS)


# Orders


def test_orders_with_images_beside_them(tmp_path):
    wave = AXIS + 15 * np.arange(6)[:, None]
    blaze = np.sinc(0.6 * np.linspace(-1, 1, N)) ** 2 * np.ones((6, 1))
    star = 1 + 0.1 * np.sin(wave * 3)
    arrays = {"FLUX": star * blaze, "WAVE": wave, "ERR": 0.02 * np.sqrt(blaze), "BLAZE": blaze}
    hdus = [image(a, name) for name, a in arrays.items()]
    refused(tmp_path, *hdus, words=["holds 6 orders", "merge"])
    observation = read(tmp_path, *hdus, order="merge")
    np.testing.assert_allclose(observation.flux, 1 + 0.1 * np.sin(observation.wavelength * 3))
    assert observation.wavelength[0] == wave[0, 0] and observation.wavelength[-1] == wave[-1, -1]
    assert (np.diff(observation.wavelength) < 0.051).all()
    np.testing.assert_allclose(read(tmp_path, *hdus, order=2).flux, star[2])
    rows = read(tmp_path, *hdus[:1], image(AXIS, "WAVE"), *hdus[2:3], row=2)  # the same wavelengths for all
    np.testing.assert_allclose(rows.flux, arrays["FLUX"][2])


def test_spectra_of_several_stars_are_no_orders(tmp_path):
    wave = AXIS + 0.1 * np.arange(3)[:, None]
    hdus = image(np.stack([FLUX] * 3), "FLUX"), image(wave, "WAVE"), image(np.stack([SIGMA] * 3), "ERR")
    refused(tmp_path, *hdus, words=["3 rows", "row="], order="merge")
    np.testing.assert_allclose(read(tmp_path, *hdus, row=1).wavelength, wave[1])


def test_five_rows_without_a_word_of_their_survey(tmp_path):
    axis = 10 ** (3.7 + 1e-4 * np.arange(N))
    cards = {"COEFF0": 3.7, "COEFF1": 1e-4, "CRVAL1": 3.7, "CD1_1": 1e-4, "CRPIX1": 1.0}
    mask = np.arange(N) == 5
    for second, third in ((SIGMA**-2, axis), (FLUX - 1, SIGMA), (SIGMA, SIGMA * 0)):
        data = np.stack([FLUX, second, third, mask, mask]).astype("f4")
        observation = read(tmp_path, image(data, kind=fits.PrimaryHDU, **cards), medium=None)
        np.testing.assert_allclose(observation.wavelength, axis)
        np.testing.assert_allclose(observation.uncertainty, SIGMA, rtol=1e-6)
        assert observation.medium == "vacuum" and (~observation.good).sum() == 1
