"""Run the tutorials at full length and keep their outputs: `python docs/refresh_tutorials.py [01_first_fit …]`.

A code host and the site show the notebooks as this leaves them. Each runs in a folder of its own that is thrown away; a notebook
that fails is left as it was. Progress bars are dropped, and what would differ in every run (times, memory addresses, numbers
of tables), so that a difference in the repository is one of results. Needs the extra `test`; the notebooks say how long they take.
"""

import argparse
import base64
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
LARGE = 300_000  # bytes of a figure above which it gets a palette
VOLATILE = (
    (re.compile(r"table\d{6,}(-\d+)?"), "table"),  # astropy
    (re.compile(r" at 0x[0-9a-f]+"), ""),
    (re.compile(r"/tmp/[^\s'\"]*/"), ""),
)


def run(path: Path) -> float:
    """Execute a notebook and write it back with its outputs; returns the seconds that it took."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook, timeout=None, kernel_name="python3", record_timing=False, resources={"metadata": {"path": folder}}
        )
        client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [cleaned(output) for output in joined(cell.outputs) if not is_progress(output)]
    notebook.metadata = {k: notebook.metadata[k] for k in ("kernelspec", "language_info") if k in notebook.metadata}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)
    return time.perf_counter() - begin


def joined(outputs):
    """Neighbouring pieces of one stream as one."""
    found = []
    for output in outputs:
        if output.output_type == "stream" and found and found[-1].get("name") == output.name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def is_progress(output) -> bool:
    """Progress goes to standard error. It is shown to whoever runs this, as a warning may be among it."""
    if output.output_type != "stream" or output.name != "stderr":
        return False
    print(re.sub(r"[^\n]*\r", "", output.text), end="", file=sys.stderr)
    return True


def cleaned(output):
    if output.output_type == "stream":
        output.text = without_volatile(output.text)
    for kind, content in output.get("data", {}).items():
        if kind == "image/png":
            output.data[kind] = smaller(content)
        elif isinstance(content, str):
            output.data[kind] = without_volatile(content)
    output.get("metadata", {}).clear()
    return output


def without_volatile(text: str) -> str:
    for pattern, replacement in VOLATILE:
        text = pattern.sub(replacement, text)
    return text


def smaller(png: str) -> str:
    """A large figure with a palette of 128 colours: a third of the size, and the same to the eye."""
    content = base64.b64decode(png)
    if len(content) <= LARGE:
        return png
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").quantize(128).save(out, format="png", optimize=True)
    return base64.b64encode(out.getvalue()).decode() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks, without their ending; all by default")
    names = parser.parse_args().names or sorted(p.stem for p in TUTORIALS.glob("*.ipynb"))
    os.environ.pop("EMUINFER_TUTORIAL_FAST", None)
    os.environ.pop("MPLBACKEND", None)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for name in names:
        path = TUTORIALS / f"{name}.ipynb"
        seconds = run(path)
        print(f"{name}: {seconds / 60:.1f} minutes, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
