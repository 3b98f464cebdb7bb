"""Reference pages: one for each folder of public names, one of the command line."""

import ast
import importlib
import inspect

FOLDERS = (
    "observations",
    "observations.readers",
    "labels",
    "emulators",
    "emulators.training",
    "emulators.baselines",
    "likelihoods",
    "inference",
    "samplers",
    "posteriors",
    "plotting",
    "networks",
    "tokens",
    "survey",
    "forecast",
    "calibration",
    "grids",
    "synthesis",
    "training",
    "forward",
    "wavelengths",
    "files",
)


def pages() -> dict:
    """Name of a page to its Markdown."""
    found = {f"api/{folder}.md": folder_page(f"emuinfer.{folder}") for folder in FOLDERS}
    return {"api/index.md": index_page(), "api/command-line.md": command_line_page(), **found}


def public_names(module) -> list[str]:
    """What a folder exports: its `__all__`, or what its `__init__` imports as itself (`from .x import name as name`)."""
    if hasattr(module, "__all__"):
        names = module.__all__
    else:
        imports = [n for n in ast.parse(inspect.getsource(module)).body if isinstance(n, ast.ImportFrom)]
        names = [alias.name for node in imports for alias in node.names if alias.asname == alias.name]
    return sorted((n for n in names if n != "__version__"), key=lambda n: (n.lower(), n))


def place(module_name: str, name: str) -> str:
    """Where a public name is defined, as a dotted path that can be read without importing it."""
    value = getattr(importlib.import_module(module_name), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{_module_of(module_name, name)}.{name}"


def _module_of(module_name, name):
    """The module that binds a constant, followed through `from .x import name`."""
    module = importlib.import_module(module_name)
    if name in getattr(module, "_WHERE", {}):  # a room that imports its names on first use
        return module_name + module._WHERE[name]
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
            package = module_name if module.__file__.endswith("__init__.py") else module_name.rpartition(".")[0]
            parts = package.split(".")
            parent = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            return _module_of(f"{parent}.{node.module}".strip("."), name)
    return module_name


def folder_page(module_name: str) -> str:
    module = importlib.import_module(module_name)
    text = [f"# {module_name}", "", (module.__doc__ or "").strip(), ""]
    for name in public_names(module):
        text += [f"::: {place(module_name, name)}", ""]
    return "\n".join(text)


def index_page() -> str:
    """Names at the top of the package, with links to their descriptions."""
    import emuinfer

    text = [
        "# Reference",
        "",
        "What can be imported from `emuinfer` itself, or from one of the folders in the menu, is public: it stays, or is",
        "deprecated for one release before it goes. Everything else may change at any time.",
        "",
        "| `import emuinfer as ei` | | described in |",
        "|---|---|---|",
    ]
    for name in public_names(emuinfer):
        value = getattr(emuinfer, name)
        module = value.__module__ if hasattr(value, "__module__") else ""
        folder = max((f for f in FOLDERS if _exports(f, name, value)), key=len, default="")
        first = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        first = first if inspect.isclass(value) or inspect.isfunction(value) else ""
        where = f"[emuinfer.{folder}]({folder}.md#{place(f'emuinfer.{folder}', name)})" if folder else f"`{module}`"
        text.append(f"| `ei.{name}` | {first} | {where} |")
    return "\n".join(text) + "\n"


def _exports(folder, name, value) -> bool:
    module = importlib.import_module(f"emuinfer.{folder}")
    return name in public_names(module) and getattr(module, name, None) is value


def command_line_page() -> str:
    """The help of every command, as the terminal shows it."""
    text = ["# Command line", "", "What `--help` says.", ""]
    for words, command in commands():
        text += [f"## {' '.join(words)}", "", "```text", help_of(words, command).rstrip(), "```", ""]
    return "\n".join(text)


def commands():
    """`(words, command)` of `emuinfer` and all its commands, such as `(["emuinfer", "grid", "make"], …)`."""
    import typer

    from emuinfer.cli.main import app

    waiting = [(["emuinfer"], typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop(0)
        yield words, command
        waiting[:0] = [([*words, name], one) for name, one in getattr(command, "commands", {}).items()]


def help_of(words, command) -> str:
    context = command.make_context(
        " ".join(words), [], resilient_parsing=True, terminal_width=100, max_content_width=100
    )
    return command.get_help(context)
