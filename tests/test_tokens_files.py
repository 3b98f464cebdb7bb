"""Files of tables as tokens: formats, pieces, files of DataLink, damage."""

import importlib.util
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from astropy.table import Table

from emuinfer.errors import TokenError
from emuinfer.tokens import Vocabulary, iterate_tokens, read_tokens, tokens_of, xp
from emuinfer.tokens.stars import kinds

needs_gaiaxpy = pytest.mark.skipif(importlib.util.find_spec("gaiaxpy") is None, reason="GaiaXPy is not installed")
PLAIN = Vocabulary(kinds(), "stars-xp")


def table(n=5, spectra=True):
    rng = np.random.default_rng(n)
    flux = np.exp(rng.normal(0, 0.1, (n, 343))) * 1e-17
    columns = {"source_id": 4_295_806_720_000_000_001 + np.arange(n), "phot_bp_mean_mag": rng.uniform(10, 15, n)}
    columns |= {"phot_rp_mean_mag": columns["phot_bp_mean_mag"] - 1, "parallax": rng.normal(1, 1, n), "note": ["x"] * n}
    found = Table({**columns, **({"flux": flux, "flux_error": 0.01 * flux} if spectra else {})})
    found["phot_bp_mean_mag"].unit = "mag"
    return found


def as_gaiaxpy_csv(found, path):
    """Vectors as GaiaXPy writes them into CSV files: in quotes and brackets."""
    lines = [",".join(found.colnames)]
    for row in found:
        cells = [f'"({", ".join(map(repr, map(float, v)))})"' if np.ndim(v) else str(v) for v in row]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")


def write(found, path):
    if path.name.endswith(".csv"):
        as_gaiaxpy_csv(found, path)
    else:
        form = {".fits": "fits", ".gz": "fits", ".ecsv": "ascii.ecsv", ".xml": "votable"}[path.suffix]
        found.write(path, format=form, overwrite=True)
    return path


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.ecsv", "a.xml", "a.csv"])
def test_all_formats_say_the_same_whole_and_in_pieces(name, tmp_path):
    found = table()
    path = write(found, tmp_path / name)
    expected = tokens_of(found, PLAIN)
    tokens, aside = read_tokens(path, PLAIN)
    np.testing.assert_allclose(tokens.values, expected.values, rtol=1e-12)
    np.testing.assert_allclose(tokens.errors, expected.errors, rtol=1e-12)
    assert tokens.keys.tolist() == found["source_id"].tolist()  # of 19 digits, none lost
    np.testing.assert_allclose(np.asarray(aside["parallax"], dtype=float), found["parallax"])
    pieces = [part.tokens for part in iterate_tokens(path, PLAIN, rows=2)]
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate([piece.values for piece in pieces]), tokens.values)
    assert [k for piece in pieces for k in piece.keys] == tokens.keys.tolist()


