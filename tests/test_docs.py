"""The documentation: it builds offline in strict mode, its numbers are those of the saved results, and its messages those of the code."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

if not DOCS.is_dir():
    pytest.skip("docs/ is not beside the tests", allow_module_level=True)


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Its warnings are errors."""
    for package in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_needs_no_other_server(site):
    tags = r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    loaded = re.compile(tags + r"""|<link\b[^>]*\bhref=["']?(?:https?:)?//|@import\s+(?:url\()?["']?(?:https?:)?//""")
    for page in site.rglob("*.html"):
        found = loaded.search(page.read_text(encoding="utf-8"))
        assert not found, f"{page.relative_to(site)} loads {found[0]}"


def test_site_has_every_page_of_the_menu_and_figures(site):
    for page in ("index", "limits", "how-it-works", "changelog", "contributing", "api/command-line", "how-to/warnings"):
        assert (site / f"{page}.html").exists()
    assert len(list(site.glob("tutorials/*.html"))) == 7
    assert len(list(site.glob("benchmarks/figures/*.png"))) >= 10


def test_reference_shows_all_public_names(site):
    import emuinfer

    api = _docs_module("api")
    shown = (site / "api" / "index.html").read_text(encoding="utf-8")
    missing = [n for n in emuinfer.__all__ if n != "__version__" and f"ei.{n}<" not in shown]
    assert not missing
    folders = {
        "emuinfer." + p.parent.relative_to(ROOT / "emuinfer").as_posix().replace("/", ".")
        for p in (ROOT / "emuinfer").glob("*/**/__init__.py")
    }
    public = {f for f in folders if api.public_names(importlib.import_module(f))}
    assert public - {"emuinfer.cli", "emuinfer.recipes"} <= {f"emuinfer.{f}" for f in api.FOLDERS}


def _docs_module(name):
    """A module of `docs/`, which is no package."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))


# Numbers


def test_pages_have_the_numbers_of_the_saved_results():
    pytest.importorskip("astropy")
    for page, text in _docs_module("benchmarks").pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name} is stale: run python docs/benchmarks.py"


def test_numbers_of_the_readme():
    benchmarks = _docs_module("benchmarks")
    fields = (
        "{{ card[held_out_error][native][all][mae]:.5f }}, {{ card[held_out_error][R=40000][all][mae]:.5f }}",
        "{{ curve[Gaussian processes, with simple physics][30]:.4f }}, {{ curve[Gaussian processes][30]:.4f }}",
        "{{ reduced[rows][the same, compressed][gradient_ms]:.3f }} ms",
        "| {{ samplers[rows][nuts][ess_per_second]:.0f }} |",
        "| {{ many.stars_per_second:.1f }} |",
        "| {{ bounds.ours:.1%}} |",
        "{{ bounds.least:.3f }} to {{ bounds.most:.3f }}",
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for field in fields:
        assert benchmarks.filled(field) in readme, field
    inside = benchmarks.values()["calibration"].on["all"]
    for share, error in (
        (inside.coverage_68, inside.coverage_68_error),
        (inside.coverage_95, inside.coverage_95_error),
    ):
        assert f"{100 * share:.1f} ± {100 * error:.1f}" in readme


def test_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 90
    for target in re.findall(r"\]\(([^)\s#]+)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target


# Warnings


def sentences():
    """All texts in the code, with `…` for what is filled in."""
    found = []
    for path in (ROOT / "emuinfer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("page", ["how-to/warnings.md", "how-to/troubleshooting.md"])
def test_quoted_messages_are_those_of_the_code(page):
    code = sentences()
    quoted = re.findall(r"“([^”]+)”", (DOCS / page).read_text(encoding="utf-8"))
    assert len(quoted) > 5
    for quotation in quoted:
        pieces = [piece.strip(" .:,()[]") for piece in re.split("…", quotation)]
        pieces = [piece for piece in pieces if len(piece) > 3]
        for piece in pieces:
            assert any(piece in text for text in code), f"{page}: “{quotation}” is not in the code"


def test_warnings_page_names_all_flags_and_checks():
    from emuinfer.survey.summary import FLAGS

    page = (DOCS / "how-to" / "warnings.md").read_text(encoding="utf-8")
    for name, bit in FLAGS.items():
        assert f"| `{name}` | {bit} |" in page
    checks = re.search(r"Checks: (.*?)\. Numbers", " ".join(_check_grid().split()))[1]
    for name in re.findall(r"`([a-z ]+)`", checks):
        assert f"| `{name}` |" in page


def _check_grid():
    from emuinfer.grids import check_grid

    return check_grid.__doc__


def test_samplers_page_names_all_samplers():
    from emuinfer.samplers import SAMPLERS

    page = (DOCS / "how-to" / "samplers.md").read_text(encoding="utf-8")
    assert all(f"**`{name}`**" in page for name in SAMPLERS)
