"""Tokens: kinds, sets of tokens, the vocabulary of the stars."""

import json

import numpy as np
import pytest

from emuinfer.errors import TokenError
from emuinfer.tokens import Kind, TokenSet, Vocabulary, stars_tokens, stars_vocabulary
from emuinfer.tokens.stars import samples_of

KINDS = [
    Kind("teff", "K", "labels", "log", centre=8.6, scale=0.2, lower=4000.0, upper=8000.0),
    Kind("logg", "dex", "labels", centre=4.0, scale=0.5),
    Kind("parallax", "mas", "astrometry", "arcsinh"),
    *(
        Kind(f"bin_{k}", "", "bins", "log", 0.1 * k, 0.3, 1000.0 * k, relative=True, head="student")
        for k in range(1, 6)
    ),
]
VOCABULARY = Vocabulary(KINDS, "toy")


def tokens(rng, n=20):
    values = np.abs(rng.normal(1.0, 0.3, (n, len(KINDS)))) * np.exp(VOCABULARY.centre * (VOCABULARY.centre > 5))
    return TokenSet(VOCABULARY, values, 0.05 * values)


@pytest.fixture(scope="module")
def kit(shared_data):
    """Every fortieth star of the training table."""
    from emuinfer.files import read_arrays

    arrays = read_arrays(shared_data / "foundation" / "stars_xp_apogee.npz")
    rows = {"source_id", "labels", "split", "coef_q", "err_q"}
    return {name: array[::40] if name in rows else array for name, array in arrays.items()}


def test_a_vocabulary_survives_its_card():
    card = json.loads(json.dumps(VOCABULARY.to_json()))
    assert Vocabulary.from_json(card) == VOCABULARY
    assert card["kinds"][1] == {"name": "logg", "unit": "dex", "group": "labels", "centre": 4.0, "scale": 0.5}


def test_unknown_kinds_are_named_with_a_suggestion_and_the_list():
    with pytest.raises(TokenError, match=r"no kind 'tefff'\. Did you mean 'teff'\? .* labels: teff, logg; astrometry"):
        VOCABULARY.index("tefff")
    with pytest.raises(TokenError, match="no group 'bin'. Did you mean 'bins'"):
        VOCABULARY.group("bin")
    with pytest.raises(TokenError, match="several times: teff"):
        Vocabulary([KINDS[0], KINDS[0]])
    with pytest.raises(TokenError, match="transform 'logarithm'.*identity, log, arcsinh"):
        Kind("x", "", "g", "logarithm")
    with pytest.raises(TokenError, match="scale 0"):
        Kind("x", "", "g", scale=0.0)
    with pytest.raises(TokenError, match="no vocabulary"):
        Vocabulary.from_json({"kinds": [{"nome": "x"}]})


def test_groups_and_kinds_are_chosen_alike():
    assert VOCABULARY.indices(["logg", "bins"]).tolist() == [1, 3, 4, 5, 6, 7]
    assert VOCABULARY.indices(["bins", "bin_1"]).tolist() == [3, 4, 5, 6, 7]
    some = tokens(np.random.default_rng(0)).only(["labels", "bin_2"])
    assert some.seen.any(axis=0).tolist() == [True, True, False, False, True, False, False, False]
    assert not some.without("labels").seen[:, :2].any()


def test_transforms_against_their_derivatives():
    for transform in ("identity", "log", "arcsinh"):
        kind, value, step = Kind("x", "", "g", transform), np.array([0.3, 2.0, 70.0]), 1e-6
        slope = (kind.transformed(value + step) - kind.transformed(value - step)) / (2 * step)
        np.testing.assert_allclose(kind.transformed_error(value, 1.0), slope, rtol=1e-6)
        np.testing.assert_allclose(kind.physical(kind.transformed(value)), value)


