"""Label spaces: names, values, and what is filled in."""

import numpy as np
import pytest

from emuinfer.errors import GridError, LabelError
from emuinfer.labels import OPTICAL_FGK, LabelSpace, complete_labels, label_rows, require_same_labels, star_labels

SPACE = LabelSpace(("teff", "fe_h", "mg_fe"), (5000, -1, -0.4), (6000, 0.5, 0.6))


def test_missing_labels_are_solar():
    labels, note = complete_labels(OPTICAL_FGK, {"teff": 4800.0, "logg": 2.2, "fe_h": -1})
    assert list(labels) == list(OPTICAL_FGK.names)
    assert labels["teff"] == 4800.0 and labels["vmic"] == 1.0 and labels["mg_fe"] == 0.0
    assert note.startswith("Solar values are used for vmic = 1, mg_fe = 0,") and "teff" not in note
    assert complete_labels(SPACE, {"teff": 5500.0, "fe_h": 0.1, "mg_fe": 0.2})[1] == ""
    assert complete_labels(SPACE, np.array([5500.0, 0.1, 0.2])) == ({"teff": 5500.0, "fe_h": 0.1, "mg_fe": 0.2}, "")


def test_a_label_that_cannot_be_solar_is_in_the_middle():
    cool = LabelSpace(("teff", "fe_h"), (3500, -2), (4500, 0.5))
    labels, note = complete_labels(cool, {})
    assert labels == {"teff": 4000.0, "fe_h": 0.0}
    assert (
        "middle of the domain is used for teff = 4000" in note and "solar values are used for fe_h = 0" in note.lower()
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tef": 5500}, "Did you mean 'teff'"),
        ({"teff": 9000}, r"teff = 9000 is outside the domain \[5000, 6000\] K"),
        ({"teff": np.array([5500.0, 5600.0])}, "one star"),
        ({"teff": np.nan}, "not a finite number"),
        ([5500.0, 0.0], "must have length 3"),
    ],
)
def test_labels_of_one_star_are_checked(values, message):
    with pytest.raises(LabelError, match=message):
        complete_labels(SPACE, values)


def test_a_star_needs_all_labels():
    with pytest.raises(LabelError, match="Missing labels: fe_h, mg_fe"):
        star_labels(SPACE, {"teff": 5500.0})


def test_same_labels_in_any_order():
    require_same_labels(["mg_fe", "teff", "fe_h"], "the grid", SPACE, "the emulator")
    with pytest.raises(GridError) as caught:
        require_same_labels(["teff", "m_h"], "a.npz", SPACE, "the domain", remedy="Give another.", error=GridError)
    text = str(caught.value)
    assert text.startswith("a.npz has the labels teff, m_h, but the domain has teff, fe_h, mg_fe (")
    assert "fe_h, mg_fe missing" in text and "m_h too many" in text and text.endswith("Give another.")


def test_a_label_that_comes_twice():
    with pytest.raises(LabelError, match="the file has the label teff twice. Name each once."):
        twice = ["teff", "fe_h", "mg_fe", "teff"]
        require_same_labels(twice, "the file", SPACE, "the domain", remedy="Name each once.")


def test_same_units():
    other = LabelSpace(SPACE.names, SPACE.lower, SPACE.upper, ("kK", "dex", "dex"))
    require_same_labels(other, "the grid", SPACE, "the emulator")
    with pytest.raises(LabelError, match="teff in kK instead of K"):
        require_same_labels(other, "the grid", SPACE, "the emulator", units=True)


def test_rows_of_labels():
    rows = np.array([[5500.0, 0.0, 0.0], [5600.0, -0.5, 0.2]])
    np.testing.assert_array_equal(label_rows(SPACE, SPACE.to_dict(rows)), rows)
    assert label_rows(SPACE, rows.astype(np.float32)).dtype == np.float64
    outside = np.array([[5500.0, 0.0, 0.0], [7000.0, 0.0, 0.0]])
    np.testing.assert_array_equal(label_rows(SPACE, outside, domain=False), outside)
    with pytest.raises(
        GridError, match=r"1 of 2 training spectra lie outside the label domain: rows 1. The first: teff = 7000"
    ):
        label_rows(SPACE, outside, "training spectra", error=GridError)
    with pytest.raises(LabelError, match="not finite: rows 0. The first: fe_h = nan"):
        label_rows(SPACE, [[5500.0, np.nan, 0.0]])
    with pytest.raises(LabelError, match="a row per spectrum"):
        label_rows(SPACE, rows[0])
    with pytest.raises(GridError, match="do not fit: The last axis of the labels must have length 3"):
        label_rows(SPACE, rows[:, :2], error=GridError)


def test_order_of_labels_where_it_matters():
    require_same_labels(SPACE.names, "the synthesizer", SPACE, "the emulator", in_order=True)
    with pytest.raises(
        LabelError, match="synthesizer has the labels mg_fe, teff, fe_h, but the emulator has .*in another order"
    ):
        require_same_labels(["mg_fe", "teff", "fe_h"], "the synthesizer", SPACE, "the emulator", in_order=True)
