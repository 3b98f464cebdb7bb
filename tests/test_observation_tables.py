"""Tables of spectra: masks, several in a file, values that cannot be; written by astropy, checked against what went in."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.utils.masked import Masked
from spectrum_tables import BAD, FLUX, SIGMA, WAVE, N, hdu, read, same

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation

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
