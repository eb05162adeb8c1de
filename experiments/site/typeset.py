"""What is written for plain text and looks otherwise on a page: x_0 and δ^ℓ, and the last empty line of code."""

import re

from docutils import nodes
from docutils.transforms import Transform

INDEX = re.compile(
    r"(?<![\w\\/.])(\w)([_^])(?:\{([^{}]+)\}|([A-Za-z0-9ℓ]{1,4}))(?!\w)(?:(\^)(?:\{([^{}]+)\}|([A-Za-z0-9ℓ])))?"
)
AS_WRITTEN = (nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.raw, nodes.math, nodes.math_block)
RAISED = {"^": nodes.superscript, "_": nodes.subscript}


class Indices(Transform):
    """One letter with an index, as n_0, W^{ℓ+1} or a_in, gets it below or above."""

    default_priority = 880

    def apply(self) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if INDEX.search(text.astext()) and not has_ancestor(text, AS_WRITTEN):
                text.parent.replace(text, typeset(text.astext()))


class LastLines(Transform):
    """No empty line at the end of a block of code."""

    default_priority = 880

    def apply(self) -> None:
        for block in self.document.findall(nodes.literal_block):
            if len(block) == 1 and block.astext().endswith("\n"):
                block.rawsource = block.astext().rstrip("\n")
                block.replace(block[0], nodes.Text(block.rawsource))


def has_ancestor(node: nodes.Node, kinds) -> bool:
    while (node := node.parent) is not None:
        if isinstance(node, kinds) or node.tagname.startswith("desc_sig"):
            return True
    return False


def typeset(text: str) -> list[nodes.Node]:
    made: list[nodes.Node] = []
    end = 0
    for match in INDEX.finditer(text):
        made.append(nodes.Text(text[end : match.start()] + match[1]))
        made.append(RAISED[match[2]]("", match[3] or match[4]))
        if match[5]:
            made.append(RAISED["^"]("", match[6] or match[7]))
        end = match.end()
    return [*made, nodes.Text(text[end:])]


def setup(app) -> None:
    app.add_transform(Indices)
    app.add_transform(LastLines)
