"""Files as no one should write them, for readers that must end in an `Observation` or an `EmuinferError`: Hypothesis makes them."""

import gzip
import io
import signal
import warnings
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table
from hypothesis import strategies as st

from emuinfer import Observation
from emuinfer.errors import EmuinferError


def _words(text: str) -> list[str]:
    return text.split()


SECONDS = 20  # what one file may take


class File(NamedTuple):
    content: bytes
    suffix: str
    options: dict
    pixels: bool  # the wavelengths are pixel numbers, and nothing says otherwise


KEYWORDS = _words(
    "CRVAL1 CDELT1 CD1_1 CRPIX1 CTYPE1 CUNIT1 PC1_1 DC-FLAG COEFF0 COEFF1 WAT0_001 WAT1_001 WAT2_001 WAT2_002 APNUM1 WCSDIM CTYPE2 "
    "CDELT2 CD2_2 BANDID1 BANDID2 NORDERS MEDIUM AIRORVAC VACUUM SNR SPEC_RES RESOLUTN OBJECT TELESCOP INSTRUME ORIGIN SURVEY "
    "HISTORY SPECSYS BUNIT EXTNAME TUCD1 TUNIT1 TNULL1 TSCAL1 TZERO1 DMODCLS PYP_SPEC SFILE1 LINEARV HIERARCH-ESO BSCALE BZERO"
)
WORDS = _words(
    "air vacuum T F AWAV WAVE WAVE-LOG WAVE-TAB LINEAR MULTISPE LOG PIXEL FREQ VELO Angstrom ANGSTROM nm NM um log10(Angstrom) "
    "erg/s/cm2/Angstrom 10^-17 Jy INDEF nan HELIOCEN BARYCENT TOPOCENT SDSS LAMOST HARPS UVES ESPRESSO OneSpec apStar GALAH Gaia"
)
MULTISPEC = (
    'wtype=multispec spec1 = "1 1 0 5100. 0.02 100 0. 0. 0."',
    'wtype=multispec spec1 = "1 1 2 5100. 0.02 100 0. 0. 0. 1. 0. 1 4 1. 100. 5105 5 0 0"',
    'wtype=multispec spec1 = "1 1 0 5100.',
    "wtype=linear label=Wavelength units=angstroms",
)
NAMES = _words(
    "wave wavelength WAVE loglam wavelength_air wave_vac lambda nm flux FLUX err error sigma ivar var variance mask quality qual good "
    "and_mask snr x y col1 col2 continuum sky"
)
UNITS = (
    None, "Angstrom", "ANGSTROM", "angstrom", "nm", "NM", "um", "m", "Hz", "km/s", "log10(Angstrom)", "dex(AA)", "[nm]", "pix", "Jy",
    "mJy", "10**-17 erg/s/cm2/AA", "electron", "",
)  # fmt: skip


def card_values():
    return st.one_of(
        st.floats(allow_nan=False, allow_infinity=False, width=64),
        st.sampled_from([0.0, 1.0, -1.0, 0.02, 3.7, 5100.0, 1e308, -1e-308, 115000.0, 2.5]),
        st.integers(-(2**40), 2**40),
        st.booleans(),
        st.sampled_from(WORDS),
        st.sampled_from(MULTISPEC),
        st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    )


def cards():
    return st.lists(st.tuples(st.sampled_from(KEYWORDS), card_values()), max_size=8)


