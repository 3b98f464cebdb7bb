"""Tables of spectra: masks, units, several in a file, values that cannot be; written by astropy, checked against what went in."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation
from emuinfer.observations.readers.units import parse_unit, with_unit

N = 400
WAVE = np.linspace(5110.0, 5150.0, N)
FLUX = 1 - 0.4 * np.exp(-0.5 * ((WAVE - 5130) / 0.3) ** 2)
SIGMA = np.linspace(0.01, 0.02, N)
BAD = np.zeros(N, bool)
BAD[40:50] = True


def hdu(name="SPECTRUM", header=(), **columns):
    """A binary table; a column is an array, or (array, unit), or an astropy Column."""
    made = []
    for key, value in columns.items():
        if not isinstance(value, fits.Column):
            values, unit = value if isinstance(value, tuple) else (value, None)
            form = {"i": "J", "f": "D", "b": "L", "u": "B"}[values.dtype.kind]
            size = values.shape[1] if values.ndim == 2 else ""
            value = fits.Column(key, f"{size}{form}", unit=unit, array=values)
        made.append(value)
    table = fits.BinTableHDU.from_columns(made, name=name)
    table.header.update(dict(header))
    return table


def read(path, *hdus, primary=(), **options):
    first = fits.PrimaryHDU()
    first.header.update(dict(primary))
    fits.HDUList([first, *hdus]).writeto(path / "a.fits", overwrite=True)
    return Observation.read(path / "a.fits", **{"medium": "air", **options})


def same(obs, sigma=SIGMA, rtol=1e-6):
    np.testing.assert_allclose(obs.wavelength, WAVE, rtol=1e-9)
    np.testing.assert_allclose(obs.flux[obs.good], FLUX[obs.good], rtol=rtol)
    np.testing.assert_allclose(obs.uncertainty[obs.good], sigma[obs.good], rtol=rtol)
    return obs


# Undefined values


def test_undefined_integers_are_left_out(tmp_path):
    """TNULL is a stored value, before TSCAL and TZERO (FITS standard 4.0, 7.3.2)."""
    counts = np.where(BAD, -999, np.round(FLUX * 1e4)).astype("i4")
    obs = read(tmp_path, hdu(wave=WAVE, flux=fits.Column("flux", "J", array=counts, null=-999), err=SIGMA * 1e4))
    np.testing.assert_array_equal(~obs.good, BAD)
    table = hdu(wave=WAVE, flux=fits.Column("flux", "J", array=counts, null=-999), err=SIGMA)
    table.header["TSCAL2"], table.header["TZERO2"] = 1e-4, 0.0
    table.header["TSCAL2"] = 1e-4
    np.testing.assert_array_equal(~same(read(tmp_path, table), rtol=1e-4).good, BAD)


def test_masked_columns(tmp_path):
    table = Table(
        {"wave": WAVE, "flux": MaskedColumn(FLUX, mask=BAD), "err": SIGMA, "qual": MaskedColumn(0 * BAD, BAD)}
    )
    table.write(tmp_path / "a.ecsv")
    np.testing.assert_array_equal(~same(Observation.read(tmp_path / "a.ecsv", medium="air")).good, BAD)
    np.testing.assert_array_equal(~Observation(WAVE, table["flux"], SIGMA, medium="air").good, BAD)
    quantity = Masked(FLUX * u.Jy, mask=BAD)
    obs = same(Observation(WAVE, quantity, SIGMA * 1e3 * u.mJy, medium="air"))
    np.testing.assert_array_equal(~obs.good, BAD)


@pytest.mark.parametrize("fill", [0.0, np.nan, -999.0])
def test_padding_is_dropped(tmp_path, fill):
    pad = lambda x: np.concatenate([np.full(20, fill), x, np.full(30, fill)])
    obs = same(read(tmp_path, hdu(wave=pad(WAVE), flux=pad(FLUX), err=pad(SIGMA), mask=pad(0 * WAVE) != 0)))
    assert obs.good.all() and "50 pixels dropped" in obs.notes[0]
    power = pad(np.full(N, 4e4))
    from emuinfer.observations.readers.plausible import plausible

    fields = plausible({"wavelength": pad(WAVE) * u.AA, "flux": pad(FLUX), "resolution": power})
    assert fields["resolution"].shape == (N,)


def test_a_wavelength_is_needed_where_there_is_flux(tmp_path):
    wave = WAVE.copy()
    wave[7] = np.nan
    with pytest.raises(ObservationError, match="number 7 is nan"):
        read(tmp_path, hdu(wave=wave, flux=FLUX, err=SIGMA))


@pytest.mark.parametrize("first", [0, 1])
def test_pixel_numbers_are_no_wavelengths(tmp_path, first):
    with pytest.raises(ObservationError, match="pixel numbers"):
        read(tmp_path, hdu(wave=(np.arange(9000.0) + first, "Angstrom"), flux=np.ones(9000), err=np.ones(9000)))
    with pytest.raises(ObservationError, match="pixel numbers"):
        Observation(np.arange(9000) + first, np.ones(9000), 0.01, medium="air")
    with pytest.raises(ObservationError, match="pixel numbers"):
        read(tmp_path, hdu(wave=(WAVE, "pixel"), flux=FLUX, err=SIGMA))


# Masks


@pytest.mark.parametrize("name", ["mask", "QUAL", "ANDMASK", "PIXMASK", "pixel_flags", "dq", "badpix"])
def test_masks_that_mark_bad_pixels(tmp_path, name):
    obs = same(read(tmp_path, hdu(wave=WAVE, flux=FLUX, err=SIGMA, **{name: 4 * BAD.astype(int)})))
    np.testing.assert_array_equal(~obs.good, BAD)


@pytest.mark.parametrize("name", ["good", "goodpix", "use", "valid", "GPM"])
@pytest.mark.parametrize("kind", [int, bool, float])
def test_masks_that_mark_good_pixels(tmp_path, name, kind):
    obs = same(read(tmp_path, hdu(wave=WAVE, flux=FLUX, err=SIGMA, **{name: (~BAD).astype(kind)})))
    np.testing.assert_array_equal(~obs.good, BAD)
    assert name in obs.notes[0] and "good" in obs.notes[0]


def test_mask_column_chooses_and_turns_round(tmp_path):
    columns = {"wave": WAVE, "flux": FLUX, "err": SIGMA, "cosmic": BAD.astype(int), "fine": (~BAD).astype(int)}
    for name in ("cosmic", "!fine"):
        obs = read(tmp_path, hdu(**columns), mask_column=name)
        np.testing.assert_array_equal(~obs.good, BAD)
        assert not obs.notes
    assert read(tmp_path, hdu(**columns)).good.all()
    with pytest.raises(ObservationError, match="no mask column 'cosmik'. Did you mean 'cosmic'"):
        read(tmp_path, hdu(**columns), mask_column="!cosmik")


def test_a_mask_that_leaves_out_most_is_noted(tmp_path):
    obs = read(tmp_path, hdu(wave=WAVE, flux=FLUX, err=SIGMA, mask=(~BAD).astype(int)))
    assert obs.good.sum() == 10 and "leaves out 390 of 400 pixels" in obs.notes[0] and '"!NAME"' in obs.notes[0]
    assert "leaves out 390" in Observation(WAVE, FLUX, SIGMA, mask=~BAD, medium="air").notes[0]
    assert "leaves out" in repr(obs)


def test_mask_of_pypeit_by_its_header(tmp_path):
    """Where the format is not recognised as a whole, `mask` is still 1 for good pixels: pypeit.readthedocs.io, out_onespec."""
    table = hdu(name="X", wave=WAVE, counts=FLUX, sigma=SIGMA, mask=(~BAD).astype(int))
    obs = same(read(tmp_path, table, primary={"PYP_SPEC": "keck_hires"}))
    np.testing.assert_array_equal(~obs.good, BAD)


def test_several_masks_count_together(tmp_path):
    other = np.roll(BAD, 100)
    obs = read(tmp_path, hdu(wave=WAVE, flux=FLUX, err=SIGMA, qual=BAD.astype(int), good=(~other).astype(int)))
    np.testing.assert_array_equal(~obs.good, BAD | other)
    assert any("qual, good" in note for note in obs.notes)


# Units


@pytest.mark.parametrize(
    "text, factor",
    [
        (t, 1.0)
        for t in ("ANGSTROM", "Angstroms", "A", "AA", "[Angstrom]", "(ang)", "Wavelength (Ang)", "Angstrom (vacuum)")
    ]
    + [(t, 0.1) for t in ("NM", "nm", "nanometers", "NANOMETER", "[nm]")]
    + [(t, 1e-4) for t in ("UM", "um", "micron", "MICRONS", "micrometre")]
    + [("m", 1e-10), ("cm", 1e-8)],
)
def test_units_of_wavelength(tmp_path, text, factor):
    same(read(tmp_path, hdu(wave=(WAVE * factor, text), flux=FLUX, err=SIGMA)))


@pytest.mark.parametrize(
    "name, unit, values",
    [
        ("wave", "log10(Angstrom)", np.log10(WAVE)),
        ("wave", "LOG(ANGSTROM)", np.log10(WAVE)),
        ("wave", "dex(Angstrom)", np.log10(WAVE)),
        ("wave", "log(nm)", np.log10(WAVE / 10)),
        ("wave", "ln(Angstrom)", np.log(WAVE)),
        ("wave", "log10(lambda/Angstrom)", np.log10(WAVE)),
        ("loglam", None, np.log10(WAVE)),
        ("LogLambda", "Angstrom", np.log10(WAVE)),
        ("log_wave", None, np.log10(WAVE)),
        ("log10_wavelength", None, np.log10(WAVE)),
        ("lnlambda", None, np.log(WAVE)),
        ("ln_wave", "nm", np.log(WAVE / 10)),
        ("loglambda", "Angstrom", WAVE),  # uniform in the logarithm, but given in full
        ("wavelength_nm", None, WAVE / 10),
    ],
)
def test_logarithms_of_wavelength(tmp_path, name, unit, values):
    same(read(tmp_path, hdu(**{name: (values, unit)}, flux=FLUX, err=SIGMA)))


def test_logarithm_given_by_the_caller(tmp_path):
    same(read(tmp_path, hdu(wave=np.log10(WAVE), flux=FLUX, err=SIGMA), wavelength_unit="log10(Angstrom)"))
    with pytest.raises(ObservationError, match="log10"):
        read(tmp_path, hdu(wave=np.log10(WAVE), flux=FLUX, err=SIGMA))
    with pytest.raises(ObservationError, match="'furlong-ish' is not known"):
        read(tmp_path, hdu(wave=(WAVE, "furlong-ish"), flux=FLUX, err=SIGMA))


@pytest.mark.parametrize(
    "text",
    [
        "10^-17 erg/s/cm^2/Ang",
        "10**-17 erg/(s cm2 Angstrom)",
        "10**(-17)erg.cm**(-2).s**(-1).angstrom**(-1)",  # as ESO writes
        "1E-17 erg/cm^2/s/Ang",
        "10(-17)erg/cm/s/cm/A",
        "Flux (10^-17 ergs/s/cm^2/A)",
        "1e-17 ERG CM-2 S-1 ANGSTROM-1",
        "10-17 erg/s/cm2/Å",
        "(10^-17 erg/s/cm^2/A)",
    ],
)
def test_units_of_flux(text):
    assert parse_unit(text).to(1e-17 * u.erg / u.s / u.cm**2 / u.AA) == pytest.approx(1)


def test_flux_and_error_in_different_units(tmp_path):
    cgs = "erg/s/cm2/Angstrom"
    columns = lambda unit, sigma, name="err": {"wave": WAVE, "flux": (FLUX * 5, f"10^-17 {cgs}"), name: (sigma, unit)}
    sigma = 5 * SIGMA
    for unit, values, name in [
        (cgs, sigma * 1e-17, "err"),
        ("1e-18 " + cgs, sigma * 10, "err"),
        (f"(1e-17 {cgs})2", sigma**2, "variance"),
        (f"(1e-18 {cgs})-2", (sigma * 10) ** -2, "ivar"),
        (None, sigma, "err"),
    ]:
        obs = read(tmp_path, hdu(**columns(unit, values, name)))
        np.testing.assert_allclose(obs.uncertainty, sigma, rtol=1e-6)
    with pytest.raises(ObservationError, match="cannot be converted"):
        read(tmp_path, hdu(**columns("adu", sigma)))
    obs = read(tmp_path, hdu(**columns("strange", sigma)))
    assert "same unit" in obs.notes[0]
    per_frequency = (sigma * 1e-17 * u.erg / u.s / u.cm**2 / u.AA).to_value(u.mJy, u.spectral_density(WAVE * u.AA))
    np.testing.assert_allclose(read(tmp_path, hdu(**columns("mJy", per_frequency))).uncertainty, sigma, rtol=1e-6)


def test_quantities_in_different_units():
    flux = FLUX * u.Jy
    for sigma in (
        SIGMA * 1e3 * u.mJy,
        StdDevUncertainty(SIGMA * 1e3, unit=u.mJy),
        VarianceUncertainty(SIGMA**2 * 1e6, unit=u.mJy**2),
        InverseVariance(SIGMA**-2, unit=u.Jy**-2),
        InverseVariance(SIGMA**-2),
        SIGMA,
    ):
        same(Observation(WAVE, flux, sigma, medium="air"))
    same(Observation(WAVE, FLUX, InverseVariance(SIGMA**-2), medium="air"))
    for flux, sigma, words in [
        (FLUX * u.Jy, SIGMA * u.adu, "cannot be converted"),
        (FLUX, SIGMA * u.mJy, "the flux has none"),
        (FLUX * u.mag, SIGMA * u.mag, "logarithm"),
        (FLUX * u.ABmag, SIGMA, "logarithm"),
        (FLUX, UnknownUncertainty(SIGMA), "type 'unknown'"),
    ]:
        with pytest.raises(ObservationError, match=words):
            Observation(WAVE, flux, sigma, medium="air")


def test_columns_that_say_the_same(tmp_path):
    """PypeIt has `ivar` and `sigma`; others a wavelength twice. Where they differ, the caller must choose."""
    columns = {"wave": WAVE, "flux": FLUX, "ivar": SIGMA**-2.0, "sigma": SIGMA}
    same(read(tmp_path, hdu(**columns, loglam=np.log10(WAVE))))
    with pytest.raises(ObservationError, match="wave, wavelength.*wavelength_column="):
        read(tmp_path, hdu(**columns, wavelength=WAVE + 3))
    with pytest.raises(ObservationError, match="ivar, sigma.*uncertainty_column="):
        read(tmp_path, hdu(**{**columns, "sigma": 2 * SIGMA}))
    media = {"wave_air": WAVE, "wave_vac": WAVE * 1.00028, "flux": FLUX, "err": SIGMA}
    assert read(tmp_path, hdu(**media), medium="vacuum").wavelength[0] > 5111


# Several tables, rows of arrays


def test_arms_in_tables_of_one_file(tmp_path):
    """As LAMOST's COADD_B and COADD_R of stars that no product reader knows: neither is taken without being asked for."""
    arm = lambda shift, name: hdu(name=name, WAVE=(WAVE + shift, "Angstrom"), FLUX=FLUX, ERR=SIGMA)
    arms = [arm(1300, "RED"), arm(0, "BLUE")]
    with pytest.raises(ObservationError, match=r"BLUE \(5110 to 5150.*RED \(6410 to 6450"):
        read(tmp_path, *arms)
    other = hdu(name="ALSO", LAM=WAVE + 1300, FLUX=FLUX, ERR=SIGMA)  # other columns: no arm of the same instrument
    with pytest.raises(ObservationError, match=r"1: ALSO \(6410 to 6450 Å\), 2: BLUE \(5110 to 5150 Å\).*hdu="):
        read(tmp_path, other, arms[1])
    for choice in ("BLUE", "blue", 2, "2"):
        same(read(tmp_path, *arms, hdu=choice))


