"""What is made while the site is built: its table of contents, and that of the experiments with their run times."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp

import fnn
from experiments import pages, table

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parent
ROOT = EXPERIMENTS.parent
MODULES = sorted(path.stem for path in (HERE / "api").glob("*.md") if path.stem != "fnn")


def tree(caption: str, pages: list[str]) -> str:
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


def contents() -> str:
    """The tree behind the README, which is the first page."""
    notebooks = sorted(path.stem for path in EXPERIMENTS.glob("notebooks/*.ipynb"))
    index = ["README"] if (EXPERIMENTS / "notebooks" / "README.md").exists() else []
    programs = [
        "experiments/README",
        "experiments/site/experiments",
        "experiments/scaling",
        "experiments/site/growth",
        "experiments/gallery/README",
        "experiments/equations",
        "experiments/audit",
    ]
    programs += ["experiments/benchmarks/README", "experiments/data/mnist/README"]
    trees = [
        (
            "Start",
            [f"experiments/site/{name}" for name in ("tour", "training", "coming", "questions", "pages")],
        ),
        (
            "Formulas and notebooks",
            ["experiments/site/formulas", *(f"experiments/notebooks/{name}" for name in index + notebooks)],
        ),
        (
            "Checking derivations",
            [f"experiments/site/{name}" for name in ("kernels", "derivation", "teaching", "checkers")],
        ),
        ("Reference", ["fnn <experiments/site/api/fnn>", *(f"experiments/site/api/{name}" for name in MODULES)]),
        ("Experiments", programs),
        ("About", ["experiments/site/comparison", "CONTRIBUTING", "CHANGELOG"]),
    ]
    return "\n\n" + "\n".join(tree(caption, pages) for caption, pages in trees)


def experiments() -> str:
    """Every program that leaves a record: what it does, how long it takes, and where its figures are."""
    lines = ["| command | what it does | run time |\n|---|---|---|\n"]
    for record in table.kept():
        name = record["experiment"]
        link = f"[`{record['command']}`](../gallery/README.md#{anchor(name)})"
        lines.append(table.markdown_row((link, purpose(name), table.duration(record))) + "\n")
    return "".join(lines)


def purpose(name: str) -> str:
    """The first sentence of the program's docstring, without its command."""
    path = EXPERIMENTS / name.replace(".", "/")
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return re.sub(r"[:,]? *``python -m[^`]*``", "", " ".join(first.split())).replace("``", "`")


def pictures() -> str:
    """The pictures of the gallery, small, each a link to its section."""
    figures = []
    for record in table.kept():
        name = record["experiment"]
        if (table.GALLERY / f"{name}.png").exists():
            caption = f"[{name}](../gallery/README.md#{anchor(name)})"
            figures.append(f":::{{figure}} ../gallery/{name}.png\n:alt: {name}\n\n{caption}\n:::\n")
    return "::::{container} pictures\n" + "\n".join(figures) + "::::\n"


def anchor(name: str) -> str:
    """Of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-")


def explanation() -> str:
    """The example on the page of formulas."""
    params = fnn.init(jax.random.key(0), (3, 4, 2), output=fnn.Sigmoid())
    return fnn.explain(params, jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 1.0])).latex()


def interactive() -> str:
    """The first of the interactive pages, and links to all; they are written when the site is."""
    first, *_ = pages.PAGES
    frame = f'<iframe class="page" src="../../pages/{pages.file_name(first)}" title="{pages.title(first)}"></iframe>'
    items = []
    for make in pages.PAGES:
        name, _, said = pages.title(make).partition(": ")
        items.append(f'<li><a href="../../pages/{pages.file_name(make)}">{name}</a>: {said}</li>')
    return f"{frame}\n\n<ul>\n" + "\n".join(items) + "\n</ul>\n"


def write_pages(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        pages.write(Path(app.outdir) / "pages")


MADE = {
    "<!-- pages -->": interactive,
    "<!-- experiments -->": experiments,
    "<!-- pictures -->": pictures,
    "<!-- explanation -->": explanation,
}


def read(app, docname: str, source: list[str]) -> None:
    if docname == app.config.root_doc:
        source[0] += contents()
    for mark, make in MADE.items():
        if mark in source[0]:
            source[0] = source[0].replace(mark, make())


def setup(app) -> None:
    app.connect("source-read", read)
    app.connect("build-finished", write_pages)
