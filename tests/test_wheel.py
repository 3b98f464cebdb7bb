"""The wheel and the sdist: what is in them, and a star fitted from the wheel in a clean environment."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import emuinfer

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST = 20e6  # bytes of either file; package indices and mail servers have limits


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with wheel and sdist, built from a copy: a build leaves files behind, and old ones would get into the wheel."""
    pytest.importorskip("build", reason="pip install '.[test]' installs build")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "emuinfer", source / "emuinfer", ignore=shutil.ignore_patterns("__pycache__"))
    # Without an index if the environment has what builds; a wheel made from the sdist shows that the sdist is whole.
    major = int(importlib.metadata.version("setuptools").split(".")[0])
    here = ["--no-isolation"] if major >= 77 else []
    run(sys.executable, "-m", "build", *here, "--outdir", out, source)
    return out


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built):
    (path,) = built.glob("*.tar.gz")
    return path


def shipped():
    """The files of the package in the checkout, by their path from its root."""
    files = (p for p in (ROOT / "emuinfer").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(ROOT).as_posix() for p in files}


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"emuinfer-{emuinfer.__version__}.dist-info/"
    assert {n for n in names if not n.startswith(info)} == shipped()
    assert "emuinfer/py.typed" in names and f"{info}licenses/LICENSE" in names
    assert any(n.startswith("emuinfer/data/weights/") for n in names)


def test_sdist_makes_the_same_wheel(sdist):
    """`python -m build` makes the wheel from the sdist, so the package is whole; here what else is in it."""
    with tarfile.open(sdist) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert shipped() <= names
    beside = {n for n in names if n and not n.startswith(("emuinfer/", "emuinfer.egg-info")) and n != "emuinfer"}
    assert beside == {"PKG-INFO", "LICENSE", "README.md", "pyproject.toml", "setup.cfg"}


def test_sizes(wheel, sdist):
    for path in (wheel, sdist):
        assert path.stat().st_size < LARGEST, path.name


def test_metadata(wheel, sdist):
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
        entry = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert f"\nVersion: {emuinfer.__version__}\n" in text and "\nLicense-Expression: BSD-3-Clause\n" in text
    assert "\nRequires-Python: >=3.11\n" in text and "Classifier: Typing :: Typed" in text
    assert "emuinfer = emuinfer.cli.main:main" in entry


def test_versions_agree():
    """The package, its citation, its changelog and its conda recipe."""
    version = emuinfer.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.sub(r"\.?dev\d+", "", version) in re.search(r"\n## (\S+)", (ROOT / "CHANGELOG.md").read_text())[1]
    assert f'version = "{version}"' in (ROOT / ".ci" / "conda" / "meta.yaml").read_text()


def test_conda_recipe_requires_what_the_package_requires():
    recipe = (ROOT / ".ci" / "conda" / "meta.yaml").read_text().split("  run:\n")[1].split("\n\n")[0]
    theirs = {line.removeprefix("    - ").replace("matplotlib-base", "matplotlib") for line in recipe.splitlines()}
    ours = {re.sub(r"(?<=[a-z0-9])(?=[<>=])", " ", text) for text in PROJECT["dependencies"]}
    assert theirs == ours | {f"python {PROJECT['requires-python']}"}


@pytest.mark.slow
def test_a_star_is_fitted_from_the_wheel(wheel, tmp_path):
    """In a clean environment and an empty folder: `pip install` of the wheel, then the command of the README."""
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", wheel)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "EMUINFER", "JAX"))}
    options = {"cwd": tmp_path, "env": {**clean, "EMUINFER_CACHE": str(tmp_path / "cache"), "MPLBACKEND": "agg"}}
    where = run(python, "-c", "import emuinfer; print(emuinfer.__file__)", **options)
    assert str(tmp_path / "venv") in where
    out = run(tmp_path / "venv" / "bin" / "emuinfer", "fit", "--example", "hd41248", "-o", "fit", **options)
    assert "teff" in out
    from astropy.table import Table

    from emuinfer.posteriors import load_posterior

    row = {r["label"]: r for r in Table.read(tmp_path / "fit" / "summary.ecsv")}
    assert row["teff"]["median"] == pytest.approx(5679, abs=40)
    assert row["fe_h"]["median"] == pytest.approx(-0.42, abs=0.05)
    assert load_posterior(tmp_path / "fit" / "posterior.nc").attrs["verification"] == "ok"
