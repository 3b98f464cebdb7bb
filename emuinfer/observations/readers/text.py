"""Spectra in text: columns of numbers, with or without names, as people and programs write them. Host only."""

import csv
import dataclasses
import re

import numpy as np

from ...errors import ObservationError
from .choices import NEEDS, Choices, open_file
from .columns import FLUX, UNCERTAINTY, from_table, is_wavelength
from .units import parse_unit, words

COMMENT = ("#", "!", "%", "//")
SEPARATORS = ("\t", ";", ",", "|", "&", None)  # None: blanks
MISSING = {"", *words("indef null none na n/a - -- --- ... undef masked")}
TRUTH = {"true": 1.0, "false": 0.0}
FACTS = {"MEDIUM", "AIRORVAC", "VACUUM", "SPEC_RES", "RESOLUTION", "RESOLVE", "SNR", "OBJECT"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdDqQ][+-]?\d+)?$")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the columns of a text are written."""

    separator: str | None
    decimal: str

    def split(self, line: str) -> list[str]:
        """The words of a line of numbers; delimiters at its ends enclose nothing."""
        if self.separator == "|":
            line = line.strip().strip("|")
        words = line.split(self.separator)
        return [word.strip().strip("\"'").strip() for word in words] if self.separator or '"' in line else words

    def split_names(self, line: str) -> list[str]:
        """The words of a line of names: quotation marks and brackets keep what they enclose together."""
        line = line.strip().strip("|") if self.separator == "|" else line
        line = re.sub(r"\s*([(\[])\s*([^)\]]*?)\s*([)\]])", lambda m: m[1] + re.sub(r"\s+", "*", m[2]) + m[3], line)
        if self.separator is None:
            line = re.sub(r"\s+", " ", line)
        words = next(csv.reader([line], delimiter=self.separator or " ", skipinitialspace=True), [])
        return [word.strip().strip("\"'").strip() for word in words]

    def number(self, word: str) -> float:
        """A word as a number, NaN if it says that there is none; `ValueError` if it is anything else."""
        if self.decimal == "," and "," in word:
            if "." in word:
                raise ValueError(f"'{word}'")
            word = word.replace(",", ".")
        if NUMBER.match(word):
            return float(re.sub("[dDqQ]", "e", word))
        low = word.lower()
        if low in TRUTH:
            return TRUTH[low]
        if (
            low in MISSING or low.lstrip("+-") in ("nan", "inf") or set(word) == {"*"}
        ):  # Fortran fills numbers that do not fit with stars
            return np.nan
        raise ValueError(f"'{word}'")

    def numbers(self, line: str) -> list[float] | None:
        """The numbers of a line; `None` if it is no row of two or more, or holds none."""
        words = self.split(line)
        try:
            values = [self.number(word) for word in words]
        except ValueError:
            return None
        return values if len(values) > 1 and any(NUMBER.match(w.replace(",", ".")) for w in words) else None


def read_text(path, choices: Choices) -> dict:
    """Columns separated by tabs, semicolons, commas or blanks. Names stand in the line above them or in a comment, else two
    or three columns are wavelength, flux and uncertainty. Lines of title above are left out, with a note."""
    with open_file(path) as file:
        lines = decoded(file.read())
    content = [(i, line) for i, line in enumerate(lines, start=1) if line and not line.startswith(COMMENT)]
    if not content:
        raise ObservationError(f"The file holds no rows. {NEEDS}")
    layout = _layout([line for _, line in content[:300]])
    first = next((k for k, (_, line) in enumerate(content) if layout and layout.numbers(line)), None)
    if layout is None or first is None:
        shown = content[-1][1][:60]
        raise ObservationError(
            f"The file has no rows of numbers in two or more columns; its last line, {content[-1][0]}, is '{shown}'. {NEEDS}"
        )
    values = _rows(content[first:], layout)
    comments = [line.lstrip("#!%/ ") for line in lines if line.startswith(COMMENT)]
    notes: list[str] = []
    names, units = _names([line for _, line in content[:first]], comments, values.shape[1], layout, choices, notes)
    fields = from_table(dict(zip(names, values.T)), units, _facts(comments), choices)
    return {**fields, "notes": (*notes, *fields["notes"])}


