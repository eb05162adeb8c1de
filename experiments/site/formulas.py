"""LaTeX as MathML, which browsers show without scripts or fonts from elsewhere."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)
AS_DOCUTILS_KNOWS_IT: list[tuple[re.Pattern[str], str]] = [  # LaTeX that it does not take, and the same as it does
    (re.compile(r"\\(?:begin|end)\{equation\*?\}"), ""),
    (re.compile(r"\\(begin|end)\{(?:align|alignat|eqnarray|split|gather)\*?\}"), r"\\\1{aligned}"),
    (re.compile(r"\\([dt]?frac)(\d)(\d)"), r"\\\1{\2}{\3}"),
    (re.compile(r"\\(?:text|display)style\b"), ""),
    (re.compile(r"\\dots\b"), r"\\ldots"),
    (re.compile(r"(\\(?:hat|vec|overline)\{[^{}]*\})(?=[_^])"), r"{\1{}}"),  # or the index stands under the accent
    (re.compile("''"), r"^{\\prime\\prime}"),
    (re.compile("'"), r"^{\\prime}"),
]
BARS = re.compile(r"<mo(?![^>]*stretchy)([^>]*)>([‖|])</mo>")


def mathml(latex: str, block: bool) -> str:
    """The formula in MathML; raises MathError if a command or an environment is not known."""
    for pattern, replacement in AS_DOCUTILS_KNOWS_IT:
        latex = pattern.sub(replacement, latex)
    made = tex2mathml(latex, as_block=block).replace('class="ams-align"', 'class="ams-align" displaystyle="true"')
    return BARS.sub(r'<mo\1 stretchy="false">\2</mo>', made)  # as high as letters, whatever else is in the line


def visit(self, node: nodes.Node) -> None:
    block = isinstance(node, nodes.math_block)
    try:
        rendered = mathml(node.astext(), block)
    except MathError as error:
        logger.warning("formula not rendered: %s: %s", error, node.astext(), location=node)
        rendered = self.encode(node.astext())
    self.body.append(f'<div class="math">{rendered}</div>' if block else rendered)
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (visit, None), (visit, None))
