"""Users' tables as tokens: names, units, spectra, holes."""

import itertools

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, QTable, Table

from emuinfer.errors import TokenError
from emuinfer.tokens import Vocabulary, check_plausible, stars_tokens, table_tokens, tokens_of, xp
from emuinfer.tokens.stars import kinds, samples_of

PLAIN = Vocabulary(kinds(), "stars-xp")


def value(tokens, name):
    return tokens.values[:, tokens.vocabulary.index(name)]


def error(tokens, name):
    return tokens.errors[:, tokens.vocabulary.index(name)]


@pytest.fixture(scope="module")
def kit(shared_data):
    from emuinfer.files import read_arrays

    arrays = read_arrays(shared_data / "foundation" / "stars_xp_apogee.npz")
    rows = {"source_id", "labels", "split", "coef_q", "err_q"}
    return {name: array[::80] if name in rows else array for name, array in arrays.items()}


@pytest.fixture(scope="module")
def stars(kit):
    return stars_tokens(kit)


def planck(n=4, seed=0):
    """Spectra of black bodies, W m-2 nm-1, and errors of 1 %."""
    wavelength = xp.WAVELENGTHS * 1e-9
    temperature = np.random.default_rng(seed).uniform(4000, 8000, n)[:, None]
    flux = 1e-16 * (5e-7 / wavelength) ** 5 / np.expm1(0.0143878 / wavelength / temperature)
    return flux, 0.01 * flux


def test_names_of_gaia_and_2mass_make_colours():
    table = Table(
        {
            "source_id": np.array([5, 6], dtype=np.int64),
            "phot_g_mean_mag": [12.0, 13.0],
            "phot_bp_mean_mag": [12.5, 13.7],
            "phot_rp_mean_mag": [11.4, 12.1],
            "phot_bp_mean_flux_over_error": [100.0, 0.0],
            "phot_rp_mean_flux_over_error": [200.0, 10.0],
            "j_m": [10.5, np.nan],
            "j_msigcom": [0.03, 0.02],
            "h_m": [10.1, 10.0],
            "h_msigcom": [0.04, np.nan],
            "parallax": [-0.3, 2.0],
            "teff_gspphot": [5000.0, 5100.0],
        }
    )
    tokens, aside = table_tokens(table, PLAIN)
    np.testing.assert_allclose(value(tokens, "bp_rp"), [1.1, 1.6])
    np.testing.assert_allclose(value(tokens, "g_rp"), [0.6, 0.9])
    np.testing.assert_allclose(value(tokens, "j_h"), [0.4, np.nan])
    np.testing.assert_allclose(error(tokens, "j_h"), [0.05, np.nan])
    np.testing.assert_allclose(error(tokens, "bp_rp"), [2.5 / np.log(10) * np.hypot(1 / 100, 1 / 200), np.nan])
    assert tokens.key_name == "source_id" and tokens.keys.tolist() == [5, 6]
    assert not np.isfinite(value(tokens, "g_k")).any() and not np.isfinite(value(tokens, "teff")).any()
    assert aside["parallax"].tolist() == [-0.3, 2.0]  # as it is: no logarithm of it is taken
    assert any("kept aside: parallax, teff_gspphot" in note for note in tokens.notes)


@pytest.mark.parametrize("form", ["e_{}", "{}_error", "{}_err", "{}_ERR"])
def test_errors_of_kinds_by_their_names(form):
    tokens = tokens_of({"TEFF": [5000.0], form.format("teff"): [60.0], "logg": [4.4]}, PLAIN)
    assert value(tokens, "teff") == 5000 and error(tokens, "teff") == 60 and np.isnan(error(tokens, "logg"))


def test_a_column_of_its_own_comes_before_the_difference_of_magnitudes():
    table = {"j_h": [0.5, np.nan], "j_m": [10.0, 10.0], "h_m": [9.6, 9.6]}
    np.testing.assert_allclose(value(tokens_of(table, PLAIN), "j_h"), [0.5, 0.4])


def test_a_mapping_of_one_star():
    flux, _ = planck(1)
    tokens = tokens_of({"xp": flux[0], "j_h": 0.41, "teff": (5777, 60)}, PLAIN)
    assert len(tokens) == 1
    assert (value(tokens, "j_h"), value(tokens, "teff"), error(tokens, "teff")) == (0.41, 5777, 60)
    assert np.isfinite(tokens.values[:, PLAIN.group("xp_coefficients")]).all()
    assert tokens_of(tokens, PLAIN) is tokens