def decoded(raw: bytes) -> list[str]:
    """The lines of a text in UTF-8, UTF-16 or Latin-1, stripped of blanks."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = raw.decode("utf-16", errors="replace")
    elif len(raw) > 3 and raw[1:200:2].count(0) > 0.9 * len(raw[1:200:2]):  # UTF-16 without its mark
        text = raw.decode("utf-16-le", errors="replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
    text = text.lstrip("\ufeff").rstrip("\x1a\x00")
    if re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
        raise ObservationError(f"The file is neither FITS nor text. {NEEDS}")
    return [line.strip(" \x0b\x0c\r\n") for line in re.split(r"\r\n|\n|\r", text)]


def _layout(lines) -> Layout | None:
    """The separator and decimal mark with which most lines are rows of numbers."""
    layouts = [Layout(s, ".") for s in SEPARATORS] + [Layout(s, ",") for s in SEPARATORS if s != ","]
    counts = [sum(layout.numbers(line) is not None for line in lines) for layout in layouts]
    return layouts[int(np.argmax(counts))] if max(counts) else None


def _rows(content, layout) -> np.ndarray:
    """The numbers, `(n_rows, n_columns)`, less a last column without any; an error names the line that is no row."""
    rows = []
    for number, line in content:
        words = layout.split(line)
        try:
            rows.append(list(map(float, words)))  # several times as fast, and nearly always enough
        except ValueError:
            try:
                rows.append([layout.number(word) for word in words])
            except ValueError as error:
                raise ObservationError(f"Line {number} has {error} where a number should be: '{line[:80]}'.") from None
        if len(rows[-1]) != len(rows[0]):
            raise ObservationError(
                f"The rows are not numbers in equally many columns: line {number} has {len(rows[-1])}, line {content[0][0]} "
                f"has {len(rows[0])}: '{line[:80]}'."
            )
    values = np.array(rows, dtype=float)
    ends = [layout.split(line)[-1] == "" for _, line in (content[0], content[-1])]
    if all(ends) and np.isnan(values[:, -1]).all():  # a delimiter at the end of each line
        values = values[:, :-1]
    return values


def _names(head, comments, n, layout, choices: Choices, notes):
    """Names of the `n` columns and their units, from the lines above the numbers, or from the comments."""
    ruler = re.compile(r"([-=+_]+|\d*[NSFDM])$")  # below the names of an .rdb table
    split = lambda line: [word for k, word in enumerate(layout.split_names(line)) if word or k < n]
    lines = [(line, split(line)) for line in head]
    rows = [words for _, words in lines if len(words) == n and not all(ruler.match(w) for w in words)]
    named = [k for k, words in enumerate(rows) if _known(words, choices)]
    used: list = []
    if named or rows:
        k = named[0] if named else len(rows) - 1
        used = rows[k : k + 2] if _are_units(rows[k + 1 : k + 2]) else rows[k : k + 1]
    if not used or (not named and n < 4 and _is_title(used[0])):
        used = []
        known = [words for words in map(split, comments) if len(words) == n and _known(words, choices)]
        last = split(comments[-1]) if comments else []
        used = known[-1:] or ([last] if len(last) == n > 3 and not _is_title(last) else [])
        if not used and len(last) == n:
            notes.append(
                f"the comment '{comments[-1][:60]}' names no columns that are known: taken in their usual order"
            )
    titles = [line for line, words in lines if words not in used and not all(ruler.match(w) for w in words)]
    if titles:
        more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
        notes.append(f"taken as title, not as names of columns: '{titles[0][:60]}'{more}")
    if used:
        return _with_units(*used)
    if n > 3 and (choices.wavelength_column is None or choices.flux_column is None):
        raise ObservationError(
            f"The file has {n} columns without names. Without names, give two or three columns: wavelength, flux, "
            "uncertainty; or choose among col1, col2, … with wavelength_column=, flux_column= and uncertainty_column=."
        )
    return (["wavelength", "flux", "uncertainty"][:n] if n < 4 else [f"col{k}" for k in range(1, n + 1)]), {}


def _bare(word) -> tuple[str, str | None]:
    """ "wavelength[nm]" as name and unit."""
    match = re.match(r"^(.*?)\s*[\[(](.*?)[\])]?$", word)
    return (
        (match[1], match[2].replace("*", " ") if "**" not in match[2] else match[2])
        if match and match[1]
        else (word, None)
    )


def _known(words, choices: Choices) -> bool:
    names = [_bare(word)[0] for word in words]
    given = {choices.wavelength_column, choices.flux_column} - {None}
    return any(is_wavelength(n) or n.lower() in (*FLUX, *UNCERTAINTY) for n in names) or bool(given & set(names))


def _is_title(words) -> bool:
    return any(NUMBER.match(word) for word in words)


def _are_units(rows) -> bool:
    """Whether a line below names holds their units: all words may be units or blanks, and one is."""
    words = [word.strip("()[]") for row in rows for word in row]
    known = [parse_unit(word) is not None for word in words]
    return any(known) and all(k or word.lower() in (*MISSING, "1") or not word for k, word in zip(known, words))


def _with_units(names, units=()):
    pairs = [_bare(name) for name in names]
    found = {name: unit for name, unit in pairs if unit}
    found |= {name: word.strip("()[]") for (name, _), word in zip(pairs, units) if parse_unit(word) is not None}
    return [name for name, _ in pairs], {
        n: u for n, u in found.items() if parse_unit(u) is not None or is_wavelength(n)
    }


def _facts(comments) -> dict:
    """What comments such as "# SPEC_RES = 47000" say, by keyword."""
    pairs = (re.match(r"(\w+)\s*[:=]\s*(.+?)\s*$", line) for line in comments)
    return {m[1].upper(): m[2].strip("'\" ") for m in pairs if m and m[1].upper() in FACTS}
