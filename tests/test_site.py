"""The documentation: every public name has its place, every link inside the repository leads somewhere."""

import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import browser
import fnn
from experiments.site import docstrings

pytestmark = pytest.mark.project
ROOT = Path(__file__).parent.parent
SITE = ROOT / "experiments" / "site"
PAGES = {page.stem: page.read_text() for page in (SITE / "api").glob("*.md")}
MODULES = sorted(
    path.stem if path.name != "__init__.py" else path.parent.name
    for path in (*ROOT.glob("fnn/*.py"), *ROOT.glob("fnn/*/__init__.py"))
    if path != ROOT / "fnn" / "__init__.py" and "\n__all__ = " in path.read_text()
)
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("experiments/**/*.md")]
LINK = re.compile(r"\[[^\]]*\]\(<?([^)>\s]+)>?\)")
HEADING = re.compile(r"(?m)^#+ +(.+)$")


@pytest.mark.parametrize("name", MODULES)
def test_every_public_module_has_a_page_with_all_that_is_public(name):
    assert f".. automodule:: fnn.{name}\n   :members:\n" in PAGES[name], f"write experiments/site/api/{name}.md"
    if name == "sklearn":
        pytest.importorskip("sklearn", reason="the extra sklearn is not installed")
    module = importlib.import_module(f"fnn.{name}")
    assert len(set(module.__all__)) == len(module.__all__) > 0
    assert not [public for public in module.__all__ if not described(name, public)]


def described(name: str, public: str) -> bool:
    """Whether the page has its own words for it, or it is a function, class or exception with a docstring."""
    value = getattr(importlib.import_module(f"fnn.{name}"), public)
    if isinstance(value, type) or inspect.isroutine(value):
        return bool(inspect.getdoc(value))
    return re.search(rf"\.\. py:\w+:: {public}\n   :module: fnn\.{name}\n\n   \w", PAGES[name]) is not None


def test_every_name_of_fnn_is_on_its_page():
    named = re.findall(
        r"(?::\w+:`~?|auto\w+:: |py:\w+:: )(?:fnn\.)?(?:(?:activations|losses)\.)?(\w+)`?(?=[,.;\s])", PAGES["fnn"]
    )
    assert set(fnn.__all__) <= set(named)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_examples_of_a_page_run_with_the_imports_that_it_names(name):
    (assumed,) = re.findall(r"(?m)^The examples assume (.*)\.$", PAGES[name])
    module = fnn if name == "fnn" else pytest.importorskip(f"fnn.{name}", reason="an extra is not installed")
    names: dict = {}
    exec("\n".join(re.findall(r"`(.*?)`", assumed)), names)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(optionflags=flags)
    for public in module.__all__:
        value = getattr(module, public)
        for example in finder.find(value, public, globs=names) if callable(value) else ():
            runner.run(example)
    assert runner.summarize().failed == 0


def test_every_page_of_the_reference_is_of_a_module():
    assert set(PAGES) == {"fnn", *MODULES}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_repository_lead_to_a_file_and_a_heading(document):
    for target in links(document):
        if target.startswith(("http://", "https://", "mailto:")):
            assert re.fullmatch(r"https://[\w.-]+\.\w+(/[\w./#%~?=&+,-]*)?", target), target
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if anchor and file.suffix == ".py":
            assert 1 <= int(anchor.removeprefix("L")) <= len(file.read_text().splitlines()), target
        elif anchor:
            assert anchor in headings(file), target


def links(document: Path) -> list[str]:
    """The targets of its Markdown links and pictures, those in code aside."""
    text = re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", "", document.read_text())
    return LINK.findall(text)


def headings(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    titles = (title.lower().replace("`", "") for title in HEADING.findall(document.read_text()))
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}


def test_the_check_of_links_finds_a_broken_one(tmp_path):
    broken = tmp_path / "broken.md"
    broken.write_text("# A title\n[here](#a-title) [there](#nowhere) `[code](gone.md)` ![picture](gone.png)\n")
    assert links(broken) == ["#a-title", "#nowhere", "gone.png"]
    assert headings(broken) == {"a-title"}


def test_docstrings_become_restructured_text_that_says_the_same():
    text = """First |x| of W_ and a*.

params: a tuple; y_bar, x: arrays of :class:`Dense` or ``W * b``. other: no argument.
    L = a * b

    x   (B, n)     what comes in

>>> 1 + 1
2

Raises:
    ValueError: x_0 is
        wrong.
"""
    made = docstrings.rest(text, {"params", "x", "y_bar"})
    assert "First \\|x\\| of W\\_ and a\\*." in made
    assert "**params**: a tuple; **y\\_bar**, **x**: arrays of :class:`Dense` or ``W * b``. other: no" in made
    assert ".. code-block:: text\n\n   L = a * b\n\n   x   (B, n)     what comes in\n" in made
    assert ".. code-block:: pycon\n\n   >>> 1 + 1\n   2\n" in made
    assert made.endswith("Raises ValueError: x\\_0 is wrong.\n")


