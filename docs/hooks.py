"""What the site takes from elsewhere in the repository, added while it is built; nothing of it is kept twice.

Notebooks and figures come from `tutorials/`, figures of benchmarks from `tests/benchmarks/results/`, the pages of `PAGES` from
the Markdown files that a code host shows, the API pages from docstrings. Links are written as they are on a code host, from
file to file, and become links from page to page here.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[1]
sys.path.insert(0, str(HERE))

import api  # noqa: E402  (beside this file)

FIGURES = {"tutorials": "tutorials", "benchmarks/figures": "tests/benchmarks/results"}
PAGES = {"how-it-works.md": "emuinfer/README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
CODE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files, config):
    sys.path.insert(0, str(ROOT))  # the site describes this checkout, whatever is installed
    for notebook in sorted((ROOT / "tutorials").glob("*.ipynb")):
        # Not `File.generated`, whose files mkdocs-jupyter cannot read.
        files.append(File(f"tutorials/{notebook.name}", str(ROOT), config.site_dir, config.use_directory_urls))
    for folder, place in FIGURES.items():
        for figure in sorted((ROOT / place).glob("*.png")):
            files.append(File.generated(config, f"{folder}/{figure.name}", abs_src_path=str(figure)))
    for name, source in PAGES.items():
        path = ROOT / source
        text = path.read_text(encoding="utf-8") if path.exists() else f"# {source}\n\nNot in this checkout.\n"
        files.append(File.generated(config, name, content=text))
    for name, content in api.pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    name = page.file.src_uri
    source = PAGES.get(name, f"docs/{name}")

    def link(match):
        text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, hash_sign, anchor = target.partition("#")
        there = _page_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        if there is None:  # a file that has no page here
            return text[1:-1]
        return f"{text}({posixpath.relpath(there, posixpath.dirname(name) or '.')}{hash_sign}{anchor})"

    parts = CODE.split(markdown)  # every second one is code
    return "".join(part if i % 2 else LINK.sub(link, part) for i, part in enumerate(parts))


def _page_of(path) -> str | None:
    """Where a file of the repository is in the site."""
    folder, base = posixpath.split(path)
    for page, source in PAGES.items():
        if path == source:
            return page
    for place, source in FIGURES.items():
        if folder == source and base.endswith((".png", ".ipynb")):
            return f"{place}/{base}"
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def on_page_content(html, page, config, files):
    """Links between notebooks lead to their pages."""
    if page.file.src_uri.endswith(".ipynb"):
        return re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', html)
    return html
