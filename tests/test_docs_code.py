"""The code and the commands that the documentation shows: names, options and keywords exist, and pages run.

Every Python block of a page is executed, one after the other in one namespace, in a folder with the files that the pages name and
with a small emulator in place of the shipped one, few draws and no progress bars. `<!-- not run -->` before a block leaves it out.
"""

import ast
import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *(p for p in sorted(DOCS.rglob("*.md")) if not {"templates", "benchmarks"} & {*p.parts})]
BLOCK = re.compile(r"^(<!-- not run -->\n)?```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
each_page = pytest.mark.parametrize("page", PAGES, ids=[p.relative_to(ROOT).as_posix() for p in PAGES])


def blocks(page, language, run=False):
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for left_out, name, text in found if name == language and not (run and left_out)]


def public_names(module):
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("api").public_names(module)
    finally:
        sys.path.remove(str(DOCS))


@each_page
def test_python_blocks_name_what_there_is(page):
    """They compile; what they import exists; `ei.name` exists, is not deprecated, and takes the keywords given."""
    for text in blocks(page, "python"):
        tree = ast.parse(text, filename=str(page))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "emuinfer":
                check_import(node)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ei":
                assert node.attr in importlib.import_module("emuinfer").__all__, f"ei.{node.attr}"
            if isinstance(node, ast.Call):
                _check_keywords(node)


def check_import(node):
    """From the package itself or from a folder's `__init__`, and a name that it exports."""
    module = importlib.import_module(node.module)
    assert module.__file__.endswith("__init__.py"), f"{node.module} is no folder: what it holds is not public"
    public = public_names(module)
    for alias in node.names:
        assert alias.name in public, f"{node.module} does not export {alias.name}"


def _check_keywords(call):
    words = ast.unparse(call.func).split(".")
    if words[0] != "ei":
        return
    value = importlib.import_module("emuinfer")
    for word in words[1:]:
        value = getattr(value, word)
    parameters = inspect.signature(value).parameters.values()
    taken = {p.name for p in parameters}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        assert {k.arg for k in call.keywords if k.arg} <= taken, ast.unparse(call)


# Pages that run

RUN = [page for page in PAGES if blocks(page, "python", run=True)]
QUICK = ("own-grid.md", "own-emulator.md")  # the others fit a star


@pytest.fixture(scope="module")
def small_emulator():
    """Lines of iron and magnesium with the labels of FGK stars, as a `ReducedEmulator`."""
    import numpy as np
    import tiny

    import emuinfer as ei

    names = ("teff", "logg", "fe_h", "vmic", "mg_fe")
    space = ei.LabelSpace(names, (4000, 0.5, -3.0, 0.5, -0.2), (7000, 5.0, 0.5, 2.5, 0.6))
    rng = np.random.default_rng(3)
    n = 40
    centre = tuple(np.sort(rng.uniform(5150.5, 5189.5, n)).tolist())
    magnesium = np.arange(n) % 4 == 2
    slope = np.stack([rng.uniform(-1.3, 0.3, n), rng.uniform(-0.5, 0.5, n), np.full(n, 2.0)], axis=1)
    slope = np.concatenate([slope, np.full((n, 1), 0.2), np.where(magnesium, 0.9, 0.0)[:, None]], axis=1)
    numbers = (rng.uniform(-1.5, 1.5, n), slope, np.full(n, -0.2))
    lines = tiny.Lines(centre, *(np.asarray(x, np.float32) for x in numbers), space, (5150.0, 5190.0), "air")
    return tiny.reduced_lines(lines, n_train=300, components=10, hidden=32, steps=600)


@pytest.fixture(scope="module")
def star_spectra(small_emulator):
    """`(wavelength, flux, uncertainty)` of a star at S/N 80, twice: with the noise of two nights."""
    import numpy as np

    from emuinfer.forward import SpectrumOperator

    grid = small_emulator.config.wavelength
    wavelength = np.arange(5150.1, 5189.9, 0.08)
    labels = {"teff": 5600.0, "logg": 4.3, "fe_h": -0.3, "vmic": 1.1, "mg_fe": 0.1}
    clean = np.asarray(SpectrumOperator(grid, wavelength, 30_000)(small_emulator(labels, grid), 12.0, 4.0), float)
    noise = [np.random.default_rng(night).standard_normal(len(wavelength)) / 80 for night in (1, 2)]
    return [(wavelength, clean + one, np.full(len(wavelength), 1 / 80)) for one in noise]