def test_a_coadd_before_its_exposures(tmp_path):
    piece = lambda part, name: hdu(name=name, wave=WAVE[part], flux=FLUX[part], err=SIGMA[part])
    tables = [piece(slice(0, 200), "B1"), piece(slice(None), "COADD"), piece(slice(200, None), "R1")]
    obs = same(read(tmp_path, *tables, hdu(name="STARS", a=SIGMA, b=SIGMA)))
    assert "table 2: COADD" in obs.notes[0] and "1: B1" in obs.notes[0] and "3: R1" in obs.notes[0]
    assert "STARS" not in obs.notes[0]


def test_rows_of_arrays(tmp_path):
    rows = {"wave": np.stack([WAVE, WAVE]), "flux": np.stack([FLUX, 2 * FLUX]), "err": np.stack([SIGMA, SIGMA])}
    with pytest.raises(ObservationError, match="2 spectra, one per row: give row=0 to 1"):
        read(tmp_path, hdu(**rows))
    np.testing.assert_allclose(read(tmp_path, hdu(**rows), row=1).flux, 2 * FLUX)
    with pytest.raises(ObservationError, match="row=2"):
        read(tmp_path, hdu(**rows), row=2)
    variable = [
        fits.Column(n, "PD()", array=np.array([v[:-k], v], dtype=object))
        for k, (n, v) in enumerate([("wave", WAVE), ("flux", FLUX), ("err", SIGMA)], start=1)
    ]
    same(read(tmp_path, fits.BinTableHDU.from_columns(variable), row=1))


