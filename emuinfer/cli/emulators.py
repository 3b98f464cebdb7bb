"""`emuinfer emulators`: which emulators there are, and what is worth knowing of one."""

import json
import textwrap
from types import SimpleNamespace
from typing import Annotated

import typer

from ..labels.space import LabelSpace
from ..labels.windows import window_of, window_of_emulator
from .options import console

INDENT = 14  # of running text, beside its heading
BEST = 4  # of the methods to compare with
# What is shown in its own place, or only by --json.
SHOWN = {
    "format", "format_version", "kind", "config", "labels", "wavelength_range", "wavelength_unit", "medium", "hash",
    "weights_sha256", "parameters", "title", "recipe", "training_settings", "grid", "split", "held_out_error", "validation",
    "baselines_R40000", "controls_R40000", "credit", "limits", "licence", "versions", "date",
}  # fmt: skip


def emulators(
    name: Annotated[
        str | None, typer.Argument(help="Name of a shipped emulator, or path of a card; all are listed without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole card as JSON.")] = False,
):
    """List the emulators with their windows of wavelength, or show the card of one.

    \b
    Examples:
      emuinfer emulators
      emuinfer emulators optical-fgk
    """
    from ..emulators import load_card

    if name is None:
        _list()
    elif as_json:
        print(json.dumps(load_card(name), indent=1))
    else:
        _show(name, load_card(name))


def _list():
    from ..emulators import list_emulators, load_card
    from ..emulators.storage import is_here

    known = list_emulators()
    if not known:
        print("No emulators ship with this installation. Train one with `emuinfer train`, or give the path of a card.")
    for name in known:
        if is_here(name):
            card = load_card(name)
            print(f"{name:<20} {_range(card)}, {len(card['labels']['names'])} labels  {card.get('title', '')}".rstrip())
        elif window := window_of_emulator(name):
            print(f"{name:<20} {window.describe()}, {len(window.label_space)} labels  (is fetched when first used)")


def _range(card):
    lo, hi = card["wavelength_range"]
    return f"{lo:g} to {hi:g} Å ({card['medium']})"


def _show(name, card):
    from ..emulators.storage import find_stem

    stem, space = find_stem(name, card_only=True), LabelSpace.from_json(card["labels"])
    weights = stem.with_name(stem.name + ".safetensors")
    described = SimpleNamespace(wavelength_range=card["wavelength_range"], medium=card["medium"], label_space=space)
    window = window_of(described)
    size = f", {weights.stat().st_size / 1e6:.1f} MB" if weights.exists() else " (weights are fetched when first used)"
    out = console()
    out.print(f"{card['title']}\n" if "title" in card else "", end="")
    _say(out, "window", f"{f'{window.name}: ' if window else ''}{_range(card)}")
    _say(out, "kind", f"{_kind(card)}, {card['parameters']:,} parameters{size}")
    _say(out, "hash", card["hash"])
    _show_labels(out, space)
    limits = card.get("limits", "")
    _say(out, "limits", limits if isinstance(limits, str) else " ".join(limits))
    _show_errors(out, card.get("held_out_error") or card.get("validation"))
    _show_error_model(out, stem)
    _show_baselines(out, card.get("baselines_R40000") or card.get("controls_R40000"))
    out.print()
    _show_making(out, card)
    for key, value in card.items():
        if key not in SHOWN:
            _say(out, key.replace("_", " "), _flat(value))
    out.print(f"All of the card: emuinfer emulators {name} --json")


def _say(out, heading, text):
    """A paragraph with a heading beside it."""
    if text:
        begin, width = f"{heading:<{INDENT - 1}} ", max(60, out.width)
        out.print(
            textwrap.fill(text, width, initial_indent=begin, subsequent_indent=" " * INDENT, break_on_hyphens=False)
        )


def _kind(card):
    config = card["config"]
    if card["kind"] != "transformer":
        return card["kind"]
    blocks = (
        f"{config['depth']} attention blocks of width {config['width']}" if config["depth"] else "no attention blocks"
    )
    return f"transformer: {blocks}, bilinear part of rank {config['rank']}"


