"""Answers for the rows of a table's file: `ask_table`, which `emuinfer ask` calls.

Rows come in pieces, answers of a piece are a part in a folder beside the output, and all parts become one table in the end. So
memory does not grow with the table, and a run that was killed goes on.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import __version__
from ..entry import public
from ..errors import NetworkError, TokenError
from ..files import RunFolder, read_arrays, require_folder_of, table_format, write_arrays, write_pieces
from ..tokens import TokenSet, check_plausible, iterate_tokens
from .answer_table import columns_of, described
from .context import context_of
from .flags import FLAGS, OTHERS, judged
from .network import LEVELS, Network

NUMBERS = 20_000_000  # of draws in one part
GO_ON = "Free some space or allow writing there, and run again: what was answered is kept."
SHOWN = 20  # notes


class Asked(NamedTuple):
    """What `ask_table` has done: the table's `path`, its `rows`, how many rows have which of `FLAGS`, and `notes` on the input."""

    path: Path
    rows: int
    flags: dict[str, int]
    notes: tuple[str, ...]


class AskFolder(RunFolder):
    """The parts of one run."""

    KIND, ERROR, GO_ON = "run of ask", NetworkError, GO_ON

    def part(self, number: int) -> Path:
        return self.path / f"part-{number:06d}.npz"

    def discard(self):
        for file in self.path.glob("part-*.npz"):
            file.unlink(missing_ok=True)

    def load(self, number: int) -> dict:
        return read_arrays(self.part(number), NetworkError, "Delete it and run again: only it is made anew.")


