"""A notebook as a pair: NAME.md in MyST Markdown, which is its source, and NAME.ipynb, which Jupyter and Colab open."""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
TIMEOUT = 120  # seconds for one cell: a whole notebook is to take less than 40
HIDDEN = re.compile(r"(?s)<details>\n<summary>Solution.*?</details>")
CODE = re.compile(r"(?s)```python\n(.*?)\n```")
NOISE = {
    "a path of this machine": re.compile(r"(?<![\w/.:])/(?:home|root|tmp|Users|opt|usr|var|private|mnt|work)/[\w.-]+"),
    "an address in memory": re.compile(r"\bat 0x[0-9a-f]{6,}"),
}


def names() -> list[str]:
    """All notebooks, in the order in which they are read."""
    return sorted(path.stem for path in FOLDER.glob("[0-9]_*.md"))


def source(name: str) -> NotebookNode:
    """The notebook that NAME.md says, without outputs."""
    notebook = jupytext.read(FOLDER / f"{name}.md")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02}"  # jupytext draws them at random
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def executed(notebook: NotebookNode, installed: bool = False) -> NotebookNode:
    """The notebook with its outputs, from a kernel of its own in an empty folder; raises where a cell does.

    installed: whether the kernel imports the fnn that is installed, and not that of the repository. What differs from
    run to run, times and the versions of the kernel, is not in the result.
    """
    metadata = notebook.metadata.copy()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {} if installed else {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,  # or the number of pieces in which a text arrives would depend on the moment
            resources={"metadata": {"path": folder}},
            config=Config(KernelManager={"transport_encryption": "auto"}),  # else the kernel warns that there is none
        ).execute(env=environment)
    notebook.metadata = metadata
    nbformat.validate(notebook)
    return notebook


def write(name: str) -> Path:
    """Write NAME.ipynb, without outputs: the site has the notebook as it runs today."""
    path = FOLDER / f"{name}.ipynb"
    path.write_text(nbformat.writes(source(name)) + "\n")
    return path


def exercises(notebook: NotebookNode) -> list[range]:
    """Where the exercises are: of each the numbers of its cells, the blank to fill and those that grade it."""
    cells, found = notebook.cells, []
    for start, cell in enumerate(cells):
        if "blank" in cell.metadata.get("tags", ()):
            end = next(i for i in range(start, len(cells)) if cells[i].cell_type != "code")
            found.append(range(start, end))
    return found


def solutions(notebook: NotebookNode) -> list[str]:
    """The code of the hidden solutions, in the order of the exercises."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [CODE.search(hidden)[1] for hidden in HIDDEN.findall(text)]  # type: ignore[index]


def disagreements(name: str) -> list[str]:
    """What is wrong with a pair as it lies there: other cells, outputs, which belong to the site, or noise."""
    path = FOLDER / f"{name}.ipynb"
    if not path.exists():
        return [f"{path.name} is missing"]
    notebook = nbformat.read(path, as_version=4)
    kept, said = ([(cell.cell_type, cell.source) for cell in of.cells] for of in (notebook, source(name)))
    wrong = [
        f"cell {number} of {path.name} is not that of {name}.md"
        for number, (a, b) in enumerate(zip(kept, said))
        if a != b
    ]
    if len(kept) != len(said):
        wrong.append(f"{path.name} has {len(kept)} cells, and {name}.md {len(said)}")
    if any(cell.get("outputs") for cell in notebook.cells):
        wrong.append(f"{path.name} has outputs")
    return wrong + list(noise(notebook))


def noise(notebook: NotebookNode) -> Iterator[str]:
    """Paths and addresses in the cells and in what they print, each with its cell."""
    for number, cell in enumerate(notebook.cells):
        for text in texts(cell):
            for what, pattern in NOISE.items():
                if found := pattern.search(text):
                    yield f"cell {number} holds {what}: {found[0]}"


def texts(cell: NotebookNode) -> Iterator[str]:
    """A cell's source and outputs, except for pictures."""
    yield cell.source
    for output in cell.get("outputs", ()):
        yield output.get("text", "")
        yield from output.get("traceback", ())
        yield from (data for kind, data in output.get("data", {}).items() if not kind.startswith("image/"))