# What cannot be


@pytest.mark.parametrize("value", [0.13, 2.5, 0.0, -1, 1e9, "unknown"])
def test_resolving_powers_that_cannot_be(tmp_path, value):
    obs = read(tmp_path, hdu(wave=WAVE, flux=FLUX, err=SIGMA, header={"SPEC_RES": value}))
    assert obs.resolution is None
    assert bool(obs.notes) == (value in (0.13, 2.5, 1e9))
    assert read(tmp_path, hdu(wave=WAVE, flux=FLUX, err=SIGMA, header={"SPEC_RES": value}), resolution=4e4).resolution


@pytest.mark.parametrize("errors", [np.nan * FLUX, 0 * FLUX, -1 + 0 * FLUX, FLUX])
def test_errors_that_cannot_be(tmp_path, errors):
    table = hdu(wave=WAVE, flux=FLUX, err=errors)
    obs = read(tmp_path, table, primary={"SNR": 80.0})
    assert 70 < obs.snr < 81 and "count as absent" in obs.notes[0] and "ratio 80" in obs.notes[1]
    with pytest.raises(ObservationError, match="no uncertainties.*count as absent.*snr="):
        read(tmp_path, table)
    assert 25 < read(tmp_path, table, snr=30).snr < 31


@pytest.mark.parametrize(
    "value, medium", [("T", "vacuum"), ("yes", "vacuum"), (True, "vacuum"), (1, "vacuum"), ("F", "air"), (0, "air")]
)
def test_vacuum_as_text(tmp_path, value, medium):
    obs = read(tmp_path, hdu(wave=WAVE, flux=FLUX, err=SIGMA, header={"VACUUM": value}), medium=None)
    assert obs.medium == medium