@st.composite
def arrays(draw, n):
    """`(values, whether they are pixel numbers)`: what a column may hold in place of what it should."""
    kind = draw(
        st.sampled_from(
            _words("wave wave wave wave flux flux sigma pixels log nm falling zeros nan constant huge random integers")
        )
    )
    i = np.arange(n)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    wave = 5100 + 0.02 * i
    values = {
        "wave": wave, "flux": 1 + 0.01 * rng.standard_normal(n), "sigma": np.full(n, 0.01), "pixels": i + 1.0,
        "log": np.log10(wave), "nm": wave / 10, "falling": wave[::-1], "zeros": 0.0 * i, "nan": i + np.nan, "constant": i * 0 + 5100.0,
        "huge": 1e300 * (1.0 + i), "random": 1e4 * rng.standard_normal(n), "integers": rng.integers(-5, 5, n),
    }[kind]  # fmt: skip
    if n and draw(st.booleans()):
        with np.errstate(over="ignore", invalid="ignore"):
            values = values.astype(draw(st.sampled_from([">f8", ">f4", ">i4", ">i2", "u1"])))
    if n and draw(st.integers(0, 4)) == 0:
        values = values.copy()
        values[rng.integers(0, n, max(1, n // 10))] = np.array(draw(st.sampled_from([0.0, 1.0, -1.0]))).astype(
            values.dtype
        )
        kind = "spoilt"
    return values, kind == "pixels"


lengths = st.sampled_from([400, 400, 400, 100, 100, 6000, 10, 3, 1, 0])
likely = st.sampled_from([True, True, False])


def _put(header, given):
    for name, value in given:
        with warnings.catch_warnings(action="ignore"):
            try:
                header[name] = value
            except (ValueError, TypeError, fits.VerifyError):
                continue


def _written(hdus) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        fits.HDUList(hdus).writeto(file, output_verify="ignore")
    return file.getvalue()


@st.composite
def images(draw):
    n, rows = draw(lengths), draw(st.sampled_from([0] * 6 + [1, 2, 5, 30]))
    sound = draw(likely)
    flux = 1 + 0.01 * np.sin(np.arange(n)) if sound else draw(arrays(n))[0]
    data = np.stack([flux] * rows) if rows else flux
    header = fits.Header()
    told = draw(likely)
    if told:
        _put(header, [("CRVAL1", 5100.0), ("CDELT1", 0.02), ("CTYPE1", "AWAV"), ("CRPIX1", 1.0)])
    more = [] if sound and draw(likely) else draw(cards())
    _put(header, more)
    hdus = [fits.PrimaryHDU(data if n else None, header)]
    for name in draw(
        st.lists(
            st.sampled_from(_words("WAVE FLUX ERR IVAR MASK BLAZE QUAL SPECTRUM B_FLUX B_IVAR")),
            max_size=draw(st.sampled_from([0, 0, 1, 3])),
        )
    ):
        values, _ = draw(arrays(draw(lengths) if draw(st.integers(0, 3)) == 0 else n))
        hdus.append(fits.ImageHDU(np.stack([values] * rows) if rows and len(values) else values, name=name))
    return File(_written(hdus), ".fits", {}, not told and not more and len(hdus) == 1)


@st.composite
def tables(draw):
    n = draw(lengths)
    columns, pixels, sound = [], None, draw(likely)
    if sound:
        wave = 5100 + 0.02 * np.arange(n)
        name, values, unit = draw(
            st.sampled_from(
                [("wave", wave, "Angstrom"), ("wavelength", wave, "ANGSTROM"), ("WAVE", wave / 10, "nm"), ("loglam", np.log10(wave), None),
                 ("wavelength_air", wave, "AA"), ("lambda", wave, None), ("wave", np.arange(n) + 1.0, None),
                 ("wave", np.arange(n) + 1.0, "Angstrom")]
            )
        )  # fmt: skip
        columns = [
            (name, values, unit),
            (
                "flux",
                1 + 0.01 * np.sin(np.arange(n)),
                draw(st.sampled_from((None, None, "Jy", "electron", "10**-17 erg/s/cm2/AA"))),
            ),
        ]
        pixels = bool(n) and values[0] == 1
        if draw(st.booleans()):
            columns.append((draw(st.sampled_from(["err", "ivar", "sigma"])), np.full(n, 0.01), columns[1][2]))
    left = [n for n in NAMES if n.lower() not in {c[0].lower() for c in columns}]
    for name in draw(
        st.lists(
            st.sampled_from(left),
            min_size=0 if sound else 1,
            max_size=draw(st.sampled_from([0, 0, 2])) if sound else 5,
            unique_by=str.lower,
        )
    ):
        values, counted = draw(arrays(n))
        unit = draw(st.sampled_from(UNITS))
        if name.lower().startswith(("wave", "lambda")) and pixels is None:
            pixels = counted and unit in (None, "", "Angstrom", "pix")
        columns.append((name, values, unit))
    return columns, bool(pixels)


@st.composite
def fits_tables(draw):
    columns, pixels = draw(tables())
    one_row = draw(st.booleans())
    made = []
    for name, values, unit in columns:
        code = {"f8": "D", "f4": "E", "i8": "K", "i4": "J", "i2": "I", "u1": "B"}[values.dtype.str[1:]]
        array, form = (values[None], f"{len(values)}{code}") if one_row and len(values) else (values, code)
        made.append(fits.Column(name, form, array=array, unit=unit or None))
    table = fits.BinTableHDU.from_columns(
        made, name=draw(st.sampled_from(["", "SPECTRUM", "COADD", "COADD_B", "SPECTRUM0"]))
    )
    more = draw(cards())
    _put(
        table.header,
        [
            (k, v)
            for k, v in more
            if not k.startswith(("TUNIT", "TNULL", "TSCAL", "TZERO", "EXTNAME")) or draw(st.booleans())
        ],
    )
    primary = fits.PrimaryHDU()
    _put(primary.header, draw(cards()))
    return File(_written([primary, table]), ".fits", {}, pixels and not more)


@st.composite
def texts(draw):
    columns, pixels = draw(tables())
    names, arrays_ = [c[0] for c in columns], [c[1] for c in columns]
    kind = draw(st.sampled_from(["ecsv", "csv", "blanks", "bare", "rdb", "semicolons", "votable"]))
    if kind in ("ecsv", "votable"):
        table = Table([a.astype(a.dtype.newbyteorder("=")) for a in arrays_], names=names)
        for name, _, unit in columns:
            with warnings.catch_warnings(action="ignore"):
                table[name].unit = unit or None
        file = io.StringIO() if kind == "ecsv" else io.BytesIO()
        try:
            with warnings.catch_warnings(action="ignore"):
                table.write(file, format="ascii.ecsv" if kind == "ecsv" else "votable")
        except (ValueError, TypeError, OSError):  # a unit that the format cannot write
            return File(b"", ".ecsv", {}, False)
        text = file.getvalue()
        return File(text.encode() if kind == "ecsv" else text, "." + kind, {}, False)
    separator = {"csv": ",", "blanks": " ", "bare": "  ", "rdb": "\t", "semicolons": ";"}[kind]
    word = draw(
        st.sampled_from(
            [
                repr,
                "{:.4f}".format,
                "{:.3E}".format,
                lambda x: f"{x:.4E}".replace("E", "D"),
                lambda x: f"{x:.4f}".replace(".", ","),
            ]
        )
    )
    rows = [separator.join(word(float(x)) for x in row) for row in zip(*arrays_)]
    head = [] if kind == "bare" else [separator.join(names)]
    if kind == "rdb":
        head.append(separator.join("-" * len(n) for n in names))
    head = draw(st.lists(st.sampled_from(["# a comment (Å)", "HD 41248", "", "! x", "\x00"]), max_size=2)) + head
    text = "\n".join(head + rows)
    return File(
        text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "latin-1"])), "replace"),
        ".txt",
        {},
        pixels and kind != "bare",
    )


