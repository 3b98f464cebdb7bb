"""Tutorials run from top to bottom. Set EMUINFER_TUTORIAL_FAST=0 to run them at full length."""

import ast
import gc
import json
import os
from pathlib import Path

import pytest
from test_docs_code import check_import

from emuinfer.emulators import list_emulators
from emuinfer.networks import list_networks

SLOW = (
    "02_train_your_own",
    "03_calibration",
    "04_survey",
    "05_forecast",
    "06_any_star",
)  # half a minute to several each, most of it compiling
TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.ipynb"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_notebook_is_light(path):
    assert path.stat().st_size < 2_000_000, f"{path.name} is larger than 2 MB: lower the resolution of its figures."


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_notebook_carries_the_outputs_of_one_run(path):
    """From top to bottom, without an error, with figures; `nox -s tutorials` makes them."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_notebook_imports_public_names(path):
    """From `emuinfer` or from the `__init__` of a folder that exports them."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for node in ast.walk(ast.parse("".join(cell["source"]))) if cell["cell_type"] == "code" else ():
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "emuinfer":
                check_import(node)


@pytest.mark.skipif("optical-fgk" not in list_emulators(), reason="the emulator 'optical-fgk' is not in this checkout")
@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=pytest.mark.slow) if p.stem in SLOW else p for p in TUTORIALS], ids=lambda p: p.stem
)
def test_notebook_runs(path, tmp_path, monkeypatch):
    if path.stem == "06_any_star" and "stars-xp" not in list_networks():
        pytest.skip("the network 'stars-xp' is not in this checkout")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("EMUINFER_TUTORIAL_FAST", os.environ.get("EMUINFER_TUTORIAL_FAST", "1"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    # The kernel starts elsewhere: without this it would not find a package that is used from its checkout.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path.parents[1]), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    quick = f"import gc; gc.set_threshold{gc.get_threshold()}"  # that of conftest.py
    notebook.cells.insert(0, nbformat.v4.new_code_cell(quick))
    nbclient.NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")
