"""What Turbospectrum's programs read and write, against the formats that its documentation gives."""

import gzip

import numpy as np
import pytest

from emuinfer.errors import EmuinferError
from emuinfer.synthesis import LineList, load_line_list
from emuinfer.synthesis import turbospectrum_files as files
from emuinfer.synthesis.atmosphere import ModelAtmosphere


def lines_of_documentation():
    """The examples of Turbospectrum's Readme-Linelist_format: sigma.alpha, a factor on Unsöld's width, a logarithm; an isotope."""
    column = lambda *values: np.array(values, np.float32)
    return LineList(
        wavelength=np.array([8858.071, 6103.649, 4305.083, 6707.921]), element=np.array([3, 3, 6, 3], np.uint8),
        ion=np.array([1, 1, 1, 1], np.uint8), isotope=np.array([0, 0, 0, 6], np.uint8),
        e_low=column(3.879, 1.848, 7.685, 0.0), log_gf=column(-4.036, 0.361, -4.221, -0.002),
        fdamp=column(2.5, 836.274, -7.16, 346.236), g_up=column(4, 6, 5, 4), gamma_rad=column(6.76e7, 1.05e8, 4.79e8, 3.63e7),
        reach=column(1, 1, 1, 1),
    )  # fmt: skip


def test_line_list_is_written_as_documented():
    rows = files.line_list_text(lines_of_documentation()).splitlines()
    heads = [row.split("'") for row in rows if row.startswith("'") and "." in row]
    assert [(float(h[1]), *map(int, h[2].split())) for h in heads] == [(3.0, 1, 2), (3.006, 1, 1), (6.0, 1, 1)]
    assert [row for row in rows if row.startswith("'") and "." not in row] == ["'Li I'", "'Li I'", "'C I'"]
    numbers = [[float(x) for x in row.split()[:6]] for row in rows if not row.startswith("'")]
    assert numbers[0] == [6103.649, 1.848, 0.361, 836.274, 6.0, 1.05e8]  # by wavelength within an ion
    assert numbers[1] == [8858.071, 3.879, -4.036, 2.5, 4.0, 6.76e7]
    assert numbers[3] == [4305.083, 7.685, -4.221, -7.16, 5.0, 4.79e8]
    assert all(row.split()[6:] == ["'x'", "'x'", "0.0", "1.0"] for row in rows if not row.startswith("'"))


def test_shipped_line_list_goes_through_whole():
    """Every line but hydrogen once, and counts of the blocks are right: the programs read so many rows."""
    lines = load_line_list()
    rows = files.line_list_text(lines).splitlines()
    start, seen = 0, 0
    while start < len(rows):
        count = int(rows[start].split("'")[2].split()[1])
        block = rows[start + 2 : start + 2 + count]
        assert len(block) == count and not any(row.startswith("'") for row in block)
        start, seen = start + 2 + count, seen + count
    assert seen == np.sum(lines.element > 1)


def test_molecules_are_written_as_documented(tmp_path):
    """'0607.012014' is 12C14N by Turbospectrum's source; lines outside of the range are left out."""
    table = tmp_path / "molecules.csv.gz"
    rows = ["molecule,iso1,iso2,wl,elow,loggf,D0", "CN,12,14,5101.5,0.5,-1.25,7.7", "C2,13,12,5102.0,1.0,-0.5,6.2",
            "MgH,1,24,5103.0,0.1,-1.0,1.3", "MgH,1,24,5102.5,0.1,-1.0,1.3", "CH,1,12,9000.0,0.1,-1.0,3.5"]  # fmt: skip
    with gzip.open(table, "wt") as file:
        file.write("\n".join(rows))
    written = files.molecular_lines_text(table, 5100.0, 5110.0).splitlines()
    heads = [row.split("'") for row in written if "." in row.split("'")[1] and row.startswith("'")] if written else []
    assert [(h[1].strip(), int(h[2].split()[1])) for h in heads] == [
        ("0606.012013", 1), ("0607.012014", 1), ("0112.001024", 2)]  # fmt: skip
    assert [row.split()[0] for row in written if not row.startswith("'")] == [
        "5102.0000",
        "5101.5000",
        "5102.5000",
        "5103.0000",
    ]
    table.write_bytes(b"no table")
    with pytest.raises(EmuinferError, match="not a table of molecular lines"):
        files.molecular_lines_text(table, 5100.0, 5110.0)
    plain = tmp_path / "unknown.csv"
    plain.write_text("molecule,iso1,iso2,wl,elow,loggf\nXeF,1,1,5100,0,0\n")
    with pytest.raises(EmuinferError, match="unknown molecule 'XeF'"):
        files.molecular_lines_text(plain, 5000.0, 5200.0)


