"""Units of wavelength, flux and uncertainty in tables, quantities and specutils' Spectrum; columns that say the same."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.table import MaskedColumn, QTable, Table
from spectrum_tables import BAD, FLUX, SIGMA, WAVE, N, hdu, read, same

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation
from emuinfer.observations.readers.units import parse_unit, with_unit


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


def test_columns_of_a_table_as_arrays():
    """A column is no quantity, but has a unit all the same; in the spelling of its file astropy may not know it."""
    table = Table({"wave": WAVE / 10, "flux": MaskedColumn(FLUX, mask=BAD), "err": SIGMA * 1e3})
    for units in (("nm", "Jy", "mJy"), ("NM", "JY", "mJy")):
        for name, unit in zip(table.colnames, units):
            table[name].unit = u.Unit(unit, parse_strict="silent")
        obs = same(Observation(table["wave"], table["flux"], table["err"], medium="air"))
        np.testing.assert_array_equal(~obs.good, BAD)
    same(Observation(np.log10(WAVE) * u.dex(u.AA), FLUX, SIGMA, medium="air"))
    with pytest.raises(ObservationError, match="number 3 is nan"):
        Observation(np.ma.array(WAVE, mask=np.arange(N) == 3), FLUX, SIGMA, medium="air")
    with pytest.raises(ObservationError, match="not a length"):
        Observation(Table({"wave": WAVE * u.kg})["wave"], FLUX, SIGMA, medium="air")
