"""LaTeX as MathML, which browsers show without scripts or fonts from elsewhere."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)
ALIGNED = re.compile(r"\\(begin|end)\{(?:align|alignat|eqnarray|split|gather)\*?\}")
SINGLE = re.compile(r"\\(?:begin|end)\{equation\*?\}")


def mathml(latex: str, block: bool) -> str:
    """The formula in MathML; raises MathError if a command or an environment is not known."""
    latex = ALIGNED.sub(r"\\\1{aligned}", SINGLE.sub("", latex))
    return tex2mathml(re.sub(r"'+", lambda primes: r"^{" + r"\prime" * len(primes[0]) + "}", latex), as_block=block)


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
