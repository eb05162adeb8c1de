"""From the docstrings' plain text to reStructuredText.

They are written to be read in an editor: formulas in Unicode, columns set by spaces, an indent for what must keep its
lines, ``name: meaning`` for arguments. So paragraphs with columns or an indent become literal blocks, what
reStructuredText would take for marks of its own is escaped, and the names of arguments are set in bold.
"""

import inspect
import re
from collections.abc import Collection, Iterator
from textwrap import dedent, indent

MARKED = re.compile(r"(``.+?``|:\w+:`[^`]+`|(?<![\w*])\*{1,2}\w[^*]*?\*{1,2}(?![\w*]))", re.DOTALL)
COLUMNS = re.compile(r"\S {3,}\S")
ARGUMENTS = re.compile(r"(?:(?<=^)|(?<=[;.] )|(?<=\n))((?:[\w\\]+,\s+)*[\w\\]+): ")


def rest(text: str, arguments: Collection[str] = ()) -> str:
    """A docstring, without its common indent, in reStructuredText; arguments: the names to be set in bold."""
    return "\n\n".join(converted(part, arguments) for part in parts(text)) + "\n"


def parts(text: str) -> Iterator[str]:
    """Paragraphs, an indented end of one apart from its beginning, and several indented ones in a row as one."""
    literal: list[str] = []
    for paragraph in re.split(r"\n[ \t]*\n", text.strip("\n")):
        for piece in (paragraph,) if keeps_together(paragraph) else re.split(r"\n(?= )", paragraph, maxsplit=1):
            if piece.startswith(" "):
                literal.append(piece)
                continue
            if literal:
                yield "\n\n".join(literal)
                literal = []
            yield piece
    if literal:
        yield "\n\n".join(literal)


def keeps_together(paragraph: str) -> bool:
    return paragraph.startswith(("- ", ">>> ", "Raises:")) or COLUMNS.search(paragraph) is not None


def converted(part: str, arguments: Collection[str]) -> str:
    if part.lstrip().startswith(">>> "):
        return ".. code-block:: pycon\n\n" + indent(dedent(part), "   ")
    if part.startswith("Raises:"):
        return "Raises " + escaped(" ".join(part.removeprefix("Raises:").split()))
    if part.startswith(" ") or COLUMNS.search(part):
        return ".. code-block:: text\n\n" + indent(dedent(part).replace("``", ""), "   ")
    return ARGUMENTS.sub(lambda match: bold(match, arguments), escaped(part))


def bold(match: re.Match, arguments: Collection[str]) -> str:
    names = match[1].replace("\\", "").replace(",", " ").split()
    if not set(names) <= set(arguments):
        return match[0]
    return ", ".join(f"**{name}**".replace("_", "\\_") for name in names) + ": "


def escaped(text: str) -> str:
    """The same text, its backslashes, asterisks, bars, underscores and backquotes as they stand; roles are kept."""
    pieces = MARKED.split(text)
    pieces[::2] = [re.sub(r"([\\*|_`])", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces)


def names(described) -> set[str]:
    """The names of a function's or class's arguments."""
    try:
        return set(inspect.signature(described).parameters)
    except (TypeError, ValueError):
        return set()


def process(app, what, name, described, options, lines: list[str]) -> None:
    lines[:] = rest("\n".join(lines), names(described)).split("\n")


def signature(app, what, name, described, options, arguments: str | None, returned: str | None):
    """A function that is a default value by its name alone."""
    return (re.sub(r"<function (\w+)[^>]*>", r"\1", arguments), returned) if arguments else None


def skip(app, what, name, described, skipped, options) -> bool | None:
    """The fields of a named tuple are described by the tuple itself."""
    return True if (getattr(described, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app) -> None:
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