def test_pandas_with_holes():
    pandas = pytest.importorskip("pandas")
    flux, sigma = planck(3)
    frame = pandas.DataFrame({"source_id": [1, 2, 3], "flux": [flux[0], None, flux[2]], "flux_error": list(sigma)})
    frame["teff"] = pandas.array([5000, None, 6000], dtype="Int64")
    tokens = tokens_of(frame, PLAIN, spectrum="bins")
    np.testing.assert_array_equal(value(tokens, "teff"), [5000, np.nan, 6000])
    assert tokens.seen[:, PLAIN.index("xp_bin_500")].tolist() == [True, False, True]


def test_a_column_map_with_units_and_columns_left_out():
    table = Table({"T": [5.0], "JH": [410.0], "logg": [4.0], "who": ["HD 1"]})
    columns = {"teff": ("T", "kK"), "j_h": ("JH", "mmag"), "logg": None}
    tokens = tokens_of(table, PLAIN, columns=columns, key="who")
    np.testing.assert_allclose([value(tokens, "teff")[0], value(tokens, "j_h")[0]], [5000.0, 0.41])
    assert not tokens.seen[0, PLAIN.index("logg")] and tokens.keys.tolist() == ["HD 1"]
    with pytest.raises(TokenError, match="names 'tef', .*Did you mean 'teff'"):
        tokens_of(table, PLAIN, columns={"tef": "T"})
    with pytest.raises(TokenError, match="column 'TT', which is not there. Did you mean 'T'"):
        tokens_of(table, PLAIN, columns={"teff": "TT"})
    with pytest.raises(TokenError, match="no column 'whom'.*'who'"):
        tokens_of(table, PLAIN, key="whom")


def test_units_are_converted_or_refused_by_name():
    table = QTable({"teff": [5.0] * u.kK, "e_teff": [60.0] * u.K, "bp_rp": [820.0] * u.mmag})
    tokens = tokens_of(table, PLAIN)
    np.testing.assert_allclose(
        [value(tokens, "teff")[0], error(tokens, "teff")[0], value(tokens, "bp_rp")[0]], [5e3, 60, 0.82]
    )
    for unit in ("dex", "log(cm.s**-2)", "log cm s^-2", "[cm/s2]", ""):
        assert (
            value(tokens_of(Table({"logg": [4.4]}, units=[unit] if unit in ("", "dex") else None), PLAIN), "logg")
            == 4.4
        )
        column = MaskedColumn([4.4], name="logg")
        column.unit = u.Unit(unit, parse_strict="silent")
        assert value(tokens_of(Table([column]), PLAIN), "logg") == 4.4
    for name, unit in (("bp_rp", "Jy"), ("teff", "mag"), ("logg", "cm / s2"), ("phot_g_mean_mag", "nJy")):
        with pytest.raises(TokenError, match=f"column '{name}' has the unit '{unit}'"):
            tokens_of(Table({name: [1.0]}, units=[unit]), PLAIN)


def test_missing_values_of_all_kinds_stay_missing():
    table = Table(
        {
            "teff": MaskedColumn([5000.0, 5100.0, -9999.0, 0.0], mask=[True, False, False, False]),
            "logg": ["4.4", "null", "--", ""],
            "fe_h": [0.1, np.inf, -9999.99, np.nan],
            "j_m": [99.999, 10, 11, 12],
            "h_m": [9.0, 9.5, -99.0, 9.0],
        }
    )
    fitted = Vocabulary(
        [*kinds()[:-3], *(k.__class__(k.name, k.unit, k.group, lower=-3, upper=1) for k in kinds()[-3:])]
    )
    tokens = tokens_of(table, fitted)
    seen = lambda name: tokens.seen[:, fitted.index(name)].tolist()
    assert seen("teff") == [False, True, False, False]
    assert seen("logg") == [True, False, False, False]
    assert seen("fe_h") == [True, False, False, False]
    assert seen("j_h") == [False, True, False, True]
    assert any("such as -9999" in note for note in tokens.notes)
    assert any("not positive" in note and "teff (2)" in note for note in tokens.notes)


def test_tables_of_which_nothing_is_known_say_what_is():
    with pytest.raises(TokenError, match=r"(?s)No column.*did 'teff_k' mean.*labels: teff, logg.*columns="):
        tokens_of({"teff_k": [1.0], "colour": [2.0]}, PLAIN)
    with pytest.raises(TokenError, match="int is no table"):
        tokens_of(3, PLAIN)
    with pytest.raises(TokenError, match="'teff' holds 'hot'"):
        tokens_of({"teff": ["hot"]}, PLAIN)
    with pytest.raises(TokenError, match="'teff' has 3 entries and 'logg' 2"):
        tokens_of({"teff": [1, 2, 3], "logg": [1, 2]}, PLAIN)
    with pytest.raises(TokenError, match="another vocabulary"):
        tokens_of(tokens_of({"teff": 1.0}, PLAIN), Vocabulary(kinds()[:3]))


