"""Folders of runs: only the same run goes on in one."""

import pytest

from emuinfer import files
from emuinfer.errors import SamplingError


def names(folder):
    return sorted(p.name for p in folder.rglob("*"))


class Run(files.RunFolder):
    ERROR, KIND = SamplingError, "fit"

    def discard(self):
        (self.path / "result").unlink(missing_ok=True)


def test_only_the_same_run_goes_on(tmp_path):
    plan = {"seed": 1, "range": (1.0, 2.0), "versions": {"emuinfer": "1"}}
    folder = tmp_path / "run"
    Run(folder, plan)
    (folder / "result").write_text("made")
    Run(folder, {**plan, "versions": {"emuinfer": "2"}})
    Run(folder, {**plan, "range": [1.0, 2.0]}, overwrite=True)
    assert (folder / "result").exists()
    said = r"holds a fit with other settings \(names: None there, \['a'\] now; seed: 1 there, 2 now\)\. Give another folder"
    with pytest.raises(SamplingError, match=said):
        Run(folder, {**plan, "seed": 2, "names": ["a"]})
    Run(folder, {**plan, "seed": 2}, overwrite=True)
    assert not (folder / "result").exists() and Run(folder, {**plan, "seed": 2}).plan["seed"] == 2


def test_folders_that_hold_no_run_or_a_damaged_one(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SamplingError, match="file is a file; results go to a folder"):
        Run(tmp_path / "file", {})
    with pytest.raises(SamplingError, match="is not empty and holds no fit"):
        Run(tmp_path, {})
    Run(tmp_path / "run", {"seed": 1})
    (tmp_path / "run" / "plan.json").write_text('{"seed"')
    with pytest.raises(SamplingError, match="plan.json is damaged .*Delete .*run and start again"):
        Run(tmp_path / "run", {"seed": 1})
    assert names(tmp_path / "run") == ["plan.json"]
    Run(tmp_path / "run", {"seed": 1}, overwrite=True)
    Run(tmp_path / "run", {"seed": 1})


def test_differences_are_short_and_may_leave_out_what_one_side_lacks():
    found, wanted = {"a": 1, "old": 2, "long": "x" * 500}, {"a": 1, "new": 3, "long": "y"}
    assert [d.name for d in files.differences(found, wanted)] == ["long", "new", "old"]
    only = files.differences(found, wanted, only_known=True)
    assert [d.name for d in only] == ["long"] and len(only[0].there) == 200 and only[0].now == "y"
    assert files.differences(found, wanted, ignored=("long", "new", "old")) == []