def test_standardised_values_are_those_of_the_definition():
    some = tokens(np.random.default_rng(1))
    x, e, seen, level = some.standardised()
    assert x.dtype == e.dtype == np.float32
    assert seen.all() and some.known.all()
    np.testing.assert_allclose(x[:, 0], (np.log(some.values[:, 0]) - 8.6) / 0.2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(e[:, 0], 0.05 / 0.2, rtol=1e-6)
    np.testing.assert_allclose(x[:, 2], np.arcsinh(some.values[:, 2]), rtol=1e-6)
    logarithms = np.log(some.values[:, 3:]) - VOCABULARY.centre[3:]
    np.testing.assert_allclose(level, logarithms.mean(axis=1))
    np.testing.assert_allclose(x[:, 3:], (logarithms - level[:, None]) / 0.3, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_fluxes_may_be_in_any_unit_and_none_tells_of_another(seed):
    rng = np.random.default_rng(seed)
    some = tokens(rng)
    unit = np.where(VOCABULARY.relative, 10 ** rng.uniform(-18, 3), 1.0)
    other = TokenSet(VOCABULARY, some.values * unit, some.errors * unit)
    np.testing.assert_allclose(other.standardised().x, some.standardised().x, atol=2e-5)
    np.testing.assert_allclose(other.standardised().e, some.standardised().e, rtol=1e-4)
    hidden = some.without("bin_5")
    changed = TokenSet(VOCABULARY, some.values * np.where(np.arange(8) == 7, 9.0, 1.0), some.errors).without("bin_5")
    np.testing.assert_array_equal(hidden.standardised().x, changed.standardised().x)


def test_missing_and_unknown_errors():
    values = np.array([[5000.0, np.nan, -3.0, 1, 2, 0, -1, np.inf]] * 2)
    errors = np.array([[np.inf, 1, -1, np.nan, 0, 1, 1, 1], np.full(8, np.nan)])
    some = TokenSet(VOCABULARY, values, errors)
    assert some.seen.tolist() == [[False, False, True, True, True, False, False, False], [True, *some.seen[1, 1:]]]
    assert some.known.tolist()[0] == [False, False, False, False, True, False, False, False]
    assert not some.known[1].any()
    found = some.standardised()
    assert all(np.isfinite(array).all() for array in found)
    assert (found.x[~found.seen] == 0).all() and (found.e[~some.known] == 0).all()


def test_all_missing_is_no_fault():
    nothing = TokenSet(VOCABULARY, np.full((3, 8), np.nan))
    found = nothing.standardised()
    assert not found.seen.any() and not found.x.any() and not found.level.any() and not nothing.outside().any()
    assert len(TokenSet(VOCABULARY, np.empty((0, 8))).standardised().x) == 0


def test_rows_keep_their_keys():
    some = TokenSet(VOCABULARY, np.ones((3, 8)), keys=["a", "b", "b"], key_name="star")
    assert some[1:].keys.tolist() == ["b", "b"] and len(some[0]) == 1 and some[0].key_name == "star"
    with pytest.raises(TokenError, match="2 keys for 3"):
        TokenSet(VOCABULARY, np.ones((3, 8)), keys=[1, 2])
    with pytest.raises(TokenError, match="8 kinds"):
        TokenSet(VOCABULARY, np.ones((3, 7)))


def test_what_lies_outside_of_the_training_values():
    values = np.ones((1, 8))
    values[0, 0] = 12000.0
    assert np.flatnonzero(TokenSet(VOCABULARY, values).outside()).tolist() == [0]


def test_the_stars_as_tokens(kit):
    stars = stars_tokens(kit)
    vocabulary, some = stars.vocabulary, stars.tokens
    assert vocabulary.groups == ("xp_coefficients", "xp_bins", "colours", "magnitudes", "labels")
    assert [len(vocabulary.group(g)) for g in vocabulary.groups] == [90, 68, 5, 1, 5]
    x, e, seen, _ = stars.rows(0).standardised()
    x = np.where(seen, x, np.nan)
    np.testing.assert_allclose(np.nanmedian(x, axis=0), 0, atol=0.05)
    np.testing.assert_allclose(1.4826 * np.nanmedian(np.abs(x), axis=0), 1, atol=0.05)
    assert np.isfinite(e).all()
    assert stars_vocabulary(kit) == vocabulary
    assert some.outside()[stars.split == 0].mean(axis=0).max() < 0.02
    # missing labels are missing, and their errors are those of APOGEE
    names = kit["label_names"].tolist()
    fe_h = vocabulary.index("fe_h")
    np.testing.assert_array_equal(some.seen[:, fe_h], np.isfinite(kit["labels"][:, names.index("fe_h")]))
    np.testing.assert_allclose(some.errors[:, fe_h], kit["labels"][:, names.index("fe_h_err")])
    assert not some.known[:, vocabulary.group("xp_coefficients")].any()


def test_bins_and_coefficients_of_the_stars_are_those_of_the_spectra(kit):
    some = stars_tokens(kit).tokens[:5]
    flux, sigma = samples_of(kit, slice(5))
    inner = (kit["wave_nm"] > 400) & (kit["wave_nm"] < 950)
    flux, sigma = (array / flux[:, inner].mean(axis=1)[:, None] for array in (flux, sigma))
    i, name = np.flatnonzero(kit["wave_nm"] == 500)[0], "xp_bin_500"
    k = some.vocabulary.index(name)
    np.testing.assert_allclose(some.values[:, k], flux[:, i - 2 : i + 3].mean(axis=1))
    np.testing.assert_allclose(some.errors[:, k], sigma[:, i - 2 : i + 3].mean(axis=1))
    kind = some.vocabulary[name]
    assert (kind.wavelength, kind.width, kind.relative, kind.head) == (5000.0, 100.0, True, "student")
    coefficients = some.values[:, some.vocabulary.group("xp_coefficients")]
    np.testing.assert_allclose(coefficients @ kit["basis"].T, flux, atol=1e-4)


def test_a_table_that_is_not_that_of_the_stars_is_refused(kit):
    with pytest.raises(TokenError, match=r"lacks split.*emuinfer data stars-xp"):
        stars_tokens({name: array for name, array in kit.items() if name != "split"})
    with pytest.raises(TokenError, match="not that of stars-xp"):
        stars_tokens(kit, VOCABULARY)