def test_rows_are_kept_in_order_and_number_duplicated_or_empty():
    table = {"source_id": [7, 7, 8], "teff": [5000.0, 5000.0, np.nan]}
    tokens = tokens_of(table, PLAIN)
    assert tokens.keys.tolist() == [7, 7, 8] and not tokens[2].seen.any()
    assert not tokens_of(Table({"teff": np.full(3, np.nan), "flux": np.full((3, 343), np.nan)}), PLAIN).seen.any()
    assert len(tokens_of(Table({"teff": []}), PLAIN)) == 0


TEXTS = {"round": "({})", "square": "[{}]", "quoted": '"[{}]"', "bare": "{}"}


@pytest.mark.parametrize("brackets", TEXTS)
def test_spectra_as_vectors_and_as_texts_are_the_same(brackets):
    flux, sigma = planck()
    plain = tokens_of(Table({"flux": flux, "flux_error": sigma}), PLAIN, spectrum="both")
    write = lambda rows: [TEXTS[brackets].format(", ".join(map(repr, row.tolist()))) for row in rows]
    text = tokens_of({"flux": write(flux), "flux_error": write(sigma)}, PLAIN, spectrum="both")
    np.testing.assert_array_equal(plain.values, text.values)
    np.testing.assert_array_equal(plain.errors, text.errors)
    np.testing.assert_allclose(plain.values[:, 90:158], (flux / xp.mean_flux(flux))[:, :340].reshape(4, 68, 5).mean(2))
    np.testing.assert_allclose(plain.errors[:, 90:158] / plain.values[:, 90:158], 0.01)


def test_one_context_has_coefficients_or_bins():
    flux, sigma = planck(3)
    flux[1, 20] = np.nan
    sigma[2, 100] = np.inf
    tokens = tokens_of({"flux": flux, "flux_error": sigma}, PLAIN)
    has = {group: np.isfinite(tokens.values[:, PLAIN.group(group)]).sum(axis=1).tolist() for group in PLAIN.groups[:2]}
    assert has == {"xp_coefficients": [90, 0, 0], "xp_bins": [0, 67, 67]}
    assert any("2 spectra have samples" in note for note in tokens.notes)
    with pytest.raises(TokenError, match="spectrum='all'"):
        tokens_of({"flux": flux}, PLAIN, spectrum="all")


def test_fluxes_per_frequency_are_converted_where_the_unit_says_so():
    flux, sigma = planck()
    wavelength = xp.WAVELENGTHS * u.nm
    convert = lambda x, unit: (x * u.Unit("W m-2 nm-1")).to(unit, equivalencies=u.spectral_density(wavelength))
    expected = tokens_of({"flux": flux, "flux_error": sigma}, PLAIN, spectrum="both")
    for unit in ("Jy", "erg / (s cm2 AA)", "photon / (s cm2 AA)"):
        table = QTable({"flux": convert(flux, unit), "flux_error": convert(sigma, unit)})
        found = tokens_of(table, PLAIN, spectrum="both")
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.errors, expected.errors, rtol=1e-9)
    with pytest.raises(TokenError, match="'flux' has the unit 'mag', which is no flux density"):
        tokens_of(Table({"flux": flux}, units=["mag"]), PLAIN)


def test_spectra_of_another_sampling_are_refused():
    with pytest.raises(TokenError, match=r"vectors of 2401 numbers.*336, 338, … 1020 nm.*gaiaxpy\.calibrate"):
        tokens_of({"flux": np.ones((2, 2401))}, PLAIN)
    with pytest.raises(TokenError, match="3 numbers in row 1"):
        tokens_of({"flux": ["(" + ", ".join(["1"] * 343) + ")", "(1, 2, 3)"]}, PLAIN)
    with pytest.raises(TokenError, match="row 0 that is no vector"):
        tokens_of({"flux": ["(a, b)"]}, PLAIN)


def test_one_row_per_sample():
    flux, sigma = planck(2)
    rows = {
        "source_id": np.repeat([9, 4], 343),
        "wavelength": np.tile(xp.WAVELENGTHS, 2),
        "flux": flux.ravel(),
        "flux_error": sigma.ravel(),
    }
    tokens = tokens_of(rows, PLAIN)
    np.testing.assert_array_equal(tokens.values, tokens_of({"flux": flux, "flux_error": sigma}, PLAIN).values)
    assert tokens.keys.tolist() == [9, 4]
    shuffled = np.random.default_rng(0).permutation(686)
    mixed = tokens_of({name: column[shuffled] for name, column in rows.items()}, PLAIN)
    order = np.argsort(tokens.keys), np.argsort(mixed.keys)
    np.testing.assert_allclose(mixed.values[order[1]], tokens.values[order[0]])
    with pytest.raises(TokenError, match="has 337 nm"):
        tokens_of({"wavelength": [336.0, 337.0], "flux": [1.0, 1.0]}, PLAIN)


