"""The folder of a run, which only the same run goes on in."""

import json
from pathlib import Path
from typing import NamedTuple

from ..errors import EmuinferError
from .reading import read_json
from .writing import REMEDY, write_json


class Difference(NamedTuple):
    """A setting whose values differ, as short texts."""

    name: str
    there: str
    now: str


def differences(found: dict, wanted: dict, *, ignored=(), only_known=False) -> list[Difference]:
    """The settings in which two runs differ, those that one of them lacks included unless `only_known`, in alphabetical order.

    `found` comes from a JSON file; `wanted` is compared as it would come from one, with lists for tuples.
    """
    wanted = json.loads(json.dumps(wanted))
    names = {*found} & {*wanted} if only_known else {*found, *wanted}
    differ = sorted(name for name in names - {*ignored} if found.get(name) != wanted.get(name))
    return [Difference(name, _short(found.get(name)), _short(wanted.get(name))) for name in differ]


def _short(value, most=200):
    text = str(value)
    return text if len(text) < most else f"{text[: most - 3]}..."


class RunFolder:
    """The folder of one run, with a JSON file, `PLAN`, of what makes the run what it is: only the same run goes on in it.

    With `overwrite`, another run is thrown away (`discard`). **Raises:** `ERROR` where the folder holds another run, naming
    all that differs, or a damaged plan, or (`ALONE`) files but no plan; where it is a file; and where it cannot be written.
    """

    PLAN = "plan.json"
    KIND = "run"
    ERROR: type[Exception] = EmuinferError
    GO_ON = REMEDY
    IGNORED: tuple[str, ...] = ("versions",)
    ALONE, ONLY_KNOWN = True, False
    RENEWED = False  # whether the plan of the same run is written again, with what is `IGNORED`, when it goes on
    ELSE = "Give another folder, or overwrite=True to throw that {kind} away."

    def __init__(self, path, plan: dict, overwrite: bool = False):
        self.path, self.plan = Path(path), json.loads(json.dumps(plan))
        if self.path.exists() and not self.path.is_dir():
            raise self.ERROR(f"The output {self.path} is a file; results go to a folder. Give another.")
        known = self.path / self.PLAN
        if known.exists():
            same = self._same(known, overwrite)
            if not same:
                self.discard()
            if same and not self.RENEWED:
                return
        elif self.ALONE and self.path.exists() and any(not p.name.startswith(".") for p in self.path.iterdir()):
            raise self.ERROR(f"{self.path} is not empty and holds no {self.KIND}. Give another folder.")
        write_json(known, self.plan, self.ERROR, remedy=self.GO_ON)

    def _same(self, known, overwrite):
        try:
            found = self.found(read_json(known, self.ERROR, f"Delete {self.path} and start again."))
        except self.ERROR:
            if overwrite:
                return False
            raise
        different = differences(found, self.plan, ignored=self.IGNORED, only_known=self.ONLY_KNOWN)
        if different and not overwrite:
            listed = "; ".join(f"{d.name}: {d.there} there, {d.now} now" for d in different)
            remedy = self.ELSE.format(kind=self.KIND)
            raise self.ERROR(f"{self.path} holds a {self.KIND} with other settings ({listed}). {remedy}")
        return not different

    def found(self, plan: dict) -> dict:
        """A plan from the disk, in today's terms."""
        return plan

    def discard(self) -> None:
        """Delete the results of another run."""
