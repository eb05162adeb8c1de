"""Sphinx's configuration. The source folder is the repository: every page is where what it documents is."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

import fnn  # noqa: E402
from experiments.site import contents, docstrings, fonts, formulas, references, typeset  # noqa: E402

project, author, release = "fnn", "", fnn.__version__
html_title = f"fnn {release}"
html_show_copyright = html_show_sphinx = html_copy_source = html_show_sourcelink = False
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "myst_nb", "sphinx_copybutton"]

root_doc = "README"
html_additional_pages = {"index": "redirect.html"}
templates_path, html_static_path, html_css_files = ["."], ["style.css"], ["style.css"]
notebooks = {
    path.with_suffix(".md").relative_to(ROOT).as_posix() for path in ROOT.glob("experiments/notebooks/*.ipynb")
}
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "experiments/*.md",
    "experiments/**/*.md",
    "experiments/notebooks/*.ipynb",
]
exclude_patterns = [".*", "build", "dist", "runs", "**/.ipynb_checkpoints", *notebooks]  # the .ipynb is shown

html_theme = "furo"
pygments_style, highlight_language = "tango", "text"
html_math_renderer = "mathml"
smartquotes = False  # "mean" is what one types

myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
copybutton_prompt_text, copybutton_prompt_is_regexp = r">>> |\.\.\. |\$ ", True  # what is copied runs
nb_execution_mode, nb_execution_in_temp, nb_execution_timeout = "force", True, 600
nb_execution_raise_on_error = True
os.environ["PYTHONPATH"] = str(ROOT)  # for the notebooks' kernel
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # a method without words of its own is described where its base is
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
viewcode_line_numbers = True
nitpick_ignore = [("py:class", name) for name in references.ELSEWHERE]


def setup(app):
    for part in (contents, docstrings, fonts, formulas, references, typeset):
        part.setup(app)