# Self-describing text, and specutils


@pytest.mark.parametrize("format", ["votable", "ascii.ipac", "ascii.mrt", "ascii.ecsv"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tables_that_astropy_reads(tmp_path, format):
    table = QTable({"wave": WAVE / 10 * u.nm, "flux": FLUX * u.Jy, "err": SIGMA * 1e3 * u.mJy})
    table.write(tmp_path / "a.dat", format=format)
    same(Observation.read(tmp_path / "a.dat", medium="air"), rtol=1e-6)


@pytest.mark.comparison
def test_spectrum_of_specutils():
    from specutils import Spectrum, SpectrumList

    make = lambda axis, **kwargs: Spectrum(spectral_axis=axis, flux=FLUX * u.Jy, **kwargs)
    sigma = VarianceUncertainty(SIGMA**2 * 1e6, unit=u.mJy**2)
    read = lambda spectrum: Observation.from_spectrum(spectrum, medium="vacuum")
    same(read(make(WAVE * u.AA, uncertainty=sigma)))
    frequency = (WAVE * u.AA).to(u.GHz, u.spectral())
    same(read(make(frequency, uncertainty=sigma)))
    with pytest.raises(ObservationError, match="velocity.*rest value"):
        read(make(np.linspace(-100, 100, N) * u.km / u.s, uncertainty=sigma))
    velocity = (WAVE * u.AA).to(u.km / u.s, u.doppler_optical(5130 * u.AA))
    options = {"velocity_convention": "optical", "rest_value": 5130 * u.AA}
    same(read(make(velocity, uncertainty=sigma, **options)))
    obs = same(read(make(WAVE * u.AA, uncertainty=sigma, radial_velocity=30 * u.km / u.s)))
    assert "30.00 km/s" in obs.notes[0]
    with pytest.raises(ObservationError, match="unknown"):
        read(make(WAVE * u.AA, uncertainty=UnknownUncertainty(SIGMA)))
    with pytest.raises(ObservationError, match="pick one"):
        read(SpectrumList([make(WAVE * u.AA)]))


def test_units_by_themselves():
    np.testing.assert_allclose(with_unit(np.log10(WAVE), "[log10(Angstrom)]").to_value(u.AA), WAVE)
    assert parse_unit("") is None and parse_unit("Flux") is None and parse_unit("ADU") == u.adu