def _table(out, title, columns, rows):
    """A table of texts, the first column to the left and the others to the right."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    out.print(f"\n{title}" if title else "")
    out.print(table)


def _show_labels(out, space):
    rows = [
        (name, f"{lo:g}", f"{hi:g}", unit)
        for name, unit, lo, hi in zip(space.names, space.units, space.lower, space.upper)
    ]
    _table(out, "", ("label", "lowest", "highest", "unit"), rows)
    if space.constraints:
        _say(out, "constraints", space.describe_constraints())


def _show_errors(out, errors):
    """Held-out errors: over all spectra and by region, at each sampling."""
    if not errors:
        return
    tables = {at: table for at, table in errors.items() if isinstance(table, dict) and "all" in table}
    if not tables:
        _say(out, "errors", _flat(errors))
        return
    first = next(iter(tables.values()))
    columns = ["", "spectra"] + [text for at in tables for text in (f"{at}: mean", "95 %")]
    rows = []
    for region in ("all", *first.get("regions", {})):
        found = [
            table["all"] if region == "all" else table.get("regions", {}).get(region, {}) for table in tables.values()
        ]
        numbers = [f"{f[key]:.5f}" if key in f else "" for f in found for key in ("mae", "p95")]
        rows.append((region, str(found[0].get("n", "")), *numbers))
    _table(out, "Absolute error of the normalised flux on spectra that were held out", columns, rows)


def _show_error_model(out, stem):
    """What the error model that lies beside the emulator covers of the held-out errors."""
    from ..emulators.uncertainty import uncertainty_files

    file = uncertainty_files(stem)[1]
    if not file.exists():
        return
    card = json.loads(file.read_text())
    covered = [
        f"{100 * table['all']['0.68']:.0f} and {100 * table['all']['0.95']:.0f} % ({at})"
        for at, table in card.get("held_out_coverage", {}).items()
        if "0.68" in table.get("all", {})
    ]
    text = f"{card.get('title', 'yes')}. "
    if covered:
        text += f"Of the held-out errors, its intervals of 68 and 95 % contain {', '.join(covered)}."
    _say(out, "error model", text)


def _show_baselines(out, baselines):
    """Other methods on the same spectra: mean absolute error by the number of spectra that they learned from."""
    if not baselines:
        return
    counts = sorted({n for errors in baselines.values() for n in errors}, key=int)
    ordered = sorted(baselines, key=lambda name: baselines[name].get(counts[-1], {}).get("mae", float("inf")))
    numbers = lambda errors: [f"{errors[n]['mae']:.5f}" if n in errors else "" for n in counts]
    rows = [(name, *numbers(baselines[name])) for name in ordered[:BEST]]
    title = (
        f"Other methods at R = 40,000: mean error by number of training spectra, the best {len(rows)} of {len(ordered)}"
    )
    _table(out, title, ("", *counts), rows)


def _show_making(out, card):
    recipe, grid = card.get("recipe"), card.get("grid")
    _say(out, "made by", recipe if isinstance(recipe, str) else _training(recipe or {}))
    if isinstance(grid, dict):
        counts = f"{grid['spectra']:,} spectra" if "spectra" in grid else ""
        counts += f", {grid['trained_on']:,} of them trained on" if "trained_on" in grid else ""
        _say(out, "grid", f"{grid.get('file', 'a grid')} (hash {str(grid.get('hash', '?'))[:16]}): {counts}")
    _say(out, "credit", card.get("credit", ""))
    versions = ", ".join(f"{name} {number}" for name, number in card.get("versions", {}).items())
    _say(out, "date", "; ".join(filter(None, (card.get("date", ""), versions, card.get("licence", "")))))


def _training(recipe) -> str:
    """The settings of a training in a sentence."""
    parts = []
    if "steps" in recipe:
        parts.append(f"{recipe['steps']:,} steps of {recipe.get('optimiser', 'training')}")
    if "spectra" in recipe and "pixels" in recipe:
        parts.append(f"{recipe['spectra']} spectra of {recipe['pixels']:,} pixels at each")
    if "learning_rate" in recipe:
        parts.append(f"learning rate {recipe['learning_rate']:g}")
    if recipe.get("held_out"):
        parts.append(f"{100 * recipe['held_out']:g} % held out")
    if recipe.get("init"):
        parts.append(f"from the weights of {recipe['init']['name']} ({recipe['init']['hash']})")
    if recipe.get("replayed"):
        parts.append(f"replaying {recipe['replayed']['file']}")
    if "seed" in recipe:
        parts.append(f"seed {recipe['seed']}")
    return ", ".join(parts) or _flat(recipe)


def _flat(value, name="") -> str:
    """Nested values in a line: `native mae: 0.00123, …`."""
    if isinstance(value, dict):
        return ", ".join(_flat(part, f"{name} {key}".strip()) for key, part in value.items())
    text = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return f"{name}: {text}" if name else text