def test_a_large_table_needs_little_memory(tmp_path):
    n = 40_000
    found = Table({"source_id": np.arange(n), "teff": np.full(n, 5000.0)})
    path = tmp_path / "large.fits"
    found.write(path)
    tracemalloc.start()
    count = sum(len(part.tokens) for part in iterate_tokens(path, PLAIN, rows=4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == n
    assert peak < 50e6  # the tokens of the whole table are 108 MB


def samples(rows, unit="nm"):
    """A table of DataLink's XP_SAMPLED of a single star: one row per sample."""
    found = Table({"wavelength": xp.WAVELENGTHS, "flux": rows, "flux_error": 0.01 * rows})
    found["wavelength"].unit = unit
    found["flux"].unit = "W.m**-2.nm**-1"
    return found


@pytest.mark.parametrize("suffix", [".fits", ".xml", ".ecsv"])
def test_sampled_spectra_of_datalink_star_by_star(suffix, tmp_path):
    found = table(3)
    for star, flux in zip(found["source_id"], found["flux"]):
        write(samples(flux), tmp_path / f"XP_SAMPLED-Gaia DR3 {star}{suffix}")
    tokens = read_tokens(tmp_path, PLAIN).tokens
    expected = tokens_of(found[["source_id", "flux", "flux_error"]], PLAIN)
    np.testing.assert_allclose(tokens.values, expected.values)
    assert [str(k) for k in tokens.keys] == [str(k) for k in expected.keys]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in tmp_path.glob(f"*{suffix}"):
            archive.write(path, path.name)
    np.testing.assert_array_equal(read_tokens(tmp_path / "all.zip", PLAIN).tokens.values, tokens.values)
    some = sorted(tmp_path.glob(f"XP*{suffix}"))[:2]
    assert len(read_tokens(some, PLAIN).tokens) == 2


def test_files_that_are_no_tables_are_named(tmp_path):
    for name, content, text in (
        ("a.csv", b"", "is empty"),
        ("b.csv", b"1.0,2.0\n3.0,4.0\n", "no line of names"),
        ("c.csv", b"teff,logg\n5000\n", "Row 0 has 1 entries; the line of names has 2"),
        ("d.fits", b"SIMPLE  =                    T" + b" " * 3000, "cannot be read|no table"),
        ("e.xml", b"<?xml version='1.0'?><VOTABLE><x", "cannot be read as a table"),
        ("f.ecsv", b"# %ECSV 1.0\n# ---\n# datatype: [\nteff\n1\n", "cannot be read as a table"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TokenError, match=f"{name}: .*({text})|{name} .*({text})"):
            read_tokens(tmp_path / name, PLAIN)
    with pytest.raises(TokenError, match=r"nowhere\.fits: There is no such file"):
        read_tokens(tmp_path / "nowhere.fits", PLAIN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TokenError, match="has no tables"):
        read_tokens(tmp_path / "empty", PLAIN)


def test_tables_without_rows(tmp_path):
    (tmp_path / "a.csv").write_text("source_id,teff\n")
    assert len(read_tokens(tmp_path / "a.csv", PLAIN).tokens) == 0
    table(3)[:0].write(tmp_path / "a.fits")
    assert len(read_tokens(tmp_path / "a.fits", PLAIN).tokens) == 0


def continuous(n=2, seed=3):
    """Coefficients as those of DataLink's XP_CONTINUOUS: the first like those of stars, the others noise."""
    rng = np.random.default_rng(seed)
    found = {"source_id": np.arange(1, n + 1)}
    for band in ("bp", "rp"):
        decay = 300 * np.exp(-np.arange(55) / 4)
        found |= {
            f"{band}_n_parameters": np.full(n, 55),
            f"{band}_standard_deviation": np.ones(n),
            f"{band}_coefficients": decay * (1 + 0.1 * rng.normal(size=(n, 55))),
            f"{band}_coefficient_errors": np.full((n, 55), 0.1),
            f"{band}_coefficient_correlations": np.zeros((n, 55 * 54 // 2)),
        }
    return found


@needs_gaiaxpy
def test_coefficients_of_datalink_are_those_of_the_design_matrix():
    import matplotlib

    assert not matplotlib.rcParams["text.usetex"]
    from emuinfer.tokens.datalink import calibrated, import_gaiaxpy
    from emuinfer.tokens.tables import as_columns

    given = continuous()
    calibrator = import_gaiaxpy()
    assert not matplotlib.rcParams["text.usetex"]
    matrix = calibrator.load_xpsampling_from_xml(bp_model="v375wi")
    _, merge = calibrator.load_xpmerge_from_xml(bp_model="v375wi")
    flux = sum(given[f"{b}_coefficients"] @ np.asarray(matrix[b]) * np.asarray(merge[b]) for b in ("bp", "rp"))
    found = calibrated(as_columns(given))
    np.testing.assert_allclose(found["flux"].values, flux, rtol=1e-4, atol=1e-6 * np.abs(flux).max())
    assert (found["flux_error"].values > 0).all()
    tokens = tokens_of(given, PLAIN)
    whole = tokens_of({"source_id": [1, 2], "flux": flux}, PLAIN)
    np.testing.assert_allclose(tokens.values[:, :90], whole.values[:, :90], atol=1e-3)
    texts = {k: [f"({', '.join(map(str, row))})" for row in v] if v.ndim == 2 else v for k, v in given.items()}
    np.testing.assert_allclose(tokens_of(texts, PLAIN).values, tokens.values, rtol=1e-6, atol=1e-9)
    texts["rp_coefficients"][0] = ""  # a star without RP
    assert tokens_of(texts, PLAIN).seen.any(axis=1).tolist() == [False, True]


@needs_gaiaxpy
def test_the_shipped_basis_spans_gaiaxpys_design_matrix():
    from emuinfer.tokens.datalink import import_gaiaxpy

    calibrator = import_gaiaxpy()
    matrix = calibrator.load_xpsampling_from_xml(bp_model="v375wi")
    _, merge = calibrator.load_xpmerge_from_xml(bp_model="v375wi")
    design = np.concatenate([np.asarray(matrix[b]).T * np.asarray(merge[b])[:, None] for b in ("bp", "rp")], axis=1)
    left, _, _ = np.linalg.svd(design / np.abs(design).max(), full_matrices=False)
    overlap = np.linalg.svd(left[:, :90].T @ xp.basis().astype(float), compute_uv=False)
    np.testing.assert_allclose(overlap, 1.0, atol=1e-4)


def test_coefficients_without_gaiaxpy_say_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gaiaxpy.calibrator", None)
    monkeypatch.setitem(sys.modules, "gaiaxpy", None)
    with pytest.raises(TokenError, match=r"need GaiaXPy.*pip install 'emuinfer\[stars\]'"):
        tokens_of(continuous(), PLAIN)
    short = {name: column for name, column in continuous().items() if name != "rp_coefficient_errors"}
    with pytest.raises(TokenError, match="lack the columns rp_coefficient_errors"):
        tokens_of(short, PLAIN)