@st.composite
def damaged(draw, files):
    """A file cut off, with some of its bytes changed, or packed."""
    file = draw(files)
    content = file.content
    harm = draw(st.sampled_from(["none"] * 18 + ["cut", "bytes", "gzip", "cut gzip", "zeros", "card"]))
    position = lambda: draw(st.integers(0, max(len(content), 1)))
    if "gzip" in harm:
        content = gzip.compress(content, 1)
    if "cut" in harm:
        content = content[: position()]
    if harm == "bytes":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            if changed:
                changed[position() % len(changed)] = draw(st.integers(0, 255))
        content = bytes(changed)
    if harm == "zeros":
        at = position()
        content = content[:at] + bytes(max(0, min(2880, len(content) - at))) + content[at + 2880 :]
    if harm == "card" and len(content) >= 2880:  # a keyword's value in the first header
        at = 80 * draw(st.integers(0, 35))
        value = draw(st.sampled_from(["-32", "999999999999", "1E400", "'x", "", "T", "3", "-1", "NaN"]))
        content = content[: at + 10] + f"{value:>20}".encode()[:20] + content[at + 30 :]
    return file._replace(content=content, pixels=file.pixels and harm in ("none", "gzip"))


@st.composite
def files(draw):
    file = draw(
        damaged(
            st.one_of(
                images(),
                images(),
                fits_tables(),
                fits_tables(),
                texts(),
                texts(),
                st.builds(File, st.binary(max_size=300), st.just(".dat"), st.just({}), st.just(False)),
            )
        )
    )
    options = {
        "medium": draw(st.sampled_from([None, "air", "air", "air", "vacuum", "vacuum"])),
        "resolution": draw(st.sampled_from([None, 4e4])),
        "snr": draw(st.sampled_from([None, 50.0, 50.0, 50.0])),
    }
    if draw(st.integers(0, 3)) == 0:
        options |= draw(
            st.sampled_from(
                [{"hdu": 1}, {"hdu": "COADD_B"}, {"hdu": 99}, {"order": 0}, {"order": 40}, {"order": "merge"}, {"row": 1}, {"row": -1},
                 {"arm": "b"}, {"mask_column": "mask"}, {"mask_column": "!good"}, {"wavelength_unit": "nm"}, {"flux_column": "flux"}]
            )
        )  # fmt: skip
    return file._replace(options={k: v for k, v in options.items() if v is not None})


def check(file: File, folder) -> str:
    """Read a file; returns what became of it, "read" or "refused". Raises `AssertionError` where it became anything else."""
    path = folder / f"spectrum{file.suffix}"
    path.write_bytes(file.content)
    try:
        with _limited(SECONDS), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            observation = Observation.read(path, **file.options)
    except EmuinferError as error:
        if not str(error).strip():
            raise AssertionError("an error without a word") from error
        assert not warned, f"a warning beside the error: {warned[0].message} ({warned[0].filename}:{warned[0].lineno})"
        return "refused"
    assert not warned, f"a warning: {warned[0].message} ({warned[0].filename}:{warned[0].lineno})"
    wavelength = observation.wavelength
    assert np.isfinite(wavelength).all() and (np.diff(wavelength) > 0).all() and (wavelength > 0).all()
    good = observation.good
    assert good.any() and np.isfinite(observation.flux[good]).all()
    assert (np.isfinite(observation.uncertainty[good]) & (observation.uncertainty[good] > 0)).all()
    counted = wavelength[0] < 2 and np.allclose(np.diff(wavelength), 1, atol=1e-3)
    if file.pixels and file.options.get("wavelength_unit") is None:  # another column may hold the wavelengths
        assert not counted, f"pixel numbers were taken for wavelengths: {observation!r}"
    return "read"


@contextmanager
def _limited(seconds):
    def late(*_):
        raise AssertionError(f"reading took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