@public
def ask_table(
    network: Network,
    file,
    want: Sequence[str] | str,
    output,
    *,
    given: Sequence[str] | str | None = None,
    draws: int = 0,
    seed: int = 0,
    levels: Sequence[float] = LEVELS,
    columns: Mapping | None = None,
    key: str | None = None,
    outliers: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> Asked:
    """Ask a network for kinds or groups `want` of every row of a table, and write a table of the answers.

    **Arguments:**

    - `file`: FITS table, CSV, ECSV, VOTable, a folder or ZIP file of such; `columns` and `key` as of `emuinfer.tokens.table_tokens`.
    - `output`: FITS, ECSV, VOTable or CSV, by its ending. One row for each row of the input, in order: the input's key (or `row`),
      `NAME` (median), `e_NAME` (standard deviation), quantiles `NAME_p16`, …, `flag` (bits of `FLAGS`), `note`.
    - `given`: kinds or groups that may be used; all but `want` if None.
    - `draws`: joint draws for each row, as vectors `NAME_draws`, and the logarithms `log_prob` of their density.
    - `outliers`: whether to compare each object with itself (`Network.outlier_score`), which takes as long as the answers.

    A row of which nothing is known has NaN and a flag. Killed runs go on: finished parts wait in `OUTPUT.run`.
    **Raises:** `TokenError` on kinds and columns; `NetworkError` where the output cannot be written or exists.
    """
    output = require_folder_of(output, NetworkError)
    wanted = _checked(network, want, given, draws, output)
    if output.exists() and not overwrite:
        raise NetworkError(f"{output} exists. Give another, or overwrite it.")
    file = _found(file)
    names = [network.vocabulary.names[i] for i in wanted]
    run = {
        "network": network.card.get("hash", ""), "table": _fingerprint(file), "want": names, "given": _listed(given),
        "draws": draws, "seed": seed, "levels": [float(p) for p in levels], "columns": dict(columns or {}), "key": key,
        "outliers": outliers, "versions": {"emuinfer": __version__},
    }  # fmt: skip
    folder = AskFolder(output.with_name(output.name + ".run"), run, overwrite)
    asking = _Asking(network, names, given, draws, seed, tuple(levels), outliers)
    tables = iterate_tokens(file, network.vocabulary, columns=columns, key=key, spectrum="both")
    parts = asking.answer_all(tables, folder, progress)
    kinds = [network.vocabulary[name] for name in names]
    pieces = lambda: (described(folder.load(i), kinds, asking.key, OTHERS) for i in range(parts))
    comments = [f"network: {network.card.get('title') or network.vocabulary.name} {network.card.get('hash', '')[:16]}"]
    comments += [f"given: {', '.join(_listed(given) or ['all columns known'])}", *asking.notes]
    comments += [f"flag {bit}: {name}" for name, bit in FLAGS.items()]
    write_pieces(pieces, output, NetworkError, name="ANSWERS", comments=comments, remedy=GO_ON)
    shutil.rmtree(folder.path, ignore_errors=True)
    return Asked(output, asking.rows, dict(asking.flags), tuple(asking.notes))


class _Asking:
    """The answers of one run, part after part; `rows`, `flags` and `notes` grow as they are made."""

    def __init__(self, network, want, given, draws, seed, levels, outliers):
        self.network, self.want, self.given = network, want, given
        self.draws, self.seed, self.levels, self.outliers = draws, seed, levels, outliers
        self.kinds = [network.vocabulary[name] for name in want]
        self.wanted = network.vocabulary.indices(want)
        self.most = max(1, NUMBERS // (draws * len(want))) if draws else 10**9
        self.key, self.rows = "row", 0
        self.notes: list[str] = []
        self.flags: Counter[str] = Counter()
        self.doubted: set[str] = set()

    def answer_all(self, tables: Iterator, folder: AskFolder, progress: bool) -> int:
        """Make the parts that there are not; returns the number of all."""
        from tqdm import tqdm

        number = 0
        with tqdm(desc="objects", unit="", unit_scale=True, disable=not progress, file=sys.stderr) as bar:
            for table in tables:
                tokens = table.tokens
                self.key = tokens.key_name
                for start in range(0, max(len(tokens), 1), self.most):
                    piece = tokens[start : start + self.most]
                    if folder.part(number).exists():
                        flags = folder.load(number)["flag"]
                    else:
                        columns = self.part(piece, number, bar)
                        write_arrays(folder.part(number), columns, NetworkError, compressed=False, remedy=GO_ON)
                        flags = columns["flag"]
                    self.flags.update({name: n for name, bit in FLAGS.items() if (n := int((flags & bit > 0).sum()))})
                    self.rows += len(piece)
                    number += 1
                    bar.update(len(piece))
        return number

    def part(self, tokens: TokenSet, number: int, bar) -> dict[str, np.ndarray]:
        """The columns of some rows."""
        network, n, d = self.network, len(tokens), len(self.kinds)
        keys = tokens.keys if tokens.key_name != "row" else self.rows + np.arange(n)
        tokens = tokens.only(self.given) if self.given is not None else tokens
        context = context_of(tokens, self.wanted)
        self._say(context, tokens.notes, bar)
        known = context.seen.any(1)
        median, sd = np.full((n, d), np.nan), np.full((n, d), np.nan)
        quantiles = {p: np.full((n, d), np.nan) for p in self.levels}
        draws, density = np.full((n, self.draws, d), np.nan, np.float32), np.full((n, self.draws), np.nan, np.float32)
        score, p = np.full(n, np.nan), np.full(n, np.nan)
        if known.any():
            seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
            answer = network.ask(tokens[known], self.want, draws=self.draws, seed=seed, levels=self.levels)
            median[known], sd[known] = answer.median, answer.sd
            for q in self.levels:
                quantiles[q][known] = answer.quantiles[q]
            draws[known], density[known] = answer.draws, answer.log_prob
            if self.outliers:
                score[known], p[known] = network.outlier_score(context[known])
        flag, note = judged(context, self.kinds, median, p)
        found = {tokens.key_name: keys, **columns_of(self.kinds, median, sd, quantiles, draws, density)}
        if self.outliers:
            found |= {"outlier_score": score.astype(np.float32), "outlier_p": p.astype(np.float32)}
        return {**found, "flag": flag, "note": note}

    def _say(self, context, notes, bar):
        """Keep what there is to say of the input; say it once, as soon as it is known."""
        doubts = [doubt for doubt in check_plausible(context) if doubt.name not in self.doubted]
        self.doubted.update(doubt.name for doubt in doubts)
        for text in [*(f"Doubtful column: {doubt}" for doubt in doubts), *notes]:
            if text not in self.notes and len(self.notes) < SHOWN:
                self.notes.append(text)
                bar.write(f"Note: {text}", file=sys.stderr) if not bar.disable else None


def _checked(network, want, given, draws, output) -> np.ndarray:
    wanted = network.vocabulary.indices(want)
    if not len(wanted):
        raise TokenError(f"Nothing is wanted. Name kinds or groups of: {network.vocabulary.describe()}.")
    if given is not None:
        left = set(network.vocabulary.indices(given)) - set(wanted)
        if not left:
            raise TokenError("All that is given is wanted, too: nothing is left to answer from. Give other kinds.")
    context_of(TokenSet(network.vocabulary, np.zeros((0, len(network.vocabulary)))), wanted)
    if table_format(output, NetworkError) == "ascii.csv" and draws:
        raise NetworkError("CSV has no place for draws, which are vectors. Write FITS, ECSV or a VOTable.")
    return wanted


def _listed(names) -> list[str] | None:
    return None if names is None else [names] if isinstance(names, str) else list(names)


def _found(file):
    paths = [Path(p).expanduser() for p in ([file] if isinstance(file, str | Path) else file)]
    for path in paths:
        if not path.exists():
            raise TokenError(f"There is no file or folder {path}.")
    return paths[0] if len(paths) == 1 else paths


def _fingerprint(file) -> list:
    """What tells whether the input is the same as when a run was begun."""
    found = []
    for path in file if isinstance(file, list) else [file]:
        for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if one.is_file():
                facts = one.stat()
                found.append([str(one.resolve()), facts.st_size, facts.st_mtime_ns])
    return found if len(found) <= 50 else [str(file), len(found), sum(f[1] for f in found), max(f[2] for f in found)]
