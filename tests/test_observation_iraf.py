"""Spectra of IRAF: multispec, and the bands of apall."""

import numpy as np
import pytest
from astropy.io import fits
from fits_images import AXIS, FLUX, LINEAR, SIGMA, N, header_of, image, read, refused

from emuinfer.errors import ObservationError
from emuinfer.observations.readers.iraf import multispec


def wat_cards(text, axis=2, width=68):
    return {f"WAT{axis}_{i + 1:03d}": text[i * width : (i + 1) * width] for i in range(-(-len(text) // width))}


def multispec_header(*specs, **cards):
    text = "wtype=multispec " + " ".join(f'spec{i} = "{spec}"' for i, spec in enumerate(specs, start=1))
    wat1 = "wtype=multispec label=Wavelength units=angstroms"
    return {"CTYPE1": "MULTISPE", "CTYPE2": "MULTISPE", "WCSDIM": 2, "CDELT1": 1.0, "CD1_1": 1.0, "LTM1_1": 1.0} | {
        "WAT0_001": "system=multispec",
        "WAT1_001": wat1,
        **wat_cards(text),
        **cards,
    }


SPECS = (
    f"1 113 0 5110.123456789 0.0512345678901234 {N} 0. 23.22 31.27",
    f"2 112 0 5160.5 0.052 {N} 0.0001 23.22 31.27",
    f"3 111 1 3.72 4.4E-6 {N} 0. 1. 2.",
    f"4 110 2 5230.0 0.05 {N} 0. 1. 2. 1. 0. 1 4 1. {N}. 5240. 10. 0.3 -0.02",
    f"5 109 2 5230.0 0.05 {N} -1e-4 1. 2. 1. 0. 2 3 1. {N}. 5300. 11. 0.2",
)


@pytest.mark.comparison
def test_multispec_agrees_with_specutils(tmp_path):
    from specutils.io.default_loaders.wcs_fits import _read_non_linear_iraf_wcs

    for pad in range(6):  # the cards break elsewhere, also at blanks
        header = fits.PrimaryHDU(
            np.ones((5, N)), header_of(**multispec_header(SPECS[0] + " " * pad, *SPECS[1:]))
        ).header
        fits.PrimaryHDU(np.ones((5, N)), header).writeto(tmp_path / "a.fits", overwrite=True)
        header = fits.getheader(tmp_path / "a.fits")
        expected = _read_non_linear_iraf_wcs(header, 2)
        # specutils begins a linear axis at pixel 1 as IRAF does, and a log-linear one too
        np.testing.assert_allclose(multispec(header, N, 5), expected, rtol=1e-13)


@pytest.mark.comparison
@pytest.mark.parametrize("kind, degree", [(3, 3), (4, 1)])
def test_splines_of_multispec_agree_with_scipy(kind, degree):
    from scipy.interpolate import BSpline

    pieces, coefficients = 5, 5000 + np.cumsum(np.random.default_rng(1).uniform(5, 9, 5 + degree))
    knots = np.arange(-degree, pieces + degree + 1.0)
    spline = BSpline(knots, coefficients * (6 if degree == 3 else 1), degree)
    text = f"1 1 2 0 0 {N} 0. 1. 2. 1. 0. {kind} {pieces} 1. {N}. " + " ".join(f"{c:.17g}" for c in coefficients)
    got = multispec(header_of(**multispec_header(text)), N, 1)[0]
    np.testing.assert_allclose(got, spline(np.linspace(0, pieces, N)), rtol=1e-12)


def test_multispec_by_its_definition():
    header = header_of(**multispec_header(*SPECS[:3], LTV1=-10.0, LTM1_1=0.5))
    p = (np.arange(1, N + 1) + 10) / 0.5
    got = multispec(header, N, 3)
    np.testing.assert_allclose(got[1], (5160.5 + 0.052 * (p - 1)) / 1.0001)
    np.testing.assert_allclose(got[2], 10 ** (3.72 + 4.4e-6 * (p - 1)))
    short = multispec(header_of(**multispec_header(f"1 1 0 5110 0.05 {N - 3} 0. 1. 2.")), N, 1)
    assert np.isnan(short[0, -3:]).all() and np.isfinite(short[0, :-3]).all()
    two = f"1 1 2 0 0 {N} 0. 1. 2. 0.25 0. 1 1 1. {N}. 5000. 0.75 4. 2 1 1. {N}. 5200."
    np.testing.assert_allclose(multispec(header_of(**multispec_header(two)), N, 1), 0.25 * 5000 + 0.75 * 5204)


def test_multispec_files(tmp_path):
    data = np.stack([FLUX * (k + 1) for k in range(5)])
    orders = image(data, kind=fits.PrimaryHDU, **multispec_header(*SPECS))
    refused(tmp_path, orders, words=["holds 5 orders", "0: 5110 to 5131", "--order"])
    observation = read(tmp_path, orders, order=1, snr=50)
    np.testing.assert_allclose(observation.wavelength, (5160.5 + 0.052 * np.arange(N)) / 1.0001)
    np.testing.assert_allclose(observation.flux, data[1])
    assert len(read(tmp_path, orders, order="merge", snr=50)) > 4 * N
    one = image(data[:1], kind=fits.PrimaryHDU, **multispec_header(SPECS[3]))
    assert len(read(tmp_path, one, snr=50)) == N
    none = image(data[:2], kind=fits.PrimaryHDU, **multispec_header(*(f"{i} 1 -1 1. 1. {N} 0. 1. 2." for i in (1, 2))))
    refused(tmp_path, none, words=["dispersion type -1"], order=0)
    pixels = image(data[:2], kind=fits.PrimaryHDU, **multispec_header(*(f"{i} 1 0 1. 1. {N} 0. 1. 2." for i in (1, 2))))
    refused(tmp_path, pixels, words=["pixel numbers"], order=0)
    array = image(data[:1], kind=fits.PrimaryHDU, **multispec_header(f"1 1 2 0 0 {N} 0. 1. 2. 1. 0. 5 2 1. 2."))
    refused(tmp_path, array, words=["pixel array"])
    refused(tmp_path, image(data, kind=fits.PrimaryHDU, **multispec_header(*SPECS[:3])), words=["spec4 is missing"])


@pytest.mark.parametrize("terms", ["-3 1. 400.", "0 1. 400.", "4 1. 1.", "4 1. 400. 5240."])
def test_functions_that_are_none(terms):
    with pytest.raises(ObservationError, match="spec1"):
        multispec(header_of(**multispec_header(f"1 1 2 0 0 {N} 0. 1. 2. 1. 0. 1 {terms}")), N, 1)


BANDIDS = {
    "BANDID1": "spectrum - background fit, weights variance, clean yes",
    "BANDID2": "raw - background fit, weights none, clean no",
    "BANDID3": "background - background fit",
    "BANDID4": "sigma - background fit, weights variance, clean yes",
}


def test_bands_of_iraf(tmp_path):
    bands = np.stack([FLUX, 2 * FLUX, 0.1 * FLUX, SIGMA])[:, None, :]
    observation = read(tmp_path, image(bands, kind=fits.PrimaryHDU, **LINEAR, **BANDIDS))
    np.testing.assert_allclose(observation.wavelength, AXIS)
    np.testing.assert_allclose(observation.flux, FLUX)
    np.testing.assert_allclose(observation.uncertainty, SIGMA)
    assert any("sigma - background fit" in note for note in observation.notes)
    raw = read(tmp_path, image(bands, kind=fits.PrimaryHDU, **LINEAR, **BANDIDS), flux_column="raw")
    np.testing.assert_allclose(raw.flux, 2 * FLUX)
    orders = np.stack([bands[:, 0], 3 * bands[:, 0]], axis=1)
    two = image(orders, kind=fits.PrimaryHDU, **multispec_header(*SPECS[:2]), **BANDIDS)
    observation = read(tmp_path, two, order=1)
    np.testing.assert_allclose(observation.flux, 3 * FLUX)
    np.testing.assert_allclose(observation.uncertainty, 3 * SIGMA)
    for unlabelled in (image(orders, kind=fits.PrimaryHDU, **multispec_header(*SPECS[:2])),):
        np.testing.assert_allclose(read(tmp_path, unlabelled, order=1).uncertainty, 3 * SIGMA)