class Page(HTMLParser):
    """The places of a page, and what it points to."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src"):
                self.targets.add(value)


def broken(pages: dict[Path, Page]) -> list[str]:
    """Every link of a built page that leads to no file, or to no place in its page."""
    found = []
    for path, page in pages.items():
        for target in page.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            place = unquote(url.fragment)
            if not file.exists() or (place and file in pages and place not in pages[file].ids):
                found.append(f"{path.name}: {target}")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The site, and what its program said."""
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    site = tmp_path_factory.mktemp("site")
    code = (
        "import sys; from pathlib import Path; from experiments.site.__main__ import build; "
        "sys.exit(build(Path(sys.argv[1])))"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, site], cwd=ROOT, env=environment, capture_output=True, text=True)
    return site, done


@pytest.mark.process
@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_the_network_for_nothing(built):
    site, done = built
    assert done.returncode == 0, done.stderr
    pages = [page.resolve() for page in site.rglob("*.html")]
    assert len(pages) > len(MODULES) + 10
    assert not broken({page: Page(page) for page in pages})
    loaded = r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?:https?:)?//"
    assert not [page for page in pages if re.search(loaded, page.read_text())]
    for name in MODULES:
        page = (site / f"experiments/site/api/{name}.html").read_text()
        public = importlib.import_module(f"fnn.{name}").__all__
        assert not [one for one in public if f'id="fnn.{name}.{one}"' not in page]
    assert "<math" in (site / "experiments/site/formulas.html").read_text()


WIDTHS = (360, 390, 768, 1024, 1366, 1440, 1600)
WIDER = """[document.documentElement, ...document.querySelectorAll(".content")].filter(
    part => part.scrollWidth > Math.min(part.clientWidth, innerWidth)).length > 0"""


@pytest.mark.process
@pytest.mark.slow
@browser.needs_browser
def test_no_page_is_wider_than_its_window(built, tmp_path):
    site, _ = built
    wider = []
    with browser.opened(tmp_path) as tab:
        for page in sorted(set(site.rglob("*.html")) - {site / "index.html"}):  # that one leads on to README.html
            tab.open(page)
            for width in WIDTHS:
                tab.look(width)
                if tab.evaluate(WIDER):
                    wider.append(f"{page.relative_to(site)} at {width} px")
    assert not wider


@pytest.mark.process
@pytest.mark.slow
@browser.needs_browser
def test_formulas_are_set_in_the_font_that_the_site_ships(built, tmp_path):
    site, _ = built
    with browser.opened(tmp_path) as tab:
        tab.open(site / "experiments/site/formulas.html")
        loaded = "document.fonts.ready.then(() => [...document.fonts].map(font => `${font.family}: ${font.status}`))"
        assert tab.evaluate(loaded) == ["Mathematics: loaded"]
        assert tab.evaluate("getComputedStyle(document.querySelector('math')).fontFamily").startswith("Mathematics")


def test_that_font_has_a_prime_the_letters_of_the_equations_and_brackets_of_any_height(tmp_path):
    pytest.importorskip("ziamath", reason="the extra docs is not installed")
    from fontTools.ttLib import TTFont

    from experiments.site import fonts

    fonts.write(tmp_path / fonts.NAME)
    needed = {*map(ord, "σ′δ∂ℓλψ⊙∑∇≤−"), 0x1D6FF, 0x1D70E}  # the last two are italic δ and σ
    with TTFont(tmp_path / fonts.NAME) as font:
        assert needed <= set(font.getBestCmap())
        assert font["MATH"].table.MathVariants.VertGlyphCoverage.glyphs


@pytest.mark.process
@browser.needs_browser
def test_the_measure_of_width_finds_a_page_that_is_too_wide(tmp_path):
    page = tmp_path / "wide.html"
    frame = '<meta name="viewport" content="width=device-width"><div class="content" style="width: 100%; {}">{}</div>'
    inner = '<div style="width: 1000px">wide</div>'
    found = []
    with browser.opened(tmp_path / "profile") as tab:
        for style, text in (("", ""), ("", inner), ("overflow-x: auto", inner)):
            page.write_text(frame.format(style, text))
            tab.look(768)
            tab.open(page)
            found.append(tab.evaluate(WIDER))
    assert found == [False, True, True]