def test_atmosphere_and_questions_are_written_as_documented():
    layers = np.arange(1.0, 5.0)
    model = ModelAtmosphere(0.01 * layers, np.full(4, 5777.0), 10**4.44 * 0.01 * layers, 1e12 * layers)
    text = files.atmosphere_text(model, 4.44).splitlines()
    assert text[0] == "'KURUCZ' 4 5000. 4.4400 0 0."  # name, layers, reference wavelength, log g, nothing to rescale
    mass, temperature, pressure, electrons, _ = (float(x) for x in text[2].split())
    assert (mass, temperature, electrons) == (0.02, 5777.0, 2e12) and pressure == pytest.approx(550.85, rel=1e-4)
    number = np.full(92, -22.0)
    number[[0, 1, 25]] = 0.0, -1.07, -5.0
    asked = files.babsma_text(5095.0, 5115.0, 0.02, number, 1.1).splitlines()
    assert asked[:2] == ["'MODELINPUT:' 'model'", "'MARCS-FILE:' '.false.'"] and asked[-2:] == [
        "'XIFIX:' 'T'",
        "1.10000",
    ]
    place = asked.index("'INDIVIDUAL ABUNDANCES:' '3'")  # elements without an abundance in the Sun are left out
    assert asked[place + 1 : place + 4] == ["1 12.00000", "2 10.93000", "26 7.00000"]
    asked = files.bsyn_text(5095.0, 5115.0, 0.02, number, ("atoms", "molecules")).splitlines()
    place = asked.index("'NFILES   :' '2'")
    assert asked[place + 1 : place + 4] == ["atoms", "molecules", "'SPHERICAL:' 'F'"]
    assert "'INTENSITY/FLUX:' 'Flux'" in asked and "'LAMBDA_MIN:' '5095.0000'" in asked


def test_spectrum_is_read_and_cut(tmp_path):
    """The example of Turbospectrum's documentation, and a core so deep that the continuum must come from beside it."""
    path = tmp_path / "spectrum"
    path.write_text(
        "7050.000 0.99555 2.32544E+06\n7050.010 0.00000 0.00000E+00\n7050.020 0.99540 2.32509E+06\n7050.030 1 1\n"
    )
    flux, continuum = files.read_spectrum(path, np.array([7050.0, 7050.01, 7050.02]))
    np.testing.assert_array_equal(flux, [0.99555, 0.0, 0.9954])
    np.testing.assert_allclose(continuum, 2.33583e6, rtol=1e-5)
    for wrong in (np.array([7050.01, 7050.02, 7050.03, 7050.04]), np.array([7050.005, 7050.015])):
        with pytest.raises(EmuinferError, match=f"not the {len(wrong)} wavelengths"):
            files.read_spectrum(path, wrong)
    path.write_text("7050.000 NaN NaN\n7050.010 NaN NaN\n")
    with pytest.raises(EmuinferError, match="not finite"):
        files.read_spectrum(path, np.array([7050.0, 7050.01]))
    with pytest.raises(EmuinferError, match="cannot be read"):
        files.read_spectrum(tmp_path / "none", np.array([7050.0, 7050.01]))