@pytest.fixture
def workplace(tmp_path, monkeypatch, small_emulator, star_spectra):
    """A folder with the files that the pages name; `emuinfer` with the small emulator and short runs."""
    import h5py
    import numpy as np
    from astropy.table import Table

    import emuinfer as ei
    from emuinfer.inference import SamplingConfig

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    for name, spectrum in zip(("star", "night1", "night2"), [star_spectra[0], *star_spectra]):
        table = Table(spectrum, names=("wavelength", "flux", "uncertainty"), meta={"MEDIUM": "air", "SPEC_RES": 30000})
        table.write(f"{name}.fits")
    np.savetxt("star.txt", np.transpose(star_spectra[0]))
    with h5py.File("survey.h5", "w") as file:
        file["wavelength"] = star_spectra[0][0]
        file["flux"], file["uncertainty"] = (np.stack([one[k] for one in star_spectra]) for k in (1, 2))
        file["name"] = ["one", "two"]
        file.attrs["medium"], file.attrs["resolution"] = "air", 30_000.0
    short = SamplingConfig(chains=2, warmup=60, draws=60, local=120, test=20, components=8, verify=16)
    sample, fit_many, load = ei.sample, ei.fit_many, ei.load_emulator
    choose = lambda name: small_emulator if name == "optical-fgk" else load(name)
    quick = {"progress": False}
    monkeypatch.setattr(ei, "load_emulator", choose, raising=False)
    monkeypatch.setattr(ei, "sample", lambda m, **k: sample(m, **{**k, "config": short, **quick}), raising=False)
    of_many = lambda e, *a, **k: fit_many(choose(e), *a, **{**k, "config": short, "batch": 2, **quick})
    monkeypatch.setattr(ei, "fit_many", of_many, raising=False)
    example = ei.Observation.read("star.fits")
    monkeypatch.setattr(ei.Observation, "example", classmethod(lambda cls, name: example))


@pytest.mark.parametrize(
    "page",
    [p if p.name in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in RUN],
    ids=[p.relative_to(ROOT).as_posix() for p in RUN],
)
def test_page_runs(page, workplace, capsys):
    namespace = {"__name__": "page"}
    for number, text in enumerate(blocks(page, "python", run=True), start=1):
        exec(compile(text, f"{page.name}, block {number}", "exec"), namespace)


# Commands


def commands_of(page):
    """What follows `emuinfer` in shell blocks and in inline code, as lists of words."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    lines += re.findall(r"`(emuinfer [^`]+)`", text)
    found = []
    for line in lines:
        for part in re.split(r"&&|\||;", line) if "emuinfer" in line else ():
            words = shlex.split(part, comments=True)
            if "emuinfer" in words:
                words = words[words.index("emuinfer") + 1 :]
                found.append(words[: words.index(">")] if ">" in words else words)
    return found


@each_page
def test_commands_parse(page):
    import typer

    from emuinfer.cli.main import app

    for words in commands_of(page):
        _parse(typer.main.get_command(app), words)


def _parse(command, words):
    """Parse without running anything; of a command with an ellipsis only names and options are looked at."""
    if any("…" in word for word in words):
        commands = [command, *_named(command, words)]
        known = {option for one in commands for p in one.params for option in p.opts + p.secondary_opts}
        unknown = [w for w in words if w.startswith("-") and w not in known]
        assert not unknown, f"{' '.join(words)}: no option {', '.join(unknown)}"
        return
    while hasattr(command, "commands"):
        while words and words[0].startswith("-"):
            assert words[0] in {o for p in command.params for o in p.opts} | {"--help", "-h"}, " ".join(words)
            words = words[1:]
        if not words:
            return
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if not words and any(p.required for p in command.params):
        return  # a command that is only named
    command.make_context(command.name, list(words))


def _named(command, words):
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
            yield command
