"""The table of spectrographs, and instruments of one's own."""

import numpy as np
import pytest
from tiny import RANGE, line_emulator

from emuinfer.errors import EmuinferError
from emuinfer.forecast.instruments import Arm, Instrument, instrument_table, list_instruments, load_instrument
from emuinfer.wavelengths.medium import convert_medium


def test_shipped_table_is_sound():
    table = instrument_table()
    assert 12 <= len(list_instruments()) <= 30
    for row in table:
        assert 2900 < row["start"] < row["end"] < 20_000 and 1000 < row["resolution"] < 3e5, row["name"]
        assert 1.5 <= row["pixels_per_fwhm"] <= 8 and row["medium"] in ("air", "vacuum")
        assert any(str(year) in row["source"] for year in range(1990, 2030)), f"{row['name']}: no dated source"
    for name in list_instruments():
        assert load_instrument(name).name == name
    galah = load_instrument("hermes-galah")
    assert len(galah.arms) == 4 and galah.arms[0].lo == 4713 and galah.medium == "air"


def test_pixels_sample_the_line_spread_function():
    arm = Arm(5000, 5100, 20_000, 2.5)
    pixels = arm.pixels()
    np.testing.assert_allclose(np.diff(np.log(pixels)), 1 / 50_000, rtol=1e-9)
    assert pixels[0] == 5000 and 0 <= 5100 - pixels[-1] < 5100 / 50_000
    assert len(pixels) == np.floor(np.log(5100 / 5000) * 50_000) + 1


def test_what_the_emulator_does_not_cover_is_said():
    emulator = line_emulator()
    wide = Instrument("wide", (Arm(6000, 6190, 20_000), Arm(7000, 7100, 20_000)))
    part, notes = wide.within(emulator)
    assert [(a.lo, a.hi) for a in part.arms] == [(RANGE[0], 6190)]
    assert len(notes) == 2 and "only 6180.0–6190.0 Å count" in notes[0] and "nothing of it counts" in notes[1]
    inside, none = Instrument.single(6181, 6193, 20_000).within(emulator)
    assert not none and inside.arms[0].lo == 6181
    with pytest.raises(EmuinferError, match="7000–7100 Å .air., the emulator 6180.*nothing in common"):
        Instrument.single(7000, 7100, 20_000).within(emulator)


def test_vacuum_wavelengths_are_converted():
    part, _ = Instrument.single(6183, 6190, 20_000, medium="vacuum").within(line_emulator())
    assert part.medium == "air"
    assert part.arms[0].lo == pytest.approx(convert_medium(np.array([6183.0]), "vacuum", "air")[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: load_instrument("WEAVE-HR-gren"), "Did you mean 'WEAVE-HR-green'"),
        (lambda: Instrument.single(5000, 5100, -1), "resolution = -1 must be a positive number"),
        (lambda: Instrument.single(5100, 5000, 2e4), "must rise; got 5100 to 5000"),
        (lambda: Instrument.single(5000, 5100, 2e4, 0), "pixels_per_fwhm = 0 must"),
        (lambda: Instrument.single(5000, 5000.1, 2e4).arms[0].pixels(), "only 2 pixels"),
        (lambda: Instrument("none", ()), "needs one Arm"),
    ],
)
def test_bad_instruments(call, words):
    with pytest.raises(EmuinferError, match=words):
        call()
