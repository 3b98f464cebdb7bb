"""The plan of the house: which folder of the package may import which, how long a file and a function may be.

`python tests/test_architecture.py` prints what there is, and writes the table of floors in `emuinfer/README.md`.
"""

import ast
import collections
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "emuinfer"
README = PACKAGE / "README.md"

# From the ground to the roof. A room (a folder, or a loose file of the ground) imports from lower floors only.
FLOORS = [
    ["errors", "constants", "deprecation", "processes"],
    ["entry", "files", "wavelengths"],
    ["labels", "forward", "posteriors", "training"],
    ["emulators", "observations", "plotting", "samplers", "synthesis"],
    ["emulators.baselines", "grids", "likelihoods", "tokens"],
    ["emulators.training", "forecast", "inference", "networks"],
    ["survey"],
    ["calibration", "recipes"],
    ["cli"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# The ways up, by name: a card names the kind of its emulator, whose class is loaded; and, for one release, what was in
# `emuinfer.training` when it was the room of emulators is found from there.
BY_NAME = {("emulators", "emulators.baselines"), ("training", "emulators.training")}

# Rooms that must not know what they are used for import nothing but these.
ONLY = {
    "samplers": {"constants", "entry", "errors", "files", "posteriors"},  # log densities and pytrees, no spectra
    "training": {"constants", "entry", "errors", "files", "processes", "deprecation"},  # losses and batches, no spectra
    "posteriors": {"constants", "errors", "files"},
}
NEVER_IMPORTED = {"recipes", "cli"}  # how the data were made, and the door of the command line

# Libraries whose interfaces move are known in these rooms only.
LIBRARIES = {
    "arviz": {"posteriors"},
    "xarray": {"posteriors"},
    "blackjax": {"samplers", "survey"},
    "specutils": {"observations"},
    "typer": {"cli"},
    "matplotlib": {"plotting", "forecast", "calibration"},
}

LINES_OF_A_FILE = 350
LINES_OF_A_FUNCTION = 80

# What is still to be mended. Nothing is added here; whoever mends one takes it out.
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
CIRCLES: set[frozenset[str]] = set()
PRIVATE_NAMES: set[str] = set()

Import = collections.namedtuple("Import", "path source target line")  # of modules, by their dotted names


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def room_of(module: str) -> str | None:
    """The room of a module: the longest folder or ground file of `FLOORS` that holds it; None for the package itself."""
    parts = module.split(".")[1:]
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in FLOOR:
            return ".".join(parts[:length])
    return "cli" if parts == ["__main__"] else ".".join(parts[:1]) or None


def absolute(path: Path, level: int, name: str) -> str:
    """`name` after `level` dots, as a module at `path` writes it, from the root."""
    if not level:
        return name
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - level + 1]
    return ".".join([*package, *filter(None, [name])])


def names_imported(path: Path):
    """`(dotted name, line)` of everything a file imports: at its head, inside functions, and by name from tables of text."""
    by_name = "import_module" in path.read_text()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(path, node.level, node.module or "")
            yield from ((f"{source}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if by_name and re.fullmatch(r"\.+[a-z_][a-z_.]*", text):
                name = text.lstrip(".")
                yield absolute(path, len(text) - len(name), name), node.lineno
            elif re.fullmatch(r"emuinfer(\.[a-z_]+)+", text) and text in modules():  # as `python -m` is given it
                yield text, node.lineno


@functools.cache
def imports() -> list[Import]:
    """Every import of one module of the package by another, the package's own table of public names left out."""
    found = []
    for source, path in modules().items():
        if source == "emuinfer":
            continue
        for name, line in names_imported(path):
            target = name if name in modules() else name.rpartition(".")[0]
            if target in modules() and target != source:
                found.append(Import(path, source, target, line))
    return found


@functools.cache
def arrows() -> dict[tuple[str, str], list[Import]]:
    """The imports of each room by each other; those of the package itself (its version) left out."""
    found = collections.defaultdict(list)
    for one in imports():
        source, target = room_of(one.source), room_of(one.target)
        if source != target and target is not None:
            found[source, target].append(one)
    return dict(found)


def places(found: list[Import]) -> str:
    return "; ".join(f"{one.path.relative_to(ROOT)}:{one.line} imports {one.target}" for one in found)


def source_files():
    return sorted(path for folder in ("emuinfer", "tests", "docs") for path in (ROOT / folder).rglob("*.py"))


def test_every_module_has_its_floor():
    homeless = {name for name in modules() if room_of(name) is not None and room_of(name) not in FLOOR}
    assert not homeless, "write the rooms of these modules into FLOORS"
    rooms = {room_of(name) for name in modules()}
    assert not set(FLOOR) - rooms, "rooms of FLOORS that do not exist"


def test_few_rooms_on_few_floors():
    assert len(FLOOR) <= 28
    assert len(FLOORS) <= 9
    assert len(FLOOR) == sum(len(rooms) for rooms in FLOORS), "a room stands on two floors"


def test_imports_run_downwards():
    wrong = [
        f"{source} (floor {FLOOR[source]}) → {target} (floor {FLOOR[target]}): {places(found)}"
        for (source, target), found in sorted(arrows().items())
        if FLOOR[target] >= FLOOR[source] and (source, target) not in BY_NAME
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_modules():
    """Within rooms too: what a module imports never leads back to it."""
    below = collections.defaultdict(set)
    for one in imports():
        if one.source not in packages_of(one.target):  # a folder's `__init__` names what the folder offers
            below[one.source].add(one.target)
    reached = {}
    for module in modules():
        seen, ahead = set(), [module]
        while ahead:
            new = below[ahead.pop()] - seen
            seen |= new
            ahead += new
        reached[module] = seen
    circles = {frozenset({m, *(o for o in reached[m] if m in reached[o])}) for m in reached if m in reached[m]}
    assert circles - CIRCLES == set()
    assert CIRCLES - circles == set(), "mended: take them out of CIRCLES"


def packages_of(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


@pytest.mark.parametrize("room", sorted(ONLY))
def test_rooms_that_must_not_know_what_they_serve(room):
    wrong = {b: places(found) for (a, b), found in arrows().items() if a == room and (a, b) not in BY_NAME}
    assert not {target: where for target, where in wrong.items() if target not in ONLY[room]}


def test_nothing_imports_recipes_or_the_command_line():
    wrong = {arrow: places(found) for arrow, found in arrows().items() if arrow[1] in NEVER_IMPORTED}
    assert not wrong


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_libraries_are_known_where_they_belong(library):
    users = collections.defaultdict(list)
    for module, path in modules().items():
        for name, line in names_imported(path):
            if name.split(".")[0] == library:
                users[room_of(module)].append(f"{path.relative_to(ROOT)}:{line}")
    assert set(users) <= LIBRARIES[library], dict(users)


def test_public_names_lead_somewhere():
    """Each name of `emuinfer.__all__` is defined in the module that the package's table gives."""
    missing = [
        f"{path.relative_to(ROOT)}:{line}: there is no module {name}"
        for path in PACKAGE.rglob("__init__.py")
        for name, line in names_imported(path)
        if name.startswith("emuinfer.") and name not in modules() and name.rpartition(".")[0] not in modules()
    ]
    assert not missing


def test_no_public_name_is_a_module_of_its_folder():
    """Names imported on first use must not be those of modules: whoever imports the module would hide the name."""
    hidden = [
        f"{path.relative_to(ROOT)}: {name}"
        for package, path in modules().items()
        if path.name == "__init__.py" and "import_module" in path.read_text()
        for node in tree_of(path).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for name in (key.value for key in node.value.keys)
        if f"{package}.{name}" in modules()
    ]
    assert not hidden


def test_no_private_name_crosses_rooms():
    found = set()
    for module, path in modules().items():
        for name, _ in names_imported(path):
            owner, _, last = name.rpartition(".")
            private = last.startswith("_") and not last.startswith("__")
            if private and owner in modules() and room_of(owner) != room_of(module):
                found.add(f"{path.relative_to(ROOT)}: {name}")
    assert found - PRIVATE_NAMES == set()
    assert PRIVATE_NAMES - found == set(), "mended: take them out of PRIVATE_NAMES"


def test_no_file_is_long():
    long = {str(p.relative_to(ROOT)): n for p in source_files() if (n := p.read_text().count("\n")) > LINES_OF_A_FILE}
    assert {path: n for path, n in long.items() if path not in LONG_FILES} == {}
    assert LONG_FILES - set(long) == set(), "mended: take them out of LONG_FILES"


def test_no_function_is_long():
    long = {
        f"{path.relative_to(ROOT)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > LINES_OF_A_FUNCTION
    }
    assert {name: n for name, n in long.items() if name not in LONG_FUNCTIONS} == {}
    assert LONG_FUNCTIONS - set(long) == set(), "mended: take them out of LONG_FUNCTIONS"


BEGIN, END = "<!-- floors: written by `python tests/test_architecture.py` -->", "<!-- floors: end -->"


def table_of_floors() -> str:
    """The rooms from the roof down, what each holds (the first sentence of its docstring) and what it imports."""
    rows = ["| floor | room | holds | imports, the ground left out |", "|---|---|---|---|"]
    for number in reversed(range(len(FLOORS))):
        for room in FLOORS[number]:
            path = modules()["emuinfer." + room]
            name = room.replace(".", "/") + ("/" if path.name == "__init__.py" else ".py")
            lower = [b for a, b in arrows() if a == room and FLOOR[b] and (a, b) not in BY_NAME]
            lower.sort(key=lambda other: (-FLOOR[other], other))
            first = ast.get_docstring(tree_of(path)).split("\n\n")[0].replace("\n", " ")
            rows.append(f"| {number} | `{name}` | {first} | {', '.join(lower) or '–'} |")
    return "\n".join(rows)


def written(readme: str) -> str:
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table_of_floors()}\n{END}{after}"


def test_readme_shows_the_floors():
    readme = README.read_text()
    assert readme.count(BEGIN) == readme.count(END) == 1
    assert readme == written(readme), "run `python tests/test_architecture.py`"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
    print(table_of_floors())
    sys.exit(pytest.main(["-n", "0", "-q", __file__]))