def test_the_basis_is_that_of_the_training_table(kit):
    np.testing.assert_array_equal(xp.basis(), kit["basis"])
    np.testing.assert_allclose(xp.basis().T @ xp.basis(), np.eye(90), atol=1e-5)


@pytest.mark.parametrize("spectrum", ["coefficients", "bins"])
def test_a_users_spectra_are_the_tokens_of_the_training_table(kit, stars, spectrum):
    flux, sigma = samples_of(kit)
    tokens = tokens_of({"flux": 3e-17 * flux, "flux_error": 3e-17 * sigma}, stars.vocabulary, spectrum=spectrum)
    columns = stars.vocabulary.group(f"xp_{spectrum}")
    np.testing.assert_allclose(tokens.values[:, columns], stars.tokens.values[:, columns], atol=1e-5)


def test_columns_in_a_wrong_unit_are_named_with_the_factor(stars):
    vocabulary, tokens = stars.vocabulary, stars.tokens
    assert check_plausible(tokens) == []
    table = {name: value(tokens, name) for name in ("teff", "bp_rp", "j_h", "logg")}
    assert check_plausible(tokens_of(table, vocabulary)) == []
    wrong = {"teff": table["teff"] / 1000, "bp_rp": 1000 * table["bp_rp"], "j_h": table["j_h"], "logg": table["logg"]}
    found = {doubt.name: doubt for doubt in check_plausible(tokens_of(wrong, vocabulary))}
    assert set(found) == {"teff", "bp_rp"}
    assert (found["teff"].factor, found["bp_rp"].factor) == (1000.0, 0.001)
    assert "Times 0.001" in str(found["bp_rp"]) and "bp_rp: " in str(found["bp_rp"])
    logarithms = check_plausible(tokens_of({"teff": np.log10(table["teff"])}, vocabulary))
    assert "logarithms" in str(logarithms[0]) and logarithms[0].factor is None
    errors = check_plausible(tokens_of({"logg": table["logg"], "e_logg": np.full(len(tokens), 80.0)}, vocabulary))
    assert [doubt.name for doubt in errors] == ["e_logg"]


@pytest.mark.parametrize("spectrum", ["coefficients", "bins"])
def test_spectra_per_frequency_are_told_by_their_shapes(kit, stars, spectrum):
    flux, _ = samples_of(kit)
    for power, text in itertools.product((2, 0, -2), ("per frequency",)):
        given = tokens_of({"flux": flux * xp.WAVELENGTHS**power}, stars.vocabulary, spectrum=spectrum)
        doubts = check_plausible(given)
        assert [text in str(doubt) for doubt in doubts] == {2: [True], 0: [], -2: [False]}[power]


def test_a_single_odd_star_is_not_taken_for_a_wrong_unit(stars):
    hot = tokens_of({"teff": [30000.0], "bp_rp": [-0.5]}, stars.vocabulary)
    (doubt,) = check_plausible(hot)
    assert doubt.name == "teff" and doubt.factor is None and "objects of another sort" in str(doubt)
    assert check_plausible(tokens_of({"teff": [2900.0], "bp_rp": [-0.5]}, stars.vocabulary)) == []


@pytest.mark.parametrize("seed", range(0, 400, 5))
def test_random_columns_become_tokens_or_sentences(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 4))
    columns = [
        lambda: rng.normal(0, 10.0 ** rng.integers(-30, 30), n), lambda: np.full(n, np.inf), lambda: np.full(n, np.nan),
        lambda: np.array(["x"] * n), lambda: np.ones((n, 343)) * rng.normal(), lambda: np.array([None] * n, object),
        lambda: np.ma.masked_all(n), lambda: rng.integers(-9999, 9999, n), lambda: np.array(["(1, 2)"] * n),
    ]  # fmt: skip
    names = [*PLAIN.names[::20], "j_m", "h_m", "e_teff", "flux", "flux_error", "source_id", "junk", "TEFF"]
    table = {
        str(k): columns[rng.integers(len(columns))]() for k in rng.choice(names, rng.integers(1, 7), replace=False)
    }
    try:
        tokens = tokens_of(table, PLAIN, spectrum=str(rng.choice(["coefficients", "bins", "both"])))
    except TokenError:
        return
    check_plausible(tokens)
    assert len(tokens) == n
    assert all(np.isfinite(array).all() for array in tokens.standardised())


def test_two_infinite_magnitudes_make_no_colour():
    assert not tokens_of({"j_m": [np.inf], "h_m": [np.inf]}, PLAIN).seen.any()
    assert len(tokens_of({"flux_error": np.zeros(0, int)}, PLAIN)) == 0
