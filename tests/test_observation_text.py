"""Spectra in text as people and programs write them: each way is read to the same numbers, or refused with the line."""

import numpy as np
import pytest

from emuinfer.errors import ObservationError
from emuinfer.observations import Observation

WAVE = np.round(np.linspace(5165.0, 5190.0, 60), 3)
FLUX = np.round(1 - 0.4 * np.exp(-0.5 * ((WAVE - 5178) / 1.3) ** 2), 5)
ROWS = [(f"{a:.3f}", f"{b:.5f}", "0.01000") for a, b in zip(WAVE, FLUX)]
COMMAS = [tuple(word.replace(".", ",") for word in row) for row in ROWS]
IN_NM = [(f"{float(a) / 10:.4f}", b, c) for a, b, c in ROWS]


def joined(separator=" ", rows=ROWS, head="", end="\n") -> str:
    return head + end.join(separator.join(row) for row in rows) + end


def read(path, text, **options):
    (path / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Observation.read(path / "a.txt", **{"medium": "air", **options})


def same(obs):
    np.testing.assert_allclose(obs.wavelength, WAVE, rtol=1e-8)
    np.testing.assert_allclose(obs.flux, FLUX, rtol=1e-8)
    np.testing.assert_allclose(obs.uncertainty, 0.01, rtol=1e-6)
    return obs


WAYS = {
    "latin-1": joined(head="# Wavelength (Å) flux err\n").encode("latin-1"),
    "latin-1 comment": joined(head="# Étoile, 5° nord\n").encode("latin-1"),
    "utf-8 with its mark": joined(",", head="\ufeffwave,flux,err\n"),
    "utf-16": joined(head="wave flux err\n").encode("utf-16"),
    "utf-16, big end first": b"\xfe\xff" + joined(head="wave flux err\n").encode("utf-16-be"),
    "utf-16 without its mark": joined("\t", head="wave\tflux\terr\n").encode("utf-16-le"),
    "Windows": joined(head="wave flux err\r\n", end="\r\n") + "\x1a",
    "old Macintosh": joined(head="wave flux err\r", end="\r"),
    "tabs": joined("\t"),
    "commas and blanks": joined(", "),
    "decimal commas, semicolons": joined(";", COMMAS, "wave;flux;err\n"),
    "decimal commas, blanks": joined("  ", COMMAS),
    "decimal commas, tabs": joined("\t", COMMAS, "wave\tflux\terr\n"),
    "Fortran D": joined(rows=[(a + "D+00", b + "d0", "1.0D-02") for a, b, _ in ROWS]),
    "trailing commas": joined(",", [(*row, "") for row in ROWS], "wave,flux,err,\n"),
    "trailing commas, no names": joined(",", [(*row, "") for row in ROWS]),
    "markdown": joined(" | ", [("", *row, "") for row in ROWS], "| wave | flux | err |\n|---|---|---|\n"),
    "quoted names": joined(",", head='"Wavelength, air [Angstrom]","flux","err"\n'),
    "index column": joined(",", [(str(i), *row) for i, row in enumerate(ROWS)], ",wave,flux,err\n"),
    "rdb": joined("\t", head="wave\tflux\terr\n----\t----\t---\n"),
    "rdb, types": joined("\t", head="wave\tflux\terr\n8N\t8N\t8N\n"),
    "row of units": joined(",", IN_NM, "wave,flux,err\nnm,,\n"),
    "unit in brackets": joined(",", IN_NM, "wavelength [nm], flux, err\n"),
    "unit in the name": joined(" ", IN_NM, "# lambda_nm flux err\n"),
    "flux units": joined(rows=[(a, b, "10.0") for a, b, _ in ROWS], head="wave flux(Jy) err(mJy)\n"),
    "logarithm": joined(rows=[(f"{np.log10(float(a)):.12f}", b, c) for a, b, c in ROWS], head="log_lambda flux err\n"),
    "inverse variance": joined(rows=[(a, b, "1E4") for a, b, _ in ROWS], head="wave flux ivar\n"),
    "many comments": joined(head="# Teff = 5700\n" * 3000),
    "names before a comment": joined(head="# wave flux err\n# written on a Tuesday\n"),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_writing_columns(tmp_path, way):
    obs = same(read(tmp_path, WAYS[way]))
    assert obs.good.all() and not any("title" in note for note in obs.notes)


@pytest.mark.parametrize(
    "head",
    [
        "HD 41248 normalised by hand\n",
        "HD 41248 spectrum\n",
        "60\n",
        "BEGIN\n",
        "Sun\n2008 Nov 18, UVES\n\nwave flux err\n",
    ],
)
def test_titles(tmp_path, head):
    obs = same(read(tmp_path, joined(head=head)))
    assert head.splitlines()[0] in obs.notes[0] and "title" in obs.notes[0]


@pytest.mark.parametrize("word", ["INDEF", "NaN", "null", "--", "N/A", "******", "-nan", "NAN"])
def test_missing_values(tmp_path, word):
    rows = [*ROWS[:9], (ROWS[9][0], word, word), *ROWS[10:]]
    obs = read(tmp_path, joined(rows=rows))
    assert not obs.good[9] and obs.good.sum() == len(ROWS) - 1


def test_padding(tmp_path):
    obs = same(read(tmp_path, joined(rows=[*ROWS, *[("0", "0", "0")] * 20])))
    assert "20 pixels dropped" in obs.notes[0]


def test_masks(tmp_path):
    bad = np.arange(len(ROWS)) % 7 == 0
    for head, words, options in [
        ("wave,flux,err,mask\n", ("0", "1"), {}),
        ("wave,flux,err,good\n", ("True", "False"), {}),
        ("wave,flux,err,mask\n", ("1", "0"), {"mask_column": "!mask"}),
    ]:
        rows = [(*row, words[int(b)]) for row, b in zip(ROWS, bad)]
        np.testing.assert_array_equal(~same(read(tmp_path, joined(",", rows, head), **options)).good, bad)


def test_arms_of_a_text_are_its_spectrum(tmp_path):
    read(tmp_path, joined())
    (only,) = Observation.read_arms(tmp_path / "a.txt", medium="air")
    same(only)
    with pytest.raises(ObservationError, match="no file"):
        Observation.read_arms(tmp_path / "b.txt")


def test_facts_in_comments(tmp_path):
    head = "# medium: vacuum\n# SPEC_RES = 47000\n# OBJECT: HD 1\n# resolution of the eye: 1\n"
    obs = same(read(tmp_path, joined(head=head), medium=None))
    assert obs.medium == "vacuum" and obs.resolution == 47_000 and obs.name == "HD 1"


def test_four_columns_without_names(tmp_path):
    text = joined(rows=[(c, a, b, "7") for a, b, c in ROWS])
    with pytest.raises(ObservationError, match="4 columns without names.*wavelength_column="):
        read(tmp_path, text)
    same(read(tmp_path, text, wavelength_column="col2", flux_column="col3", uncertainty_column="col1"))


@pytest.mark.parametrize(
    "text, words",
    [
        (joined(rows=[*ROWS[:5], ROWS[5][:2], *ROWS[6:]], head="# a\n"), "line 7 has 2, line 2 has 3"),
        (joined(rows=[*ROWS[:5], ("5170", "good", "1"), *ROWS[6:]]), "Line 6 has 'good' where a number"),
        (joined(rows=[(str(i), b, c) for i, (_, b, c) in enumerate(ROWS)]), "pixel numbers"),
        ("<html><body>404 not found</body></html>\n", "last line, 1, is '<html>"),
        (joined(";", COMMAS, "Wellenlänge;Fluss;Fehler\n").encode("latin-1"), "Wellenlänge, Fluss, Fehler"),
        (bytes(range(256)) * 20, "neither FITS nor text"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, words):
    with pytest.raises(ObservationError, match="a.txt") as error:
        read(tmp_path, text)
    assert words in str(error.value)
